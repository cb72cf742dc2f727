//! Collects the messages this node publishes into batches: several small ones to a topic travel in
//! one envelope under one signature.
//!
//! A topic's messages leave in the order in which they came, as soon as they fill a batch or the
//! oldest has waited long enough. One that is a batch by itself sends off what is before it and
//! travels alone. What the network does not take now stays in front and is tried again; when that
//! has gone on for too long it is handed back, so that whoever published it can be told.
//!
//! Pure: `(state, input, now) -> effects`, where time is the monotonic time since the start. Owner:
//! the Swarm actor. Bounded in messages and bytes; what does not fit is refused, never dropped.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::envelope::{Entry, MAX_ENTRIES};
use crate::types::Topic;

/// Messages that may wait: a quarter of a second at the highest rate one node was measured at.
pub const MAX_WAITING: usize = 131_072;
/// Bytes that may wait, as they travel. A single message of any size is taken when nothing waits.
pub const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;
/// Wait before a batch that the network refused is tried again, doubled each time up to
/// [`LONGEST_RETRY`]: some of what stands in the way of it leaves meanwhile. Gossipsub keeps each try
/// for some heartbeats and offers it to others, so there must be few.
pub const RETRY: Duration = Duration::from_millis(5);
/// A heartbeat as shipped.
pub const LONGEST_RETRY: Duration = Duration::from_millis(200);
/// How long it is tried: less than gossipsub keeps a message for a neighbour that does not take it,
/// and, with [`WITHDRAW`], less than anybody waits for an answer.
pub const GIVE_UP: Duration = Duration::from_secs(3);
/// After so long what waits of somebody is withdrawn, so that it can be told what became of it before it
/// stops waiting.
pub const WITHDRAW: Duration = Duration::from_secs(5);

/// When a batch is full, and how long it may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    delay: Duration,
    bytes: usize,
    count: usize,
}

impl Rules {
    /// A batch leaves when it has `bytes` bytes or `count` messages, or `delay` after its first
    /// came; both are at least one message, and at most what an envelope holds.
    #[must_use]
    pub fn new(delay: Duration, bytes: usize, count: usize) -> Self {
        Self {
            delay,
            bytes: bytes.max(1),
            count: count.clamp(1, MAX_ENTRIES),
        }
    }
}

/// What is handed to the network as one envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<T> {
    /// Where to.
    pub topic: Topic,
    /// In order, at least one.
    pub entries: Vec<Entry>,
    /// Whose they are: so many in a row of each.
    pub owners: Vec<(T, usize)>,
    /// The numbers it was given when it was first tried; it keeps them, so that of two tries that
    /// both reached somebody one counts.
    pub first: Option<u64>,
    bytes: usize,
    /// When it is handed back.
    until: Option<Duration>,
    /// How long it waits when it is refused the next time.
    retry: Duration,
}

impl<T> Batch<T> {
    /// Bytes of its entries as they travel.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many messages it is of, also when the entries were taken out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.owners.iter().map(|(_, count)| count).sum()
    }

    /// Never: a batch has a message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }
}

#[derive(Debug)]
struct Waiting<T> {
    entry: Entry,
    owner: T,
    bytes: usize,
    since: Duration,
}

/// One topic's messages. Indexed in `due` by the time its next batch leaves, exactly once.
#[derive(Debug)]
struct Lane<T> {
    /// Refused by the network, before all others.
    refused: Option<Batch<T>>,
    queue: VecDeque<Waiting<T>>,
    bytes: usize,
    due: Duration,
    /// A batch was taken, and it is not known yet what became of it.
    out: bool,
}

/// Nothing more is taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// See the module.
#[derive(Debug)]
pub struct Batcher<T> {
    rules: Rules,
    lanes: BTreeMap<Topic, Lane<T>>,
    due: BTreeSet<(Duration, Topic)>,
    count: usize,
    bytes: usize,
}

