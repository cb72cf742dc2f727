//! Bans across faults and restarts, durable before acknowledged, ended by themselves.

use std::{path::Path, sync::Mutex};

use ed25519_dalek::SigningKey;

use super::*;
use crate::{
    config::{RestartConfig, SupervisionConfig},
    messages::reputation::Severity,
    supervision::{ActorRef, Inject, Placement, Root},
    trust::reputation::Barred,
    types::{ManualClock, PeerId, SubjectId, View},
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3_600);
/// Long enough for anything on a busy machine; reached only by a failing test.
const LONG: Duration = Duration::from_secs(30);

struct House {
    root: Root,
    actor: ActorRef<ReputationActor>,
    view: View<Standings>,
    notes: Arc<Mutex<Vec<AuditEvent>>>,
}

fn run(test: impl Future<Output = ()>) {
    actix::System::new().block_on(test);
}

fn peer(n: u8) -> PeerId {
    PeerId::from(&SigningKey::from_bytes(&[n; 32]).verifying_key())
}

fn party(n: u8) -> Party {
    Party::Peer(peer(n))
}

fn standing(n: u8) -> GetStanding {
    GetStanding {
        peer: peer(n),
        subject: None,
    }
}

async fn house(path: &Path, clock: &ManualClock) -> House {
    let store = opened(path).await;
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    let rules = Arc::new(ReputationConfig::default());
    let publisher = Publisher::new(Standings::unknown(Arc::clone(&rules)));
    let view = publisher.view();
    let notes = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&notes);
    let config = SupervisionConfig {
        default: RestartConfig {
            backoff_initial: Duration::from_millis(1).into(),
            ..RestartConfig::default()
        },
        ..SupervisionConfig::default()
    };
    let (root, _) = Root::new(&config, Arc::clone(&clock), true);
    let setup = ReputationSetup {
        rules,
        clock,
        store,
        publisher,
        note: Arc::new(move |event| sink.lock().unwrap().push(event)),
    };
    let actor = root.spawn(Placement::Own, move |incarnation| {
        Ok(ReputationActor::new(incarnation, setup.clone()))
    });
    House {
        root,
        actor,
        view,
        notes,
    }
}

/// The arbiters of a former node let go of the store a moment after it stopped.
async fn opened(path: &Path) -> Store {
    let free = async {
        loop {
            match Store::open(path, NOW) {
                Ok((store, aside)) => {
                    assert_eq!(aside, None);
                    return store;
                }
                Err(StoreError::Locked(_)) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(other) => panic!("{other}"),
            }
        }
    };
    tokio::time::timeout(LONG, free).await.unwrap()
}

async fn stop(house: House) {
    house.root.stop_all(LONG).await.unwrap();
}

/// Five bad credentials ban.
async fn offend(house: &House, n: u8) {
    for _ in 0..5 {
        let charge = Charge {
            party: party(n),
            subject: None,
            address: None,
            severity: Severity::BadCredential,
            evidence: "test".to_owned(),
            summed: false,
        };
        house.actor.ask(charge, LONG).await.unwrap();
    }
}

async fn fault(house: &House, kind: Inject) {
    let before = house.actor.snapshot().restarts;
    house
        .root
        .control("reputation")
        .unwrap()
        .inject(kind)
        .unwrap();
    while house.actor.ask(ListBans, LONG).await.is_err()
        || house.actor.snapshot().restarts == before
    {}
}

/// What a process that died right now would leave: the files as they are.
fn on_disk(path: &Path) -> Vec<Party> {
    let copy = tempfile::tempdir().unwrap();
    let to = copy.path().join("state");
    std::fs::create_dir_all(to.join("blobs")).unwrap();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    let (store, aside) = Store::open(&to, NOW).unwrap();
    assert_eq!(aside, None);
    let tree: Tree<Account> = store.tree(TREE, TREE_VERSION).unwrap();
    let all = tree.scan(100).unwrap().into_iter();
    all.filter(|(_, account)| account.ban.is_some())
        .map(|(key, _)| std::str::from_utf8(&key).unwrap().parse().unwrap())
        .collect()
}

#[test]
fn a_ban_is_on_the_disk_before_it_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    run(async {
        let house = house(&path, &ManualClock::at(NOW)).await;
        offend(&house, 1).await;
        assert_eq!(on_disk(&path), [party(1)]);
        let ban = Ban {
            party: party(2),
            span: HOUR,
            reason: "test".to_owned(),
        };
        house.actor.ask(ban, LONG).await.unwrap().unwrap();
        assert_eq!(on_disk(&path).len(), 2);
        let lift = LiftBan { party: party(1) };
        assert_eq!(house.actor.ask(lift.clone(), LONG).await, Ok(Ok(true)));
        assert_eq!(on_disk(&path), [party(2)]);
        assert_eq!(house.actor.ask(lift, LONG).await, Ok(Ok(false)));
        stop(house).await;
    });
}

