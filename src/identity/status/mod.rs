//! Revocation: what an issuer takes back, as signed, numbered lists.
//!
//! An issuer's *list* has one bit for each index it ever gave to a credential or a delegation
//! (IETF Token Status List, one bit an entry). Its *head* is a short statement signed with both
//! algorithms: sequence, times, `issued_before`, and the hash of the bits. Heads travel by
//! themselves, for whoever has a head knows at once that its list is behind.
//!
//! - [`StatusHead`], [`StatusList`]: the documents, in one encoding, bounded before parsing.
//! - [`Book`]: which list of each issuer is in force; it only ever goes forward.
//! - [`StatusView`]: what the rest of the node reads ([`Status`] of an identity).
//! - [`Fetches`]: whom to ask for a list that is behind.
//! - [`Folder`]: the issuer's own side.
//!
//! Pure, but [`Folder`], which touches the issuer's directory. Owner: the Revocation actor.
//! Formats: `docs/reference/status-list.md`.

mod book;
mod fetch;
mod folder;
mod list;
mod record;
mod rejected;
mod view;

pub use book::{Book, Fork, MAX_ISSUERS, MAX_UNDER_ANCHOR, Weighed};
pub use fetch::{Fetch, Fetches};
pub use folder::{
    DEFAULT_NEXT_UPDATE, Folder, FolderError, MAX_NEXT_UPDATE, Revocation, STATUS_EXTENSION,
};
pub use list::{
    MAX_ENTRIES, MAX_HEAD_BYTES, MAX_HEADS, MAX_STATUS_BYTES, Statement, StatusHead, StatusList,
    heads_of_bytes,
};
pub use record::{ListReport, Record};
pub use rejected::Rejected;
pub use view::{Status, StatusView, Why};

#[cfg(test)]
pub(crate) mod test_lists;
#[cfg(test)]
mod tests;
