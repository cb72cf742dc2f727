//! What this node publishes: it is judged, waits for others to travel with, and leaves in batches.
//! Whoever published is answered when its message was handed to the network, or could not be.

use std::{collections::HashMap, mem, time::Duration};

use actix::{
    Context, Handler, ResponseActFuture, WrapFuture,
    fut::{self},
};
use tokio::sync::oneshot;

use super::SwarmActor;
use crate::{
    identity::sealed::SealTo,
    messages::swarm::{MAX_MANY, Publish, PublishFault, PublishMany, Published, PublishedMany},
    network::{
        self, Entry, Envelope, PublishRefusal, Trace,
        batch::{Batch, Batcher, Rules, WITHDRAW},
    },
    policy::Action,
    types::{Timestamp, Topic},
};

/// Said to a publisher over its budget when the limiter does not know better.
const OWN_RATE_PAUSE: Duration = Duration::from_secs(1);
/// Said to a publisher when too much waits: some of it has left by then.
const PAUSE: Duration = Duration::from_millis(50);
/// How far the time a batch says it was sent at may run ahead of the clock, so that it ascends.
/// What every receiver takes at once of an author whose clock agrees with its own.
const CLOCK_SLACK: Duration = network::replay::RESERVE;
/// Batches handed to the network before the actor's other work gets its turn.
const BATCHES_PER_TURN: usize = 32;
/// And their bytes: ten milliseconds of encoding, naming and signing.
const BYTES_PER_TURN: usize = 1 << 20;

/// Who waits for an answer.
#[derive(Debug)]
struct Waiter {
    /// Messages of its that are still to leave.
    left: usize,
    /// Those that left.
    done: usize,
    /// The last one's name and listeners.
    last: Option<(Option<String>, usize)>,
    /// Why what is behind these was not accepted.
    rest: Option<PublishFault>,
    /// Why some of these did not leave, nor, as far as it is known, what came behind them.
    lost: Option<PublishFault>,
    /// When what is left of it is withdrawn.
    until: Duration,
    answer: oneshot::Sender<Outcome>,
}

/// What became of somebody's messages.
#[derive(Debug)]
struct Outcome {
    done: usize,
    last: Option<(Option<String>, usize)>,
    fault: Option<PublishFault>,
}

/// What waits to be published by one incarnation, and who waits for it.
#[derive(Debug)]
pub(super) struct Outbox {
    batcher: Batcher<u64>,
    waiters: HashMap<u64, Waiter>,
    next: u64,
}

impl Outbox {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            batcher: Batcher::new(rules),
            waiters: HashMap::new(),
            next: 0,
        }
    }

    pub(super) fn next_due(&self) -> Option<Duration> {
        self.batcher.next_due()
    }

    pub(super) fn waiting(&self) -> usize {
        self.batcher.waiting().0
    }

    pub(super) fn set_rules(&mut self, rules: Rules) {
        self.batcher.set_rules(rules);
    }

    /// Withdraws what waits for too long, so that whoever published it hears of it in time.
    pub(super) fn withdraw_late(&mut self, now: Duration) -> usize {
        let late = self.waiters.iter().filter(|(_, one)| one.until <= now);
        let late: Vec<u64> = late.map(|(owner, _)| *owner).collect();
        let mut count = 0_usize;
        for owner in late {
            let gone = self.batcher.withdraw(owner, now);
            if gone == 0 {
                continue;
            }
            count = count.saturating_add(gone);
            if let Some(waiter) = self.waiters.get_mut(&owner) {
                // The last of it: what is being tried comes before, and still counts when it leaves.
                waiter.left = waiter.left.saturating_sub(gone);
                waiter.rest = Some(PublishFault::Backpressure(PAUSE));
                if waiter.left == 0 {
                    self.answer(owner);
                }
            }
        }
        count
    }

    /// Notes the end of so many messages of somebody.
    fn settle(&mut self, owner: u64, count: usize, end: &End) {
        let Some(waiter) = self.waiters.get_mut(&owner) else {
            return;
        };
        waiter.left = waiter.left.saturating_sub(count);
        match end {
            End::Sent(last) if waiter.lost.is_none() => {
                waiter.done = waiter.done.saturating_add(count);
                waiter.last = Some(last.clone());
            }
            End::Sent(_) => {}
            End::Lost(fault) => drop(waiter.lost.get_or_insert_with(|| fault.clone())),
        }
        if waiter.left == 0 {
            self.answer(owner);
        }
    }

    fn answer(&mut self, owner: u64) {
        if let Some(waiter) = self.waiters.remove(&owner) {
            // Who asked may have stopped waiting.
            let _ = waiter.answer.send(Outcome {
                done: waiter.done,
                last: waiter.last,
                fault: waiter.lost.or(waiter.rest),
            });
        }
    }
}

