//! The identity protocol `/quantraband/identity/1`: one request, one response, a stream each.
//!
//! For what nodes tell one another about third parties, all of it signed by those: heads and lists
//! of revocation, and the chains of authors who are nobody's neighbours. Deterministic CBOR, one
//! encoding for each message, sizes and numbers of items checked before anything is built. The
//! documents inside are bounded here and read by whoever verifies them.
//!
//! Owner: the identity room; the network room moves the bytes. Reading fails with a [`Malformed`].

use ciborium::Value;

use super::{
    Name,
    chain::MAX_CHAIN_BYTES,
    claims,
    status::{MAX_HEAD_BYTES, MAX_HEADS, MAX_STATUS_BYTES},
};
use crate::cbor::{self, Fields, Malformed, Read};

/// The protocol's name; its number changes with any byte of this file.
pub const PROTOCOL: &str = "/quantraband/identity/1";
/// Most chains asked for at once.
pub const MAX_CHAINS: usize = 16;
/// What a message holds besides its documents.
const OVERHEAD: usize = 1_024;
/// Longest request: as many heads as there may be.
pub const MAX_REQUEST: usize = MAX_HEADS * MAX_HEAD_BYTES + OVERHEAD;
/// Longest response: as many chains as may be asked for.
pub const MAX_RESPONSE: usize = MAX_CHAINS * MAX_CHAIN_BYTES + OVERHEAD;
/// Most CBOR items of a message.
const MAX_ITEMS: usize = 32;

/// What a node asks or tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// These heads are news to the sender: 1 to [`MAX_HEADS`].
    Announce {
        /// Each at most [`MAX_HEAD_BYTES`].
        heads: Vec<Vec<u8>>,
    },
    /// The list of an issuer, if it is newer than what the sender has.
    GetList {
        /// The issuer.
        issuer: Name,
        /// The sequence it has; 0: none.
        newer_than: u64,
    },
    /// The chains of these credentials: 1 to [`MAX_CHAINS`].
    GetChains {
        /// SHA-256 of each credential.
        credentials: Vec<[u8; 32]>,
    },
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// To [`Request::Announce`]: heard.
    Heard,
    /// To [`Request::GetList`]: nothing newer is here.
    NoList,
    /// To [`Request::GetList`], at most [`MAX_STATUS_BYTES`].
    List(Vec<u8>),
    /// To [`Request::GetChains`]: those that are known here, in any order.
    Chains(Vec<Vec<u8>>),
    /// To any request: not now.
    Later,
}

const KIND: i64 = 1;
const BODY: i64 = 2;
const NEWER_THAN: i64 = 3;

const ANNOUNCE: u64 = 1;
const GET_LIST: u64 = 2;
const GET_CHAINS: u64 = 3;

const HEARD: u64 = 1;
const NO_LIST: u64 = 2;
const LIST: u64 = 3;
const CHAINS: u64 = 4;
const LATER: u64 = 5;

fn message(kind: u64, body: Option<Value>, newer_than: Option<u64>) -> Vec<u8> {
    let kind = Some((KIND, Value::from(kind)));
    let body = body.map(|body| (BODY, body));
    let newer = newer_than.map(|sequence| (NEWER_THAN, Value::from(sequence)));
    cbor::encode(&cbor::int_map([kind, body, newer].into_iter().flatten()))
}

fn list(items: &[Vec<u8>]) -> Value {
    Value::Array(items.iter().cloned().map(Value::Bytes).collect())
}

fn read_list(value: Value, most: usize, longest: usize) -> Read<Vec<Vec<u8>>> {
    cbor::array(value, most)?
        .into_iter()
        .map(|item| bounded(item, longest))
        .collect()
}

fn bounded(value: Value, longest: usize) -> Read<Vec<u8>> {
    let bytes = cbor::bytes(value)?;
    if bytes.is_empty() || bytes.len() > longest {
        return Err(Malformed("a document is empty or longer than allowed"));
    }
    Ok(bytes)
}

fn some<T>(items: Vec<T>) -> Read<Vec<T>> {
    if items.is_empty() {
        return Err(Malformed("a request asks for nothing"));
    }
    Ok(items)
}

impl Request {
    /// The one encoding of this request.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Announce { heads } => message(ANNOUNCE, Some(list(heads)), None),
            Self::GetList { issuer, newer_than } => {
                message(GET_LIST, Some(issuer.as_str().into()), Some(*newer_than))
            }
            Self::GetChains { credentials } => {
                let hashes = credentials.iter().map(|hash| Value::Bytes(hash.to_vec()));
                message(GET_CHAINS, Some(Value::Array(hashes.collect())), None)
            }
        }
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`Malformed`] names the rule that was broken.
    pub fn decode(received: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of(cbor::decode_counted(received, MAX_REQUEST, MAX_ITEMS)?)?;
        let kind = cbor::uint(fields.need(KIND)?)?;
        let body = fields.need(BODY)?;
        let request = match kind {
            ANNOUNCE => Self::Announce {
                heads: some(read_list(body, MAX_HEADS, MAX_HEAD_BYTES)?)?,
            },
            GET_LIST => Self::GetList {
                issuer: claims::name(body)?,
                newer_than: cbor::uint(fields.need(NEWER_THAN)?)?,
            },
            GET_CHAINS => Self::GetChains {
                credentials: some(
                    cbor::array(body, MAX_CHAINS)?
                        .into_iter()
                        .map(cbor::exact)
                        .collect::<Read<Vec<[u8; 32]>>>()?,
                )?,
            },
            _ => return Err(Malformed("no request of this protocol")),
        };
        fields.finish()?;
        cbor::same(received, &request.encode())?;
        Ok(request)
    }
}

