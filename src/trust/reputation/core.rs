//! The state and its changes: `(input, now) -> effects`.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    Account, BanRecord, MAX_BAN, Standings,
    book::Book,
    effects::{BanError, Effect, Input, ban_ended, persist, shortened},
    standings::joint,
};
use crate::{
    audit::AuditEvent,
    config::ReputationConfig,
    messages::reputation::{BanInfo, Severity, Standing},
    types::{Party, PeerId, Span, SubjectId, Timestamp, TrustScore},
};

/// Clocks are slewed by less than this all the time; only more is a step back.
const CLOCK_STEP: Duration = Duration::from_secs(1);
/// Scores closer than this to a bound count as on it: 0.5 − 4 × 0.1 is not below 0.1.
const ROUNDING: f64 = 1e-9;
/// An account this close to neutral says nothing any more and is forgotten.
const FORGETTABLE: f64 = 0.000_5;
/// Accounts forgotten at one tick: below a millisecond.
const FORGET_PER_TICK: usize = 1_024;

/// A misdeed, whoever is charged.
struct Deed {
    address: Option<IpAddr>,
    severity: Severity,
    evidence: String,
    summed: bool,
}

/// All accounts and their indexes.
#[derive(Debug)]
pub struct Reputation {
    rules: Arc<ReputationConfig>,
    book: Book,
    /// The latest time seen, less what the clock went back.
    latest: Timestamp,
}

impl Reputation {
    /// Takes up what was saved. `latest` is [`Reputation::latest`] as it was saved: it tells a
    /// clock that went back meanwhile.
    ///
    /// `published` is what a former incarnation had published and perhaps not saved: of two
    /// accounts the later changed counts, of two changed together the one with the longer ban.
    #[must_use]
    pub fn restore(
        rules: Arc<ReputationConfig>,
        saved: impl IntoIterator<Item = (Party, Account)>,
        published: &Standings,
        latest: Timestamp,
        now: Timestamp,
    ) -> (Self, Vec<Effect>) {
        let mut this = Self {
            book: Book::new(Arc::clone(&rules)),
            rules,
            latest,
        };
        let mut effects = vec![Effect::Publish];
        for (party, account) in saved {
            this.take_over(party, account, &mut effects);
        }
        let end = |account: &Account| account.ban.as_ref().map(|ban| ban.until);
        for (party, theirs) in published.accounts() {
            let own = this.book.get(party);
            if own.is_none_or(|own| (own.at, end(own)) < (theirs.at, end(theirs))) {
                this.take_over(party.clone(), theirs.clone(), &mut effects);
                effects.push(persist(party.clone(), theirs.ban.is_some()));
            }
        }
        // Only now: both were written by the same clock, before it may have gone back.
        this.pass_time(now, &mut effects);
        (this, effects)
    }

    /// The immutable view to publish. Costs a microsecond or two.
    #[must_use]
    pub fn standings(&self) -> Standings {
        Standings::of(self.book.ledger().clone(), Arc::clone(&self.rules))
    }

    /// The account to write for a party.
    #[must_use]
    pub fn account(&self, party: &Party) -> Option<&Account> {
        self.book.get(party)
    }

    /// The latest time seen, to be saved beside the accounts.
    #[must_use]
    pub fn latest(&self) -> Timestamp {
        self.latest
    }

