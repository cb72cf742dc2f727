//! An actor that misbehaves on command, and the house it lives in.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message,
    ResponseActFuture, WrapFuture,
};
use tokio::sync::mpsc;

use crate::{
    config::{RestartConfig, SupervisionConfig},
    supervision::{
        ActorRef, Fault, Incarnation, LastResort, Placement, Root, RootOptions, Strategy,
        Supervise, SupervisionEvent,
    },
    types::{Clock, SystemClock},
};

/// Long enough for anything on a busy machine; reached only by a failing test.
pub(super) const LONG: Duration = Duration::from_secs(30);

/// What the test and all incarnations share.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) built: AtomicUsize,
    pub(super) dropped: AtomicUsize,
    pub(super) started: AtomicUsize,
    /// actix's hooks, which must see no corrupt state.
    pub(super) hooks: AtomicUsize,
    /// Calls of `on_stop`, and ends of what it waits for.
    pub(super) stopping: AtomicUsize,
    pub(super) stops: AtomicUsize,
    pub(super) handled: AtomicUsize,
    pub(super) ticks: [AtomicU64; 4],
    /// Most messages handled between two polls of the same future.
    pub(super) gap: AtomicUsize,
    /// Builds that are to fail: an odd number left panics, an even one is an error.
    pub(super) bad_builds: AtomicUsize,
    /// Starts that are to fail, likewise.
    pub(super) bad_starts: AtomicUsize,
}

pub(super) fn get(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::SeqCst)
}

pub(super) fn add(counter: &AtomicUsize) -> usize {
    counter.fetch_add(1, Ordering::SeqCst) + 1
}

/// Takes one off; how many there were, unless none.
fn take(counter: &AtomicUsize) -> Option<usize> {
    let less = |n: usize| n.checked_sub(1);
    counter
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
        .ok()
}

/// Counts messages since it was made, and fails in every way there is.
pub(super) struct Imp {
    pub(super) incarnation: Incarnation,
    pub(super) log: Arc<Log>,
    pub(super) count: u64,
    pub(super) bomb: bool,
}

impl Imp {
    pub(super) fn make(log: &Arc<Log>, incarnation: Incarnation) -> Self {
        add(&log.built);
        Self {
            incarnation,
            log: log.clone(),
            count: 0,
            bomb: false,
        }
    }
}

impl Drop for Imp {
    fn drop(&mut self) {
        add(&self.log.dropped);
        assert!(!self.bomb, "a destructor that panics");
    }
}

impl Actor for Imp {
    type Context = Context<Self>;

    fn stopping(&mut self, _: &mut Self::Context) -> actix::Running {
        // Only an orderly end may come by here.
        add(&self.log.hooks);
        actix::Running::Stop
    }
}

crate::supervised!(Imp);

impl Supervise for Imp {
    const NAME: &'static str = "imp";
    type Observable = u64;

    fn on_start(&mut self, _: &mut Context<Self>) -> Result<(), Fault> {
        add(&self.log.started);
        if let Some(left) = take(&self.log.bad_starts) {
            assert!(left.is_multiple_of(2), "a start that panics");
            return Err(Fault::error("a start that fails"));
        }
        Ok(())
    }

    fn observe(&self) -> u64 {
        self.count
    }

    fn on_stop(&mut self, ctx: &mut Context<Self>) {
        let log = self.log.clone();
        add(&log.stopping);
        ctx.wait(
            async move {
                // Long enough for a test to do something meanwhile.
                tokio::time::sleep(Duration::from_millis(30)).await;
                add(&log.stops);
            }
            .into_actor(self),
        );
    }
}

/// Adds one; answers how many this incarnation has counted.
#[derive(Message)]
#[rtype(result = "u64")]
pub(super) struct Count;

impl Handler<Count> for Imp {
    type Result = u64;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> u64 {
        add(&self.log.handled);
        self.count += 1;
        self.count
    }
}

/// Misdeeds.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(super) enum Do {
    Panic,
    PanicLater,
    PanicAsync,
    PanicWithBombs,
    Fail,
    Stop,
    Terminate,
    Hang,
    /// Never answers, and harms nobody.
    Silence,
    /// Blocks the thread.
    Block(Duration),
    /// Blocks the thread, yet tells of progress.
    Work(Duration),
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a future's destructor that panics");
    }
}

