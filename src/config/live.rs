//! Which changes of the configuration a running node takes, and which wait for its next start.
//!
//! A changed file is merged key by key: what can be applied is taken over, every other key keeps
//! the value that is in force. So an actor that is restarted for another reason never comes up
//! with half of a configuration that was not applied.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{Config, keys, layers::put, validate};

/// Longest value in a report, characters: a list of topics may have thousands.
const MAX_SHOWN: usize = 120;

/// How a changed key takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applies {
    /// At once, by the node itself.
    AtOnce,
    /// By these actors, which begin anew with it; their state and the connections stay.
    By(&'static [&'static str]),
    /// When the node starts the next time.
    NextStart,
}

/// Keys, or with a dot at the end sections, that a running node takes. Everything else needs a
/// start: listeners, the data directory, the database's and the log's own settings, quotas under
/// which jobs run.
const LIVE: [(&str, Applies); 27] = [
    ("log.level", Applies::AtOnce),
    ("policy.", Applies::AtOnce),
    ("gossip.batch_delay", Applies::AtOnce),
    ("gossip.batch_size", Applies::AtOnce),
    ("gossip.batch_count", Applies::AtOnce),
    ("outward.", Applies::AtOnce),
    ("reputation.", Applies::By(&["reputation"])),
    ("limits.connections_per_minute", RATES),
    ("limits.connections_per_minute_per_address", RATES),
    ("limits.connections_per_minute_per_subnet", RATES),
    ("limits.connections_per_minute_per_relay", RATES),
    ("limits.messages_per_second", RATES),
    ("limits.message_burst", RATES),
    ("limits.job_requests_per_second", RATES),
    ("limits.job_request_burst", RATES),
    ("limits.frames_per_second", RATES),
    ("limits.frame_burst", RATES),
    ("limits.bytes_per_second", RATES),
    ("limits.tracked_keys", RATES),
    ("limits.exempt_networks", RATES),
    ("identity.self_signed", Applies::By(&["identity"])),
    (
        "identity.require_status_lists",
        Applies::By(&["revocation"]),
    ),
    ("identity.renew", Applies::By(&["renewal"])),
    (
        "identity.renewal_grace",
        Applies::By(&["identity", "issuer"]),
    ),
    ("issuer.renew", Applies::By(&["issuer"])),
    ("issuer.lifetime", Applies::By(&["issuer"])),
    ("issuer.deny", Applies::By(&["issuer"])),
];
const RATES: Applies = Applies::By(&["rate_limit"]);

/// How a key takes effect when it is changed.
#[must_use]
pub fn applies(key: &str) -> Applies {
    let is = |live: &str| live == key || (live.ends_with('.') && key.starts_with(live));
    let found = LIVE.iter().find(|(live, _)| is(live));
    found.map_or(Applies::NextStart, |(_, applies)| *applies)
}

/// One key that the file has otherwise than the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// `section.key`.
    pub key: String,
    /// What was in force; empty: nothing.
    pub from: String,
    /// What the file says; empty: nothing.
    pub to: String,
    /// Whether it was applied. Otherwise it waits for the node's next start.
    pub applied: bool,
}

/// A configuration of which as much is taken over as a running node can.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// What is in force from now on.
    pub config: Config,
    /// What differs between the file and what was in force.
    pub changes: Vec<Change>,
    /// The actors that have to begin anew.
    pub actors: Vec<&'static str>,
}

/// Takes over of `wanted` what a running node with `in_force` can.
///
/// # Errors
/// When the keys that can be applied do not go together with those that cannot; nothing may be
/// taken over then.
pub fn merge(in_force: &Config, wanted: &Config) -> Result<Merged, String> {
    let (now, then) = (keys(in_force), keys(wanted));
    let mut table = match Value::try_from(in_force) {
        Ok(Value::Table(table)) => table,
        Ok(_) => Table::new(),
        Err(error) => return Err(error.to_string()),
    };
    let mut changes = Vec::new();
    let mut actors: Vec<&'static str> = Vec::new();
    for key in now
        .keys()
        .chain(then.keys().filter(|k| !now.contains_key(*k)))
    {
        let (from, to) = (now.get(key), then.get(key));
        if from == to {
            continue;
        }
        let applied = match (applies(key), to) {
            (Applies::NextStart, _) | (_, None) => false,
            (Applies::AtOnce, Some(value)) => put(&mut table, key, value.clone()),
            (Applies::By(names), Some(value)) => {
                for name in names {
                    if !actors.contains(name) {
                        actors.push(name);
                    }
                }
                put(&mut table, key, value.clone())
            }
        };
        changes.push(Change {
            key: key.clone(),
            from: shown(from),
            to: shown(to),
            applied,
        });
    }
    let config = Config::deserialize(Value::Table(table)).map_err(|error| error.to_string())?;
    match validate::check(&config).as_slice() {
        [] => Ok(Merged {
            config,
            changes,
            actors,
        }),
        [complaint, ..] => Err(together(complaint, &changes)),
    }
}

/// Each of the two was valid by itself, so it is their mixture that is not.
fn together(complaint: &validate::Complaint, changes: &[Change]) -> String {
    let waiting: Vec<&str> = changes
        .iter()
        .filter(|change| !change.applied)
        .map(|change| change.key.as_str())
        .collect();
    format!(
        "{}: {} while these wait for a start: {}; restart the node to have all of it",
        complaint.key,
        complaint.wrong,
        waiting.join(", ")
    )
}

fn shown(value: Option<&Value>) -> String {
    let text = value.map(ToString::to_string).unwrap_or_default();
    if text.chars().count() <= MAX_SHOWN {
        return text;
    }
    let start: String = text.chars().take(MAX_SHOWN).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_applied_keeps_what_is_in_force() {
        let old = Config::default();
        let mut new = old.clone();
        new.limits.messages_per_second = 77;
        new.policy.member_topics = vec!["acme/*".to_owned()];
        new.network.listen = Vec::new();
        new.log.level = "debug".to_owned();
        let merged = merge(&old, &new).unwrap();
        assert_eq!(merged.config.limits.messages_per_second, 77);
        assert_eq!(merged.config.policy.member_topics, ["acme/*"]);
        assert_eq!(merged.config.log.level, "debug");
        assert_eq!(merged.config.network.listen, old.network.listen);
        assert_eq!(merged.actors, ["rate_limit"]);
        let said: Vec<_> = merged
            .changes
            .iter()
            .map(|change| (change.key.as_str(), change.applied))
            .collect();
        assert_eq!(
            said,
            [
                ("limits.messages_per_second", true),
                ("log.level", true),
                ("network.listen", false),
                ("policy.member_topics", true),
            ]
        );
        assert_eq!(merged.changes[0].to, "77");
    }

    #[test]
    fn nothing_changed_is_nothing_to_do() {
        let config = Config::default();
        let merged = merge(&config, &config).unwrap();
        assert!(merged.changes.is_empty() && merged.actors.is_empty());
        assert_eq!(merged.config, config);
    }

    #[test]
    fn every_live_key_exists_and_every_actor_too() {
        let known = keys(&Config::default());
        for (live, applies) in LIVE {
            let found = known
                .keys()
                .any(|key| key == live || (live.ends_with('.') && key.starts_with(live)));
            assert!(found, "{live} is no key");
            if let Applies::By(actors) = applies {
                assert!(
                    actors.iter().all(|a| super::super::ACTORS.contains(a)),
                    "{live}"
                );
            }
        }
    }
}
