//! What an actor of this node is.

use actix::{Actor, Context, Supervised};
use serde::Serialize;

use super::Fault;

/// An actor that a [`Root`](super::Root) can supervise.
///
/// Implemented beside actix's `Actor`, whose `started`, `stopping` and `stopped` stay empty: what
/// they would do belongs in [`on_start`](Self::on_start) and [`on_stop`](Self::on_stop), which
/// never see a state that a panic left behind.
///
/// A factory makes the value. It binds no port and opens nothing that must be opened once: that
/// belongs in `on_start`, beside the context that futures are spawned on. (The old value is
/// gone by then in any case.)
pub trait Supervise: Actor<Context = Context<Self>> + Supervised + Unpin + 'static {
    /// The actor's name in configuration, logs and metrics: `[a-z_]`, for example `"audit"`.
    const NAME: &'static str;

    /// Whether the actor needs a thread of its own, because it touches the disk or must never
    /// wait for a neighbour. Such an actor gets its own arbiter whatever its placement says.
    const EXCLUSIVE: bool = false;

    /// What [`observe`](Self::observe) shows.
    type Observable: Serialize + Send + 'static;

    /// Opens files, binds ports, spawns futures. Runs after the old value was dropped and before
    /// any queued message; a future given to `ctx.wait` here is finished first, too.
    ///
    /// # Errors
    /// A fault, which counts against the restart budget as a failed build.
    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        let _ = ctx;
        Ok(())
    }

    /// The actor's state, for operators and tests.
    fn observe(&self) -> Self::Observable;

    /// The end of an orderly stop: every queued message was handled. What is given to `ctx.wait`
    /// here is finished before the value is dropped. Never called on a faulty actor.
    fn on_stop(&mut self, ctx: &mut Context<Self>) {
        let _ = ctx;
    }
}

/// Marks a type as an actor that can be supervised: `supervised!(AuditActor);`.
///
/// Any message the actor handles by actix's `Handler` then travels by
/// [`ActorRef`](crate::supervision::ActorRef); results, `MessageResult` and `ResponseActFuture`
/// work as in actix.
#[macro_export]
macro_rules! supervised {
    ($actor:ty) => {
        /// Empty: supervision replaces the value instead of restarting it.
        impl ::actix::Supervised for $actor {}
    };
}
