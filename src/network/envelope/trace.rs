//! W3C Trace Context (Recommendation of 2021-11-23, level 1) beside a message: who follows traces
//! can join what the author did with what a receiver does. Nothing in it is believed or obeyed: a
//! receiver begins a span of its own that links to it, and samples as it likes.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most members of a `tracestate` (section 3.3.1.1 of the Recommendation).
const MAX_MEMBERS: usize = 32;
/// Longest key and value of a member (sections 3.3.1.3.1 and 3.3.1.3.2).
const MAX_KEY: usize = 256;
const MAX_TENANT: usize = 241;
const MAX_SYSTEM: usize = 14;
const MAX_VALUE: usize = 256;

/// A checked `traceparent` and perhaps a `tracestate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Texts", into = "Texts")]
pub struct Trace {
    parent: String,
    state: Option<String>,
}

/// As it stands in requests.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Texts {
    traceparent: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
}

impl TryFrom<Texts> for Trace {
    type Error = TraceError;

    fn try_from(texts: Texts) -> Result<Self, TraceError> {
        Self::new(&texts.traceparent, texts.tracestate.as_deref())
    }
}

impl From<Trace> for Texts {
    fn from(trace: Trace) -> Self {
        Self {
            traceparent: trace.parent,
            tracestate: trace.state,
        }
    }
}

/// Why texts are no trace context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TraceError {
    /// The `traceparent`.
    #[error(
        "a traceparent is 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, lower case, neither \
         id all zero"
    )]
    Parent,
    /// The `tracestate`.
    #[error(
        "a tracestate is a list of at most 32 key=value, separated by commas, of at most 512 \
         characters, no key twice (W3C Trace Context, 3.3)"
    )]
    State,
}

impl Trace {
    /// Bytes of every `traceparent` of version 00.
    pub const PARENT_LEN: usize = 55;
    /// Longest `tracestate` taken: what the Recommendation wants carried at least, and what
    /// everybody who carries messages is asked to pay at most.
    pub const MAX_STATE: usize = 512;

    /// Takes a trace context as a tracer writes it: spaces around the members of the state and
    /// empty members are left out.
    ///
    /// # Errors
    /// [`TraceError`] says which of the two is wrong.
    pub fn new(parent: &str, state: Option<&str>) -> Result<Self, TraceError> {
        // Before it is taken apart.
        if state.is_some_and(|state| state.len() > 2 * Self::MAX_STATE) {
            return Err(TraceError::State);
        }
        let members = state.unwrap_or_default().split(',');
        let members = members.map(|member| member.trim_matches([' ', '\t']));
        let members: Vec<&str> = members.filter(|member| !member.is_empty()).collect();
        let state = members.join(",");
        Self::exact(parent, Some(state.as_str()).filter(|text| !text.is_empty()))
    }

    /// Takes a trace context as it stands in an envelope.
    ///
    /// # Errors
    /// As [`Trace::new`]; a state that is empty, or has spaces around its members, is wrong here.
    pub fn exact(parent: &str, state: Option<&str>) -> Result<Self, TraceError> {
        if !is_parent(parent) {
            return Err(TraceError::Parent);
        }
        if !state.is_none_or(is_state) {
            return Err(TraceError::State);
        }
        Ok(Self {
            parent: parent.to_owned(),
            state: state.map(str::to_owned),
        })
    }

    /// The `traceparent`.
    #[must_use]
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// The `tracestate`.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The trace id within the `traceparent`, 32 hex digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        self.parent.get(3..35).unwrap_or_default()
    }

    /// The id of the author's span within it, 16 hex digits.
    #[must_use]
    pub fn span_id(&self) -> &str {
        self.parent.get(36..52).unwrap_or_default()
    }
}

