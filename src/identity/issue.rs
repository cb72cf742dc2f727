//! Issuing: an issuer turns a request into a credential, or lets another issuer do so.
//! The issuer decides everything.
//!
//! Owner: the identity room; run by the operator's command, never by a node. Pure: time and
//! randomness are arguments. It fails with [`IssueError`].

use std::time::Duration;

use thiserror::Error;

use super::{
    Anchor, Chain, Grants, Name, NodeKey, Refusal, TrustAnchor,
    claims::{Attributes, ClaimError, Claims, Groups, Head, Serial, Validity},
    credential::{Credential, TooLong},
    delegation::{Delegation, Mandate, Scope},
    issuer::IssuerKey,
    request::SigningRequest,
    status::MAX_ENTRIES,
    verify::{self, CLOCK_SKEW},
};
use crate::{
    cbor::Malformed,
    types::{Span, Timestamp},
};

/// How long a credential holds unless the issuer says otherwise.
pub const DEFAULT_LIFETIME: Duration = Duration::from_hours(24 * 90);
/// Longest lifetime an issuer may give: what is not revoked by a list lasts this long.
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

/// Why nothing was issued.
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
        "the request was made at {made}, more than {oldest} days ago: have a new one made",
        made = .0, oldest = MAX_REQUEST_AGE.as_secs() / DAY
    )]
    Stale(Timestamp),
    /// The request comes from the future.
    #[error("the request was made at {0}, which is in the future: compare the clocks")]
    Future(Timestamp),
    /// The issuer's status list has no such place.
    #[error("the issuer's status list has no place {0}: it is full")]
    Full(u32),
    /// A claim is out of bounds.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The credential would be too long.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The chain would be too long.
    #[error(transparent)]
    Chain(#[from] Malformed),
    /// A delegate's name must lie under that of who delegates.
    #[error("`{subject}` does not lie under `{issuer}`: an issuer delegates `{issuer}.NAME` alone")]
    NotUnder {
        /// The delegate's name.
        subject: Name,
        /// Who delegates.
        issuer: Name,
    },
    /// The delegation to this issuer is of another name or of other keys.
    #[error("the delegation in this folder is not for this issuer: `{0}` and its keys")]
    NotMine(Name),
    /// What is to be issued is more than this issuer was allowed.
    #[error("the delegation to this issuer does not allow that: {0}")]
    Scope(Refusal),
}

/// Issues a credential for the keys that the request proved.
///
/// # Errors
/// [`IssueError`].
pub fn issue(
    issuer: &IssuerKey,
    request: &SigningRequest,
    grant: &Grant,
    serial: Serial,
    now: Timestamp,
) -> Result<Credential, IssueError> {
    check_age(request.created, now)?;
    let subject = grant.subject.as_ref().unwrap_or(&request.subject);
    let claims = Claims {
        head: head(issuer.name(), subject, grant.lifetime, Some(serial), now)?,
        keys: request.keys.clone(),
        attributes: grant.attributes.clone(),
        groups: grant.groups.clone(),
    };
    Ok(Credential::sign(claims, issuer.signer())?)
}

/// Issues as [`issue`] does, under the delegations to this issuer, the nearest first: what they
/// do not allow is not signed.
///
/// # Errors
/// [`IssueError`].
pub fn issue_chain(
    issuer: &IssuerKey,
    above: &[Delegation],
    request: &SigningRequest,
    grant: &Grant,
    serial: Serial,
    now: Timestamp,
) -> Result<Chain, IssueError> {
    check_mine(issuer, above)?;
    let credential = issue(issuer, request, grant, serial, now)?;
    check_scopes(credential.claims(), above)?;
    Ok(Chain::try_new(credential, above.to_vec())?)
}

