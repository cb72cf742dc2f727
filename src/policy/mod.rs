//! Who may do what: one decision, deny by default, fail closed.
//!
//! Three layers, each pure:
//!
//! 1. the *floor* ([`floor`]): what no policy may lift. Identity, bans, revocation, what a
//!    limited tier may do. Rust, judged at every call, never remembered.
//! 2. the *policies* ([`PolicySet`], [`evaluate`]): Cedar, over the [`Facts`] of a request.
//! 3. the *cache* ([`Cache`]): verdicts by the facts themselves, so that it can be neither stale
//!    nor wrong: whatever changes an attribute makes another key, whatever changes the policies
//!    empties it.
//!
//! [`judge`] runs the three. The only room that knows Cedar.
//!
//! Cedar leaves four things to its user, and this is where they are: a policy that errs is skipped
//! (here the request is denied, for it might have been a `forbid`); a default deny has no reason
//! (here it names the permits that were missed); obligations do not exist (here they are
//! annotations of forbids, and count only where the request would be permitted without these);
//! numbers may overflow (here every number of a request is bounded).

mod build;
mod cache;
mod cases;
mod decision;
mod error;
mod evaluate;
mod explain;
mod facts;
mod floor;
mod folder;
mod load;
mod names;
mod request;
mod set;
mod settings;
mod sketch;

pub use cache::{Cache, Rules, judge};
pub use cases::{TestResult, run_tests};
pub use decision::{
    Decision, DenyReason, Obligation, PolicyHash, Rule, ShadowVerdict, StepUp, Verdict,
};
pub use error::{Fault, Place, PolicyError};
pub use evaluate::evaluate;
pub use explain::{Determining, Explanation, Failed, Missed, explain};
pub use facts::{Context, Facts, Principal, Resource, TopicFacts};
pub use floor::{Floor, floor};
pub use folder::{Stock, read_dir};
pub use names::SCHEMA;
pub use request::{Action, Request, Subject};
pub use set::{BUILT_IN, BUILT_IN_TESTS, PolicySet};
pub use settings::Settings;
pub use sketch::{SKETCH_NOW, Sketch, SketchContext, SketchPrincipal};

#[cfg(test)]
mod tests;
