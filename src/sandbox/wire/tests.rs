#![cfg(test)]

use std::{fs, path::PathBuf};

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::sandbox::{IdempotencyKey, LimitsWanted, MAX_ARGUMENT_BYTES, MAX_ARGUMENTS};

fn spec() -> JobSpec {
    let module = b"\0asm\x01\0\0\0";
    JobSpec {
        key: IdempotencyKey::of_text("nightly report"),
        module: ContentHash::of(module),
        module_size: 8,
        arguments: ["wc.wasm", "-l", ""].map(str::to_owned).to_vec(),
        environment: vec![("LANG".to_owned(), "C.UTF-8".to_owned())],
        input: ContentHash::of(b"one\ntwo\n"),
        input_size: 8,
        limits: LimitsWanted {
            wall_clock_ms: Some(5_000),
            memory: Some(16 << 20),
            ..LimitsWanted::default()
        },
        deterministic: Some(42),
        sealed: true,
    }
}

fn plain() -> JobSpec {
    JobSpec {
        arguments: vec!["a".to_owned()],
        environment: Vec::new(),
        limits: LimitsWanted::default(),
        deterministic: None,
        sealed: false,
        ..spec()
    }
}

pub(crate) fn limits() -> Limits {
    Limits {
        wall_clock_ms: 30_000,
        cpu_time_ms: 30_000,
        fuel: Some(1_000_000_000),
        memory: 256 << 20,
        table: 100_000,
        stack: 1 << 20,
        output: 16 << 20,
    }
}

const JOB: JobId = JobId([0x1d; 16]);

/// One of each request.
pub(crate) fn requests() -> Vec<Request> {
    vec![
        Request::Submit(Box::new(spec())),
        Request::Submit(Box::new(plain())),
        Request::Put {
            job: JOB,
            blob: ContentHash::of(b"one\ntwo\n"),
            offset: 4,
            bytes: b"two\n".to_vec(),
        },
        Request::Fetch {
            job: JOB,
            stdout: 70_000,
            stderr: 0,
            wait_ms: 10_000,
        },
        Request::Cancel { job: JOB },
    ]
}

/// One of each response, with and without what may be absent.
pub(crate) fn responses() -> Vec<Response> {
    let piece = |offset, bytes: &[u8]| Piece {
        offset,
        bytes: bytes.to_vec(),
    };
    vec![
        Response::Submitted {
            job: JOB,
            state: JobState::Waiting,
            limits: limits(),
            wanted: vec![
                Wanted {
                    blob: ContentHash::of(b"m"),
                    have: 262_144,
                    size: 1_000_000,
                },
                Wanted {
                    blob: ContentHash::of(b"i"),
                    have: 0,
                    size: 8,
                },
            ],
        },
        Response::Submitted {
            job: JOB,
            state: JobState::Queued,
            limits: Limits {
                fuel: None,
                ..limits()
            },
            wanted: Vec::new(),
        },
        Response::Stored {
            blob: ContentHash::of(b"m"),
            have: 524_288,
        },
        Response::Progress {
            state: JobState::Running,
            attempt: 1,
            stdout: piece(70_000, b"hello\n"),
            stderr: piece(0, b""),
            receipt: None,
        },
        Response::Progress {
            state: JobState::Finished,
            attempt: 2,
            stdout: piece(70_006, b""),
            stderr: piece(0, b"warning\n"),
            receipt: Some(vec![0xd2, 0x84]),
        },
        Response::Cancelled {
            state: JobState::Finished,
        },
        Response::Refused(
            Refused::new(RefusalCode::QueueFull, "1024 jobs wait already")
                .after(Duration::from_secs(2)),
        ),
        Response::Refused(Refused::new(RefusalCode::Denied, "")),
    ]
}

