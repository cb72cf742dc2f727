//! Lists are on the disk before they count, and never go back; peers are charged for forgeries.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::*;
use crate::{
    actors::reputation::ReputationSetup,
    config::{ReputationConfig, RestartConfig, SupervisionConfig},
    identity::{
        Status,
        status::test_lists::{Make, record_of},
        testing::{HOUR, NOW, acme, anchors, chain, globex, mallory, name, node},
        verify_chain,
    },
    messages::reputation::GetStanding,
    supervision::{Inject, Placement, Root},
    trust::reputation::Standings,
    types::ManualClock,
};

/// Long enough for anything on a busy machine; reached only by a failing test.
const LONG: Duration = Duration::from_secs(60);

struct House {
    root: Root,
    actor: ActorRef<RevocationActor>,
    reputation: ActorRef<ReputationActor>,
    view: View<StatusView>,
    store: Store,
    notes: Arc<Mutex<Vec<AuditEvent>>>,
}

fn run(test: impl Future<Output = ()>) {
    actix::System::new().block_on(test);
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

async fn house(path: &Path) -> House {
    let store = opened(path).await;
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW));
    let config = SupervisionConfig {
        default: RestartConfig {
            backoff_initial: Duration::from_millis(1).into(),
            ..RestartConfig::default()
        },
        ..SupervisionConfig::default()
    };
    let (root, _) = Root::new(&config, Arc::clone(&clock), true);
    let rules = Arc::new(ReputationConfig::default());
    let setup = ReputationSetup {
        publisher: Publisher::new(Standings::unknown(Arc::clone(&rules))),
        rules,
        clock: Arc::clone(&clock),
        store: store.clone(),
        note: Arc::new(|_| {}),
    };
    let reputation = root.spawn(Placement::Own, move |life| {
        Ok(ReputationActor::new(life, setup.clone()))
    });
    let trust = Publisher::new(TrustView::default().next(anchors()));
    let publisher = Publisher::new(StatusView::empty(false));
    let (view, notes) = (publisher.view(), Arc::new(Mutex::new(Vec::new())));
    let sink = Arc::clone(&notes);
    let setup = RevocationSetup {
        clock,
        store: store.clone(),
        trust: trust.view(),
        required: false,
        publisher,
        swarm: SwarmSlot::default(),
        reputation: reputation.clone(),
        note: Arc::new(move |event| {
            sink.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(event);
        }),
        metrics: Metrics::new(),
    };
    let actor = root.spawn(Placement::Own, move |life| {
        Ok(RevocationActor::new(life, setup.clone()))
    });
    House {
        root,
        actor,
        reputation,
        view,
        store,
        notes,
    }
}

fn list(sequence: u64, set: &[u32]) -> Vec<u8> {
    Make::new(&acme(), sequence, set).list().as_bytes().to_vec()
}

fn head(sequence: u64, set: &[u32]) -> Vec<u8> {
    let list = Make::new(&acme(), sequence, set).list();
    list.head().as_bytes().to_vec()
}

async fn import(house: &House, bytes: Vec<u8>) -> Result<ListReport, String> {
    house
        .actor
        .ask(ImportStatusList { bytes }, LONG)
        .await
        .unwrap()
}

fn standing(house: &House) -> Status {
    let identity = verify_chain(&chain(), node().peer(), &anchors(), NOW).unwrap();
    house.view.load().standing(&identity, NOW)
}

async fn score(house: &House) -> f64 {
    let ask = GetStanding {
        peer: mallory().peer(),
        subject: None,
    };
    house.reputation.ask(ask, LONG).await.unwrap().score.get()
}

/// The issuers and list sequences that a process that died right now would leave.
fn on_disk(path: &Path) -> Vec<(String, u64)> {
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
    let tree: Tree<Stored> = store.tree(TREE, TREE_VERSION).unwrap();
    let all = tree.scan(100).unwrap().into_iter();
    all.map(|(key, stored)| {
        let record = stored.read().unwrap();
        (String::from_utf8(key).unwrap(), record_of(&record))
    })
    .collect()
}

#[test]
fn a_list_is_synced_to_the_disk_before_it_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    run(async {
        let house = house(&path).await;
        for (sequence, set) in [(1, &[][..]), (2, &[7])] {
            let before = house.store.syncs();
            let report = import(&house, list(sequence, set)).await.unwrap();
            assert_eq!(report.list_sequence, Some(sequence));
            assert!(house.store.syncs() > before, "nothing was synced");
            assert_eq!(on_disk(&path), [("acme".to_owned(), sequence)]);
        }
        assert!(standing(&house).is_revoked());
        // What is known costs no sync.
        let before = house.store.syncs();
        import(&house, list(2, &[7])).await.unwrap();
        assert_eq!(house.store.syncs(), before);
        house.root.stop_all(LONG).await.unwrap();
    });
}

