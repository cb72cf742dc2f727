//! Events a second through the log at 1, 32 and 256 waiters, beside a bare append and fdatasync
//! of the same bytes in batches of the same size, on the same file system, in turns of one run.
//!
//! `cargo bench --bench audit`; about half a minute.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use quantraband::{
    audit::{
        AuditEvent, Direction, Fence, Log, LogOptions, Progress, Writer,
        storage::{Directory, Storage},
        tail, verify,
    },
    types::{ChannelKind, Cipher, Clock, EventId, Group, PeerId, SecurityInfo, SystemClock},
};

/// How many callers wait at once; a batch has at most as many records.
const WAITERS: [usize; 3] = [1, 32, 256];
/// Turns of each, alternating, so that a disk's moods strike both alike.
const TURNS: u32 = 4;
/// How long a turn takes: 3 * 4 * 2 of them make half a minute.
const TURN: Duration = Duration::from_millis(1_200);

type Failure = Box<dyn std::error::Error>;

/// Work done and how long it took.
#[derive(Default, Clone, Copy)]
struct Tally {
    events: u64,
    syncs: u64,
    spent: Duration,
}

impl Tally {
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    fn rate(&self) -> f64 {
        self.events as f64 / self.spent.as_secs_f64().max(1e-9)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    fn batch(&self) -> f64 {
        self.events as f64 / self.syncs.max(1) as f64
    }

    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.syncs += other.syncs;
        self.spent += other.spent;
    }
}

fn main() -> Result<(), Failure> {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let event = sample()?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:>8} {:>14} {:>10} {:>14} {:>8}",
        "waiters", "log ev/s", "batch", "bare ev/s", "log/bare"
    )?;
    for waiters in WAITERS {
        let directory = home.path().join(format!("audit-{waiters}"));
        let storage: Arc<dyn Storage> = Arc::new(Directory::create(&directory)?);
        let progress = Arc::new(Progress::default());
        let writer = start(&storage, &progress, &clock, waiters)?;
        let (mut log, mut bare) = (Tally::default(), Tally::default());
        for _ in 0..TURNS {
            let before = progress.batches();
            let mut turn = runtime.block_on(through_log(&writer, &event, waiters, &*clock))?;
            turn.syncs = progress.batches().saturating_sub(before);
            log.add(turn);
            // The bare turn writes what the log wrote: lines of its length, its mean batch.
            let line = tail(&*storage, 1)?.pop().unwrap_or_default() + "\n";
            bare.add(bare_appends(home.path(), &line, log.batch(), &*clock)?);
        }
        drop(writer);
        writeln!(
            out,
            "{waiters:>8} {:>14.0} {:>10.1} {:>14.0} {:>8.2}",
            log.rate(),
            log.batch(),
            bare.rate(),
            log.rate() / bare.rate()
        )?;
        let start = clock.elapsed();
        let report = verify(&*storage)?;
        let spent = clock.elapsed().saturating_sub(start);
        assert!(report.is_intact(), "{:?}", report.findings);
        let read = Tally {
            events: report.records,
            syncs: 0,
            spent,
        };
        writeln!(out, "{:>8} verified {:.0} ev/s", "", read.rate())?;
    }
    Ok(())
}

/// A connection that is let in: the record every grant waits for.
fn sample() -> Result<AuditEvent, Failure> {
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
    Ok(AuditEvent::ConnectionAccepted {
        peer: PeerId::from(&key),
        address: Some("203.0.113.7".parse()?),
        direction: Direction::Inbound,
        tier: "member".to_owned(),
        rule: "allow.member".to_owned(),
        identity: Some("acme/node-1".to_owned()),
        credential_hash: Some([9; 32]),
        security: SecurityInfo {
            kind: ChannelKind::Stacked,
            group: Group::X25519MlKem768,
            cipher: Cipher::Aes256Gcm,
        },
        pq_auth: true,
    })
}

fn start(
    storage: &Arc<dyn Storage>,
    progress: &Arc<Progress>,
    clock: &Arc<dyn Clock>,
    waiters: usize,
) -> Result<Writer, Failure> {
    let options = LogOptions {
        segment_size: 100_000_000,
        remembered_ids: 16_384,
        version: "bench".to_owned(),
        clock: Arc::clone(clock),
        checkpoints: None,
    };
    let log = Log::open(Arc::clone(storage), options)?;
    let fence = Fence::default();
    let ticket = fence.raise();
    let queue = waiters.max(4_096);
    Ok(Writer::start(
        log,
        (fence, ticket),
        Arc::clone(progress),
        Arc::clone(clock),
        queue,
        1_024,
    )?)
}

/// `waiters` callers, each of whom records again as soon as its record is durable.
async fn through_log(
    writer: &Writer,
    event: &AuditEvent,
    waiters: usize,
    clock: &dyn Clock,
) -> Result<Tally, Failure> {
    let record = || writer.record(EventId::random(), event.clone());
    let start = clock.elapsed();
    let mut waiting: FuturesUnordered<_> = (0..waiters).map(|_| record()).collect();
    let mut events = 0;
    while let Some(answer) = waiting.next().await {
        answer??;
        events += 1;
        if clock.elapsed().saturating_sub(start) < TURN {
            waiting.push(record());
        }
    }
    Ok(Tally {
        events,
        syncs: 0,
        spent: clock.elapsed().saturating_sub(start),
    })
}

/// The least that durable appends cost: one write and one fdatasync a batch, nothing else.
fn bare_appends(home: &Path, line: &str, batch: f64, clock: &dyn Clock) -> Result<Tally, Failure> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a batch has 1 to 1,024 records"
    )]
    let batch = batch.round().clamp(1.0, 1_024.0) as usize;
    let bytes = line.repeat(batch).into_bytes();
    let path = home.join("bare");
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let mut tally = Tally::default();
    let start = clock.elapsed();
    while tally.spent < TURN {
        file.write_all(&bytes)?;
        file.sync_data()?;
        tally.events += u64::try_from(batch)?;
        tally.syncs += 1;
        tally.spent = clock.elapsed().saturating_sub(start);
    }
    Ok(tally)
}
