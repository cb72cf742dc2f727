//! Whatever an executor answers, a job ends once, takes its output in order, and never spins.

use proptest::prelude::*;

use super::*;
use crate::sandbox::{IdempotencyKey, LimitsWanted};

fn peer(n: u8) -> PeerId {
    PeerId::from(&ed25519_dalek::SigningKey::from_bytes(&[n; 32]).verifying_key())
}

fn spec() -> JobSpec {
    JobSpec {
        key: IdempotencyKey([1; 16]),
        module: ContentHash::of(b"module"),
        module_size: 6,
        arguments: vec!["program".to_owned()],
        environment: Vec::new(),
        input: ContentHash::of(b"input"),
        input_size: 5,
        limits: LimitsWanted::default(),
        deterministic: None,
        sealed: false,
    }
}

fn limits() -> Limits {
    Limits {
        wall_clock_ms: 1,
        cpu_time_ms: 1,
        fuel: None,
        memory: 1,
        table: 1,
        stack: 1,
        output: 100,
    }
}

fn record() -> SentRecord {
    let spec = spec();
    SentRecord {
        job: JobId::new(&peer(1), &peer(2), &spec.key),
        executor: peer(1),
        spec,
        submitted: Timestamp::from_secs(1),
        limits: None,
        cancel: false,
        end: None,
    }
}

const BOUNDS: Bounds = Bounds {
    output: 50,
    patience: Duration::from_secs(60),
    deadline: Duration::from_secs(600),
};

fn job() -> SentJob {
    SentJob::new(record(), (0, 0), BOUNDS)
}

/// The request that such a response answers.
fn asked(response: &Response) -> Asked {
    match response {
        Response::Submitted { .. } => Asked::Submit,
        Response::Stored { .. } => Asked::Put,
        Response::Progress { .. } => Asked::Fetch,
        Response::Cancelled { .. } => Asked::Cancel,
        Response::Refused(_) => Asked::Fetch,
    }
}

impl SentJob {
    /// An answer of the kind that was asked for.
    fn answer(&mut self, response: Response, elapsed: Duration) -> Vec<Effect> {
        self.answered(asked(&response), response, elapsed)
    }
}

fn submitted(wanted: Vec<Wanted>) -> Response {
    Response::Submitted {
        job: record().job,
        state: JobState::Waiting,
        limits: limits(),
        wanted,
    }
}

fn piece(offset: u64, bytes: &[u8]) -> Piece {
    Piece {
        offset,
        bytes: bytes.to_vec(),
    }
}

fn progress(stdout: Piece, receipt: Option<Vec<u8>>) -> Response {
    Response::Progress {
        state: JobState::Running,
        attempt: 1,
        stdout,
        stderr: piece(0, b""),
        receipt,
    }
}

fn refused(code: RefusalCode) -> Response {
    Response::Refused(Refused::new(code, "no"))
}

#[test]
fn from_submission_to_receipt() {
    let mut job = job();
    let zero = Duration::ZERO;
    assert!(matches!(job.next(), Next::Ask(Request::Submit(_))));
    let module = Wanted {
        blob: spec().module,
        have: 2,
        size: 6,
    };
    assert_eq!(job.answer(submitted(vec![module]), zero), [Effect::Save]);
    let Next::Piece { blob, offset, .. } = job.next() else {
        panic!("the module is wanted");
    };
    assert_eq!((blob, offset), (spec().module, 2));
    let stored = Response::Stored {
        blob: spec().module,
        have: 6,
    };
    assert_eq!(job.answer(stored, zero), []);
    assert!(matches!(
        job.next(),
        Next::Ask(Request::Fetch { stdout: 0, .. })
    ));
    let effects = job.answer(progress(piece(0, b"abc"), None), zero);
    assert_eq!(effects, [Effect::Append(Stream::Stdout, b"abc".to_vec())]);
    assert!(matches!(
        job.next(),
        Next::Ask(Request::Fetch { stdout: 3, .. })
    ));
    let effects = job.answer(progress(piece(3, b""), Some(vec![9])), zero);
    assert_eq!(effects, [Effect::Verify(vec![9])]);
    assert!(job.end(Ok(vec![9]), Timestamp::from_secs(2)));
    assert!(!job.end(Err(SentFault::Unreachable), Timestamp::from_secs(3)));
    assert_eq!(job.next(), Next::Over);
}