impl<T: Copy + PartialEq> Batcher<T> {
    /// A batcher in which nothing waits.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            lanes: BTreeMap::new(),
            due: BTreeSet::new(),
            count: 0,
            bytes: 0,
        }
    }

    /// Other rules for what is cut from now on; what waits leaves no later than it would have.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Takes a message.
    ///
    /// # Errors
    /// [`Full`]: what waits has to leave first.
    pub fn push(
        &mut self,
        topic: &Topic,
        entry: Entry,
        owner: T,
        now: Duration,
    ) -> Result<(), Full> {
        let bytes = entry.encoded_len();
        let waiting = self.bytes.saturating_add(bytes);
        if self.count >= MAX_WAITING || (waiting > MAX_WAITING_BYTES && self.count > 0) {
            return Err(Full);
        }
        self.count = self.count.saturating_add(1);
        self.bytes = waiting;
        let one = Waiting {
            entry,
            owner,
            bytes,
            since: now,
        };
        if let Some(lane) = self.lanes.get_mut(topic) {
            let was_full = lane.is_full(&self.rules);
            lane.bytes = lane.bytes.saturating_add(bytes);
            lane.queue.push_back(one);
            // Only a lane that has just become full is due earlier than it was.
            let held = lane.out || lane.refused.is_some();
            if !was_full && !held && lane.is_full(&self.rules) {
                self.index(topic, now);
            }
            return Ok(());
        }
        let mut lane = Lane {
            refused: None,
            queue: VecDeque::new(),
            bytes,
            due: Duration::MAX,
            out: false,
        };
        lane.queue.push_back(one);
        let due = lane.next(&self.rules, now);
        self.lanes.insert(topic.clone(), lane);
        self.index(topic, due);
        Ok(())
    }

    /// The next batch that is due, if any. It counts as waiting until [`Batcher::sent`] or
    /// [`Batcher::refused`] says what became of it.
    pub fn take(&mut self, now: Duration) -> Option<Batch<T>> {
        let (_, topic) = self.due.first().filter(|(due, _)| *due <= now)?.clone();
        let lane = self.lanes.get_mut(&topic)?;
        let batch = match lane.refused.take() {
            Some(batch) => batch,
            None => lane.cut(&topic, &self.rules)?,
        };
        // Nothing of a topic leaves while it is not known what became of what came before.
        lane.out = true;
        self.unindex(&topic);
        Some(batch)
    }

    /// The network took the batch.
    pub fn sent(&mut self, batch: &Batch<T>, now: Duration) {
        self.leave(batch);
        self.resume(&batch.topic, now);
    }

    fn leave(&mut self, batch: &Batch<T>) {
        self.count = self.count.saturating_sub(batch.len());
        self.bytes = self.bytes.saturating_sub(batch.bytes);
    }

    /// The network did not take the batch now. It is tried again; or it was tried for long enough:
    /// then it is given back with everything of its topic that waits behind it, in order, since
    /// nothing may overtake it.
    pub fn refused(&mut self, mut batch: Batch<T>, now: Duration) -> Vec<Batch<T>> {
        let until = *batch.until.get_or_insert(now.saturating_add(GIVE_UP));
        let topic = batch.topic.clone();
        if let Some(lane) = self.lanes.get_mut(&topic)
            && now < until
        {
            lane.out = false;
            let wait = batch.retry;
            batch.retry = wait.saturating_mul(2).min(LONGEST_RETRY);
            lane.refused = Some(batch);
            self.index(&topic, now.saturating_add(wait).min(until));
            return Vec::new();
        }
        self.unindex(&topic);
        let mut gone = vec![batch];
        if let Some(mut lane) = self.lanes.remove(&topic) {
            while let Some(next) = lane.cut(&topic, &self.rules) {
                gone.push(next);
            }
        }
        for batch in &gone {
            self.leave(batch);
        }
        gone
    }

    /// Lets go of what still waits of somebody, and says how many messages that were. What is being tried
    /// stays: some of it may have left.
    pub fn withdraw(&mut self, owner: T, now: Duration) -> usize {
        let has = |lane: &Lane<T>| lane.queue.iter().any(|one| one.owner == owner);
        let lanes = self.lanes.iter().filter(|(_, lane)| has(lane));
        let topics: Vec<Topic> = lanes.map(|(topic, _)| topic.clone()).collect();
        let mut count = 0_usize;
        for topic in topics {
            let Some(lane) = self.lanes.get_mut(&topic) else {
                continue;
            };
            let mut bytes = 0_usize;
            lane.queue.retain(|one| {
                let gone = one.owner == owner;
                if gone {
                    count = count.saturating_add(1);
                    bytes = bytes.saturating_add(one.bytes);
                }
                !gone
            });
            lane.bytes = lane.bytes.saturating_sub(bytes);
            self.bytes = self.bytes.saturating_sub(bytes);
            if !lane.out && lane.refused.is_none() {
                self.resume(&topic, now);
            }
        }
        self.count = self.count.saturating_sub(count);
        count
    }

    /// How many of messages with payloads of these sizes there is room for, from the first on; of a
    /// sealed one a little less.
    pub fn room(&self, sizes: impl Iterator<Item = usize>) -> usize {
        let (mut count, mut bytes) = (self.count, self.bytes);
        sizes
            .take_while(|size| {
                bytes = bytes.saturating_add(*size);
                let fits = count < MAX_WAITING && (bytes <= MAX_WAITING_BYTES || count == 0);
                count = count.saturating_add(1);
                fits
            })
            .count()
    }

    /// Everything that waits, in order, because it cannot leave any more.
    pub fn abandon(&mut self) -> Vec<Batch<T>> {
        let mut all = Vec::new();
        for (topic, mut lane) in std::mem::take(&mut self.lanes) {
            all.extend(lane.refused.take());
            while let Some(batch) = lane.cut(&topic, &self.rules) {
                all.push(batch);
            }
        }
        self.due.clear();
        (self.count, self.bytes) = (0, 0);
        all
    }

    /// When [`Batcher::take`] has something to give.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Messages and bytes that wait.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        (self.count, self.bytes)
    }

    fn resume(&mut self, topic: &Topic, now: Duration) {
        let Some(lane) = self.lanes.get_mut(topic) else {
            return;
        };
        lane.out = false;
        if lane.queue.is_empty() && lane.refused.is_none() {
            self.unindex(topic);
            self.lanes.remove(topic);
            return;
        }
        let due = lane.next(&self.rules, now);
        self.index(topic, due);
    }

    fn index(&mut self, topic: &Topic, due: Duration) {
        self.unindex(topic);
        if let Some(lane) = self.lanes.get_mut(topic) {
            lane.due = due;
            self.due.insert((due, topic.clone()));
        }
    }

    fn unindex(&mut self, topic: &Topic) {
        if let Some(lane) = self.lanes.get(topic) {
            self.due.remove(&(lane.due, topic.clone()));
        }
    }
}

