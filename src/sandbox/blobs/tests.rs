#![cfg(test)]

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt};

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn peer(n: u8) -> PeerId {
    PeerId::from(&SigningKey::from_bytes(&[n + 1; 32]).verifying_key())
}

fn open(dir: &TempDir, capacity: u64) -> Blobs {
    Blobs::open(dir.path(), capacity).unwrap()
}

fn content(n: u8, length: usize) -> (ContentHash, Vec<u8>) {
    let bytes = vec![n; length];
    (ContentHash::of(&bytes), bytes)
}

/// Sends a whole blob in one piece.
fn send(blobs: &mut Blobs, n: u8, length: usize) -> Result<ContentHash, BlobError> {
    let (blob, bytes) = content(n, length);
    let progress = blobs.append(&peer(0), &blob, length as u64, 0, &bytes)?;
    assert!(progress.complete);
    Ok(blob)
}

fn files(dir: &TempDir) -> usize {
    fs::read_dir(dir.path()).unwrap().count()
}

#[test]
fn a_blob_arrives_piece_by_piece() {
    let dir = TempDir::new().unwrap();
    let mut blobs = open(&dir, 100);
    let bytes = b"hello world";
    let blob = ContentHash::of(bytes);
    let mut put = |offset: u64, piece: &[u8]| blobs.append(&peer(0), &blob, 11, offset, piece);
    let progress = put(0, b"hello").unwrap();
    assert_eq!(
        progress,
        Progress {
            have: 5,
            complete: false
        }
    );
    for offset in [0, 4, 6, u64::MAX] {
        let error = put(offset, b"x").unwrap_err();
        assert!(matches!(error, BlobError::Offset { have: 5, .. }));
    }
    let error = put(5, b" world and more").unwrap_err();
    assert!(matches!(error, BlobError::Size { size: 11 }));
    assert!(put(5, b" world").unwrap().complete);
    assert!(
        put(3, b"again").unwrap().complete,
        "a repeat changes nothing"
    );
    assert!(blobs.have(&blob));
    assert_eq!(blobs.size(&blob), Some(11));
    assert_eq!(blobs.used(), 11);
    assert_eq!(blobs.read(&blob, 6, 3).unwrap(), b"wor");
    assert_eq!(fs::read(blobs.path(&blob)).unwrap(), bytes);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&blobs.path(&blob)), 0o600);
}

