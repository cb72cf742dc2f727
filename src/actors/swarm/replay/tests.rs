//! Whatever is taken, however the clock steps and however the process ends: nothing is taken again.
//! With the real store.

use std::{path::PathBuf, time::Duration};

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::network::replay::{Mark, Numbers, Stale};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOUR: i64 = 3_600_000;
/// Authors with these numbers are strangers.
const STRANGERS: std::ops::Range<u8> = 4..8;

fn who(n: u8) -> Who {
    let author = PeerId::from(&SigningKey::from_bytes(&[n; 32]).verifying_key());
    (author, STRANGERS.contains(&n))
}

fn moved(at: Timestamp, by: i64) -> Timestamp {
    Timestamp::from_millis(at.millis().saturating_add_signed(by))
}

/// A node's replay state over any number of lives.
struct World {
    _root: TempDir,
    path: PathBuf,
    memory: Option<ReplayMemory>,
    mark: Mark,
    turn: u64,
    /// What an incarnation that is gone still writes.
    late: Option<(u64, Writing)>,
    now: Timestamp,
    elapsed: Duration,
    taken: Vec<(u8, Numbers)>,
}

impl World {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        let mut world = Self {
            path: root.path().join("state"),
            _root: root,
            memory: None,
            mark: Mark::default(),
            turn: 0,
            late: None,
            now: NOW,
            elapsed: Duration::ZERO,
            taken: Vec::new(),
        };
        world.begin();
        world
    }

    /// A process.
    fn begin(&mut self) {
        // The one before lets go of its files on a thread of its own.
        let store = loop {
            match Store::open(&self.path, self.now) {
                Err(StoreError::Locked(_)) => std::thread::yield_now(),
                opened => break opened.unwrap().0,
            }
        };
        let memory = ReplayMemory::open(&store, self.now).unwrap();
        // Room for so few that they crowd each other out.
        let mut windows = memory.windows();
        *windows = std::mem::take(&mut *windows).with_room(3);
        drop(windows);
        self.memory = Some(memory);
        // What was taken behind this can be taken again when its time comes: the clock was ahead
        // of it once, and a node that believed it then would be deaf until now.
        let latest = self.now.after(Duration::from_secs(305));
        self.taken.retain(|(_, numbers)| numbers.sent <= latest);
        self.incarnate();
    }

    fn incarnate(&mut self) {
        let memory = self.memory.as_ref().unwrap();
        if let Some(writing) = self.mark.due(self.now, self.elapsed) {
            self.late = Some((self.turn, writing));
        }
        self.mark = Mark::default();
        let writing = self.mark.due(self.now, self.elapsed).unwrap();
        self.turn = memory.next_turn();
        memory.write_marks(self.turn, &writing).unwrap();
        self.mark.written(true);
        memory.tidy().unwrap();
    }

    fn write(&mut self, durable: bool) {
        let memory = self.memory.as_ref().unwrap();
        if let Some((turn, writing)) = self.late.take() {
            memory.write_marks(turn, &writing).unwrap();
        }
        if let Some(writing) = self.mark.due(self.now, self.elapsed) {
            if durable {
                memory.write_marks(self.turn, &writing).unwrap();
            }
            self.mark.written(durable);
        }
    }

    fn stop(&mut self) {
        let memory = self.memory.take().unwrap();
        self.mark.close();
        let floors = memory.windows().floors(self.now);
        memory.write_floors(&floors).unwrap();
        if let Some((turn, writing)) = self.late.take() {
            memory.write_marks(turn, &writing).unwrap();
        }
    }

    fn offer(&mut self, n: u8, numbers: Numbers) -> Result<(), Stale> {
        let memory = self.memory.as_ref().unwrap();
        let clocks = (self.now, self.elapsed);
        let mut windows = memory.windows();
        if windows.admit(who(n).0, numbers, clocks, &mut self.mark)? {
            return Ok(());
        }
        windows.take(who(n), numbers, clocks, &mut self.mark)
    }

    fn send(&mut self, n: u8, first: u64, skew: i64) {
        let numbers = Numbers {
            first,
            count: 1,
            sent: moved(self.now, skew),
        };
        if self.offer(n, numbers).is_ok() {
            self.taken.push((n, numbers));
        }
    }

    fn replay_all(&mut self) {
        for (n, numbers) in self.taken.clone() {
            assert!(self.offer(n, numbers).is_err(), "{n} {numbers:?}");
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Send(u8, i64),
    Wait(u64),
    Clock(i64),
    Write(bool),
    Incarnate,
    Crash,
    Stop,
    ReplayAll,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u8..8, -290_000_i64..290_000).prop_map(|(n, skew)| Step::Send(n, skew)),
        4 => (0_u8..8, -1_000_i64..1_000).prop_map(|(n, skew)| Step::Send(n, skew)),
        4 => (0_u64..4_000).prop_map(Step::Wait),
        1 => (500_000_u64..700_000).prop_map(Step::Wait),
        1 => prop_oneof![Just(HOUR), Just(-HOUR), -400_000_i64..400_000].prop_map(Step::Clock),
        4 => any::<bool>().prop_map(Step::Write),
        1 => Just(Step::Incarnate),
        1 => Just(Step::Crash),
        1 => Just(Step::Stop),
        2 => Just(Step::ReplayAll),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_is_taken_again(steps in proptest::collection::vec(step(), 20..80)) {
        let mut world = World::new();
        for (first, step) in (1_000..).zip(steps) {
            match step {
                Step::Send(n, skew) => world.send(n, first, skew),
                Step::Wait(ms) => {
                    world.now = world.now.after(Duration::from_millis(ms));
                    world.elapsed += Duration::from_millis(ms);
                }
                Step::Clock(by) => world.now = moved(world.now, by),
                Step::Write(durable) => world.write(durable),
                Step::Incarnate => world.incarnate(),
                Step::Crash => {
                    world.memory = None;
                    world.late = None;
                    world.mark = Mark::default();
                    world.begin();
                }
                Step::Stop => {
                    world.stop();
                    world.mark = Mark::default();
                    world.begin();
                }
                Step::ReplayAll => world.replay_all(),
            }
        }
        // Now, and at the time at which each was sent.
        world.replay_all();
        for sent in world.taken.iter().map(|(_, numbers)| numbers.sent).collect::<Vec<_>>() {
            world.now = sent;
            world.replay_all();
        }
    }
}

