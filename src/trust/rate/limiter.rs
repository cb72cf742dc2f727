//! The handle that callers check: every budget of the node.

use std::{fmt, net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use governor::Quota;
use ipnet::IpNet;
use thiserror::Error;

use super::{
    Debt, DebtKey, ExemptNetworks, NetworkError,
    networks::around,
    table::{Budget, Empty, Key, Read, WhenFull},
};
use crate::{
    config::LimitsConfig,
    messages::rate_limit::BudgetUsage,
    network::envelope::MAX_ENTRIES,
    types::{Clock, PeerId, Source, SubjectId},
};

/// Bytes are charged in units of this many, rounded up: it keeps the arithmetic exact up to
/// 64 GB/s and covers the frame around a tiny message.
const BYTE_UNIT: u64 = 64;
/// What a message of the largest size may carry around its payload: envelope, topic, signature.
const FRAME_BYTES: u64 = 64 * 1024;
/// Prefix lengths that share a subnet's budget, and how many times the configured one each gets.
/// An IPv6 /56 is as cheap to rent as a /64, a /48 is one customer.
const IPV4_LEVELS: [(u8, u32); 1] = [(24, 1)];
const IPV6_LEVELS: [(u8, u32); 3] = [(64, 1), (56, 2), (48, 4)];
/// Messages lent to an author at once: the most that can come under one signature. Less, and a batch
/// of somebody who is configured otherwise would never pass here; see [`Limiter::charge_batch`].
#[expect(clippy::cast_possible_truncation, reason = "a constant: 1,024")]
const CREDIT: u32 = MAX_ENTRIES as u32;
/// Paid debts forgotten at one sweep of one table: a few milliseconds.
const SWEEP: usize = 8_192;

/// Which budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DenialReason {
    /// New connections of the address.
    AddressRate,
    /// New connections of the address's subnet.
    SubnetRate,
    /// New connections over the relay.
    RelayRate,
    /// New connections whose address nobody has shown to be theirs, of one address or of all.
    UnvalidatedRate,
    /// New connections of everybody.
    ConnectionRate,
    /// Messages of the author.
    AuthorRate,
    /// Bytes of the neighbour.
    NeighbourBytes,
    /// Frames of the neighbour.
    NeighbourFrames,
    /// Job requests of the peer.
    JobRequestRate,
    /// More at once than the budget ever holds.
    TooMuchAtOnce,
    /// The owner has not restored the debts yet.
    NotReady,
}

impl DenialReason {
    /// A stable, bounded name for metrics and audit.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::AddressRate => "address_rate",
            Self::SubnetRate => "subnet_rate",
            Self::RelayRate => "relay_rate",
            Self::UnvalidatedRate => "unvalidated_rate",
            Self::ConnectionRate => "connection_rate",
            Self::AuthorRate => "author_rate",
            Self::NeighbourBytes => "neighbour_bytes",
            Self::NeighbourFrames => "neighbour_frames",
            Self::JobRequestRate => "job_request_rate",
            Self::TooMuchAtOnce => "too_much_at_once",
            Self::NotReady => "budgets_not_ready",
        }
    }
}

impl fmt::Display for DenialReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("over budget: {reason}")]
pub struct Denial {
    /// Which.
    pub reason: DenialReason,
    /// When the same may be tried again; `None`: never, or unknown.
    pub retry_after: Option<Duration>,
}

