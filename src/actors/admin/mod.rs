//! Admin: serves commands over the Unix socket in the data directory.
//!
//! The actor owns the accepting of connections. Each connection is a task of its own on the
//! actor's arbiter and does its work through the [`Desk`], so that it survives a restart of the
//! actor: even `actors restart admin` is answered. The node binds the socket once; incarnations
//! share it, so that no command is refused while one follows the other.

mod connection;
mod desk;
mod jobs;
mod limits;
mod publish;

use std::{
    fmt,
    os::unix::net::UnixListener as StdListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix::{Actor, Context, Handler, ResponseActFuture, WrapFuture};
use serde::Serialize;
use tokio::{net::UnixListener, sync::Semaphore, task::JoinHandle};

use crate::{
    admin::protocol::{Failure, FailureCode, Response},
    messages::admin::RemoteCommand,
    supervised,
    supervision::{Fault, Incarnation, Supervise},
};

use desk::By;
pub use desk::{Desk, DeskTools, NodeFacts};
pub use limits::LimitFacts;

/// Wait after an `accept` that failed, as when file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Shared by all incarnations.
#[derive(Debug, Clone)]
pub struct AdminTools {
    /// Carries out commands.
    pub desk: Desk,
    /// Bounds commands served at once (`admin.connections`).
    pub slots: Arc<Semaphore>,
    /// Bounds those that stream: a part of the slots, so that subscribers that stay for days
    /// never keep an operator out.
    pub streams: Arc<Semaphore>,
    /// Commands served.
    pub served: Arc<AtomicU64>,
    /// The socket, bound by the node.
    pub listener: Arc<StdListener>,
}

/// The actor.
pub struct AdminActor {
    incarnation: Incarnation,
    tools: AdminTools,
    accepting: Option<JoinHandle<()>>,
}

impl fmt::Debug for AdminActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminActor").finish_non_exhaustive()
    }
}

/// What the actor shows of itself.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct AdminState {
    /// Commands served since the node started.
    pub served: u64,
    /// Commands that may begin now.
    pub free: usize,
}

supervised!(AdminActor);

impl Actor for AdminActor {
    type Context = Context<Self>;
}

impl AdminActor {
    /// A value for one incarnation.
    #[must_use]
    pub fn new(incarnation: Incarnation, tools: AdminTools) -> Self {
        Self {
            incarnation,
            tools,
            accepting: None,
        }
    }
}

impl Drop for AdminActor {
    fn drop(&mut self) {
        if let Some(task) = self.accepting.take() {
            task.abort();
        }
    }
}

impl Handler<RemoteCommand> for AdminActor {
    type Result = ResponseActFuture<Self, Response>;

    fn handle(&mut self, message: RemoteCommand, _: &mut Context<Self>) -> Self::Result {
        let RemoteCommand { peer, command } = message;
        self.tools.served.fetch_add(1, Ordering::Relaxed);
        let desk = self.tools.desk.clone();
        // A task of its own, like a command of the socket: it survives a restart of this actor.
        let done = actix::spawn(async move { desk.answer(command, By::Peer(peer)).await });
        let done = async move {
            done.await.unwrap_or_else(|error| {
                Response::Error(Failure::new(FailureCode::Again, error.to_string()))
            })
        };
        Box::pin(done.into_actor(self))
    }
}

impl Supervise for AdminActor {
    const NAME: &'static str = "admin";
    type Observable = AdminState;

    fn on_start(&mut self, _: &mut Context<Self>) -> Result<(), Fault> {
        let listener = self.tools.listener.try_clone().map_err(Fault::build)?;
        listener.set_nonblocking(true).map_err(Fault::build)?;
        let listener = UnixListener::from_std(listener).map_err(Fault::build)?;
        let accept = accept(listener, self.tools.clone(), self.incarnation.clone());
        self.accepting = Some(actix::spawn(accept));
        Ok(())
    }

    fn observe(&self) -> AdminState {
        AdminState {
            served: self.tools.served.load(Ordering::Relaxed),
            free: self.tools.slots.available_permits(),
        }
    }
}

/// Accepts as long as there is a slot; the rest waits in the kernel's queue.
async fn accept(listener: UnixListener, tools: AdminTools, incarnation: Incarnation) {
    loop {
        let Ok(slot) = Arc::clone(&tools.slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tools.served.fetch_add(1, Ordering::Relaxed);
                let (desk, streams) = (tools.desk.clone(), Arc::clone(&tools.streams));
                actix::spawn(async move {
                    connection::serve(stream, desk, &streams).await;
                    drop(slot);
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                return incarnation.fail(format!("the admin socket is gone: {error}"));
            }
            Err(error) => {
                tracing::warn!(%error, "a command was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