impl Handler<Do> for Imp {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, what: Do, ctx: &mut Context<Self>) -> Self::Result {
        match what {
            Do::Panic => panic!("a handler that panics"),
            Do::PanicLater => {
                ctx.run_later(Duration::ZERO, |_, _| panic!("a timer that panics"));
            }
            Do::PanicAsync => {
                return Box::pin(
                    tokio::task::yield_now()
                        .into_actor(self)
                        .map(|(), _, _| panic!("a future that panics")),
                );
            }
            Do::PanicWithBombs => {
                self.bomb = true;
                let bomb = Bomb;
                ctx.spawn(
                    async move {
                        let _bomb = bomb;
                        std::future::pending::<()>().await;
                    }
                    .into_actor(self),
                );
                ctx.run_later(Duration::ZERO, |_, _| panic!("a timer that panics"));
            }
            Do::Fail => self.incarnation.fail("an error it cannot go on from"),
            Do::Stop => ctx.stop(),
            Do::Terminate => ctx.terminate(),
            Do::Hang => ctx.wait(std::future::pending().into_actor(self)),
            Do::Silence => return Box::pin(std::future::pending().into_actor(self)),
            Do::Block(span) => std::thread::sleep(span),
            Do::Work(span) => {
                for _ in 0..20 {
                    std::thread::sleep(span / 20);
                    self.incarnation.progress();
                }
            }
        }
        Box::pin(actix::fut::ready(()))
    }
}

/// Panics on this input.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "u64")]
pub(super) struct Input(pub(super) bool);

impl Handler<Input> for Imp {
    type Result = u64;

    fn handle(&mut self, input: Input, _: &mut Context<Self>) -> u64 {
        assert!(input.0, "an input that makes a parser panic");
        self.count += 1;
        self.count
    }
}

/// Spawns as many futures as `Log::ticks` has counters; each counts how often it is polled.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct SpawnTickers;

impl Handler<SpawnTickers> for Imp {
    type Result = ();

    fn handle(&mut self, _: SpawnTickers, ctx: &mut Context<Self>) {
        for i in 0..self.log.ticks.len() {
            let log = self.log.clone();
            ctx.spawn(
                async move {
                    let mut last = get(&log.handled);
                    loop {
                        let now = get(&log.handled);
                        log.gap.fetch_max(now - last, Ordering::SeqCst);
                        last = now;
                        log.ticks[i].fetch_add(1, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                    }
                }
                .into_actor(self),
            );
        }
    }
}

/// A root with one imp.
pub(super) struct House {
    pub(super) root: Root,
    pub(super) events: mpsc::Receiver<SupervisionEvent>,
    pub(super) log: Arc<Log>,
    pub(super) imp: ActorRef<Imp>,
}

/// How a house is built.
pub(super) struct Plan {
    pub(super) config: SupervisionConfig,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) placement: Placement,
    pub(super) strategy: Strategy,
    pub(super) allow_injection: bool,
    pub(super) last_resort: mpsc::Sender<LastResort>,
    pub(super) log: Arc<Log>,
}

impl Plan {
    pub(super) fn new() -> Self {
        let default = RestartConfig {
            backoff_initial: Duration::from_millis(1).into(),
            backoff_max: Duration::from_millis(5).into(),
            ..RestartConfig::default()
        };
        Self {
            config: SupervisionConfig {
                default,
                ..SupervisionConfig::default()
            },
            clock: Arc::new(SystemClock::new()),
            placement: Placement::Own,
            strategy: Strategy::OneForOne,
            allow_injection: true,
            last_resort: mpsc::channel(1).0,
            log: Arc::default(),
        }
    }

    pub(super) fn restart(mut self, change: impl FnOnce(&mut RestartConfig)) -> Self {
        change(&mut self.config.default);
        self
    }

    pub(super) fn build(self) -> House {
        let last_resort = self.last_resort;
        let options = RootOptions {
            allow_injection: self.allow_injection,
            strategy: self.strategy,
            seed: Some(7),
            on_last_resort: Arc::new(move |why| {
                let _ = last_resort.try_send(why);
            }),
        };
        let (root, events) = Root::with_options(&self.config, self.clock, options);
        let log = self.log;
        let made = log.clone();
        let imp = root.spawn(self.placement, move |incarnation| {
            if let Some(left) = take(&made.bad_builds) {
                assert!(left.is_multiple_of(2), "a factory that panics");
                return Err(Fault::build("a factory that fails"));
            }
            Ok(Imp::make(&made, incarnation))
        });
        House {
            root,
            events,
            log,
            imp,
        }
    }
}

impl House {
    pub(super) fn new() -> Self {
        Plan::new().build()
    }

    pub(super) async fn count(&self) -> u64 {
        self.imp.ask(Count, LONG).await.expect("an answer")
    }

    /// The next event that `pick` picks.
    pub(super) async fn event<T>(&mut self, pick: impl Fn(SupervisionEvent) -> Option<T>) -> T {
        let next = async {
            loop {
                let event = self.events.recv().await.expect("the root lives");
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
        };
        tokio::time::timeout(LONG, next).await.expect("an event")
    }
}

/// Runs a test inside an actix system.
pub(super) fn run<F: Future<Output = ()>>(test: F) {
    actix::System::new().block_on(async {
        tokio::time::timeout(LONG.saturating_mul(2), test)
            .await
            .expect("the test ends");
    });
}

/// Waits until `condition` holds.
pub(super) async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LONG, wait)
        .await
        .expect("the condition comes true");
}

/// One of several imps.
pub(super) type Family = ActorRef<Imp>;
