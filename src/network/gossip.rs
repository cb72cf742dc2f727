//! Gossip as this node runs it: signed, strict, explicitly validated, bounded.
//!
//! Messages are named by author, topic and content, so the same envelope sent twice is one
//! message, and nobody can hide another's message by sending its content first. The content is the
//! envelope without its trace contexts: what is said, when and as the how manyeth, not how its
//! author came to say it. Sequences alone make two envelopes of an author differ.

use libp2p::{
    gossipsub::{
        self, ConfigBuilder, IdentTopic, IdentityTransform, MaxCountSubscriptionFilter,
        MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds, PublishError,
        SubscriptionError, TopicHash, TopicScoreParams, TopicSubscriptionFilter, ValidationMode,
        score_parameter_decay,
    },
    identity::Keypair,
    swarm::THandlerOutEvent,
};
use sha2::{Digest, Sha256};
use std::{
    hash::{Hash as _, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use thiserror::Error;

use super::{
    attribution::{Admits, Attributed, Attribution, Load},
    envelope::{self, Envelope},
};
use crate::{
    config::GossipConfig,
    types::{Origin, PeerId, Topic, TrustScore},
};

/// The gossip behaviour.
pub type Gossip = gossipsub::Behaviour<IdentityTransform, Filter>;
type Filter = MaxCountSubscriptionFilter<Permitted>;

/// What gossipsub puts around an envelope: author, sequence number, topic, signature (about 300
/// bytes), and the frame around those. Gossipsub checks only the envelope's length when
/// publishing, and loses what then turns out too long without a word; hence the wide margin.
const HEADROOM: usize = 2 * 1024;
/// Topics one neighbour may listen to, and name in one request.
const TOPICS_PER_NEIGHBOUR: usize = 128;
/// Time in which a neighbour's invalid messages are forgotten.
const FORGET_INVALID: Duration = Duration::from_secs(600);
/// What one invalid message costs, squared by their number: after 3 a neighbour hears no gossip
/// (-10), after 7 nothing is sent to it (-50), after 9 it is not listened to (-80).
const INVALID_WEIGHT: f64 = -1.0;
/// Score at which gossipsub no longer listens to a neighbour; see [`PeerScoreThresholds`].
const GRAYLIST: f64 = -80.0;
/// Part of the score that a reputation next to a ban takes away.
const NEAR_BAN: f64 = GRAYLIST / 8.0;

/// How long a message waits for a neighbour that does not take it, and is then lost and counted:
/// longer than a batch is tried again, so that nothing that was acknowledged is lost before.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(5);
/// The same for what others said: it is late then, and its author's other neighbours have it.
const FORWARD_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of batches that may wait for one neighbour, each of which has a copy of its own: what a
/// thirtieth of the neighbours may hold back within `limits.memory` as shipped.
const QUEUED_BYTES: usize = 64 << 20;
/// Frames that may wait however long they are: of control, and some messages.
const SHORTEST_QUEUE: usize = 16;
/// Messages and offers in one frame of a neighbour; more are dropped by gossipsub unseen. Honest
/// ones send one message a frame, and offer what a second brought.
const MAX_IN_FRAME: usize = 5_000;
/// Offers of one neighbour that are looked at between two heartbeats: an honest one makes one for
/// each topic both listen to that this node's mesh lacks, and beyond this nothing is asked for.
const OFFERS_PER_HEARTBEAT: usize = 10;
/// How often one message is sent to a neighbour that asks for it: it may have been lost once.
const RETRANSMISSIONS: u32 = 3;
/// A neighbour that grafts again so soon after it was pruned pays for it twice.
const GRAFT_FLOOD: Duration = Duration::from_secs(10);
/// A message from this size on is worth telling the mesh that no further copy is wanted.
const NO_COPIES_FROM: usize = 4 * 1024;
/// Message ids in one offer or request. Gossipsub does not split what is longer than its receiver
/// takes, which closes the stream for it: with 34 bytes each these are within upstream's 16 KiB.
const MAX_IDS_SENT: usize = 400;
/// Longest text of one control message that is taken: others offer up to 5,000 ids at once.
const MAX_CONTROL: usize = 256 * 1024;
/// Broken promises and unwanted grafts that cost nothing yet: a neighbour that stalls or whose line
/// is slow breaks some, and each id of a request is one.
const HONEST_LAPSES: f64 = 6.0;
/// How far below neutral a reputation may be before gossip minds: gossipsub shuts anybody with a
/// score below zero out of its meshes, and one mistake must not do that for days.
const TOLERATED: f64 = 0.1;

/// Why a message was not handed to the network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishRefusal {
    /// The payload is larger than allowed.
    #[error("the payload has {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Bytes of the payload.
        size: usize,
        /// Most bytes of a payload.
        limit: usize,
    },
    /// No neighbour listens to the topic: nobody would have heard it.
    #[error("no neighbour listens to this topic")]
    NoListeners,
    /// The queue of every neighbour that listens is full: try again later.
    #[error("the neighbours' queues are full; try again")]
    Backpressure,
    /// The very same envelope was published before.
    #[error("this message was published before")]
    Duplicate,
    /// It could not be signed or framed.
    #[error("not published: {0}")]
    Failed(String),
}

