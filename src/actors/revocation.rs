//! Revocation: owns the book of status lists, publishes what is in force.
//!
//! Takes heads and lists from the gate, from peers and from the operator; verifies them, writes
//! them, puts them in force and passes their heads on to every neighbour, in this order. Asks
//! neighbours for lists that are behind. A thin shell over [`crate::identity::status`].
//!
//! # Invariants
//! - What is in force, or was announced, is on the disk (`fsync`).
//! - No list goes back: not after a restart, `kill -9` or a loss of power.
//! - Only what was signed wrongly or cannot be read is charged, to the peer that sent it.
//!
//! # When it fails
//! Everybody goes on with the last view, in which lists still become stale by themselves. A
//! failing store is a fault: the restart budget decides. Runs on an arbiter of its own, since the
//! store blocks. Full mailbox: announcements are answered with "later", the gate lets peers in
//! by the lists that are in force.

mod fetching;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use actix::{Actor, AsyncContext, Context, Handler, MessageResult};
use serde::{Deserialize, Serialize};

use crate::{
    actors::{reputation::ReputationActor, swarm::SwarmActor},
    audit::AuditEvent,
    cbor::Malformed,
    identity::{
        Name, Refusal, StatusView, TrustView,
        status::{
            Book, Fetches, Fork, ListReport, MAX_ISSUERS, Record, Rejected, StatusHead, StatusList,
            Weighed, heads_of_bytes,
        },
    },
    messages::{
        reputation::{Charge, Severity},
        revocation::{AnnouncedHeads, ImportStatusList, ListStatusLists, ShownHeads},
        swarm::{Announce, ChargePeer},
    },
    store::{Batch, Store, StoreError, Tree},
    supervised,
    supervision::{ActorRef, Fault, Incarnation, Supervise},
    telemetry::Metrics,
    types::{Clock, Origin, Party, PeerId, Publisher, View},
};

/// How often trust is compared and requests are planned.
const TICK: Duration = Duration::from_millis(200);
const TREE: &str = "status_lists";
const TREE_VERSION: u8 = 1;

/// Where the actor tells the audit log what happened.
pub type Note = Arc<dyn Fn(AuditEvent) + Send + Sync>;

/// Swarm, which starts after this actor does.
pub type SwarmSlot = Arc<OnceLock<ActorRef<SwarmActor>>>;

/// What an incarnation is made of.
#[derive(Clone)]
pub struct RevocationSetup {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where lists are kept.
    pub store: Store,
    /// Whom this node trusts.
    pub trust: View<TrustView>,
    /// Whether an issuer without a list counts as one whose list is stale.
    pub required: bool,
    /// Where the lists in force are published.
    pub publisher: Publisher<StatusView>,
    /// Carries heads and requests to neighbours.
    pub swarm: SwarmSlot,
    /// Told of misdeeds.
    pub reputation: ActorRef<ReputationActor>,
    /// Usually `AuditHandle::note`.
    pub note: Note,
    /// Counts.
    pub metrics: Metrics,
}

impl fmt::Debug for RevocationSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationSetup").finish_non_exhaustive()
    }
}

/// See the module.
pub struct RevocationActor {
    incarnation: Incarnation,
    setup: RevocationSetup,
    book: Book,
    epoch: u64,
    fetches: Fetches,
    /// Issuers of whom something was known that the store does not tell any more.
    lost: BTreeSet<Name>,
    /// Set by `on_start`.
    tree: Option<Tree<Stored>>,
    /// The fork reported last, by issuer: each is reported once.
    forks: BTreeMap<Name, Fork>,
    /// Whether Swarm is being asked for the neighbours.
    asking: bool,
}

/// What lies in the store of one issuer.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    list: Option<String>,
    head: String,
}

impl Stored {
    fn of(record: &Record) -> Self {
        Self {
            list: record.list().map(|list| hex::encode(list.as_bytes())),
            head: hex::encode(record.head().as_bytes()),
        }
    }