/// What became of a batch.
#[derive(Debug, Clone)]
enum End {
    Sent((Option<String>, usize)),
    Lost(PublishFault),
}

/// When a batch is full, as configured. Validation keeps the count within `limits.message_burst`: no
/// batch is more than neighbours with the same budget take at once.
pub(super) fn rules(config: &crate::config::Config) -> Rules {
    let gossip = &config.gossip;
    Rules::new(
        gossip.batch_delay.0,
        gossip.batch_size.as_usize(),
        gossip.batch_count,
    )
}

impl SwarmActor {
    /// Judges messages of this node and puts them among those that wait. What is not accepted is so
    /// from one message on, with everything behind it.
    fn offer(
        &mut self,
        topic: &Topic,
        payloads: Vec<Vec<u8>>,
        seal_to: &[SealTo],
        trace: Option<Trace>,
    ) -> oneshot::Receiver<Outcome> {
        let (answer, outcome) = oneshot::channel();
        let owner = self.outbox.next;
        self.outbox.next = owner.wrapping_add(1);
        let mut waiter = Waiter {
            left: 0,
            done: 0,
            last: None,
            rest: None,
            lost: None,
            until: self.tools.clock.elapsed().saturating_add(WITHDRAW),
            answer,
        };
        let trace = trace.map(Box::new);
        // What there is no room for is not paid for.
        let room = self.outbox.batcher.room(payloads.iter().map(Vec::len));
        let full = (room < payloads.len()).then_some(PublishFault::Backpressure(PAUSE));
        let allowed = self
            .may_i(Action::Publish, topic)
            .and_then(|_| self.charge_own(room));
        match allowed {
            Err(fault) => waiter.rest = Some(fault),
            Ok((affordable, fault)) => {
                waiter.rest = fault.or(full);
                for payload in payloads.into_iter().take(affordable) {
                    let pushed = self.entry(topic, payload, seal_to, trace.clone());
                    let pushed = pushed.and_then(|entry| {
                        let now = self.tools.clock.elapsed();
                        let full = |_| PublishFault::Backpressure(PAUSE);
                        let batcher = &mut self.outbox.batcher;
                        batcher.push(topic, entry, owner, now).map_err(full)
                    });
                    match pushed {
                        Ok(()) => waiter.left += 1,
                        Err(fault) => {
                            waiter.rest = Some(fault);
                            break;
                        }
                    }
                }
            }
        }
        let waits = waiter.left > 0;
        // What was not accepted is said with the answer to the rest.
        self.outbox.waiters.insert(owner, waiter);
        if !waits {
            self.outbox.answer(owner);
        }
        outcome
    }

    /// How many of so many messages this node's own budget allows, and what is said of the others.
    /// The neighbours hold it to the same budget and would drop in silence what is over it.
    fn charge_own(&self, count: usize) -> Result<(usize, Option<PublishFault>), PublishFault> {
        let limiter = self.tools.limiter.load();
        let all = u32::try_from(count).unwrap_or(u32::MAX);
        if limiter.charge_author(self.me, all).is_ok() {
            return Ok((count, None));
        }
        for affordable in 0..count {
            if let Err(denial) = limiter.charge_author(self.me, 1) {
                self.tools.metrics.message_refused("own_rate");
                let pause = denial.retry_after.unwrap_or(OWN_RATE_PAUSE);
                return Ok((affordable, Some(PublishFault::OverRate(pause))));
            }
        }
        Ok((count, None))
    }

    fn entry(
        &self,
        topic: &Topic,
        mut payload: Vec<u8>,
        seal_to: &[SealTo],
        trace: Option<Box<Trace>>,
    ) -> Result<Entry, PublishFault> {
        let sealed = !seal_to.is_empty();
        if sealed {
            payload = self.seal(topic, &payload, seal_to)?;
        }
        let limit = self.tools.config.limits.max_message_size.as_usize();
        let size = payload.len();
        if size > limit {
            return Err(PublishFault::TooLarge { size, limit });
        }
        Ok(Entry {
            payload,
            sealed,
            trace,
        })
    }

    /// Hands over what is due. `true`: there is more, and others should have their turn first.
    pub(super) fn flush_batches(&mut self) -> bool {
        let mut bytes = 0_usize;
        for _ in 0..BATCHES_PER_TURN {
            let now = self.tools.clock.elapsed();
            let Some(batch) = self.outbox.batcher.take(now) else {
                return false;
            };
            bytes = bytes.saturating_add(batch.bytes());
            self.hand_over(batch);
            if bytes >= BYTES_PER_TURN {
                break;
            }
        }
        true
    }

