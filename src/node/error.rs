//! Why a node could not start; `cli::exit` says which exit code each becomes.

use std::{io, net::SocketAddr, path::PathBuf};

use multiaddr::Multiaddr;
use thiserror::Error;

use super::DataDirError;
use crate::{
    identity::{FolderError, KeyFileError, StateError, rotation::RotationError},
    store::StoreError,
};

impl From<RotationError> for StartError {
    fn from(error: RotationError) -> Self {
        match error {
            RotationError::Key(key) => Self::Key(key),
            other => Self::Rotation(other),
        }
    }
}

/// See the module.
#[derive(Debug, Error)]
pub enum StartError {
    /// Secrets of TLS connections would be written to a file.
    #[error("SSLKEYLOGFILE is set: a node does not write down its session secrets; unset it")]
    KeyLog,
    /// The process cannot handle signals.
    #[error("cannot handle signals: {0}")]
    Signals(io::Error),
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The node key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The rotation of the node key.
    #[error("the rotation of this node's keys: {0}")]
    Rotation(RotationError),
    /// Own credential or trust anchors.
    #[error(transparent)]
    Identity(#[from] StateError),
    /// The issuer's folder.
    #[error("issuer.dir: {0}")]
    Issuer(#[from] FolderError),
    /// A limit that cannot be used.
    #[error("{0}")]
    Config(String),
    /// The policies.
    #[error("policy: {0}")]
    Policy(String),
    /// The key of a node that has run before is gone.
    #[error("{} is missing, but this data directory belongs to a node: restore the key from a backup, or begin a new node in another directory", .0.display())]
    KeyMissing(PathBuf),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address to listen on is taken.
    #[error("network.listen: cannot listen on {address}: {source} (is the port in use?)")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What the system said.
        source: io::Error,
    },
    /// The address for health and metrics is taken.
    #[error("admin.http: cannot listen on {address}: {source} (is the port in use?)")]
    Http {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The admin socket cannot be made.
    #[error("cannot make the admin socket {path}: {source}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The audit log is damaged: going on would bury the damage.
    #[error(
        "the audit log is damaged, so the node does not start: {0}; look at it with `quantraband audit verify`, then move the directory away to begin a new log"
    )]
    LogDamaged(String),
    /// The audit log cannot be opened.
    #[error("the audit log cannot be opened: {0}")]
    Log(String),
    /// An actor did not come up.
    #[error("the actor {actor} did not start: {why}")]
    Actor {
        /// Its name.
        actor: &'static str,
        /// What it said.
        why: String,
    },
}
