//! Verification: from bytes a peer presented to an identity this node may act on.
//!
//! The order is part of the design. First what needs no trust (form, the key the connection
//! proved, how the links fit together), then the anchor, then the signatures from the anchor down
//! to the node, then the proof of possession; times, scopes and grants are read only once all
//! signatures hold. Pure and idempotent: racing dials verify twice and get the same answer.
//!
//! The anchor is the nearest one: the first issuer, seen from the node, that this node has an
//! entry for. What a chain says above it is not needed and not believed.
//!
//! Owner: the identity room. It fails with a [`Refusal`], which also says who is charged.

use std::time::Duration;

use super::{
    Chain, Delegation, Frame, Head, HybridPublic, Name, Refusal, SelfSigned, StatusEntry, Tier,
    TrustAnchor, TrustAnchors, VerifiedIdentity,
    binding::{Channel, Role},
    claims::{Claims, Validity},
    credential::Credential,
};
use crate::types::{PeerId, Timestamp};

/// How far an issuer's clock may run ahead of this node's (`iat`, `nbf`). Expiry gets no grace.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// How long after its end a credential of `issuer` is still heard, for renewal alone. Only a node
/// of that issuer has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leniency {
    /// Whose credentials.
    pub issuer: Name,
    /// For how long, from the end on.
    pub grace: Duration,
}

impl Leniency {
    /// Whether these claims ended, and not too long ago.
    fn covers(&self, claims: &Claims, now: Timestamp) -> bool {
        let end = Timestamp::from_secs(claims.validity.expires());
        claims.issuer == self.issuer && now >= end && now < end.after(self.grace)
    }
}

/// Verifies the frame that `peer`, the end of `role`, presented over `channel`, which proved its
/// Ed25519 key.
///
/// # Errors
/// [`Refusal`].
pub fn verify_frame(
    frame: &[u8],
    peer: PeerId,
    channel: &Channel,
    role: Role,
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<VerifiedIdentity, Refusal> {
    verify_frame_leniently(frame, peer, channel, role, (anchors, None), now)
}

/// As [`verify_frame`]; what `leniency` covers is verified as [`Tier::RenewalOnly`], with all else
/// as it must be.
///
/// # Errors
/// [`Refusal`].
pub fn verify_frame_leniently(
    frame: &[u8],
    peer: PeerId,
    channel: &Channel,
    role: Role,
    (anchors, leniency): (&TrustAnchors, Option<&Leniency>),
    now: Timestamp,
) -> Result<VerifiedIdentity, Refusal> {
    let frame = Frame::decode(frame)?;
    if frame.chain().is_empty() {
        return Err(Refusal::Missing);
    }
    let chain = Chain::from_links(frame.chain())?;
    let proof = frame.possession().ok_or(Refusal::Possession("absent"))?;
    let trusted = authenticate(&chain, peer, anchors)?;
    prove(&chain, proof, peer, channel, role)?;
    let mut identity = judge(&chain, &trusted, leniency, now)?;
    identity.pq_auth = channel.is_exported();
    Ok(identity)
}

/// Verifies a chain that `peer` is said to hold, without a channel over which it proved anything.
///
/// # Errors
/// [`Refusal`].
pub fn verify_chain(
    chain: &Chain,
    peer: PeerId,
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<VerifiedIdentity, Refusal> {
    let trusted = authenticate(chain, peer, anchors)?;
    judge(chain, &trusted, None, now)
}

/// As [`verify_chain`], for a credential alone.
///
/// # Errors
/// [`Refusal`].
pub fn verify_credential(
    bytes: &[u8],
    peer: PeerId,
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<VerifiedIdentity, Refusal> {
    let chain = Chain::of(Credential::decode(bytes)?);
    verify_chain(&chain, peer, anchors, now)
}

/// What a chain rests on.
#[derive(Debug)]
pub(super) enum Trusted<'a> {
    /// An anchor, and the delegations between it and the node, the nearest to the node first.
    Anchor(&'a TrustAnchor, &'a [Delegation]),
    /// The node itself.
    Own,
}

/// Everything but times, scopes and grants: who says it, and that it is they who say it.
pub(super) fn authenticate<'a>(
    chain: &'a Chain,
    peer: PeerId,
    anchors: &'a TrustAnchors,
) -> Result<Trusted<'a>, Refusal> {
    let trusted = place(chain, peer, anchors)?;
    let credential = chain.credential();
    match &trusted {
        Trusted::Anchor(anchor, used) => {
            credential.verify_signatures(verify_signatures(anchor, used)?)?;
        }
        Trusted::Own => {
            let own = credential.claims().keys.signing();
            credential.verify_signatures(&own.ok_or(Refusal::WrongKey)?)?;
        }
    }
    Ok(trusted)
}

