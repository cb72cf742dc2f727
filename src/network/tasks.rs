//! Runs libp2p's connection tasks: on the current runtime or on another, panics caught and told.
//!
//! tokio swallows a task's panic, and a Swarm whose connection task died keeps the connection in
//! its books for ever. So every task is polled under `catch_unwind`, and [`Attribution`] is told
//! whose input it handled.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::swarm::Executor;
use tokio::runtime::{Builder, Handle, Runtime};

use super::attribution::{self, Attribution};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where connection tasks run, and so their cryptography.
#[derive(Clone)]
pub struct Tasks {
    runtime: Option<Handle>,
    attribution: Arc<dyn Attribution>,
}

impl Tasks {
    /// On the runtime that polls the Swarm.
    #[must_use]
    pub fn here(attribution: Arc<dyn Attribution>) -> Self {
        Self {
            runtime: None,
            attribution,
        }
    }

    /// On another, for example multi-threaded, runtime.
    #[must_use]
    pub fn on(runtime: Handle, attribution: Arc<dyn Attribution>) -> Self {
        Self {
            runtime: Some(runtime),
            attribution,
        }
    }
}

/// Threads of their own for connection tasks, or none: then they share the Swarm's.
#[derive(Debug)]
pub struct Workers(Option<Runtime>);

impl Workers {
    /// Starts so many threads; zero: none.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start(threads: usize) -> io::Result<Self> {
        if threads == 0 {
            return Ok(Self(None));
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("connections")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs tasks here.
    #[must_use]
    pub fn tasks(&self, attribution: Arc<dyn Attribution>) -> Tasks {
        match &self.0 {
            Some(runtime) => Tasks::on(runtime.handle().clone(), attribution),
            None => Tasks::here(attribution),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Whoever drops it may itself run in a runtime, where waiting for threads is forbidden.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Executor for Tasks {
    fn exec(&self, task: Task) {
        let guarded = Guarded {
            task: Some(task),
            attribution: self.attribution.clone(),
        };
        match &self.runtime {
            Some(runtime) => drop(runtime.spawn(guarded)),
            None => drop(tokio::spawn(guarded)),
        }
    }
}

struct Guarded {
    task: Option<Task>,
    attribution: Arc<dyn Attribution>,
}

impl Future for Guarded {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        attribution::clear();
        let Some(task) = self.task.as_mut() else {
            return Poll::Ready(());
        };
        // The task is dropped after a panic, so its broken state is never seen again.
        match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))) {
            Ok(polled) => polled,
            Err(panic) => {
                let origin = attribution::noted();
                self.attribution.task_panicked(origin, text_of(&*panic));
                let broken = self.task.take();
                // What it still holds may panic once more; that says nothing new.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
                Poll::Ready(())
            }
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Origin, PeerId};
    use ed25519_dalek::SigningKey;
    use tokio::sync::mpsc;

    struct Told(mpsc::Sender<(Origin, String)>);

    impl Attribution for Told {
        fn begin(&self, _: PeerId) {}
        fn end(&self) {}
        fn task_panicked(&self, origin: Origin, detail: &str) {
            self.0.try_send((origin, detail.to_owned())).unwrap();
        }
    }

    #[tokio::test]
    async fn a_panic_is_told_with_the_origin_noted_in_the_same_poll() {
        let (sender, mut told) = mpsc::channel(4);
        let tasks = Tasks::here(Arc::new(Told(sender)));
        let peer = PeerId::from(&SigningKey::from_bytes(&[1; 32]).verifying_key());
        tasks.exec(Box::pin(async move {
            attribution::note(peer, None);
            panic!("broken {}", "codec");
        }));
        let (origin, detail) = told.recv().await.unwrap();
        assert_eq!(origin, Origin::peer(peer));
        assert_eq!(detail, "broken codec");

        // Another task on the same thread is not blamed on that peer.
        tasks.exec(Box::pin(async { panic!("other") }));
        let (origin, detail) = told.recv().await.unwrap();
        assert_eq!((origin, detail.as_str()), (Origin::default(), "other"));
    }
}
