//! The verified-identity cache: chains whose signatures were verified, and chains that can never
//! verify.
//!
//! What is remembered is the costly and unchanging part: that these very bytes are signed, from an
//! anchor of this trust down, for this peer. Times, scopes and grants are judged anew each time,
//! and a proof of possession is never remembered. So nothing of the cache can outlive an expiry,
//! and a change of trust empties it.
//!
//! Refusals are remembered only when they are final: wrong form, wrong signatures, links that do
//! not fit, another key. What was not available, not yet valid, expired or of an unknown issuer
//! may be right the next time.
//!
//! Keyed by SHA-256 over the peer and the chain's bytes. Bounded, least recently used first, with
//! a time to live. Pure: time is the monotonic time since the start. Owner: the Identity actor.

use std::{sync::Arc, time::Duration};

use sha2::{Digest, Sha256};

use super::{
    Chain, Channel, Frame, Leniency, Refusal, Role, StatusEntry, StatusView, TrustAnchors,
    VerifiedIdentity, verify,
};
use crate::types::{Lru, PeerId, Timestamp};

/// Chains remembered as verified: as many peers and authors as a node meets in a while. At most
/// 50 KB each, usually 15.
const MAX_VERIFIED: usize = 1_024;
/// Chains remembered as refused; a place of their own, so that forgeries push out nothing.
const MAX_REFUSED: usize = 1_024;
/// How long: whoever is met again later costs a few signatures.
const TIME_TO_LIVE: Duration = Duration::from_secs(15 * 60);
/// Chains kept to be handed on to others, at most 24 KiB each.
const MAX_HANDED_ON: usize = 1_024;

type Key = [u8; 32];

/// How a look into the cache went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The signatures were known to hold.
    Hit,
    /// The chain was known to be wrong.
    Refused,
    /// It was verified.
    Miss,
}

impl Look {
    /// A stable, bounded name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Refused => "refused",
            Self::Miss => "miss",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct IdentityCache {
    epoch: u64,
    verified: Lru<Key, Arc<Chain>>,
    refused: Lru<Key, Refusal>,
    handed_on: Lru<[u8; 32], Arc<Chain>>,
}

impl Default for IdentityCache {
    fn default() -> Self {
        Self {
            epoch: 0,
            verified: Lru::new(MAX_VERIFIED),
            refused: Lru::new(MAX_REFUSED),
            handed_on: Lru::new(MAX_HANDED_ON),
        }
    }
}

/// By what, and when, something is verified.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    /// The anchors.
    pub anchors: &'a TrustAnchors,
    /// For whom an end that was a short while ago is no end, when it shows a frame.
    pub leniency: Option<&'a Leniency>,
    /// Their epoch: another one empties the cache.
    pub epoch: u64,
    /// The time of day.
    pub now: Timestamp,
    /// The monotonic time.
    pub elapsed: Duration,
}

impl IdentityCache {
    /// As [`verify::verify_frame`].
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn verify_frame(
        &mut self,
        frame: &[u8],
        peer: PeerId,
        (channel, role): (&Channel, Role),
        by: By<'_>,
    ) -> (Result<VerifiedIdentity, Refusal>, Look) {
        let frame = match Frame::decode(frame) {
            Ok(frame) if frame.chain().is_empty() => return (Err(Refusal::Missing), Look::Miss),
            Ok(frame) => frame,
            Err(refusal) => return (Err(refusal), Look::Miss),
        };
        let Some(proof) = frame.possession() else {
            return (Err(Refusal::Possession("absent")), Look::Miss);
        };
        let (chain, look) = self.authenticate(frame.chain(), peer, by);
        let judged = chain.and_then(|chain| {
            verify::prove(&chain, proof, peer, channel, role)?;
            let mut identity = self.judge(&chain, peer, by)?;
            identity.pq_auth = channel.is_exported();
            Ok(identity)
        });
        (judged, look)
    }

    /// As [`verify::verify_chain`], of a chain as it came.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn verify_chain(
        &mut self,
        links: &[Vec<u8>],
        peer: PeerId,
        by: By<'_>,
    ) -> (Result<VerifiedIdentity, Refusal>, Look) {
        let (chain, look) = self.authenticate(links, peer, by);
        let strictly = By {
            leniency: None,
            ..by
        };
        let judged = chain.and_then(|chain| self.judge(&chain, peer, strictly));
        (judged, look)
    }

    /// The chain of a credential that was verified here, to be handed on.
    pub fn chain_of(&mut self, credential: &[u8; 32]) -> Option<Arc<Chain>> {
        // No time to live: it says nothing but what it says.
        self.handed_on.get(credential, Duration::ZERO).cloned()
    }

    /// Forgets what was taken back.
    pub fn forget_revoked(&mut self, statuses: &StatusView, now: Timestamp) {
        let stands = |chain: &Arc<Chain>| {
            let places = StatusEntry::of_chain(chain.credential(), chain.delegations());
            !statuses.of_entries(&places, now).is_revoked()
        };
        self.verified.retain(stands);
        self.handed_on.retain(stands);
    }

    /// Chains remembered as verified, and as refused.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        (self.verified.len(), self.refused.len())
    }

    fn authenticate(
        &mut self,
        links: &[Vec<u8>],
        peer: PeerId,
        by: By<'_>,
    ) -> (Result<Arc<Chain>, Refusal>, Look) {
        if by.epoch != self.epoch {
            self.epoch = by.epoch;
            self.verified.clear();
            self.refused.clear();
            self.handed_on.clear();
        }
        let key = key_of(links, peer);
        if let Some(chain) = self.verified.get(&key, by.elapsed) {
            return (Ok(Arc::clone(chain)), Look::Hit);
        }
        if let Some(refusal) = self.refused.get(&key, by.elapsed) {
            return (Err(refusal.clone()), Look::Refused);
        }
        let until = by.elapsed.saturating_add(TIME_TO_LIVE);
        let verified = Chain::from_links(links)
            .map_err(Refusal::from)
            .and_then(|chain| {
                verify::authenticate(&chain, peer, by.anchors)?;
                Ok(Arc::new(chain))
            });
        match &verified {
            Ok(chain) => {
                self.verified.put(key, Arc::clone(chain), until);
                let name = chain.credential().hash();
                self.handed_on.put(name, Arc::clone(chain), Duration::MAX);
            }
            Err(refusal) if is_final(refusal) => self.refused.put(key, refusal.clone(), until),
            Err(_) => {}
        }
        (verified, Look::Miss)
    }

    /// Times, scopes and grants, now.
    fn judge(
        &mut self,
        chain: &Chain,
        peer: PeerId,
        by: By<'_>,
    ) -> Result<VerifiedIdentity, Refusal> {
        let trusted = verify::place(chain, peer, by.anchors)?;
        let judged = verify::judge(chain, &trusted, by.leniency, by.now);
        if let Err(Refusal::Expired(_)) = judged {
            let links: Vec<Vec<u8>> = chain.links().map(<[u8]>::to_vec).collect();
            self.verified.remove(&key_of(&links, peer));
            self.handed_on.remove(&chain.credential().hash());
        }
        judged
    }
}

/// Whether the same bytes from the same peer can never be right, whatever time and trust entries
/// of the same epoch say.
fn is_final(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Malformed(_) | Refusal::Signature(_) | Refusal::Chain(_) | Refusal::WrongKey
    )
}

fn key_of(links: &[Vec<u8>], peer: PeerId) -> Key {
    let mut hash = Sha256::new();
    hash.update(peer.key_bytes());
    for link in links {
        hash.update(u64::try_from(link.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(link);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
