//! `identity request | issuer … | issue | delegate | self-sign | import | show | verify`: enrolment,
//! without a node.
//!
//! Each function takes typed arguments, does its file work atomically, and returns a report that
//! serialises. None needs a running node; a running one is told to reload afterwards. Files that
//! exist are not overwritten, but the node's own credential, which is replaced as a whole and only
//! by one that verifies. It fails with [`EnrolError`].

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use super::{
    delegation,
    enrol::{EnrolError, hint},
    rotate::{self, MAX_ROTATION_REQUEST, RotatedReport, RotationReport},
};
use crate::{
    identity::{
        Anchor, AnchorError, Attributes, Chain, Grant, ISSUER_KEY_FILE, IdentityPaths, IssuerKey,
        MAX_CHAIN_BYTES, MAX_REQUEST_BYTES, Name, NodeKey, Refusal, SelfSigned, Serial,
        SigningRequest, Thumbprint, TrustAnchor, TrustAnchors, VerifiedIdentity,
        anchor::MAX_ANCHOR_BYTES, create_new, issue_chain, longest, make_dir, read_bounded, state,
        take_index, verify_chain, write_atomic,
    },
    types::{PeerId, Timestamp},
};

/// Mode of files made to be handed to others.
pub(super) const PUBLIC_MODE: u32 = 0o644;
/// Mode of files inside the data directory.
pub(super) const PRIVATE_MODE: u32 = 0o600;

/// Arguments of `identity request`.
#[derive(Debug, Clone)]
pub struct RequestArgs {
    /// The subject to ask for.
    pub subject: Name,
    /// Attributes to ask for.
    pub attributes: Attributes,
    /// The file to write; must not exist.
    pub out: PathBuf,
}

/// Answer of `identity request`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestReport {
    /// This node.
    pub peer_id: PeerId,
    /// The subject asked for.
    pub subject: Name,
    /// The attributes asked for.
    pub attributes: Attributes,
    /// The file written, to be handed to the issuer.
    pub request: PathBuf,
}

/// Writes a signing request for this node's key.
///
/// # Errors
/// [`EnrolError`].
pub fn request(
    paths: &IdentityPaths,
    args: &RequestArgs,
    now: Timestamp,
) -> Result<RequestReport, EnrolError> {
    let key = NodeKey::load(&paths.node_key())?;
    let bytes = SigningRequest::seal(&key, &args.subject, &args.attributes, now);
    create_new(&args.out, &bytes, PUBLIC_MODE)?;
    Ok(RequestReport {
        peer_id: key.peer(),
        subject: args.subject.clone(),
        attributes: args.attributes.clone(),
        request: args.out.clone(),
    })
}

/// Answer of `identity issuer init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IssuerReport {
    /// The issuer.
    pub issuer: Name,
    /// The name of its key, to be compared by people.
    pub thumbprint: Thumbprint,
    /// The secret key's file.
    pub key: PathBuf,
    /// The anchor, to be handed to whoever shall trust this issuer.
    pub anchor: PathBuf,
}

/// Makes an issuer in a directory. A second call that finds the key but no anchor (the first was
/// interrupted) completes the work; a key is never overwritten.
///
/// # Errors
/// [`EnrolError`].
pub fn issuer_init(name: &Name, dir: &Path, now: Timestamp) -> Result<IssuerReport, EnrolError> {
    if name.is_self_signed() {
        return Err(EnrolError::Anchor {
            path: dir.into(),
            why: AnchorError::Reserved(name.clone()),
        });
    }
    make_dir(dir)?;
    let key_path = dir.join(ISSUER_KEY_FILE);
    let anchor_path = dir.join(format!("{name}.anchor"));
    let unfinished = key_path.exists() && !anchor_path.exists();
    let key = if unfinished {
        IssuerKey::load(&key_path)?
    } else {
        IssuerKey::create(&key_path, name.clone())?
    };
    if key.name() != name {
        return Err(EnrolError::OtherIssuer {
            path: dir.into(),
            found: key.name().clone(),
            wanted: name.clone(),
        });
    }
    create_new(&anchor_path, &Anchor::seal(&key, now), PUBLIC_MODE)?;
    Ok(IssuerReport {
        issuer: name.clone(),
        thumbprint: key.public().thumbprint(),
        key: key_path,
        anchor: anchor_path,
    })
}

/// Arguments of `identity issue`.
#[derive(Debug, Clone)]
pub struct IssueArgs {
    /// The issuer's directory.
    pub dir: PathBuf,
    /// The signing request.
    pub request: PathBuf,
    /// What is granted; its lifetime is not read.
    pub grant: Grant,
    /// How long it holds; `None`: the usual time, or as long as the issuer may.
    pub lifetime: Option<Duration>,
    /// The file to write; must not exist.
    pub out: PathBuf,
}

/// Answer of `identity issue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IssueReport {
    /// What was issued.
    pub credential: CredentialReport,
    /// What the request wished for, for comparison.
    pub wished: SigningRequest,
    /// Of a node that changes its keys: what it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotated: Option<RotatedReport>,
    /// The file written, to be handed back to the node.
    pub file: PathBuf,
}