    /// Parties remembered, and how many of them are banned.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.book.len(), self.book.banned())
    }

    /// Where a party stands.
    #[must_use]
    pub fn standing(&self, party: &Party, now: Timestamp) -> Standing {
        let account = self.book.get(party).cloned();
        account
            .unwrap_or_else(|| Account::new(&self.rules, now))
            .standing(now.max(self.latest), &self.rules)
    }

    /// Where a peer stands that is `subject`: the worse of both.
    #[must_use]
    pub fn standing_of(
        &self,
        peer: &PeerId,
        subject: Option<&SubjectId>,
        now: Timestamp,
    ) -> Standing {
        let now = now.max(self.latest);
        joint(self.book.ledger(), peer, subject, now, &self.rules)
    }

    /// Applies what happened.
    pub fn apply(&mut self, input: Input, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        let now = self.pass_time(now, &mut effects);
        match input {
            Input::Charge {
                party,
                subject,
                address,
                severity,
                evidence,
                summed,
            } => {
                if matches!(party, Party::Subject(_)) {
                    // Nobody acts without a key: a subject is charged beside one, or not at all.
                    return effects;
                }
                // An address has no member behind it.
                let subject = subject.filter(|_| matches!(party, Party::Peer(_)));
                let subject = subject.map(Party::Subject);
                let deed = Deed {
                    address: address.map(|ip| ip.to_canonical()),
                    severity,
                    evidence: shortened(&evidence),
                    summed,
                };
                // The key first: it begins where its subject stood before.
                self.charge(party, subject.as_ref(), &deed, now, &mut effects);
                if let Some(subject) = subject {
                    self.charge(subject, None, &deed, now, &mut effects);
                }
            }
            Input::Credit { peer, subject } => {
                let subject = subject.map(Party::Subject);
                self.credit(Party::Peer(peer), subject.as_ref(), now, &mut effects);
                if let Some(subject) = subject {
                    self.credit(subject, None, now, &mut effects);
                }
            }
            Input::Tick => self.forget_neutral(now, &mut effects),
        }
        effects
    }

    /// An operator bans a party; a ban in force is replaced, also by a shorter one.
    ///
    /// # Errors
    /// [`BanError`] when the span is none, or there is no room.
    pub fn ban(
        &mut self,
        party: Party,
        span: Duration,
        reason: &str,
        now: Timestamp,
    ) -> Result<(BanInfo, Vec<Effect>), BanError> {
        if span < Duration::from_millis(1) || span > MAX_BAN {
            return Err(BanError::Span(Span(span)));
        }
        let mut effects = Vec::new();
        let now = self.pass_time(now, &mut effects);
        if !self.make_room(&party, now, &mut effects) {
            return Err(BanError::Full(self.book.places()));
        }
        let ban = BanRecord {
            since: now,
            until: now.after(span),
            reason: shortened(reason).into(),
            by_operator: true,
            address: None,
        };
        let info = BanInfo {
            party: party.clone(),
            since: ban.since,
            until: ban.until,
            reason: ban.reason.to_string(),
        };
        let account = self.current(&party, now);
        self.begin_ban(party, account, ban, &mut effects);
        effects.push(Effect::Publish);
        Ok((info, effects))
    }

    /// An operator lifts a ban: the party goes on with at least the score of probation, and
    /// without probation, since the ban was found wrong. `false` when there was none.
    pub fn lift(&mut self, party: Party, now: Timestamp) -> (bool, Vec<Effect>) {
        let mut effects = Vec::new();
        let now = self.pass_time(now, &mut effects);
        let mut account = self.current(&party, now);
        if account.ban.take().is_none() {
            return (false, effects);
        }
        let floor = self.rules.probation_score.get();
        account.score = TrustScore::saturating(account.score.get().max(floor));
        self.book.set(party.clone(), account);
        effects.push(persist(party.clone(), true));
        effects.push(Effect::Publish);
        effects.push(ban_ended(party, "lifted"));
        (true, effects)
    }

    /// Notices the time, turns ended bans into probation, and answers the time to go by.
    fn pass_time(&mut self, now: Timestamp, effects: &mut Vec<Effect>) -> Timestamp {
        let back = self.latest.since(now);
        if back > CLOCK_STEP {
            self.shift_back(back, effects);
            self.latest = now;
        }
        self.latest = self.latest.max(now);
        self.end_bans(self.latest, effects);
        self.latest
    }

    fn shift_back(&mut self, shift: Duration, effects: &mut Vec<Effect>) {
        let all: Vec<_> = self
            .book
            .ledger()
            .iter()
            .map(|(p, a)| (p.clone(), a.clone()))
            .collect();
        for (party, mut account) in all {
            account.shift_back(shift);
            effects.push(persist(party.clone(), account.ban.is_some()));
            self.book.set(party, account);
        }
        effects.push(Effect::Publish);
    }

    fn end_bans(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while let Some(party) = self.book.ended(now) {
            let account = self.current(&party, now);
            self.book.set(party.clone(), account);
            // Lost in a crash, it ends once more at the next start: no need to wait for a disk.
            effects.push(persist(party.clone(), false));
            effects.push(Effect::Publish);
            effects.push(ban_ended(party, "expired"));
        }
    }

    fn charge(
        &mut self,
        party: Party,
        subject: Option<&Party>,
        deed: &Deed,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let severity = deed.severity;
        let before_authentication = severity == Severity::HandshakeAbuse;
        if matches!(party, Party::Address(_)) && !before_authentication {
            // What a key did is charged to the key: an address may be a whole company.
            return;
        }
        let room = self.make_room(&party, now, effects);
        let mut account = self.opened(&party, subject, now);
        let before = account.score;
        let after = TrustScore::saturating(before.get() - self.cost(severity));
        account.score = after;
        if !deed.summed {
            effects.push(Effect::Audit(AuditEvent::Charged {
                party: party.clone(),
                severity: severity.name().to_owned(),
                evidence: deed.evidence.clone(),
                before: before.get(),
                after: after.get(),
            }));
        }
        if !room {
            return;
        }
        let threshold = self.rules.ban_below.get();
        let reason = if account.ban.is_some() {
            // It is being punished already; messages still on their way make no ban longer.
            None
        } else if after.get() + ROUNDING < threshold {
            Some(format!("score below {threshold} ({})", severity.name()))
        } else if account.probation_until.is_some() {
            Some(format!("misdeed during probation ({})", severity.name()))
        } else {
            None
        };
        if let Some(reason) = reason {
            // One offender counts once behind an address, by its key.
            let address = deed.address.filter(|_| matches!(party, Party::Peer(_)));
            let ban = self.ban_by_rule(reason, address, now);
            self.begin_ban(party, account, ban, effects);
            self.ban_address_behind(address, now, effects);
        } else {
            self.book.set(party.clone(), account);
            effects.push(persist(party, false));
        }
        effects.push(Effect::Publish);
    }

    fn ban_by_rule(&self, reason: String, address: Option<IpAddr>, now: Timestamp) -> BanRecord {
        BanRecord {
            since: now,
            until: now.after(self.rules.ban.0.min(MAX_BAN)),
            reason: reason.into(),
            by_operator: false,
            address,
        }
    }

    fn begin_ban(
        &mut self,
        party: Party,
        mut account: Account,
        ban: BanRecord,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::Audit(AuditEvent::BanStarted {
            party: party.clone(),
            until: ban.until,
            reason: ban.reason.to_string(),
        }));
        account.probation_until = None;
        account.ban = Some(ban);
        self.book.set(party.clone(), account);
        effects.push(persist(party, true));
    }

    /// Bans the address of a peer that was banned just now, when it is one of several.
    fn ban_address_behind(
        &mut self,
        address: Option<IpAddr>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(ip) = address else {
            return;
        };
        let peers = self.book.banned_behind(&ip);
        let party = Party::Address(ip);
        let account = self.current(&party, now);
        if peers < self.rules.banned_peers_per_address.max(1)
            || account.ban.is_some()
            || !self.make_room(&party, now, effects)
        {
            return;
        }
        let ban = self.ban_by_rule(format!("{peers} banned peers behind it"), None, now);
        self.begin_ban(party, account, ban, effects);
    }

    fn credit(
        &mut self,
        party: Party,
        subject: Option<&Party>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let mut account = self.opened(&party, subject, now);
        let interval = self.rules.good_connection_interval.0;
        let recently = account.credited.is_some_and(|at| now.since(at) < interval);
        if recently || account.ban.is_some() {
            return;
        }
        let gain = self.rules.good_connection.get();
        account.score = TrustScore::saturating(account.score.get() + gain);
        account.credited = Some(now);
        let unknown = self.book.get(&party).is_none();
        if unknown && self.book.is_full(&party) {
            // A good word is no reason to forget somebody's misdeeds.
            let nearest = self.book.nearest_like(&party).map(|(rank, _)| rank);
            if nearest.is_none_or(|nearest| nearest >= account.rank(&self.rules)) {
                return;
            }
            self.make_room(&party, now, effects);
        }
        self.book.set(party.clone(), account);
        effects.push(persist(party, false));
        effects.push(Effect::Publish);
    }

    fn forget_neutral(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let interval = self.rules.good_connection_interval.0;
        for _ in 0..FORGET_PER_TICK {
            let Some(party) = self.book.nearest() else {
                return;
            };
            let account = self.current(&party, now);
            let distance = (account.score.get() - self.rules.neutral.get()).abs();
            let credited = account.credited.is_some_and(|at| now.since(at) < interval);
            if distance > FORGETTABLE || credited || account.probation_until.is_some() {
                return;
            }
            self.book.forget(&party);
            effects.push(persist(party, false));
            effects.push(Effect::Publish);
        }
    }

    /// Makes a place for `party` unless it has one; `false` when none can be made.
    fn make_room(&mut self, party: &Party, now: Timestamp, effects: &mut Vec<Effect>) -> bool {
        if self.book.get(party).is_some() || !self.book.is_full(party) {
            return true;
        }
        if let Some((_, nearest)) = self.book.nearest_like(party) {
            self.book.forget(&nearest);
            effects.push(persist(nearest, false));
            return true;
        }
        let Some(soonest) = self.book.soonest_like(party) else {
            return false;
        };
        debug_assert!(self.current(&soonest, now).ban.is_some());
        self.book.forget(&soonest);
        effects.push(persist(soonest.clone(), false));
        effects.push(ban_ended(soonest, "displaced"));
        true
    }

    /// A saved or published account, as far as there is room for it.
    fn take_over(&mut self, party: Party, mut account: Account, effects: &mut Vec<Effect>) {
        if let Some(ban) = &mut account.ban {
            ban.until = ban.until.min(ban.since.after(MAX_BAN));
        }
        self.latest = self.latest.max(account.at);
        let room = account.ban.is_some() || !self.book.is_full(&party);
        if room && self.make_room(&party, account.at, effects) {
            self.book.set(party, account);
        } else if self.book.get(&party).is_none() {
            effects.push(persist(party, false));
        }
    }

    fn current(&self, party: &Party, now: Timestamp) -> Account {
        match self.book.get(party) {
            Some(account) => account.at(now, &self.rules),
            None => Account::new(&self.rules, now),
        }
    }

    /// The account to change. A key that nothing is known of begins where the subject that brings
    /// it stands.
    fn opened(&self, party: &Party, subject: Option<&Party>, now: Timestamp) -> Account {
        let known = |party| self.book.get(party);
        match (known(party), subject.and_then(known)) {
            (None, Some(subject)) => Account::of_new_key(subject, now, &self.rules),
            _ => self.current(party, now),
        }
    }

    fn cost(&self, severity: Severity) -> f64 {
        let cost = match severity {
            Severity::BadCredential => self.rules.bad_credential,
            Severity::HandshakeAbuse => self.rules.handshake_abuse,
            Severity::InvalidMessage => self.rules.invalid_message,
        };
        cost.get()
    }
}

#[cfg(test)]
impl Reputation {
    /// What must always hold; used by the property tests.
    pub(super) fn check_invariants(&self) {
        self.book.check_invariants(self.latest);
    }
}
