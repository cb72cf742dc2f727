//! Identity: holds this node's own identity and its trust anchors, and verifies peers.
//!
//! A thin shell over [`crate::identity`]: reads the data directory, publishes two immutable views,
//! answers the gate. It never sees the secret key.
//!
//! Owner of: `View<OwnIdentity>`, `View<TrustView>`. Invariants: a view is replaced as a whole or
//! not at all; a reload that fails changes nothing and says why. When it fails: its guard restarts
//! it; the last views stay in force meanwhile, and if the disk can then not be read, they stay in
//! force until it can (the observable state and the log say so). The very first loading must
//! succeed. Which signatures hold is cached ([`IdentityCache`]); times, scopes, grants and proofs of
//! possession are judged each time.
//!
//! Full mailbox: the gate's ask is refused (`Overloaded`), which costs the peer nothing and is
//! never remembered as a refusal.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use actix::{Actor, Context, Handler, MessageResult};
use serde::Serialize;

use crate::{
    audit::AuditEvent,
    identity::{
        By, Chain, IdentityCache, IdentityPaths, Leniency, OwnIdentity, Refusal, SelfSigned,
        StateError, StatusView, TrustAnchors, TrustView, VerifiedIdentity, state, verify_chain,
    },
    messages::identity::{
        ChainsOf, DescribeIdentity, IdentityReport, ReloadIdentity, VerifyAuthors, VerifyPeer,
        VerifyRenewed,
    },
    supervision::{Fault, Incarnation, Supervise},
    telemetry::Metrics,
    types::{Clock, Origin, PeerId, Publisher, View},
};

/// The owner's ends of what Identity publishes. The node keeps a clone, so that the views outlive
/// each incarnation.
#[derive(Debug, Clone)]
pub struct IdentityPublishers {
    /// What this node shows of itself.
    pub own: Publisher<OwnIdentity>,
    /// Whom this node trusts.
    pub trust: Publisher<TrustView>,
    /// Whether an incarnation ever loaded what they show.
    loaded: Arc<AtomicBool>,
}

impl IdentityPublishers {
    /// Publishers for the node `peer`, with a credential and trust still to be loaded.
    #[must_use]
    pub fn new(peer: PeerId) -> Self {
        Self {
            own: Publisher::new(OwnIdentity::bare(peer)),
            trust: Publisher::new(TrustView::default()),
            loaded: Arc::default(),
        }
    }
}

/// Where audit events go: must not block.
pub type Note = Arc<dyn Fn(AuditEvent) + Send + Sync>;

/// What each incarnation is made of.
#[derive(Clone)]
pub struct IdentitySetup {
    /// This node, by the key its transport uses. Never changes while the process lives.
    pub peer: PeerId,
    /// Where identity lives.
    pub paths: IdentityPaths,
    /// What becomes of nodes that sign for themselves.
    pub self_signed: SelfSigned,
    /// Whose lapsed credentials are heard for renewal: this node's own issuer's.
    pub leniency: Option<Leniency>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// What issuers took back: forgotten at once.
    pub statuses: View<StatusView>,
    /// Counts.
    pub metrics: Metrics,
    /// Where views are published.
    pub publishers: IdentityPublishers,
    /// Where audit events go.
    pub note: Note,
}

impl fmt::Debug for IdentitySetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentitySetup")
            .field("peer", &self.peer)
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

/// The actor.
#[derive(Debug)]
pub struct IdentityActor {
    incarnation: Incarnation,
    setup: IdentitySetup,
    own: Arc<OwnIdentity>,
    trust: Arc<TrustView>,
    statuses: Arc<StatusView>,
    cache: IdentityCache,
    verified: u64,
    refused: BTreeMap<&'static str, u64>,
    last_error: Option<String>,
}

/// Observable state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdentityState {
    /// Who this node is and whom it trusts.
    pub identity: IdentityReport,
    /// Why this node's own anchors do not verify its own credential.
    pub own_problem: Option<String>,
    /// Epoch of the trust entries.
    pub trust_epoch: u64,
    /// Peers verified by this incarnation.
    pub verified: u64,
    /// Peers refused by this incarnation, by the refusal's code.
    pub refused: BTreeMap<&'static str, u64>,
    /// Chains whose signatures are known to hold.
    pub cached: usize,
    /// Chains known to be wrong for ever.
    pub cached_refusals: usize,
    /// What was wrong at the last loading that failed, until one succeeds.
    pub last_error: Option<String>,
}

