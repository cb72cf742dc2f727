//! The gate's frame: what each side shows the other inside the transport upgrade.
//!
//! Versioned, at most 64 KiB, in one encoding. Version 1 carries a chain of credentials; fields
//! for a possession proof and for status-list heads have their numbers, and must be absent.
//! Owner: the identity room; the network room moves the bytes. It fails with a [`Refusal`].

use ciborium::Value;

use super::{Refusal, credential::MAX_CREDENTIAL_BYTES};
use crate::cbor::{self, Fields, Malformed, Read};

/// Longest frame, checked before parsing; leaves room for what later versions add.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;
/// Most credentials in a chain.
pub const MAX_CHAIN: usize = 3;
/// The version this node speaks.
pub const FRAME_VERSION: u64 = 1;

const F_VERSION: i64 = 1;
const F_CHAIN: i64 = 2;
/// Reserved: a signature over the channel's binding.
const F_POSSESSION: i64 = 3;
/// Reserved: heads of revocation lists.
const F_STATUS: i64 = 4;

/// A frame of version 1: credentials as bytes, the presenter's own first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    chain: Vec<Vec<u8>>,
}

impl Frame {
    /// A frame that shows one credential, or none.
    #[must_use]
    pub fn of(credential: Option<&[u8]>) -> Self {
        Self {
            chain: credential.map(<[u8]>::to_vec).into_iter().collect(),
        }
    }

    /// The credentials, as bytes.
    #[must_use]
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The frame's one encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let chain = self.chain.iter().cloned().map(Value::Bytes).collect();
        cbor::encode(&cbor::int_map([
            (F_VERSION, Value::from(FRAME_VERSION)),
            (F_CHAIN, Value::Array(chain)),
        ]))
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`Refusal::Version`] for a version this node does not speak, else [`Refusal::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut fields = Fields::of(cbor::decode(bytes, MAX_FRAME_BYTES)?)?;
        let version = cbor::uint(fields.need(F_VERSION)?)?;
        if version != FRAME_VERSION {
            return Err(Refusal::Version(version));
        }
        if fields.take(F_POSSESSION).is_some() || fields.take(F_STATUS).is_some() {
            return Err(Refusal::Malformed(
                "a field reserved in version 1 is present",
            ));
        }
        let chain = cbor::array(fields.need(F_CHAIN)?, MAX_CHAIN)?
            .into_iter()
            .map(link)
            .collect::<Read<Vec<Vec<u8>>>>()?;
        fields.finish()?;
        let frame = Self { chain };
        cbor::same(bytes, &frame.encode())?;
        Ok(frame)
    }

    #[cfg(test)]
    pub(crate) fn with_chain(chain: Vec<Vec<u8>>) -> Self {
        Self { chain }
    }
}

fn link(value: Value) -> Read<Vec<u8>> {
    let bytes = cbor::bytes(value)?;
    if bytes.len() > MAX_CREDENTIAL_BYTES {
        return Err(Malformed("a credential is longer than allowed"));
    }
    Ok(bytes)
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.0)
    }
}
