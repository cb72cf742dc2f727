//! Starts every actor and hands each the views and references it needs.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc};

use super::{StartError, health::NodeHealth, rebuild, sockets::Sockets};
use crate::{
    actors::{
        admin::{AdminActor, AdminTools, Desk, DeskTools, NodeFacts},
        audit::{AuditActor, AuditHandle},
        gatekeeper::{Gatekeeper, Tools},
        identity::{IdentityActor, IdentityPublishers, IdentitySetup},
        rate_limit::RateLimitActor,
        reputation::ReputationActor,
        swarm::{SwarmActor, SwarmMemory, SwarmTools},
    },
    audit::AuditEvent,
    config::{Config, Loaded},
    identity::{IdentityPaths, NodeKey},
    store::{SetAside, Store},
    supervision::{ActorRef, Placement, Root, Supervise},
    telemetry::{self, Metrics},
    types::{Clock, Publisher, Timestamp},
};

/// How long an actor may take to come up: opening a large log reads its tail.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long one actor may take to answer the gate. The gate's own deadline is longer.
const ASK_DEADLINE: Duration = Duration::from_secs(5);

/// What `node.rs` made before any actor runs.
pub(super) struct Parts {
    pub(super) root: Root,
    pub(super) config: Arc<Config>,
    pub(super) loaded: Loaded,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) key: NodeKey,
    pub(super) store: Store,
    pub(super) set_aside: Option<SetAside>,
    pub(super) sockets: Sockets,
    pub(super) metrics: Metrics,
    pub(super) stop: mpsc::Sender<String>,
}
