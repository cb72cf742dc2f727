//! The invitations that an issuer's node has given out: who may still come, and who came.
//!
//! A pure core: time is an argument, and what it changed is what its owner writes down before it
//! answers. An invitation is used once: by the first key that asks with it. That key may ask again,
//! for its first answer may have been lost; any other is refused. One that was used or has expired
//! is remembered for as long as there is room, so that it can be named.
//!
//! Owner: the issuer actor; the gate reads a published copy. It fails with a [`Refusal`].

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Attributes, Groups, Name, Refusal,
    binding::{Channel, Role},
    invitation::{InvitationId, InvitationKey, InvitationProof},
};
use crate::types::{PeerId, Timestamp};

/// Most invitations that can be open at once: each is a way in, which somebody has to answer for.
pub const MAX_OPEN: usize = 256;
/// Most invitations remembered, open or not; about 40 KiB each once used.
pub const MAX_REMEMBERED: usize = 1_024;
/// Longest an invitation may be open: it travels by ways that keep copies.
pub const MAX_OPEN_FOR: Duration = Duration::from_hours(24 * 7);

/// One invitation, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// The key of its proofs, hex; the secret itself is not kept.
    #[serde(with = "hex::serde")]
    key: [u8; 32],
    /// The subject its holder becomes.
    pub subject: Name,
    /// Its groups, without the issuer's prefix.
    pub groups: Vec<Name>,
    /// Until when it is open.
    pub expires: Timestamp,
    /// The key that used it.
    pub used_by: Option<PeerId>,
    /// The chain that was issued for it.
    #[serde(with = "hex::serde")]
    pub issued: Vec<u8>,
}

impl Invite {
    /// An open invitation.
    #[must_use]
    pub fn new(key: &InvitationKey, subject: Name, groups: Vec<Name>, expires: Timestamp) -> Self {
        Self {
            key: key.to_bytes(),
            subject,
            groups,
            expires,
            used_by: None,
            issued: Vec::new(),
        }
    }

    /// What its holder is granted.
    ///
    /// # Errors
    /// The groups are too many, or one twice.
    pub fn grant(&self, lifetime: Duration) -> Result<super::Grant, super::ClaimError> {
        Ok(super::Grant {
            subject: Some(self.subject.clone()),
            groups: Groups::try_new(self.groups.iter().cloned())?,
            attributes: Attributes::default(),
            lifetime,
        })
    }

    fn is_open(&self, now: Timestamp) -> bool {
        self.used_by.is_none() && now < self.expires
    }
}

/// No room for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_OPEN} invitations are open: wait until some are used or have expired")]
pub struct Full;

/// All that are remembered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Invites(BTreeMap<InvitationId, Invite>);

fn denied(rule: &str) -> Refusal {
    Refusal::Denied(rule.to_owned())
}

impl Invites {
    /// Those that were kept.
    #[must_use]
    pub fn of(kept: impl IntoIterator<Item = (InvitationId, Invite)>) -> Self {
        Self(kept.into_iter().collect())
    }

    /// How many are remembered, and how many of them are open.
    #[must_use]
    pub fn counts(&self, now: Timestamp) -> (usize, usize) {
        let open = self.0.values().filter(|invite| invite.is_open(now)).count();
        (self.0.len(), open)
    }

    /// Adds one; what had to be forgotten for it.
    ///
    /// # Errors
    /// [`Full`].
    pub fn add(
        &mut self,
        id: InvitationId,
        invite: Invite,
        now: Timestamp,
    ) -> Result<Option<InvitationId>, Full> {
        let (all, open) = self.counts(now);
        if open >= MAX_OPEN {
            return Err(Full);
        }
        let closed = self.0.iter().filter(|(_, invite)| !invite.is_open(now));
        let oldest = closed.min_by_key(|(_, invite)| invite.expires);
        let forgotten = (all >= MAX_REMEMBERED)
            .then(|| oldest.map(|(id, _)| *id))
            .flatten();
        if let Some(id) = &forgotten {
            self.0.remove(id);
        }
        self.0.insert(id, invite);
        Ok(forgotten)
    }

    /// Whether `peer`, the end of `role` of `channel`, holds an invitation that is still good for
    /// it. The secret is looked at before anything else: who does not have it learns nothing.
    ///
    /// # Errors
    /// [`Refusal::Possession`] for a wrong secret; else [`Refusal::Denied`], which names it.
    pub fn check(
        &self,
        proof: &InvitationProof,
        peer: PeerId,
        (channel, role): (&Channel, Role),
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let invite = self.0.get(&proof.id).ok_or(WRONG)?;
        if !InvitationKey::from_bytes(invite.key).verify(proof, channel, role) {
            return Err(WRONG);
        }
        allows(invite, peer, now)
    }

