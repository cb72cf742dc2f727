//! The chain: a node's credential, and the delegations by which its issuer may issue.
//!
//! In memory and in the gate's frame the node's credential comes first, then the delegation to its
//! issuer, then the one to that issuer's delegator. In files a chain is a CBOR sequence (RFC 8742)
//! of the same documents: without delegations, the credential and nothing more.
//!
//! Owner: the identity room. Invariants: at most [`MAX_CHAIN`] links, each well formed; it says
//! nothing about whether they hold or fit together. It fails with [`Malformed`].

use super::{
    credential::{Credential, MAX_CREDENTIAL_BYTES},
    delegation::Delegation,
};
use crate::cbor::{self, Malformed, Read};

/// Most links of a chain, the node's credential included: each costs two signature checks.
pub const MAX_CHAIN: usize = 3;
/// Longest chain in a file.
pub const MAX_CHAIN_BYTES: usize = MAX_CHAIN * MAX_CREDENTIAL_BYTES;

/// A node's credential and the delegations above it, the nearest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    credential: Credential,
    delegations: Vec<Delegation>,
}

impl Chain {
    /// A credential of an issuer that is an anchor itself.
    #[must_use]
    pub fn of(credential: Credential) -> Self {
        Self {
            credential,
            delegations: Vec::new(),
        }
    }

    /// A credential and the delegations above it, the nearest first.
    ///
    /// # Errors
    /// [`Malformed`] for more than [`MAX_CHAIN`] links.
    pub fn try_new(
        credential: Credential,
        delegations: Vec<Delegation>,
    ) -> Result<Self, Malformed> {
        if delegations.len() >= MAX_CHAIN {
            return Err(Malformed("a chain has too many links"));
        }
        Ok(Self {
            credential,
            delegations,
        })
    }

    /// Reads the links one by one.
    ///
    /// # Errors
    /// [`Malformed`]; a document of the wrong kind is named as what it is.
    pub fn from_links<B: AsRef<[u8]>>(links: &[B]) -> Result<Self, Malformed> {
        let (first, above) = links
            .split_first()
            .ok_or(Malformed("a chain has no links"))?;
        let credential = read_credential(first.as_ref())?;
        let delegations = above
            .iter()
            .map(|link| read_delegation(link.as_ref()))
            .collect::<Read<Vec<Delegation>>>()?;
        Self::try_new(credential, delegations)
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::from_links(&cbor::sequence(bytes, MAX_CHAIN, MAX_CREDENTIAL_BYTES)?)
    }

    /// A file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.links().flatten().copied().collect()
    }

    /// The links' bytes, the node's credential first.
    pub fn links(&self) -> impl Iterator<Item = &[u8]> {
        let above = self.delegations.iter().map(Delegation::as_bytes);
        std::iter::once(self.credential.as_bytes()).chain(above)
    }

    /// The node's credential.
    #[must_use]
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// The delegations above it, the nearest first.
    #[must_use]
    pub fn delegations(&self) -> &[Delegation] {
        &self.delegations
    }
}

fn read_credential(bytes: &[u8]) -> Read<Credential> {
    Credential::decode(bytes).map_err(|why| match Delegation::decode(bytes) {
        Ok(_) => Malformed("a delegation stands where the node's credential belongs"),
        Err(_) => why,
    })
}

fn read_delegation(bytes: &[u8]) -> Read<Delegation> {
    Delegation::decode(bytes).map_err(|why| match Credential::decode(bytes) {
        Ok(_) => Malformed("a node's credential stands where a delegation belongs"),
        Err(_) => why,
    })
}

/// Reads the delegations above an issuer from a file's bytes, the nearest first.
///
/// # Errors
/// [`Malformed`].
pub fn decode_delegations(bytes: &[u8]) -> Result<Vec<Delegation>, Malformed> {
    cbor::sequence(bytes, MAX_CHAIN - 1, MAX_CREDENTIAL_BYTES)?
        .into_iter()
        .map(read_delegation)
        .collect()
}

/// What [`decode_delegations`] reads.
#[must_use]
pub fn encode_delegations(delegations: &[Delegation]) -> Vec<u8> {
    let links = delegations.iter().map(Delegation::as_bytes);
    links.flatten().copied().collect()
}