    fn read(&self) -> Result<Record, Malformed> {
        let bytes = |text: &String| hex::decode(text).map_err(|_| Malformed("not in hex"));
        let list = self.list.as_ref().map(bytes).transpose()?;
        Record::restore(list.as_deref(), &bytes(&self.head)?)
    }
}

/// What an operator sees.
#[derive(Debug, Clone, Serialize)]
pub struct RevocationState {
    /// The lists known.
    pub lists: Vec<ListReport>,
    /// Lists that are asked for.
    pub wanted: usize,
}

/// From whom something came.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// It showed or sent it.
    Peer(PeerId),
    Operator,
}

impl Source {
    fn peer(self) -> Option<PeerId> {
        match self {
            Self::Peer(peer) => Some(peer),
            Self::Operator => None,
        }
    }
}

impl RevocationActor {
    /// An incarnation that has not started yet.
    #[must_use]
    pub fn new(incarnation: Incarnation, setup: RevocationSetup) -> Self {
        let trust = setup.trust.load();
        Self {
            incarnation,
            book: Book::new(Arc::clone(&trust.anchors), setup.required),
            epoch: trust.epoch,
            setup,
            fetches: Fetches::default(),
            lost: BTreeSet::new(),
            tree: None,
            forks: BTreeMap::new(),
            asking: false,
        }
    }

    fn restore(&mut self) -> Result<(), StoreError> {
        let tree: Tree<Stored> = self.setup.store.tree(TREE, TREE_VERSION)?;
        for (key, stored) in tree.scan(MAX_ISSUERS)? {
            match stored.read() {
                Ok(record) => drop(self.book.enact(record)),
                Err(error) => {
                    let issuer = String::from_utf8_lossy(&key).into_owned();
                    tracing::error!(
                        issuer, %error,
                        "a status list of the store cannot be read: its issuer's members run no \
                         jobs until a list comes; `quantraband status import` brings one"
                    );
                    self.lost.extend(Name::try_new(&issuer));
                }
            }
        }
        self.tree = Some(tree);
        self.publish();
        for (issuer, _) in self.book.behind() {
            self.fetches
                .want(&issuer, None, true, self.setup.clock.elapsed());
        }
        Ok(())
    }

    fn publish(&self) {
        let lost = self.lost.clone();
        self.setup
            .publisher
            .publish(self.book.view().with_lost(lost));
        let now = self.setup.clock.now();
        self.setup
            .metrics
            .status()
            .set_lists(&self.book.reports(now));
    }

    /// Writes, puts in force, passes on.
    fn enact(&mut self, record: Record, source: Source) -> Result<(), StoreError> {
        let Some(tree) = &self.tree else {
            return Ok(());
        };
        let issuer = record.issuer().clone();
        let behind = record.is_behind();
        let head = record.head().as_bytes().to_vec();
        let mut batch = Batch::default();
        batch.put(issuer.as_str().as_bytes(), Stored::of(&record));
        // Together, so that a crash leaves no more than there may be.
        if let Some(gone) = self.book.makes_room_for(&issuer) {
            batch.remove(gone.as_str().as_bytes());
        }
        tree.apply(&batch)?;
        // Before it counts and before anybody hears of it.
        self.setup.store.flush_durable()?;
        self.book.enact(record);
        self.lost.remove(&issuer);
        self.publish();
        self.setup.metrics.status().accepted();
        let now = self.setup.clock.elapsed();
        if behind {
            self.fetches.want(&issuer, source.peer(), true, now);
        } else {
            self.fetches.satisfied(&issuer);
        }
        let reports = self.book.reports(self.setup.clock.now());
        if let Some(report) = reports.into_iter().find(|report| report.issuer == issuer) {
            self.note_accepted(&report, source);
        }
        self.announce(head, source.peer());
        Ok(())
    }