/// Which peers may listen to which topics.
pub trait Listeners: Send + Sync + 'static {
    /// Whether `peer` may listen to `topic`. Runs inside the Swarm for each subscription, before
    /// gossipsub sends the peer anything: it must answer from views, and deny what it does not
    /// know. A peer that loses the right later has to be disconnected.
    fn may_listen(&self, peer: &PeerId, topic: &Topic) -> bool;
}

/// The peer whose input the gossip behaviour handles right now; gossipsub does not tell its
/// filter whose subscription it is. Set by [`Asking`], on the thread that polls the Swarm.
type Current = Arc<Mutex<Option<PeerId>>>;

/// Subscriptions to well-formed topics, by peers that may listen to them.
pub struct Permitted {
    current: Current,
    listeners: Arc<dyn Listeners>,
}

impl TopicSubscriptionFilter for Permitted {
    fn can_subscribe(&mut self, topic: &TopicHash) -> bool {
        let current = *self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match (Topic::try_new(topic.as_str()), current) {
            (Err(_), _) => false,
            (Ok(topic), Some(peer)) => self.listeners.may_listen(&peer, &topic),
            // Outside a peer's input it is this node that subscribes.
            (Ok(_), None) => true,
        }
    }
}

/// Tells the filter whose input is handled, beside the node's own attribution.
struct Asking {
    current: Current,
    node: Arc<dyn Attribution>,
}

impl Asking {
    fn set(&self, peer: Option<PeerId>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = peer;
    }
}

impl Attribution for Asking {
    fn begin(&self, peer: PeerId) {
        self.set(Some(peer));
        self.node.begin(peer);
    }

    fn end(&self) {
        self.node.end();
        self.set(None);
    }

    fn invalid_messages(&self, neighbour: PeerId, count: usize) {
        self.node.invalid_messages(neighbour, count);
    }

    fn admits(&self, neighbour: PeerId, load: &Load) -> Admits {
        self.node.admits(neighbour, load)
    }

    fn task_panicked(&self, origin: Origin, detail: &str) {
        self.node.task_panicked(origin, detail);
    }
}

/// A gossip behaviour that signs with `key`, carries payloads of up to `max_payload` bytes, and
/// sends messages only to those whom `listeners` allows.
pub(super) fn behaviour(
    key: Keypair,
    config: &GossipConfig,
    max_payload: usize,
    listeners: Arc<dyn Listeners>,
    attribution: Arc<dyn Attribution>,
) -> Result<Attributed<Gossip>, String> {
    let current = Current::default();
    let permitted = Permitted {
        current: current.clone(),
        listeners,
    };
    let gossip = gossipsub(key, config, max_payload, permitted)?;
    let asking = Asking {
        current,
        node: attribution,
    };
    Ok(Attributed::counting(gossip, Arc::new(asking), load, strip))
}

/// What gossipsub's connections report. Its name is private there, its variants are not.
type FromConnection = THandlerOutEvent<Gossip>;