/// Issues a credential for a request.
///
/// # Errors
/// [`EnrolError`].
pub fn issue(args: &IssueArgs, now: Timestamp) -> Result<IssueReport, EnrolError> {
    let issuer = IssuerKey::load(&args.dir.join(ISSUER_KEY_FILE))?;
    let above = delegation::of_issuer(&args.dir)?;
    let bytes = read_bounded(&args.request, MAX_ROTATION_REQUEST)?;
    if let Some(found) = rotate::read_request(&args.request, &bytes)? {
        return rotate::issue(args, &issuer, &above, &found, now);
    }
    let bytes = read_bounded(&args.request, MAX_REQUEST_BYTES)?;
    let wished = SigningRequest::open(&bytes).map_err(|why| EnrolError::Request {
        path: args.request.clone(),
        why,
    })?;
    let grant = Grant {
        lifetime: args.lifetime.unwrap_or_else(|| longest(&above, now)),
        ..args.grant.clone()
    };
    let serial = next_serial(&args.dir)?;
    let chain = issue_chain(&issuer, &above, &wished, &grant, serial, now)?;
    create_new(&args.out, &chain.encode(), PUBLIC_MODE)?;
    Ok(IssueReport {
        credential: CredentialReport::of(&chain),
        wished,
        rotated: None,
        file: args.out.clone(),
    })
}

/// What names the next document of the issuer in `dir`.
pub(super) fn next_serial(dir: &Path) -> Result<Serial, EnrolError> {
    Ok(Serial {
        id: rand::random(),
        index: take_index(dir)?,
    })
}

/// What a credential says, without a judgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CredentialReport {
    /// Who issued it.
    pub issuer: Name,
    /// To whom.
    pub subject: Name,
    /// For which key.
    pub peer_id: PeerId,
    /// Groups, in the issuer's name.
    pub groups: Vec<String>,
    /// Attributes.
    pub attributes: BTreeMap<String, String>,
    /// When it was issued.
    pub issued: Timestamp,
    /// From when it holds.
    pub not_before: Timestamp,
    /// Until when it holds, exclusive.
    pub expires: Timestamp,
    /// Its random id, hex.
    pub id: String,
    /// Its place in the issuer's status list; `None`: the node signed for itself.
    pub status_index: Option<u32>,
    /// COSE algorithms that must have signed.
    pub algorithms: Vec<i64>,
    /// The pair of keys said to have signed.
    pub signed_by: Option<Thumbprint>,
    /// The issuers above, the nearest first: who let the issuer issue, and who let that one.
    pub delegated_by: Vec<Name>,
    /// SHA-256 of its bytes, hex.
    pub credential_hash: String,
    /// Its length in bytes.
    pub bytes: usize,
    /// The length of the chain, delegations included.
    pub chain_bytes: usize,
}

impl CredentialReport {
    /// Describes a credential and what is above it.
    #[must_use]
    pub fn of(chain: &Chain) -> Self {
        let credential = chain.credential();
        let claims = credential.claims();
        let validity = claims.validity;
        Self {
            issuer: claims.issuer.clone(),
            subject: claims.subject.clone(),
            peer_id: claims.keys.peer,
            groups: claims
                .groups
                .iter()
                .map(|group| format!("{}/{group}", claims.issuer))
                .collect(),
            attributes: claims.attributes.as_map().clone(),
            issued: Timestamp::from_secs(validity.issued()),
            not_before: Timestamp::from_secs(validity.not_before()),
            expires: Timestamp::from_secs(validity.expires()),
            id: hex::encode(claims.id),
            status_index: claims.status,
            algorithms: claims.algorithms.clone(),
            signed_by: credential.signed_by(),
            delegated_by: chain
                .delegations()
                .iter()
                .map(|delegation| delegation.mandate().issuer.clone())
                .collect(),
            credential_hash: hex::encode(credential.hash()),
            bytes: credential.as_bytes().len(),
            chain_bytes: chain.links().map(<[u8]>::len).sum(),
        }
    }
}

/// Answer of `identity import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// Whether it is of the node's next keys, which it has from its next start on.
    pub next: bool,
    /// What was imported.
    pub credential: CredentialReport,
    /// Where it is now.
    pub file: PathBuf,
    /// Whether it took the place of another.
    pub replaced: bool,
}

/// Makes a credential this node's own, after verifying it for this node's key.
///
/// # Errors
/// [`EnrolError`]; the credential that was there stays.
pub fn import(
    paths: &IdentityPaths,
    file: &Path,
    now: Timestamp,
) -> Result<ImportReport, EnrolError> {
    let key = NodeKey::load(&paths.node_key())?;
    let chain = read_chain(file)?;
    let anchors = state::load_anchors(paths)?;
    if let Some(target) = rotate::import(paths, file, &chain, &anchors, now)? {
        return Ok(ImportReport {
            next: true,
            credential: CredentialReport::of(&chain),
            file: target,
            replaced: false,
        });
    }
    judge(file, &chain, key.peer(), &anchors, now)?;
    if chain.credential().claims().keys != *key.public() {
        // The PeerId is this node's, another key is not: peers would refuse its proof.
        return Err(EnrolError::Refused {
            path: file.into(),
            refusal: Refusal::WrongKey,
        });
    }
    let (target, replaced) = put(paths, &chain)?;
    Ok(ImportReport {
        next: false,
        credential: CredentialReport::of(&chain),
        file: target,
        replaced,
    })
}