/// Compares with the lines of a committed fixture; `QUANTRABAND_BLESS=1` rewrites it.
fn frozen(file: &str, made: &[Vec<u8>]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/sandbox")
        .join(file);
    let made: String = made.iter().map(|b| hex::encode(b) + "\n").collect();
    if std::env::var_os("QUANTRABAND_BLESS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap();
    assert_eq!(
        kept, made,
        "{file}: the format changed; old nodes will not read it"
    );
}

#[test]
fn the_bytes_of_requests_are_frozen() {
    let made: Vec<_> = requests().iter().map(Request::encode).collect();
    frozen("request.hex", &made);
    for (bytes, request) in made.iter().zip(requests()) {
        assert_eq!(Request::decode(bytes), Ok(request));
    }
}

#[test]
fn the_bytes_of_responses_are_frozen() {
    let made: Vec<_> = responses().iter().map(Response::encode).collect();
    frozen("response.hex", &made);
    for (bytes, response) in made.iter().zip(responses()) {
        assert_eq!(Response::decode(bytes), Ok(response));
    }
}

#[test]
fn the_largest_messages_fit_their_bounds() {
    // As many texts as are allowed, as long as all together may be.
    let each = MAX_ARGUMENT_BYTES / MAX_ARGUMENTS;
    let variable = ("N".repeat(each / 2), "v".repeat(each / 2));
    let full = JobSpec {
        module_size: u64::MAX,
        arguments: vec!["a".repeat(each); MAX_ARGUMENTS],
        environment: vec![variable; MAX_ARGUMENTS],
        input_size: u64::MAX,
        limits: LimitsWanted {
            wall_clock_ms: Some(u64::MAX),
            cpu_time_ms: Some(u64::MAX),
            fuel: Some(u64::MAX),
            memory: Some(u64::MAX),
            output: Some(u64::MAX),
        },
        deterministic: Some(u64::MAX),
        sealed: true,
        ..spec()
    };
    let submit = Request::Submit(Box::new(full));
    assert_eq!(Request::decode(&submit.encode()), Ok(submit));
    let far = u64::MAX - MAX_CHUNK as u64;
    let put = Request::Put {
        job: JOB,
        blob: ContentHash::of(b""),
        offset: far,
        bytes: vec![7; MAX_CHUNK],
    };
    assert_eq!(Request::decode(&put.encode()), Ok(put));
    let piece = Piece {
        offset: far,
        bytes: vec![7; MAX_CHUNK],
    };
    let progress = Response::Progress {
        state: JobState::Finished,
        attempt: u32::MAX,
        stdout: piece.clone(),
        stderr: piece,
        receipt: Some(vec![7; MAX_RECEIPT_BYTES]),
    };
    assert_eq!(Response::decode(&progress.encode()), Ok(progress));
    let refused = Refused::new(RefusalCode::LimitAboveCeiling, &"𝕏".repeat(999));
    assert_eq!(refused.detail.chars().count(), MAX_DETAIL);
    let refused = Response::Refused(refused.after(Duration::MAX));
    assert_eq!(
        (MAX_REQUEST, MAX_RESPONSE),
        (260 << 10, 520 << 10),
        "as the reference says"
    );
    assert_eq!(Response::decode(&refused.encode()), Ok(refused));
}

fn refused_request(request: &Request) -> &'static str {
    Request::decode(&request.encode()).unwrap_err().0
}

fn refused_response(response: &Response) -> &'static str {
    Response::decode(&response.encode()).unwrap_err().0
}

#[test]
fn what_breaks_a_bound_of_a_request_is_refused() {
    let put = |offset, length| Request::Put {
        job: JOB,
        blob: ContentHash::of(b""),
        offset,
        bytes: vec![0; length],
    };
    let too_long = "a chunk is longer than allowed, or too far out";
    assert_eq!(refused_request(&put(0, 0)), "a chunk is empty");
    assert_eq!(refused_request(&put(0, MAX_CHUNK + 1)), too_long);
    assert_eq!(refused_request(&put(0, MAX_REQUEST)), "longer than allowed");
    assert_eq!(refused_request(&put(u64::MAX, 1)), too_long);
    let fetch = Request::Fetch {
        job: JOB,
        stdout: 0,
        stderr: 0,
        wait_ms: 10_001,
    };
    assert_eq!(refused_request(&fetch), "a wait is longer than allowed");
    let rules = "the job's arguments or environment break the rules";
    for arguments in [vec![], vec!["a\0"], vec!["x"; MAX_ARGUMENTS + 1]] {
        let arguments = arguments.into_iter().map(str::to_owned).collect();
        let submit = Request::Submit(Box::new(JobSpec {
            arguments,
            ..spec()
        }));
        let said = refused_request(&submit);
        assert!(
            said == rules || said == "an array has too many items",
            "{said}"
        );
    }
    let submit = Request::Submit(Box::new(JobSpec {
        environment: vec![("A=B".to_owned(), String::new())],
        ..spec()
    }));
    assert_eq!(refused_request(&submit), rules);
}