#[test]
fn lies_end_the_job_with_their_name() {
    let lies = [
        (
            submitted(vec![Wanted {
                blob: ContentHash::of(b"other"),
                have: 0,
                size: 1,
            }]),
            "wanted",
        ),
        (
            submitted(vec![Wanted {
                blob: spec().module,
                have: 6,
                size: 6,
            }]),
            "wanted",
        ),
        (
            Response::Stored {
                blob: spec().module,
                have: 1,
            },
            "stored",
        ),
        (progress(piece(1, b"x"), None), "cursor"),
        (
            Response::Submitted {
                job: JobId([0; 16]),
                state: JobState::Queued,
                limits: limits(),
                wanted: Vec::new(),
            },
            "job",
        ),
    ];
    for (lie, what) in lies {
        let effects = job().answer(lie, Duration::ZERO);
        assert_eq!(effects, bad(what));
    }
}

#[test]
fn output_is_bounded_here_whatever_was_granted() {
    let flood = progress(piece(0, &[b'x'; 51]), None);
    let effects = job().answer(flood, Duration::ZERO);
    assert_eq!(effects, [Effect::End(SentFault::TooMuchOutput)]);
}

#[test]
fn an_upload_that_never_grows_is_given_up() {
    let mut job = job();
    let module = Wanted {
        blob: spec().module,
        have: 0,
        size: 6,
    };
    job.answer(submitted(vec![module]), Duration::ZERO);
    let stuck = || Response::Stored {
        blob: spec().module,
        have: 0,
    };
    let ended = (0..=MAX_STALLS).any(|_| !job.answer(stuck(), Duration::ZERO).is_empty());
    assert!(ended);
}

#[test]
fn patience_ends_and_an_answer_renews_it() {
    let mut job = job();
    let at = Duration::from_secs;
    assert!(matches!(job.unanswered(at(0)), Effect::Pause(_)));
    assert!(matches!(job.unanswered(at(59)), Effect::Pause(_)));
    job.answer(submitted(Vec::new()), at(59));
    assert!(matches!(job.unanswered(at(70)), Effect::Pause(_)));
    assert_eq!(job.unanswered(at(130)), Effect::End(SentFault::Unreachable));
}

#[test]
fn a_full_queue_is_tried_again_until_patience_ends_and_a_denial_is_not() {
    let mut full_one = job();
    let full = |job: &mut SentJob, secs| {
        job.answer(refused(RefusalCode::QueueFull), Duration::from_secs(secs))
    };
    assert!(matches!(full(&mut full_one, 0)[..], [Effect::Pause(_)]));
    assert!(matches!(
        full(&mut full_one, 61)[..],
        [Effect::End(SentFault::Refused { .. })]
    ));
    let denied = job().answer(refused(RefusalCode::Denied), Duration::ZERO);
    assert!(matches!(
        denied[..],
        [Effect::End(SentFault::Refused { .. })]
    ));
}

#[test]
fn a_forgotten_job_is_submitted_anew_only_before_its_output_began() {
    let mut fresh = job();
    fresh.answer(submitted(Vec::new()), Duration::ZERO);
    let effects = fresh.answer(refused(RefusalCode::UnknownJob), Duration::ZERO);
    assert!(matches!(effects[..], [Effect::Pause(_)]));
    assert!(matches!(fresh.next(), Next::Ask(Request::Submit(_))));

    let mut begun = job();
    begun.answer(progress(piece(0, b"a"), None), Duration::ZERO);
    let effects = begun.answer(refused(RefusalCode::UnknownJob), Duration::ZERO);
    assert_eq!(effects, [Effect::End(SentFault::Forgotten)]);
}