/// A limit that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LimitError {
    /// A budget of nothing.
    #[error("limits.{0} must be at least 1")]
    Zero(&'static str),
    /// A network that cannot be read.
    #[error("limits.exempt_networks: {0}")]
    Network(#[from] NetworkError),
}

/// Every budget. Cheap to check from many threads; see the module's head for what it promises.
#[derive(Debug)]
pub struct Limiter {
    open: bool,
    clock: Arc<dyn Clock>,
    exempt: ExemptNetworks,
    capacity: usize,
    addresses: Budget<Option<IpAddr>>,
    /// By prefix length: the levels of both families.
    subnets: Vec<(u8, Budget<IpNet>)>,
    /// Connections that come over a relay, by relay.
    relays: Budget<PeerId>,
    /// Connections whose address may be anybody's, by that address and all together. Of the
    /// minute, so not kept over a restart.
    unvalidated: Budget<IpAddr>,
    all_unvalidated: Budget<()>,
    /// What those may spend of `connections` from whose hosts no member came lately. Of the
    /// minute, too.
    strangers: Budget<()>,
    connections: Budget<()>,
    authors: Budget<PeerId>,
    neighbours: Budget<PeerId>,
    /// Seconds' worth: not kept over a restart of the process.
    frames: Budget<PeerId>,
    requesters: Budget<PeerId>,
    request_rates: (u32, u32),
    /// What members' keys spend together: a new key brings no new budget.
    members: Budget<SubjectId>,
    member_requesters: Budget<SubjectId>,
}

impl Limiter {
    /// Budgets as configured, with no debts.
    ///
    /// # Errors
    /// [`LimitError`] names the key that cannot be used.
    pub fn new(limits: &LimitsConfig, clock: Arc<dyn Clock>) -> Result<Self, LimitError> {
        let capacity = limits.tracked_keys;
        if capacity == 0 {
            return Err(LimitError::Zero("tracked_keys"));
        }
        let per_subnet = nonzero(
            limits.connections_per_minute_per_subnet,
            "connections_per_minute_per_subnet",
        )?;
        let subnets = IPV4_LEVELS
            .iter()
            .chain(&IPV6_LEVELS)
            .map(|(prefix, times)| {
                let quota = Quota::per_minute(per_subnet.saturating_mul(at_least_one(*times)));
                let budget = Budget::new(quota, capacity, WhenFull::Share, Arc::clone(&clock));
                (*prefix, budget)
            });
        let subnets = subnets.collect();
        let per_address = Quota::per_minute(nonzero(
            limits.connections_per_minute_per_address,
            "connections_per_minute_per_address",
        )?);
        let per_relay = Quota::per_minute(nonzero(
            limits.connections_per_minute_per_relay,
            "connections_per_minute_per_relay",
        )?);
        let connections = Quota::per_minute(nonzero(
            limits.connections_per_minute,
            "connections_per_minute",
        )?);
        // The other half is for those who cannot forge where they come from.
        let half = at_least_one(limits.connections_per_minute / 2);
        let unvalidated = Quota::per_minute(half);
        // A quarter of all is for hosts that members came from lately: a flood spends the rest.
        let all = limits.connections_per_minute;
        let strangers = Quota::per_minute(at_least_one(all.saturating_sub(all / 4)));
        let messages = nonzero(limits.messages_per_second, "messages_per_second")?;
        let burst = nonzero(limits.message_burst, "message_burst")?;
        let authored = Quota::per_second(messages).allow_burst(burst);
        let neighbours = byte_quota(limits)?;
        let frames = nonzero(limits.frames_per_second, "frames_per_second")?;
        let frame_burst = nonzero(limits.frame_burst, "frame_burst")?;
        let frames = Quota::per_second(frames).allow_burst(frame_burst);
        let requests = nonzero(limits.job_requests_per_second, "job_requests_per_second")?;
        let request_burst = nonzero(limits.job_request_burst, "job_request_burst")?;
        let requests = Quota::per_second(requests).allow_burst(request_burst);
        Ok(Self {
            open: true,
            exempt: ExemptNetworks::parse(&limits.exempt_networks)?,
            capacity,
            addresses: Budget::new(per_address, capacity, WhenFull::PassOn, Arc::clone(&clock)),
            subnets,
            relays: Budget::new(per_relay, capacity, WhenFull::Share, Arc::clone(&clock)),
            unvalidated: Budget::new(per_address, capacity, WhenFull::Share, Arc::clone(&clock)),
            all_unvalidated: Budget::new(unvalidated, 1, WhenFull::Share, Arc::clone(&clock)),
            strangers: Budget::new(strangers, 1, WhenFull::Share, Arc::clone(&clock)),
            connections: Budget::new(connections, 1, WhenFull::Share, Arc::clone(&clock)),
            authors: Budget::new(authored, capacity, WhenFull::Share, Arc::clone(&clock))
                .lending(CREDIT),
            neighbours: Budget::new(neighbours, capacity, WhenFull::Share, Arc::clone(&clock)),
            frames: Budget::new(frames, capacity, WhenFull::Share, Arc::clone(&clock)),
            request_rates: (limits.job_requests_per_second, limits.job_request_burst),
            requesters: Budget::new(requests, capacity, WhenFull::Share, Arc::clone(&clock)),
            members: Budget::new(authored, capacity, WhenFull::Share, Arc::clone(&clock))
                .lending(CREDIT),
            member_requesters: Budget::new(requests, capacity, WhenFull::Share, Arc::clone(&clock)),
            clock,
        })
    }

    /// The same, but it denies everything: the first view of a node whose RateLimit actor has
    /// not restored its debts yet.
    ///
    /// # Errors
    /// As [`Limiter::new`].
    pub fn closed(limits: &LimitsConfig, clock: Arc<dyn Clock>) -> Result<Self, LimitError> {
        Ok(Self {
            open: false,
            ..Self::new(limits, clock)?
        })
    }

    /// Charges a new inbound connection, before any cryptography. Budgets are charged from the
    /// narrowest to the widest, so one flooding address does not spend its neighbours' budget.
    ///
    /// # Errors
    /// [`Denial`] names the first budget that is spent.
    pub fn admit_connection(&self, source: impl Into<Source>) -> Result<(), Denial> {
        self.admit_from(source.into(), false)
    }

    /// Whether the address lies in a network that pays no connection budget.
    #[must_use]
    pub fn is_exempt(&self, source: Source) -> bool {
        source.ip().is_some_and(|ip| self.exempt.contains(ip))
    }

    /// As [`Limiter::admit_connection`]; for hosts that are `known` (members came from there
    /// lately) a quarter of the budget of all is kept.
    ///
    /// # Errors
    /// [`Denial`] names the first budget that is spent.
    pub fn admit_from(&self, source: Source, known: bool) -> Result<(), Denial> {
        self.check_open()?;
        if self.is_exempt(source) {
            return Ok(());
        }
        let ip = source.ip();
        let one = NonZeroU32::MIN;
        match source {
            Source::Relay(relay) => charge(&self.relays, &relay, one, DenialReason::RelayRate)?,
            Source::Unvalidated(ip) => {
                let reason = DenialReason::UnvalidatedRate;
                let Source::Unvalidated(host) = Source::Unvalidated(ip).host() else {
                    return self.check_open();
                };
                charge(&self.unvalidated, &host, one, reason)?;
                charge(&self.all_unvalidated, &(), one, reason)?;
            }
            Source::Address(_) | Source::Unknown => {
                charge(&self.addresses, &ip, one, DenialReason::AddressRate)?;
            }
        }
        if let Some(ip) = ip {
            for (prefix, _) in levels(ip) {
                let level = self.subnets.iter().find(|(own, _)| own == prefix);
                if let (Some((_, budget)), Some(network)) = (level, around(ip, *prefix)) {
                    charge(budget, &network, NonZeroU32::MIN, DenialReason::SubnetRate)?;
                }
            }
        }
        if !known {
            charge(&self.strangers, &(), one, DenialReason::ConnectionRate)?;
        }
        charge(&self.connections, &(), one, DenialReason::ConnectionRate)
    }

    /// Requests of the job protocol a second, and at once, that one peer may make.
    #[must_use]
    pub fn request_rates(&self) -> (u32, u32) {
        self.request_rates
    }

    /// Charges `messages` at once to the author whose signature they bear (a batch pays for what
    /// it carries). More than the burst never pass.
    ///
    /// # Errors
    /// [`Denial`]; nothing was charged then.
    pub fn charge_author(&self, author: PeerId, messages: u32) -> Result<(), Denial> {
        self.check_open()?;
        let cost = at_least_one(messages);
        charge(&self.authors, &author, cost, DenialReason::AuthorRate)
    }

    /// As [`Limiter::charge_author`], for a batch of somebody whose own burst may be larger than this
    /// node's: one of more than the burst passes when the author owes nothing, and is then owed as a
    /// whole, so that the author's messages a second stay what they are.
    ///
    /// # Errors
    /// [`Denial`]; nothing was charged then.
    pub fn charge_batch(&self, author: PeerId, messages: u32) -> Result<(), Denial> {
        self.check_open()?;
        let charged = self
            .authors
            .charge_on_credit(&author, at_least_one(messages));
        charged.map_err(|empty| denial(empty, DenialReason::AuthorRate))
    }

    /// Charges `messages` at once to the member that their author was verified to be, beside
    /// [`Limiter::charge_batch`]: the same budget, whatever key it holds.
    ///
    /// # Errors
    /// [`Denial`]; nothing was charged then.
    pub fn charge_member(&self, member: &SubjectId, messages: u32) -> Result<(), Denial> {
        self.check_open()?;
        let charged = self
            .members
            .charge_on_credit(member, at_least_one(messages));
        charged.map_err(|empty| denial(empty, DenialReason::AuthorRate))
    }

    /// Charges `frames` to the neighbour that sent them.
    ///
    /// # Errors
    /// [`Denial`]; nothing was charged then.
    pub fn charge_frames(&self, neighbour: PeerId, frames: u32) -> Result<(), Denial> {
        self.check_open()?;
        let cost = at_least_one(frames);
        charge(
            &self.frames,
            &neighbour,
            cost,
            DenialReason::NeighbourFrames,
        )
    }

    /// Charges a request of the job protocol to the member that sent it, beside
    /// [`Limiter::charge_job_request`].
    ///
    /// # Errors
    /// [`Denial`]; nothing was charged then.
    pub fn charge_member_request(&self, member: &SubjectId) -> Result<(), Denial> {
        self.check_open()?;
        let reason = DenialReason::JobRequestRate;
        charge(&self.member_requesters, member, NonZeroU32::MIN, reason)
    }

    /// Charges `bytes` to the neighbour that sent or forwarded them.
    ///
    /// # Errors
    /// [`Denial`]; nothing was charged then.
    pub fn charge_neighbour(&self, neighbour: PeerId, bytes: u64) -> Result<(), Denial> {
        self.check_open()?;
        let cost = at_least_one(units(bytes));
        charge(
            &self.neighbours,
            &neighbour,
            cost,
            DenialReason::NeighbourBytes,
        )
    }

    /// Charges a request of the job protocol to the peer that sent it.
    ///
    /// # Errors
    /// [`Denial`]; nothing was charged then.
    pub fn charge_job_request(&self, peer: PeerId) -> Result<(), Denial> {
        self.check_open()?;
        charge(
            &self.requesters,
            &peer,
            NonZeroU32::MIN,
            DenialReason::JobRequestRate,
        )
    }

    /// How full the tables are.
    #[must_use]
    pub fn usage(&self) -> BudgetUsage {
        BudgetUsage {
            addresses: self.addresses.len(),
            subnets: self.subnets.iter().map(|(_, budget)| budget.len()).sum(),
            relays: self.relays.len(),
            neighbours: self.neighbours.len(),
            authors: self.authors.len(),
            requesters: self.requesters.len(),
            members: self.members.len(),
            member_requesters: self.member_requesters.len(),
            capacity: self.capacity,
        }
    }

    /// Forgets debts that are paid; the owner calls it each second.
    pub fn sweep(&self) {
        self.addresses.sweep(SWEEP);
        for (_, budget) in &self.subnets {
            budget.sweep(SWEEP);
        }
        self.relays.sweep(SWEEP);
        self.connections.sweep(SWEEP);
        self.authors.sweep(SWEEP);
        self.neighbours.sweep(SWEEP);
        self.frames.sweep(SWEEP);
        self.requesters.sweep(SWEEP);
        self.members.sweep(SWEEP);
        self.member_requesters.sweep(SWEEP);
    }

    /// Every debt, in wall-clock time.
    #[must_use]
    pub fn debts(&self) -> Vec<(DebtKey, Debt)> {
        let all = self.read(Read::Debts).into_iter();
        all.filter_map(|(key, debt)| Some((key, debt?))).collect()
    }

    /// What changed since the last call; `None`: paid.
    #[must_use]
    pub fn take_changes(&self) -> Vec<(DebtKey, Option<Debt>)> {
        self.read(Read::Changes)
    }

    /// Takes over debts; where both know one, the longer counts. All of them count as changed,
    /// so the next save writes them in this process's wall-clock time.
    pub fn restore(&self, debts: impl IntoIterator<Item = (DebtKey, Debt)>) {
        let now = self.clock.now();
        for (key, debt) in debts {
            let left = debt.left(now);
            match key {
                DebtKey::Address(ip) => self.addresses.restore(Some(ip), left),
                DebtKey::Subnet(network) => {
                    if let Some(budget) = self.level(network.prefix_len()) {
                        budget.restore(Some(network), left);
                    }
                }
                DebtKey::SubnetOverflow(prefix) => {
                    if let Some(budget) = self.level(prefix) {
                        budget.restore(None, left);
                    }
                }
                DebtKey::Relay(relay) => self.relays.restore(Some(relay), left),
                DebtKey::RelayOverflow => self.relays.restore(None, left),
                DebtKey::Connections => self.connections.restore(Some(()), left),
                DebtKey::Author(peer) => self.authors.restore(Some(peer), left),
                DebtKey::AuthorOverflow => self.authors.restore(None, left),
                DebtKey::Neighbour(peer) => self.neighbours.restore(Some(peer), left),
                DebtKey::NeighbourOverflow => self.neighbours.restore(None, left),
                DebtKey::Requester(peer) => self.requesters.restore(Some(peer), left),
                DebtKey::RequesterOverflow => self.requesters.restore(None, left),
                DebtKey::Member(member) => self.members.restore(Some(member), left),
                DebtKey::MemberOverflow => self.members.restore(None, left),
                DebtKey::MemberRequester(member) => {
                    self.member_requesters.restore(Some(member), left);
                }
                DebtKey::MemberRequesterOverflow => self.member_requesters.restore(None, left),
            }
        }
    }

    fn level(&self, prefix: u8) -> Option<&Budget<IpNet>> {
        let level = self.subnets.iter().find(|(own, _)| *own == prefix);
        level.map(|(_, budget)| budget)
    }

    fn check_open(&self) -> Result<(), Denial> {
        if self.open {
            return Ok(());
        }
        Err(Denial {
            reason: DenialReason::NotReady,
            retry_after: None,
        })
    }

    fn read(&self, what: Read) -> Vec<(DebtKey, Option<Debt>)> {
        let mut all: Vec<(DebtKey, Option<Duration>)> = Vec::new();
        // Addresses pass on when they are full: they have no overflow.
        let addresses = self.addresses.read(what).into_iter();
        all.extend(addresses.filter_map(|(ip, left)| Some((DebtKey::Address(ip?), left))));
        for (prefix, budget) in &self.subnets {
            let name =
                |key: Option<IpNet>| key.map_or(DebtKey::SubnetOverflow(*prefix), DebtKey::Subnet);
            all.extend(
                budget
                    .read(what)
                    .into_iter()
                    .map(|(key, left)| (name(key), left)),
            );
        }
        let name = |key: Option<PeerId>| key.map_or(DebtKey::RelayOverflow, DebtKey::Relay);
        let relays = self.relays.read(what).into_iter();
        all.extend(relays.map(|(key, left)| (name(key), left)));
        let connections = self.connections.read(what).into_iter();
        all.extend(connections.map(|(_, left)| (DebtKey::Connections, left)));
        let name = |key: Option<PeerId>| key.map_or(DebtKey::AuthorOverflow, DebtKey::Author);
        let authors = self.authors.read(what).into_iter();
        all.extend(authors.map(|(key, left)| (name(key), left)));
        let name = |key: Option<PeerId>| key.map_or(DebtKey::NeighbourOverflow, DebtKey::Neighbour);
        let neighbours = self.neighbours.read(what).into_iter();
        all.extend(neighbours.map(|(key, left)| (name(key), left)));
        let name = |key: Option<PeerId>| key.map_or(DebtKey::RequesterOverflow, DebtKey::Requester);
        let requesters = self.requesters.read(what).into_iter();
        all.extend(requesters.map(|(key, left)| (name(key), left)));
        let name = |key: Option<SubjectId>| key.map_or(DebtKey::MemberOverflow, DebtKey::Member);
        let members = self.members.read(what).into_iter();
        all.extend(members.map(|(key, left)| (name(key), left)));
        let name = |key: Option<SubjectId>| {
            key.map_or(DebtKey::MemberRequesterOverflow, DebtKey::MemberRequester)
        };
        let requesters = self.member_requesters.read(what).into_iter();
        all.extend(requesters.map(|(key, left)| (name(key), left)));
        let now = self.clock.now();
        all.into_iter()
            .map(|(key, left)| (key, left.map(|left| Debt::new(left, now))))
            .collect()
    }
}

fn levels(ip: IpAddr) -> &'static [(u8, u32)] {
    match ip {
        IpAddr::V4(_) => &IPV4_LEVELS,
        IpAddr::V6(_) => &IPV6_LEVELS,
    }
}