#[test]
fn the_directory_is_for_its_owner_only() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("blobs");
    Blobs::open(&path, 1).unwrap();
    assert_eq!(
        fs::metadata(path).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn nothing_is_always_there() {
    let dir = TempDir::new().unwrap();
    let mut blobs = open(&dir, 0);
    let nothing = ContentHash::of(b"");
    assert!(blobs.have(&nothing));
    blobs.ensure(&nothing).unwrap();
    assert_eq!(blobs.read(&nothing, 0, 10).unwrap(), b"");
    let error = blobs
        .append(&peer(0), &nothing, 5, 0, b"bytes")
        .unwrap_err();
    assert!(matches!(error, BlobError::Size { size: 0 }));
}

#[test]
fn wrong_bytes_are_thrown_away() {
    let dir = TempDir::new().unwrap();
    let mut blobs = open(&dir, 100);
    let (blob, _) = content(1, 10);
    let error = blobs.append(&peer(0), &blob, 10, 0, &[2; 10]).unwrap_err();
    assert!(matches!(error, BlobError::WrongHash { .. }));
    assert_eq!((blobs.used(), files(&dir)), (0, 0));
    assert!(matches!(
        blobs.read(&blob, 0, 1),
        Err(BlobError::Missing { .. })
    ));
    send(&mut blobs, 1, 10).unwrap();
}

#[test]
fn nobody_spoils_what_another_sends() {
    let dir = TempDir::new().unwrap();
    let mut blobs = open(&dir, 100);
    let (blob, bytes) = content(1, 10);
    // Rubbish under the same name, and a lie about its size.
    blobs.append(&peer(1), &blob, 10, 0, &[9; 9]).unwrap();
    blobs.append(&peer(2), &blob, 50, 0, &[1; 9]).unwrap();
    blobs.append(&peer(0), &blob, 10, 0, &bytes[..5]).unwrap();
    assert_eq!(blobs.partial(&peer(0), &blob), 5);
    assert!(
        blobs
            .append(&peer(0), &blob, 10, 5, &bytes[5..])
            .unwrap()
            .complete
    );
    // The others have still to show that they have it.
    assert_eq!(blobs.partial(&peer(1), &blob), 9);
    let error = blobs.append(&peer(2), &blob, 50, 9, &[1; 9]).unwrap_err();
    assert!(matches!(error, BlobError::Size { size: 10 }));
}

#[test]
fn who_knows_a_hash_has_not_shown_its_bytes() {
    let dir = TempDir::new().unwrap();
    let mut blobs = open(&dir, 100);
    let blob = send(&mut blobs, 1, 10).unwrap();
    let (_, bytes) = content(1, 10);
    assert!(blobs.is_shown(&peer(0), &blob));
    assert!(blobs.have(&blob) && !blobs.is_shown(&peer(1), &blob));
    // Rubbish is no proof, and takes nothing from the one who has it.
    let rubbish = blobs.append(&peer(1), &blob, 10, 0, &[9; 10]);
    assert!(matches!(rubbish, Err(BlobError::WrongHash { .. })));
    assert!(blobs.have(&blob) && !blobs.is_shown(&peer(1), &blob));
    let half = blobs.append(&peer(1), &blob, 10, 0, &bytes[..5]).unwrap();
    assert!(!half.complete && !blobs.is_shown(&peer(1), &blob));
    assert!(
        blobs
            .append(&peer(1), &blob, 10, 5, &bytes[5..])
            .unwrap()
            .complete
    );
    assert!(blobs.is_shown(&peer(1), &blob));
    assert_eq!((blobs.used(), files(&dir)), (10, 1), "one copy");
}

#[test]
fn another_size_begins_anew() {
    let dir = TempDir::new().unwrap();
    let mut blobs = open(&dir, 100);
    let (blob, bytes) = content(1, 10);
    blobs.append(&peer(0), &blob, 20, 0, &bytes).unwrap();
    let error = blobs.append(&peer(0), &blob, 10, 10, &[]).unwrap_err();
    assert!(matches!(error, BlobError::Offset { have: 0, .. }));
    assert!(send(&mut blobs, 1, 10).is_ok());
    assert_eq!(blobs.used(), 10);
}

#[test]
fn an_upload_goes_on_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let (blob, bytes) = content(1, 10);
    let mut blobs = open(&dir, 100);
    blobs.append(&peer(0), &blob, 10, 0, &bytes[..6]).unwrap();
    let mut blobs = open(&dir, 100);
    assert_eq!(blobs.partial(&peer(0), &blob), 6);
    assert_eq!(blobs.used(), 6);
    let rest = blobs.append(&peer(0), &blob, 10, 6, &bytes[6..]).unwrap();
    assert!(rest.complete);
    assert_eq!(blobs.used(), 10);
    assert_eq!(blobs.read(&blob, 0, 99).unwrap(), bytes);
}

#[test]
fn a_spoiled_upload_is_found_out_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let (blob, bytes) = content(1, 10);
    let mut blobs = open(&dir, 100);
    blobs.append(&peer(0), &blob, 10, 0, &bytes[..6]).unwrap();
    fs::write(blobs.part(&(blob, peer(0))), [0; 6]).unwrap();
    let mut blobs = open(&dir, 100);
    let error = blobs
        .append(&peer(0), &blob, 10, 6, &bytes[6..])
        .unwrap_err();
    assert!(matches!(error, BlobError::WrongHash { .. }));
    assert!(send(&mut blobs, 1, 10).is_ok());
}

