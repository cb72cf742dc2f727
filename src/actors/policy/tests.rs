//! Quarantines are durable and end; sets replace one another as a whole.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use tempfile::TempDir;

use super::*;
use crate::{
    identity::testing::node,
    messages::policy::{
        ListQuarantines, PreparePolicies, PreparedPolicies, PutInQuarantine, Quarantined, Release,
        SawOddity, TakePolicies,
    },
    supervision::{ActorRef, Placement, Root},
    trust::quarantine::QuarantineInfo,
    types::{ManualClock, Timestamp},
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const DEADLINE: Duration = Duration::from_secs(10);

struct House {
    dir: TempDir,
    clock: Arc<ManualClock>,
    publisher: Publisher<PolicyView>,
    events: Arc<Mutex<Vec<AuditEvent>>>,
    actor: ActorRef<PolicyActor>,
    root: Root,
    store: Store,
}

fn house() -> House {
    let dir = TempDir::new().unwrap();
    let clock = Arc::new(ManualClock::at(NOW));
    let config = PolicyConfig::default();
    let first = PolicyView::new(
        load(&config, dir.path()).unwrap(),
        &config,
        Duration::from_secs(60),
    );
    let publisher = Publisher::new(first);
    let events: Arc<Mutex<Vec<AuditEvent>>> = Arc::default();
    let (store, _) = Store::open(&dir.path().join("state"), NOW).unwrap();
    let told = Arc::clone(&events);
    let setup = PolicySetup {
        home: dir.path().to_owned(),
        max_cpu: Duration::from_secs(60),
        aggregate: Duration::ZERO,
        clock: clock.clone(),
        store: store.clone(),
        publisher: publisher.clone(),
        note: Arc::new(move |event| told.lock().unwrap().push(event)),
        metrics: Metrics::new(),
    };
    let supervision = crate::config::SupervisionConfig::default();
    let (root, _) = Root::new(&supervision, clock.clone(), true);
    let actor = root.spawn(Placement::Shared, move |life| {
        Ok(PolicyActor::new(life, setup.clone()))
    });
    House {
        dir,
        clock,
        publisher,
        events,
        actor,
        root,
        store,
    }
}

impl House {
    async fn list(&self) -> Vec<QuarantineInfo> {
        self.actor.ask(ListQuarantines, DEADLINE).await.unwrap()
    }

    fn told(&self, what: &str) -> usize {
        let events = self.events.lock().unwrap();
        let all = events.iter().filter(|e| format!("{e:?}").contains(what));
        all.count()
    }

    async fn load(&self, dir: &str) -> Result<PolicyReport, String> {
        let config = PolicyConfig {
            dir: dir.into(),
            ..PolicyConfig::default()
        };
        let prepare = PreparePolicies { config };
        let prepared = self.actor.ask(prepare, DEADLINE).await.unwrap()?;
        let ticket = prepared.ticket;
        let taken = self.actor.ask(TakePolicies { ticket }, DEADLINE).await;
        taken.unwrap()
    }
}

fn quarantined() -> Quarantined {
    Quarantined {
        peer: node().peer(),
        identity: None,
        rule: "deny.anomaly".into(),
    }
}

#[actix::test]
async fn a_quarantine_survives_the_actor_and_ends_with_its_time() {
    let house = house();
    house.actor.ask(quarantined(), DEADLINE).await.unwrap();
    house.actor.ask(quarantined(), DEADLINE).await.unwrap();
    let party = Party::Peer(node().peer());
    let all = house.list().await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].until, NOW.after(Duration::from_hours(1)));
    assert_eq!(house.told("QuarantineStarted"), 1, "once");
    // The view of the former incarnation is not what is read: the store is.
    house.publisher.publish(PolicyView {
        quarantines: Arc::default(),
        ..PolicyView::clone(&house.publisher.view().load())
    });
    house.begin_anew().await;
    assert_eq!(house.list().await, all);
    assert!(
        house
            .publisher
            .view()
            .load()
            .quarantines
            .get(&party)
            .is_some()
    );
    house.clock.advance(Duration::from_hours(2));
    assert!(house.list().await.is_empty(), "also before it is swept");
}

impl House {
    fn publish(&self, change: impl FnOnce(&mut PolicyView)) {
        let mut view = PolicyView::clone(&self.publisher.view().load());
        change(&mut view);
        self.publisher.publish(view);
    }

