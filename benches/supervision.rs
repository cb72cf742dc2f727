//! What supervision costs beside bare actix in the same run, and how fast a restart is.
//!
//! Ratios are what counts: absolute numbers are the machine's. Run: `cargo bench --bench
//! supervision` (about ten seconds).

#![expect(
    clippy::disallowed_methods,
    reason = "a bench reads the clock, and measures what the rest of the house must not use"
)]
#![expect(clippy::print_stdout, reason = "a bench prints")]
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a bench may end at once, and injects panics"
)]

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actix::{
    Actor, Addr, Arbiter, ArbiterHandle, AsyncContext, Context, Handler, Message, System,
    WrapFuture,
};
use quantraband::{
    config::{RestartConfig, SupervisionConfig},
    supervised,
    supervision::{ActorRef, AskError, Placement, Root, Supervise},
    types::SystemClock,
};
use tokio::sync::oneshot;

const DEADLINE: Duration = Duration::from_secs(10);
/// Questions in one measurement; several are taken in turns and the median counts.
const ASKS: u32 = 20_000;
const TELLS: u32 = 200_000;
const ROUNDS: usize = 7;
const RESTARTS: usize = 2_000;
const MAILBOX: usize = 4_096;
/// Messages of the flood, and futures the flooded actor has spawned.
const FLOOD: u32 = 100_000;
const FUTURES: usize = 4;

struct Echo;

impl Actor for Echo {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}
supervised!(Echo);

impl Supervise for Echo {
    const NAME: &'static str = "echo";
    type Observable = ();

    fn observe(&self) {}
}

#[derive(Message)]
#[rtype(result = "u64")]
struct Ping(u64);

impl Handler<Ping> for Echo {
    type Result = u64;

    fn handle(&mut self, ping: Ping, _: &mut Context<Self>) -> u64 {
        ping.0.wrapping_add(1)
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Panic;

impl Handler<Panic> for Echo {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Context<Self>) {
        panic!("as asked");
    }
}

fn main() {
    // Thousands of panics are asked for; nobody wants to read them.
    std::panic::set_hook(Box::new(|_| {}));
    System::new().block_on(async {
        let restart = RestartConfig {
            faults: 10_000,
            window: Duration::from_millis(1).into(),
            backoff_initial: Duration::ZERO.into(),
            backoff_max: Duration::ZERO.into(),
            mailbox: MAILBOX,
            ..RestartConfig::default()
        };
        let config = SupervisionConfig {
            default: restart,
            ..SupervisionConfig::default()
        };
        let (root, _events) = Root::new(&config, Arc::new(SystemClock::new()), false);
        let (place, arbiter) = oneshot::channel();
        let mut place = Some(place);
        let echo = root.spawn(Placement::Own, move |_| {
            if let Some(place) = place.take() {
                let _ = place.send(Arbiter::current());
            }
            Ok(Echo)
        });
        let arbiter = arbiter.await.expect("the arbiter of the actor");
        let bare = Arc::new(Echo::start_in_arbiter(&arbiter, |_| Echo));
        bare.send(Ping(0)).await.expect("it runs");

        println!("ask and tell beside bare actix (median of {ROUNDS}, in turns)");
        for (deadline, what) in [(true, "with deadline"), (false, "without      ")] {
            let ask = || compare_ask(echo.clone(), bare.clone(), deadline);
            let same = on(&arbiter, ask()).await;
            same.print(&format!("ask, same arbiter, bare {what}"));
            ask()
                .await
                .print(&format!("ask, across,       bare {what}"));
        }
        let same = on(&arbiter, compare_tell(echo.clone(), bare.clone())).await;
        same.print("tell, same arbiter                    ");
        compare_tell(echo.clone(), bare)
            .await
            .print("tell, across                          ");

        println!("\npanic to next good answer, no backoff ({RESTARTS} times)");
        print_quantiles("same arbiter", &on(&arbiter, restarts(echo.clone())).await);
        print_quantiles("across      ", &restarts(echo).await);

        println!("\npolls of {FUTURES} spawned futures during {FLOOD} queued messages");
        println!(
            "  bare actix                    {:?}",
            flood_bare(false).await
        );
        println!(
            "  bare actix, wait(yield_now)   {:?}",
            flood_bare(true).await
        );
        println!(
            "  supervised                    {:?}",
            flood_supervised(&root).await
        );
    });
}

/// Runs a future on an arbiter and brings back what it came to.
async fn on<T: Send + 'static>(
    arbiter: &ArbiterHandle,
    future: impl Future<Output = T> + Send + 'static,
) -> T {
    let (tx, rx) = oneshot::channel();
    arbiter.spawn(async move {
        let _ = tx.send(future.await);
    });
    rx.await.expect("the arbiter lives")
}

