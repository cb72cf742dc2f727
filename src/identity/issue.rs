//! Issuing: an issuer turns a request into a credential. The issuer decides everything.
//!
//! Owner: the identity room; run by the operator's command, never by a node. Pure: time and
//! randomness are arguments. It fails with [`IssueError`].

use std::time::Duration;

use thiserror::Error;

use super::{
    Name,
    claims::{Attributes, ClaimError, Claims, Groups, Validity},
    credential::{Credential, TooLong},
    issuer::IssuerKey,
    request::SigningRequest,
    verify::CLOCK_SKEW,
};
use crate::types::{Span, Timestamp};

/// How long a credential holds unless the issuer says otherwise.
pub const DEFAULT_LIFETIME: Duration = Duration::from_hours(24 * 90);
/// Longest lifetime an issuer may give: without revocation, a mistake lasts this long.
pub const MAX_LIFETIME: Duration = Duration::from_hours(24 * 365);
/// Oldest request that is served: an older one may be of a key that was given up since.
pub const MAX_REQUEST_AGE: Duration = Duration::from_hours(24 * 30);

/// Seconds of a day.
const DAY: u64 = 86_400;

/// What the issuer grants. Nothing is taken over from the request but, by default, the subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The subject; `None` takes the one the request wishes.
    pub subject: Option<Name>,
    /// Groups, without the issuer's prefix.
    pub groups: Groups,
    /// Attributes.
    pub attributes: Attributes,
    /// How long it holds, in whole seconds.
    pub lifetime: Duration,
}

impl Default for Grant {
    fn default() -> Self {
        Self {
            subject: None,
            groups: Groups::default(),
            attributes: Attributes::default(),
            lifetime: DEFAULT_LIFETIME,
        }
    }
}

/// Why no credential was issued.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IssueError {
    /// The lifetime is zero or too long.
    #[error(
        "a lifetime of {span} is not possible: between 1s and {longest} days are",
        span = Span(*.0), longest = MAX_LIFETIME.as_secs() / DAY
    )]
    Lifetime(Duration),
    /// The request is too old.
    #[error(
        "the request was made at {made}, more than {oldest} days ago: have the node make a new one",
        made = .0, oldest = MAX_REQUEST_AGE.as_secs() / DAY
    )]
    Stale(Timestamp),
    /// The request comes from the future.
    #[error("the request was made at {0}, which is in the future: compare the clocks")]
    Future(Timestamp),
    /// A claim is out of bounds.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The credential would be too long.
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// Issues a credential for the key that the request proved. `id` is random.
///
/// # Errors
/// [`IssueError`].
pub fn issue(
    issuer: &IssuerKey,
    request: &SigningRequest,
    grant: &Grant,
    id: [u8; 16],
    now: Timestamp,
) -> Result<Credential, IssueError> {
    if request.created > now.after(CLOCK_SKEW) {
        return Err(IssueError::Future(request.created));
    }
    if now.since(request.created) > MAX_REQUEST_AGE {
        return Err(IssueError::Stale(request.created));
    }
    let seconds = grant.lifetime.as_secs();
    if seconds == 0 || grant.lifetime > MAX_LIFETIME {
        return Err(IssueError::Lifetime(grant.lifetime));
    }
    let start = now.secs();
    let claims = Claims {
        issuer: issuer.name().clone(),
        subject: grant
            .subject
            .clone()
            .unwrap_or_else(|| request.subject.clone()),
        validity: Validity::try_new(start, start, start.saturating_add(seconds))?,
        id,
        key: request.peer,
        algorithms: Vec::new(), // set by signing: what is required is what is enforced
        attributes: grant.attributes.clone(),
        groups: grant.groups.clone(),
    };
    Ok(Credential::sign(claims, issuer.signing())?)
}