    /// The invitation, when it is good for `peer`.
    ///
    /// # Errors
    /// [`Refusal::Denied`], which names why not.
    pub fn good_for(
        &self,
        id: &InvitationId,
        peer: PeerId,
        now: Timestamp,
    ) -> Result<&Invite, Refusal> {
        let invite = self.0.get(id).ok_or_else(|| denied("invitation.unknown"))?;
        allows(invite, peer, now)?;
        Ok(invite)
    }

    /// Notes that `peer` has used it, and what it got; the record to write down.
    pub fn used(&mut self, id: &InvitationId, peer: PeerId, issued: Vec<u8>) -> Option<Invite> {
        let invite = self.0.get_mut(id)?;
        invite.used_by = Some(peer);
        invite.issued = issued;
        Some(invite.clone())
    }
}

/// One answer for a name that is unknown and for a secret that is wrong.
const WRONG: Refusal = Refusal::Possession("no such invitation, or not its secret");

fn allows(invite: &Invite, peer: PeerId, now: Timestamp) -> Result<(), Refusal> {
    if now >= invite.expires {
        return Err(denied("invitation.expired"));
    }
    match invite.used_by {
        Some(by) if by != peer => Err(denied("invitation.used")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::{HOUR, NOW, channel, mallory, name, node};

    const SECRET: [u8; 32] = [9; 32];

    fn invite(expires: Timestamp) -> Invite {
        let key = InvitationKey::of(&SECRET);
        Invite::new(&key, name("node-9"), vec![name("workers")], expires)
    }

    fn check(invites: &Invites, secret: [u8; 32], peer: PeerId, now: Timestamp) -> Option<String> {
        let channel = channel();
        let proof = InvitationKey::of(&secret).prove([1; 16], &channel, Role::Opener);
        let checked = invites.check(&proof, peer, (&channel, Role::Opener), now);
        checked.err().map(|refusal| refusal.to_string())
    }

    #[test]
    fn one_key_uses_it_and_may_ask_again_until_it_expires() {
        let mut invites = Invites::default();
        let wrong = WRONG.to_string();
        assert_eq!(
            check(&invites, SECRET, node().peer(), NOW),
            Some(wrong.clone())
        );
        invites.add([1; 16], invite(NOW.after(HOUR)), NOW).unwrap();
        assert_eq!(check(&invites, [8; 32], node().peer(), NOW), Some(wrong));
        assert_eq!(check(&invites, SECRET, node().peer(), NOW), None);
        assert!(WRONG.charged());

        let kept = invites.used(&[1; 16], node().peer(), vec![1]).unwrap();
        assert_eq!(kept.used_by, Some(node().peer()));
        assert_eq!(check(&invites, SECRET, node().peer(), NOW), None);
        let other = check(&invites, SECRET, mallory().peer(), NOW).unwrap();
        assert!(other.contains("invitation.used"), "{other}");
        assert!(invites.good_for(&[1; 16], mallory().peer(), NOW).is_err());
        let late = check(&invites, SECRET, node().peer(), NOW.after(HOUR)).unwrap();
        assert!(late.contains("invitation.expired"), "{late}");
    }

    #[test]
    fn they_are_bounded_and_the_oldest_that_are_over_go_first() {
        let mut invites = Invites::default();
        let id = |n: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            id
        };
        for n in 0..MAX_OPEN {
            invites.add(id(n), invite(NOW.after(HOUR)), NOW).unwrap();
        }
        assert_eq!(invites.add(id(0), invite(NOW.after(HOUR)), NOW), Err(Full));
        let later = NOW.after(HOUR);
        for n in MAX_OPEN..MAX_REMEMBERED {
            let ends = later.after(Duration::from_secs(1));
            invites.add(id(n), invite(ends), later).unwrap();
            invites.used(&id(n), node().peer(), Vec::new());
        }
        let forgotten = invites.add(id(5_000), invite(later.after(HOUR)), later);
        assert_eq!(forgotten, Ok(Some(id(0))));
        assert_eq!(invites.counts(later), (MAX_REMEMBERED, 1));
    }

    #[test]
    fn a_kept_one_reads_back() {
        let mut kept = invite(NOW);
        kept.used_by = Some(node().peer());
        kept.issued = vec![1, 2, 3];
        let text = serde_json::to_string(&kept).unwrap();
        assert_eq!(serde_json::from_str::<Invite>(&text).unwrap(), kept);
        assert!(!text.contains(&hex::encode(SECRET)));
    }
}
