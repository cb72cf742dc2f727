//! What can go wrong in `identity …` and `trust …`, with a hint, and its exit code.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::identity::{
    AnchorError, DiskError, IssueError, KeyFileError, Malformed, Name, Refusal, RequestError,
    StateError, Thumbprint,
    continuity::ContinuityError,
    rotation::RotationError,
    rotations::{NotTaken, RotationsError},
    status::FolderError,
};

/// Why an enrolment command failed.
#[derive(Debug, Error)]
pub enum EnrolError {
    /// A secret key's file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What is in the data directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// A signing request.
    #[error("{}: {why}", path.display())]
    Request {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: RequestError,
    },
    /// The rotation of this node's keys.
    #[error(transparent)]
    Rotation(#[from] RotationError),
    /// A request of a node that changes its keys.
    #[error("{}: {why}", path.display())]
    Continuity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: ContinuityError,
    },
    /// Such a request that this issuer does not take.
    #[error("{}: {why}", path.display())]
    NotTaken {
        /// The file.
        path: PathBuf,
        /// Why.
        why: NotTaken,
    },
    /// The issuer's records of rotations.
    #[error(transparent)]
    Rotations(#[from] RotationsError),
    /// Who changes its keys stays what it is.
    #[error(
        "{}: a node that changes its keys keeps its subject, groups and attributes: leave \
         `--subject`, `--group` and `--attribute` away", .0.display()
    )]
    RotationGrant(PathBuf),
    /// An anchor, or adding it.
    #[error("{}: {why}", path.display())]
    Anchor {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: AnchorError,
    },
    /// A file that is no credential.
    #[error("{}: not a credential: {why}", path.display())]
    Credential {
        /// The file.
        path: PathBuf,
        /// The broken rule.
        why: Malformed,
    },
    /// A file that holds no delegations.
    #[error("{}: not a delegation: {why}", path.display())]
    Delegation {
        /// The file.
        path: PathBuf,
        /// The broken rule.
        why: Malformed,
    },
    /// A credential that this node's anchors do not verify.
    #[error("{}: {refusal}{}", path.display(), hint(.refusal))]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        refusal: Refusal,
    },
    /// What the issuer was asked for cannot be issued.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The issuer's directory belongs to another issuer.
    #[error("{} holds the key of the issuer `{found}`, not of `{wanted}`", path.display())]
    OtherIssuer {
        /// The directory.
        path: PathBuf,
        /// Whose key is there.
        found: Name,
        /// Whose was expected.
        wanted: Name,
    },
    /// A credential or delegation that another issuer gave, or nobody.
    #[error("{} was given by `{by}`: only that issuer can take it back, not `{issuer}`", path.display())]
    NotIssuedHere {
        /// The file.
        path: PathBuf,
        /// Who gave it.
        by: Name,
        /// Who wants to take it back.
        issuer: Name,
    },
    /// The issuer's list of what it took back.
    #[error(transparent)]
    Status(#[from] FolderError),
    /// Nobody of that name is trusted.
    #[error("the issuer `{0}` is not trusted here; see `quantraband trust list`")]
    NotTrusted(Name),
    /// The thumbprint the operator was told is not that of the file.
    #[error(
        "{}: its key has the thumbprint {found}, not the one expected: do not trust it before \
         asking the issuer",
        path.display()
    )]
    Thumbprint {
        /// The file.
        path: PathBuf,
        /// The thumbprint of its key.
        found: Thumbprint,
    },
}

/// What kind of failure it is, for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// Input that is wrong (65).
    Data,
    /// A file that exists or cannot be created (73).
    CannotCreate,
    /// Reading or writing failed (74).
    Io,
    /// Not allowed (77).
    NoPermission,
}

impl EnrolError {
    /// The kind of failure.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Key(error)
            | Self::State(StateError::Key(error))
            | Self::Rotation(RotationError::Key(error)) => key_class(error),
            Self::Disk(error)
            | Self::State(StateError::Disk(error))
            | Self::Rotation(RotationError::Disk(error))
            | Self::Rotations(RotationsError::Disk(error))
            | Self::Status(FolderError::Disk(error)) => disk_class(error),
            _ => FailureClass::Data,
        }
    }
}

fn key_class(error: &KeyFileError) -> FailureClass {
    match error {
        KeyFileError::Mode { .. } | KeyFileError::Locked { .. } | KeyFileError::Wrong(_) => {
            FailureClass::NoPermission
        }
        KeyFileError::Missing { .. } | KeyFileError::Random(_) | KeyFileError::Library => {
            FailureClass::Io
        }
        KeyFileError::Disk(error) => disk_class(error),
        KeyFileError::NotRegular(_)
        | KeyFileError::Size { .. }
        | KeyFileError::Content { .. }
        | KeyFileError::Sealed { .. } => FailureClass::Data,
    }
}

fn disk_class(error: &DiskError) -> FailureClass {
    match error {
        DiskError::Exists(_) => FailureClass::CannotCreate,
        DiskError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            FailureClass::NoPermission
        }
        DiskError::TooLong { .. } | DiskError::Counter(_) => FailureClass::Data,
        DiskError::Missing(_) | DiskError::NotRegular(_) | DiskError::Io { .. } => FailureClass::Io,
    }
}

/// What to do about a refusal.
pub(super) fn hint(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::UnknownIssuer(_) => {
            "; enter its anchor first, with `quantraband trust add FILE`, so that the signature \
             can be checked"
        }
        Refusal::WrongKey => {
            "; it was issued for another node: make a request with this node's own key"
        }
        Refusal::Expired(_) => "; ask the issuer for a new one",
        Refusal::NotYetValid(_) => "; compare this machine's clock with the issuer's",
        Refusal::Denied(rule) if rule == "identity.self_signed" => {
            "; `identity.self_signed = \"allow\"` lets in nodes that sign for themselves"
        }
        Refusal::Denied(rule) if rule.starts_with("scope.") => {
            "; an issuer above did not allow its issuer to grant that"
        }
        Refusal::Denied(_) => "; this node's trust entry does not let the issuer grant that",
        _ => "",
    }
}
