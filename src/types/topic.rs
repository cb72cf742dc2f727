//! A topic's name.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A topic: 1 to 128 of `A-Z a-z 0-9 . _ - /`, cheap to clone.
///
/// The alphabet keeps names printable in logs and metrics, and free of look-alike letters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// Why a text is no topic.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TopicError {
    /// Empty, or longer than [`Topic::MAX_LEN`].
    #[error("a topic has 1 to {max} characters, not {0}", max = Topic::MAX_LEN)]
    Length(usize),
    /// A character outside the alphabet.
    #[error("a topic may not contain {0:?}: use letters, digits and . _ - /")]
    Character(char),
}

impl Topic {
    /// Longest topic, in characters (and bytes: the alphabet is ASCII).
    pub const MAX_LEN: usize = 128;

    /// Checks and takes a name.
    ///
    /// ```
    /// use quantraband::types::Topic;
    ///
    /// assert!(Topic::try_new("acme/orders.v1").is_ok());
    /// assert!(Topic::try_new("two words").is_err());
    /// ```
    ///
    /// # Errors
    /// As [`TopicError`] says.
    pub fn try_new(name: &str) -> Result<Self, TopicError> {
        if name.is_empty() || name.len() > Self::MAX_LEN {
            return Err(TopicError::Length(name.len()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        match name.chars().find(|c| !allowed(*c)) {
            Some(other) => Err(TopicError::Character(other)),
            None => Ok(Self(name.into())),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        Self::try_new(text)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({})", self.0)
    }
}

impl Serialize for Topic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Topic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::try_new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(Topic::try_new("acme/orders.v1_x-y").is_ok());
        assert_eq!(Topic::try_new(""), Err(TopicError::Length(0)));
        assert_eq!(
            Topic::try_new(&"a".repeat(129)),
            Err(TopicError::Length(129))
        );
        assert_eq!(Topic::try_new("a b"), Err(TopicError::Character(' ')));
        assert_eq!(Topic::try_new("аcme"), Err(TopicError::Character('а')));
    }
}