#[test]
fn what_a_former_process_left_is_hashed_before_it_is_believed() {
    let dir = TempDir::new().unwrap();
    let mut blobs = open(&dir, 100);
    let (good, torn) = (
        send(&mut blobs, 1, 10).unwrap(),
        send(&mut blobs, 2, 10).unwrap(),
    );
    fs::write(blobs.path(&torn), [0; 10]).unwrap();
    blobs.ensure(&torn).unwrap();
    let mut blobs = open(&dir, 100);
    assert!(blobs.have(&good) && blobs.have(&torn));
    blobs.ensure(&good).unwrap();
    let error = blobs.ensure(&torn).unwrap_err();
    assert!(matches!(error, BlobError::WrongHash { .. }));
    assert!(!blobs.have(&torn));
    let error = blobs.ensure(&torn).unwrap_err();
    assert!(matches!(error, BlobError::Missing { .. }));
    assert_eq!(blobs.used(), 10);
}

#[test]
fn files_of_other_names_are_removed() {
    let dir = TempDir::new().unwrap();
    let (blob, _) = content(1, 10);
    let upper = blob.to_string().to_uppercase();
    for name in [
        "junk".to_owned(),
        format!("{blob}.part"),
        format!("{blob}.nobody.part"),
        upper,
    ] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    let blobs = open(&dir, 100);
    assert_eq!((blobs.used(), files(&dir)), (0, 0));
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    let dir = TempDir::new().unwrap();
    let mut blobs = open(&dir, 30);
    let first = send(&mut blobs, 1, 10).unwrap();
    let second = send(&mut blobs, 2, 10).unwrap();
    let third = send(&mut blobs, 3, 10).unwrap();
    blobs.pin(&first);
    blobs.ensure(&second).unwrap();
    let fourth = send(&mut blobs, 4, 10).unwrap();
    assert!(!blobs.have(&third));
    let fifth = send(&mut blobs, 5, 10).unwrap();
    assert!(!blobs.have(&second));
    // Pinned twice, it stays until it is unpinned twice.
    blobs.pin(&first);
    blobs.unpin(&first);
    blobs.pin(&fourth);
    blobs.pin(&fifth);
    let error = send(&mut blobs, 6, 10).unwrap_err();
    assert!(matches!(
        error,
        BlobError::Full {
            size: 10,
            used: 30,
            capacity: 30
        }
    ));
    blobs.unpin(&first);
    send(&mut blobs, 6, 10).unwrap();
    assert!(!blobs.have(&first));
    assert_eq!((blobs.used(), files(&dir)), (30, 3));
}

#[test]
fn nothing_goes_for_what_cannot_fit_anyway() {
    let dir = TempDir::new().unwrap();
    let mut blobs = open(&dir, 30);
    let first = send(&mut blobs, 1, 10).unwrap();
    let second = send(&mut blobs, 2, 10).unwrap();
    blobs.pin(&second);
    for size in [21, 31] {
        let error = send(&mut blobs, 3, size).unwrap_err();
        assert!(matches!(error, BlobError::Full { .. }));
    }
    assert!(blobs.have(&first));
}

#[test]
fn a_smaller_capacity_holds_from_the_start() {
    let dir = TempDir::new().unwrap();
    let mut blobs = open(&dir, 100);
    for n in 0..5 {
        send(&mut blobs, n, 10).unwrap();
    }
    let blobs = open(&dir, 25);
    assert_eq!((blobs.used(), files(&dir)), (20, 2));
}

#[test]
fn arriving_blobs_are_bounded_in_number() {
    let dir = TempDir::new().unwrap();
    let mut blobs = open(&dir, 1 << 30);
    let kept = send(&mut blobs, 1, 10).unwrap();
    let blob = |n: usize| ContentHash::of(&n.to_be_bytes());
    for n in 0..=MAX_ARRIVING {
        blobs.append(&peer(0), &blob(n), 2, 0, b"x").unwrap();
        blobs.pin(&blob(n));
        if n == 0 {
            blobs.unpin(&blob(0));
        }
    }
    assert_eq!(
        blobs.partial(&peer(0), &blob(0)),
        0,
        "the one nobody needs went"
    );
    let error = blobs.append(&peer(0), &blob(0), 2, 0, b"x").unwrap_err();
    assert!(matches!(error, BlobError::Crowded));
    assert!(blobs.have(&kept));
}