impl Response {
    /// The one encoding of this response.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Heard => message(HEARD, None, None),
            Self::NoList => message(NO_LIST, None, None),
            Self::List(bytes) => message(LIST, Some(Value::Bytes(bytes.clone())), None),
            Self::Chains(chains) => message(CHAINS, Some(list(chains)), None),
            Self::Later => message(LATER, None, None),
        }
    }

    /// Reads a response.
    ///
    /// # Errors
    /// [`Malformed`] names the rule that was broken.
    pub fn decode(received: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of(cbor::decode_counted(received, MAX_RESPONSE, MAX_ITEMS)?)?;
        let response = match cbor::uint(fields.need(KIND)?)? {
            HEARD => Self::Heard,
            NO_LIST => Self::NoList,
            LIST => Self::List(bounded(fields.need(BODY)?, MAX_STATUS_BYTES)?),
            CHAINS => Self::Chains(read_list(fields.need(BODY)?, MAX_CHAINS, MAX_CHAIN_BYTES)?),
            LATER => Self::Later,
            _ => return Err(Malformed("no response of this protocol")),
        };
        fields.finish()?;
        cbor::same(received, &response.encode())?;
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::testing::name;

    fn requests() -> Vec<Request> {
        vec![
            Request::Announce {
                heads: vec![vec![7; MAX_HEAD_BYTES]; MAX_HEADS],
            },
            Request::GetList {
                issuer: name("acme"),
                newer_than: u64::MAX,
            },
            Request::GetChains {
                credentials: vec![[9; 32]; MAX_CHAINS],
            },
        ]
    }

    fn responses() -> Vec<Response> {
        vec![
            Response::Heard,
            Response::NoList,
            Response::List(vec![1; MAX_STATUS_BYTES]),
            Response::Chains(vec![vec![2; MAX_CHAIN_BYTES]; MAX_CHAINS]),
            Response::Chains(Vec::new()),
            Response::Later,
        ]
    }

    #[test]
    fn the_longest_messages_fit_and_read_back() {
        for request in requests() {
            let bytes = request.encode();
            assert!(bytes.len() <= MAX_REQUEST);
            assert_eq!(Request::decode(&bytes), Ok(request));
        }
        for response in responses() {
            let bytes = response.encode();
            assert!(bytes.len() <= MAX_RESPONSE);
            assert_eq!(Response::decode(&bytes), Ok(response));
        }
    }

    #[test]
    fn what_is_too_much_or_nothing_is_refused() {
        let wrong = [
            Request::Announce { heads: Vec::new() },
            Request::Announce {
                heads: vec![vec![]],
            },
            Request::Announce {
                heads: vec![vec![7]; MAX_HEADS + 1],
            },
            Request::Announce {
                heads: vec![vec![7; MAX_HEAD_BYTES + 1]],
            },
            Request::GetChains {
                credentials: Vec::new(),
            },
            Request::GetChains {
                credentials: vec![[1; 32]; MAX_CHAINS + 1],
            },
        ];
        for request in wrong {
            assert!(Request::decode(&request.encode()).is_err(), "{request:?}");
        }
        let wrong = [
            Response::List(Vec::new()),
            Response::List(vec![1; MAX_STATUS_BYTES + 1]),
            Response::Chains(vec![vec![2]; MAX_CHAINS + 1]),
        ];
        for response in wrong {
            assert!(Response::decode(&response.encode()).is_err());
        }
    }

    #[test]
    fn a_second_encoding_and_a_surplus_field_are_refused() {
        let bytes = Request::GetList {
            issuer: name("acme"),
            newer_than: 3,
        }
        .encode();
        let mut longer = vec![0xb8, bytes[0] & 0x1f];
        longer.extend(&bytes[1..]);
        assert!(Request::decode(&longer).is_err());
        assert!(Request::decode(&[&bytes[..], &[0]].concat()).is_err());
        let surplus = message(HEARD, None, Some(1));
        assert!(Response::decode(&surplus).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(request) = Request::decode(&bytes) {
                prop_assert_eq!(request.encode(), bytes.clone());
            }
            if let Ok(response) = Response::decode(&bytes) {
                prop_assert_eq!(response.encode(), bytes);
            }
        }
    }
}
