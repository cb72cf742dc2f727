//! Administration from afar: commands of the admin socket, sent by a peer over the overlay.
//!
//! Protocol [`PROTOCOL`]: one request, one response, a stream each. Both are the JSON of
//! [`super::protocol`], the whole of their direction of the stream. Commands that carry files or
//! that would be passed on are not taken from afar, and neither is `subscribe`: a node that may hear a
//! topic subscribes for itself ([`is_taken`]).
//!
//! What streams on the socket (`audit_tail`, `job_follow`) is a series of questions here, each from
//! where the last answer ended, each judged anew: who may no longer administer loses the stream
//! with the next question, and the node keeps nothing for who follows.
//!
//! Who may is the access decision's business (`administer`); without a policy that permits it,
//! nobody may. The peer's text is bounded before it is parsed.

use super::protocol::{self, Failure, FailureCode};
use crate::cbor::Malformed;

/// The protocol's name.
pub const PROTOCOL: &str = "/quantraband/admin/1";
/// The longest request, bytes: the longest command has a topic, a payload and a few names.
pub const MAX_REQUEST: usize = 64 << 10;
/// The longest response, bytes: a thousand peers have about half of it.
pub const MAX_RESPONSE: usize = 1 << 20;
/// Most records of the log that one question from afar is about: they are read from the disk each
/// time, a few MB.
pub const MAX_TAIL: usize = 1_000;
/// Most bytes of lines in one [`protocol::Response::Batch`]: half the longest response, since a JSON
/// text in a JSON text is at most twice as long.
const MAX_BATCH: usize = MAX_RESPONSE / 2 - (16 << 10);
/// What a line takes beside its text, bytes.
const LINE: usize = 64;
/// Longest explanation of what is not understood, characters.
const MAX_WHY: usize = 256;
const NOT_A_COMMAND: Malformed = Malformed("not a JSON object");
const TOO_LONG: Malformed = Malformed("longer than allowed");

/// What a peer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A command that this version knows.
    Command(Box<protocol::Request>),
    /// One that it does not know, as of a later version; why.
    Unknown(String),
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Response(pub Box<protocol::Response>);

impl Request {
    /// The command's bytes; one that is not known has none.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Command(command) => serde_json::to_vec(command).unwrap_or_default(),
            Self::Unknown(_) => Vec::new(),
        }
    }

    /// Reads a command.
    ///
    /// # Errors
    /// For what is no JSON object, or too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_REQUEST {
            return Err(TOO_LONG);
        }
        match serde_json::from_slice(bytes) {
            Ok(command) => Ok(Self::Command(Box::new(command))),
            Err(error) => {
                let object: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_slice(bytes).map_err(|_| NOT_A_COMMAND)?;
                let named = object.get("command").and_then(|name| name.as_str());
                named.ok_or(NOT_A_COMMAND)?;
                Ok(Self::Unknown(
                    error.to_string().chars().take(MAX_WHY).collect(),
                ))
            }
        }
    }
}

impl Response {
    /// The answer's bytes. One that is too long becomes a failure that says so.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let bytes = serde_json::to_vec(&self.0).unwrap_or_default();
        if !bytes.is_empty() && bytes.len() <= MAX_RESPONSE {
            return bytes;
        }
        let why = "the answer is too long to be sent: ask the node itself";
        let failure = Failure::new(FailureCode::TooLarge, why);
        serde_json::to_vec(&protocol::Response::Error(failure)).unwrap_or_default()
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// For what is no answer, or too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_RESPONSE {
            return Err(TOO_LONG);
        }
        let answer = serde_json::from_slice(bytes).map_err(|_| Malformed("not an answer"))?;
        Ok(Self(Box::new(answer)))
    }
}

/// As many lines as fit into one answer, but one at least: an answer that is too long says so. The
/// last is [`protocol::Response::Done`] (or another that ends the stream) only if all fit.
#[must_use]
pub fn batch(lines: Vec<protocol::Response>) -> protocol::Response {
    let mut room = MAX_BATCH;
    let mut fitting = Vec::new();
    for line in lines {
        let length = match &line {
            protocol::Response::AuditRecord { line } => line.len(),
            // In hex, which is not escaped.
            protocol::Response::JobOutput { bytes, .. } => bytes.len(),
            _ => 0,
        };
        let Some(left) = room.checked_sub(length.saturating_add(LINE)) else {
            if fitting.is_empty() {
                fitting.push(line);
            }
            break;
        };
        room = left;
        fitting.push(line);
    }
    protocol::Response::Batch { lines: fitting }
}

