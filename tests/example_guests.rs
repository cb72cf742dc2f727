//! The guests of `examples/guests/`, built as a reader would build them and run in real worker
//! processes.
//!
//! Without clang and wasi-libc each test says that it was skipped, or fails where
//! `QUANTRABAND_REQUIRE_GUESTS=1`.
#![cfg(test)]

mod guests;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use guests::{Given, Workshop};
use quantraband::sandbox::{LimitName, LimitsWanted, Outcome};

const REQUIRE: &str = "QUANTRABAND_REQUIRE_GUESTS";
/// How `build.sh` says that what it needs is not installed.
const NOT_INSTALLED: i32 = 69;

/// Where the guests are, if they can be built here.
static BUILT: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/guests/build.sh");
    let built = Command::new("bash").arg(script).arg(&out).output();
    let built = built.expect("bash runs");
    let messages = String::from_utf8_lossy(&built.stderr);
    if built.status.code() == Some(NOT_INSTALLED) {
        return None;
    }
    assert!(built.status.success(), "build.sh failed:\n{messages}");
    Some(out)
});

fn guest(name: &str) -> Option<PathBuf> {
    let found = BUILT.as_ref().map(|out| out.join(format!("{name}.wasm")));
    if found.is_none() {
        let why = "clang, lld or wasi-libc is not installed";
        guests::skip(&format!("{name}.wasm"), why, REQUIRE);
    }
    found
}

#[tokio::test]
async fn hello_sees_what_it_is_given_and_nothing_else() {
    let Some(hello) = guest("hello") else { return };
    let finished = Workshop::open()
        .await
        .run(
            &hello,
            &Given {
                arguments: &["one", "two words", ""],
                environment: &[("B", "2"), ("A", "1=1")],
                input: &[b'x'; 100_000],
                ..Given::default()
            },
        )
        .await;
    assert_eq!(
        finished.exited(0),
        "hello from hello.wasm\nargument 1: one\nargument 2: two words\nargument 3: \n\
         variable: A=1=1\nvariable: B=2\ninput: 100000 bytes\n"
    );
    assert_eq!(finished.messages(), "");
}

#[tokio::test]
async fn csvsum_sums_exactly_in_little_memory() {
    let Some(csvsum) = guest("csvsum") else {
        return;
    };
    let workshop = Workshop::open().await;
    let sums = ["--group", "region", "--sum", "amount"];
    let run = async |input: &[u8], arguments: &[&str]| {
        let given = Given {
            arguments,
            input,
            ..Given::default()
        };
        workshop.run(&csvsum, &given).await
    };

    let quoted = "\u{feff}region,amount,note\r\nnorth,0.10,\"a, \"\"b\"\"\nc\"\r\n\
                  \"so,uth\",-2.5,\r\n\r\nnorth,0.20,x";
    let finished = run(quoted.as_bytes(), &sums).await;
    assert_eq!(
        finished.exited(0),
        "region,count,sum of amount,mean of amount\n\
         north,2,0.30,0.1500\n\"so,uth\",1,-2.50,-2.5000\n"
    );

    let mut large = String::from("id,region,amount\n");
    for n in 0..200_000_u32 {
        let region = ["east", "north", "south", "west"][(n % 4) as usize];
        let _ = writeln!(large, "{n},{region},{}.{:02}", n / 100, n % 100);
    }
    let finished = run(large.as_bytes(), &sums).await;
    // 4k + r for k below 50,000, in hundredths: 4 * 50,000 * 49,999 / 2 + 50,000 r.
    assert_eq!(
        finished.exited(0),
        "region,count,sum of amount,mean of amount\n\
         east,50000,49999000.00,999.9800\nnorth,50000,49999500.00,999.9900\n\
         south,50000,50000000.00,1000.0000\nwest,50000,50000500.00,1000.0100\n"
    );
    assert!(finished.usage.memory_peak <= 4 << 20, "{finished}");
}

#[tokio::test]
async fn csvsum_names_the_line_of_bad_input_and_prints_nothing_else() {
    let Some(csvsum) = guest("csvsum") else {
        return;
    };
    let workshop = Workshop::open().await;
    let sum_b: &[&str] = &["--sum", "b"];
    let cases: [(&str, &[&str], u32, &str); 9] = [
        ("", sum_b, 3, "line 1: the input is empty"),
        (
            "a,b\n1,2\n",
            &["--sum", "c"],
            3,
            "line 1: no column is named \"c\"",
        ),
        (
            "b,b\n1,2\n",
            sum_b,
            3,
            "line 1: two columns are named \"b\"",
        ),
        (
            "a,b\n1,2\n1\n",
            sum_b,
            3,
            "line 3: 1 fields, where the header has 2",
        ),
        (
            "a,b\n\"x\ny\",1\n1,2e3\n",
            sum_b,
            3,
            "line 4: column \"b\": \"2e3\" is no decimal",
        ),
        (
            "a,b\n\"1,2\n3,4\n",
            sum_b,
            3,
            "line 2: a quote that is opened here is never",
        ),
        (
            "a,b\n1\"2\",3\n",
            sum_b,
            3,
            "line 2: a quote inside a field",
        ),
        (
            "a,b\n\"1\"2,3\n",
            sum_b,
            3,
            "line 2: text after a closing quote",
        ),
        ("a,b\n1,2\n", &["--sum"], 2, "usage: csvsum"),
    ];
    for (input, arguments, status, message) in cases {
        let given = Given {
            arguments,
            input: input.as_bytes(),
            ..Given::default()
        };
        let finished = workshop.run(&csvsum, &given).await;
        assert_eq!(finished.exited(status), "", "{input:?}");
        assert!(
            finished.messages().contains(message),
            "{input:?}: {finished}"
        );
    }
}

#[tokio::test]
async fn primes_of_neighbouring_ranges_add_up_and_a_limit_ends_a_long_one() {
    let Some(primes) = guest("primes") else {
        return;
    };
    let workshop = Workshop::open().await;
    let run = async |arguments: &[&str], fuel: Option<u64>, seed| {
        let limits = LimitsWanted {
            fuel,
            ..LimitsWanted::default()
        };
        let given = Given {
            arguments,
            limits,
            seed,
            ..Given::default()
        };
        workshop.run(&primes, &given).await
    };

    for (range, line) in [
        (
            ["0", "1000000"],
            "78498 primes from 0 to 1000000, first 2, last 999983\n",
        ),
        (
            ["0", "400000"],
            "33860 primes from 0 to 400000, first 2, last 399989\n",
        ),
        (
            ["400000", "1000000"],
            "44638 primes from 400000 to 1000000, first 400009, last 999983\n",
        ),
        (["24", "29"], "0 primes from 24 to 29\n"),
    ] {
        assert_eq!(run(&range, None, None).await.exited(0), line);
    }
    assert_eq!(run(&["5", "4"], None, None).await.exited(2), "");

    let long = run(&["0", "1000000000000"], Some(50_000_000), None).await;
    let limit = LimitName::Fuel;
    assert_eq!(long.outcome, Outcome::Stopped { limit }, "{long}");

    let counted = run(&["0", "100000"], None, Some(1)).await;
    assert_eq!(
        counted.exited(0),
        "9592 primes from 0 to 100000, first 2, last 99991\n"
    );
    let again = run(&["0", "100000"], None, Some(1)).await;
    assert!(counted.usage.fuel.is_some(), "{counted}");
    assert_eq!(again.usage.fuel, counted.usage.fuel);
}