    /// Tells those who have waited for too long.
    pub(super) fn tend_outbox(&mut self) {
        let gone = self.outbox.withdraw_late(self.tools.clock.elapsed());
        self.tools
            .metrics
            .message_refused_many("backpressure", gone);
    }

    /// Hands over what waits, due or not, as far as the network takes it.
    pub(super) fn flush_outbox(&mut self) {
        loop {
            let before = self.outbox.waiting();
            let Some(batch) = self.outbox.batcher.take(Duration::MAX) else {
                return;
            };
            self.hand_over(batch);
            if self.outbox.waiting() >= before {
                return;
            }
        }
    }

    /// When a batch is said to be sent, and the first of its numbers. One that is tried again keeps its
    /// numbers and gets another time, since gossipsub remembers its name: should both tries reach
    /// somebody, the numbers count once.
    fn number(&mut self, batch: &mut Batch<u64>, count: u64) -> (Timestamp, u64) {
        let now = self.tools.clock.now();
        // The clock was ahead and stepped back: who goes on from there is stale to everybody.
        let stepped_back = self.last_sent.since(now) > CLOCK_SLACK;
        let mut sent = now;
        if !stepped_back {
            sent = sent.max(self.last_sent);
        }
        let first = match batch.first {
            Some(first) => {
                if !stepped_back {
                    sent = sent.max(self.last_sent.after(Duration::from_millis(1)));
                }
                first
            }
            None => {
                let first = self.sequence.saturating_add(1);
                self.sequence = self.sequence.saturating_add(count);
                first
            }
        };
        batch.first = Some(first);
        self.last_sent = sent;
        (sent, first)
    }

    fn hand_over(&mut self, mut batch: Batch<u64>) {
        let count = u64::try_from(batch.entries.len()).unwrap_or(u64::MAX);
        let (sent, first) = self.number(&mut batch, count);
        let identity = self.tools.own.load();
        let mut envelope = Envelope {
            sent,
            first,
            credential: identity.identity.as_ref().map(|own| own.credential_hash),
            entries: mem::take(&mut batch.entries),
        };
        let limit = self.tools.config.limits.max_message_size.as_usize();
        let listeners = self.listeners(&batch.topic);
        let published = match self.swarm.as_mut() {
            Some(swarm) => {
                let gossip = &mut swarm.behaviour_mut().gossip;
                network::publish(gossip, &batch.topic, &envelope, limit)
            }
            None => Err(PublishRefusal::Failed("the network is not up".to_owned())),
        };
        let elapsed = self.tools.clock.elapsed();
        let id = match published {
            Ok(id) => Some(hex::encode(id.0)),
            Err(PublishRefusal::NoListeners) => None,
            Err(PublishRefusal::Backpressure) => {
                batch.entries = mem::take(&mut envelope.entries);
                self.tools.metrics.gossip().batch_refused();
                // The first was tried, those behind it were not.
                let mut fault = PublishFault::Unsure;
                for gone in self.outbox.batcher.refused(batch, elapsed) {
                    self.tools
                        .metrics
                        .message_refused_many("backpressure", gone.len());
                    self.end(&gone, &End::Lost(fault));
                    fault = PublishFault::Backpressure(PAUSE);
                }
                return;
            }
            Err(other) => {
                self.outbox.batcher.sent(&batch, elapsed);
                let fault = match other {
                    PublishRefusal::TooLarge { size, limit } => {
                        PublishFault::TooLarge { size, limit }
                    }
                    other => PublishFault::Failed(other.to_string()),
                };
                return self.end(&batch, &End::Lost(fault));
            }
        };
        self.outbox.batcher.sent(&batch, elapsed);
        self.sent = self.sent.saturating_add(count);
        self.tools.metrics.messages_sent(count);
        self.tools.metrics.gossip().batch_sent(count);
        self.end(&batch, &End::Sent((id, listeners)));
        self.deliver(&batch.topic, self.me, envelope);
    }

    fn end(&mut self, batch: &Batch<u64>, end: &End) {
        for (owner, count) in &batch.owners {
            self.outbox.settle(*owner, *count, end);
        }
    }

    /// Nothing leaves any more: whoever waits is told.
    pub(super) fn abandon_outbox(&mut self) {
        let fault = PublishFault::Failed("the node is stopping".to_owned());
        for batch in self.outbox.batcher.abandon() {
            self.end(&batch, &End::Lost(fault.clone()));
        }
    }

    fn listeners(&self, topic: &Topic) -> usize {
        self.peers
            .iter()
            .filter(|(_, peer)| peer.topics.contains(topic))
            .count()
    }
}

