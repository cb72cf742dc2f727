//! Invitations: made for an operator, kept in the tree, and used once.
//!
//! One is written down as used together with what was issued for it, before the answer.

use std::time::Duration;

use actix::{Context, Handler, ResponseActFuture, WrapFuture, fut};
use zeroize::Zeroizing;

use super::{IssuerActor, No, Ready, label, no, not_issued};
use crate::{
    actors::audit::AuditUnavailable,
    audit::AuditEvent,
    identity::{
        Chain, IssuerFolder, Name, Refusal, SigningRequest,
        enrolment::RefusalCode,
        invitation::{InvitationId, InvitationKey, MAX_ADDRESS, MAX_ADDRESSES, Token},
        invites::{Invite, Invites, MAX_OPEN_FOR, MAX_REMEMBERED},
    },
    messages::enrolment::{Invitation, InviteFault, MakeInvitation},
    store::{StoreError, Tree},
    types::Timestamp,
};

/// The tree of invitations, and the version of its records.
const TREE: &str = "invites";
const TREE_VERSION: u8 = 1;
/// Shortest time an invitation can be open.
const SHORTEST_OPEN: Duration = Duration::from_secs(1);

impl IssuerActor {
    pub(super) fn restore(&mut self) -> Result<(), StoreError> {
        let tree: Tree<Invite> = self.setup.store.tree(TREE, TREE_VERSION)?;
        let kept = tree.scan(MAX_REMEMBERED)?;
        let named = kept.into_iter().filter_map(|(key, invite)| {
            let id: InvitationId = key.try_into().ok()?;
            Some((id, invite))
        });
        self.invites = Invites::of(named);
        self.setup.invites.publish(self.invites.clone());
        self.tree = Some(tree);
        Ok(())
    }

    fn keep(&self, id: &InvitationId, invite: &Invite) -> Result<(), StoreError> {
        if let Some(tree) = &self.tree {
            tree.put(id, invite)?;
        }
        self.setup.store.flush_durable()?;
        self.setup.invites.publish(self.invites.clone());
        Ok(())
    }

    pub(super) fn invited(
        &mut self,
        folder: &IssuerFolder,
        id: &InvitationId,
        request: &SigningRequest,
        now: Timestamp,
    ) -> Result<Ready, No> {
        let denied = |refusal: Refusal| no(RefusalCode::Denied, refusal);
        let invite = self
            .invites
            .good_for(id, request.peer, now)
            .map_err(denied)?;
        self.may_have(&invite.subject)?;
        // The first answer to this key may have been lost.
        let before = Chain::decode(&invite.issued).ok();
        let before = before.filter(|chain| chain.credential().claims().keys == request.keys);
        let chain = match (before, invite.used_by) {
            (Some(chain), _) => chain,
            (None, Some(_)) => return Err(no(RefusalCode::Denied, "invitation.used")),
            (None, None) => {
                let grant = invite.grant(self.setup.config.lifetime.0);
                let grant = grant.map_err(|error| no(RefusalCode::Invalid, error))?;
                let issued = folder.issue(request, grant, now);
                let chain = issued.map_err(|error| not_issued(&error))?;
                if let Some(kept) = self.invites.used(id, request.peer, chain.encode()) {
                    self.keep(id, &kept).map_err(|error| {
                        tracing::error!(%error, "an invitation cannot be written down");
                        self.incarnation.fail(&error);
                        no(RefusalCode::Unavailable, "the node cannot write it down")
                    })?;
                }
                chain
            }
        };
        Ok(Ready {
            event: AuditEvent::CredentialIssued {
                peer: request.peer,
                identity: label(&chain),
                credential_hash: chain.credential().hash(),
                expires: Timestamp::from_secs(chain.credential().claims().validity.expires()),
                rule: format!("invitation {}", hex::encode(id)),
            },
            chain: chain.encode(),
            anchor: Some(folder.anchor(now)),
            until: None,
        })
    }