    async fn begin_anew(&self) {
        let mut generation = self.actor.generation();
        let control = self.root.control("policy").unwrap();
        control.restart("test").unwrap();
        generation.wait_for(|now| *now == 2).await.unwrap();
    }
}

fn entry(until: Timestamp) -> Entry {
    Entry {
        since: NOW,
        caused: NOW,
        until,
        reason: "deny.anomaly".to_owned(),
        rule: Some("deny.anomaly".to_owned()),
        released: false,
        by_operator: false,
        grant: None,
    }
}

#[actix::test]
async fn a_quarantine_that_could_not_be_stored_stays_in_force() {
    let house = house();
    house.actor.ask(quarantined(), DEADLINE).await.unwrap();
    // In effect, and not on the disk: as it is when its save failed.
    let party = Party::Peer(crate::identity::testing::mallory().peer());
    let mut all = Quarantines::clone(&house.publisher.view().load().quarantines);
    all.begin(party.clone(), entry(NOW.after(Duration::from_hours(1))));
    house.publish(|view| view.quarantines = Arc::new(all));
    house.begin_anew().await;
    assert_eq!(house.list().await.len(), 2);
    // And now it is on the disk, too.
    let tree: Tree<Entry> = house.store.tree(TREE, TREE_VERSION).unwrap();
    let key = party.to_string();
    assert!(tree.get(key.as_bytes()).unwrap().is_some());
}

#[actix::test]
async fn what_ended_while_it_was_down_is_told() {
    let house = house();
    house.actor.ask(quarantined(), DEADLINE).await.unwrap();
    house.clock.advance(Duration::from_hours(2));
    house.begin_anew().await;
    // By the new incarnation, or by the former one's tick: once.
    assert_eq!(house.told("QuarantineEnded"), 1);
    assert!(house.publisher.view().load().quarantines.is_empty());
    let tree: Tree<Entry> = house.store.tree(TREE, TREE_VERSION).unwrap();
    assert!(tree.scan(1).unwrap().is_empty());
}

#[actix::test]
async fn told_twice_it_costs_nothing() {
    let house = house();
    house.actor.ask(quarantined(), DEADLINE).await.unwrap();
    let (view, syncs) = (house.publisher.view().load(), house.store.syncs());
    // A little later: it would last longer, but not by much.
    house.clock.advance(Duration::from_mins(1));
    house.actor.ask(quarantined(), DEADLINE).await.unwrap();
    assert!(Arc::ptr_eq(&view, &house.publisher.view().load()));
    assert_eq!(house.store.syncs(), syncs);
    house.clock.advance(Duration::from_mins(30));
    house.actor.ask(quarantined(), DEADLINE).await.unwrap();
    let all = house.list().await;
    assert_eq!(all[0].until, NOW.after(Duration::from_mins(91)));
    assert_eq!(all[0].since, NOW);
}