    fn note_accepted(&self, report: &ListReport, source: Source) {
        let (issuer, sequence) = (&report.issuer, report.sequence);
        let state = &report.state;
        tracing::info!(%issuer, sequence, state, revoked = report.revoked, "a status list");
        (self.setup.note)(AuditEvent::StatusListAccepted {
            issuer: issuer.to_string(),
            sequence,
            list: report.list_sequence,
            revoked: report.revoked,
            hash: report.hash.clone(),
            from: source.peer(),
        });
    }

    fn announce(&self, head: Vec<u8>, except: Option<PeerId>) {
        let Some(swarm) = self.setup.swarm.get() else {
            return;
        };
        let announce = Announce {
            heads: vec![head],
            except,
        };
        if swarm.tell(announce).is_err() {
            tracing::warn!(
                "an announcement was lost: Swarm is busy; peers learn of it as they connect"
            );
        }
    }

    /// What a weighed document comes to. `Err`: why it was not taken.
    fn settle(
        &mut self,
        issuer: &Name,
        weighed: Result<Weighed, Rejected>,
        source: Source,
    ) -> Result<(), Rejected> {
        let now = self.setup.clock.elapsed();
        match weighed {
            Ok(Weighed::Newer(record)) => {
                if let Err(error) = self.enact(*record, source) {
                    self.incarnation.fail(error);
                }
                Ok(())
            }
            Ok(Weighed::Known) => {
                let behind = self.book.behind().iter().any(|(name, _)| name == issuer);
                if behind {
                    self.fetches.want(issuer, source.peer(), true, now);
                }
                Ok(())
            }
            Ok(Weighed::Unproved) => {
                self.fetches.want(issuer, source.peer(), false, now);
                Ok(())
            }
            Ok(Weighed::Forked(fork)) => {
                self.report_fork(fork, source);
                Ok(())
            }
            Err(rejected) => {
                self.setup.metrics.status().refused(rejected.code());
                tracing::debug!(%issuer, ?source, code = rejected.code(), "refused: {rejected}");
                Err(rejected)
            }
        }
    }

    fn report_fork(&mut self, fork: Fork, source: Source) {
        self.setup.metrics.status().refused("fork");
        if self.forks.get(&fork.issuer) == Some(&fork) {
            return;
        }
        tracing::error!(
            issuer = %fork.issuer, sequence = fork.sequence,
            "two status lists bear one sequence: the issuer's key is in two hands, or its folder \
             was copied; the first stays in force"
        );
        (self.setup.note)(AuditEvent::StatusListForked {
            issuer: fork.issuer.to_string(),
            sequence: fork.sequence,
            known: hex::encode(fork.known),
            other: hex::encode(fork.other),
            from: source.peer(),
        });
        if self.forks.len() < MAX_ISSUERS || self.forks.contains_key(&fork.issuer) {
            self.forks.insert(fork.issuer.clone(), fork);
        }
    }

    fn take_head(&mut self, head: StatusHead, peer: PeerId) -> Result<(), Rejected> {
        let issuer = head.statement().issuer.clone();
        let weighed = self.book.weigh_head(head, self.setup.clock.now());
        self.settle(&issuer, weighed, Source::Peer(peer))
    }

    fn take_list(&mut self, list: &StatusList, source: Source) -> Result<(), Rejected> {
        let issuer = list.statement().issuer.clone();
        let weighed = self.book.weigh_list(list, self.setup.clock.now());
        self.settle(&issuer, weighed, source)
    }