    /// Whether the wish is in bounds; the addresses that go into the token.
    fn check_wish(
        &self,
        subject: &Name,
        open_for: Duration,
        addresses: Vec<String>,
    ) -> Result<Vec<String>, InviteFault> {
        let invalid = |why: String| InviteFault::Invalid(why);
        if open_for < SHORTEST_OPEN || open_for > MAX_OPEN_FOR {
            let days = MAX_OPEN_FOR.as_secs() / 86_400;
            return Err(invalid(format!("an invitation is open for 1s to {days}d")));
        }
        if self.may_have(subject).is_err() {
            return Err(invalid(format!("`issuer.deny` names {subject}")));
        }
        let addresses: Vec<_> = addresses
            .into_iter()
            .filter(|address| address.len() <= MAX_ADDRESS)
            .take(MAX_ADDRESSES)
            .collect();
        if addresses.is_empty() {
            let why = "this node listens nowhere: name an address with --address";
            return Err(invalid(why.to_owned()));
        }
        Ok(addresses)
    }

    fn invite(&mut self, wish: MakeInvitation) -> Result<(Invitation, AuditEvent), InviteFault> {
        let MakeInvitation {
            subject,
            groups,
            open_for,
            addresses,
        } = wish;
        let folder = self.folder().map_err(|_| InviteFault::NotIssuer)?;
        let addresses = self.check_wish(&subject, open_for, addresses)?;
        let now = self.setup.clock.now();
        // Whole seconds, as the token says it.
        let expires = Timestamp::from_secs(now.after(open_for).secs());
        let secret: Zeroizing<[u8; 32]> = Zeroizing::new(rand::random());
        let id: InvitationId = rand::random();
        let invite = Invite::new(
            &InvitationKey::of(&secret),
            subject.clone(),
            groups,
            expires,
        );
        let lifetime = self.setup.config.lifetime.0;
        invite
            .grant(lifetime)
            .map_err(|error| InviteFault::Invalid(error.to_string()))?;
        let forgotten = self
            .invites
            .add(id, invite.clone(), now)
            .map_err(|full| InviteFault::Again(full.to_string()))?;
        let kept = match (forgotten, &self.tree) {
            (Some(old), Some(tree)) => tree.remove(&old),
            _ => Ok(()),
        };
        kept.and_then(|()| self.keep(&id, &invite))
            .map_err(|error| {
                self.incarnation.fail(&error);
                InviteFault::Again(error.to_string())
            })?;
        let issuer = folder.key().name().clone();
        let token = Token {
            peer: self.setup.own.load().peer,
            issuer: folder.key().public().thumbprint(),
            id,
            secret,
            expires,
            addresses,
        };
        let event = AuditEvent::InvitationMade {
            invitation: hex::encode(id),
            identity: format!("{issuer}/{subject}"),
            expires,
        };
        let invitation = Invitation {
            token: token.to_text().to_string(),
            invitation: hex::encode(id),
            issuer,
            subject,
            expires,
        };
        Ok((invitation, event))
    }
}

impl Handler<MakeInvitation> for IssuerActor {
    type Result = ResponseActFuture<Self, Result<Invitation, InviteFault>>;

    fn handle(&mut self, wish: MakeInvitation, _: &mut Context<Self>) -> Self::Result {
        let (invitation, event) = match self.invite(wish) {
            Ok(made) => made,
            Err(fault) => return Box::pin(fut::ready(Err(fault))),
        };
        self.setup.metrics.enrolment("invited");
        let audit = self.setup.audit.clone();
        let recorded = async move {
            let recorded = audit.record(event).await;
            let lost = |error: AuditUnavailable| error.to_string();
            recorded
                .map(|_| invitation)
                .map_err(|error| InviteFault::Again(lost(error)))
        };
        Box::pin(recorded.into_actor(self))
    }
}
