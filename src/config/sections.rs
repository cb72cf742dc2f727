//! The sections of `node.toml` and their defaults. `config/node.toml` says the same in prose.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use super::{
    DiscoveryConfig, IdentityConfig, IssuerConfig, JobsConfig, OutwardConfig, RelayConfig,
    SandboxConfig, SupervisionConfig, off_or,
};
use crate::types::{ByteSize, PeerId, SecurityLevel, Span, Topic, TrustScore};

pub(super) const fn secs(n: u64) -> Span {
    Span(Duration::from_secs(n))
}

pub(super) const fn millis(n: u64) -> Span {
    Span(Duration::from_millis(n))
}

/// The whole configuration of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Version of this file's schema; 1.
    pub version: u32,
    /// The node itself.
    pub node: NodeConfig,
    /// Where to listen and whom to dial.
    pub network: NetworkConfig,
    /// How connections are encrypted.
    pub transport: TransportConfig,
    /// Calls to others.
    pub outward: OutwardConfig,
    /// Finding others.
    pub discovery: DiscoveryConfig,
    /// Reaching others through third ones.
    pub relay: RelayConfig,
    /// Gossip.
    pub gossip: GossipConfig,
    /// Budgets and bounds.
    pub limits: LimitsConfig,
    /// Scores and bans.
    pub reputation: ReputationConfig,
    /// Who may do what.
    pub policy: PolicyConfig,
    /// Whom to believe, besides the trust entries.
    pub identity: IdentityConfig,
    /// Issuing credentials.
    pub issuer: IssuerConfig,
    /// The audit log.
    pub audit: AuditConfig,
    /// Jobs of others.
    pub sandbox: SandboxConfig,
    /// Jobs given to others.
    pub jobs: JobsConfig,
    /// Administration.
    pub admin: AdminConfig,
    /// Logging.
    pub log: LogConfig,
    /// Restart policies.
    pub supervision: SupervisionConfig,
    /// Switches for tests only.
    pub testing: TestingConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: 1,
            node: NodeConfig::default(),
            network: NetworkConfig::default(),
            transport: TransportConfig::default(),
            outward: OutwardConfig::default(),
            discovery: DiscoveryConfig::default(),
            relay: RelayConfig::default(),
            gossip: GossipConfig::default(),
            limits: LimitsConfig::default(),
            reputation: ReputationConfig::default(),
            policy: PolicyConfig::default(),
            identity: IdentityConfig::default(),
            issuer: IssuerConfig::default(),
            audit: AuditConfig::default(),
            sandbox: SandboxConfig::default(),
            jobs: JobsConfig::default(),
            admin: AdminConfig::default(),
            log: LogConfig::default(),
            supervision: SupervisionConfig::default(),
            testing: TestingConfig::default(),
        }
    }
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Key, credential, trust anchors, state and log; relative to the configuration file.
    pub data_dir: PathBuf,
    /// How long an orderly stop may take before the process ends with the stuck part named.
    pub shutdown_deadline: Span,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            data_dir: "data".into(),
            shutdown_deadline: secs(15),
        }
    }
}

/// `[network]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Addresses to listen on; every peer must prove its identity there.
    pub listen: Vec<Multiaddr>,
    /// Addresses for plain libp2p clients, who need no credential and get the lowest tier.
    pub open_listen: Vec<Multiaddr>,
    /// Peers to dial and to keep connected, as `/ip4/…/tcp/…/p2p/PEER` (or `/dns4/…`, or
    /// `/ip4/…/udp/…/quic-v1/p2p/PEER`).
    pub bootstrap: Vec<Multiaddr>,
    /// Deadline of the transport handshake.
    pub handshake_timeout: Span,
    /// Deadline of the credential exchange.
    pub identity_timeout: Span,
    /// How long a request of a peer may take to arrive.
    pub request_timeout: Span,
    /// A connection without any stream is closed after this long.
    pub idle_timeout: Span,
    /// Time between pings.
    pub ping_interval: Span,
    /// Deadline of a ping.
    pub ping_timeout: Span,
    /// First wait before a peer is dialled again.
    pub dial_backoff_initial: Span,
    /// Longest wait before a peer is dialled again.
    pub dial_backoff_max: Span,
    /// Threads for the connections' cryptography; zero: they share the network's own.
    pub connection_threads: usize,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        let tcp = Multiaddr::empty()
            .with(multiaddr::Protocol::Ip4(Ipv4Addr::UNSPECIFIED))
            .with(multiaddr::Protocol::Tcp(4001));
        Self {
            listen: vec![tcp],
            open_listen: Vec::new(),
            bootstrap: Vec::new(),
            handshake_timeout: secs(30),
            identity_timeout: secs(30),
            request_timeout: secs(10),
            idle_timeout: secs(60),
            ping_interval: secs(15),
            ping_timeout: secs(20),
            dial_backoff_initial: millis(500),
            dial_backoff_max: secs(60),
            connection_threads: 1,
        }
    }
}

