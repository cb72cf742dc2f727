//! A node changes its keys: gets the credential for the new ones, and erases the old ones.
//!
//! The statement lies on the disk, where the command put it; what comes of it lies there too, and
//! the next start changes the keys. The old ones are erased when a member is connected under the new
//! ones: then somebody has seen them hold.

use std::{sync::Arc, time::Duration};

use actix::{AsyncContext, Context, WrapFuture, fut::ActorFutureExt};

use super::{Failed, Given, PATIENCE, RenewalActor, ask};
use crate::{
    audit::AuditEvent,
    identity::{
        Chain, Continuity,
        enrolment::Request,
        renewal::{Tries, accept_rotated},
        rotation,
    },
    messages::swarm::ListPeers,
    types::Timestamp,
};

/// How often it is looked whether a member is connected, while old keys are kept.
const LOOK: Duration = Duration::from_secs(2);

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    tries: Tries,
    busy: bool,
    /// When it is looked for members again.
    look: Timestamp,
    last_error: Option<String>,
}

impl RenewalActor {
    pub(super) fn tick_rotation(&mut self, ctx: &mut Context<Self>) {
        if self.rotation.busy {
            return;
        }
        let now = self.setup.clock.now();
        if self.setup.paths.rotation().exists() {
            return self.ask_rotation(now, ctx);
        }
        if now >= self.rotation.look && rotation::has_retired(&self.setup.paths) {
            self.rotation.look = now.after(LOOK);
            self.look_for_members(ctx);
        }
    }

    fn ask_rotation(&mut self, now: Timestamp, ctx: &mut Context<Self>) {
        let own = self.setup.own.load();
        let Some(chain) = own.chain.clone() else {
            return;
        };
        // Cheap: while there is nothing to do the file is not read.
        if self.setup.paths.next_credential().exists() {
            return;
        }
        let statement = match rotation::asking(&self.setup.paths, self.setup.key.public()) {
            Ok(Some(statement)) => statement,
            Ok(None) => return,
            Err(error) => return self.cannot_rotate(&error.to_string()),
        };
        if !self.rotation.tries.is_due(statement.hash(), now) {
            return;
        }
        // From here on it may be answered, whatever is heard of it.
        if let Err(error) = rotation::stating(&self.setup.paths, &statement) {
            return self.cannot_rotate(&error.to_string());
        }
        self.rotation.busy = true;
        let request = Request::Rotate {
            statement: statement.as_bytes().to_vec(),
        };
        let issuer = statement.issuer().clone();
        let asking = ask(self.setup.clone(), issuer, self.last, request);
        ctx.spawn(asking.into_actor(self).map(move |answer, act, _| {
            act.rotation.busy = false;
            match answer {
                Ok(given) => act.take_rotated(&chain, &statement, given),
                Err(failed) => act.not_rotated(failed),
            }
        }));
    }

    /// Said once for each reason: it is looked at twice a second.
    fn cannot_rotate(&mut self, why: &str) {
        if self.rotation.last_error.as_deref() != Some(why) {
            tracing::error!(why, "the rotation of this node's keys cannot go on");
            self.rotation.last_error = Some(why.to_owned());
        }
    }

    fn not_rotated(&mut self, failed: Failed) {
        let again = failed.again;
        self.rotation.last_error = Some(self.told(failed, ("rotation", "rotation_failed")));
        self.rotation.tries.failed(self.setup.clock.now(), again);
    }

    fn take_rotated(&mut self, old: &Arc<Chain>, statement: &Continuity, given: Given) {
        let Given { by, chain, until } = given;
        let now = self.setup.clock.now();
        let trust = self.setup.trust.load();
        let taken = accept_rotated(old, &chain, statement, &trust.anchors, now)
            .map_err(|error| error.to_string())
            .and_then(|chain| {
                let kept = rotation::adopt(&self.setup.paths, statement, &chain);
                kept.map(|()| chain).map_err(|error| error.to_string())
            });
        let chain = match taken {
            Ok(chain) => chain,
            Err(detail) => {
                return self.not_rotated(Failed {
                    by: Some(by),
                    code: "not_renewed",
                    detail,
                    again: None,
                });
            }
        };
        self.rotation.last_error = None;
        self.setup.metrics.enrolment("rotated");
        let claims = chain.credential().claims();
        tracing::info!(
            %by, next = %claims.keys.peer, until = until.map(|at| at.to_string()),
            "the credential for this node's next keys is there: start the node anew to change to \
             them; the old one is taken back when they are seen, and at the time named at the latest"
        );
        self.setup.audit.note(AuditEvent::CredentialIssued {
            peer: claims.keys.peer,
            identity: statement.label(),
            credential_hash: chain.credential().hash(),
            expires: Timestamp::from_secs(claims.validity.expires()),
            rule: format!("rotation, by {by}"),
        });
    }

    fn look_for_members(&mut self, ctx: &mut Context<Self>) {
        self.rotation.busy = true;
        let swarm = self.setup.swarm.clone();
        let looking = async move { swarm.ask(ListPeers, PATIENCE).await };
        ctx.spawn(looking.into_actor(self).map(|peers, act, _| {
            act.rotation.busy = false;
            let met = peers.is_ok_and(|peers| {
                let member = |tier: &str| tier == crate::identity::Tier::Member.to_string();
                peers.iter().any(|peer| member(&peer.tier))
            });
            if !met {
                return;
            }
            match rotation::erase_retired(&act.setup.paths) {
                Ok(true) => tracing::info!("this node's former keys were erased"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "this node's former keys are still there"),
            }
        }));
    }
}
