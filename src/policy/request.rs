//! The question: what is wanted, by whom, of what.

use std::net::IpAddr;

use super::Settings;
use crate::{
    identity::{Status, Tier, VerifiedIdentity},
    messages::reputation::Standing,
    types::{PeerId, SecurityInfo, Timestamp, Topic},
};

/// What a peer wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Hold a connection.
    Connect,
    /// Have its messages on a topic accepted.
    Publish,
    /// Receive a topic's messages.
    Subscribe,
    /// Have a job run.
    RunJob,
    /// Administer this node from afar.
    Administer,
    /// Be given a credential by this node's issuer. The floor alone judges it.
    Enrol,
}

impl Action {
    /// Those that policies judge.
    pub const JUDGED: [Self; 5] = [
        Self::Connect,
        Self::Publish,
        Self::Subscribe,
        Self::RunJob,
        Self::Administer,
    ];

    /// A stable, bounded name; that of the schema, too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::RunJob => "run_job",
            Self::Administer => "administer",
            Self::Enrol => "enrol",
        }
    }

    /// The judged action of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::JUDGED.into_iter().find(|one| one.name() == name)
    }

    /// Whether it is about a topic.
    #[must_use]
    pub fn on_topic(self) -> bool {
        matches!(self, Self::Publish | Self::Subscribe)
    }
}

/// Whom it is about, as far as it was proved.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The peer, as the connection or the signature proved it.
    pub peer: PeerId,
    /// What its identity is worth.
    pub tier: Tier,
    /// Its verified credential. Members and the self-signed have one, unverified peers have none.
    pub identity: Option<&'a VerifiedIdentity>,
    /// Where it stands; `None` when Reputation has not said, which denies.
    pub standing: Option<Standing>,
    /// How its credential stands by the status lists; good without one.
    pub status: Status,
    /// How odd its conduct is, 0 to 100; 0 where nothing measures it. More counts as 100.
    pub anomaly: u8,
    /// Whether it is in quarantine now.
    pub quarantined: bool,
}

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What is wanted.
    pub action: Action,
    /// By whom.
    pub subject: Subject<'a>,
    /// On which topic; needed to publish and to subscribe.
    pub topic: Option<&'a Topic>,
    /// Which command; of use to administer.
    pub command: Option<&'a str>,
    /// How the peer's connection is encrypted, the weakest when it has several; `None` for an
    /// author who is not connected. To hold a connection there must be a proof.
    pub security: Option<SecurityInfo>,
    /// Whether the peer proved its ML-DSA key over each of its connections. (What its identity
    /// says of that is of one of them.)
    pub pq_auth: bool,
    /// The peer's address; `None` when it is unknown or a relay's.
    pub ip: Option<IpAddr>,
    /// When.
    pub now: Timestamp,
    /// This node.
    pub node: PeerId,
    /// The settings that policies may read.
    pub settings: &'a Settings,
}