#[test]
fn what_breaks_a_bound_of_a_response_is_refused() {
    let mut all = responses();
    let [Response::Submitted { wanted, .. }, ..] = &mut all[..] else {
        panic!("the first is Submitted")
    };
    wanted[0].have = wanted[0].size + 1;
    assert_eq!(
        refused_response(&all[0]),
        "more of a blob is there than it has"
    );
    let [Response::Submitted { wanted, .. }, ..] = &mut all[..] else {
        panic!("the first is Submitted")
    };
    *wanted = vec![wanted[1]; MAX_WANTED + 1];
    assert_eq!(refused_response(&all[0]), "an array has too many items");
    let progress = |state, bytes, receipt| Response::Progress {
        state,
        attempt: 1,
        stdout: Piece { offset: 0, bytes },
        stderr: Piece::default(),
        receipt,
    };
    let early = progress(JobState::Running, Vec::new(), Some(vec![1]));
    let receipt = "a receipt is too long, or comes too early";
    assert_eq!(refused_response(&early), receipt);
    let long = Some(vec![0; MAX_RECEIPT_BYTES + 1]);
    let long = progress(JobState::Finished, Vec::new(), long);
    assert_eq!(refused_response(&long), receipt);
    let long = progress(JobState::Running, vec![0; MAX_CHUNK + 1], None);
    assert_eq!(
        refused_response(&long),
        "a chunk is longer than allowed, or too far out"
    );
}

#[test]
fn a_detail_is_printable_and_short_whoever_wrote_it() {
    let refused = Refused::new(RefusalCode::Rate, "\x1b[2J\n");
    assert_eq!(refused.detail, "\\u001b[2J\\u000a");
    // Set past the constructor, it is cleaned on the way out; a peer that does not is refused.
    let raw = Response::Refused(Refused {
        detail: "\x07".to_owned(),
        ..refused
    });
    assert!(Response::decode(&raw.encode()).is_ok());
    let forged = form::fields([
        (KIND, number(REFUSED)),
        (2, text("rate")),
        (3, text("\x07")),
    ]);
    assert_eq!(
        Response::decode(&cbor::encode(&forged)),
        Err(Malformed("a detail is too long or not printable"))
    );
}

#[test]
fn unknown_kinds_names_and_fields_are_refused() {
    for (bytes, said) in [
        ("a10105", "a kind of request is unknown"),
        ("a0", "a required field is absent"),
        ("80", "a map was expected"),
        ("a1616101", "a map key is no small integer"),
    ] {
        let bytes = hex::decode(bytes).unwrap();
        assert_eq!(Request::decode(&bytes), Err(Malformed(said)));
    }
    let mut cancel = Request::Cancel { job: JOB }.encode();
    cancel[0] += 1;
    cancel.extend([0x03, 0x00]);
    let extra = Err(Malformed("a field is unknown or repeated"));
    assert_eq!(Request::decode(&cancel), extra);
    let state = form::fields([(KIND, number(CANCELLED)), (2, text("Running"))]);
    assert_eq!(
        Response::decode(&cbor::encode(&state)),
        Err(Malformed("a name is unknown"))
    );
}

#[test]
fn a_document_of_many_small_items_is_refused_before_it_is_built() {
    let many = vec![Value::from(0); MAX_REQUEST - 100];
    let bytes = cbor::encode(&cbor::int_map([(1, Value::Array(many))]));
    assert_eq!(Request::decode(&bytes), Err(Malformed("too many items")));
    assert_eq!(Response::decode(&bytes), Err(Malformed("too many items")));
}

#[test]
fn codes_have_their_names_and_say_whether_to_try_again() {
    let mut names: Vec<_> = RefusalCode::ALL.map(RefusalCode::name).to_vec();
    let passing = RefusalCode::ALL.iter().filter(|code| code.is_passing());
    assert_eq!(passing.count(), 6);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), RefusalCode::ALL.len());
    let reference = include_str!("../../../docs/reference/job-protocol.md");
    for code in RefusalCode::ALL {
        let row = reference
            .lines()
            .find(|line| line.starts_with(&format!("| `{}` |", code.name())));
        let passes = if code.is_passing() {
            "| yes |"
        } else {
            "| no |"
        };
        assert!(
            row.is_some_and(|row| row.ends_with(passes)),
            "{code:?} in job-protocol.md"
        );
    }
}

fn hashes() -> impl Strategy<Value = ContentHash> {
    any::<[u8; 32]>().prop_map(ContentHash)
}

fn jobs() -> impl Strategy<Value = JobId> {
    any::<[u8; 16]>().prop_map(JobId)
}

fn states() -> impl Strategy<Value = JobState> {
    use JobState::{Finished, Queued, Running, Waiting};
    prop::sample::select(vec![Waiting, Queued, Running, Finished])
}

