//! A reload changes nothing, or is on record and finished later.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;
use crate::{
    actors::policy::{PolicySetup, PolicyView, load},
    config::{self, SupervisionConfig},
    store::Store,
    supervision::Placement,
    telemetry::Metrics,
    types::{ManualClock, Timestamp},
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const DEADLINE: Duration = Duration::from_secs(30);

/// An actor whose settings change.
struct Stand;

impl Actor for Stand {
    type Context = Context<Self>;
}
supervised!(Stand);

impl Supervise for Stand {
    const NAME: &'static str = "reputation";
    type Observable = ();

    fn observe(&self) {}
}

struct House {
    dir: TempDir,
    root: Root,
    live: Publisher<Config>,
    view: Publisher<PolicyView>,
    events: Arc<Mutex<Vec<AuditEvent>>>,
    settings: ActorRef<SettingsActor>,
}

fn write(dir: &Path, text: &str) {
    fs::write(dir.join("node.toml"), text).unwrap();
}

fn house() -> House {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "");
    let loaded = config::load(Some(&dir.path().join("node.toml")), &[], &[]).unwrap();
    let (config, _) = derive(&loaded.config, Machine::read());
    let cpu = Duration::from_secs(60);
    let first = PolicyView::new(
        load(&config.policy, dir.path()).unwrap(),
        &config.policy,
        cpu,
    );
    let view = Publisher::new(first);
    let live = Publisher::new(config);
    let clock = Arc::new(ManualClock::at(NOW));
    let (store, _) = Store::open(&dir.path().join("state"), NOW).unwrap();
    let (root, _) = Root::new(&SupervisionConfig::default(), clock.clone(), true);
    let policy = PolicySetup {
        home: dir.path().to_owned(),
        max_cpu: cpu,
        aggregate: Duration::ZERO,
        clock,
        store,
        publisher: view.clone(),
        note: Arc::new(drop),
        metrics: Metrics::new(),
    };
    let policy = root.spawn(Placement::Shared, move |life| {
        Ok(PolicyActor::new(life, policy.clone()))
    });
    let events: Arc<Mutex<Vec<AuditEvent>>> = Arc::default();
    let told = Arc::clone(&events);
    let setup = SettingsSetup {
        loaded: Arc::new(loaded),
        live: live.clone(),
        root: root.clone(),
        log: LogFilter::none(),
        policy,
        note: Arc::new(move |event| told.lock().unwrap().push(event)),
        pending: Pending::default(),
    };
    let settings = root.spawn(Placement::Shared, move |life| {
        Ok(SettingsActor::new(life, setup.clone()))
    });
    House {
        dir,
        root,
        live,
        view,
        events,
        settings,
    }
}

impl House {
    async fn reload(&self) -> Result<SettingsReport, String> {
        self.settings.ask(ReloadSettings, DEADLINE).await.unwrap()
    }

    /// Whether one event has all these parts.
    fn told_all(&self, parts: &[&str]) -> bool {
        let events = self.events.lock().unwrap();
        let mut texts = events.iter().map(|event| format!("{event:?}"));
        texts.any(|text| parts.iter().all(|part| text.contains(part)))
    }

    fn told(&self, what: &str) -> usize {
        let events = self.events.lock().unwrap();
        let all = events.iter().filter(|e| format!("{e:?}").contains(what));
        all.count()
    }
}

#[actix::test]
async fn what_did_not_begin_anew_is_said_on_record_and_done_by_the_next_reload() {
    let house = house();
    write(house.dir.path(), "[reputation]\nban_below = 0.15");
    // There is no actor of that name yet: it cannot begin anew.
    let report = house.reload().await.unwrap();
    assert_eq!(report.restarted, [] as [String; 0]);
    assert_eq!(report.failed.len(), 1, "{report:?}");
    assert!(report.failed[0].contains("reputation"), "{report:?}");
    assert_eq!(house.told("SettingsChanged"), 1, "it is in force");
    assert_eq!(house.told("SettingsRefused"), 0);
    assert!(house.told_all(&["SettingsChanged", "applied: [\"reputation.ban_below\"]"]));
    assert!(house.told_all(&["SettingsTaken", "restarted: []", &report.failed[0]]));
    // Remembered also by another incarnation, though the file does not differ any more.
    let mut generation = house.settings.generation();
    let control = house.root.control("settings").unwrap();
    control.restart("test").unwrap();
    generation.wait_for(|now| *now == 2).await.unwrap();
    let stand = house.root.spawn(Placement::Shared, |_| Ok(Stand));
    let mut up = stand.generation();
    up.wait_for(|now| *now == 1).await.unwrap();
    let report = house.reload().await.unwrap();
    assert!(report.changes.is_empty(), "{report:?}");
    assert_eq!(report.restarted, ["reputation"]);
    assert!(report.failed.is_empty(), "{report:?}");
    assert!(house.told_all(&["SettingsTaken", "restarted: [\"reputation\"]", "failed: []"]));
    let report = house.reload().await.unwrap();
    assert!(report.restarted.is_empty(), "once: {report:?}");
}

#[actix::test]
async fn an_error_changes_nothing() {
    let house = house();
    let before = house.live.view().load();
    let policies = house.view.view().load().loaded.report.clone();
    let dir = house.dir.path().join("own");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a.cedar"), "permit (principal").unwrap();
    write(
        house.dir.path(),
        "[policy]\ndir = \"own\"\n[reputation]\nban_below = 0.15",
    );
    let why = house.reload().await.unwrap_err();
    assert!(why.contains("a.cedar"), "{why}");
    assert!(Arc::ptr_eq(&before, &house.live.view().load()));
    assert_eq!(house.view.view().load().loaded.report, policies);
    assert_eq!(house.told("SettingsRefused"), 1);
    assert_eq!(house.told("SettingsChanged"), 0);
}
