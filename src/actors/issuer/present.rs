//! What somebody's next credential is made of: what the present one says, and never what is asked.

use std::time::Duration;

use crate::{
    identity::{Attributes, Chain, Grant, Groups, Name, NodePublic, VerifiedIdentity},
    types::Timestamp,
};

/// What somebody's next credential is made of: what the present one says.
pub(super) struct Present<'a> {
    pub(super) subject: Name,
    pub(super) groups: Groups,
    pub(super) attributes: Attributes,
    pub(super) keys: Option<&'a NodePublic>,
    pub(super) issued: Option<Timestamp>,
    pub(super) expires: Timestamp,
    pub(super) hash: [u8; 32],
}

impl<'a> Present<'a> {
    pub(super) fn of(identity: &'a VerifiedIdentity) -> Option<Self> {
        let prefix = format!("{}/", identity.issuer);
        let groups = identity.groups.iter().map(|group| {
            let name = group.strip_prefix(&prefix)?;
            Name::try_new(name).ok()
        });
        Some(Self {
            subject: identity.subject.clone(),
            groups: Groups::try_new(groups.collect::<Option<Vec<_>>>()?).ok()?,
            attributes: Attributes::try_new(identity.attributes.clone()).ok()?,
            keys: identity.keys.as_ref(),
            issued: identity.statuses.first().map(|status| status.issued),
            expires: identity.expires,
            hash: identity.credential_hash,
        })
    }

    pub(super) fn of_chain(chain: &'a Chain) -> Self {
        let credential = chain.credential();
        let claims = credential.claims();
        Self {
            subject: claims.subject.clone(),
            groups: claims.groups.clone(),
            attributes: claims.attributes.clone(),
            keys: Some(&claims.keys),
            issued: Some(Timestamp::from_secs(claims.validity.issued())),
            expires: Timestamp::from_secs(claims.validity.expires()),
            hash: credential.hash(),
        }
    }

    pub(super) fn grant(self, lifetime: Duration) -> Grant {
        Grant {
            subject: Some(self.subject),
            groups: self.groups,
            attributes: self.attributes,
            lifetime,
        }
    }
}