fn specs() -> impl Strategy<Value = JobSpec> {
    let numbers = option::of(any::<u64>());
    let wanted = (
        numbers.clone(),
        numbers.clone(),
        numbers.clone(),
        numbers.clone(),
        numbers.clone(),
    )
        .prop_map(
            |(wall_clock_ms, cpu_time_ms, fuel, memory, output)| LimitsWanted {
                wall_clock_ms,
                cpu_time_ms,
                fuel,
                memory,
                output,
            },
        );
    let texts = (
        vec("[^\0]{0,20}", 1..20),
        vec(("[^\0=]{1,8}", "[^\0]{0,20}"), 0..20),
    );
    let blob = || (hashes(), any::<u64>());
    (any::<[u8; 16]>(), blob(), texts, blob(), wanted, numbers).prop_map(
        |(key, module, (arguments, environment), input, limits, deterministic)| JobSpec {
            key: IdempotencyKey(key),
            module: module.0,
            module_size: module.1,
            arguments,
            environment,
            input: input.0,
            input_size: input.1,
            limits,
            deterministic,
            sealed: deterministic.is_some_and(|seed| seed % 2 == 0),
        },
    )
}

fn any_request() -> impl Strategy<Value = Request> {
    prop_oneof![
        specs().prop_map(|spec| Request::Submit(Box::new(spec))),
        (jobs(), hashes(), 0..1_u64 << 60, vec(any::<u8>(), 1..300)).prop_map(
            |(job, blob, offset, bytes)| Request::Put {
                job,
                blob,
                offset,
                bytes
            }
        ),
        (jobs(), any::<u64>(), any::<u64>(), 0..=10_000_u32).prop_map(
            |(job, stdout, stderr, wait_ms)| Request::Fetch {
                job,
                stdout,
                stderr,
                wait_ms
            }
        ),
        jobs().prop_map(|job| Request::Cancel { job }),
    ]
}

fn pieces() -> impl Strategy<Value = Piece> {
    (0..1_u64 << 60, vec(any::<u8>(), 0..300)).prop_map(|(offset, bytes)| Piece { offset, bytes })
}

fn any_response() -> impl Strategy<Value = Response> {
    let wanted = (hashes(), any::<u64>(), any::<u64>()).prop_map(|(blob, a, b)| Wanted {
        blob,
        have: a.min(b),
        size: a.max(b),
    });
    let codes = prop::sample::select(RefusalCode::ALL.to_vec());
    prop_oneof![
        (
            jobs(),
            states(),
            option::of(any::<u64>()),
            vec(wanted, 0..=2)
        )
            .prop_map(|(job, state, fuel, wanted)| Response::Submitted {
                job,
                state,
                limits: Limits { fuel, ..limits() },
                wanted
            }),
        (hashes(), any::<u64>()).prop_map(|(blob, have)| Response::Stored { blob, have }),
        (any::<u32>(), pieces(), pieces(), vec(any::<u8>(), 0..300)).prop_map(
            |(attempt, stdout, stderr, receipt)| Response::Progress {
                state: JobState::Finished,
                attempt,
                stdout,
                stderr,
                receipt: Some(receipt).filter(|receipt| !receipt.is_empty()),
            }
        ),
        states().prop_map(|state| Response::Cancelled { state }),
        (codes, any::<String>(), option::of(any::<u32>())).prop_map(|(code, detail, retry)| {
            Response::Refused(Refused {
                retry_after_ms: retry,
                ..Refused::new(code, &detail)
            })
        }),
    ]
}

proptest! {
    #[test]
    fn requests_round_trip_and_have_one_encoding(
        request in any_request(),
        at: prop::sample::Index,
        bit in 0u8..8,
        cut: prop::sample::Index,
    ) {
        let mut bytes = request.encode();
        prop_assert_eq!(Request::decode(&bytes), Ok(request.clone()));
        prop_assert!(Request::decode(&bytes[..cut.index(bytes.len())]).is_err());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(other) = Request::decode(&bytes) {
            prop_assert_ne!(&other, &request);
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn responses_round_trip_and_have_one_encoding(
        response in any_response(),
        at: prop::sample::Index,
        bit in 0u8..8,
        cut: prop::sample::Index,
    ) {
        let mut bytes = response.encode();
        prop_assert_eq!(Response::decode(&bytes), Ok(response.clone()));
        prop_assert!(Response::decode(&bytes[..cut.index(bytes.len())]).is_err());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(other) = Response::decode(&bytes) {
            prop_assert_ne!(&other, &response);
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn any_bytes_fail_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Request::decode(&bytes);
        let _ = Response::decode(&bytes);
    }
}