/// Whether a command is taken from afar.
#[must_use]
pub fn is_taken(command: &protocol::Request) -> bool {
    use protocol::Request as R;
    !matches!(
        command,
        R::Subscribe { .. }
            | R::JobUpload { .. }
            | R::JobSubmit { .. }
            | R::SealingKey { .. }
            | R::StatusImport { .. }
            | R::Remote { .. }
    )
}

/// What to do instead of a command that is not taken from afar.
#[must_use]
pub fn instead_of(command: &protocol::Request) -> &'static str {
    use protocol::Request as R;
    match command {
        R::Subscribe { .. } => "subscribe on a node of your own that may hear the topic",
        R::JobUpload { .. } | R::JobSubmit { .. } => "give it the job from your node: job run --on",
        R::StatusImport { .. } => "import the list at your own node, which passes it on",
        _ => "run it on the node itself",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_and_answers_go_through() {
        let command = Request::Command(Box::new(protocol::Request::Peers {}));
        assert_eq!(Request::decode(&command.encode()), Ok(command));
        let answer = Response(Box::new(protocol::Response::ShuttingDown {}));
        assert_eq!(Response::decode(&answer.encode()), Ok(answer));
    }

    #[test]
    fn a_later_versions_command_is_no_misdeed_and_noise_is() {
        for later in [
            &br#"{"command":"dance"}"#[..],
            br#"{"command":"peers","x":1}"#,
        ] {
            assert!(matches!(Request::decode(later), Ok(Request::Unknown(_))));
        }
        for noise in [&b""[..], b"[]", b"{}", b"\xff", br#"{"command":7}"#] {
            assert!(Request::decode(noise).is_err(), "{noise:?}");
        }
        assert!(Request::decode(&vec![b' '; MAX_REQUEST + 1]).is_err());
    }

    #[test]
    fn an_answer_that_is_too_long_says_so() {
        let state = serde_json::Value::String("x".repeat(MAX_RESPONSE));
        let actor = "a".to_owned();
        let answer = Response(Box::new(protocol::Response::Observed { actor, state }));
        let Ok(Response(answer)) = Response::decode(&answer.encode()) else {
            panic!("no answer");
        };
        let protocol::Response::Error(failure) = *answer else {
            panic!("{answer:?}");
        };
        assert_eq!(failure.code, FailureCode::TooLarge);
    }

    #[test]
    fn nothing_is_passed_on() {
        let peers = Box::new(protocol::Request::Peers {});
        assert!(is_taken(&peers));
        let node = crate::identity::testing::node().peer();
        assert!(!is_taken(&protocol::Request::Remote {
            node,
            request: peers,
            again: false,
        }));
    }

    #[test]
    fn a_batch_fits_into_an_answer_whatever_stands_in_its_lines() {
        let record = |text: &str| protocol::Response::AuditRecord {
            line: text.repeat(65_000 / text.len()),
        };
        for text in ["x", "\"", "\\", "\u{e9}"] {
            let mut lines = vec![record(text); 40];
            lines.push(protocol::Response::Done {});
            let answer = batch(lines);
            let protocol::Response::Batch { lines } = &answer else {
                panic!("{answer:?}");
            };
            assert_eq!(lines.len(), 7, "of 65 KB each, without the end");
            assert!(Response(Box::new(answer.clone())).encode().len() > MAX_RESPONSE / 4);
            let encoded = Response(Box::new(answer.clone())).encode();
            assert_eq!(Response::decode(&encoded), Ok(Response(Box::new(answer))));
        }
        let output = |n: usize| protocol::Response::JobOutput {
            stream: crate::sandbox::Stream::Stdout,
            bytes: vec![0; n],
        };
        let end = protocol::Response::Done {};
        let whole = batch(vec![output(crate::sandbox::MAX_PIECE), end.clone()]);
        let protocol::Response::Batch { lines } = &whole else {
            panic!("{whole:?}");
        };
        assert_eq!(lines.last(), Some(&end), "a whole piece fits");
        // Two whole pieces do not: the second comes with the next question.
        let both = batch(vec![output(crate::sandbox::MAX_PIECE); 2]);
        assert!(matches!(&both, protocol::Response::Batch { lines } if lines.len() == 1));
        let encoded = Response(Box::new(both.clone())).encode();
        assert_eq!(Response::decode(&encoded), Ok(Response(Box::new(both))));
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Request::decode(&bytes);
            let _ = Response::decode(&bytes);
        }
    }
}
