//! What peers are charged for here, and as whom: the key that did it, and the member it is.

use actix::{Context, Handler};

use super::SwarmActor;
use crate::{
    messages::{
        reputation::{Charge, Severity},
        swarm::ChargePeer,
    },
    trust::{rate::Denial, reputation},
    types::{Origin, Party, PeerId, SubjectId},
};

impl SwarmActor {
    /// Charges a message that no honest peer sends to whoever signed it, or sent it over its own
    /// connection.
    pub(super) fn charge_invalid(&self, who: PeerId, evidence: String) {
        let charge = Charge {
            party: Party::Peer(who),
            subject: self.answering(&who),
            address: None,
            severity: Severity::InvalidMessage,
            evidence,
            summed: false,
        };
        let told = self.tools.reputation.tell_for(Origin::peer(who), charge);
        if told.is_err() {
            tracing::warn!(peer = %who, "a charge was lost: Reputation is busy");
        }
    }

    /// Charges a request to the budgets of the peer that sent it and of the member it is.
    pub(super) fn charge_request(&self, who: PeerId) -> Result<(), Denial> {
        let limiter = self.tools.limiter.load();
        limiter.charge_job_request(who)?;
        match self.answering(&who) {
            Some(member) => limiter.charge_member_request(&member),
            None => Ok(()),
        }
    }

    /// The member that a peer is by its connection, or that an author was verified to be. Nobody
    /// whose credential was taken back meanwhile: its key may be in other hands.
    fn answering(&self, who: &PeerId) -> Option<SubjectId> {
        let now = self.tools.clock.now();
        let identity = self.peers.author(who, None)?.identity;
        let statuses = self.tools.statuses.load();
        let revoked = statuses.of_peer(identity.as_deref(), now).is_revoked();
        reputation::answers(identity.as_deref(), now).filter(|_| !revoked)
    }
}

impl Handler<ChargePeer> for SwarmActor {
    type Result = ();

    fn handle(&mut self, charge: ChargePeer, _: &mut Context<Self>) {
        self.charge_invalid(charge.peer, charge.evidence);
    }
}