#[test]
fn a_member_and_its_key_are_banned_in_one_step_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    run(async {
        let first = house(&path, &ManualClock::at(NOW)).await;
        let subject: SubjectId = "acme/node-1".parse().unwrap();
        for _ in 0..5 {
            let charge = Charge {
                party: party(1),
                subject: Some(subject.clone()),
                address: None,
                severity: Severity::BadCredential,
                evidence: "test".to_owned(),
                summed: false,
            };
            first.actor.ask(charge, LONG).await.unwrap();
        }
        let mut banned = on_disk(&path);
        banned.sort();
        assert_eq!(banned, [party(1), Party::Subject(subject.clone())]);
        let bans = first.actor.ask(ListBans, LONG).await.unwrap();
        stop(first).await;
        let second = house(&path, &ManualClock::at(NOW)).await;
        assert_eq!(second.actor.ask(ListBans, LONG).await.unwrap(), bans);
        let of_new_key = GetStanding {
            peer: peer(2),
            subject: Some(subject),
        };
        let standing = second.actor.ask(of_new_key, LONG).await.unwrap();
        assert_eq!(standing.banned_until, Some(NOW.after(HOUR)));
        stop(second).await;
    });
}

#[test]
fn faults_lose_neither_bans_nor_scores() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let house = house(&dir.path().join("state"), &ManualClock::at(NOW)).await;
        offend(&house, 1).await;
        let credit = CreditConnection {
            peer: peer(2),
            subject: None,
        };
        house.actor.ask(credit, LONG).await.unwrap();
        let standings = async || {
            let one = house.actor.ask(standing(1), LONG).await;
            let two = house.actor.ask(standing(2), LONG).await;
            (one.unwrap(), two.unwrap())
        };
        let before = standings().await;
        for kind in [Inject::Panic, Inject::Error] {
            fault(&house, kind).await;
            assert_eq!(standings().await, before);
            let view = house.view.load();
            assert_eq!(view.standing(&peer(1), NOW), Some(before.0));
            assert_eq!(
                view.barred(&party(1), NOW),
                Some(Barred::Until(NOW.after(HOUR)))
            );
        }
        let started = |event: &&AuditEvent| matches!(event, AuditEvent::BanStarted { .. });
        let notes = house.notes.lock().unwrap().clone();
        assert_eq!(
            notes.iter().filter(started).count(),
            1,
            "a restart is no new ban"
        );
        stop(house).await;
    });
}

#[test]
fn a_restarted_node_knows_what_the_former_knew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    run(async {
        let first = house(&path, &ManualClock::at(NOW)).await;
        assert_eq!(first.actor.ask(SaveScores, LONG).await, Ok(Ok(())));
        offend(&first, 1).await;
        let credit = CreditConnection {
            peer: peer(2),
            subject: None,
        };
        first.actor.ask(credit, LONG).await.unwrap();
        let bans = first.actor.ask(ListBans, LONG).await.unwrap();
        let score = first.view.load().standing(&peer(2), NOW);
        stop(first).await;

        let second = house(&path, &ManualClock::at(NOW)).await;
        assert_eq!(second.actor.ask(ListBans, LONG).await.unwrap(), bans);
        assert_eq!(second.view.load().standing(&peer(2), NOW), score);
        stop(second).await;

        // The ban ran out while the node was down: it ends, aloud, in probation.
        let third = house(&path, &ManualClock::at(NOW.after(HOUR))).await;
        let standing = third.actor.ask(standing(1), LONG).await.unwrap();
        assert_eq!((standing.banned_until, standing.probation), (None, true));
        let ended = |event: &AuditEvent| matches!(event, AuditEvent::BanEnded { .. });
        assert!(third.notes.lock().unwrap().iter().any(ended));
        stop(third).await;
    });
}

#[test]
fn a_timer_ends_bans() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(NOW);
    run(async {
        let house = house(&dir.path().join("state"), &clock).await;
        offend(&house, 1).await;
        clock.advance(HOUR);
        // The view needs no timer.
        assert_eq!(house.view.load().barred(&party(1), clock.now()), None);
        let ended = AuditEvent::BanEnded {
            party: party(1),
            cause: "expired".to_owned(),
        };
        let wait = async {
            while !house.notes.lock().unwrap().contains(&ended) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LONG, wait).await.unwrap();
        stop(house).await;
    });
}

#[test]
fn an_impossible_ban_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let house = house(&dir.path().join("state"), &ManualClock::at(NOW)).await;
        let ban = Ban {
            party: party(1),
            span: Duration::ZERO,
            reason: String::new(),
        };
        let refused = house.actor.ask(ban, LONG).await.unwrap().unwrap_err();
        assert!(refused.contains("a ban lasts from 1 ms to"), "{refused}");
        assert!(house.actor.ask(ListBans, LONG).await.unwrap().is_empty());
        stop(house).await;
    });
}
