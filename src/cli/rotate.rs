//! `identity rotate`: this node changes its keys; and the issuer's answer to that without a network.
//!
//! A request in a file is the continuity statement and then the node's present credential, as a CBOR
//! sequence: the statement is signed by the credential's keys, so no connection has to prove them.
//! It fails with [`EnrolError`].

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    args::{Global, RotateArgs},
    config::load,
    enrol::EnrolError,
    exit::CliError,
    identity::{CredentialReport, IssueArgs, IssueReport, PUBLIC_MODE, judge, next_serial},
    output::Out,
};
use crate::{
    cbor,
    identity::{
        CLOCK_SKEW, Chain, Continuity, ContinuityError, Credential, Delegation, Grant, Groups,
        IdentityPaths, IssueError, IssuerKey, MAX_CONTINUITY_BYTES, MAX_CREDENTIAL_BYTES, Name,
        Refusal, TrustAnchors, create_new, issue_chain, longest, read_bounded, remove, rotation,
        rotations, status::Folder,
    },
    types::{Clock, PeerId, SystemClock, Timestamp},
};

/// Longest request of a node that changes its keys: the statement and a credential.
pub(super) const MAX_ROTATION_REQUEST: usize = MAX_CONTINUITY_BYTES + MAX_CREDENTIAL_BYTES;

/// How far a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RotationState {
    /// The issuer has not given a credential for the next keys.
    Asking,
    /// It has: the next start changes the keys.
    Ready,
    /// It has happened, and the next start has the log told.
    Changed,
}

impl RotationState {
    /// For a person.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Asking => "waiting for its credential",
            Self::Ready => "from the next start on",
            Self::Changed => "changed",
        }
    }
}

/// A rotation that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RotationReport {
    /// Who this node will be.
    pub next_peer_id: PeerId,
    /// Who it is.
    pub former_peer_id: PeerId,
    /// Its issuer.
    pub issuer: Name,
    /// Its name.
    pub subject: Name,
    /// The sequence of its statement.
    pub sequence: u64,
    /// When the statement was made.
    pub since: Timestamp,
    /// How far it is.
    pub state: RotationState,
}

impl RotationReport {
    fn of(pending: &rotation::Pending, paths: &IdentityPaths) -> Self {
        let statement = &pending.statement;
        let state = match (&pending.chain, paths.next_key().exists()) {
            (_, false) => RotationState::Changed,
            (None, true) => RotationState::Asking,
            (Some(_), true) => RotationState::Ready,
        };
        Self {
            next_peer_id: statement.new_keys().peer,
            former_peer_id: statement.former(),
            issuer: statement.issuer().clone(),
            subject: statement.subject().clone(),
            sequence: statement.sequence(),
            since: statement.created(),
            state,
        }
    }
}

/// The rotation that is under way.
///
/// # Errors
/// [`EnrolError`].
pub(super) fn under_way(paths: &IdentityPaths) -> Result<Option<RotationReport>, EnrolError> {
    let pending = rotation::pending(paths)?;
    Ok(pending.map(|pending| RotationReport::of(&pending, paths)))
}

/// Answer of `identity rotate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct RotateReport {
    /// What is under way; `None`: it was given up.
    pub rotation: Option<RotationReport>,
    /// Whether it was under way before.
    pub before: bool,
    /// Whether it takes the place of one that was given up after it was stated.
    pub replaces: bool,
    /// The request for an issuer that no node reaches.
    pub request: Option<PathBuf>,
}

impl RotateReport {
    /// Writes the request of what is under way.
    fn of(
        pending: &rotation::Pending,
        (before, replaces): (bool, bool),
        paths: &IdentityPaths,
        out: &Path,
    ) -> Result<Self, EnrolError> {
        let rotation = RotationReport::of(pending, paths);
        let mut request = None;
        if rotation.state == RotationState::Asking {
            let chain = super::identity::read_chain(&paths.credential())?;
            let mut bytes = pending.statement.as_bytes().to_vec();
            bytes.extend_from_slice(chain.credential().as_bytes());
            rotation::stating(paths, &pending.statement)?;
            // The same again, as long as it is the same rotation.
            if read_bounded(out, MAX_ROTATION_REQUEST).ok().as_ref() != Some(&bytes) {
                create_new(out, &bytes, PUBLIC_MODE)?;
            }
            request = Some(out.to_owned());
        }
        Ok(Self {
            rotation: Some(rotation),
            before,
            replaces,
            request,
        })
    }
}

/// Begins a rotation, or shows the one that is under way, and writes its request.
///
/// # Errors
/// [`EnrolError`].
pub(super) fn rotate(
    paths: &IdentityPaths,
    out: &Path,
    now: Timestamp,
) -> Result<RotateReport, EnrolError> {
    let (pending, before) = rotation::begin(paths, now)?;
    RotateReport::of(&pending, (before, false), paths, out)
}