/// `[transport]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransportConfig {
    /// Which secure channels are offered and accepted.
    pub security: SecurityLevel,
    /// What holds for single peers instead, by peer id (`[transport.peers]`).
    pub peers: BTreeMap<PeerId, SecurityLevel>,
}

/// `[gossip]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GossipConfig {
    /// Time between gossipsub heartbeats; also bounds how long a message may be judged.
    pub heartbeat: Span,
    /// How long a message id is remembered as seen.
    pub duplicate_cache: Span,
    /// Heartbeats a message stays available to neighbours that missed it.
    pub history_length: usize,
    /// How long a published message may wait for others to travel with; zero: not at all.
    pub batch_delay: Span,
    /// A batch this long leaves at once; a longer message travels alone.
    pub batch_size: ByteSize,
    /// So does a batch of so many messages, at most `limits.message_burst`. One: each message travels
    /// alone.
    pub batch_count: usize,
    /// Most batches waiting for one neighbour.
    pub neighbour_queue: usize,
    /// Most messages waiting for one local subscriber.
    pub subscriber_queue: usize,
}

impl Default for GossipConfig {
    fn default() -> Self {
        Self {
            heartbeat: millis(200),
            duplicate_cache: secs(10),
            history_length: 5,
            batch_delay: millis(2),
            batch_size: ByteSize(32_768),
            // As many as the default `limits.message_burst`.
            batch_count: 20,
            neighbour_queue: 5_000,
            subscriber_queue: 1_024,
        }
    }
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// New inbound connections a minute from one address.
    pub connections_per_minute_per_address: u32,
    /// New inbound connections a minute from one subnet (IPv4 /24, IPv6 /64).
    pub connections_per_minute_per_subnet: u32,
    /// New inbound connections a minute over one relay: they have no address of their own.
    pub connections_per_minute_per_relay: u32,
    /// New inbound connections a minute in total.
    pub connections_per_minute: u32,
    /// Established connections in total.
    pub connections: u32,
    /// Those that others dialled; what is left of `connections` is for this node's own dials.
    pub inbound_connections: u32,
    /// Those that this node dialled.
    pub outbound_connections: u32,
    /// Established connections of one peer.
    pub connections_per_peer: u32,
    /// Established connections that one address (IPv6: one /64) dialled, or that came over one
    /// relay.
    pub connections_per_address: u32,
    /// The same of one subnet (IPv4 /24, IPv6 /48).
    pub connections_per_subnet: u32,
    /// Handshakes under way in total.
    pub pending_connections: u32,
    /// Handshakes under way from one address.
    pub pending_per_address: u32,
    /// Handshakes under way from one subnet (IPv4 /24, IPv6 /48).
    pub pending_per_subnet: u32,
    /// Memory of this process beyond which no new connection is made or let in, and some that stand
    /// are closed.
    pub memory: ByteSize,
    /// Streams a peer may have open at once on one connection.
    pub streams_per_connection: u32,
    /// Streams a peer may open a second on one connection; a job request takes one, so at least
    /// `job_requests_per_second` whatever stands here.
    pub streams_per_second: u32,
    /// Streams a peer may open at once after a pause; at least `job_request_burst`.
    pub stream_burst: u32,
    /// Messages a second from one author.
    pub messages_per_second: u32,
    /// Messages one author may send at once after a pause.
    pub message_burst: u32,
    /// Requests of the job protocol a second from one peer.
    pub job_requests_per_second: u32,
    /// Requests of the job protocol one peer may send at once after a pause.
    pub job_request_burst: u32,
    /// Frames a second from one neighbour: batches it sends or forwards, also those that are known
    /// or of topics nobody here listens to, and what it says about them.
    pub frames_per_second: u32,
    /// Frames one neighbour may send at once after a pause.
    pub frame_burst: u32,
    /// Bytes a second from one neighbour, forwarded messages included.
    pub bytes_per_second: ByteSize,
    /// Largest payload of a message.
    pub max_message_size: ByteSize,
    /// Keys a table of budgets may hold before new ones share their subnet's or the global one.
    pub tracked_keys: usize,
    /// Networks in CIDR form that pay no connection budget (never exempt from bans).
    pub exempt_networks: Vec<String>,
    /// Asks of Swarm and gate that may wait for other actors at once; beyond it sockets wait.
    pub pending_decisions: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections_per_minute_per_address: 100,
            connections_per_minute_per_subnet: 400,
            connections_per_minute_per_relay: 200,
            connections_per_minute: 6_000,
            connections: 1_000,
            inbound_connections: 900,
            outbound_connections: 400,
            connections_per_peer: 4,
            connections_per_address: 100,
            connections_per_subnet: 300,
            pending_connections: 256,
            pending_per_address: 32,
            pending_per_subnet: 64,
            memory: ByteSize(4_000_000_000),
            streams_per_connection: 128,
            streams_per_second: 200,
            stream_burst: 800,
            messages_per_second: 10,
            message_burst: 20,
            job_requests_per_second: 100,
            job_request_burst: 400,
            frames_per_second: 5_000,
            frame_burst: 10_000,
            bytes_per_second: ByteSize(50_000_000),
            max_message_size: ByteSize(10_000_000),
            tracked_keys: 65_536,
            exempt_networks: Vec::new(),
            pending_decisions: 256,
        }
    }
}

