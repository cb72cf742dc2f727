//! The enrolment protocol `/quantraband/enrolment/1`: one request, one response, a stream each.
//!
//! [`Request::Enrol`] asks an issuer's node for a credential: a member for a new one before its own
//! ends, one whose credential ended lately, or a node that was invited. Which of them it is, the
//! connection says, never the request. [`Request::Rotate`] asks, over a connection made with the old
//! keys, for a credential for the new ones. [`Request::Present`] shows a renewed credential over a
//! connection that stands, so that nobody has to connect anew because a credential was replaced.
//!
//! Deterministic CBOR, one encoding for each message, bounded before anything is built; the table
//! of fields is in `docs/reference/enrolment.md`. Pure. Reading fails with a [`Malformed`] that
//! names the rule; the network room then closes that stream, and the sender is charged.

use std::time::Duration;

use ciborium::Value;

use super::{MAX_CHAIN_BYTES, MAX_CONTINUITY_BYTES, MAX_REQUEST_BYTES, anchor::MAX_ANCHOR_BYTES};
use crate::{
    cbor::{self, Fields, Malformed, Read},
    identity::claims::MAX_SECONDS,
    telemetry::printable,
    types::Timestamp,
};

/// The protocol's name; its number changes with any byte of this file.
pub const PROTOCOL: &str = "/quantraband/enrolment/1";
/// What a message holds besides its documents.
const OVERHEAD: usize = 1 << 10;
/// Longest request: a chain.
pub const MAX_REQUEST: usize = MAX_CHAIN_BYTES + OVERHEAD;
/// Longest response: a chain and an anchor.
pub const MAX_RESPONSE: usize = MAX_CHAIN_BYTES + MAX_ANCHOR_BYTES + OVERHEAD;
/// Longest explanation of a refusal, in characters: two lines for a person.
pub const MAX_DETAIL: usize = 256;
/// Most CBOR items of a message: a map of a few fields.
const MAX_ITEMS: usize = 16;

const F_KIND: i64 = 1;
const F_BODY: i64 = 2;
const F_ANCHOR: i64 = 3;
const F_DETAIL: i64 = 4;
const F_AGAIN: i64 = 5;
const F_UNTIL: i64 = 6;

const ENROL: u64 = 1;
const PRESENT: u64 = 2;
const ROTATE: u64 = 3;
const ISSUED: u64 = 1;
const NOTED: u64 = 2;
const REFUSED: u64 = 3;
const ROTATED: u64 = 4;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Issue me a credential.
    Enrol {
        /// A signing request, at most [`MAX_REQUEST_BYTES`].
        request: Vec<u8>,
    },
    /// This is my credential from now on.
    Present {
        /// The chain as a file holds it, at most [`MAX_CHAIN_BYTES`].
        chain: Vec<u8>,
    },
    /// These are my keys from now on: issue me a credential for them.
    Rotate {
        /// A continuity statement, at most [`MAX_CONTINUITY_BYTES`].
        statement: Vec<u8>,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// To [`Request::Enrol`].
    Issued {
        /// The new chain, at most [`MAX_CHAIN_BYTES`].
        chain: Vec<u8>,
        /// The issuer's anchor, for a node that was invited; at most [`MAX_ANCHOR_BYTES`].
        anchor: Option<Vec<u8>>,
    },
    /// To [`Request::Rotate`].
    Rotated {
        /// The chain for the new keys, at most [`MAX_CHAIN_BYTES`].
        chain: Vec<u8>,
        /// When the credential of the old keys is taken back, at the latest: in whole seconds.
        until: Timestamp,
    },
    /// To [`Request::Present`]: it is known now.
    Noted,
    /// To any request: no.
    Refused(Refused),
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// For programs.
    pub code: RefusalCode,
    /// For people: at most [`MAX_DETAIL`] printable characters.
    pub detail: String,
    /// When it may be worth trying again, from now.
    pub retry_after_ms: Option<u32>,
}

impl Refused {
    /// A refusal; `detail` is made printable and cut.
    #[must_use]
    pub fn new(code: RefusalCode, detail: &str) -> Self {
        let clean = printable(detail);
        Self {
            code,
            detail: clean.chars().take(MAX_DETAIL).collect(),
            retry_after_ms: None,
        }
    }

    /// The same, with a time after which to try again.
    #[must_use]
    pub fn after(mut self, span: Duration) -> Self {
        self.retry_after_ms = Some(u32::try_from(span.as_millis()).unwrap_or(u32::MAX));
        self
    }
}