/// Makes a chain this node's own; where it is, and whether there was one.
pub(super) fn put(paths: &IdentityPaths, chain: &Chain) -> Result<(PathBuf, bool), EnrolError> {
    let target = paths.credential();
    if let Some(parent) = target.parent() {
        make_dir(parent)?;
    }
    let replaced = target.exists();
    write_atomic(&target, &chain.encode(), PRIVATE_MODE)?;
    Ok((target, replaced))
}

/// Answer of `identity show`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShowReport {
    /// This node.
    pub peer_id: PeerId,
    /// The credential shown: the own one, or that of the file named. `None`: the node has none.
    pub credential: Option<CredentialReport>,
    /// Whether it verifies now by this node's anchors, for the key it names.
    pub valid: bool,
    /// Why it does not.
    pub problem: Option<Problem>,
    /// The rotation of its keys that is under way.
    pub rotation: Option<RotationReport>,
    /// Whether its former keys are still there.
    pub former_key: bool,
}

/// A refusal for people and for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The refusal's stable name.
    pub code: &'static str,
    /// In words.
    pub detail: String,
}

/// Shows this node's credential, or the one in `file`, whether it is valid or not.
///
/// # Errors
/// [`EnrolError`] when something cannot be read at all.
pub fn show(
    paths: &IdentityPaths,
    file: Option<&Path>,
    self_signed: SelfSigned,
    now: Timestamp,
) -> Result<ShowReport, EnrolError> {
    let peer_id = NodeKey::load(&paths.node_key())?.peer();
    let rotation = rotate::under_way(paths)?;
    let former_key = paths.retired_key().exists();
    let own = paths.credential();
    let path = file.unwrap_or(&own);
    if file.is_none() && !own.exists() {
        return Ok(ShowReport {
            peer_id,
            credential: None,
            valid: false,
            problem: None,
            rotation,
            former_key,
        });
    }
    let chain = read_chain(path)?;
    let anchors = state::load_anchors(paths)?.with_self_signed(self_signed);
    let bound = match file {
        Some(_) => chain.credential().claims().keys.peer,
        None => peer_id,
    };
    let judged = verify_chain(&chain, bound, &anchors, now);
    Ok(ShowReport {
        peer_id,
        credential: Some(CredentialReport::of(&chain)),
        valid: judged.is_ok(),
        problem: judged.err().map(|refusal| Problem {
            code: refusal.code(),
            detail: format!("{refusal}{}", hint(&refusal)),
        }),
        rotation,
        former_key,
    })
}

/// Verifies the credential in `file` for the key it names, by the anchor in `anchor`, or by this
/// node's own anchors. Needs no node key.
///
/// # Errors
/// [`EnrolError::Refused`] when it does not verify.
pub fn verify(
    paths: &IdentityPaths,
    file: &Path,
    anchor: Option<&Path>,
    now: Timestamp,
) -> Result<VerifiedIdentity, EnrolError> {
    let chain = read_chain(file)?;
    let anchors = match anchor {
        None => state::load_anchors(paths)?,
        Some(path) => alone(path)?,
    };
    let bound = chain.credential().claims().keys.peer;
    judge(file, &chain, bound, &anchors, now)
}

/// A world in which the anchor in `path` alone is believed, and may grant everything.
pub(super) fn alone(path: &Path) -> Result<TrustAnchors, EnrolError> {
    let anchor = read_anchor(path)?;
    let mut anchors = TrustAnchors::default();
    anchors
        .add(TrustAnchor {
            issuer: anchor.issuer,
            key: anchor.key,
            grants: crate::identity::Grants::default(),
        })
        .map_err(|why| EnrolError::Anchor {
            path: path.into(),
            why,
        })?;
    Ok(anchors)
}

pub(super) fn judge(
    path: &Path,
    chain: &Chain,
    peer: PeerId,
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<VerifiedIdentity, EnrolError> {
    verify_chain(chain, peer, anchors, now).map_err(|refusal| EnrolError::Refused {
        path: path.into(),
        refusal,
    })
}

pub(super) fn read_chain(path: &Path) -> Result<Chain, EnrolError> {
    let bytes = read_bounded(path, MAX_CHAIN_BYTES)?;
    Chain::decode(&bytes).map_err(|why| EnrolError::Credential {
        path: path.into(),
        why,
    })
}

pub(super) fn read_anchor(path: &Path) -> Result<Anchor, EnrolError> {
    let bytes = read_bounded(path, MAX_ANCHOR_BYTES)?;
    Anchor::open(&bytes).map_err(|why| EnrolError::Anchor {
        path: path.into(),
        why,
    })
}

#[cfg(test)]
mod tests;
