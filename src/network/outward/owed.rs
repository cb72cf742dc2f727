//! Whom something was not told, and when all of it is told again.
//!
//! An announcement that could not be delivered is given up in the end. Its receiver must not stay
//! without it for as long as the connection stands: so it is owed everything that is known, at most
//! once a minute and less and less often while that comes to nothing.

use std::{collections::BTreeMap, time::Duration};

/// Time from the first announcement that was given up until all is told again.
const FIRST_WAIT: Duration = Duration::from_secs(60);
/// The longest time, after it was in vain again and again.
const LONGEST_WAIT: Duration = Duration::from_secs(16 * 60);
/// Destinations that are remembered; there are no more connections than that.
const MAX_OWED: usize = super::MAX_DESTINATIONS;

#[derive(Debug)]
struct Debt {
    /// Whether it has been told all since.
    owed: bool,
    /// When it may be told at the earliest.
    due: Duration,
    wait: Duration,
}

/// See the module. Pure: time is the clock's `elapsed`.
#[derive(Debug)]
pub struct Owed<K>(BTreeMap<K, Debt>);

impl<K> Default for Owed<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Copy + Ord> Owed<K> {
    /// Something was not told, and is given up.
    pub fn owe(&mut self, to: K, now: Duration) {
        self.note(to, now, FIRST_WAIT);
    }

    /// It answers again, after a time in which it was not called. It is told at once, unless it was
    /// within the last minute.
    pub fn answers_again(&mut self, to: K, now: Duration) {
        self.note(to, now, Duration::ZERO);
        if let Some(debt) = self.0.get_mut(&to) {
            debt.due = debt.due.min(now.saturating_add(FIRST_WAIT));
            debt.wait = FIRST_WAIT;
        }
    }

    fn note(&mut self, to: K, now: Duration, wait: Duration) {
        if self.0.len() >= MAX_OWED && !self.0.contains_key(&to) {
            return;
        }
        let debt = self.0.entry(to).or_insert(Debt {
            owed: true,
            due: now.saturating_add(wait),
            wait: FIRST_WAIT,
        });
        debt.owed = true;
    }

    /// It took what it was told.
    pub fn heard(&mut self, to: &K, now: Duration) {
        let settled = |debt: &Debt| !debt.owed && debt.due <= now;
        if self.0.get(to).is_some_and(settled) {
            self.0.remove(to);
        }
    }

    /// It is gone; when it comes again it is told all anyway.
    pub fn forget(&mut self, to: &K) {
        self.0.remove(to);
    }

    /// Who is to be told all now.
    pub fn due(&mut self, now: Duration) -> Vec<K> {
        let mut due = Vec::new();
        for (to, debt) in &mut self.0 {
            if debt.owed && debt.due <= now {
                debt.owed = false;
                debt.due = now.saturating_add(debt.wait);
                debt.wait = debt.wait.saturating_mul(2).min(LONGEST_WAIT);
                due.push(*to);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn what_was_given_up_is_told_again_while_the_connection_stands() {
        let mut owed = Owed::default();
        owed.owe(1, secs(0));
        owed.owe(1, secs(30));
        assert_eq!(owed.due(secs(59)), [0; 0]);
        assert_eq!(owed.due(secs(60)), [1]);
        assert_eq!(owed.due(secs(1_000)), [0; 0], "once");
        owed.heard(&1, secs(1_000));
        assert!(owed.0.is_empty());
        owed.owe(1, secs(0));
        owed.forget(&1);
        assert_eq!(owed.due(secs(1_000)), [0; 0]);
    }

    #[test]
    fn who_never_takes_it_is_told_less_and_less_often() {
        let mut owed = Owed::default();
        let mut told = 0;
        for second in 0..3_600 {
            owed.owe(1, secs(second));
            told += owed.due(secs(second)).len();
        }
        assert!((4..=8).contains(&told), "{told} times in an hour");
    }

    #[test]
    fn who_answers_again_is_told_at_once_but_not_without_end() {
        let mut owed = Owed::default();
        owed.answers_again(1, secs(5));
        assert_eq!(owed.due(secs(5)), [1]);
        // Whoever makes its breaker open and close gains nothing by it.
        let mut told = 0;
        for second in 6..606 {
            owed.answers_again(1, secs(second));
            told += owed.due(secs(second)).len();
        }
        assert!(told <= 10, "{told} times in ten minutes");
        // The long wait of one that never took anything is over when it answers.
        let mut owed = Owed::default();
        for second in 0..3_600 {
            owed.owe(1, secs(second));
            owed.due(secs(second));
        }
        owed.answers_again(1, secs(3_600));
        assert_eq!(owed.due(secs(3_660)), [1]);
    }

    #[test]
    fn debts_are_bounded() {
        let mut owed = Owed::default();
        for n in 0..MAX_OWED + 10 {
            owed.owe(n, secs(0));
        }
        assert_eq!(owed.0.len(), MAX_OWED);
    }
}
