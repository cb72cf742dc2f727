//! Published views: what an actor lets others read without asking.
//!
//! The owner publishes an immutable value; readers take the latest in a few nanoseconds and
//! can never write. When the owner restarts, the last view stays until it publishes again.

use std::sync::Arc;

use tokio::sync::watch;

/// The owner's end: replaces the value.
#[derive(Debug)]
pub struct Publisher<T>(watch::Sender<Arc<T>>);

/// A reader's end: the latest value.
#[derive(Debug)]
pub struct View<T>(watch::Receiver<Arc<T>>);

impl<T> Clone for Publisher<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Publisher<T> {
    /// A publisher with its first value. It outlives its actor's incarnations: the node keeps
    /// a clone, and each incarnation publishes through it.
    #[must_use]
    pub fn new(first: T) -> Self {
        Self(watch::Sender::new(Arc::new(first)))
    }

    /// Replaces the value that every view shows.
    pub fn publish(&self, value: T) {
        self.0.send_replace(Arc::new(value));
    }

    /// A reader of this publisher.
    #[must_use]
    pub fn view(&self) -> View<T> {
        View(self.0.subscribe())
    }
}

impl<T> View<T> {
    /// The latest value.
    #[must_use]
    pub fn load(&self) -> Arc<T> {
        self.0.borrow().clone()
    }

    /// Waits until a value is published that this reader has not yet seen by `changed`.
    /// `false` when the publisher is gone for good.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}
