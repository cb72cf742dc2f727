//! What the configuration says of itself: its keys, their defaults, where each value came from.

use std::collections::BTreeMap;

use serde::Serialize;
use toml::Value;

use super::Config;

/// The shipped configuration: every key with its default and what it means.
pub const SHIPPED: &str = include_str!("../../config/node.toml");

/// The table of peers with a security level of their own.
pub(super) const PEERS: &str = "transport.peers";

/// Where a value came from; later ones win over earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File {
        /// The line, counted from 1.
        line: usize,
    },
    /// An environment variable.
    Env {
        /// Its name.
        variable: String,
    },
    /// A flag of the command line.
    Flag,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { line } => write!(f, "file line {line}"),
            Self::Env { variable } => write!(f, "env {variable}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// Every key of `config` with its value, as `section.key`, in alphabetical order.
#[must_use]
pub fn keys(config: &Config) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    if let Ok(value) = Value::try_from(config) {
        flatten(String::new(), value, &mut found);
    }
    found
}

fn flatten(prefix: String, value: Value, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                flatten(join(&prefix, &key), value, found);
            }
        }
        leaf => {
            found.insert(prefix, leaf);
        }
    }
}

/// `prefix.key`, or `key` at the top.
#[must_use]
pub(super) fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() {
        key.to_owned()
    } else {
        format!("{prefix}.{key}")
    }
}

/// Whether a key may be set, and an example of its value (the default).
///
/// Keys of one actor (`supervision.actors.NAME.KEY`) take their example from
/// `supervision.default.KEY`, those of one peer (`transport.peers.PEER`) from
/// `transport.security`.
#[must_use]
pub(super) fn example<'a>(defaults: &'a BTreeMap<String, Value>, key: &str) -> Option<&'a Value> {
    if is_peer_key(key) {
        return defaults.get("transport.security");
    }
    let general = actor_key(key).map(|(_, field)| format!("supervision.default.{field}"));
    defaults.get(general.as_deref().unwrap_or(key))
}

/// `transport.peers.PEER`.
fn is_peer_key(key: &str) -> bool {
    key.strip_prefix(PEERS)
        .and_then(|rest| rest.strip_prefix('.'))
        .is_some_and(|peer| !peer.is_empty() && !peer.contains('.'))
}

/// Actor and field of `supervision.actors.NAME.FIELD`.
fn actor_key(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix("supervision.actors.")?.split_once('.')
}

/// The known key nearest to an unknown one: a slip of a few letters, or the right name in the
/// wrong section.
#[must_use]
pub(super) fn nearest(defaults: &BTreeMap<String, Value>, key: &str) -> Option<String> {
    if let Some((name, field)) = actor_key(key) {
        let general = nearest(defaults, &format!("supervision.default.{field}"))?;
        let field = general.strip_prefix("supervision.default.")?;
        return Some(format!("supervision.actors.{name}.{field}"));
    }
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let name = last(key);
    let elsewhere = defaults.keys().find(|known| last(known) == name);
    if let Some(known) = elsewhere {
        return Some(known.clone());
    }
    let sections = defaults
        .keys()
        .filter_map(|k| k.rsplit_once('.'))
        .map(|(s, _)| s);
    let candidates = defaults.keys().map(String::as_str).chain(sections);
    candidates
        .map(|known| (distance(known, key), known))
        // More than a third of the letters wrong is no slip any more.
        .filter(|(distance, known)| distance * 3 <= known.len().max(3))
        .min()
        .map(|(_, known)| known.to_owned())
}

/// Levenshtein distance, by one row. Keys are short: the text is cut at 64 characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = Vec::with_capacity(row.len());
        next.push(left);
        for (y, up) in b.iter().zip(row.iter().skip(1)) {
            let cost = usize::from(x != *y);
            let best = (diagonal + cost).min(left + 1).min(up + 1);
            diagonal = *up;
            left = best;
            next.push(best);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn slips_are_recognised() {
        let defaults = keys(&Config::default());
        for (typed, meant) in [
            ("limits.conections", "limits.connections"),
            ("network.max_message_size", "limits.max_message_size"),
            ("log.levle", "log.level"),
            ("netwrok.listen", "network.listen"),
            ("limit", "limits"),
        ] {
            assert_eq!(nearest(&defaults, typed).as_deref(), Some(meant), "{typed}");
        }
        assert_eq!(nearest(&defaults, "colour.of_the_sky"), None);
    }

    #[test]
    fn an_actors_keys_have_examples() {
        let defaults = keys(&Config::default());
        assert!(example(&defaults, "supervision.actors.swarm.faults").is_some());
        assert!(example(&defaults, "supervision.actors.swarm.colour").is_none());
        assert!(example(&defaults, "supervision.actors.swarm").is_none());
    }
}
