//! A request as people write it: in a policy test, or on the command line. No credential is
//! verified and no floor is asked: it is about what the policies say of such a peer.

use std::{collections::BTreeMap, net::IpAddr};

use ed25519_dalek::SigningKey;
use serde::Deserialize;

use super::{Action, Context, Facts, Principal, Resource, Settings};
use crate::{
    identity::Tier,
    types::{ChannelKind, PeerId, Topic},
};

/// The time of a sketch that names none: 2027-01-15, 08:00 UTC.
pub const SKETCH_NOW: u64 = 1_800_000_000;
/// How long after that a credential lasts that names no end.
const LIFETIME: u64 = 3_600;
/// Most groups and attributes, as in a credential.
const MOST: usize = 32;
/// Seeds of the two peers, whose keys nobody uses.
const PEER_SEED: u8 = 1;
const NODE_SEED: u8 = 2;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sketch {
    /// `connect`, `publish`, `subscribe`, `run_job` or `administer`.
    pub action: String,
    /// Who asks.
    pub principal: SketchPrincipal,
    /// The topic, to publish and to subscribe.
    pub topic: Option<Topic>,
    /// How it is asked.
    pub context: SketchContext,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SketchPrincipal {
    /// The peer; any one when it is not named.
    pub peer: Option<PeerId>,
    /// `member` (the default), `self_signed` or `unverified`.
    pub tier: Tier,
    /// Its credential's issuer.
    pub issuer: String,
    /// Its name there.
    pub subject: String,
    /// Its groups, by full name.
    pub groups: Vec<String>,
    /// Its credential's attributes.
    pub attributes: BTreeMap<String, String>,
    /// Its score in hundredths.
    pub trust: u8,
    /// How odd its conduct is, 0 to 100.
    pub anomaly: u8,
    /// On probation.
    pub probation: bool,
    /// In quarantine.
    pub quarantined: bool,
    /// End of its credential, Unix seconds.
    pub cred_expires: Option<u64>,
}

impl Default for SketchPrincipal {
    fn default() -> Self {
        Self {
            peer: None,
            tier: Tier::Member,
            issuer: String::new(),
            subject: String::new(),
            groups: Vec::new(),
            attributes: BTreeMap::new(),
            // Nothing known, good or bad.
            trust: 50,
            anomaly: 0,
            probation: false,
            quarantined: false,
            cred_expires: None,
        }
    }
}

/// How it is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SketchContext {
    /// `stacked` (the default), `tls`, `quic` or `noise`; empty for a peer that is not connected.
    pub transport: Option<String>,
    /// The key exchange is proven hybrid; without it, as `stacked` is and the others are not.
    pub post_quantum: Option<bool>,
    /// The peer proved its ML-DSA key.
    pub pq_auth: bool,
    /// The command, to administer.
    pub command: Option<String>,
    /// The peer's address.
    pub ip: Option<IpAddr>,
    /// The time, Unix seconds.
    pub now: Option<u64>,
}

impl Sketch {
    /// The facts.
    ///
    /// # Errors
    /// What is missing or contradicts itself, in words.
    pub fn facts(&self, settings: &Settings) -> Result<Facts, String> {
        let action = Action::of_name(&self.action).ok_or_else(|| {
            let known = Action::JUDGED.map(Action::name).join(", ");
            format!(
                "the action `{}` is none of {known}",
                self.action.escape_debug()
            )
        })?;
        let now = self.context.now.unwrap_or(SKETCH_NOW);
        let node = some_peer(NODE_SEED);
        let resource = match (action, &self.topic) {
            (Action::Publish | Action::Subscribe, Some(topic)) => {
                Resource::Topic(settings.topic(topic))
            }
            (Action::Publish | Action::Subscribe, None) => {
                return Err(format!("to {} needs a topic", action.name()));
            }
            (_, Some(_)) => return Err(format!("{} is about no topic", action.name())),
            (Action::RunJob, None) => Resource::Sandbox {
                members_run_jobs: settings.members_run_jobs,
                max_cpu_s: settings.max_cpu_s,
            },
            (_, None) => Resource::Node(node),
        };
        let transport = self.transport()?;
        let stacked = transport == Some(ChannelKind::Stacked);
        Ok(Facts {
            action,
            principal: self.principal.facts(now)?,
            resource,
            context: Context {
                transport,
                post_quantum: self.context.post_quantum.unwrap_or(stacked),
                pq_auth: self.context.pq_auth,
                command: self.context.command.clone(),
                connect_min_trust: settings.connect_min_trust,
                messages_min_trust: settings.messages_min_trust,
            },
            ip: self.context.ip,
            now,
        })
    }

    fn transport(&self) -> Result<Option<ChannelKind>, String> {
        let named = self.context.transport.as_deref();
        let Some(name) = named else {
            return Ok(Some(ChannelKind::Stacked));
        };
        if name.is_empty() {
            return Ok(None);
        }
        let mut kinds = ChannelKind::ALL.into_iter();
        let kind = kinds.find(|kind| kind.name() == name).ok_or_else(|| {
            let known = ChannelKind::ALL.map(ChannelKind::name).join(", ");
            format!("the transport `{}` is none of {known}", name.escape_debug())
        })?;
        Ok(Some(kind))
    }
}

impl SketchPrincipal {
    fn facts(&self, now: u64) -> Result<Principal, String> {
        let credential = match self.tier {
            Tier::Member | Tier::SelfSigned => true,
            Tier::Unverified => false,
            Tier::Invited | Tier::RenewalOnly => {
                return Err("policies do not judge invited or lapsed peers".to_owned());
            }
        };
        let empty = self.issuer.is_empty()
            && self.subject.is_empty()
            && self.groups.is_empty()
            && self.attributes.is_empty()
            && self.cred_expires.is_none();
        if !credential && !empty {
            return Err(
                "an unverified peer has no credential: no issuer, subject, groups, \
                        attributes or end of it"
                    .to_owned(),
            );
        }
        let space = format!("{}/", self.issuer);
        let own = |group: &&String| !group.starts_with(&space) || group.len() == space.len();
        if let Some(foreign) = self.groups.iter().find(own) {
            return Err(format!(
                "the group `{}` is not of the issuer `{}`: write issuer/name",
                foreign.escape_debug(),
                self.issuer.escape_debug()
            ));
        }
        if self.groups.len() > MOST || self.attributes.len() > MOST {
            return Err(format!("at most {MOST} groups and {MOST} attributes"));
        }
        if self.trust > 100 || self.anomaly > 100 {
            return Err("trust and anomaly are hundredths: 0 to 100".to_owned());
        }
        let end = self.cred_expires.unwrap_or(now.saturating_add(LIFETIME));
        Ok(Principal {
            peer: self.peer.unwrap_or_else(|| some_peer(PEER_SEED)),
            tier: self.tier,
            issuer: self.issuer.clone(),
            subject: self.subject.clone(),
            groups: self.groups.clone(),
            attributes: self.attributes.clone(),
            trust: self.trust,
            anomaly: self.anomaly,
            probation: self.probation,
            quarantined: self.quarantined,
            expires: credential.then_some(end),
        })
    }
}

fn some_peer(seed: u8) -> PeerId {
    PeerId::from(&SigningKey::from_bytes(&[seed; 32]).verifying_key())
}