impl IdentityActor {
    /// An incarnation that has not read anything yet.
    #[must_use]
    pub fn new(incarnation: Incarnation, setup: IdentitySetup) -> Self {
        Self {
            own: setup.publishers.own.view().load(),
            trust: setup.publishers.trust.view().load(),
            statuses: setup.statuses.load(),
            cache: IdentityCache::default(),
            incarnation,
            setup,
            verified: 0,
            refused: BTreeMap::new(),
            last_error: None,
        }
    }

    fn reload(&mut self) -> Result<(), StateError> {
        match self.read() {
            Ok((own, anchors)) => {
                self.last_error = None;
                self.publish(own, anchors);
                Ok(())
            }
            Err(error) => {
                self.last_error = Some(error.to_string());
                Err(error)
            }
        }
    }

    fn read(&self) -> Result<(OwnIdentity, TrustAnchors), StateError> {
        let IdentitySetup {
            peer, paths, clock, ..
        } = &self.setup;
        let anchors = state::load_anchors(paths)?.with_self_signed(self.setup.self_signed);
        let own = state::load_own(paths, *peer, &anchors, clock.now())?;
        Ok((own, anchors))
    }

    fn publish(&mut self, own: OwnIdentity, anchors: TrustAnchors) {
        if let Some(problem) = &own.problem {
            tracing::warn!(
                credential = own.label(),
                %problem,
                "this node's own credential does not verify by its own trust anchors; peers that \
                 judge likewise will refuse it"
            );
        }
        let trust = self.trust.next(anchors);
        let publishers = &self.setup.publishers;
        // Trust first: who sees the new identity can already judge by the new anchors.
        publishers.trust.publish(trust);
        publishers.own.publish(own);
        publishers.loaded.store(true, Ordering::Release);
        self.trust = publishers.trust.view().load();
        self.own = publishers.own.view().load();
        (self.setup.note)(AuditEvent::IdentityLoaded {
            own: self.own.label(),
            issuers: self.issuers(),
        });
    }

    /// The cache, without what was taken back, and by what to verify.
    fn cache(&mut self) -> (&mut IdentityCache, By<'_>) {
        let now = self.setup.clock.now();
        let statuses = self.setup.statuses.load();
        if !Arc::ptr_eq(&statuses, &self.statuses) {
            self.cache.forget_revoked(&statuses, now);
            self.statuses = statuses;
        }
        let by = By {
            anchors: &self.trust.anchors,
            leniency: self.setup.leniency.as_ref(),
            epoch: self.trust.epoch,
            now,
            elapsed: self.setup.clock.elapsed(),
        };
        (&mut self.cache, by)
    }

    fn count(&mut self, answer: &Result<VerifiedIdentity, Refusal>) {
        match answer {
            Ok(_) => self.verified = self.verified.saturating_add(1),
            Err(refusal) => {
                let count = self.refused.entry(refusal.code()).or_default();
                *count = count.saturating_add(1);
            }
        }
    }

    fn issuers(&self) -> Vec<String> {
        let anchors = self.trust.anchors.iter();
        anchors.map(|anchor| anchor.issuer.to_string()).collect()
    }

    fn report(&self) -> IdentityReport {
        IdentityReport {
            peer_id: self.setup.peer,
            credential: self.own.label(),
            expires: self.own.expires(),
            trusted_issuers: self.issuers(),
        }
    }
}

impl Actor for IdentityActor {
    type Context = Context<Self>;
}

crate::supervised!(IdentityActor);

impl Supervise for IdentityActor {
    const NAME: &'static str = "identity";
    /// It reads the disk, which may hang.
    const EXCLUSIVE: bool = true;

    type Observable = IdentityState;