    /// Tells of what an honest peer does not send. The log hears of it from here, and of the
    /// charge from Reputation.
    fn charge(&self, peer: PeerId, code: &str, why: &dyn fmt::Display) {
        (self.setup.note)(AuditEvent::StatusListRefused {
            from: Some(peer),
            code: code.to_owned(),
            detail: why.to_string(),
        });
        let evidence = format!("a status list or head: {why}");
        let origin = Origin::peer(peer);
        // Swarm knows as what the peer is connected.
        if let Some(swarm) = self.setup.swarm.get() {
            let evidence = evidence.clone();
            if swarm
                .tell_for(origin, ChargePeer { peer, evidence })
                .is_ok()
            {
                return;
            }
        }
        let charge = Charge {
            party: Party::Peer(peer),
            subject: None,
            address: None,
            severity: Severity::InvalidMessage,
            evidence,
            summed: false,
        };
        let told = self.setup.reputation.tell_for(origin, charge);
        if told.is_err() {
            tracing::warn!(%peer, "a charge was lost: Reputation is busy");
        }
    }
}

impl Actor for RevocationActor {
    type Context = Context<Self>;
}

supervised!(RevocationActor);

impl Supervise for RevocationActor {
    const NAME: &'static str = "revocation";
    type Observable = RevocationState;

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        self.restore().map_err(Fault::build)?;
        ctx.run_interval(TICK, Self::tick);
        Ok(())
    }

    fn observe(&self) -> RevocationState {
        RevocationState {
            lists: self.book.reports(self.setup.clock.now()),
            wanted: self.fetches.len(),
        }
    }
}

impl Handler<ShownHeads> for RevocationActor {
    type Result = Result<(), Refusal>;

    fn handle(&mut self, shown: ShownHeads, _: &mut Context<Self>) -> Result<(), Refusal> {
        let _scope = self.incarnation.handling(Origin::peer(shown.peer));
        for head in heads_of_bytes(&shown.heads)? {
            match self.take_head(head, shown.peer) {
                Err(Rejected::Forged(refusal)) => return Err(refusal),
                Err(Rejected::Malformed(why)) => return Err(why.into()),
                // Old, unknown or premature: the peer may be honest, and so may we.
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Handler<AnnouncedHeads> for RevocationActor {
    type Result = ();

    fn handle(&mut self, announced: AnnouncedHeads, _: &mut Context<Self>) {
        let peer = announced.peer;
        let _scope = self.incarnation.handling(Origin::peer(peer));
        for bytes in &announced.heads {
            let taken = StatusHead::decode(bytes)
                .map_err(Rejected::from)
                .and_then(|head| self.take_head(head, peer));
            if let Err(rejected) = taken
                && rejected.charged()
            {
                // The rest of what it sent is not looked at.
                return self.charge(peer, rejected.code(), &rejected);
            }
        }
    }
}

impl Handler<ImportStatusList> for RevocationActor {
    type Result = Result<ListReport, String>;

    fn handle(&mut self, import: ImportStatusList, _: &mut Context<Self>) -> Self::Result {
        let list = StatusList::decode(&import.bytes)
            .map_err(|why| format!("this is no status list: {why}"))?;
        let (issuer, sequence) = (list.statement().issuer.clone(), list.statement().sequence);
        let hash = hex::encode(list.statement().hash);
        if let Err(rejected) = self.take_list(&list, Source::Operator) {
            (self.setup.note)(AuditEvent::StatusListRefused {
                from: None,
                code: rejected.code().to_owned(),
                detail: rejected.to_string(),
            });
            return Err(rejected.to_string());
        }
        let reports = self.book.reports(self.setup.clock.now());
        let report = reports.into_iter().find(|report| report.issuer == issuer);
        match report {
            Some(report) if report.sequence == sequence && report.hash != hash => Err(format!(
                "another list of `{issuer}` with the sequence {sequence} is in force: the issuer's \
                 key is in two hands, or its folder was copied"
            )),
            Some(report) if report.list_sequence >= Some(sequence) => Ok(report),
            _ => Err("it could not be written; see the node's log".to_owned()),
        }
    }
}

impl Handler<ListStatusLists> for RevocationActor {
    type Result = MessageResult<ListStatusLists>;

    fn handle(&mut self, _: ListStatusLists, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.book.reports(self.setup.clock.now()))
    }
}