/// What a chain would rest on if its signatures held.
pub(super) fn place<'a>(
    chain: &'a Chain,
    peer: PeerId,
    anchors: &'a TrustAnchors,
) -> Result<Trusted<'a>, Refusal> {
    let claims = chain.credential().claims();
    if claims.keys.peer != peer {
        return Err(Refusal::WrongKey);
    }
    check_links(&claims.issuer, chain.delegations())?;
    if claims.issuer.is_self_signed() {
        return place_self(chain, anchors);
    }
    let (anchor, used) = nearest_anchor(&claims.issuer, chain.delegations(), anchors)?;
    Ok(Trusted::Anchor(anchor, used))
}

/// The signatures from the anchor down; the keys of the lowest issuer.
fn verify_signatures<'a>(
    anchor: &'a TrustAnchor,
    used: &'a [Delegation],
) -> Result<&'a HybridPublic, Refusal> {
    let mut key = &anchor.key;
    for delegation in used.iter().rev() {
        delegation.verify_signatures(key)?;
        key = &delegation.mandate().keys;
    }
    Ok(key)
}

/// The keys of `issuer`, by its anchor or by the delegations to it, the nearest first; and those
/// of the delegations that were needed. Times and
/// scopes are not looked at: what an issuer took back stays taken back when its leave has ended.
pub(super) fn issuer_keys<'a>(
    issuer: &Name,
    delegations: &'a [Delegation],
    anchors: &'a TrustAnchors,
) -> Result<(&'a HybridPublic, &'a [Delegation]), Refusal> {
    check_links(issuer, delegations)?;
    let (anchor, used) = nearest_anchor(issuer, delegations, anchors)?;
    Ok((verify_signatures(anchor, used)?, used))
}

/// Verifies the delegations to `issuer`, the nearest first, without anything issued under them.
///
/// # Errors
/// [`Refusal`].
pub fn verify_delegations(
    issuer: &Name,
    delegations: &[Delegation],
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<(), Refusal> {
    check_links(issuer, delegations)?;
    let (anchor, used) = nearest_anchor(issuer, delegations, anchors)?;
    verify_signatures(anchor, used)?;
    for delegation in used.iter().rev() {
        check_times(delegation.mandate().validity, now)?;
    }
    check_mandates(anchor, used)
}

/// That each link was issued by the subject of the next, and that names only grow downwards.
fn check_links(lowest: &Name, delegations: &[Delegation]) -> Result<(), Refusal> {
    let mut issuer = lowest;
    for delegation in delegations {
        let mandate = delegation.mandate();
        if mandate.subject != *issuer {
            return Err(Refusal::Chain(
                "a link was not issued by the one above it: wrong order, or another chain's",
            ));
        }
        if !mandate.subject.is_under(&mandate.issuer) {
            return Err(Refusal::Chain(
                "an issuer delegates a name that is not under its own",
            ));
        }
        issuer = &mandate.issuer;
    }
    Ok(())
}

fn nearest_anchor<'a>(
    lowest: &Name,
    delegations: &'a [Delegation],
    anchors: &'a TrustAnchors,
) -> Result<(&'a TrustAnchor, &'a [Delegation]), Refusal> {
    let above = delegations.iter().map(|d| &d.mandate().issuer);
    let issuers: Vec<&Name> = std::iter::once(lowest).chain(above).collect();
    let found = issuers
        .iter()
        .enumerate()
        .find_map(|(depth, issuer)| Some((depth, anchors.get(issuer)?)));
    let Some((depth, anchor)) = found else {
        let root = issuers.last().map(ToString::to_string).unwrap_or_default();
        return Err(Refusal::UnknownIssuer(root));
    };
    // An anchor in between has the name space to itself: nobody above it speaks for it.
    if anchors.nearest(lowest) != Some(anchor) {
        return Err(Refusal::Denied("anchor.nearer".into()));
    }
    let used = delegations.get(..depth).unwrap_or_default();
    Ok((anchor, used))
}

fn place_self<'a>(chain: &'a Chain, anchors: &'a TrustAnchors) -> Result<Trusted<'a>, Refusal> {
    let claims = chain.credential().claims();
    if !chain.delegations().is_empty() {
        return Err(Refusal::Chain("a node that signs for itself has no issuer"));
    }
    if anchors.self_signed() == SelfSigned::Deny {
        return Err(Refusal::Denied("identity.self_signed".into()));
    }
    let own = claims.keys.signing().ok_or(Refusal::WrongKey)?;
    if claims.issuer != Name::self_signed(&own.thumbprint()) {
        return Err(Refusal::Chain("a self-signed name is not that of its keys"));
    }
    Ok(Trusted::Own)
}