/// What kind of refusal it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalCode {
    /// This node issues nothing.
    NotIssuer,
    /// The rules say no.
    Denied,
    /// The request is no proper one, or not of who sent it.
    Invalid,
    /// The credential still holds for long.
    TooEarly,
    /// Too many requests.
    Rate,
    /// A part of the node is down for a moment.
    Unavailable,
}

impl RefusalCode {
    /// All of them; the number on the wire is the place, from 1.
    pub const ALL: [Self; 6] = [
        Self::NotIssuer,
        Self::Denied,
        Self::Invalid,
        Self::TooEarly,
        Self::Rate,
        Self::Unavailable,
    ];

    /// A stable, bounded name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotIssuer => "not_issuer",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::TooEarly => "too_early",
            Self::Rate => "rate",
            Self::Unavailable => "unavailable",
        }
    }

    fn number(self) -> u64 {
        let place = Self::ALL.iter().position(|code| *code == self);
        place.map_or(0, |place| u64::try_from(place).unwrap_or(0) + 1)
    }

    fn from_number(number: u64) -> Read<Self> {
        let place = number.checked_sub(1).and_then(|n| usize::try_from(n).ok());
        place
            .and_then(|place| Self::ALL.get(place).copied())
            .ok_or(Malformed("a refusal of unknown kind"))
    }
}

fn until(seconds: u64) -> Read<Timestamp> {
    match seconds <= MAX_SECONDS {
        true => Ok(Timestamp::from_secs(seconds)),
        false => Err(Malformed("a time is out of range")),
    }
}

fn bounded(value: Value, max: usize) -> Read<Vec<u8>> {
    let bytes = cbor::bytes(value)?;
    if bytes.is_empty() || bytes.len() > max {
        return Err(Malformed("a document is empty or too long"));
    }
    Ok(bytes)
}

impl Request {
    /// A stable, bounded name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Enrol { .. } => "enrol",
            Self::Present { .. } => "present",
            Self::Rotate { .. } => "rotate",
        }
    }

    /// The one encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Enrol { request } => (ENROL, request),
            Self::Present { chain } => (PRESENT, chain),
            Self::Rotate { statement } => (ROTATE, statement),
        };
        cbor::encode(&cbor::int_map([
            (F_KIND, Value::from(kind)),
            (F_BODY, Value::Bytes(body.clone())),
        ]))
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Read<Self> {
        let value = cbor::decode_counted(bytes, MAX_REQUEST, MAX_ITEMS)?;
        let mut fields = Fields::of(value)?;
        let kind = cbor::uint(fields.need(F_KIND)?)?;
        let body = fields.need(F_BODY)?;
        fields.finish()?;
        let request = match kind {
            ENROL => Self::Enrol {
                request: bounded(body, MAX_REQUEST_BYTES)?,
            },
            PRESENT => Self::Present {
                chain: bounded(body, MAX_CHAIN_BYTES)?,
            },
            ROTATE => Self::Rotate {
                statement: bounded(body, MAX_CONTINUITY_BYTES)?,
            },
            _ => return Err(Malformed("a request of unknown kind")),
        };
        cbor::same(bytes, &request.encode())?;
        Ok(request)
    }
}

impl Response {
    /// A refusal.
    #[must_use]
    pub fn refuse(code: RefusalCode, detail: &str) -> Self {
        Self::Refused(Refused::new(code, detail))
    }