    fn on_start(&mut self, _: &mut Context<Self>) -> Result<(), Fault> {
        match self.reload() {
            Ok(()) => Ok(()),
            Err(error) if self.setup.publishers.loaded.load(Ordering::Acquire) => {
                // An unrelated fault must not turn a half-done edit on disk into the node's end:
                // what was in force stays in force, as after a reload that failed.
                tracing::error!(%error, "identity cannot be read; the last good state stays");
                Ok(())
            }
            Err(error) => Err(Fault::build(error)),
        }
    }

    fn observe(&self) -> IdentityState {
        IdentityState {
            identity: self.report(),
            own_problem: self.own.problem.as_ref().map(ToString::to_string),
            trust_epoch: self.trust.epoch,
            verified: self.verified,
            refused: self.refused.clone(),
            cached: self.cache.len().0,
            cached_refusals: self.cache.len().1,
            last_error: self.last_error.clone(),
        }
    }
}

impl Handler<VerifyPeer> for IdentityActor {
    type Result = Result<VerifiedIdentity, Refusal>;

    fn handle(&mut self, ask: VerifyPeer, _: &mut Context<Self>) -> Self::Result {
        let _scope = self.incarnation.handling(Origin::peer(ask.peer));
        let (cache, by) = self.cache();
        let shown = (&ask.channel, ask.role);
        let (answer, look) = cache.verify_frame(&ask.frame, ask.peer, shown, by);
        self.setup.metrics.status().identity_cache(look.name());
        self.count(&answer);
        answer
    }
}

impl Handler<VerifyRenewed> for IdentityActor {
    type Result = Result<VerifiedIdentity, Refusal>;

    fn handle(&mut self, ask: VerifyRenewed, _: &mut Context<Self>) -> Self::Result {
        let _scope = self.incarnation.handling(Origin::peer(ask.peer));
        let answer = Chain::decode(&ask.chain)
            .map_err(Refusal::from)
            .and_then(|chain| {
                let (anchors, now) = (&self.trust.anchors, self.setup.clock.now());
                verify_chain(&chain, ask.peer, anchors, now)
            });
        self.count(&answer);
        answer
    }
}

impl Handler<VerifyAuthors> for IdentityActor {
    type Result = Result<Vec<Arc<VerifiedIdentity>>, &'static str>;

    fn handle(&mut self, ask: VerifyAuthors, _: &mut Context<Self>) -> Self::Result {
        let _scope = self.incarnation.handling(Origin::peer(ask.peer));
        let mut authors = Vec::new();
        for bytes in &ask.chains {
            let chain = Chain::decode(bytes).map_err(|malformed| malformed.0)?;
            let author = chain.credential().claims().keys.peer;
            let links: Vec<Vec<u8>> = chain.links().map(<[u8]>::to_vec).collect();
            let (cache, by) = self.cache();
            let (judged, look) = cache.verify_chain(&links, author, by);
            self.setup.metrics.status().identity_cache(look.name());
            match judged {
                Ok(identity) => authors.push(Arc::new(identity)),
                // The neighbour may trust others than this node does.
                Err(refusal) => tracing::debug!(%author, %refusal, "an author is not known here"),
            }
        }
        Ok(authors)
    }
}

impl Handler<ChainsOf> for IdentityActor {
    type Result = Vec<Vec<u8>>;

    fn handle(&mut self, ask: ChainsOf, _: &mut Context<Self>) -> Self::Result {
        let own = self.own.chain.clone();
        let (cache, _) = self.cache();
        let known = ask.credentials.iter().filter_map(|hash| {
            let own = own.as_ref().filter(|own| own.credential().hash() == *hash);
            own.cloned().or_else(|| cache.chain_of(hash))
        });
        known.map(|chain| chain.encode()).collect()
    }
}

impl Handler<ReloadIdentity> for IdentityActor {
    type Result = Result<IdentityReport, String>;

    fn handle(&mut self, _: ReloadIdentity, _: &mut Context<Self>) -> Self::Result {
        match self.reload() {
            Ok(()) => Ok(self.report()),
            Err(error) => Err(format!("{error} (what was loaded before stays in force)")),
        }
    }
}

impl Handler<DescribeIdentity> for IdentityActor {
    type Result = MessageResult<DescribeIdentity>;

    fn handle(&mut self, _: DescribeIdentity, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.report())
    }
}

#[cfg(test)]
mod tests;
