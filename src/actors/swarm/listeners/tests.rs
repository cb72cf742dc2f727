//! What a flood of subscriptions costs whom.

use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::{
    actors::{
        audit::{AuditActor, AuditTools},
        judge::Bench,
        policy::{PolicyActor, PolicySetup, PolicyView, load},
    },
    config::{AuditConfig, LimitsConfig, PolicyConfig, ReputationConfig, SupervisionConfig},
    identity::{
        Tier,
        testing::{mallory, node},
    },
    store::Store,
    supervision::{Placement, Root},
    trust::reputation::Reputation,
    types::{
        ByteSize, ChannelKind, Cipher, Group, ManualClock, Publisher, SecurityInfo, Timestamp,
    },
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const CHANNEL: SecurityInfo = SecurityInfo {
    kind: ChannelKind::Noise,
    group: Group::X25519,
    cipher: Cipher::ChaCha20Poly1305,
};
/// Subscriptions a second that the budget of the test has room for.
const ROOM: u64 = 20;

struct House {
    _dir: TempDir,
    clock: Arc<ManualClock>,
    neighbours: Neighbours,
}

/// Neighbours whose topics are all open, with a small budget.
fn house() -> House {
    let dir = TempDir::new().unwrap();
    let clock = Arc::new(ManualClock::at(NOW));
    let metrics = Metrics::new();
    let (root, _) = Root::new(&SupervisionConfig::default(), clock.clone(), true);
    let log = dir.path().join("audit");
    let tools = AuditTools::new(log, AuditConfig::default(), clock.clone(), None);
    let audit = root.spawn(Placement::Own, move |life| {
        Ok(AuditActor::new(life, tools.clone()))
    });
    let audit = AuditHandle::new(
        audit,
        clock.clone(),
        Duration::from_secs(1),
        metrics.clone(),
    );
    let bench = bench(&dir, &clock, &root, &metrics);
    let limits = LimitsConfig {
        bytes_per_second: ByteSize(SUBSCRIPTION_BYTES * ROOM),
        // A burst has room for the largest message at least.
        max_message_size: ByteSize(SUBSCRIPTION_BYTES),
        ..LimitsConfig::default()
    };
    let limiter = Limiter::new(&limits, clock.clone()).unwrap();
    let rules = Arc::new(ReputationConfig::default());
    let nothing = Standings::unknown(Arc::clone(&rules));
    let book = Reputation::restore(rules, [], &nothing, NOW, NOW).0;
    let views = (
        Publisher::new(book.standings()).view(),
        Publisher::new(StatusView::empty(false)).view(),
        Publisher::new(limiter).view(),
    );
    let judge = Arc::new(bench.judge());
    House {
        neighbours: Neighbours::new(audit, views, judge, clock.clone(), metrics),
        clock,
        _dir: dir,
    }
}

fn bench(dir: &TempDir, clock: &Arc<ManualClock>, root: &Root, metrics: &Metrics) -> Bench {
    let config = PolicyConfig {
        unverified_topics: vec!["lobby".parse().unwrap()],
        ..PolicyConfig::default()
    };
    let loaded = load(&config, dir.path()).unwrap();
    let cpu = Duration::from_secs(60);
    let publisher = Publisher::new(PolicyView::new(loaded, &config, cpu));
    let view = publisher.view();
    let (store, _) = Store::open(&dir.path().join("state"), NOW).unwrap();
    let setup = PolicySetup {
        home: dir.path().to_owned(),
        max_cpu: cpu,
        aggregate: Duration::from_secs(60),
        clock: clock.clone(),
        store,
        publisher,
        note: Arc::new(drop),
        metrics: metrics.clone(),
    };
    let policy = root.spawn(Placement::Shared, move |life| {
        Ok(PolicyActor::new(life, setup.clone()))
    });
    Bench {
        view,
        policy,
        node: node().peer(),
        clock: clock.clone(),
        metrics: metrics.clone(),
    }
}

fn third() -> PeerId {
    PeerId::from(&ed25519_dalek::SigningKey::from_bytes(&[77; 32]).verifying_key())
}

impl House {
    fn let_in(&self, peer: PeerId) {
        let admitted = Arc::new(Admitted {
            peer,
            tier: Tier::Unverified,
            identity: None,
            invitation: None,
            formerly: None,
            rule: "test".to_owned(),
            security: CHANNEL,
            epoch: 0,
        });
        let footing = Footing {
            security: CHANNEL,
            pq_auth: false,
            ip: None,
        };
        self.neighbours.stands(&admitted, footing);
    }
}

#[actix::test]
async fn a_flood_of_subscriptions_is_charged_and_refused_and_a_neighbour_does_not_notice() {
    let house = house();
    let (flooder, honest) = (mallory().peer(), third());
    house.let_in(flooder);
    house.let_in(honest);
    let lobby: Topic = "lobby".parse().unwrap();
    let listens = |peer: &PeerId| house.neighbours.may_listen(peer, &lobby);
    // It subscribes and unsubscribes: gossip asks each time.
    let heard = (0..10 * ROOM).filter(|_| listens(&flooder)).count();
    let heard = u64::try_from(heard).unwrap();
    assert!((1..=2 * ROOM).contains(&heard), "{heard} were decided");
    assert!(!listens(&flooder), "refused, though policy permits it");
    assert!(listens(&honest), "another's budget is its own");
    // Its budget is that of its messages, too: it has nothing left for them.
    let limiter = house.neighbours.limiter.load();
    assert!(
        limiter
            .charge_neighbour(flooder, SUBSCRIPTION_BYTES)
            .is_err()
    );
    // And it comes back.
    house.clock.advance(Duration::from_secs(2));
    assert!(listens(&flooder));
    // Who is not connected is nobody, and pays nothing.
    assert!(!listens(&node().peer()));
}
