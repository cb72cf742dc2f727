//! A set of policies, loaded and sorted for use. See `load` for what is refused.

use std::{collections::HashMap, fmt, sync::Arc};

use super::{Action, Obligation, Place, PolicyError, PolicyHash, Rule, load, names::Names};

/// The policies that come with the program, as file name and text.
pub const BUILT_IN: (&str, &str) = (
    "default.cedar",
    include_str!("../../config/policies/default.cedar"),
);

/// The tests that lie beside them, as file name and text.
pub const BUILT_IN_TESTS: (&str, &str) = (
    "default.test.toml",
    include_str!("../../config/policies/default.test.toml"),
);

/// Policies that were parsed, validated and sorted. Cheap to clone, never changed.
#[derive(Clone)]
pub struct PolicySet(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) names: &'static Names,
    pub(super) hash: PolicyHash,
    /// One for each of [`Action::JUDGED`], in that order.
    pub(super) scopes: Vec<Scope>,
    pub(super) known: HashMap<Rule, Known>,
    pub(super) mentions: Mentions,
    pub(super) warnings: Vec<String>,
    pub(super) files: Vec<(String, String)>,
}

/// The policies that an action is judged by. The others could neither match nor err, since a
/// policy's scope comes before its conditions.
pub(super) struct Scope {
    pub(super) all: cedar_policy::PolicySet,
    pub(super) permits: cedar_policy::PolicySet,
    pub(super) permit_names: Arc<[Rule]>,
}

/// What is known of one policy besides what Cedar knows.
pub(super) struct Known {
    pub(super) permit: bool,
    pub(super) obligation: Option<Obligation>,
    pub(super) advice: Option<Arc<str>>,
    pub(super) place: Place,
}

/// What the policies of a set read that changes often, or costs much to tell them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mentions {
    /// `context.now`.
    pub(super) now: bool,
    /// `context.ip`.
    pub(super) ip: bool,
}

impl Mentions {
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            now: self.now || other.now,
            ip: self.ip || other.ip,
        }
    }
}

impl PolicySet {
    /// Parses, checks and sorts policies: the files' names and texts.
    ///
    /// # Errors
    /// [`PolicyError`]: all that is wrong, each with its place.
    pub fn load(files: &[(String, String)]) -> Result<Self, PolicyError> {
        load::load(files)
    }

    /// The policies that come with the program.
    ///
    /// # Errors
    /// [`PolicyError`], never in a program whose tests passed.
    pub fn built_in() -> Result<Self, PolicyError> {
        let (name, text) = BUILT_IN;
        Self::load(&[(name.to_owned(), text.to_owned())])
    }

    /// SHA-256 over the files' names and texts.
    #[must_use]
    pub fn hash(&self) -> PolicyHash {
        self.0.hash
    }

    /// Policies in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.known.len()
    }

    /// Whether it has none: then everything is denied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.known.is_empty()
    }

    /// What the validation warned of; no reason to refuse the set.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.0.warnings
    }

    /// The files, by name, as they were given.
    #[must_use]
    pub fn files(&self) -> &[(String, String)] {
        &self.0.files
    }

    /// Where a policy is written.
    #[must_use]
    pub fn place(&self, rule: &Rule) -> Option<&Place> {
        self.0.known.get(rule).map(|known| &known.place)
    }

    /// Whether verdicts hold for one second only, since a policy reads `context.now`.
    #[must_use]
    pub fn reads_time(&self) -> bool {
        self.0.mentions.now
    }

    pub(super) fn scope(&self, action: Action) -> Option<&Scope> {
        let mut pairs = Action::JUDGED.iter().zip(&self.0.scopes);
        pairs.find(|(one, _)| **one == action).map(|(_, set)| set)
    }
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicySet({}, {} policies)", self.0.hash, self.len())
    }
}