/// Lets the issuer of `anchor` issue within `scope`. `above` are the delegations to `issuer`
/// itself, the nearest first.
///
/// # Errors
/// [`IssueError`].
pub fn delegate(
    (issuer, above): (&IssuerKey, &[Delegation]),
    anchor: &Anchor,
    scope: Scope,
    lifetime: Duration,
    serial: Serial,
    now: Timestamp,
) -> Result<Vec<Delegation>, IssueError> {
    check_mine(issuer, above)?;
    if !anchor.issuer.is_under(issuer.name()) {
        return Err(IssueError::NotUnder {
            subject: anchor.issuer.clone(),
            issuer: issuer.name().clone(),
        });
    }
    if anchor.created > now.after(CLOCK_SKEW) {
        return Err(IssueError::Future(anchor.created));
    }
    let mandate = Mandate {
        head: head(issuer.name(), &anchor.issuer, lifetime, Some(serial), now)?,
        keys: anchor.key.clone(),
        scope,
    };
    if let Some(parent) = above.first() {
        let parent = parent.mandate();
        parent
            .scope
            .check_scope(&mandate.scope)
            .map_err(IssueError::Scope)?;
        if mandate.validity.expires() > parent.validity.expires() {
            return Err(IssueError::Scope(Refusal::Denied("scope.outlives".into())));
        }
    }
    let mut all = vec![Delegation::sign(mandate, issuer.signer())?];
    all.extend_from_slice(above);
    Ok(all)
}

/// A node's credential by itself: the same keys as last time, and nothing more.
///
/// # Errors
/// [`IssueError::Lifetime`].
pub fn self_sign(
    key: &NodeKey,
    subject: &Name,
    lifetime: Duration,
    id: [u8; 16],
    now: Timestamp,
) -> Result<Credential, IssueError> {
    let issuer = Name::self_signed(&key.signer().public().thumbprint());
    let mut head = head(&issuer, subject, lifetime, None, now)?;
    head.id = id;
    let claims = Claims {
        head,
        keys: key.public().clone(),
        attributes: Attributes::default(),
        groups: Groups::default(),
    };
    Ok(Credential::sign(claims, key.signer())?)
}

/// How long a delegate's credential holds when nobody says: the usual time, or what is allowed.
#[must_use]
pub fn longest(above: &[Delegation], now: Timestamp) -> Duration {
    let Some(parent) = above.first() else {
        return DEFAULT_LIFETIME;
    };
    let parent = parent.mandate();
    let left = parent.validity.expires().saturating_sub(now.secs());
    DEFAULT_LIFETIME
        .min(parent.scope.max_lifetime.0)
        .min(Duration::from_secs(left))
}

fn check_age(created: Timestamp, now: Timestamp) -> Result<(), IssueError> {
    if created > now.after(CLOCK_SKEW) {
        return Err(IssueError::Future(created));
    }
    if now.since(created) > MAX_REQUEST_AGE {
        return Err(IssueError::Stale(created));
    }
    Ok(())
}

fn check_mine(issuer: &IssuerKey, above: &[Delegation]) -> Result<(), IssueError> {
    match above.first().map(Delegation::mandate) {
        Some(mandate) if mandate.subject != *issuer.name() || mandate.keys != *issuer.public() => {
            Err(IssueError::NotMine(issuer.name().clone()))
        }
        _ => Ok(()),
    }
}

/// By the same rules as a verifier whose anchor grants everything.
fn check_scopes(claims: &Claims, above: &[Delegation]) -> Result<(), IssueError> {
    let Some(root) = above.last().map(Delegation::mandate) else {
        return Ok(());
    };
    let anchor = TrustAnchor {
        issuer: root.issuer.clone(),
        key: root.keys.clone(),
        grants: Grants::default(),
    };
    verify::check_scopes(claims, &anchor, above).map_err(IssueError::Scope)
}

fn head(
    issuer: &Name,
    subject: &Name,
    lifetime: Duration,
    serial: Option<Serial>,
    now: Timestamp,
) -> Result<Head, IssueError> {
    let seconds = lifetime.as_secs();
    if seconds == 0 || lifetime > MAX_LIFETIME {
        return Err(IssueError::Lifetime(lifetime));
    }
    if let Some(serial) = serial.filter(|serial| serial.index >= MAX_ENTRIES) {
        return Err(IssueError::Full(serial.index));
    }
    let start = now.secs();
    Ok(Head {
        issuer: issuer.clone(),
        subject: subject.clone(),
        validity: Validity::try_new(start, start, start.saturating_add(seconds))?,
        id: serial.map(|serial| serial.id).unwrap_or_default(),
        status: serial.map(|serial| serial.index),
        algorithms: Vec::new(), // set by signing: what is required is what is enforced
    })
}