/// The proof is by the key of the credential, over this channel, by this end of it.
pub(super) fn prove(
    chain: &Chain,
    proof: &[u8],
    peer: PeerId,
    channel: &Channel,
    role: Role,
) -> Result<(), Refusal> {
    let end = match role {
        Role::Opener => channel.opener,
        Role::Listener => channel.listener,
    };
    if end != peer {
        return Err(Refusal::Possession(
            "the peer is not that end of the channel",
        ));
    }
    let key = &chain.credential().claims().keys.ml_dsa;
    key.verify(&channel.statement(role), proof)
        .map_err(|bad| Refusal::Possession(bad.why()))
}

/// Times, scopes and grants, of a chain whose signatures hold.
pub(super) fn judge(
    chain: &Chain,
    trusted: &Trusted<'_>,
    leniency: Option<&Leniency>,
    now: Timestamp,
) -> Result<VerifiedIdentity, Refusal> {
    let claims = chain.credential().claims();
    let lapsed = leniency.is_some_and(|leniency| leniency.covers(claims, now));
    let (tier, anchor, used) = match trusted {
        Trusted::Anchor(anchor, used) if lapsed => (Tier::RenewalOnly, &anchor.issuer, *used),
        Trusted::Anchor(anchor, used) => (Tier::Member, &anchor.issuer, *used),
        Trusted::Own => (Tier::SelfSigned, &claims.issuer, &[][..]),
    };
    for delegation in used.iter().rev() {
        check_times(delegation.mandate().validity, now)?;
    }
    if tier != Tier::RenewalOnly {
        check_times(claims.validity, now)?;
    }
    match trusted {
        Trusted::Anchor(anchor, used) => check_scopes(claims, anchor, used)?,
        Trusted::Own => check_self(claims)?,
    }
    Ok(identity(chain, used, anchor, tier))
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

/// Each link within what the one above may give, and all within what the anchor may grant here.
pub(super) fn check_scopes(
    claims: &Claims,
    anchor: &TrustAnchor,
    used: &[Delegation],
) -> Result<(), Refusal> {
    check_mandates(anchor, used)?;
    if let Some(parent) = used.first() {
        outlives(claims, parent)?;
        parent.mandate().scope.check(claims)?;
    }
    anchor.grants.check(claims)
}

fn check_mandates(anchor: &TrustAnchor, used: &[Delegation]) -> Result<(), Refusal> {
    let mut above: Option<&Delegation> = None;
    for delegation in used.iter().rev() {
        let mandate = delegation.mandate();
        let longest = anchor.grants.max_lifetime.0.as_secs();
        if mandate.validity.lifetime() > longest {
            return Err(Refusal::Denied("anchor.max-lifetime".into()));
        }
        anchor.grants.check_scope(&mandate.scope)?;
        if let Some(parent) = above {
            outlives(mandate, parent)?;
            parent.mandate().scope.check_scope(&mandate.scope)?;
        }
        above = Some(delegation);
    }
    Ok(())
}

fn outlives(link: &Head, above: &Delegation) -> Result<(), Refusal> {
    if link.validity.expires() > above.mandate().validity.expires() {
        return Err(Refusal::Denied("scope.outlives".into()));
    }
    Ok(())
}

/// What a node says of itself is nothing to rely on, so it may say nothing.
fn check_self(claims: &Claims) -> Result<(), Refusal> {
    if claims.groups.iter().next().is_some() || !claims.attributes.as_map().is_empty() {
        return Err(Refusal::Denied("self_signed.claims".into()));
    }
    Ok(())
}

fn identity(chain: &Chain, used: &[Delegation], anchor: &Name, tier: Tier) -> VerifiedIdentity {
    let credential = chain.credential();
    let claims = credential.claims();
    VerifiedIdentity {
        peer: claims.keys.peer,
        tier,
        issuer: claims.issuer.clone(),
        anchor: anchor.clone(),
        subject: claims.subject.clone(),
        groups: claims
            .groups
            .iter()
            .map(|group| format!("{}/{group}", claims.issuer))
            .collect(),
        attributes: claims.attributes.as_map().clone(),
        expires: Timestamp::from_secs(claims.validity.expires()),
        credential_hash: credential.hash(),
        statuses: StatusEntry::of_chain(credential, used),
        pq_auth: false,
        keys: Some(claims.keys.clone()),
    }
}

#[cfg(test)]
mod chain_tests;
#[cfg(test)]
mod form_tests;
#[cfg(test)]
mod leniency_tests;
#[cfg(test)]
mod possession_tests;
#[cfg(test)]
mod tests;