#[test]
fn an_answer_to_another_question_ends_the_job() {
    let answers = [
        (Asked::Submit, progress(piece(0, b""), None)),
        (Asked::Fetch, submitted(Vec::new())),
        (
            Asked::Cancel,
            Response::Stored {
                blob: spec().module,
                have: 6,
            },
        ),
        (
            Asked::Put,
            Response::Cancelled {
                state: JobState::Running,
            },
        ),
    ];
    for (asked, answer) in answers {
        let effects = job().answered(asked, answer, Duration::ZERO);
        assert_eq!(effects, bad("answer"));
    }
}

#[test]
fn what_was_granted_fits_what_was_wanted_and_stays() {
    let mut wanting = record();
    wanting.spec.limits.memory = Some(2);
    let mut job_with_less = SentJob::new(wanting, (0, 0), BOUNDS);
    let effects = job_with_less.answer(submitted(Vec::new()), Duration::ZERO);
    assert_eq!(effects, bad("limits"));

    let mut uncounted = record();
    uncounted.spec.deterministic = Some(1);
    let mut uncounted = SentJob::new(uncounted, (0, 0), BOUNDS);
    let effects = uncounted.answer(submitted(Vec::new()), Duration::ZERO);
    assert_eq!(effects, bad("limits"));

    let mut changed = job();
    changed.answer(submitted(Vec::new()), Duration::ZERO);
    let other = Response::Submitted {
        job: record().job,
        state: JobState::Queued,
        limits: Limits {
            output: 99,
            ..limits()
        },
        wanted: Vec::new(),
    };
    assert_eq!(changed.answer(other, Duration::ZERO), bad("limits"));
}

#[test]
fn an_executor_that_loses_every_upload_is_given_up() {
    let mut job = job();
    let module = |have| Wanted {
        blob: spec().module,
        have,
        size: 6,
    };
    let mut uploads = 0;
    loop {
        let effects = job.answer(submitted(vec![module(0)]), Duration::ZERO);
        assert!(!matches!(effects[..], [Effect::End(_)]), "{effects:?}");
        let stored = Response::Stored {
            blob: spec().module,
            have: 6,
        };
        if let [Effect::End(SentFault::BadResult { .. })] = job.answer(stored, Duration::ZERO)[..] {
            break;
        }
        uploads += 1;
        assert!(uploads <= MAX_UPLOADS * 2, "it uploads for ever");
        let waiting = Response::Progress {
            state: JobState::Waiting,
            attempt: 0,
            stdout: piece(0, b""),
            stderr: piece(0, b""),
            receipt: None,
        };
        let effects = job.answer(waiting, Duration::ZERO);
        assert!(matches!(effects[..], [Effect::Pause(_)]));
    }
}

#[test]
fn a_job_that_is_never_finished_is_given_up() {
    let at = Timestamp::from_secs;
    let zero = Duration::ZERO;
    // Too old.
    let mut old = job();
    assert_eq!(old.overdue(at(600), zero), None);
    assert_eq!(old.overdue(at(601), zero), Some(SentFault::Overdue));
    // Said to run for longer than it may.
    let mut running = job();
    running.answer(submitted(Vec::new()), zero);
    running.answer(progress(piece(0, b""), None), zero);
    let last = RUN_GRACE + Duration::from_millis(1);
    assert_eq!(
        running.overdue(at(2), last - Duration::from_millis(1)),
        None
    );
    running.answer(progress(piece(0, b""), None), last);
    assert_eq!(running.overdue(at(2), last), Some(SentFault::Overdue));
    // Cancelled, and told nothing.
    let mut cancelled = job();
    cancelled.cancel();
    assert_eq!(cancelled.overdue(at(2), zero), None);
    assert_eq!(
        cancelled.overdue(at(2), CANCEL_GRACE),
        Some(SentFault::Cancelled)
    );
    // More attempts than any executor makes.
    let mut attempts = job();
    let again = Response::Progress {
        state: JobState::Running,
        attempt: MAX_ATTEMPTS + 1,
        stdout: piece(0, b""),
        stderr: piece(0, b""),
        receipt: None,
    };
    assert_eq!(attempts.answer(again, zero), bad("attempt"));
}