/// The actor goes before its messages did: it is restarted, and supervision tells whoever asked.
fn gone() -> Outcome {
    Outcome {
        done: 0,
        last: None,
        fault: Some(PublishFault::Failed("the network is restarting".to_owned())),
    }
}

impl Handler<Publish> for SwarmActor {
    type Result = ResponseActFuture<Self, Result<Published, PublishFault>>;

    fn handle(&mut self, message: Publish, _: &mut Context<Self>) -> Self::Result {
        let Publish {
            topic,
            payload,
            seal_to,
            trace,
        } = message;
        let outcome = self.offer(&topic, vec![payload], &seal_to, trace);
        let answer = async move {
            let outcome = outcome.await.unwrap_or_else(|_| gone());
            match (outcome.fault, outcome.last) {
                (None, Some((message_id, listeners))) => Ok(Published {
                    message_id,
                    listeners,
                }),
                (Some(fault), _) => Err(fault),
                (None, None) => Err(PublishFault::Failed("nothing was published".to_owned())),
            }
        };
        Box::pin(answer.into_actor(self))
    }
}

impl Handler<PublishMany> for SwarmActor {
    type Result = ResponseActFuture<Self, PublishedMany>;

    fn handle(&mut self, message: PublishMany, _: &mut Context<Self>) -> Self::Result {
        let PublishMany {
            topic,
            mut payloads,
            seal_to,
        } = message;
        if payloads.is_empty() {
            return Box::pin(fut::ready(PublishedMany {
                accepted: 0,
                listeners: 0,
                fault: None,
            }));
        }
        payloads.truncate(MAX_MANY);
        let outcome = self.offer(&topic, payloads, &seal_to, None);
        let answer = async move {
            let outcome = outcome.await.unwrap_or_else(|_| gone());
            PublishedMany {
                accepted: outcome.done,
                listeners: outcome.last.map_or(0, |(_, listeners)| listeners),
                fault: outcome.fault,
            }
        };
        Box::pin(answer.into_actor(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(left: usize, rest: Option<PublishFault>) -> (Outbox, oneshot::Receiver<Outcome>) {
        let mut outbox = Outbox::new(Rules::new(Duration::ZERO, 1, 1));
        let (answer, outcome) = oneshot::channel();
        let waiter = Waiter {
            left,
            done: 0,
            last: None,
            rest,
            lost: None,
            until: Duration::from_secs(1),
            answer,
        };
        outbox.waiters.insert(1, waiter);
        (outbox, outcome)
    }

    #[test]
    fn what_left_is_counted_whatever_is_said_of_the_rest() {
        let pause = PublishFault::OverRate(PAUSE);
        let (mut outbox, mut outcome) = outbox(5, Some(pause.clone()));
        outbox.settle(1, 3, &End::Sent((None, 2)));
        assert!(outcome.try_recv().is_err(), "not yet");
        outbox.settle(1, 2, &End::Sent((None, 3)));
        let outcome = outcome.try_recv().unwrap();
        assert_eq!((outcome.done, outcome.fault), (5, Some(pause)));
        assert_eq!(outcome.last, Some((None, 3)));
        assert!(outbox.waiters.is_empty());
    }

    #[test]
    fn what_comes_after_a_loss_does_not_count() {
        let (mut outbox, mut outcome) = outbox(6, None);
        let lost = PublishFault::Backpressure(PAUSE);
        outbox.settle(1, 3, &End::Sent((None, 1)));
        outbox.settle(1, 2, &End::Lost(lost.clone()));
        outbox.settle(1, 1, &End::Sent((None, 1)));
        let outcome = outcome.try_recv().unwrap();
        assert_eq!((outcome.done, outcome.fault), (3, Some(lost)));
    }

    #[test]
    fn who_waited_too_long_is_told_and_what_waits_is_withdrawn() {
        // Three are being tried, two wait behind them.
        let (mut outbox, mut outcome) = outbox(5, None);
        let topic = Topic::try_new("t").unwrap();
        for _ in 0..2 {
            let entry = Entry::plain(*b"x");
            outbox
                .batcher
                .push(&topic, entry, 1, Duration::ZERO)
                .unwrap();
        }
        assert_eq!(outbox.withdraw_late(Duration::from_millis(999)), 0);
        assert_eq!(outbox.withdraw_late(Duration::from_secs(1)), 2);
        assert!(outcome.try_recv().is_err(), "not yet");
        // Said to be published, or whoever tries again would do so twice.
        outbox.settle(1, 3, &End::Sent((None, 1)));
        let outcome = outcome.try_recv().unwrap();
        let fault = Some(PublishFault::Backpressure(PAUSE));
        assert_eq!((outcome.done, outcome.fault), (3, fault));
        assert_eq!(outbox.waiting(), 0);
    }
}