fn charge<K: Key>(
    budget: &Budget<K>,
    key: &K,
    cost: NonZeroU32,
    reason: DenialReason,
) -> Result<(), Denial> {
    budget
        .charge(key, cost)
        .map_err(|empty| denial(empty, reason))
}

fn denial(empty: Empty, reason: DenialReason) -> Denial {
    match empty {
        Empty::For(wait) => Denial {
            reason,
            retry_after: Some(wait),
        },
        Empty::Always => Denial {
            reason: DenialReason::TooMuchAtOnce,
            retry_after: None,
        },
    }
}

fn nonzero(value: u32, key: &'static str) -> Result<NonZeroU32, LimitError> {
    NonZeroU32::new(value).ok_or(LimitError::Zero(key))
}

fn at_least_one(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN)
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(BYTE_UNIT)).unwrap_or(u32::MAX)
}

/// The burst is a second's worth, and at least one message of the largest size with its frame:
/// otherwise such a message could never pass.
fn byte_quota(limits: &LimitsConfig) -> Result<Quota, LimitError> {
    if limits.bytes_per_second.0 == 0 {
        return Err(LimitError::Zero("bytes_per_second"));
    }
    let rate = at_least_one(units(limits.bytes_per_second.0));
    let largest = limits.max_message_size.0.saturating_add(FRAME_BYTES);
    let burst = rate.max(at_least_one(units(largest)));
    Ok(Quota::per_second(rate).allow_burst(burst))
}