    /// The one encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let fields = match self {
            Self::Issued { chain, anchor } => {
                let mut fields = vec![
                    (F_KIND, Value::from(ISSUED)),
                    (F_BODY, Value::Bytes(chain.clone())),
                ];
                if let Some(anchor) = anchor {
                    fields.push((F_ANCHOR, Value::Bytes(anchor.clone())));
                }
                fields
            }
            Self::Rotated { chain, until } => vec![
                (F_KIND, Value::from(ROTATED)),
                (F_BODY, Value::Bytes(chain.clone())),
                (F_UNTIL, Value::from(until.secs())),
            ],
            Self::Noted => vec![(F_KIND, Value::from(NOTED))],
            Self::Refused(refused) => {
                let mut fields = vec![
                    (F_KIND, Value::from(REFUSED)),
                    (F_BODY, Value::from(refused.code.number())),
                    (F_DETAIL, Value::from(refused.detail.clone())),
                ];
                if let Some(again) = refused.retry_after_ms {
                    fields.push((F_AGAIN, Value::from(again)));
                }
                fields
            }
        };
        cbor::encode(&cbor::int_map(fields))
    }

    /// Reads a response.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Read<Self> {
        let value = cbor::decode_counted(bytes, MAX_RESPONSE, MAX_ITEMS)?;
        let mut fields = Fields::of(value)?;
        let response = match cbor::uint(fields.need(F_KIND)?)? {
            ISSUED => Self::Issued {
                chain: bounded(fields.need(F_BODY)?, MAX_CHAIN_BYTES)?,
                anchor: fields
                    .take(F_ANCHOR)
                    .map(|anchor| bounded(anchor, MAX_ANCHOR_BYTES))
                    .transpose()?,
            },
            ROTATED => Self::Rotated {
                chain: bounded(fields.need(F_BODY)?, MAX_CHAIN_BYTES)?,
                until: until(cbor::uint(fields.need(F_UNTIL)?)?)?,
            },
            NOTED => Self::Noted,
            REFUSED => Self::Refused(Self::read_refused(&mut fields)?),
            _ => return Err(Malformed("a response of unknown kind")),
        };
        fields.finish()?;
        cbor::same(bytes, &response.encode())?;
        Ok(response)
    }

    fn read_refused(fields: &mut Fields) -> Read<Refused> {
        let code = RefusalCode::from_number(cbor::uint(fields.need(F_BODY)?)?)?;
        let detail = cbor::text(fields.need(F_DETAIL)?)?;
        if Refused::new(code, &detail).detail != detail {
            return Err(Malformed("a text is too long or not printable"));
        }
        let again = fields.take(F_AGAIN).map(cbor::uint).transpose()?;
        let retry_after_ms = again
            .map(|again| u32::try_from(again).map_err(|_| Malformed("a span is too long")))
            .transpose()?;
        Ok(Refused {
            code,
            detail,
            retry_after_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn requests() -> impl Strategy<Value = Request> {
        let bytes = proptest::collection::vec(any::<u8>(), 1..200);
        (0..3, bytes).prop_map(|(kind, bytes)| match kind {
            0 => Request::Enrol { request: bytes },
            1 => Request::Rotate { statement: bytes },
            _ => Request::Present { chain: bytes },
        })
    }

    fn responses() -> impl Strategy<Value = Response> {
        let bytes = || proptest::collection::vec(any::<u8>(), 1..200);
        let code = (0..RefusalCode::ALL.len()).prop_map(|at| RefusalCode::ALL[at]);
        prop_oneof![
            (bytes(), proptest::option::of(bytes()))
                .prop_map(|(chain, anchor)| Response::Issued { chain, anchor }),
            Just(Response::Noted),
            (bytes(), 0..=MAX_SECONDS).prop_map(|(chain, until)| Response::Rotated {
                chain,
                until: Timestamp::from_secs(until)
            }),
            (code, "[ -~]{0,300}", proptest::option::of(any::<u32>())).prop_map(
                |(code, detail, again)| {
                    let mut refused = Refused::new(code, &detail);
                    refused.retry_after_ms = again;
                    Response::Refused(refused)
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(request in requests(), response in responses()) {
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
            prop_assert_eq!(Response::decode(&response.encode()), Ok(response));
        }

        #[test]
        fn every_byte_that_is_read_has_one_meaning(
            response in responses(), at in any::<proptest::sample::Index>(), bit in 0..8_u8,
        ) {
            let mut bytes = response.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(other) = Response::decode(&bytes) {
                prop_assert_ne!(&other, &response);
                prop_assert_eq!(other.encode(), bytes);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = (Request::decode(&bytes), Response::decode(&bytes));
        }
    }

    #[test]
    fn sizes_are_bounded() {
        let long = Request::Enrol {
            request: vec![0; MAX_REQUEST_BYTES + 1],
        };
        assert!(Request::decode(&long.encode()).is_err());
        let longest = Request::Present {
            chain: vec![0; MAX_CHAIN_BYTES],
        };
        assert!(Request::decode(&longest.encode()).is_ok());
        let longest = Response::Issued {
            chain: vec![0; MAX_CHAIN_BYTES],
            anchor: Some(vec![0; MAX_ANCHOR_BYTES]),
        };
        assert!(Response::decode(&longest.encode()).is_ok());
        let long = Request::Rotate {
            statement: vec![0; MAX_CONTINUITY_BYTES + 1],
        };
        assert!(Request::decode(&long.encode()).is_err());
        let empty = Request::Present { chain: Vec::new() };
        assert!(Request::decode(&empty.encode()).is_err());
    }
}