fn is_parent(text: &str) -> bool {
    let bytes = text.as_bytes();
    let hex = |range: std::ops::Range<usize>| {
        bytes
            .get(range)
            .is_some_and(|part| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    };
    let zero = |range: std::ops::Range<usize>| {
        bytes
            .get(range)
            .is_none_or(|part| part.iter().all(|b| *b == b'0'))
    };
    bytes.len() == Trace::PARENT_LEN
        && text.starts_with("00-")
        && bytes.get(35) == Some(&b'-')
        && bytes.get(52) == Some(&b'-')
        && hex(3..35)
        && hex(36..52)
        && hex(53..55)
        && !zero(3..35)
        && !zero(36..52)
}

fn is_state(text: &str) -> bool {
    if text.is_empty() || text.len() > Trace::MAX_STATE {
        return false;
    }
    let mut keys: Vec<&str> = Vec::new();
    for member in text.split(',') {
        let Some((key, value)) = member.split_once('=') else {
            return false;
        };
        if keys.len() >= MAX_MEMBERS || keys.contains(&key) || !is_key(key) || !is_value(value) {
            return false;
        }
        keys.push(key);
    }
    true
}

/// `lcalpha`, then letters, digits and `_-*/`; or `tenant@system`, where a tenant may begin with a
/// digit.
fn is_key(key: &str) -> bool {
    let word = |text: &str, most: usize, digit_first: bool| {
        let first = text.bytes().next();
        text.len() <= most
            && first.is_some_and(|b| b.is_ascii_lowercase() || digit_first && b.is_ascii_digit())
            && text.bytes().all(|b| {
                b.is_ascii_lowercase()
                    || b.is_ascii_digit()
                    || matches!(b, b'_' | b'-' | b'*' | b'/')
            })
    };
    match key.split_once('@') {
        Some((tenant, system)) => word(tenant, MAX_TENANT, true) && word(system, MAX_SYSTEM, false),
        None => word(key, MAX_KEY, false),
    }
}

/// Printable ASCII without comma and equals sign, not ending in a space.
fn is_value(value: &str) -> bool {
    (1..=MAX_VALUE).contains(&value.len())
        && value
            .bytes()
            .all(|b| matches!(b, 0x20..=0x7e) && b != b',' && b != b'=')
        && !value.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_checked_to_the_letter() {
        let trace = Trace::new(PARENT, None).unwrap();
        assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.span_id(), "00f067aa0ba902b7");
        for wrong in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902é-01",
        ] {
            assert_eq!(Trace::new(wrong, None), Err(TraceError::Parent), "{wrong}");
        }
    }

    #[test]
    fn a_tracestate_is_checked_and_written_one_way() {
        let state = |text: &str| Trace::new(PARENT, Some(text)).map(|trace| trace.state);
        assert_eq!(
            state("rojo=00f0,\tcongo = , a@b=c ,,"),
            Err(TraceError::State),
            "a key with a space"
        );
        assert_eq!(
            state(" rojo=00f067aa , 1t@sys=x y ,, ").unwrap().unwrap(),
            "rojo=00f067aa,1t@sys=x y"
        );
        assert_eq!(state(" , "), Ok(None));
        let long = "k=".to_owned() + &"v".repeat(257);
        let many: Vec<String> = (0..33).map(|n| format!("k{n}=v")).collect();
        let much = format!("a={0},b={0}", "v".repeat(256));
        for wrong in [
            "novalue",
            "=v",
            "k=",
            "K=v",
            "1k=v",
            "k@1s=v",
            "a=1,a=2",
            "k=a=b",
            "k=\u{7f}",
            &long,
            &many.join(","),
            &much,
        ] {
            assert_eq!(state(wrong), Err(TraceError::State), "{wrong}");
        }
        assert_eq!(
            Trace::exact(PARENT, Some("a=1, b=2")),
            Err(TraceError::State)
        );
        assert_eq!(Trace::exact(PARENT, Some("")), Err(TraceError::State));
    }

    proptest! {
        #[test]
        fn what_is_taken_is_taken_again_as_it_is(text in "[a-c@=, \t0-9]{0,40}") {
            if let Ok(trace) = Trace::new(PARENT, Some(&text)) {
                prop_assert_eq!(Trace::exact(trace.parent(), trace.state()), Ok(trace.clone()));
            }
        }
    }
}
