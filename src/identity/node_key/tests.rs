use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
};

use super::*;
use crate::identity::disk::DiskError;

fn made() -> (tempfile::TempDir, std::path::PathBuf, NodeKey) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.key");
    let key = NodeKey::create(&path).unwrap();
    (dir, path, key)
}

#[test]
fn a_key_is_private_and_reads_back() {
    let (_dir, path, key) = made();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    assert_eq!(NodeKey::load(&path).unwrap().peer(), key.peer());
    assert!(!format!("{key:?}").contains(&hex::encode(*key.seed())));
}

#[test]
fn a_key_is_never_overwritten() {
    let (_dir, path, key) = made();
    assert!(matches!(
        NodeKey::create(&path),
        Err(KeyFileError::Disk(DiskError::Exists(_)))
    ));
    assert_eq!(NodeKey::load(&path).unwrap().peer(), key.peer());
}

#[test]
fn a_key_others_can_read_is_refused_with_the_command_that_mends_it() {
    let (_dir, path, _) = made();
    for mode in [0o640, 0o604, 0o660, 0o620, 0o602, 0o610, 0o644, 0o777] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = NodeKey::load(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Mode { .. }), "{mode:o}");
        assert!(
            error
                .to_string()
                .contains(&format!("chmod 600 {}", path.display()))
        );
        assert!(error.to_string().contains(&format!("{mode:04o}")));
    }
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    NodeKey::load(&path).unwrap();
}

#[test]
fn links_directories_and_absent_files_are_refused() {
    let (dir, path, _) = made();
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(
        NodeKey::load(&link),
        Err(KeyFileError::NotRegular(_))
    ));
    assert!(matches!(
        NodeKey::load(dir.path()),
        Err(KeyFileError::NotRegular(_))
    ));
    let error = NodeKey::load(&dir.path().join("none")).unwrap_err();
    assert!(error.to_string().contains("quantraband init"), "{error}");
}

#[test]
fn content_that_is_not_a_key_is_refused_by_line_and_never_quoted() {
    let (_dir, path, key) = made();
    let good = fs::read_to_string(&path).unwrap();
    let secret = hex::encode(*key.seed());
    for (bad, place) in [
        (good.replace("v2", "v1"), "line 1"),
        (good.replace("node", "host"), "line 1"),
        (
            good.replace(&secret, &secret.replace(|c: char| c.is_ascii_digit(), "A")),
            "line 2",
        ),
        (good.replace(&secret, &secret[..63]), "line 2"),
        (good.replace("ml-dsa-65 ", "ml-dsa-44 "), "line 3"),
        (good.replace("x-wing ", "x-wing"), "line 4"),
        (good.trim_end().to_owned(), "line 5"),
        (good.replace('\n', "\r\n"), "line 1"),
        (format!("{good}\n"), "line 5"),
        (format!("{good}more"), "line 5"),
        ("x".repeat(5000), "5000 bytes"),
        (String::new(), "0 bytes"),
    ] {
        fs::write(&path, &bad).unwrap();
        let error = NodeKey::load(&path).unwrap_err().to_string();
        assert!(error.contains(place), "{bad:?}: {error}");
        assert!(error.contains(&path.display().to_string()));
        assert!(!error.contains(&secret[..32]), "{error}");
    }
}
