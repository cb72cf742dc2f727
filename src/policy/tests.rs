//! The room's tests, and what they share.

use std::{collections::BTreeMap, time::Duration};

use ed25519_dalek::SigningKey;

use super::*;
use crate::{
    config::PolicyConfig,
    identity::{Name, Status, Tier, VerifiedIdentity},
    messages::reputation::Standing,
    types::{ChannelKind, Cipher, Group, PeerId, SecurityInfo, Timestamp, Topic, TrustScore},
};

mod caching;
mod explaining;
mod loading;
mod properties;
mod table;
mod traps;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

const CLASSICAL: SecurityInfo = SecurityInfo {
    kind: ChannelKind::Noise,
    group: Group::X25519,
    cipher: Cipher::ChaCha20Poly1305,
};

const HYBRID: SecurityInfo = SecurityInfo {
    kind: ChannelKind::Stacked,
    group: Group::X25519MlKem768,
    cipher: Cipher::Aes256Gcm,
};

fn peer(n: u8) -> PeerId {
    PeerId::from(&SigningKey::from_bytes(&[n; 32]).verifying_key())
}

fn topic(name: &str) -> Topic {
    Topic::try_new(name).unwrap()
}

fn identity(tier: Tier) -> VerifiedIdentity {
    let acme = Name::try_new("acme").unwrap();
    VerifiedIdentity {
        peer: peer(1),
        tier,
        issuer: acme.clone(),
        anchor: acme,
        statuses: Vec::new(),
        pq_auth: false,
        keys: None,
        subject: Name::try_new("node-1").unwrap(),
        groups: vec!["acme/workers".to_owned()],
        attributes: BTreeMap::from([("role".to_owned(), "operator".to_owned())]),
        expires: Timestamp::from_secs(NOW.secs() + 3_600),
        credential_hash: [0; 32],
    }
}

fn standing(score: f64) -> Standing {
    Standing {
        score: TrustScore::try_new(score).unwrap(),
        banned_until: None,
        probation: false,
    }
}

/// Everything a request needs, as a test changes it.
#[derive(Debug, Clone)]
struct Case {
    action: Action,
    tier: Tier,
    identity: Option<VerifiedIdentity>,
    standing: Option<Standing>,
    status: Status,
    anomaly: u8,
    quarantined: bool,
    topic: Option<Topic>,
    security: Option<SecurityInfo>,
    now: Timestamp,
    config: PolicyConfig,
}

impl Case {
    /// Good standing, classical channel, a topic for all.
    fn new(action: Action, tier: Tier) -> Self {
        let credential = matches!(tier, Tier::Member | Tier::SelfSigned | Tier::RenewalOnly);
        Self {
            action,
            tier,
            identity: credential.then(|| identity(tier)),
            standing: Some(standing(0.5)),
            status: Status::Good,
            anomaly: 0,
            quarantined: false,
            topic: action.on_topic().then(|| topic("acme/orders")),
            security: Some(CLASSICAL),
            now: NOW,
            config: PolicyConfig {
                unverified_topics: vec![topic("acme/orders")],
                ..PolicyConfig::default()
            },
        }
    }

    fn settings(&self) -> Settings {
        Settings::new(&self.config, Duration::from_secs(60))
    }

    fn with<T>(&self, ask: impl FnOnce(&Request<'_>) -> T) -> T {
        ask(&Request {
            action: self.action,
            subject: Subject {
                peer: peer(1),
                tier: self.tier,
                identity: self.identity.as_ref(),
                standing: self.standing,
                status: self.status,
                anomaly: self.anomaly,
                quarantined: self.quarantined,
            },
            topic: self.topic.as_ref(),
            command: None,
            security: self.security,
            pq_auth: self.identity.as_ref().is_some_and(|one| one.pq_auth),
            ip: None,
            now: self.now,
            node: peer(9),
            settings: &self.settings(),
        })
    }

    fn facts(&self) -> Facts {
        self.with(|request| match floor(request) {
            Floor::Ask(facts) => *facts,
            Floor::Decided(decision) => panic!("the floor decided: {}", decision.rule),
        })
    }

    fn judge(&self, set: &PolicySet) -> Decision {
        self.with(|request| match floor(request) {
            Floor::Ask(facts) => evaluate(set, &facts),
            Floor::Decided(decision) => decision,
        })
    }
}

fn set(text: &str) -> PolicySet {
    set_or(text).unwrap()
}

fn set_or(text: &str) -> Result<PolicySet, PolicyError> {
    PolicySet::load(&[("test.cedar".to_owned(), text.to_owned())])
}

/// The built-in set and more.
fn built_in_and(text: &str) -> PolicySet {
    let (name, built_in) = BUILT_IN;
    let files = [(name, built_in), ("more.cedar", text)];
    PolicySet::load(&files.map(|(name, text)| (name.to_owned(), text.to_owned()))).unwrap()
}
