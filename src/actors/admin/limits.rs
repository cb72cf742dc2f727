//! Every limit of the node: what it is, where it comes from, and what of it is in use.

use std::collections::BTreeMap;

use crate::{
    admin::protocol::LimitReport,
    config::{self, Config, Loaded, Lowered},
    messages::swarm::LimitUse,
    network::secure,
    types::{ByteSize, View},
};

/// What is known of the limits besides their use.
#[derive(Debug, Clone)]
pub struct LimitFacts {
    /// In force since the start, by `limits.key`.
    start: BTreeMap<String, String>,
    /// Where each of those came from.
    origins: BTreeMap<String, String>,
    /// The configuration in force now.
    live: View<Config>,
}

const SECTION: &str = "limits.";
/// Limits of other sections that follow from those.
const DERIVED: [&str; 2] = ["relay.reservations", "relay.circuits"];

impl LimitFacts {
    /// Of a configuration that was loaded, lowered to what the machine carries, and is `live`.
    #[must_use]
    pub fn new(loaded: &Loaded, lowered: &[Lowered], live: View<Config>) -> Self {
        let start = shown(&live.load());
        let origin = |key: &String| {
            let configured = loaded.origin(key);
            let mut text = configured.to_string();
            // The last one is what is in force.
            if let Some(lowered) = lowered.iter().rfind(|one| one.key == key) {
                text = format!(
                    "lowered from {} ({text}): {}",
                    lowered.configured, lowered.because
                );
            } else if shown(&loaded.config).get(key) != start.get(key) {
                text = format!("{text}, lowered with the limit above it");
            }
            (key.clone(), text)
        };
        let origins = start.keys().map(origin).collect();
        Self {
            start,
            origins,
            live,
        }
    }

    /// All limits with their use, those of the configuration first.
    pub(super) fn report(&self, used: &LimitUse) -> Vec<LimitReport> {
        let live = shown(&self.live.load());
        let configured = live.into_iter().map(|(name, value)| {
            let origin = if self.start.get(&name) == Some(&value) {
                self.origins.get(&name).cloned().unwrap_or_default()
            } else {
                "reloaded".to_owned()
            };
            let used = used_of(&name, used);
            LimitReport {
                name,
                value,
                used,
                origin,
            }
        });
        configured.chain(built_in()).collect()
    }
}

fn shown(config: &Config) -> BTreeMap<String, String> {
    let keys = config::keys(config).into_iter();
    keys.filter(|(key, _)| key.starts_with(SECTION) || DERIVED.contains(&key.as_str()))
        .map(|(key, value)| match value {
            toml::Value::String(text) => (key, text),
            other => (key, other.to_string()),
        })
        .collect()
}

fn used_of(name: &str, used: &LimitUse) -> Option<u64> {
    match name.strip_prefix(SECTION)? {
        "connections" => Some(used.inbound.saturating_add(used.outbound)),
        "inbound_connections" => Some(used.inbound),
        "outbound_connections" => Some(used.outbound),
        "connections_per_peer" => Some(used.most_of_a_peer),
        "connections_per_address" => Some(used.most_of_an_address),
        "connections_per_subnet" => Some(used.most_of_a_subnet),
        "pending_connections" => Some(used.pending),
        "memory" => Some(used.memory),
        "tracked_keys" => Some(used.tracked_keys),
        _ => None,
    }
}

/// Bounds without a key: each has its reason where it is defined.
fn built_in() -> impl Iterator<Item = LimitReport> {
    let bytes = |bytes: usize| {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        ByteSize(bytes).to_string()
    };
    let all = [
        ("unread of a connection", bytes(secure::CONNECTION_WINDOW)),
        ("unread before acceptance", bytes(secure::STRANGER_WINDOW)),
        (
            "streams of a muxer, both ways",
            secure::MAX_STREAMS.to_string(),
        ),
    ];
    all.into_iter().map(|(name, value)| LimitReport {
        name: name.to_owned(),
        value,
        used: None,
        origin: "built in".to_owned(),
    })
}
