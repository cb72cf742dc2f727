//! What somebody who can write this directory may try.

use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;

use super::*;

fn key(module: u8) -> CodeKey {
    CodeKey {
        module: ContentHash([module; 32]),
        mode: Mode::Plain,
        fingerprint: ContentHash([9; 32]),
    }
}

fn open(dir: &Path, most: u64) -> Cache {
    Cache::open(dir, Zeroizing::new([5; 32]), most).unwrap()
}

fn files(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn what_was_kept_is_found_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 1 << 20);
    assert_eq!(cache.load(&key(1)), Found::Nothing);
    cache.store(&key(1), b"machine code");
    assert_eq!(cache.load(&key(1)), Found::Code(b"machine code".to_vec()));
    let path = dir.path().join(key(1).file_name());
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = open(dir.path(), 1 << 20);
    assert_eq!(again.bytes(), fs::metadata(path).unwrap().len());
    assert_eq!(again.load(&key(1)), Found::Code(b"machine code".to_vec()));
}

#[test]
fn another_key_mode_or_program_finds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), 1 << 20).store(&key(1), b"code");
    let other = Cache::open(dir.path(), Zeroizing::new([6; 32]), 1 << 20).unwrap();
    assert_eq!(other.load(&key(1)), Found::Tampered);
    assert_eq!(files(dir.path()), 0);

    let cache = open(dir.path(), 1 << 20);
    cache.store(&key(1), b"code");
    let renamed = CodeKey {
        mode: Mode::Fuel,
        ..key(1)
    };
    let from = dir.path().join(key(1).file_name());
    fs::rename(from, dir.path().join(renamed.file_name())).unwrap();
    assert_eq!(cache.load(&key(1)), Found::Nothing);
    cache.store(&key(1), b"code");
    let from = dir.path().join(key(1).file_name());
    fs::rename(from, dir.path().join(key(2).file_name())).unwrap();
    assert_eq!(cache.load(&key(2)), Found::Tampered);
    cache.store(&key(1), b"code");
    let upgraded = CodeKey {
        fingerprint: ContentHash([8; 32]),
        ..key(1)
    };
    assert_eq!(cache.load(&upgraded), Found::Nothing);
    let from = dir.path().join(key(1).file_name());
    fs::rename(from, dir.path().join(upgraded.file_name())).unwrap();
    assert_eq!(cache.load(&upgraded), Found::Tampered);
}

#[test]
fn links_pipes_and_giants_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 1 << 20);
    let path = dir.path().join(key(1).file_name());
    cache.store(&key(2), b"code");
    symlink(dir.path().join(key(2).file_name()), &path).unwrap();
    assert_eq!(cache.load(&key(1)), Found::Tampered);
    let giant = fs::File::create(&path).unwrap();
    giant.set_len(1 << 30).unwrap();
    assert_eq!(cache.load(&key(1)), Found::Tampered);
    assert!(!path.exists());
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let size = u64::try_from(HEADER + TAG + 100).unwrap();
    let cache = open(dir.path(), 3 * size);
    for module in 1..=3 {
        cache.store(&key(module), &[0; 100]);
    }
    assert!(matches!(cache.load(&key(1)), Found::Code(_)));
    cache.store(&key(4), &[0; 100]);
    assert_eq!(cache.bytes(), 3 * size);
    assert_eq!(cache.load(&key(2)), Found::Nothing);
    assert!(matches!(cache.load(&key(1)), Found::Code(_)));
    cache.store(&key(5), &[0; 1000]);
    assert_eq!(cache.load(&key(5)), Found::Nothing);
    assert_eq!(files(dir.path()), 3);
    assert_eq!(open(dir.path(), size).bytes(), size);
    assert_eq!(files(dir.path()), 1);
}

#[test]
fn half_files_of_a_dead_node_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".0011.tmp"), b"half").unwrap();
    fs::write(dir.path().join("notes"), b"not ours").unwrap();
    open(dir.path(), 1 << 20);
    assert!(dir.path().join("notes").exists());
    assert_eq!(files(dir.path()), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_changed_or_cut_file_is_found(at in any::<prop::sample::Index>(), bit in 0u8..8, cut: bool) {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path(), 1 << 20);
        cache.store(&key(1), b"machine code of some length");
        let path = dir.path().join(key(1).file_name());
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        fs::write(&path, bytes).unwrap();
        prop_assert_eq!(cache.load(&key(1)), Found::Tampered);
        prop_assert!(!path.exists());
    }
}