#[actix::test]
async fn many_that_end_at_once_are_one_flush() {
    let house = house();
    // It runs: a restart before that would be none.
    assert!(house.list().await.is_empty());
    let until = NOW.after(Duration::from_hours(1));
    let mut all = Quarantines::default();
    for last in 0..50 {
        let party = Party::address([192, 0, 2, last].into());
        all.begin(party, entry(until));
    }
    house.publish(|view| view.quarantines = Arc::new(all));
    house.begin_anew().await;
    assert_eq!(house.list().await.len(), 50);
    let syncs = house.store.syncs();
    house.clock.advance(Duration::from_hours(2));
    let swept = || house.publisher.view().load().quarantines.is_empty();
    for _ in 0..1_000 {
        if swept() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(swept());
    // Answered when the sweep, flush included, is over.
    assert!(house.list().await.is_empty());
    assert_eq!(house.told("QuarantineEnded"), 50);
    assert_eq!(house.store.syncs(), syncs + 1);
}

#[actix::test]
async fn what_is_prepared_changes_nothing_until_it_is_taken() {
    let house = house();
    let before = Arc::clone(&house.publisher.view().load().loaded);
    let in_force = || Arc::clone(&house.publisher.view().load().loaded);
    let prepare = || PreparePolicies {
        config: PolicyConfig::default(),
    };
    let first = house.actor.ask(prepare(), DEADLINE).await.unwrap();
    assert!(Arc::ptr_eq(&before, &in_force()));
    let second = house.actor.ask(prepare(), DEADLINE).await.unwrap();
    let take = async |prepared: Result<PreparedPolicies, String>| {
        let ticket = prepared.unwrap().ticket;
        let taken = house.actor.ask(TakePolicies { ticket }, DEADLINE).await;
        taken.unwrap()
    };
    assert!(take(first).await.is_err(), "another came after it");
    assert!(take(second.clone()).await.is_ok());
    assert!(!Arc::ptr_eq(&before, &in_force()));
    assert!(take(second).await.is_err(), "once");
    // Two at once: the other is told so.
    let (one, other) = tokio::join!(
        house.actor.ask(prepare(), DEADLINE),
        house.actor.ask(prepare(), DEADLINE)
    );
    let refused = [one.unwrap(), other.unwrap()].into_iter();
    let refused: Vec<_> = refused.filter_map(Result::err).collect();
    assert_eq!(refused.len(), 1);
    assert!(refused[0].contains("try again"), "{refused:?}");
}

#[actix::test]
async fn the_operator_puts_in_and_releases() {
    let house = house();
    let party = Party::Peer(node().peer());
    let put = |party: Party| PutInQuarantine {
        parties: vec![party],
        span: Duration::from_secs(60),
        reason: "odd".to_owned(),
    };
    let put_in = house.actor.ask(put(party.clone()), DEADLINE).await.unwrap();
    assert_eq!(put_in.unwrap()[0].reason, "odd");
    let address = Party::address([192, 0, 2, 1].into());
    let refused = house.actor.ask(put(address), DEADLINE).await.unwrap();
    assert!(refused.unwrap_err().contains("only banned"));
    let parties = vec![party];
    let release = Release {
        parties: parties.clone(),
    };
    let released = house.actor.ask(release.clone(), DEADLINE).await.unwrap();
    assert_eq!(released, Ok(parties));
    let again = house.actor.ask(release, DEADLINE).await.unwrap();
    assert_eq!(again, Ok(Vec::new()));
    assert_eq!(house.told("QuarantineEnded"), 1);
}

#[actix::test]
async fn a_set_that_is_wrong_changes_nothing() {
    let house = house();
    let before = house.publisher.view().load().loaded.report.hash.clone();
    let dir = house.dir.path().join("own");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a.cedar"), "permit (principal, action").unwrap();
    let why = house.load("own").await.unwrap_err();
    assert!(why.contains("a.cedar"), "{why}");
    assert_eq!(house.publisher.view().load().loaded.report.hash, before);
    assert_eq!(house.told("PolicyRefused"), 1);
    let good = "@id(\"all\") permit (principal is Qb::Peer, action == Qb::Action::\"connect\", \
                resource is Qb::Node);";
    fs::write(dir.join("a.cedar"), good).unwrap();
    let report = house.load("own").await.unwrap();
    assert_eq!(report.policies, 1);
    assert_ne!(report.hash, before);
    assert_eq!(house.publisher.view().load().loaded.report, report);
    // A set whose own tests fail is not taken.
    let wrong = "[[test]]\nname = \"x\"\naction = \"connect\"\nexpect = \"deny\"\n\
                 principal = { tier = \"member\", issuer = \"acme\", subject = \"n\" }\n";
    fs::write(dir.join("a.test.toml"), wrong).unwrap();
    let why = house.load("own").await.unwrap_err();
    assert!(why.contains("the policy test `x` fails"), "{why}");
    assert_eq!(house.publisher.view().load().loaded.report, report);
    fs::remove_file(dir.join("a.test.toml")).unwrap();
    // What is on the disk later is not taken by an actor that begins anew.
    fs::write(dir.join("a.cedar"), "nonsense").unwrap();
    house.begin_anew().await;
    assert_eq!(house.publisher.view().load().loaded.report, report);
}

#[actix::test]
async fn oddities_are_told_in_sums() {
    let house = house();
    let oddity = Oddity::Differs {
        action: "connect",
        active: "allow connect.member".to_owned(),
        shadow: "deny (forbidden) x".to_owned(),
    };
    for _ in 0..3 {
        let saw = SawOddity(oddity.clone());
        house.actor.ask(saw, DEADLINE).await.unwrap();
    }
    let state = house
        .root
        .control("policy")
        .unwrap()
        .observe(DEADLINE)
        .await;
    assert_eq!(state.state["quarantined"], 0);
    let told = || house.told("count: 3");
    for _ in 0..1_000 {
        if told() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not told: {:?}", house.events.lock().unwrap());
}