#[test]
fn an_executor_that_never_waits_is_asked_less_often() {
    let mut job = job();
    job.answer(submitted(Vec::new()), Duration::ZERO);
    let pauses: Vec<_> = (0..8)
        .map(|_| job.answer(progress(piece(0, b""), None), Duration::ZERO))
        .collect();
    assert_eq!(pauses[0], [Effect::Pause(IDLE.0)]);
    assert_eq!(pauses[7], [Effect::Pause(IDLE.1)]);
}

#[test]
fn a_cancellation_comes_before_all_else() {
    let mut job = job();
    assert!(job.cancel());
    assert!(!job.cancel(), "once");
    assert!(matches!(job.next(), Next::Ask(Request::Cancel { .. })));
    let effects = job.answer(refused(RefusalCode::UnknownJob), Duration::ZERO);
    assert_eq!(effects, [Effect::End(SentFault::Cancelled)]);
}

fn any_response() -> impl Strategy<Value = Response> {
    let code = prop::sample::select(vec![
        RefusalCode::Denied,
        RefusalCode::QueueFull,
        RefusalCode::UnknownJob,
        RefusalCode::Rate,
    ]);
    let state = prop::sample::select(vec![
        JobState::Waiting,
        JobState::Queued,
        JobState::Running,
        JobState::Finished,
    ]);
    let bytes = || prop::collection::vec(any::<u8>(), 0..8);
    prop_oneof![
        code.prop_map(refused),
        (0_u64..8, any::<bool>()).prop_map(|(have, some)| submitted(
            some.then_some(Wanted {
                blob: spec().module,
                have,
                size: 6
            })
            .into_iter()
            .collect()
        )),
        (0_u64..8).prop_map(|have| Response::Stored {
            blob: spec().module,
            have
        }),
        state
            .clone()
            .prop_map(|state| Response::Cancelled { state }),
        (state, 0_u64..4, bytes(), 0_u64..2, bytes(), any::<bool>()).prop_map(
            |(state, out, stdout, err, stderr, done)| Response::Progress {
                state,
                attempt: 1,
                stdout: piece(out, &stdout),
                stderr: piece(err, &stderr),
                receipt: done.then(|| vec![1]),
            }
        ),
    ]
}

proptest! {
    /// Each answer moves the cursor by what it appends, pauses, ends the job, or changes the next
    /// request: the exchange never stands still without a pause.
    #[test]
    fn no_answer_makes_it_spin_or_lose_its_place(
        answers in prop::collection::vec(prop::option::of(any_response()), 1..60),
        cancel_at in 0_usize..60,
    ) {
        let mut job = job();
        let mut taken = 0_u64;
        let mut still = 0_u32;
        for (index, answer) in answers.into_iter().enumerate() {
            if index == cancel_at {
                job.cancel();
            }
            let (before, elapsed) = (job.next(), Duration::from_secs(index as u64));
            let effects = match answer {
                Some(answer) => match &before {
                    Next::Ask(request) => job.answered(Asked::of(request), answer, elapsed),
                    Next::Piece { .. } => job.answered(Asked::Put, answer, elapsed),
                    Next::Over => Vec::new(),
                },
                None => vec![job.unanswered(elapsed)],
            };
            let mut paused = false;
            for effect in effects {
                match effect {
                    Effect::Append(_, bytes) => taken += bytes.len() as u64,
                    Effect::Pause(span) => {
                        prop_assert!(span >= PAUSE.0 && span <= PAUSE.1);
                        paused = true;
                    }
                    Effect::Verify(receipt) => drop(job.end(Ok(receipt), Timestamp::default())),
                    Effect::End(fault) => drop(job.end(Err(fault), Timestamp::default())),
                    Effect::Save => {}
                }
            }
            if !job.is_over() {
                prop_assert_eq!(job.cursor.0 + job.cursor.1, taken);
            }
            still = if paused || job.next() != before { 0 } else { still + 1 };
            prop_assert!(job.is_over() || still <= MAX_STALLS + 1, "{:?}", before);
            prop_assert!(taken <= 50);
        }
    }
}