#[test]
fn no_list_goes_back_over_faults_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    run(async {
        let first = house(&path).await;
        import(&first, list(5, &[7])).await.unwrap();
        first
            .root
            .control("revocation")
            .unwrap()
            .inject(Inject::Panic)
            .unwrap();
        while first.actor.ask(ListStatusLists, LONG).await.is_err()
            || first.actor.snapshot().restarts == 0
        {}
        assert!(standing(&first).is_revoked());
        assert!(
            import(&first, list(4, &[]))
                .await
                .unwrap_err()
                .contains("sequence 4")
        );
        first.root.stop_all(LONG).await.unwrap();
        drop(first);

        let second = house(&path).await;
        let lists = second.actor.ask(ListStatusLists, LONG).await.unwrap();
        assert_eq!(lists[0].sequence, 5);
        assert!(standing(&second).is_revoked());
        assert!(import(&second, list(4, &[])).await.is_err());
        assert!(standing(&second).is_revoked());
        second.root.stop_all(LONG).await.unwrap();
    });
}

#[test]
fn a_head_of_a_peer_counts_at_once_and_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    run(async {
        let house = house(&path).await;
        import(&house, list(1, &[])).await.unwrap();
        let shown = ShownHeads {
            peer: mallory().peer(),
            heads: head(3, &[]),
        };
        house.actor.ask(shown, LONG).await.unwrap().unwrap();
        assert_eq!(standing(&house), Status::Stale);
        assert_eq!(on_disk(&path), [("acme".to_owned(), 3)]);
        // Its list ends that.
        import(&house, list(3, &[])).await.unwrap();
        assert_eq!(standing(&house), Status::Good);
        house.root.stop_all(LONG).await.unwrap();
    });
}

#[test]
fn forgeries_are_charged_and_what_may_be_honest_is_not() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let house = house(&dir.path().join("state")).await;
        import(&house, list(2, &[7])).await.unwrap();
        let fresh = score(&house).await;
        let announce = async |heads| {
            let peer = mallory().peer();
            house
                .actor
                .ask(AnnouncedHeads { peer, heads }, LONG)
                .await
                .unwrap();
            score(&house).await
        };
        let stranger = crate::identity::IssuerKey::from_seed(name("initech"), &[9; 32]);
        let unknown = Make::new(&stranger, 1, &[]).list();
        let other = crate::identity::IssuerKey::from_seed(name("acme"), &[8; 32]);
        let other = Make::new(&other, 9, &[]).list();
        let honest = vec![
            head(1, &[]),
            head(2, &[7]),
            unknown.head().as_bytes().to_vec(),
            other.head().as_bytes().to_vec(),
        ];
        assert!((announce(honest).await - fresh).abs() < 1e-9);
        let mut forged = Make::new(&globex(), 1, &[])
            .list()
            .head()
            .as_bytes()
            .to_vec();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        let after = announce(vec![forged.clone()]).await;
        assert!(after < fresh);
        assert!(announce(vec![vec![1, 2, 3]]).await < after);
        // In the gate it is the gate that refuses and charges.
        let shown = ShownHeads {
            peer: mallory().peer(),
            heads: forged,
        };
        let refused = house.actor.ask(shown, LONG).await.unwrap().unwrap_err();
        assert!(refused.charged());
        house.root.stop_all(LONG).await.unwrap();
    });
}

#[test]
fn a_fork_is_said_once_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let house = house(&dir.path().join("state")).await;
        import(&house, list(2, &[7])).await.unwrap();
        for _ in 0..3 {
            let peer = mallory().peer();
            let heads = vec![head(2, &[])];
            house
                .actor
                .ask(AnnouncedHeads { peer, heads }, LONG)
                .await
                .unwrap();
        }
        assert!(
            import(&house, list(2, &[]))
                .await
                .unwrap_err()
                .contains("two hands")
        );
        assert!(standing(&house).is_revoked());
        let notes = house.notes.lock().unwrap().clone();
        let forks = notes
            .iter()
            .filter(|event| matches!(event, AuditEvent::StatusListForked { .. }));
        assert_eq!(forks.count(), 1);
        let accepted = |event: &&AuditEvent| matches!(event, AuditEvent::StatusListAccepted { .. });
        assert_eq!(notes.iter().filter(accepted).count(), 1);
        assert_eq!(
            NOW.after(HOUR),
            house.actor.ask(ListStatusLists, LONG).await.unwrap()[0].next_update
        );
        house.root.stop_all(LONG).await.unwrap();
    });
}
