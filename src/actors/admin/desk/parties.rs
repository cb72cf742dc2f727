//! Commands about peers and members: bans, quarantines, invitations.

use super::{DEADLINE, Desk, no_answer};
use crate::{
    admin::protocol::{Failure, FailureCode, MAX_TEXT, Response},
    identity::Tier,
    messages::{
        enrolment::{InviteFault, MakeInvitation},
        policy::{PutInQuarantine, Release},
        reputation::Ban,
        swarm::{DescribeSwarm, ListPeers},
    },
    types::{Party, Span},
};

impl Desk {
    pub(super) async fn ban(
        &self,
        party: Party,
        span: Span,
        reason: String,
    ) -> Result<Response, Failure> {
        if reason.chars().count() > MAX_TEXT {
            let why = format!("a reason has at most {MAX_TEXT} characters");
            return Err(Failure::new(FailureCode::Invalid, why));
        }
        let ban = Ban {
            party,
            span: span.0,
            reason,
        };
        let answer = self
            .0
            .reputation
            .ask(ban, DEADLINE)
            .await
            .map_err(no_answer)?;
        answer
            .map(Response::Banned)
            .map_err(|why| Failure::new(FailureCode::Failed, why))
    }

    pub(super) async fn quarantine(
        &self,
        party: Party,
        span: Span,
        reason: String,
    ) -> Result<Response, Failure> {
        if reason.chars().count() > MAX_TEXT {
            let why = format!("a reason has at most {MAX_TEXT} characters");
            return Err(Failure::new(FailureCode::Invalid, why));
        }
        let put = PutInQuarantine {
            parties: self.key_and_name(party).await,
            span: span.0,
            reason,
        };
        let answer = self.0.policy.ask(put, DEADLINE).await.map_err(no_answer)?;
        answer
            .map(|quarantines| Response::Quarantined { quarantines })
            .map_err(|why| Failure::new(FailureCode::Invalid, why))
    }

    pub(super) async fn release(&self, party: Party) -> Result<Response, Failure> {
        let release = Release {
            parties: self.key_and_name(party).await,
        };
        let answer = self.0.policy.ask(release, DEADLINE).await;
        let parties = answer.map_err(no_answer)?;
        parties
            .map(|parties| Response::Released { parties })
            .map_err(|why| Failure::new(FailureCode::Failed, why))
    }

    /// A party, and for the key of a connected member the name that it is known by: another key
    /// that comes with that name is held, too. When Swarm does not answer the key alone: what the
    /// operator decides does not wait for the network.
    async fn key_and_name(&self, party: Party) -> Vec<Party> {
        let mut parties = vec![party];
        if let Some(Party::Peer(peer)) = parties.first()
            && let Ok(connected) = self.0.swarm.ask(ListPeers, DEADLINE).await
        {
            let mut all = connected.into_iter();
            let found =
                all.find(|one| one.peer_id == *peer && one.tier == Tier::Member.to_string());
            let name = found.and_then(|one| one.identity?.parse().ok());
            parties.extend(name.map(Party::Subject));
        }
        parties
    }

    /// Without addresses, where this node listens: loopback only when there is nothing else.
    pub(super) async fn invite(&self, mut wish: MakeInvitation) -> Result<Response, Failure> {
        let tools = &self.0;
        if wish.addresses.is_empty() {
            let swarm = tools.swarm.ask(DescribeSwarm, DEADLINE).await;
            let listen = swarm.map_err(no_answer)?.listen;
            let bare = |address: String| match address.rsplit_once("/p2p/") {
                Some((bare, _)) => bare.to_owned(),
                None => address,
            };
            let all: Vec<String> = listen.into_iter().map(bare).collect();
            let local = |address: &String| {
                address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/")
            };
            let far: Vec<String> = all.iter().filter(|a| !local(a)).cloned().collect();
            wish.addresses = if far.is_empty() { all } else { far };
        }
        let answer = tools.issuer.ask(wish, DEADLINE).await.map_err(no_answer)?;
        answer.map(Response::Invited).map_err(|fault| {
            let code = match fault {
                InviteFault::NotIssuer => FailureCode::Denied,
                InviteFault::Invalid(_) => FailureCode::Invalid,
                InviteFault::Again(_) => FailureCode::Again,
            };
            Failure::new(code, fault.to_string())
        })
    }
}
