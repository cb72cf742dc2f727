//! Whom to dial, and when: exponential backoff with jitter for each peer.
//!
//! A pure core: time is an argument (the clock's `elapsed`), randomness is seeded. The Swarm
//! actor asks [`DialPlan::due`], dials, and reports what came of it. Peers that are *kept* are
//! those of `network.bootstrap` and those the actor was connected to before a restart, so their
//! number is bounded by the configuration and by the limit of connections; they are dialled for
//! ever. Peers that were *found* are dialled while there is room, a few at once, in random order,
//! and forgotten when they do not answer; of them at most [`MAX_FOUND`] are remembered, each at a few
//! addresses. Somebody else named those, so what one network has to bear of such dials is bounded,
//! however many peers are said to be there.
//!
//! This backoff is what a circuit breaker is for calls: it opens at the first failure, its one
//! probe is the next dial, and a connection that stands closes it.

mod crowds;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p::Multiaddr;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use thiserror::Error;

use super::{convert, discovery::scope};
use crate::types::PeerId;
use crowds::{Crowds, Network};

/// A connection that stood this long clears the peer's failures; a shorter one counts as one,
/// so that a peer which accepts and hangs up is not dialled in a tight loop.
pub const STABLE: Duration = Duration::from_secs(30);
/// A dial of which nothing was heard for this long is taken for lost. Longer than connect,
/// handshake and identity time-outs together.
const LOST: Duration = Duration::from_secs(180);
/// Addresses kept for one peer; the newest replaces the oldest.
const MAX_ADDRESSES: usize = 8;
/// Addresses kept of a found peer, all of which are dialled, one after the other.
const MAX_HINTS: usize = 3;
/// Of them those at one IP address: TCP and QUIC.
const MAX_HINTS_OF_IP: usize = 2;
/// Found peers that are remembered, connected ones included. Once full, a new one takes the place of
/// one that did not answer, if there is any: a liar can fill it, but what it names does not answer.
pub const MAX_FOUND: usize = 512;
/// Found peers that are dialled at once.
const MAX_FOUND_DIALS: usize = 8;
/// Failures in a row after which a found peer is forgotten.
const FORGET_AFTER: u32 = 3;
/// Doublings beyond which any sensible first wait has long passed any sensible cap.
const MAX_DOUBLINGS: u32 = 20;

/// Why an address cannot be planned for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// It does not say whom to expect.
    #[error("`{0}` does not end in /p2p/PEER: an address without its peer could be anybody's")]
    NoPeer(Multiaddr),
    /// Its peer has no Ed25519 key.
    #[error("`{0}`: the peer at its end has no Ed25519 key")]
    Key(Multiaddr),
}

/// A peer to dial now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Whom.
    pub peer: PeerId,
    /// Where, each ending in `/p2p/PEER`; names are still to be resolved.
    pub addresses: Vec<Multiaddr>,
}

/// Why a peer is in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The operator wants it connected, or it was.
    Kept,
    /// Somebody said that it is there.
    Found,
}

/// The plan of one Swarm.
#[derive(Debug)]
pub struct DialPlan {
    targets: BTreeMap<PeerId, Target>,
    crowds: Crowds,
    initial: Duration,
    max: Duration,
    rng: StdRng,
}

#[derive(Debug)]
struct Target {
    class: Class,
    addresses: Vec<Multiaddr>,
    /// Those of them where the last dial found nobody.
    in_vain: BTreeSet<Multiaddr>,
    /// Where a found peer is being dialled.
    dialled: BTreeSet<Network>,
    /// Failed dials and short connections since the last stable one.
    failures: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { until: Duration },
    Dialling { since: Duration },
    Connected { since: Duration },
}