/// Gossipsub checks signatures on the connection and drops what fails without telling anybody
/// but its own score; here it is seen on the way. So is what the neighbour has to pay for: messages
/// of every topic, those this node does not listen to and those it has already included.
fn load(event: &FromConnection) -> Load {
    match event {
        FromConnection::Message {
            rpc,
            invalid_messages,
        } => {
            let invalid = invalid_messages.iter().map(|(message, _)| message);
            // Its fields are private there, but not how they are hashed.
            let mut control_bytes = Counter(0);
            rpc.control_msgs.hash(&mut control_bytes);
            Load {
                invalid: invalid_messages.len(),
                messages: rpc.messages.len(),
                bytes: rpc.messages.iter().chain(invalid).map(bytes).sum(),
                control: rpc.control_msgs.len(),
                control_bytes: control_bytes.0,
            }
        }
        _ => Load::default(),
    }
}

/// Takes the messages out of what a connection reports.
fn strip(event: &mut FromConnection) {
    if let FromConnection::Message {
        rpc,
        invalid_messages,
    } = event
    {
        rpc.messages.clear();
        invalid_messages.clear();
    }
}

/// What a message has that may be long.
fn bytes(message: &gossipsub::RawMessage) -> usize {
    let length = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
    let parts = [
        message.data.len(),
        message.topic.as_str().len(),
        length(&message.signature),
        length(&message.key),
    ];
    parts.iter().sum()
}

/// Counts what is hashed.
struct Counter(usize);

impl Hasher for Counter {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = self.0.saturating_add(bytes.len());
    }

    fn finish(&self) -> u64 {
        u64::try_from(self.0).unwrap_or(u64::MAX)
    }
}

fn gossipsub(
    key: Keypair,
    config: &GossipConfig,
    max_payload: usize,
    filter: Permitted,
) -> Result<Gossip, String> {
    let wire_limit = max_payload
        .saturating_add(envelope::OVERHEAD)
        .saturating_add(HEADROOM)
        // It holds for offers, too, which are no shorter where messages are small.
        .max(MAX_CONTROL);
    let gossip = ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .heartbeat_interval(config.heartbeat.0)
        .heartbeat_initial_delay(config.heartbeat.0)
        .duplicate_cache_time(config.duplicate_cache.0)
        .history_length(config.history_length)
        // Advertised for at most as long as it is kept.
        .history_gossip(config.history_length.min(3))
        .connection_handler_queue_len(queue(config))
        .publish_queue_duration(PUBLISH_PATIENCE)
        .forward_queue_duration(FORWARD_PATIENCE)
        .max_publish_messages(MAX_IN_FRAME)
        .max_control_messages_sent(MAX_IDS_SENT)
        .max_control_message_size(MAX_CONTROL)
        .max_ihave_messages_heartbeat(OFFERS_PER_HEARTBEAT)
        .gossip_retransimission(RETRANSMISSIONS)
        .graft_flood_threshold(GRAFT_FLOOD)
        .idontwant_message_size_threshold(NO_COPIES_FROM)
        .max_transmit_size(wire_limit)
        .message_id_fn(message_id)
        .build()
        .map_err(|error| error.to_string())?;
    let filter = Filter {
        filter,
        max_subscribed_topics: TOPICS_PER_NEIGHBOUR,
        max_subscriptions_per_request: TOPICS_PER_NEIGHBOUR,
    };
    let authenticity = MessageAuthenticity::Signed(key);
    let mut gossip = Gossip::new_with_subscription_filter(authenticity, gossip, filter)
        .map_err(str::to_owned)?;
    gossip.with_peer_score(scores(), thresholds())?;
    Ok(gossip)
}

/// Frames that may wait for one neighbour: as many as configured, within [`QUEUED_BYTES`] when each
/// of them is a full batch.
fn queue(config: &GossipConfig) -> usize {
    let fit = QUEUED_BYTES / config.batch_size.as_usize().max(1);
    config.neighbour_queue.min(fit.max(SHORTEST_QUEUE))
}

/// Only misbehaviour counts. Sharing an address is none (one machine may run a whole test
/// network), nor is being slow, which is met with back-pressure instead.
fn scores() -> PeerScoreParams {
    PeerScoreParams {
        ip_colocation_factor_weight: 0.0,
        slow_peer_weight: 0.0,
        // The application's own score is reputation's, on a scale of its own.
        app_specific_weight: 1.0,
        // Broken promises and grafts that were not wanted: squared beyond the threshold,
        // a fifth of them left after each second.
        behaviour_penalty_weight: -10.0,
        behaviour_penalty_threshold: HONEST_LAPSES,
        behaviour_penalty_decay: 0.2,
        ..PeerScoreParams::default()
    }
}

fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: GRAYLIST / 8.0,
        publish_threshold: GRAYLIST * 5.0 / 8.0,
        graylist_threshold: GRAYLIST,
        ..PeerScoreThresholds::default()
    }
}

/// Tells gossip what a connected neighbour's reputation is. A neutral one or a better one counts
/// nothing: no good name pays for invalid messages. Nor does one a little below. From there the
/// score falls evenly, to where the neighbour gets no gossip any more when it is about to be banned:
/// not to where nobody listens to it, or what it does next would be seen by nobody and the ban never
/// come.
pub fn stands(
    gossip: &mut Gossip,
    peer: &libp2p::PeerId,
    score: TrustScore,
    (neutral, ban_below): (TrustScore, TrustScore),
) {
    // `false`: it is not connected any more.
    let _ = gossip.set_application_score(peer, application_score(score, (neutral, ban_below)));
}

fn application_score(score: TrustScore, (neutral, ban_below): (TrustScore, TrustScore)) -> f64 {
    let depth = (neutral.get() - ban_below.get()).max(f64::EPSILON);
    // Where the two lie so close that no room is left, half of it is.
    let tolerated = TOLERATED.min(depth / 2.0);
    let fallen = neutral.get() - score.get() - tolerated;
    if fallen <= 0.0 {
        return 0.0;
    }
    NEAR_BAN * (fallen / (depth - tolerated)).min(1.0)
}

/// Without these a rejected message would cost its forwarder nothing, and with gossipsub's
/// defaults it would drown in the bonus for being in the mesh.
fn topic_scores() -> TopicScoreParams {
    TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: INVALID_WEIGHT,
        invalid_message_deliveries_decay: score_parameter_decay(FORGET_INVALID),
        ..TopicScoreParams::default()
    }
}

/// SHA-256 over author, topic and content, each preceded by its length. Bytes that are no envelope
/// are content as a whole.
fn message_id(message: &gossipsub::Message) -> MessageId {
    let author = message.source.map(libp2p::PeerId::to_bytes);
    let mut hash = Sha256::new();
    for part in [
        author.as_deref().unwrap_or_default(),
        message.topic.as_str().as_bytes(),
    ] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    let named = hash.clone();
    hash.update([1]);
    if !envelope::content(&message.data, |part| hash.update(part)) {
        hash = named;
        hash.update([0]);
        hash.update(&message.data);
    }
    MessageId::new(&hash.finalize())
}

/// Joins a topic, with scores that make invalid messages cost. `false`: it was joined already.
///
/// # Errors
/// What gossipsub says; a well-formed topic is not refused.
pub fn subscribe(gossip: &mut Gossip, topic: &Topic) -> Result<bool, SubscriptionError> {
    let topic = IdentTopic::new(topic.as_str());
    // Fails only without peer scores, which every gossip behaviour of this room has.
    let _ = gossip.set_topic_params(topic.clone(), topic_scores());
    gossip.subscribe(&topic)
}

/// Signs and publishes an envelope.
///
/// # Errors
/// As [`PublishRefusal`] says; one with a payload larger than `max_payload`, or longer than one with
/// such a payload may be, is refused up front, because gossipsub would lose it silently.
pub fn publish(
    gossip: &mut Gossip,
    topic: &Topic,
    envelope: &Envelope,
    max_payload: usize,
) -> Result<MessageId, PublishRefusal> {
    let too_large = |size| PublishRefusal::TooLarge {
        size,
        limit: max_payload,
    };
    let sizes = envelope.entries.iter().map(|entry| entry.payload.len());
    if let Some(size) = sizes.max().filter(|size| *size > max_payload) {
        return Err(too_large(size));
    }
    let bytes = envelope.encode();
    if bytes.len() > max_payload.saturating_add(envelope::OVERHEAD) {
        return Err(too_large(envelope.payload_bytes()));
    }
    let topic = IdentTopic::new(topic.as_str());
    gossip.publish(topic, bytes).map_err(|error| match error {
        PublishError::Duplicate => PublishRefusal::Duplicate,
        PublishError::NoPeersSubscribedToTopic => PublishRefusal::NoListeners,
        PublishError::AllQueuesFull(_) => PublishRefusal::Backpressure,
        other => PublishRefusal::Failed(other.to_string()),
    })
}

#[cfg(test)]
mod tests;
