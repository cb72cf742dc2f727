//! Asks neighbours for lists that are behind, and takes what they answer.
//!
//! Whom to ask, and when again, is decided by [`Fetches`](crate::identity::status::Fetches). An
//! answer is judged like any list; what was signed wrongly or cannot be read is charged to who
//! sent it, and whatever did not help is asked of another.

use std::{sync::Arc, time::Duration};

use actix::{AsyncContext, Context, WrapFuture, fut::ActorFutureExt};

use super::{RevocationActor, Source};
use crate::{
    cbor::Malformed,
    identity::{
        status::{Fetch, Rejected, StatusList},
        wire::{Request, Response},
    },
    messages::swarm::{Neighbours, SendFault, SendIdentityRequest},
    supervision::AskError,
    types::{Origin, PeerId},
};

/// How long a neighbour may take to send a list; the protocol's own time-out is shorter.
const FETCH_DEADLINE: Duration = Duration::from_secs(15);
/// How long Swarm may take to name the neighbours.
const NEIGHBOURS_DEADLINE: Duration = Duration::from_secs(2);

impl RevocationActor {
    pub(super) fn tick(&mut self, ctx: &mut Context<Self>) {
        let trust = self.setup.trust.load();
        if trust.epoch != self.epoch {
            self.epoch = trust.epoch;
            self.book.trust(Arc::clone(&trust.anchors));
            self.publish();
            for (issuer, _) in self.book.behind() {
                self.fetches
                    .want(&issuer, None, true, self.setup.clock.elapsed());
            }
        }
        if self.fetches.is_empty() {
            return;
        }
        let Some(swarm) = self.setup.swarm.get() else {
            return;
        };
        if !self.fetches.needs_neighbours() {
            return self.fetch(&[], ctx);
        }
        if self.asking {
            return;
        }
        self.asking = true;
        let swarm = swarm.clone();
        let asked = async move { swarm.ask(Neighbours, NEIGHBOURS_DEADLINE).await };
        ctx.spawn(asked.into_actor(self).map(|answer, act, ctx| {
            act.asking = false;
            act.fetch(&answer.unwrap_or_default(), ctx);
        }));
    }

    fn fetch(&mut self, neighbours: &[PeerId], ctx: &mut Context<Self>) {
        let Some(swarm) = self.setup.swarm.get().cloned() else {
            return;
        };
        for fetch in self.fetches.due(self.setup.clock.elapsed(), neighbours) {
            let request = SendIdentityRequest {
                peer: fetch.peer,
                request: Request::GetList {
                    issuer: fetch.issuer.clone(),
                    newer_than: self.book.sequence(&fetch.issuer),
                },
            };
            let swarm = swarm.clone();
            let asked = async move { swarm.ask(request, FETCH_DEADLINE).await };
            ctx.spawn(
                asked
                    .into_actor(self)
                    .map(move |answer, act, _| act.on_answer(&fetch, answer)),
            );
        }
    }

    fn on_answer(&mut self, fetch: &Fetch, answer: Result<Result<Response, SendFault>, AskError>) {
        let Fetch { issuer, peer } = fetch;
        let _scope = self.incarnation.handling(Origin::peer(*peer));
        let now = self.setup.clock.elapsed();
        let failed = |act: &mut Self, again| act.fetches.failed(issuer, *peer, again, now);
        match answer {
            Ok(Ok(Response::List(bytes))) => {
                let taken = StatusList::decode(&bytes)
                    .map_err(Rejected::from)
                    .and_then(|list| {
                        if list.statement().issuer != *issuer {
                            return Err(Malformed("it is another issuer's").into());
                        }
                        self.take_list(&list, Source::Peer(*peer))
                    });
                if let Err(rejected) = taken
                    && rejected.charged()
                {
                    self.charge(*peer, rejected.code(), &rejected);
                }
                // No effect when it came; else another peer is asked.
                failed(self, false);
            }
            Ok(Ok(Response::NoList | Response::Later)) => failed(self, true),
            Ok(Ok(Response::Heard | Response::Chains(_))) => {
                self.charge(*peer, "malformed", &"an answer to another question");
                failed(self, false);
            }
            Ok(Err(SendFault::Held { retry_after, .. })) => {
                self.fetches.held(issuer, *peer, retry_after, now);
            }
            Ok(Err(SendFault::Busy)) | Err(_) => failed(self, true),
            Ok(Err(_)) => failed(self, false),
        }
    }
}
