//! The gate's frame: what each side shows the other inside the transport upgrade.
//!
//! Versioned, at most 64 KiB, in one encoding. Version 2 carries a chain, the proof that its
//! presenter holds the ML-DSA key of the first link, made for this very connection, bytes for the
//! heads of status lists, which another room reads, and the statement of a node whose keys are not
//! its first ones. A frame without a chain is that of a node
//! that has no credential; it proves nothing and carries no proof.
//!
//! Owner: the identity room; the network room moves the bytes. It fails with a [`Refusal`].

use ciborium::Value;

use super::{
    Chain, NodeKey, Refusal,
    binding::{Channel, Role},
    chain::MAX_CHAIN,
    continuity::MAX_CONTINUITY_BYTES,
    credential::MAX_CREDENTIAL_BYTES,
    invitation::InvitationProof,
    ml_dsa::ML_DSA_SIGNATURE_BYTES,
};
use crate::cbor::{self, Fields, Malformed, Read};

/// Longest frame, checked before parsing: three links of 8 KiB, the proof, the heads, the continuity
/// statement, and room for what later versions add.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;
/// Longest bytes for heads of status lists: 3.6 KB each, for the lists of a chain's issuers.
pub const MAX_HEADS_BYTES: usize = 16 * 1024;
/// The version this node speaks.
pub const FRAME_VERSION: u64 = 2;

const F_VERSION: i64 = 1;
const F_CHAIN: i64 = 2;
/// A signature over [`Channel::statement`] by the ML-DSA key of the first link.
const F_POSSESSION: i64 = 3;
/// Heads of status lists.
const F_HEADS: i64 = 4;
/// An invitation's name and the proof of its secret, of a node without a chain.
const F_INVITATION: i64 = 5;
/// A continuity statement that leads to the keys of the first link.
const F_CONTINUITY: i64 = 6;

/// A frame of version 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    chain: Vec<Vec<u8>>,
    possession: Option<Vec<u8>>,
    heads: Vec<u8>,
    invitation: Option<InvitationProof>,
    continuity: Option<Vec<u8>>,
}

impl Frame {
    /// The frame of a node that has no credential.
    #[must_use]
    pub fn bare() -> Self {
        Self::default()
    }

    /// A frame that shows a chain and proves, as the end of `role`, possession over `channel`.
    #[must_use]
    pub fn of(chain: &Chain, key: &NodeKey, channel: &Channel, role: Role) -> Self {
        let links = chain.links().map(<[u8]>::to_vec).collect();
        Self::with_parts(links, key.prove(channel, role))
    }

    /// A frame of parts that need not fit together.
    #[must_use]
    pub fn with_parts(chain: Vec<Vec<u8>>, possession: Vec<u8>) -> Self {
        Self {
            chain,
            possession: Some(possession),
            ..Self::default()
        }
    }

    /// The frame of a node that has no credential yet, and was invited to get one.
    #[must_use]
    pub fn invited(proof: InvitationProof) -> Self {
        Self {
            invitation: Some(proof),
            ..Self::default()
        }
    }

    /// The proof of an invitation.
    #[must_use]
    pub fn invitation(&self) -> Option<&InvitationProof> {
        self.invitation.as_ref()
    }

    /// The same frame with heads of status lists, at most [`MAX_HEADS_BYTES`].
    #[must_use]
    pub fn with_heads(mut self, heads: Vec<u8>) -> Self {
        self.heads = heads;
        self
    }

    /// The same frame with a continuity statement, at most [`MAX_CONTINUITY_BYTES`].
    #[must_use]
    pub fn with_continuity(mut self, statement: Option<Vec<u8>>) -> Self {
        self.continuity = statement;
        self
    }

    /// The continuity statement, as bytes nobody here has looked at.
    #[must_use]
    pub fn continuity(&self) -> Option<&[u8]> {
        self.continuity.as_deref()
    }

    /// The links, as bytes, the presenter's own credential first.
    #[must_use]
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The proof of possession.
    #[must_use]
    pub fn possession(&self) -> Option<&[u8]> {
        self.possession.as_deref()
    }

    /// The heads of status lists, as bytes nobody here has looked at; empty: none.
    #[must_use]
    pub fn heads(&self) -> &[u8] {
        &self.heads
    }

    /// The frame's one encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let chain = self.chain.iter().cloned().map(Value::Bytes).collect();
        let mut fields = vec![
            (F_VERSION, Value::from(FRAME_VERSION)),
            (F_CHAIN, Value::Array(chain)),
        ];
        if let Some(proof) = &self.possession {
            fields.push((F_POSSESSION, Value::Bytes(proof.clone())));
        }
        if !self.heads.is_empty() {
            fields.push((F_HEADS, Value::Bytes(self.heads.clone())));
        }
        if let Some(proof) = &self.invitation {
            fields.push((F_INVITATION, Value::Bytes(proof.to_bytes())));
        }
        if let Some(statement) = &self.continuity {
            fields.push((F_CONTINUITY, Value::Bytes(statement.clone())));
        }
        cbor::encode(&cbor::int_map(fields))
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`Refusal::Version`] for a version this node does not speak; [`Refusal::Possession`] for a
    /// chain without a proof; else [`Refusal::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut fields = Fields::of(cbor::decode(bytes, MAX_FRAME_BYTES)?)?;
        let version = cbor::uint(fields.need(F_VERSION)?)?;
        if version != FRAME_VERSION {
            return Err(Refusal::Version(version));
        }
        let chain = cbor::array(fields.need(F_CHAIN)?, MAX_CHAIN)?
            .into_iter()
            .map(|link| bounded(link, MAX_CREDENTIAL_BYTES))
            .collect::<Read<Vec<Vec<u8>>>>()?;
        let possession = fields
            .take(F_POSSESSION)
            .map(|proof| bounded(proof, ML_DSA_SIGNATURE_BYTES))
            .transpose()?;
        let heads = fields
            .take(F_HEADS)
            .map(|heads| bounded(heads, MAX_HEADS_BYTES))
            .transpose()?
            .unwrap_or_default();
        let invitation = fields
            .take(F_INVITATION)
            .map(|proof| Ok::<_, Malformed>(InvitationProof::from_bytes(cbor::exact(proof)?)))
            .transpose()?;
        let continuity = fields
            .take(F_CONTINUITY)
            .map(|statement| bounded(statement, MAX_CONTINUITY_BYTES))
            .transpose()?;
        fields.finish()?;
        let frame = Self {
            chain,
            possession,
            heads,
            invitation,
            continuity,
        };
        cbor::same(bytes, &frame.encode())?;
        if frame.invitation.is_some() && !frame.chain.is_empty() {
            return Err(Refusal::Malformed("an invitation beside a credential"));
        }
        if frame.continuity.is_some() && frame.chain.is_empty() {
            return Err(Refusal::Malformed("a continuity of nothing"));
        }
        match (frame.chain.is_empty(), frame.possession.is_some()) {
            (true, true) => Err(Refusal::Malformed("a proof of possession of nothing")),
            (false, false) => Err(Refusal::Possession("absent")),
            _ => Ok(frame),
        }
    }
}

fn bounded(value: Value, max: usize) -> Read<Vec<u8>> {
    let bytes = cbor::bytes(value)?;
    if bytes.len() > max {
        return Err(Malformed("a part of the frame is longer than allowed"));
    }
    Ok(bytes)
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.0)
    }
}
