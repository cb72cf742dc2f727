//! The border to sled: its panics and errors become [`StoreError`]s.
//!
//! sled asserts its own invariants, so a corrupt file can make any call panic.

use std::{
    any::Any,
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use super::StoreError;

/// Calls into sled. `path` is for the error's text.
///
/// Unwind safety: after a panic or an error the store is opened anew or the tree refuses writes,
/// so nobody goes on with a half-changed value.
pub(super) fn guarded<T>(
    path: &Path,
    call: impl FnOnce() -> sled::Result<T>,
) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(classify(path, error)),
        Err(panic) => Err(StoreError::Corrupt(format!(
            "the engine panicked: {}",
            text_of(panic.as_ref())
        ))),
    }
}

/// Tells damage from a refusal of the operating system: damage is set aside at the next open, a
/// full or failing disk must not be.
fn classify(path: &Path, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(source) if source.to_string().contains("could not acquire lock") => {
            StoreError::Locked(path.to_owned())
        }
        sled::Error::Io(source)
            if matches!(
                source.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput
            ) =>
        {
            StoreError::Corrupt(source.to_string())
        }
        sled::Error::Io(source) => StoreError::Io {
            path: path.to_owned(),
            source,
        },
        other @ (sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. }) => StoreError::Corrupt(other.to_string()),
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message");
    // Long enough for an assertion with its values, short enough for a log line.
    text.chars().take(300).collect()
}
