//! Identity: who a peer is, and how it proves it.
//!
//! Pure cores: nothing here knows actix, libp2p or the network; time is an argument. Files are
//! touched by `key_file`, `disk` and [`state`] alone.
//!
//! The way of a credential: a node makes a [`NodeKey`] and a [`SigningRequest`]; an
//! [`IssuerKey`] [`issue`]s a [`Credential`]; the node shows it in a [`Frame`]; another node, which
//! holds the issuer's [`TrustAnchor`], turns that into a [`VerifiedIdentity`] by [`verify_frame`].
//! Formats: `docs/reference/credential.md`.

pub mod anchor;
mod binding;
pub mod claims;
pub(crate) mod cose;
mod credential;
mod disk;
mod frame;
mod issue;
mod issuer;
mod key_file;
mod node_key;
#[cfg(test)]
mod properties;
mod request;
pub mod state;
#[cfg(test)]
pub(crate) mod testing;
mod verified;
mod verify;

pub use crate::cbor::Malformed;
pub use anchor::{Anchor, AnchorError, Grants, GroupPattern, TrustAnchor, TrustAnchors};
pub use binding::{BINDING_BYTES, Binding, Channel, Role};
pub use claims::{Attributes, ClaimError, Claims, Groups, Validity};
pub use cose::{ED25519, PublicKey, Thumbprint};
pub use credential::{Credential, ENFORCED, MAX_CREDENTIAL_BYTES, TooLong};
pub use disk::DiskError;
pub use frame::{FRAME_VERSION, Frame, MAX_CHAIN, MAX_FRAME_BYTES};
pub use issue::{DEFAULT_LIFETIME, Grant, IssueError, MAX_LIFETIME, MAX_REQUEST_AGE, issue};
pub use issuer::{ISSUER_KEY_FILE, IssuerKey};
pub use key_file::{KEY_MODE, KeyFileError};
pub use node_key::NodeKey;
pub use request::{MAX_REQUEST_BYTES, RequestError, SigningRequest};
pub use state::{IdentityPaths, OwnIdentity, StateError, TrustView};
pub use verified::{Name, NameError, Refusal, Tier, VerifiedIdentity};
pub use verify::{CLOCK_SKEW, verify_credential, verify_frame};

pub(crate) use disk::{create_new, make_dir, read_bounded, remove, write_atomic};
