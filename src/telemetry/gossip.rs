//! Batches: how well messages travel together, and what the network does not take.

use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use super::metrics::as_gauge;

/// See the module.
#[derive(Debug, Clone)]
pub struct GossipMetrics {
    sizes: Histogram,
    refused: Counter,
    late: Counter,
    waiting: Gauge,
}

impl Default for GossipMetrics {
    fn default() -> Self {
        Self {
            // 1 to 1,024 messages, doubling.
            sizes: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            refused: Counter::default(),
            late: Counter::default(),
            waiting: Gauge::default(),
        }
    }
}

impl GossipMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "batch_messages",
            "Messages in a batch that this node published",
            self.sizes.clone(),
        );
        registry.register(
            "batches_refused",
            "Batches that no neighbour had room for when they were tried",
            self.refused.clone(),
        );
        registry.register(
            "messages_validated_late",
            "Messages that were accepted when gossip had forgotten them: delivered here, forwarded nowhere",
            self.late.clone(),
        );
        registry.register(
            "messages_waiting",
            "Messages of this node that wait to be published",
            self.waiting.clone(),
        );
    }

    /// A batch of so many messages was handed to the network.
    pub fn batch_sent(&self, messages: u64) {
        // At most 1,024: exact.
        self.sizes
            .observe(u32::try_from(messages).map_or(f64::MAX, f64::from));
    }

    /// No neighbour had room for a batch.
    pub fn batch_refused(&self) {
        self.refused.inc();
    }

    /// A message was accepted when gossip had forgotten it.
    pub fn validated_late(&self) {
        self.late.inc();
    }

    /// So many messages wait.
    pub fn set_waiting(&self, messages: usize) {
        self.waiting.set(as_gauge(messages));
    }
}