/// Gives the rotation under way up; what was stated is replaced.
fn abandon(paths: &IdentityPaths, out: &Path, now: Timestamp) -> Result<RotateReport, EnrolError> {
    let given_up = rotation::pending(paths).ok().flatten();
    let instead = rotation::abandon(paths, now)?;
    // Its request would stand in the way of the next one, and must not be handed on.
    let of_it = |bytes: Vec<u8>| {
        given_up.is_some_and(|given_up| bytes.starts_with(given_up.statement.as_bytes()))
    };
    if read_bounded(out, MAX_ROTATION_REQUEST).is_ok_and(of_it) {
        remove(out)?;
    }
    match instead {
        Some(pending) => RotateReport::of(&pending, (false, true), paths, out),
        None => Ok(RotateReport {
            rotation: None,
            before: true,
            replaces: false,
            request: None,
        }),
    }
}

/// The command.
///
/// # Errors
/// As [`rotate`].
pub(super) fn command(args: &RotateArgs, global: &Global, out: &Out) -> Result<(), CliError> {
    let paths = IdentityPaths::new(load(global)?.data_dir);
    let now = SystemClock::new().now();
    let report = match args.abandon {
        true => abandon(&paths, &args.out, now)?,
        false => rotate(&paths, &args.out, now)?,
    };
    out.answer("quantraband.identity-rotate/1", &report, || {
        text(&report, out)
    })
}

fn text(report: &RotateReport, out: &Out) -> String {
    let Some(rotation) = &report.rotation else {
        return "the rotation was given up, and the next keys were erased".to_owned();
    };
    let items = out.list(&[
        ("node", format!("{}/{}", rotation.issuer, rotation.subject)),
        ("is", rotation.former_peer_id.to_string()),
        ("will be", rotation.next_peer_id.to_string()),
        ("sequence", rotation.sequence.to_string()),
    ]);
    let next = match (rotation.state, &report.request) {
        (RotationState::Asking, Some(file)) => format!(
            "Next: a running node asks its issuer by itself (`quantraband identity show` tells). \
             Where it reaches none, hand {} to the issuer, who runs `quantraband identity issue \
             FILE`, and `quantraband identity import` what comes back. Then start the node anew",
            file.display()
        ),
        (RotationState::Ready, _) => {
            "Next: the credential is there: start the node anew, and put the new PeerId where \
             other nodes name this one (`network.bootstrap`)"
                .to_owned()
        }
        _ => "Next: start the node".to_owned(),
    };
    let replaces = match report.replaces {
        true => {
            "\nThe rotation before was given up, but its statement may have been answered. Then the \
             present credential ends all the same (`issuer.rotation_grace` of the issuer), and \
             this rotation takes its place: it must come to its end by then"
        }
        false => "",
    };
    format!("{items}{next}{replaces}")
}

/// Takes the credential for the next keys; `None`: it is not of those.
///
/// # Errors
/// [`EnrolError`].
pub(super) fn import(
    paths: &IdentityPaths,
    file: &Path,
    chain: &Chain,
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<Option<PathBuf>, EnrolError> {
    let keys = &chain.credential().claims().keys;
    let pending = rotation::pending(paths)?;
    let pending = pending.filter(|pending| pending.statement.new_keys() == keys);
    let Some(pending) = pending.filter(|_| paths.next_key().exists()) else {
        return Ok(None);
    };
    judge(file, chain, keys.peer, anchors, now)?;
    rotation::adopt(paths, &pending.statement, chain)?;
    Ok(Some(paths.next_credential()))
}

/// What a request of a node that changes its keys holds.
pub(super) struct Found {
    statement: Continuity,
    credential: Credential,
}

impl Found {
    fn shown(&self) -> rotations::Shown {
        let claims = self.credential.claims();
        rotations::Shown {
            issued: Timestamp::from_secs(claims.validity.issued()),
            indexes: claims.status.into_iter().collect(),
        }
    }
}

/// Reads a request of a node that changes its keys; `None`: the file is none.
///
/// # Errors
/// [`EnrolError`].
pub(super) fn read_request(path: &Path, bytes: &[u8]) -> Result<Option<Found>, EnrolError> {
    let Ok(parts) = cbor::sequence(bytes, 2, MAX_CONTINUITY_BYTES) else {
        return Ok(None);
    };
    let [statement, credential] = parts.as_slice() else {
        return Ok(None);
    };
    let statement = Continuity::open(statement).map_err(|why| EnrolError::Continuity {
        path: path.into(),
        why,
    })?;
    let credential = Credential::decode(credential).map_err(|why| EnrolError::Credential {
        path: path.into(),
        why,
    })?;
    Ok(Some(Found {
        statement,
        credential,
    }))
}

/// What an issuer knows of a node that changed its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RotatedReport {
    /// Who it was.
    pub former_peer_id: PeerId,
    /// The sequence of its statement.
    pub sequence: u64,
    /// Entries of the status list that are to be taken back once it has its new keys.
    pub take_back: Vec<u32>,
}

