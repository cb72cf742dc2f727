//! The counter of an issuer's status list: which index the next credential gets.
//!
//! `DIR/next-index`, a decimal number. A number is taken, durably, before it is used: one may be
//! lost, none is given twice, also when two commands run at once. Owner: the issuer's operator,
//! through the commands. It fails with [`DiskError`].

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::Path};

use super::{
    disk::{self, DiskError},
    status::MAX_ENTRIES,
};

/// File name of the counter in the issuer's directory.
const COUNTER_FILE: &str = "next-index";
/// Held while the counter is read and written.
const LOCK_FILE: &str = ".next-index.lock";
/// Longest number, with its newline.
const MAX_DIGITS: usize = 11;
/// Mode of both: how much an issuer issues is its own business.
const MODE: u32 = 0o600;

/// Takes the next index of the issuer in `dir`.
pub(crate) fn take_index(dir: &Path) -> Result<u32, DiskError> {
    let lock_path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    let lock = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .open(&lock_path)
        .map_err(disk::io_error("open", &lock_path))?;
    lock.lock().map_err(disk::io_error("lock", &lock_path))?;
    let path = dir.join(COUNTER_FILE);
    let wrong = || DiskError::Counter(path.clone());
    let index: u32 = match disk::read_bounded(&path, MAX_DIGITS) {
        Ok(text) => std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.strip_suffix('\n')?.parse().ok())
            .ok_or_else(wrong)?,
        Err(DiskError::Missing(_)) => 0,
        Err(error) => return Err(error),
    };
    // What has no place on the list could never be taken back.
    let next = index
        .checked_add(1)
        .filter(|next| *next <= MAX_ENTRIES)
        .ok_or_else(wrong)?;
    disk::write_atomic(&path, format!("{next}\n").as_bytes(), MODE)?;
    Ok(index)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_rise_from_zero_and_none_is_given_twice() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(take_index(dir.path()).unwrap(), 0);
        let taken: BTreeSet<u32> = std::thread::scope(|scope| {
            let many = |_| scope.spawn(|| [(); 5].map(|()| take_index(dir.path()).unwrap()));
            let all: Vec<_> = (0..4).map(many).collect();
            all.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(taken, (1..=20).collect());
    }

    #[test]
    fn a_counter_that_is_none_or_used_up_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(COUNTER_FILE);
        for bad in [
            "",
            "7",
            "seven\n",
            "-1\n",
            "131072\n",
            "4294967295\n",
            "4294967296\n",
        ] {
            std::fs::write(&path, bad).unwrap();
            assert!(
                matches!(take_index(dir.path()), Err(DiskError::Counter(_))),
                "{bad:?}"
            );
        }
    }
}
