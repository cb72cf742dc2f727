//! Whom to ask for a list that is behind, and when.
//!
//! Of the peers that told of something newer, each in turn; whoever does not answer within a second
//! is passed over, and is not heard again before everybody else was asked: a revoked peer must not
//! hold up its own revocation by telling of it and keeping silent. After a round without success a
//! pause that doubles. What rests on a proved head is asked for
//! until it comes, of any neighbour when nobody told of it; a mere hint is given up after
//! [`MAX_TRIES`]. Pure: time is the monotonic time since the start. Owner: the Revocation actor.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::book::MAX_ISSUERS;
use crate::{identity::Name, types::PeerId};

/// Peers remembered that have something newer of one issuer.
const MAX_SOURCES: usize = 8;
/// Requests for what may be nothing.
const MAX_TRIES: u32 = 8;
/// Lists wanted on mere hints, in all and of one peer: nobody keeps out what others tell of.
const MAX_HINTS: usize = 64;
const MAX_HINTS_PER_PEER: usize = 8;
/// The first pause: a neighbour that told of a head has its list a round trip later.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// How long one peer is waited for before the next is asked as well.
const SLOW: Duration = Duration::from_secs(1);
/// The longest pause: how long a list that nobody had may lie unnoticed with a neighbour.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// A request to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Whose list.
    pub issuer: Name,
    /// Whom to ask.
    pub peer: PeerId,
}

#[derive(Debug)]
struct Want {
    sources: VecDeque<PeerId>,
    /// Who told of it first.
    hinted: Option<PeerId>,
    proved: bool,
    tries: u32,
    due: Duration,
    under_way: Option<(PeerId, Duration)>,
    /// Who was asked since everybody's turn began; at most [`MAX_SOURCES`] a round.
    tried: Vec<PeerId>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Fetches(BTreeMap<Name, Want>);

impl Fetches {
    /// A list of `issuer` is wanted. `source` told of it; `proved`: a signed head says that there
    /// is one.
    pub fn want(&mut self, issuer: &Name, source: Option<PeerId>, proved: bool, now: Duration) {
        if !self.0.contains_key(issuer) && !self.has_room(proved, source) {
            return;
        }
        let want = self.0.entry(issuer.clone()).or_insert_with(|| Want {
            sources: VecDeque::new(),
            hinted: source,
            proved,
            tries: 0,
            due: now,
            under_way: None,
            tried: Vec::new(),
        });
        want.proved |= proved;
        let Some(source) = source else { return };
        if !want.sources.contains(&source) && !want.tried.contains(&source) {
            if want.sources.len() >= MAX_SOURCES {
                want.sources.pop_back();
            }
            // Who spoke last is asked next, and at once.
            want.sources.push_front(source);
            want.due = want.due.min(now.saturating_add(FIRST_PAUSE));
        }
    }

    /// Hints have a small place of their own, so that made-up names keep nothing proved out.
    fn has_room(&self, proved: bool, source: Option<PeerId>) -> bool {
        let alike = || self.0.values().filter(|want| want.proved == proved);
        if proved {
            return alike().count() < MAX_ISSUERS;
        }
        let hinted = |want: &&Want| want.hinted == source;
        alike().count() < MAX_HINTS && alike().filter(hinted).count() < MAX_HINTS_PER_PEER
    }

    /// It came, or is no longer wanted.
    pub fn satisfied(&mut self, issuer: &Name) {
        self.0.remove(issuer);
    }

    /// What to ask now. `neighbours`: whom to ask for what nobody told of.
    pub fn due(&mut self, now: Duration, neighbours: &[PeerId]) -> Vec<Fetch> {
        let mut fetches = Vec::new();
        for (issuer, want) in &mut self.0 {
            match want.under_way {
                Some((_, since)) if now < since.saturating_add(SLOW) => continue,
                // Its answer is still welcome; meanwhile the next is asked, at once.
                Some(_) => want.under_way = None,
                None if want.due > now => continue,
                None => {}
            }
            if want.sources.is_empty() && want.proved {
                want.tried.clear();
                let start = usize::try_from(want.tries).unwrap_or(0);
                let turn = neighbours
                    .iter()
                    .cycle()
                    .skip(start % neighbours.len().max(1));
                want.sources
                    .extend(turn.take(MAX_SOURCES.min(neighbours.len())));
            }
            let Some(peer) = want.sources.pop_front() else {
                want.due = now.saturating_add(pause(want.tries));
                want.tries = want.tries.saturating_add(1);
                continue;
            };
            want.under_way = Some((peer, now));
            if want.tried.len() >= MAX_SOURCES {
                want.tried.remove(0);
            }
            want.tried.push(peer);
            fetches.push(Fetch {
                issuer: issuer.clone(),
                peer,
            });
        }
        self.0
            .retain(|_, want| want.proved || want.under_way.is_some() || want.tries < MAX_TRIES);
        fetches
    }

    /// A request came to nothing; `again`: the peer may have it later.
    pub fn failed(&mut self, issuer: &Name, peer: PeerId, again: bool, now: Duration) {
        let Some(want) = self.0.get_mut(issuer) else {
            return;
        };
        if want.under_way.is_none_or(|(asked, _)| asked != peer) {
            return;
        }
        want.under_way = None;
        want.due = now.saturating_add(pause(want.tries));
        want.tries = want.tries.saturating_add(1);
        if again && want.tries < MAX_TRIES && want.sources.len() < MAX_SOURCES {
            want.sources.push_back(peer);
        }
    }

