//! What the log records: one variant per thing that happened, with its evidence.

use std::{net::IpAddr, time::Duration};

use crate::types::{Party, PeerId, SecurityInfo, Timestamp, Topic};

/// Which end opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The other end dialled.
    Inbound,
    /// This node dialled.
    Outbound,
}

impl Direction {
    /// A stable, bounded name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// Something that happened and must be remembered. Texts are bounded by the record, not here.
#[derive(Debug, Clone, PartialEq)]
pub enum AuditEvent {
    /// The node started. Sent by the node.
    NodeStarted {
        /// Version of the program.
        version: String,
        /// The node's peer id.
        peer: PeerId,
        /// SHA-256 of the effective configuration, hex.
        config_hash: String,
    },
    /// The node stops in order. Sent by the node.
    NodeStopping {
        /// Why: a signal, a command, an escalation.
        reason: String,
    },
    /// A connection was let in. Durable *before* it takes effect. Sent by the gate.
    ConnectionAccepted {
        /// The proved peer.
        peer: PeerId,
        /// Its address, when it has one.
        address: Option<IpAddr>,
        /// Who opened it.
        direction: Direction,
        /// What its identity is worth: the tier's name.
        tier: String,
        /// The rule that allowed it.
        rule: String,
        /// Issuer and subject (`acme/node-1`), when a credential was shown.
        identity: Option<String>,
        /// SHA-256 of the credential, when one was shown.
        credential_hash: Option<[u8; 32]>,
        /// How the connection is encrypted, as the transport proved it.
        security: SecurityInfo,
        /// Whether the peer proved its post-quantum key over a channel that could not be relayed.
        pq_auth: bool,
    },
    /// A connection ended. Sent by Swarm.
    ConnectionClosed {
        /// The peer.
        peer: PeerId,
        /// How long it stood.
        lasted: Duration,
        /// Why it ended.
        cause: String,
    },
    /// Connections refused before any proof, aggregated. Sent by Swarm.
    ConnectionsRefused {
        /// The reason's stable name.
        reason: String,
        /// The address, when all were of one.
        address: Option<IpAddr>,
        /// How many.
        count: u64,
        /// When the first was refused.
        first: Timestamp,
        /// When the last was refused.
        last: Timestamp,
    },
    /// This node began to call peers again that did not answer, or ceased to, aggregated. Sent by
    /// Swarm.
    CallsChanged {
        /// The peer; none: of several.
        peer: Option<PeerId>,
        /// `open`: it is not called; `closed`: it is again.
        state: String,
        /// How often.
        count: u64,
        /// When first.
        first: Timestamp,
        /// When last.
        last: Timestamp,
    },
    /// A proved peer failed the identity gate. Sent by the gate.
    AuthenticationFailed {
        /// The peer as the connection proved it (never what a document claims).
        peer: PeerId,
        /// Its address.
        address: Option<IpAddr>,
        /// The refusal's code.
        code: String,
        /// The refusal in words.
        detail: String,
    },
    /// An access decision other than an allowed message. Sent by whoever enforces it.
    Decided {
        /// `connect`, `publish`, `subscribe` or `run_job`.
        action: String,
        /// The peer it is about.
        peer: PeerId,
        /// The topic, for publish and subscribe.
        topic: Option<Topic>,
        /// `allow`, `deny` or `quarantine`.
        verdict: String,
        /// The rule that decided.
        rule: String,
    },
    /// Messages refused, aggregated. Sent by Swarm.
    MessagesRefused {
        /// The author whose signature the messages bear, when they bear one.
        author: Option<PeerId>,
        /// The reason's stable name.
        reason: String,
        /// How many.
        count: u64,
        /// When the first was refused.
        first: Timestamp,
        /// When the last was refused.
        last: Timestamp,
    },
    /// A party was charged. Sent by Reputation.
    Charged {
        /// Who.
        party: Party,
        /// The severity's name.
        severity: String,
        /// What it did, in words.
        evidence: String,
        /// Score before, 0 to 1.
        before: f64,
        /// Score after, 0 to 1.
        after: f64,
    },
    /// A ban began. Sent by Reputation.
    BanStarted {
        /// Who.
        party: Party,
        /// When it ends.
        until: Timestamp,
        /// The rule or the operator's reason.
        reason: String,
    },
    /// A ban ended. Sent by Reputation.
    BanEnded {
        /// Who.
        party: Party,
        /// `expired` or `lifted`.
        cause: String,
    },
    /// An actor was restarted. Sent by supervision's root, through the node.
    ActorRestarted {
        /// The actor's name.
        actor: String,
        /// The cause's name: `panic`, `error`, `exit`, `stall`, `admin`, `build`.
        cause: String,
        /// The panic's or error's text.
        detail: String,
        /// Whose input was being handled.
        blamed: Option<Party>,
    },
    /// An actor spent its restart budget. Sent by supervision's root, through the node.
    ActorEscalated {
        /// The actor's name.
        actor: String,
        /// The last fault's text.
        detail: String,
    },
    /// A command that changes something. Sent by Admin.
    Administration {
        /// The command's name.
        command: String,
        /// Its argument in words.
        detail: String,
        /// The local user id it came from, when known.
        uid: Option<u32>,
        /// The peer that commanded it from afar.
        peer: Option<PeerId>,
        /// Whether it was carried out.
        success: bool,
    },
    /// A party is in quarantine. Sent by Policy.
    QuarantineStarted {
        /// Who.
        party: Party,
        /// When it ends, unless it is prolonged.
        until: Timestamp,
        /// The policy's id or the operator's reason.
        reason: String,
    },
    /// A quarantine ended. Sent by Policy.
    QuarantineEnded {
        /// Who.
        party: Party,
        /// `expired`, `credential`, `released` or `yielded`.
        cause: String,
    },
    /// Policies are in force. Sent by Policy.
    PolicyLoaded {
        /// Their folder; `None`: those of the program.
        dir: Option<String>,
        /// How many.
        policies: usize,
        /// SHA-256 over their text, hex.
        hash: String,
        /// The shadow set's hash.
        shadow: Option<String>,
    },
    /// Policies were not taken; the former ones stay in force. Sent by Policy.
    PolicyRefused {
        /// What is wrong with them.
        why: String,
    },
    /// Requests were denied because a policy could not be evaluated. Sent by Policy, in sums.
    PolicyErred {
        /// What was asked.
        action: String,
        /// The policy and its error.
        what: String,
        /// How often.
        count: u64,
    },
    /// The shadow set answers otherwise than the set in force. Sent by Policy, in sums.
    ShadowDiffered {
        /// What was asked.
        action: String,
        /// Verdict and rule in force.
        active: String,
        /// Verdict and rule of the shadow set.
        shadow: String,
        /// How often, at least.
        count: u64,
    },
    /// The configuration was read again. Sent by Settings.
    SettingsChanged {
        /// SHA-256 of the configuration in force, hex.
        config_hash: String,
        /// Keys that were applied.
        applied: Vec<String>,
        /// Keys that wait for the node's next start.
        waiting: Vec<String>,
    },
    /// What became of the actors that had to begin anew with a configuration in force. Sent by
    /// Settings, once all have or gave up.
    SettingsTaken {
        /// SHA-256 of the configuration in force, hex.
        config_hash: String,
        /// Actors that began anew.
        restarted: Vec<String>,
        /// Actors that did not and still run with their former settings, each with why.
        failed: Vec<String>,
    },
    /// A configuration was not taken; the former one stays in force. Sent by Settings.
    SettingsRefused {
        /// What is wrong with it.
        why: String,
    },
    /// Own credential or trust anchors were loaded anew. Sent by Identity.
    IdentityLoaded {
        /// The subject of the node's own credential (`acme/node-1`), when it has one.
        own: Option<String>,
        /// The trusted issuers.
        issuers: Vec<String>,
    },
    /// A newer status list, or the head of one, is in force. Sent by Revocation.
    StatusListAccepted {
        /// Whose.
        issuer: String,
        /// Sequence of the newest head.
        sequence: u64,
        /// Sequence of the list, when one came.
        list: Option<u64>,
        /// Entries of the list that are revoked.
        revoked: u32,
        /// SHA-256 of the list the head is about, hex.
        hash: String,
        /// The peer it came from; none: the operator.
        from: Option<PeerId>,
    },
    /// Two status lists bear one sequence; the first stays in force. Sent by Revocation.
    StatusListForked {
        /// Whose.
        issuer: String,
        /// The sequence.
        sequence: u64,
        /// SHA-256 of the list in force, hex.
        known: String,
        /// SHA-256 of the other, hex.
        other: String,
        /// The peer the other came from; none: the operator.
        from: Option<PeerId>,
    },
    /// A status list or head was refused: a peer sent what no honest one does, or the operator
    /// what cannot be taken. Sent by Revocation.
    StatusListRefused {
        /// The peer it came from; none: the operator.
        from: Option<PeerId>,
        /// The stable name of why.
        code: String,
        /// In words.
        detail: String,
    },
    /// A peer's job was accepted. Durable *before* the peer is told. Sent by Sandbox.
    JobAccepted {
        /// The job's id, hex.
        job: String,
        /// Who submitted it.
        submitter: PeerId,
        /// `issuer/subject` of its credential.
        identity: Option<String>,
        /// SHA-256 of the module.
        module: [u8; 32],
        /// The rule that allowed it.
        rule: String,
    },
    /// A peer's job was not accepted. Sent by Sandbox.
    JobRefused {
        /// Who submitted it.
        submitter: PeerId,
        /// The refusal's stable name.
        code: String,
        /// The refusal in words.
        detail: String,
    },
    /// A peer's job came to its end here. Durable *before* the receipt is handed out. Sent by
    /// Sandbox.
    JobFinished {
        /// The job's id, hex.
        job: String,
        /// Who submitted it.
        submitter: PeerId,
        /// What became of it, in words.
        outcome: String,
        /// SHA-256 of the receipt.
        receipt: [u8; 32],
        /// Processor time it took.
        cpu: Duration,
    },
    /// This node gives a job to an executor. Sent by Jobs.
    JobSent {
        /// The job's id, hex.
        job: String,
        /// Who is to run it.
        executor: PeerId,
        /// SHA-256 of the module.
        module: [u8; 32],
    },
    /// A job this node gave away came to its end. Sent by Jobs.
    JobResult {
        /// The job's id, hex.
        job: String,
        /// Who ran it.
        executor: PeerId,
        /// What became of it, in words.
        outcome: String,
        /// SHA-256 of the verified receipt; none when there is no (good) one.
        receipt: Option<[u8; 32]>,
    },
    /// A credential was issued to an invited node. Durable *before* it is handed out. Sent by
    /// Issuer.
    CredentialIssued {
        /// The node.
        peer: PeerId,
        /// `issuer/subject`.
        identity: String,
        /// SHA-256 of the credential.
        credential_hash: [u8; 32],
        /// Until when it holds.
        expires: Timestamp,
        /// The rule that allowed it.
        rule: String,
    },
    /// A credential was renewed. On the issuer's node durable *before* it is handed out. Sent by
    /// Issuer there, and by Renewal on the node that got it.
    CredentialRenewed {
        /// The node whose credential it is.
        peer: PeerId,
        /// `issuer/subject`.
        identity: String,
        /// SHA-256 of the new credential.
        credential_hash: [u8; 32],
        /// Until when it holds.
        expires: Timestamp,
        /// The rule that allowed it, or the node that issued it.
        rule: String,
    },
    /// A node goes on with other keys, under another PeerId. On the issuer's node durable *before*
    /// the credential for them is handed out; on the node itself the first record under them; on
    /// others when it first shows them. Sent by Issuer, by the node, by the gate.
    KeyRotated {
        /// Who the node is.
        peer: PeerId,
        /// Who it was.
        former: PeerId,
        /// `issuer/subject`.
        identity: String,
        /// The sequence of its statement.
        sequence: u64,
        /// The rule that allowed it.
        rule: String,
    },
    /// No credential was issued or renewed. Sent by Issuer, and by Renewal on the node that asked.
    RenewalRefused {
        /// The other node: who asked, or who was asked.
        peer: PeerId,
        /// The refusal's stable name.
        code: String,
        /// The refusal in words.
        detail: String,
    },
    /// An invitation was made. Sent by Issuer.
    InvitationMade {
        /// The invitation's name, hex.
        invitation: String,
        /// `issuer/subject` of whom it is for.
        identity: String,
        /// Until when it can be used.
        expires: Timestamp,
    },
    /// A corrupt store was set aside and a new one begun. Sent by the node.
    StoreSetAside {
        /// Where the old files are now.
        path: String,
        /// What was wrong.
        reason: String,
    },
    /// The log's own tail was repaired at start. Sent by Audit to itself.
    LogRecovered {
        /// The segment's file name.
        segment: String,
        /// Bytes of the torn line, kept in a file beside it.
        bytes: u64,
    },
}
