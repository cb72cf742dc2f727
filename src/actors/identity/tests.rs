use std::{fs, sync::Mutex, time::Duration};

use super::*;
use crate::{
    config::{RestartConfig, SupervisionConfig},
    identity::{
        Frame, Name, NodeKey, Role, Tier, self_sign,
        testing::{
            HOUR, NOW, acme, chain, channel, credential, frame_of, mallory, name, node, trust_of,
        },
    },
    supervision::{ActorRef, Cause, Inject, Placement, Root},
    types::ManualClock,
};

/// Long enough for anything on a busy machine; reached only by a failing test.
const LONG: Duration = Duration::from_secs(30);

struct House {
    dir: tempfile::TempDir,
    paths: IdentityPaths,
    clock: ManualClock,
    publishers: IdentityPublishers,
    notes: Arc<Mutex<Vec<AuditEvent>>>,
    root: Root,
    actor: ActorRef<IdentityActor>,
}

fn run(test: impl Future<Output = ()>) {
    actix::System::new().block_on(test);
}

fn trust(paths: &IdentityPaths) {
    fs::write(paths.anchor(&name("acme")), trust_of(&acme()).to_text()).unwrap();
}

fn house() -> House {
    house_after(|_| ())
}

/// A house whose data directory was prepared before the actor started.
fn house_after(prepare: impl FnOnce(&IdentityPaths)) -> House {
    house_with(SelfSigned::Deny, prepare)
}

fn house_with(self_signed: SelfSigned, prepare: impl FnOnce(&IdentityPaths)) -> House {
    let dir = tempfile::tempdir().unwrap();
    let paths = IdentityPaths::new(dir.path());
    fs::create_dir(paths.trust()).unwrap();
    fs::create_dir(dir.path().join("identity")).unwrap();
    prepare(&paths);
    let default = RestartConfig {
        backoff_initial: Duration::from_millis(1).into(),
        backoff_max: Duration::from_millis(5).into(),
        faults: 10_000,
        ..RestartConfig::default()
    };
    let config = SupervisionConfig {
        default,
        ..SupervisionConfig::default()
    };
    let clock = ManualClock::at(NOW);
    let publishers = IdentityPublishers::new(node().peer());
    let notes = Arc::new(Mutex::new(Vec::new()));
    let noted = notes.clone();
    let setup = IdentitySetup {
        leniency: None,
        peer: node().peer(),
        paths: paths.clone(),
        self_signed,
        clock: Arc::new(clock.clone()),
        statuses: Publisher::new(StatusView::empty(false)).view(),
        metrics: Metrics::new(),
        publishers: publishers.clone(),
        note: Arc::new(move |event| noted.lock().unwrap().push(event)),
    };
    let (root, _) = Root::new(&config, Arc::new(clock.clone()), true);
    let actor = root.spawn(Placement::Shared, move |incarnation| {
        Ok(IdentityActor::new(incarnation, setup.clone()))
    });
    House {
        dir,
        paths,
        clock,
        publishers,
        notes,
        root,
        actor,
    }
}

impl House {
    async fn verify(&self) -> Result<VerifiedIdentity, Refusal> {
        self.present(&frame_of(&chain())).await
    }

    async fn present(&self, frame: &Frame) -> Result<VerifiedIdentity, Refusal> {
        let ask = VerifyPeer {
            peer: node().peer(),
            frame: frame.encode(),
            channel: channel(),
            role: Role::Opener,
        };
        self.actor.ask(ask, LONG).await.unwrap()
    }

    async fn reload(&self) -> Result<IdentityReport, String> {
        self.actor.ask(ReloadIdentity, LONG).await.unwrap()
    }

    async fn restart(&self, kind: Inject) {
        let mut generation = self.actor.generation();
        let before = *generation.borrow_and_update();
        self.root.control("identity").unwrap().inject(kind).unwrap();
        generation.wait_for(|now| *now > before).await.unwrap();
        self.actor.ask(DescribeIdentity, LONG).await.unwrap();
    }
}

fn acme_name() -> Name {
    name("acme")
}

#[test]
fn it_trusts_nobody_until_told_and_publishes_what_it_loads() {
    run(async {
        let house = house();
        assert_eq!(
            house.verify().await,
            Err(Refusal::UnknownIssuer("acme".into()))
        );
        trust(&house.paths);
        fs::write(house.paths.credential(), credential().as_bytes()).unwrap();
        let report = house.reload().await.unwrap();
        assert_eq!(report.credential.as_deref(), Some("acme/node-1"));
        assert_eq!(report.expires, Some(NOW.after(HOUR)));
        assert_eq!(report.trusted_issuers, ["acme"]);
        assert_eq!(house.verify().await.unwrap().peer, node().peer());

        let own = house.publishers.own.view().load();
        assert!(own.identity.is_some());
        let trust = house.publishers.trust.view().load();
        assert!(trust.covers(&acme_name(), trust.epoch));
        let last = house.notes.lock().unwrap().last().cloned().unwrap();
        assert_eq!(
            last,
            AuditEvent::IdentityLoaded {
                own: Some("acme/node-1".into()),
                issuers: vec!["acme".into()],
            }
        );
    });
}

