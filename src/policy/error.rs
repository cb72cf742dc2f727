//! What can be wrong with policies, said so that it can be put right at once: file, line and
//! column, what is wrong, what would be right.

use std::fmt;

use thiserror::Error;

/// Why a set was not loaded; every fault found, at most 100.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", lines(.0))]
pub struct PolicyError(pub Vec<Fault>);

/// Most faults that are told at once: whoever has more mends these first.
pub(super) const MAX_FAULTS: usize = 100;
/// Longest message of the policy engine that is passed on, in characters.
const MAX_MESSAGE: usize = 400;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where; `None` when it is about the set as a whole.
    pub place: Option<Place>,
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub remedy: String,
}

/// A place in a file, counted from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file's name.
    pub file: String,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// The place `offset` bytes into `text`.
    pub(super) fn at(file: &str, text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |end| end.saturating_add(1));
        let column = before.get(start..).unwrap_or_default().chars().count();
        Self {
            file: file.to_owned(),
            line: before.matches('\n').count().saturating_add(1),
            column: column.saturating_add(1),
        }
    }

    /// The beginning of a file.
    pub(super) fn start(file: &str) -> Self {
        Self::at(file, "", 0)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Fault {
    pub(super) fn new(
        place: Option<Place>,
        wrong: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            place,
            wrong: wrong.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}; {}", self.wrong, self.remedy)
    }
}

impl PolicyError {
    pub(super) fn one(
        place: Option<Place>,
        wrong: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self(vec![Fault::new(place, wrong, remedy)])
    }
}

/// Bounded, on one line, without control characters: messages quote what others wrote.
pub(super) fn clean(message: &str) -> String {
    let printable = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    printable.take(MAX_MESSAGE).collect()
}

fn lines(faults: &[Fault]) -> String {
    let lines: Vec<_> = faults.iter().map(Fault::to_string).collect();
    lines.join("\n")
}
