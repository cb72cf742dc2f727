#![cfg(test)]

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const JOB: JobId = JobId([7; 16]);
const MOST: u64 = 1_000;

fn open(dir: &TempDir) -> Spool {
    Spool::open(dir.path(), JOB, MOST).unwrap()
}

fn all(spool: &Spool, stream: Stream) -> Vec<u8> {
    spool.read(stream, 0, usize::MAX).unwrap()
}

/// What is there, by every way there is to ask.
fn check(spool: &mut Spool, stream: Stream, expected: &[u8]) {
    assert_eq!(all(spool, stream), expected);
    let content = Content {
        hash: ContentHash::of(expected),
        size: expected.len() as u64,
    };
    assert_eq!(spool.content(stream).unwrap(), content);
}

#[test]
fn streams_are_kept_apart_and_read_by_cursor() {
    let dir = TempDir::new().unwrap();
    let mut spool = open(&dir);
    assert!(spool.is_empty());
    check(&mut spool, Stream::Stdout, b"");
    spool.append(Stream::Stdout, b"hello ").unwrap();
    spool.append(Stream::Stderr, b"oops").unwrap();
    spool.append(Stream::Stdout, b"world").unwrap();
    check(&mut spool, Stream::Stdout, b"hello world");
    check(&mut spool, Stream::Stderr, b"oops");
    assert_eq!(spool.read(Stream::Stdout, 6, 3).unwrap(), b"wor");
    assert_eq!(spool.read(Stream::Stdout, 11, 3).unwrap(), b"");
    assert_eq!(spool.read(Stream::Stdout, 99, 3).unwrap(), b"");
    spool.end_attempt().unwrap();
    let meta = fs::metadata(&spool.out.path).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_was_printed_survives_a_restart() {
    let dir = TempDir::new().unwrap();
    open(&dir).append(Stream::Stdout, b"hello").unwrap();
    let mut spool = open(&dir);
    check(&mut spool, Stream::Stdout, b"hello");
    // Whoever does not replay goes on at the end.
    spool.append(Stream::Stdout, b" world").unwrap();
    check(&mut spool, Stream::Stdout, b"hello world");
}

#[test]
fn a_second_attempt_repeats_and_goes_on() {
    let dir = TempDir::new().unwrap();
    open(&dir).append(Stream::Stdout, b"hello").unwrap();
    let mut spool = open(&dir);
    spool.begin_attempt();
    spool.append(Stream::Stdout, b"hel").unwrap();
    check(&mut spool, Stream::Stdout, b"hello");
    assert!(matches!(
        spool.end_attempt(),
        Err(SpoolError::Diverged {
            stream: Stream::Stdout,
            offset: 3
        })
    ));
    // One piece may reach beyond what is there.
    spool.append(Stream::Stdout, b"lo world").unwrap();
    check(&mut spool, Stream::Stdout, b"hello world");
    spool.end_attempt().unwrap();
}

#[test]
fn a_second_attempt_that_differs_is_found_at_the_first_byte() {
    let dir = TempDir::new().unwrap();
    open(&dir).append(Stream::Stderr, b"hello").unwrap();
    let mut spool = open(&dir);
    spool.begin_attempt();
    assert!(matches!(
        spool.append(Stream::Stderr, b"help!"),
        Err(SpoolError::Diverged {
            stream: Stream::Stderr,
            offset: 3
        })
    ));
    check(&mut spool, Stream::Stderr, b"hello");
}

#[test]
fn output_is_bounded_for_both_streams_together() {
    let dir = TempDir::new().unwrap();
    let mut spool = open(&dir);
    spool.append(Stream::Stdout, &[1; 600]).unwrap();
    spool.append(Stream::Stderr, &[2; 400]).unwrap();
    for stream in [Stream::Stdout, Stream::Stderr] {
        let error = spool.append(stream, &[3]).unwrap_err();
        assert!(matches!(error, SpoolError::TooMuch { most: MOST }));
    }
    // To repeat what is there needs no room.
    spool.begin_attempt();
    spool.append(Stream::Stdout, &[1; 600]).unwrap();
    spool.append(Stream::Stderr, &[2; 400]).unwrap();
    spool.end_attempt().unwrap();
}

#[test]
fn removed_is_removed_and_orphans_are_swept() {
    let dir = TempDir::new().unwrap();
    open(&dir).append(Stream::Stdout, b"x").unwrap();
    Spool::remove(dir.path(), &JOB).unwrap();
    Spool::remove(dir.path(), &JOB).unwrap();
    check(&mut open(&dir), Stream::Stdout, b"");
    let other = JobId([8; 16]);
    for job in [JOB, other] {
        let mut spool = Spool::open(dir.path(), job, MOST).unwrap();
        spool.append(Stream::Stdout, b"x").unwrap();
        spool.append(Stream::Stderr, b"y").unwrap();
    }
    fs::write(dir.path().join("note"), "somebody's").unwrap();
    Spool::sweep(dir.path(), |id| *id == JOB).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    check(&mut open(&dir), Stream::Stdout, b"x");
    Spool::sweep(&dir.path().join("nowhere"), |_| false).unwrap();
}

#[test]
fn a_file_that_changed_behind_our_back_is_an_error() {
    let dir = TempDir::new().unwrap();
    open(&dir).append(Stream::Stdout, b"hello").unwrap();
    let mut spool = open(&dir);
    fs::write(&spool.out.path, b"hell").unwrap();
    let error = spool.content(Stream::Stdout).unwrap_err();
    assert!(matches!(error, SpoolError::Io { .. }), "{error}");
    spool.begin_attempt();
    let error = spool.append(Stream::Stdout, b"hello").unwrap_err();
    assert!(matches!(error, SpoolError::Diverged { offset: 4, .. }));
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = TempDir::new().unwrap();
    let target = dir.path().join("target");
    fs::write(&target, "secret").unwrap();
    let link = dir.path().join(format!("{JOB}{OUT}"));
    std::os::unix::fs::symlink(&target, link).unwrap();
    assert!(Spool::open(dir.path(), JOB, MOST).is_err());
}

fn piece() -> impl Strategy<Value = (bool, usize)> {
    (any::<bool>(), 0_usize..40)
}

proptest! {
    /// However attempts are cut into pieces and wherever they are interrupted, what was read
    /// once stays, and the last attempt's output is whole.
    #[test]
    fn interrupted_attempts_make_one_output(
        out in prop::collection::vec(any::<u8>(), 0..200),
        err in prop::collection::vec(any::<u8>(), 0..200),
        attempts in prop::collection::vec((prop::collection::vec(piece(), 0..20), any::<bool>()), 1..6),
    ) {
        let dir = TempDir::new().unwrap();
        let mut spool = open(&dir);
        let whole = |stream| match stream {
            Stream::Stdout => &out,
            Stream::Stderr => &err,
        };
        for (pieces, restart) in attempts {
            if restart {
                spool = open(&dir);
            }
            spool.begin_attempt();
            let (mut printed, mut seen) = ((0, 0), (spool.len(Stream::Stdout), spool.len(Stream::Stderr)));
            for (first, length) in pieces {
                let (stream, at) = if first {
                    (Stream::Stdout, &mut printed.0)
                } else {
                    (Stream::Stderr, &mut printed.1)
                };
                let end = whole(stream).len().min(*at + length);
                spool.append(stream, &whole(stream)[*at..end]).unwrap();
                *at = end;
                let now = (spool.len(Stream::Stdout), spool.len(Stream::Stderr));
                prop_assert!(now.0 >= seen.0 && now.1 >= seen.1, "what was read is gone");
                seen = now;
                for stream in [Stream::Stdout, Stream::Stderr] {
                    let there = all(&spool, stream);
                    check(&mut spool, stream, &whole(stream)[..there.len()]);
                }
            }
            // An attempt that is over before it caught up is not the same one.
            let short = (printed.0 as u64) < seen.0 || (printed.1 as u64) < seen.1;
            prop_assert_eq!(spool.end_attempt().is_err(), short);
        }
        spool.begin_attempt();
        spool.append(Stream::Stderr, &err).unwrap();
        spool.append(Stream::Stdout, &out).unwrap();
        spool.end_attempt().unwrap();
        check(&mut spool, Stream::Stdout, &out);
        check(&mut spool, Stream::Stderr, &err);
    }

    /// An attempt that prints another byte is found, and changes nothing.
    #[test]
    fn a_difference_is_always_found(
        first in prop::collection::vec(any::<u8>(), 1..200),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..=255,
        cut in 1_usize..50,
    ) {
        let dir = TempDir::new().unwrap();
        open(&dir).append(Stream::Stdout, &first).unwrap();
        let mut second = first.clone();
        let at = at.index(second.len());
        second[at] ^= flip;
        let mut spool = open(&dir);
        spool.begin_attempt();
        let failed = second
            .chunks(cut)
            .find_map(|piece| spool.append(Stream::Stdout, piece).err());
        let diverged = matches!(failed, Some(SpoolError::Diverged { offset, .. }) if offset == at as u64);
        prop_assert!(diverged, "{failed:?}");
        check(&mut spool, Stream::Stdout, &first);
    }
}
