//! Workers that were taken over by their guest.

use std::{fs, path::Path, process::Stdio, sync::Arc};

use tokio::{process::Command, sync::Semaphore};
use tokio_util::codec::FramedRead;

use super::*;
use crate::sandbox::{
    Stream,
    worker::protocol::{Decoder, say},
};

#[test]
fn processor_time_is_read_behind_any_name() {
    let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 4 0 100 1 2";
    assert_eq!(processor_time_of(stat), Some(Duration::from_millis(420)));
    assert_eq!(processor_time_of("7 (a"), None);
    assert_eq!(processor_time_of("7 (a) S 1"), None);
    assert!(processor_time(std::process::id()).is_some());
}

#[test]
fn a_worker_speaks_only_for_its_guest() {
    assert!(is_for_worker_to_say(&Outcome::Exited { status: 3 }, false));
    let cancelled = Outcome::Cancelled {
        by: CancelledBy::Operator,
    };
    assert!(!is_for_worker_to_say(&cancelled, false));
    assert!(!is_for_worker_to_say(&failed(JobFault::Interrupted), true));
}

/// A worker that runs `before`, writes these bytes whatever it is asked, and then stays.
fn taken_over(dir: &Path, before: &str, bytes: &[u8]) -> Worker {
    let file = dir.join("bytes");
    fs::write(&file, bytes).unwrap();
    let mut child = Command::new("sh")
        .args(["-c", &format!("{before} cat \"$1\"; exec sleep 1000"), "sh"])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let slots = Arc::new(Semaphore::new(1));
    Worker {
        stdin: child.stdin.take().unwrap(),
        frames: FramedRead::new(child.stdout.take().unwrap(), Decoder::default()),
        slot: slots.try_acquire_owned().unwrap(),
        child,
    }
}

fn ask(wall: Duration) -> Ask {
    Ask {
        order: b"order".to_vec(),
        bytes: Vec::new(),
        wall,
        wall_name: LimitName::WallClock,
        cpu_name: LimitName::CpuTime,
        abort_name: None,
        output: 10,
        memory: 1 << 20,
        fuel: None,
        artifact: false,
    }
}

/// What comes of these frames, and the output that was handed on.
async fn heard_of(frames: &[FromWorker], raw: &[u8]) -> (Heard, Vec<u8>) {
    heard(ask(Duration::from_millis(20)), "", frames, raw).await
}

async fn heard(ask: Ask, before: &str, frames: &[FromWorker], raw: &[u8]) -> (Heard, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    for frame in frames {
        say(&mut bytes, frame).unwrap();
    }
    bytes.extend_from_slice(raw);
    let worker = taken_over(dir.path(), before, &bytes);
    let pid = worker.child.id().unwrap();
    let (output, mut receiver) = mpsc::channel(4_096);
    let audience = Audience {
        output,
        cancel: &CancellationToken::new(),
        closed: &CancellationToken::new(),
    };
    let heard = talk(worker, ask, audience).await;
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "it is gone");
    let mut delivered = Vec::new();
    while let Some(piece) = receiver.recv().await {
        delivered.extend(piece.bytes);
    }
    (heard, delivered)
}

fn output(bytes: &[u8]) -> FromWorker {
    FromWorker::Output(Stream::Stdout, bytes.to_vec())
}

fn verdict(outcome: Outcome) -> FromWorker {
    FromWorker::Verdict(Verdict {
        outcome,
        usage: Usage {
            wall_ms: u64::MAX,
            cpu_us: u64::MAX,
            fuel: Some(u64::MAX),
            memory_peak: u64::MAX,
            stdout: u64::MAX,
            stderr: u64::MAX,
        },
        stale: false,
    })
}

const EXITED: Outcome = Outcome::Exited { status: 0 };

#[tokio::test]
async fn its_figures_are_held_to_what_the_node_saw() {
    let said = verdict(EXITED);
    let (heard, delivered) = heard_of(&[FromWorker::Started, output(b"x"), said], b"").await;
    assert_eq!(heard.outcome, EXITED);
    assert_eq!(delivered, b"x");
    let usage = heard.usage;
    assert_eq!((usage.stdout, usage.stderr), (1, 0));
    assert_eq!((usage.fuel, usage.memory_peak), (None, 1 << 20));
    // At most the sixty seconds after which any test here has failed.
    assert!(usage.wall_ms < 60_000 && usage.cpu_us < 60_000_000 * THREADS);
}

#[tokio::test]
async fn what_no_honest_worker_says_ends_it() {
    let cancelled = Outcome::Cancelled {
        by: CancelledBy::Operator,
    };
    let artifact = FromWorker::Artifact(vec![1]);
    let cases: [(&[FromWorker], &[u8]); 8] = [
        // More output than its job may have.
        (
            &[FromWorker::Started, output(b"0123456789"), output(b"x")],
            b"",
        ),
        // Output of a guest that did not begin.
        (&[output(b"x")], b""),
        (&[FromWorker::Started, FromWorker::Started], b""),
        (&[FromWorker::Started, artifact], b""),
        (&[FromWorker::Started, verdict(cancelled)], b""),
        (
            &[FromWorker::Started, verdict(failed(JobFault::Interrupted))],
            b"",
        ),
        (&[FromWorker::Started], b"no frame at all"),
        (&[FromWorker::Started], b"\x16\x02\0\0\0{}"),
    ];
    for (frames, raw) in cases {
        let (heard, delivered) = heard_of(frames, raw).await;
        assert_eq!(heard.outcome, failed(JobFault::WorkerDied), "{frames:?}");
        assert!(delivered.len() <= 10);
    }
}

#[tokio::test]
async fn silence_ends_with_its_time() {
    // Silent, or in the middle of a frame.
    for raw in [&b""[..], b"\x13\x04\0\0\0ab"] {
        let (heard, _) = heard_of(&[FromWorker::Started], raw).await;
        assert_eq!(heard.outcome, stopped(LimitName::WallClock));
        assert!(heard.usage.wall_ms >= 20);
    }
}

#[tokio::test]
async fn nothing_after_the_last_word_counts() {
    let last = verdict(Outcome::Exited { status: 3 });
    let frames = [FromWorker::Started, last, output(b"late"), verdict(EXITED)];
    let (heard, delivered) = heard_of(&frames, b"").await;
    assert_eq!(heard.outcome, Outcome::Exited { status: 3 });
    assert!(delivered.is_empty());
}

#[tokio::test]
async fn output_in_tiny_pieces_ends_a_worker_that_does_not_collect_it() {
    let ask = Ask {
        output: 1 << 20,
        ..ask(Duration::from_secs(1))
    };
    let mut frames = vec![FromWorker::Started];
    frames.extend((0..3_000).map(|_| output(b"x")));
    frames.push(verdict(EXITED));
    let (heard, delivered) = heard(ask, "", &frames, b"").await;
    assert_eq!(heard.outcome, failed(JobFault::WorkerDied));
    assert!(delivered.len() < 3_000);
}

#[tokio::test]
async fn processor_time_is_what_the_kernel_counted_when_a_worker_says_less() {
    let busy = "i=0; while [ $i -lt 500000 ]; do i=$((i+1)); done;";
    let said = FromWorker::Verdict(Verdict {
        outcome: EXITED,
        usage: Usage {
            cpu_us: 1,
            ..Usage::default()
        },
        stale: false,
    });
    let ask = ask(Duration::from_secs(1));
    let (heard, _) = heard(ask, busy, &[FromWorker::Started, said], b"").await;
    assert_eq!(heard.outcome, EXITED);
    assert!(heard.usage.cpu_us > 1, "{}", heard.usage.cpu_us);
}