/// What the issuer does next.
pub(super) fn take_back_hint(rotated: &RotatedReport, dir: &Path) -> String {
    let old = rotated.take_back.iter().map(|index| {
        format!(
            "\nOnce it runs with its new keys: `quantraband identity revoke --issuer {} --index \
             {index}`",
            dir.display()
        )
    });
    old.collect()
}

/// Whether the request is of a node of this issuer that nothing was taken back from.
fn check(
    args: &IssueArgs,
    issuer: &IssuerKey,
    found: &Found,
    now: Timestamp,
) -> Result<(), EnrolError> {
    let refused = |refusal: Refusal| EnrolError::Refused {
        path: args.request.clone(),
        refusal,
    };
    let (statement, claims) = (&found.statement, found.credential.claims());
    let signed = found.credential.verify_signatures(issuer.public());
    signed.map_err(refused)?;
    if now >= Timestamp::from_secs(claims.validity.expires()) {
        let expired = Refusal::Expired(Timestamp::from_secs(claims.validity.expires()));
        return Err(refused(expired));
    }
    let list = Folder::new(&args.dir, issuer);
    if claims.status.is_some_and(|index| list.is_revoked(index)) {
        return Err(refused(Refusal::Revoked));
    }
    let names = (issuer.name(), &claims.subject);
    let leads = statement.leads_to(Some(statement.new_keys()), names);
    leads.map_err(refused)?;
    if !statement.is_from(&claims.keys) || claims.issuer != *issuer.name() {
        return Err(refused(Refusal::WrongKey));
    }
    if statement.created() > now.after(CLOCK_SKEW) {
        return Err(IssueError::Future(statement.created()).into());
    }
    Ok(())
}

/// Issues for the new keys what the old ones had.
///
/// # Errors
/// [`EnrolError`].
pub(super) fn issue(
    args: &IssueArgs,
    issuer: &IssuerKey,
    above: &[Delegation],
    found: &Found,
    now: Timestamp,
) -> Result<IssueReport, EnrolError> {
    check(args, issuer, found, now)?;
    let (statement, claims) = (&found.statement, found.credential.claims());
    let asked = &args.grant;
    let nothing = (&Groups::default(), &Grant::default().attributes, None);
    if (&asked.groups, &asked.attributes, asked.subject.as_ref()) != nothing {
        return Err(EnrolError::RotationGrant(args.request.clone()));
    }
    let subject = &claims.subject;
    let known = rotations::load(&args.dir, subject)?;
    let not_taken = |why| EnrolError::NotTaken {
        path: args.request.clone(),
        why,
    };
    let weighed = rotations::weigh(known.as_ref(), statement, &found.shown(), now);
    let (chain, old) = match weighed.map_err(not_taken)? {
        rotations::Weighed::Answered(chain, _) => {
            let old = known.map(|known| known.old().to_vec()).unwrap_or_default();
            (*chain, old)
        }
        rotations::Weighed::New(old) => {
            let grant = Grant {
                subject: Some(subject.clone()),
                groups: claims.groups.clone(),
                attributes: claims.attributes.clone(),
                lifetime: args.lifetime.unwrap_or_else(|| longest(above, now)),
            };
            let serial = next_serial(&args.dir)?;
            let request = statement.request();
            let chain = issue_chain(issuer, above, &request, &grant, serial, now)?;
            // A node that issues from this folder takes the old ones back when it sees the new
            // keys; where there is none, the operator does.
            let until = Timestamp::from_secs(claims.validity.expires());
            let record =
                rotations::answered(known.as_ref(), statement, &chain, old.clone(), (now, until));
            rotations::save(&args.dir, subject, &record)?;
            (chain, old)
        }
    };
    let bytes = chain.encode();
    // The same again, should the first have been lost half way.
    if read_bounded(&args.out, bytes.len()).ok().as_ref() != Some(&bytes) {
        create_new(&args.out, &bytes, PUBLIC_MODE)?;
    }
    Ok(IssueReport {
        credential: CredentialReport::of(&chain),
        wished: statement.request(),
        rotated: Some(RotatedReport {
            former_peer_id: statement.former(),
            sequence: statement.sequence(),
            take_back: old,
        }),
        file: args.out.clone(),
    })
}

impl From<ContinuityError> for EnrolError {
    fn from(why: ContinuityError) -> Self {
        Self::Rotation(why.into())
    }
}