/// `[reputation]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReputationConfig {
    /// Score of a peer nothing is known of; scores decay toward it.
    pub neutral: TrustScore,
    /// Time in which a score's distance from neutral halves.
    pub half_life: Span,
    /// Gain of a good connection.
    pub good_connection: TrustScore,
    /// A peer gains by connections at most once in this time.
    pub good_connection_interval: Span,
    /// Loss for a bad credential.
    pub bad_credential: TrustScore,
    /// Loss for abuse of the handshake.
    pub handshake_abuse: TrustScore,
    /// Loss for an invalid message.
    pub invalid_message: TrustScore,
    /// Below this score a party is banned.
    pub ban_below: TrustScore,
    /// How long a ban lasts.
    pub ban: Span,
    /// Score with which probation begins when a ban ends; above `ban_below`.
    pub probation_score: TrustScore,
    /// How long probation lasts.
    pub probation: Span,
    /// So many peers banned behind one address ban the address.
    pub banned_peers_per_address: u32,
    /// Parties remembered: so many keys and addresses, and so many subjects. The one nearest neutral
    /// is forgotten first, a banned one never.
    pub tracked_parties: usize,
}

impl Default for ReputationConfig {
    fn default() -> Self {
        Self {
            neutral: TrustScore::NEUTRAL,
            half_life: secs(24 * 3600),
            good_connection: TrustScore::saturating(0.01),
            good_connection_interval: secs(3600),
            bad_credential: TrustScore::saturating(0.1),
            handshake_abuse: TrustScore::saturating(0.1),
            invalid_message: TrustScore::saturating(0.05),
            ban_below: TrustScore::saturating(0.1),
            ban: secs(3600),
            probation_score: TrustScore::saturating(0.3),
            probation: secs(24 * 3600),
            banned_peers_per_address: 5,
            tracked_parties: 100_000,
        }
    }
}