/// An old incarnation's write that ends late takes nothing back, neither of the next incarnation nor
/// of an orderly stop.
#[test]
fn what_an_old_incarnation_still_writes_takes_nothing_back() {
    let mut world = World::new();
    world.elapsed += Duration::from_secs(60);
    world.now = world.now.after(Duration::from_secs(60));
    let old = (
        world.turn,
        Writing {
            until: NOW,
            ..Writing::default()
        },
    );
    world.incarnate();
    world.send(1, 1, 4_000);
    assert_eq!(world.taken.len(), 1);
    world.late = Some(old.clone());
    world.write(false);
    world.memory = None;
    world.begin();
    world.replay_all();
    world.now = world.now.after(Duration::from_secs(60));
    // And one of the future that is written after the stop makes nobody deaf.
    let until = world.now.after(Duration::from_secs(200));
    world.late = Some((world.turn, Writing { until, ..old.1 }));
    world.stop();
    world.mark = Mark::default();
    world.begin();
    world.send(2, 2, 4_500);
    assert_eq!(world.taken.len(), 2);
    world.replay_all();
}

/// What earlier lives left of single authors does not heap up.
#[test]
fn marks_of_earlier_lives_are_removed() {
    let mut world = World::new();
    for life in 0..3 {
        for n in 0..8 {
            world.send(n, 1, 100_000);
        }
        world.elapsed += Duration::from_secs(3);
        world.write(true);
        let records = world.memory.as_ref().unwrap().tree.scan(100).unwrap();
        assert_eq!(records.len(), 9, "{life}: {records:?}");
        world.now = world.now.after(Duration::from_secs(3_600));
        world.memory = None;
        world.mark = Mark::default();
        world.begin();
        let records = world.memory.as_ref().unwrap().tree.scan(100).unwrap();
        assert_eq!(records.len(), 1, "{life}: {records:?}");
    }
}
