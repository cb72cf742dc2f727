//! What can be wrong with a configuration, said so that it can be put right at once: the file
//! and line (or the variable or flag), the key, what is wrong, what would be right.

use std::{fmt, io, path::PathBuf};

use thiserror::Error;

use super::describe::Origin;

/// Why no configuration was loaded.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// There is none in any of the usual places.
    #[error(
        "no configuration found (looked at {}); make one with `quantraband init --dir DIR`, \
         or name one with --config FILE",
        list(.looked_at)
    )]
    NotFound {
        /// The places, in order.
        looked_at: Vec<PathBuf>,
    },
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}; check the path and its permissions", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error(
        "{}: larger than {limit} bytes, so it is not a configuration of this program; \
         check the path given with --config",
        .path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Most bytes read.
        limit: u64,
    },
    /// The content is wrong; every problem found, in order of the file.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// The problems of the content; empty for the other kinds.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid(problems) => problems,
            Self::NotFound { .. } | Self::Unreadable { .. } | Self::TooLarge { .. } => &[],
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the value comes from.
    pub place: Place,
    /// The key, as `section.key`; empty when the file cannot be read as TOML at all.
    pub key: String,
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.wrong, self.remedy)
    }
}

/// Where a wrong value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A line of the file, counted from 1.
    Line(PathBuf, usize),
    /// An environment variable.
    Env(String),
    /// A flag of the command line.
    Flag,
    /// A default that does not fit the other values.
    Default,
}

impl Place {
    /// The place of a value of this origin.
    #[must_use]
    pub fn of(origin: &Origin, file: &std::path::Path) -> Self {
        match origin {
            Origin::File { line } => Self::Line(file.to_owned(), *line),
            Origin::Env { variable } => Self::Env(variable.clone()),
            Origin::Flag => Self::Flag,
            Origin::Default => Self::Default,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Env(variable) => write!(f, "environment variable {variable}"),
            Self::Flag => f.write_str("command line"),
            Self::Default => f.write_str("default value"),
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    names.join(", ")
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}