impl DialPlan {
    /// An empty plan: the first wait, the longest one, and the seed of the jitter.
    #[must_use]
    pub fn new(initial: Duration, max: Duration, seed: u64) -> Self {
        Self {
            targets: BTreeMap::new(),
            crowds: Crowds::default(),
            initial,
            max: max.max(initial),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Plans for the peer at the end of `address`; a new peer is due at once.
    ///
    /// # Errors
    /// As [`PlanError`] says.
    pub fn add(&mut self, address: &Multiaddr) -> Result<PeerId, PlanError> {
        let (_, peer) = convert::split_p2p(address);
        let peer = peer.ok_or_else(|| PlanError::NoPeer(address.clone()))?;
        let peer = convert::from_libp2p(&peer).map_err(|_| PlanError::Key(address.clone()))?;
        let target = self
            .targets
            .entry(peer)
            .or_insert_with(|| Target::new(Class::Kept));
        target.class = Class::Kept;
        if !target.addresses.contains(address) {
            if target.addresses.len() == MAX_ADDRESSES {
                target.addresses.remove(0);
            }
            target.addresses.push(address.clone());
        }
        Ok(peer)
    }

    /// Somebody says that a peer is at `address`, which must end in `/p2p/PEER`. Whether that is
    /// news that is taken: not for a peer that is kept, whose addresses are the operator's, and
    /// in place of what is known only where that was tried in vain.
    pub fn hint(&mut self, address: &Multiaddr) -> bool {
        let peer = convert::split_p2p(address).1;
        let Some(peer) = peer.and_then(|peer| convert::from_libp2p(&peer).ok()) else {
            return false;
        };
        if !self.targets.contains_key(&peer) && self.found() >= MAX_FOUND && !self.forget_one() {
            return false;
        }
        let target = self
            .targets
            .entry(peer)
            .or_insert_with(|| Target::new(Class::Found));
        target.class == Class::Found && target.hint(address)
    }

    /// Makes room for one found peer: of those that wait and did not answer, chance says which goes.
    fn forget_one(&mut self) -> bool {
        let in_vain = |one: &Target| {
            let waits = matches!(one.state, State::Waiting { .. });
            one.class == Class::Found && one.failures > 0 && waits
        };
        let all = self.targets.iter().filter(|(_, one)| in_vain(one));
        let all: Vec<PeerId> = all.map(|(peer, _)| *peer).collect();
        let index = self.rng.random_range(0..all.len().max(1));
        all.get(index)
            .is_some_and(|peer| self.targets.remove(peer).is_some())
    }

    /// Found peers that are remembered.
    #[must_use]
    pub fn found(&self) -> usize {
        let all = self.targets.values();
        all.filter(|one| one.class == Class::Found).count()
    }

    /// Why a peer is in the plan, if it is.
    #[must_use]
    pub fn knows(&self, peer: &PeerId) -> Option<Class> {
        self.targets.get(peer).map(|target| target.class)
    }

    /// Forgets a peer: it is dialled no more.
    pub fn remove(&mut self, peer: &PeerId) {
        self.targets.remove(peer);
    }

    /// The peers to dial now; each is then taken for being dialled. There is room for so many of
    /// those that were found.
    pub fn due(&mut self, now: Duration, room: usize) -> Vec<Due> {
        let mut under_way: BTreeMap<Network, usize> = BTreeMap::new();
        let mut room = room.min(MAX_FOUND_DIALS);
        for target in self.targets.values().filter(|one| one.is_dialled(now)) {
            room = room.saturating_sub(1);
            for network in &target.dialled {
                let count = under_way.entry(*network).or_default();
                *count = count.saturating_add(1);
            }
        }
        let is_due = |target: &Target| target.due_at().is_some_and(|at| at <= now);
        let due = self.targets.iter().filter(|(_, target)| is_due(target));
        let (mut found, mut chosen): (Vec<PeerId>, Vec<PeerId>) = (Vec::new(), Vec::new());
        for (peer, target) in due {
            match target.class {
                Class::Kept => chosen.push(*peer),
                Class::Found => found.push(*peer),
            }
        }
        let mut due: Vec<Due> = chosen
            .into_iter()
            .filter_map(|peer| {
                let target = self.targets.get_mut(&peer)?;
                target.state = State::Dialling { since: now };
                let addresses = target.addresses.clone();
                Some(Due { peer, addresses })
            })
            .collect();
        // In random order: whoever makes names that come first must gain nothing by it.
        while room > 0 && !found.is_empty() {
            let index = self.rng.random_range(0..found.len());
            let peer = found.swap_remove(index);
            if let Some(one) = self.dial_found(peer, &mut under_way, now) {
                due.push(one);
                room = room.saturating_sub(1);
            }
        }
        due
    }

    /// Dials a found peer where there is room for it.
    fn dial_found(
        &mut self,
        peer: PeerId,
        under_way: &mut BTreeMap<Network, usize>,
        now: Duration,
    ) -> Option<Due> {
        let target = self.targets.get_mut(&peer)?;
        let is_free = |address: &&Multiaddr| {
            Network::of(address).is_some_and(|network| {
                let busy = under_way.get(&network).copied().unwrap_or_default();
                busy < crowds::MAX_UNDER_WAY && self.crowds.is_open(network, now)
            })
        };
        let addresses: Vec<_> = target.addresses.iter().filter(is_free).cloned().collect();
        if addresses.is_empty() {
            return None;
        }
        target.state = State::Dialling { since: now };
        target.dialled = addresses.iter().filter_map(Network::of).collect();
        for network in &target.dialled {
            let count = under_way.entry(*network).or_default();
            *count = count.saturating_add(1);
        }
        Some(Due { peer, addresses })
    }

    /// When [`DialPlan::due`] will next have something; `None` while all are connected.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.targets.values().filter_map(Target::due_at).min()
    }

    /// A connection with the peer stands, whoever opened it.
    pub fn connected(&mut self, peer: &PeerId, now: Duration) {
        if let Some(target) = self.targets.get_mut(peer)
            && !matches!(target.state, State::Connected { .. })
        {
            target.state = State::Connected { since: now };
            target.in_vain.clear();
        }
    }

    /// A dial failed. Of no consequence while another connection stands.
    pub fn failed(&mut self, peer: &PeerId, now: Duration) {
        if let Some(target) = self.targets.get_mut(peer)
            && matches!(target.state, State::Dialling { .. })
        {
            target.failures = target.failures.saturating_add(1);
            if target.class == Class::Found {
                target.in_vain = target.addresses.iter().cloned().collect();
                for network in std::mem::take(&mut target.dialled) {
                    self.crowds.failed(network, now);
                }
            }
            self.wait(peer, now);
        }
    }

    /// The last connection with the peer is gone.
    pub fn disconnected(&mut self, peer: &PeerId, now: Duration) {
        if let Some(target) = self.targets.get_mut(peer)
            && let State::Connected { since } = target.state
        {
            target.failures = if now.saturating_sub(since) >= STABLE {
                // It begins anew, with the first wait.
                1
            } else {
                target.failures.saturating_add(1)
            };
            self.wait(peer, now);
        }
    }

    /// The planned peers that are not connected.
    pub fn missing(&self) -> impl Iterator<Item = PeerId> {
        let away = |target: &Target| !matches!(target.state, State::Connected { .. });
        let missing = self.targets.iter().filter(move |(_, target)| away(target));
        missing.map(|(peer, _)| *peer)
    }

    /// Waits between half of the exponential delay and all of it.
    fn wait(&mut self, peer: &PeerId, now: Duration) {
        let Some(target) = self.targets.get_mut(peer) else {
            return;
        };
        if target.class == Class::Found && target.failures >= FORGET_AFTER {
            self.targets.remove(peer);
            return;
        }
        let doublings = target.failures.saturating_sub(1).min(MAX_DOUBLINGS);
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let full = self.initial.saturating_mul(factor).min(self.max);
        let wait = full.mul_f64(self.rng.random_range(0.5..=1.0));
        target.state = State::Waiting {
            until: now.saturating_add(wait),
        };
    }
}

impl Target {
    fn new(class: Class) -> Self {
        Self {
            class,
            addresses: Vec::new(),
            in_vain: BTreeSet::new(),
            dialled: BTreeSet::new(),
            failures: 0,
            state: State::Waiting {
                until: Duration::ZERO,
            },
        }
    }

    /// Takes an address that somebody named.
    fn hint(&mut self, address: &Multiaddr) -> bool {
        let Some(ip) = scope::first_ip(address) else {
            return false;
        };
        if self.addresses.contains(address) {
            return false;
        }
        let there = |one: &Multiaddr| scope::first_ip(one) == Some(ip);
        let crowded = self.addresses.iter().filter(|one| there(one)).count() >= MAX_HINTS_OF_IP;
        if crowded || self.addresses.len() >= MAX_HINTS {
            let in_vain = |one: &Multiaddr| self.in_vain.contains(one) && (!crowded || there(one));
            let Some(index) = self.addresses.iter().position(in_vain) else {
                return false;
            };
            let old = self.addresses.remove(index);
            self.in_vain.remove(&old);
        }
        self.addresses.push(address.clone());
        true
    }

    /// Whether it was found and is being dialled.
    fn is_dialled(&self, now: Duration) -> bool {
        let State::Dialling { since } = self.state else {
            return false;
        };
        self.class == Class::Found && now.saturating_sub(since) < LOST
    }

    fn due_at(&self) -> Option<Duration> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Dialling { since } => Some(since.saturating_add(LOST)),
            State::Connected { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
