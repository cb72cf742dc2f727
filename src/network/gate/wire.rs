//! What travels on the gate's stream: length-prefixed messages, one byte of kind each.
//!
//! `u32` big-endian length of what follows, then the kind, then the body. Pure and bounded: a
//! length beyond the limit is refused before a byte of the body is read. The bytes are frozen by
//! `tests/fixtures/network/gate.hex`.

use thiserror::Error;

use crate::{
    identity::{BINDING_BYTES, Refusal},
    network::convert::loggable,
};

/// The protocol's name; its number changes with any byte of this file.
pub const PROTOCOL: &str = "/quantraband/gate/2";
/// Largest credential frame: three credentials of 8 KiB, with room for proofs and status heads.
pub const MAX_FRAME: usize = 64 * 1024;
/// Largest message after its length prefix: the kind and a frame.
pub const MAX_MESSAGE: usize = MAX_FRAME + 1;
/// Bytes of the length prefix.
pub const PREFIX: usize = 4;
/// Bytes of a nonce.
pub const NONCE: usize = BINDING_BYTES;
/// Version of the verdict's body.
const VERDICT_VERSION: u8 = 1;
/// Longest code of a refusal: the longest this node sends has 14 characters.
const MAX_CODE: usize = 32;
/// Longest explanation: one line for an operator.
const MAX_TEXT: usize = 160;

const KIND_CREDENTIAL: u8 = 0;
const KIND_VERDICT: u8 = 1;
const KIND_HELLO: u8 = 2;
const ACCEPTED: u8 = 0;
const REFUSED: u8 = 1;

/// One message of the exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A fresh nonce, which proofs of possession on this channel must contain. First on channels
    /// that have no exporter, never sent on others.
    Hello([u8; NONCE]),
    /// A credential frame; the identity room decodes it.
    Credential(Vec<u8>),
    /// What the sender decided about the receiver. Before its credential it means that the
    /// sender does not even want to hear the receiver.
    Verdict(Verdict),
}

/// What one side decided about the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Welcome.
    Accepted,
    /// Not welcome.
    Refused {
        /// The refusal's stable name.
        code: String,
        /// The refusal in words. Text of the peer: never logged unescaped.
        text: String,
    },
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The length prefix promises more than is allowed.
    #[error("a gate message may have 1 to {limit} bytes, not {0}", limit = MAX_MESSAGE)]
    Length(u32),
    /// A kind this version does not know.
    #[error("unknown kind of gate message")]
    Kind,
    /// A nonce of another length.
    #[error("malformed hello")]
    Hello,
    /// A verdict that is not in the one encoding allowed.
    #[error("malformed verdict")]
    Verdict,
    /// A verdict of another version.
    #[error("unknown version of the verdict")]
    Version,
}

impl WireError {
    /// The same in the identity room's words.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        Refusal::Malformed(match self {
            Self::Length(_) => "gate message of a forbidden length",
            Self::Kind => "gate message of an unknown kind",
            Self::Hello => "gate hello",
            Self::Verdict => "gate verdict",
            Self::Version => "version of the gate verdict",
        })
    }
}

impl Verdict {
    /// The verdict that tells `refusal` to the peer it is about.
    #[must_use]
    pub fn refused(refusal: &Refusal) -> Self {
        Self::Refused {
            code: refusal.code().to_owned(),
            text: clip(&loggable(&refusal.to_string(), MAX_TEXT), MAX_TEXT).to_owned(),
        }
    }
}

/// The longest prefix of at most `max` bytes that ends at a character's end.
fn clip(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// Checks a length prefix and says how many bytes to read next.
///
/// # Errors
/// [`WireError::Length`] for nothing and for too much.
pub fn body_length(prefix: [u8; PREFIX]) -> Result<usize, WireError> {
    let length = u32::from_be_bytes(prefix);
    match usize::try_from(length) {
        Ok(length) if (1..=MAX_MESSAGE).contains(&length) => Ok(length),
        _ => Err(WireError::Length(length)),
    }
}

impl Message {
    /// The message with its length prefix. A frame longer than [`MAX_FRAME`] is cut, and so
    /// refused by the peer; the identity room never makes one.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(nonce) => framed(KIND_HELLO, nonce),
            Self::Credential(frame) => encode_credential(frame),
            Self::Verdict(verdict) => framed(KIND_VERDICT, &encode_verdict(verdict)),
        }
    }

    /// Reads a message without its length prefix.
    ///
    /// # Errors
    /// As [`WireError`] says.
    pub fn decode(mut bytes: Vec<u8>) -> Result<Self, WireError> {
        match bytes.first() {
            Some(&KIND_CREDENTIAL) => {
                bytes.remove(0);
                Ok(Self::Credential(bytes))
            }
            Some(&KIND_VERDICT) => decode_verdict(bytes.get(1..).unwrap_or_default()),
            Some(&KIND_HELLO) => match bytes.get(1..).map(<[u8; NONCE]>::try_from) {
                Some(Ok(nonce)) => Ok(Self::Hello(nonce)),
                _ => Err(WireError::Hello),
            },
            _ => Err(WireError::Kind),
        }
    }
}

/// A credential message around `frame`, without copying it first.
#[must_use]
pub fn encode_credential(frame: &[u8]) -> Vec<u8> {
    framed(KIND_CREDENTIAL, frame.get(..MAX_FRAME).unwrap_or(frame))
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 1).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(PREFIX + 1 + body.len());
    out.extend_from_slice(&length.to_be_bytes());
    out.push(kind);
    out.extend_from_slice(body);
    out
}

fn encode_verdict(verdict: &Verdict) -> Vec<u8> {
    let mut out = vec![VERDICT_VERSION];
    match verdict {
        Verdict::Accepted => out.push(ACCEPTED),
        Verdict::Refused { code, text } => {
            out.push(REFUSED);
            for part in [clip(code, MAX_CODE), clip(text, MAX_TEXT)] {
                // Both limits fit a byte.
                out.push(u8::try_from(part.len()).unwrap_or(0));
                out.extend_from_slice(part.as_bytes());
            }
        }
    }
    out
}

fn decode_verdict(body: &[u8]) -> Result<Message, WireError> {
    let verdict = match body {
        [VERDICT_VERSION, ACCEPTED] => Verdict::Accepted,
        [VERDICT_VERSION, REFUSED, rest @ ..] => {
            let (code, rest) = text(rest, MAX_CODE)?;
            let (text, rest) = text(rest, MAX_TEXT)?;
            if !rest.is_empty() || code.is_empty() {
                return Err(WireError::Verdict);
            }
            Verdict::Refused { code, text }
        }
        [VERDICT_VERSION, ..] | [] => return Err(WireError::Verdict),
        _ => return Err(WireError::Version),
    };
    Ok(Message::Verdict(verdict))
}

/// A text of at most `max` bytes after one byte of length, and what follows it.
fn text(bytes: &[u8], max: usize) -> Result<(String, &[u8]), WireError> {
    let (length, rest) = bytes.split_first().ok_or(WireError::Verdict)?;
    let length = usize::from(*length);
    if length > max {
        return Err(WireError::Verdict);
    }
    let (text, rest) = rest.split_at_checked(length).ok_or(WireError::Verdict)?;
    let text = str::from_utf8(text).map_err(|_| WireError::Verdict)?;
    Ok((text.to_owned(), rest))
}

#[cfg(test)]
mod tests;
