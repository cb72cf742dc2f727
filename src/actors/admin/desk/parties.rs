//! Commands about peers and members: bans, quarantines, invitations.

use super::{DEADLINE, Desk, no_answer};
use crate::{
    admin::protocol::{Failure, FailureCode, MAX_TEXT, Response},
    messages::{
        enrolment::{InviteFault, MakeInvitation},
        policy::PutInQuarantine,
        reputation::Ban,
        swarm::DescribeSwarm,
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
            party,
            span: span.0,
            reason,
        };
        let answer = self.0.policy.ask(put, DEADLINE).await.map_err(no_answer)?;
        answer
            .map(Response::Quarantined)
            .map_err(|why| Failure::new(FailureCode::Invalid, why))
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
