//! Identity: who a peer is, and how it proves it.
//!
//! Pure cores: nothing here knows actix, libp2p or the network; time is an argument. Files are
//! touched by `key_file`, `disk` and [`state`] alone.
//!
//! The way of a credential: a node makes a [`NodeKey`] and a [`SigningRequest`]; an
//! [`IssuerKey`] [`issue`]s a [`Credential`], perhaps under [`Delegation`]s of issuers above it;
//! the node shows that [`Chain`] in a [`Frame`], with a proof that it holds its keys; another node,
//! which holds the [`TrustAnchor`] at the chain's end, turns that into a [`VerifiedIdentity`] by
//! [`verify_frame`]. Formats: `docs/reference/credential.md`.

pub mod anchor;
mod binding;
mod cache;
mod chain;
pub mod claims;
pub mod continuity;
pub(crate) mod cose;
mod counter;
mod credential;
mod delegation;
mod disk;
pub mod enrolment;
mod folder;
mod frame;
mod hybrid;
pub mod invitation;
pub mod invites;
mod issue;
mod issuer;
mod kem;
mod key_file;
mod keystore;
mod ml_dsa;
mod node_key;
#[cfg(test)]
mod properties;
pub mod renewal;
mod request;
pub mod rotation;
pub(crate) mod rotations;
pub mod sealed;
pub mod state;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
mod verified;
mod verify;
pub mod wire;

pub use crate::cbor::Malformed;
pub use anchor::{
    Anchor, AnchorError, Grants, GroupPattern, MAX_DEPTH, SelfSigned, TrustAnchor, TrustAnchors,
};
pub use binding::{BINDING_BYTES, Binding, Channel, Role};
pub use cache::{By, IdentityCache, Look};
pub use chain::{Chain, MAX_CHAIN, MAX_CHAIN_BYTES, decode_delegations, encode_delegations};
pub use claims::{Attributes, ClaimError, Claims, Groups, Head, Serial, Validity, status_list_uri};
pub use continuity::{Continuity, ContinuityError, MAX_CONTINUITY_BYTES};
pub use cose::{Domain, ED25519, PublicKey, Thumbprint};
pub use credential::{Credential, MAX_CREDENTIAL_BYTES, TooLong};
pub use delegation::{Delegation, Mandate, Scope};
pub use disk::DiskError;
pub use folder::{DELEGATION_FILE, FolderError, IssuerFolder};
pub use frame::{FRAME_VERSION, Frame, MAX_FRAME_BYTES, MAX_HEADS_BYTES};
pub use hybrid::{ENFORCED, HybridPublic, HybridSigner};
pub use issue::{
    DEFAULT_LIFETIME, Grant, IssueError, MAX_LIFETIME, MAX_REQUEST_AGE, delegate, issue,
    issue_chain, longest, self_sign,
};
pub use issuer::{ISSUER_KEY_FILE, IssuerKey};
pub use kem::{XWING_PUBLIC_BYTES, XWingPublic};
pub use key_file::{KEY_MODE, KeyFileError};
pub use keystore::{
    MIN_PASSPHRASE, MIN_SECRET, Protection, ProtectionError,
    secret::{PASSPHRASE_FILE, SecretError},
};
pub use ml_dsa::{ML_DSA_65, ML_DSA_PUBLIC_BYTES, ML_DSA_SIGNATURE_BYTES, MlDsaPublic};
pub use node_key::{NodeKey, NodePublic};
pub use request::{MAX_REQUEST_BYTES, RequestError, SigningRequest};
pub use state::{IdentityPaths, OwnIdentity, StateError, TrustView};
pub use status::{Status, StatusView};
pub use verified::{Name, NameError, Refusal, StatusEntry, Tier, VerifiedIdentity};
pub use verify::{
    CLOCK_SKEW, Leniency, verify_chain, verify_credential, verify_delegations, verify_frame,
    verify_frame_leniently,
};

pub(crate) use counter::take_index;
pub(crate) use disk::{create_new, make_dir, read_bounded, remove, write_atomic};
