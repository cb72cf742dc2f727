//! Local subscribers: bounded sinks, by topic.
//!
//! A slow subscriber loses messages of its own, never another's, and is told how many. A sink
//! whose receiver was dropped is forgotten at the next look.

use std::collections::BTreeMap;

use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{
    messages::swarm::{Delivered, Delivery},
    types::Topic,
};

/// Most local subscriptions at once: each comes from a local command, whose number
/// `admin.connections` bounds far below this.
pub(super) const MAX_SUBSCRIPTIONS: usize = 4_096;

#[derive(Debug)]
struct Sink {
    sender: mpsc::Sender<Delivered>,
    lagged: u64,
}

impl Sink {
    /// Whether the message was delivered; `Err` when nobody receives any more.
    fn deliver(&mut self, delivery: Delivery) -> Result<bool, ()> {
        if self.lagged > 0 {
            match self.sender.try_send(Delivered::Lagged(self.lagged)) {
                Ok(()) => self.lagged = 0,
                Err(TrySendError::Full(_)) => {
                    self.lagged = self.lagged.saturating_add(1);
                    return Ok(false);
                }
                Err(TrySendError::Closed(_)) => return Err(()),
            }
        }
        match self.sender.try_send(Delivered::Message(delivery)) {
            Ok(()) => Ok(true),
            Err(TrySendError::Full(_)) => {
                self.lagged = 1;
                Ok(false)
            }
            Err(TrySendError::Closed(_)) => Err(()),
        }
    }
}

/// The local subscribers of one Swarm incarnation.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    sinks: BTreeMap<Topic, Vec<Sink>>,
    count: usize,
}

/// What delivering one message came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Outcome {
    /// Subscribers that got it.
    pub delivered: usize,
    /// Subscribers that were too slow.
    pub dropped: usize,
}

impl Subscribers {
    /// Adds a sink. `Ok(true)` when it is the topic's first; `Err` when there are too many.
    pub(super) fn add(
        &mut self,
        topic: Topic,
        sender: mpsc::Sender<Delivered>,
    ) -> Result<bool, ()> {
        if self.count >= MAX_SUBSCRIPTIONS {
            return Err(());
        }
        self.count += 1;
        let sinks = self.sinks.entry(topic).or_default();
        sinks.push(Sink { sender, lagged: 0 });
        Ok(sinks.len() == 1)
    }

    /// Delivers to every subscriber of the topic.
    pub(super) fn deliver(&mut self, delivery: Delivery) -> Outcome {
        let mut outcome = Outcome::default();
        let mut count = |result| match result {
            Ok(true) => outcome.delivered += 1,
            Ok(false) => outcome.dropped += 1,
            Err(()) => {}
        };
        // The last one gets the original: mostly there is one.
        if let Some((last, others)) = self
            .sinks
            .get_mut(&delivery.topic)
            .and_then(|sinks| sinks.split_last_mut())
        {
            for sink in others {
                count(sink.deliver(delivery.clone()));
            }
            count(last.deliver(delivery));
        }
        outcome
    }

    /// Forgets sinks nobody receives from; returns the topics nobody listens to any more.
    pub(super) fn prune(&mut self) -> Vec<Topic> {
        for sinks in self.sinks.values_mut() {
            sinks.retain(|sink| !sink.sender.is_closed());
        }
        self.count = self.sinks.values().map(Vec::len).sum();
        let empty: Vec<Topic> = self
            .sinks
            .iter()
            .filter(|(_, s)| s.is_empty())
            .map(|(t, _)| t.clone())
            .collect();
        for topic in &empty {
            self.sinks.remove(topic);
        }
        empty
    }

    /// Whether anybody here listens to a topic.
    pub(super) fn has(&self, topic: &Topic) -> bool {
        self.sinks.contains_key(topic)
    }

    /// Topics with at least one subscriber.
    pub(super) fn topics(&self) -> Vec<Topic> {
        self.sinks.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PeerId, Timestamp};

    fn delivery(topic: &Topic, n: u8) -> Delivery {
        let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key();
        Delivery {
            topic: topic.clone(),
            author: PeerId::from(&key),
            sent: Timestamp::default(),
            payload: vec![n],
            sealed: false,
            trace: None,
        }
    }

    #[test]
    fn a_slow_subscriber_is_told_and_others_lose_nothing() {
        let topic: Topic = "t".parse().unwrap();
        let mut subscribers = Subscribers::default();
        let (slow, mut slow_end) = mpsc::channel(1);
        let (fast, mut fast_end) = mpsc::channel(16);
        assert_eq!(subscribers.add(topic.clone(), slow), Ok(true));
        assert_eq!(subscribers.add(topic.clone(), fast), Ok(false));
        assert_eq!(
            subscribers.deliver(delivery(&topic, 0)),
            Outcome {
                delivered: 2,
                dropped: 0
            }
        );
        for n in 1..=3 {
            assert_eq!(subscribers.deliver(delivery(&topic, n)).dropped, 1);
        }
        assert!(matches!(slow_end.try_recv(), Ok(Delivered::Message(_))));
        subscribers.deliver(delivery(&topic, 4));
        assert_eq!(slow_end.try_recv(), Ok(Delivered::Lagged(3)));
        let got = std::iter::from_fn(|| fast_end.try_recv().ok()).count();
        assert_eq!(got, 5);
    }

    #[test]
    fn dropped_receivers_are_forgotten() {
        let topic: Topic = "t".parse().unwrap();
        let mut subscribers = Subscribers::default();
        let (sender, end) = mpsc::channel(1);
        subscribers.add(topic.clone(), sender).unwrap();
        assert!(subscribers.prune().is_empty());
        drop(end);
        assert_eq!(subscribers.prune(), vec![topic]);
        assert!(subscribers.topics().is_empty());
    }

    #[test]
    fn subscriptions_are_bounded() {
        let topic: Topic = "t".parse().unwrap();
        let mut subscribers = Subscribers::default();
        let (sender, _end) = mpsc::channel(1);
        for _ in 0..MAX_SUBSCRIPTIONS {
            subscribers.add(topic.clone(), sender.clone()).unwrap();
        }
        assert_eq!(subscribers.add(topic, sender), Err(()));
    }
}