/// Nanoseconds for each message.
struct Pair {
    supervised: f64,
    bare: f64,
}

impl Pair {
    fn print(&self, what: &str) {
        let Self { supervised, bare } = self;
        let ratio = supervised / bare;
        println!("  {what} {supervised:>8.0} ns   bare {bare:>8.0} ns   ratio {ratio:.2}");
    }
}

type Timed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Measures both in turns, so that whatever the machine does meanwhile hits both.
async fn in_turns(count: u32, supervised: impl Fn() -> Timed, bare: impl Fn() -> Timed) -> Pair {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..=ROUNDS {
        for (times, run) in times.iter_mut().zip([supervised(), bare()]) {
            let begin = Instant::now();
            run.await;
            times.push(begin.elapsed().as_secs_f64() * 1e9 / f64::from(count));
        }
    }
    let [supervised, bare] = times.map(|mut times| {
        times.remove(0);
        times.sort_by(f64::total_cmp);
        times.get(ROUNDS / 2).copied().unwrap_or_default()
    });
    Pair { supervised, bare }
}

/// A question without a deadline is what no part of this node asks; it is shown for comparison.
fn compare_ask(
    echo: ActorRef<Echo>,
    bare: Arc<Addr<Echo>>,
    deadline: bool,
) -> impl Future<Output = Pair> + Send + 'static {
    let supervised = move || -> Timed {
        let echo = echo.clone();
        Box::pin(async move {
            for n in 0..u64::from(ASKS) {
                echo.ask(Ping(n), DEADLINE).await.expect("an answer");
            }
        })
    };
    let bare = move || -> Timed {
        let bare = bare.clone();
        Box::pin(async move {
            for n in 0..u64::from(ASKS) {
                let answer = bare.send(Ping(n));
                if deadline {
                    answer.timeout(DEADLINE).await.expect("an answer");
                } else {
                    answer.await.expect("an answer");
                }
            }
        })
    };
    in_turns(ASKS, supervised, bare)
}

/// Bare is `try_send` on one shared address, the only way in which actix keeps a bound.
fn compare_tell(
    echo: ActorRef<Echo>,
    bare: Arc<Addr<Echo>>,
) -> impl Future<Output = Pair> + Send + 'static {
    let supervised = move || -> Timed {
        let echo = echo.clone();
        Box::pin(async move {
            for n in 0..u64::from(TELLS) {
                while echo.tell(Ping(n)).is_err() {
                    tokio::task::yield_now().await;
                }
            }
            while echo.snapshot().mailbox > 0 {
                tokio::task::yield_now().await;
            }
        })
    };
    let bare = move || -> Timed {
        let bare = bare.clone();
        Box::pin(async move {
            for n in 0..u64::from(TELLS) {
                while bare.try_send(Ping(n)).is_err() {
                    tokio::task::yield_now().await;
                }
            }
            bare.send(Ping(0)).await.expect("an answer");
        })
    };
    in_turns(TELLS, supervised, bare)
}