    /// A request was not made: this node leaves the peer alone for a while. That is no try; whoever
    /// else has it is asked meanwhile, and when a signed head says that there is one, that is
    /// everybody.
    pub fn held(&mut self, issuer: &Name, peer: PeerId, retry_after: Duration, now: Duration) {
        let Some(want) = self.0.get_mut(issuer) else {
            return;
        };
        if want.under_way.is_none_or(|(asked, _)| asked != peer) {
            return;
        }
        want.under_way = None;
        let alone = want.sources.is_empty() && !want.proved;
        let wait = match alone {
            true => retry_after.clamp(FIRST_PAUSE, LONGEST_PAUSE),
            false => pause(want.tries),
        };
        want.due = now.saturating_add(wait);
        if alone {
            want.sources.push_back(peer);
        }
    }

    /// Whether something is wanted of which nobody told.
    #[must_use]
    pub fn needs_neighbours(&self) -> bool {
        let idle = |want: &Want| want.under_way.is_none() && want.sources.is_empty();
        self.0.values().any(|want| want.proved && idle(want))
    }

    /// How many lists are wanted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn pause(tries: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(tries);
    FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::{mallory, name, node};

    #[test]
    fn one_request_of_an_issuer_is_under_way_and_sources_take_turns() {
        let (mut fetches, acme) = (Fetches::default(), name("acme"));
        let (a, b) = (node().peer(), mallory().peer());
        fetches.want(&acme, Some(a), true, Duration::ZERO);
        fetches.want(&acme, Some(b), true, Duration::ZERO);
        let first = fetches.due(Duration::ZERO, &[]);
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].peer, b);
        assert!(fetches.due(SLOW - FIRST_PAUSE, &[]).is_empty());
        // Whom nobody asked cannot fail.
        fetches.failed(&acme, a, true, Duration::ZERO);
        assert!(fetches.due(SLOW - FIRST_PAUSE, &[]).is_empty());
        fetches.failed(&acme, b, true, Duration::ZERO);
        assert!(fetches.due(Duration::ZERO, &[]).is_empty());
        assert_eq!(fetches.due(FIRST_PAUSE, &[])[0].peer, a);
        fetches.satisfied(&acme);
        assert!(fetches.is_empty());
    }

    #[test]
    fn who_tells_of_it_and_keeps_silent_holds_nothing_up() {
        let (mut fetches, acme) = (Fetches::default(), name("acme"));
        let (honest, silent) = (node().peer(), mallory().peer());
        fetches.want(&acme, Some(honest), true, Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut asked = Vec::new();
        while now < SLOW * 3 {
            // It tells of it again and again, and never answers.
            fetches.want(&acme, Some(silent), true, now);
            asked.extend(fetches.due(now, &[honest]).into_iter().map(|f| f.peer));
            now += FIRST_PAUSE / 2;
        }
        assert_eq!(asked[..2], [silent, honest], "a second later");
        assert!(asked.iter().filter(|peer| **peer == honest).count() >= 2);
    }

    #[test]
    fn who_is_not_to_be_asked_now_costs_no_try() {
        let (mut fetches, acme) = (Fetches::default(), name("acme"));
        let (told, other) = (node().peer(), mallory().peer());
        fetches.want(&acme, Some(told), false, Duration::ZERO);
        let mut now = Duration::ZERO;
        for _ in 0..MAX_TRIES * 2 {
            assert_eq!(fetches.due(now, &[])[0].peer, told);
            fetches.held(&acme, told, SLOW * 5, now);
            assert!(fetches.due(now + SLOW * 4, &[]).is_empty());
            now += SLOW * 5;
        }
        assert_eq!(fetches.len(), 1);
        // There is one, so others are asked without waiting.
        fetches.want(&acme, None, true, now);
        assert_eq!(fetches.due(now, &[other])[0].peer, told);
        fetches.held(&acme, told, SLOW * 300, now);
        assert_eq!(fetches.due(now + FIRST_PAUSE, &[other])[0].peer, other);
    }

    #[test]
    fn made_up_names_keep_nothing_proved_out() {
        let mut fetches = Fetches::default();
        let a = node().peer();
        for n in 0..1_000 {
            fetches.want(&name(&format!("acme.n{n}")), Some(a), false, Duration::ZERO);
        }
        assert_eq!(fetches.len(), MAX_HINTS_PER_PEER);
        let b = mallory().peer();
        fetches.want(&name("acme.eu"), Some(b), false, Duration::ZERO);
        fetches.want(&name("acme"), Some(a), true, Duration::ZERO);
        assert_eq!(fetches.len(), MAX_HINTS_PER_PEER + 2);
    }

    #[test]
    fn a_hint_is_given_up_and_a_proved_head_is_not() {
        for proved in [false, true] {
            let (mut fetches, acme) = (Fetches::default(), name("acme"));
            let a = node().peer();
            fetches.want(&acme, Some(a), proved, Duration::ZERO);
            let mut now = Duration::ZERO;
            let mut asked = 0;
            for _ in 0..100 {
                now += LONGEST_PAUSE;
                for fetch in fetches.due(now, &[a]) {
                    asked += 1;
                    fetches.failed(&fetch.issuer, fetch.peer, true, now);
                }
            }
            assert_eq!(fetches.len(), usize::from(proved));
            assert!(if proved { asked == 100 } else { asked <= 8 }, "{asked}");
        }
    }
}