impl<T: Copy + PartialEq> Lane<T> {
    fn is_full(&self, rules: &Rules) -> bool {
        self.queue.len() >= rules.count || self.bytes >= rules.bytes
    }

    /// When its next batch leaves.
    fn next(&self, rules: &Rules, now: Duration) -> Duration {
        match self.queue.front() {
            Some(_) if self.is_full(rules) => now,
            Some(front) => front.since.saturating_add(rules.delay),
            None => Duration::MAX,
        }
    }

    /// Cuts a batch off the front: as much as is within the rules, and at least one message.
    fn cut(&mut self, topic: &Topic, rules: &Rules) -> Option<Batch<T>> {
        self.queue.front()?;
        let mut batch = Batch {
            topic: topic.clone(),
            entries: Vec::with_capacity(self.queue.len().min(rules.count)),
            owners: Vec::new(),
            first: None,
            bytes: 0,
            until: None,
            retry: RETRY,
        };
        while let Some(next) = self.queue.front() {
            let bytes = batch.bytes.saturating_add(next.bytes);
            let fits = batch.entries.len() < rules.count && bytes <= rules.bytes;
            if !fits && !batch.entries.is_empty() {
                break;
            }
            let Some(Waiting {
                entry,
                owner,
                bytes,
                ..
            }) = self.queue.pop_front()
            else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(bytes);
            batch.bytes = batch.bytes.saturating_add(bytes);
            batch.entries.push(entry);
            match batch.owners.last_mut() {
                Some((last, count)) if *last == owner => *count += 1,
                _ => batch.owners.push((owner, 1)),
            }
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests;