#[test]
fn a_reload_that_fails_changes_nothing_and_names_the_file() {
    run(async {
        let house = house();
        trust(&house.paths);
        house.reload().await.unwrap();
        let before = house.publishers.trust.view().load();
        fs::write(house.paths.anchor(&name("globex")), "broken").unwrap();
        let error = house.reload().await.unwrap_err();
        assert!(
            error.contains("globex.anchor") && error.contains("stays in force"),
            "{error}"
        );
        assert_eq!(house.publishers.trust.view().load(), before);
        house.verify().await.unwrap();
        assert!(house.observed().await.last_error.is_some());
        fs::remove_file(house.paths.anchor(&name("globex"))).unwrap();
        house.reload().await.unwrap();
        assert_eq!(house.observed().await.last_error, None);
    });
}

impl House {
    async fn observed(&self) -> Observed {
        let control = self.root.control("identity").unwrap();
        serde_json::from_value(control.observe(LONG).await.state).unwrap()
    }
}

#[derive(serde::Deserialize)]
struct Observed {
    trust_epoch: u64,
    verified: u64,
    refused: BTreeMap<String, u64>,
    last_error: Option<String>,
}

#[test]
fn removed_trust_ends_at_the_next_reload_and_the_view_says_so() {
    run(async {
        let house = house();
        trust(&house.paths);
        house.reload().await.unwrap();
        let verified_at = house.publishers.trust.view().load().epoch;
        fs::remove_file(house.paths.anchor(&acme_name())).unwrap();
        house.reload().await.unwrap();
        let view = house.publishers.trust.view().load();
        assert!(!view.covers(&acme_name(), verified_at));
        assert_eq!(
            house.verify().await,
            Err(Refusal::UnknownIssuer("acme".into()))
        );
    });
}

#[test]
fn answers_follow_the_clock() {
    run(async {
        let house = house();
        trust(&house.paths);
        house.reload().await.unwrap();
        house.verify().await.unwrap();
        house.clock.advance(HOUR);
        assert_eq!(house.verify().await, Err(Refusal::Expired(NOW.after(HOUR))));
        let seen = house.observed().await;
        assert_eq!((seen.verified, seen.refused["expired"]), (1, 1));
    });
}

#[test]
fn a_restart_reads_the_disk_anew_and_keeps_the_epoch() {
    run(async {
        let house = house();
        trust(&house.paths);
        house.reload().await.unwrap();
        let before = house.publishers.trust.view().load();
        house.restart(Inject::Panic).await;
        assert_eq!(
            house.publishers.trust.view().load(),
            before,
            "nothing changed on disk"
        );
        house.verify().await.unwrap();
        fs::remove_file(house.paths.anchor(&acme_name())).unwrap();
        house.restart(Inject::Panic).await;
        assert_eq!(house.observed().await.trust_epoch, before.epoch + 1);
        assert!(house.verify().await.is_err());
    });
}

#[test]
fn a_restart_with_a_broken_disk_keeps_the_last_good_state() {
    run(async {
        let house = house();
        trust(&house.paths);
        house.reload().await.unwrap();
        fs::write(house.paths.anchor(&name("globex")), "broken").unwrap();
        house.restart(Inject::Panic).await;
        house.verify().await.unwrap();
        assert!(
            house
                .observed()
                .await
                .last_error
                .unwrap()
                .contains("globex.anchor")
        );
        assert_eq!(house.actor.snapshot().restarts, 1, "no crash loop");
        drop(house.dir);
    });
}

#[test]
fn the_first_start_fails_while_the_disk_is_broken_and_recovers_when_mended() {
    run(async {
        let house = house_after(|paths| {
            fs::write(paths.anchor(&acme_name()), "broken").unwrap();
        });
        let faulty = |actor: &ActorRef<IdentityActor>| {
            let fault = actor.snapshot().last_fault;
            fault.is_some_and(|fault| fault.cause == Cause::Build)
        };
        while !faulty(&house.actor) {
            tokio::task::yield_now().await;
        }
        assert!(
            house.notes.lock().unwrap().is_empty(),
            "nothing was published"
        );
        trust(&house.paths);
        house.verify().await.unwrap();
    });
}

#[test]
fn frames_are_judged_for_the_key_of_the_connection() {
    run(async {
        let house = house();
        trust(&house.paths);
        house.reload().await.unwrap();
        let stolen = VerifyPeer {
            peer: mallory().peer(),
            frame: frame_of(&chain()).encode(),
            channel: channel(),
            role: Role::Listener,
        };
        let answer = house.actor.ask(stolen, LONG).await.unwrap();
        assert_eq!(answer, Err(Refusal::WrongKey));
    });
}

#[test]
fn who_signs_for_itself_is_believed_only_where_the_operator_says_so() {
    run(async {
        let own = |key: &NodeKey| self_sign(key, &name("lone"), HOUR, [1; 16], NOW).unwrap();
        let chain = Chain::of(own(&node()));
        let house = house();
        assert_eq!(
            house.present(&frame_of(&chain)).await,
            Err(Refusal::Denied("identity.self_signed".into()))
        );
        let house = house_with(SelfSigned::Allow, |_| ());
        let identity = house.present(&frame_of(&chain)).await.unwrap();
        assert_eq!(identity.tier, Tier::SelfSigned);
        let view = house.publishers.trust.view().load();
        assert!(view.covers(&identity.anchor, view.epoch));
    });
}
