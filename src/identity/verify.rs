//! Verification: from bytes a peer presented to an identity this node may act on.
//!
//! The order is part of the design. First what needs no trust (form, and the key the connection
//! proved), then the issuer, then the signatures; times and grants are read only once the
//! signatures hold. Pure and idempotent: racing dials verify twice and get the same answer.
//!
//! Owner: the identity room. It fails with a [`Refusal`], which also says who is charged.

use std::time::Duration;

use super::{
    Frame, Refusal, TrustAnchors, VerifiedIdentity,
    claims::{Claims, Validity},
    credential::Credential,
};
use crate::types::{PeerId, Timestamp};

/// How far an issuer's clock may run ahead of this node's (`iat`, `nbf`). Expiry gets no grace.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Verifies the frame that `peer` presented over the connection that proved its key.
///
/// # Errors
/// [`Refusal`].
pub fn verify_frame(
    frame: &[u8],
    peer: PeerId,
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<VerifiedIdentity, Refusal> {
    let frame = Frame::decode(frame)?;
    match frame.chain() {
        [] => Err(Refusal::Missing),
        [credential] => verify_credential(credential, peer, anchors, now),
        // Well formed, so the peer is not charged: it may belong to a network that delegates.
        _ => Err(Refusal::Denied("chain.delegation-unsupported".into())),
    }
}

/// Verifies a credential that `peer` presented.
///
/// # Errors
/// [`Refusal`].
pub fn verify_credential(
    bytes: &[u8],
    peer: PeerId,
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<VerifiedIdentity, Refusal> {
    let credential = Credential::decode(bytes)?;
    let claims = credential.claims();
    if claims.key != peer {
        return Err(Refusal::WrongKey);
    }
    let anchor = anchors
        .get(&claims.issuer)
        .ok_or_else(|| Refusal::UnknownIssuer(claims.issuer.to_string()))?;
    credential.verify_signatures(anchor.key)?;
    check_times(claims.validity, now)?;
    anchor.grants.check(claims)?;
    Ok(identity(claims, credential.hash()))
}

fn check_times(validity: Validity, now: Timestamp) -> Result<(), Refusal> {
    let expires = Timestamp::from_secs(validity.expires());
    if now >= expires {
        return Err(Refusal::Expired(expires));
    }
    // `issued` is never after `not_before`, so one comparison covers both.
    let from = Timestamp::from_secs(validity.not_before());
    if from > now.after(CLOCK_SKEW) {
        return Err(Refusal::NotYetValid(from));
    }
    Ok(())
}

fn identity(claims: &Claims, credential_hash: [u8; 32]) -> VerifiedIdentity {
    VerifiedIdentity {
        peer: claims.key,
        issuer: claims.issuer.clone(),
        subject: claims.subject.clone(),
        groups: claims
            .groups
            .iter()
            .map(|group| format!("{}/{group}", claims.issuer))
            .collect(),
        attributes: claims.attributes.as_map().clone(),
        expires: Timestamp::from_secs(claims.validity.expires()),
        credential_hash,
    }
}

#[cfg(test)]
mod form_tests;
#[cfg(test)]
mod tests;
