//! A trust score: a finite number from 0 to 1.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Trust in a peer, 0 (none) to 1 (full); never NaN.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct TrustScore(f64);

/// Why a number is no trust score.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
#[error("a trust score is a number from 0 to 1, not {0}")]
pub struct ScoreError(f64);

impl TrustScore {
    /// No trust at all.
    pub const ZERO: Self = Self(0.0);
    /// Full trust.
    pub const ONE: Self = Self(1.0);
    /// Nothing known, good or bad.
    pub const NEUTRAL: Self = Self(0.5);

    /// Checks that `value` lies in 0..=1.
    ///
    /// # Errors
    /// [`ScoreError`] for anything outside, NaN included.
    pub fn try_new(value: f64) -> Result<Self, ScoreError> {
        if (0.0..=1.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(ScoreError(value))
        }
    }

    /// The nearest score to `value`; NaN becomes [`TrustScore::ZERO`], the cautious end.
    #[must_use]
    pub fn saturating(value: f64) -> Self {
        if value.is_nan() {
            Self::ZERO
        } else {
            Self(value.clamp(0.0, 1.0))
        }
    }

    /// The number itself, 0 to 1.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for TrustScore {
    type Error = ScoreError;

    fn try_from(value: f64) -> Result<Self, ScoreError> {
        Self::try_new(value)
    }
}

impl From<TrustScore> for f64 {
    fn from(score: TrustScore) -> Self {
        score.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_zero_to_one() {
        for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(TrustScore::try_new(bad).is_err());
        }
        assert_eq!(TrustScore::saturating(f64::NAN), TrustScore::ZERO);
        assert_eq!(TrustScore::saturating(7.0), TrustScore::ONE);
    }
}