/// `[policy]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// Topics members may publish and subscribe to; `"*"` allows any, `"acme/*"` a prefix.
    pub member_topics: Vec<String>,
    /// Topics unverified peers of an open listener may publish and subscribe to.
    pub unverified_topics: Vec<Topic>,
    /// Whether members may run jobs here, within the quotas of `[sandbox]`.
    pub members_run_jobs: bool,
    /// Least score a peer needs to connect.
    pub connect_min_score: TrustScore,
    /// Least score to publish, subscribe or run jobs; between this and the former a peer is quarantined.
    pub messages_min_score: TrustScore,
    /// Topics on which a peer in quarantine may still publish and subscribe; patterns as above.
    pub restricted_topics: Vec<String>,
    /// How long a quarantine lasts, unless an operator ends it.
    pub quarantine: Span,
    /// Folder of the policies (`*.cedar`), relative to the configuration file; empty: those that
    /// come with the program.
    pub dir: PathBuf,
    /// Folder of policies that are evaluated beside and decide nothing; empty: none.
    pub shadow_dir: PathBuf,
    /// What holds for single topics (`[[policy.topics]]`, or a list of tables); the first that matches counts.
    pub topics: Vec<TopicRule>,
}

/// One of `[[policy.topics]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicRule {
    /// Which topics: `"acme/*"` a prefix, anything else itself.
    pub pattern: String,
    /// Least score to use them.
    #[serde(default = "no_trust")]
    pub min_trust: TrustScore,
    /// Whether they are for the post-quantum channel alone.
    #[serde(default)]
    pub sensitive: bool,
}

fn no_trust() -> TrustScore {
    TrustScore::ZERO
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            member_topics: vec!["*".to_owned()],
            unverified_topics: Vec::new(),
            members_run_jobs: true,
            connect_min_score: TrustScore::saturating(0.1),
            messages_min_score: TrustScore::saturating(0.2),
            restricted_topics: Vec::new(),
            quarantine: secs(3600),
            dir: PathBuf::new(),
            shadow_dir: PathBuf::new(),
            topics: Vec::new(),
        }
    }
}

/// `[audit]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Size at which a segment is closed and the next begun.
    pub segment_size: ByteSize,
    /// Records waiting for the writer; more are refused.
    pub queue: usize,
    /// Most records in one write and sync.
    pub batch: usize,
    /// How long a caller waits for its record to be durable.
    pub timeout: Span,
    /// How long refusals are collected before they are written as one record.
    pub aggregate: Span,
    /// Event ids remembered to recognise repeats.
    pub remembered_ids: usize,
    /// Records after which a checkpoint is signed.
    pub checkpoint_records: u64,
    /// How long a record stands without a signed checkpoint over it at most.
    pub checkpoint_interval: Span,
    /// A disk that hangs this long ends the node with exit code 74.
    pub stall_exit: Span,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            segment_size: ByteSize(100_000_000),
            queue: 4_096,
            batch: 1_024,
            timeout: secs(5),
            aggregate: secs(5),
            remembered_ids: 16_384,
            checkpoint_records: 50_000,
            checkpoint_interval: secs(60),
            stall_exit: secs(60),
        }
    }
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Address of `/live`, `/ready` and `/metrics`; loopback only. `"off"`: no HTTP.
    #[serde(with = "off_or")]
    pub http: Option<SocketAddr>,
    /// Commands served at once over the Unix socket.
    pub connections: usize,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            http: Some(SocketAddr::from(([127, 0, 0, 1], 9464))),
            connections: 32,
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A level, or a filter as tracing-subscriber's `EnvFilter` reads it.
    pub level: String,
    /// `auto` (pretty on a terminal, JSON otherwise), `pretty` or `json`.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Auto,
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

/// `[testing]`: never in production; the node says aloud when it is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TestingConfig {
    /// Allows `actors inject NAME panic|error|hang|block`.
    pub fault_injection: bool,
    /// Bytes that make Swarm panic while it handles a gossip message that holds them; empty: none.
    /// Stands for a fault in a parser that a peer has found.
    pub panic_on: String,
}