#[derive(Debug, Clone)]
enum Op {
    Put {
        owner: u8,
        blob: u8,
        most: usize,
        rubbish: bool,
    },
    Pin(u8),
    Unpin(u8),
    Ensure(u8),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (0_u8..3, 0_u8..6, 1_usize..12, prop::bool::weighted(0.1))
            .prop_map(|(owner, blob, most, rubbish)| Op::Put { owner, blob, most, rubbish }),
        2 => (0_u8..6).prop_map(Op::Pin),
        2 => (0_u8..6).prop_map(Op::Unpin),
        1 => (0_u8..6).prop_map(Op::Ensure),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    /// Whatever is sent by whom, with restarts in between: the capacity holds, on disk too; what
    /// is there is what its name says; what is pinned stays.
    #[test]
    fn the_disk_is_bounded_and_true(
        ops in prop::collection::vec(op(), 1..120),
        capacity in 10_u64..60,
    ) {
        let dir = TempDir::new().unwrap();
        let mut blobs = open(&dir, capacity);
        let mut pins: BTreeMap<u8, u32> = BTreeMap::new();
        let sized = |n: u8| content(n, 5 + usize::from(n) * 3);
        for op in ops {
            let kept: Vec<_> = pins
                .keys()
                .map(|n| sized(*n).0)
                .filter(|blob| blobs.have(blob))
                .collect();
            match op {
                Op::Put { owner, blob: n, most, rubbish } => {
                    let (blob, bytes) = sized(n);
                    let at = usize::try_from(blobs.partial(&peer(owner), &blob)).unwrap();
                    let end = bytes.len().min(at + most);
                    let mut piece = bytes[at..end].to_vec();
                    if rubbish {
                        piece[0] ^= 1;
                    }
                    let size = bytes.len() as u64;
                    match blobs.append(&peer(owner), &blob, size, at as u64, &piece) {
                        Ok(progress) => prop_assert_eq!(
                            progress.complete,
                            blobs.have(&blob) && blobs.is_shown(&peer(owner), &blob)
                        ),
                        Err(BlobError::WrongHash { .. }) => {
                            let shown = blobs.is_shown(&peer(owner), &blob);
                            prop_assert!(!(blobs.have(&blob) && shown));
                        }
                        Err(BlobError::Full { .. }) => {}
                        Err(error) => prop_assert!(false, "{error}"),
                    }
                }
                Op::Pin(n) => {
                    blobs.pin(&sized(n).0);
                    *pins.entry(n).or_default() += 1;
                }
                Op::Unpin(n) => {
                    blobs.unpin(&sized(n).0);
                    if let Some(count) = pins.get_mut(&n) {
                        *count -= 1;
                        if *count == 0 {
                            pins.remove(&n);
                        }
                    }
                }
                Op::Ensure(n) => {
                    let blob = sized(n).0;
                    prop_assert_eq!(blobs.ensure(&blob).is_ok(), blobs.have(&blob));
                }
                Op::Reopen => {
                    blobs = open(&dir, capacity);
                    for (n, count) in &pins {
                        (0..*count).for_each(|_| blobs.pin(&sized(*n).0));
                    }
                }
            }
            prop_assert!(kept.iter().all(|blob| blobs.have(blob)), "a pinned blob went");
            prop_assert!(blobs.used() <= capacity);
            let on_disk: u64 = fs::read_dir(dir.path())
                .unwrap()
                .map(|entry| entry.unwrap().metadata().unwrap().len())
                .sum();
            prop_assert!(on_disk <= blobs.used(), "more on disk than counted");
            for n in 0..6 {
                let (blob, bytes) = sized(n);
                if blobs.have(&blob) {
                    prop_assert_eq!(blobs.read(&blob, 0, 1_000).unwrap(), bytes);
                }
            }
        }
    }
}
