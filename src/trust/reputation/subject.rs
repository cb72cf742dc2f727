//! Whose deeds a peer's are, beside its key's.
//!
//! A verified credential binds one key to one subject of an issuer. So what the key does while the
//! credential stands, the subject did, and nobody else can do it in the subject's name: a document
//! that merely names a subject, and does not verify for the key that presents it, never becomes a
//! [`VerifiedIdentity`] and never comes here.

use crate::{
    identity::{Tier, VerifiedIdentity},
    types::{SubjectId, Timestamp},
};

/// The subject whose bans and score bear on a peer: of a member, and of one whose credential lapsed
/// lately, so that nobody gets rid of a ban by letting a credential lapse. Nobody signs for itself
/// in the name of a subject.
#[must_use]
pub fn subject_of(identity: &VerifiedIdentity) -> Option<SubjectId> {
    match identity.tier {
        Tier::Member | Tier::RenewalOnly => {
            SubjectId::try_new(identity.issuer.clone(), identity.subject.clone()).ok()
        }
        Tier::Unverified | Tier::Invited | Tier::SelfSigned => None,
    }
}

/// The subject that answers for what a peer does now: a member's, as long as its credential lasts.
/// A key whose credential lapsed may be one that was given up and found by somebody else; it
/// answers for itself alone.
#[must_use]
pub fn answers(identity: Option<&VerifiedIdentity>, now: Timestamp) -> Option<SubjectId> {
    let identity = identity.filter(|one| one.tier == Tier::Member && now < one.expires)?;
    subject_of(identity)
}