async fn restarts(echo: ActorRef<Echo>) -> Vec<Duration> {
    let mut times = Vec::with_capacity(RESTARTS);
    for n in 0..RESTARTS as u64 {
        let begin = Instant::now();
        let panicked = echo.ask(Panic, DEADLINE).await;
        assert_eq!(panicked, Err(AskError::Restarted));
        echo.ask(Ping(n), DEADLINE).await.expect("a good answer");
        times.push(begin.elapsed());
    }
    times.sort();
    times
}

fn print_quantiles(what: &str, times: &[Duration]) {
    let at = |permille: usize| times.get(times.len() * permille / 1_000).copied();
    let micros = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64() * 1e6;
    let (p50, p99) = (micros(at(500)), micros(at(990)));
    println!("  {what}  p50 {p50:>7.1} µs   p99 {p99:>7.1} µs");
}

/// Has spawned futures of its own, which count how often they are polled.
struct Busy {
    polls: Arc<[AtomicU64; FUTURES]>,
    handled: u32,
    yields: bool,
}

impl Busy {
    fn new(polls: &Arc<[AtomicU64; FUTURES]>, yields: bool) -> Self {
        Self {
            polls: polls.clone(),
            handled: 0,
            yields,
        }
    }

    fn spawn_all(&self, ctx: &mut Context<Self>) {
        for n in 0..FUTURES {
            let polls = self.polls.clone();
            let counts = async move {
                while let Some(count) = polls.get(n) {
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            };
            ctx.spawn(counts.into_actor(self));
        }
    }
}

impl Actor for Busy {
    type Context = Context<Self>;
}
supervised!(Busy);

impl Supervise for Busy {
    const NAME: &'static str = "busy";
    type Observable = ();

    fn observe(&self) {}
}

#[derive(Message)]
#[rtype(result = "()")]
struct SpawnAll;

impl Handler<SpawnAll> for Busy {
    type Result = ();

    fn handle(&mut self, _: SpawnAll, ctx: &mut Context<Self>) {
        self.spawn_all(ctx);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Work;

impl Handler<Work> for Busy {
    type Result = ();

    fn handle(&mut self, _: Work, ctx: &mut Context<Self>) {
        self.handled = self.handled.wrapping_add(1);
        if self.yields && self.handled.is_multiple_of(32) {
            ctx.wait(tokio::task::yield_now().into_actor(self));
        }
    }
}

fn read(polls: &[AtomicU64; FUTURES]) -> Vec<u64> {
    polls
        .iter()
        .map(|count| count.load(Ordering::Relaxed))
        .collect()
}

async fn flood_bare(yields: bool) -> Vec<u64> {
    let polls = Arc::default();
    let busy = Busy::new(&polls, yields);
    let arbiter = Arbiter::new();
    let addr = Busy::start_in_arbiter(&arbiter.handle(), move |_| busy);
    addr.send(SpawnAll).await.expect("spawned");
    let before = read(&polls);
    for _ in 0..FLOOD {
        addr.do_send(Work);
    }
    addr.send(Work).await.expect("handled");
    arbiter.stop();
    difference(&polls, &before)
}

async fn flood_supervised(root: &Root) -> Vec<u64> {
    let polls: Arc<[AtomicU64; FUTURES]> = Arc::default();
    let made = polls.clone();
    let busy = root.spawn(Placement::Own, move |_| Ok(Busy::new(&made, false)));
    busy.ask(SpawnAll, DEADLINE).await.expect("spawned");
    let before = read(&polls);
    for _ in 0..FLOOD {
        while busy.tell(Work).is_err() {
            std::hint::spin_loop();
        }
    }
    busy.ask(Work, DEADLINE).await.ok();
    difference(&polls, &before)
}

fn difference(polls: &[AtomicU64; FUTURES], before: &[u64]) -> Vec<u64> {
    let after = read(polls).into_iter();
    after
        .zip(before)
        .map(|(after, before)| after.wrapping_sub(*before))
        .collect()
}
