#![cfg(test)]

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::{
    cli::{args::Cli, output::Format},
    identity::{Anchor, testing as world},
    sandbox::receipt::tests::{full, least},
    types::Timestamp,
};

const OUT: fn() -> Out = || Out::new(Format::Text);

/// A directory with a receipt of the world's own node, and all that it names.
fn world() -> (TempDir, ReceiptBody) {
    let dir = tempfile::tempdir().unwrap();
    let credential = world::credential();
    let other = world::chain_under(&world::globex(), &[]);
    let body = ReceiptBody {
        executor_credential: Some(ContentHash::of(credential.as_bytes())),
        finished: world::NOW.after(world::HOUR / 2),
        ..full()
    };
    let receipt = Receipt::sign(body, &world::node());
    for (name, bytes) in [
        ("r", receipt.bytes()),
        ("m.wasm", b"module"),
        ("in", b"input\n"),
        ("out", b"1\n"),
        ("err", b""),
        ("c", credential.as_bytes()),
        ("other-c", other.credential().as_bytes()),
        ("a", &Anchor::seal(&world::acme(), world::NOW)),
        ("other-a", &Anchor::seal(&world::globex(), world::NOW)),
    ] {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let body = receipt.unverified().clone();
    (dir, body)
}

/// Runs `receipt …`; words that begin with `@` are files of the directory.
fn run(dir: &TempDir, line: &str) -> Result<(), (u8, String)> {
    use clap::Parser;
    let words = line.split_whitespace().map(|word| {
        word.strip_prefix('@').map_or_else(
            || word.to_owned(),
            |name| dir.path().join(name).display().to_string(),
        )
    });
    let cli = Cli::try_parse_from(
        ["quantraband".to_owned(), "receipt".to_owned()]
            .into_iter()
            .chain(words),
    )
    .map_err(|error| (64, error.to_string()))?;
    let crate::cli::args::Command::Receipt(receipt) = &cli.command else {
        panic!("another command")
    };
    command(receipt, &OUT()).map_err(|error| (error.exit.code(), error.message))
}

#[test]
fn a_good_receipt_is_good_by_itself_and_against_everything_it_names() {
    let (dir, body) = world();
    run(&dir, "verify @r").unwrap();
    run(&dir, "show @r").unwrap();
    let everything = format!(
        "verify @r --executor {} --submitter {} --module @m.wasm --stdin @in --stdout @out \
         --stderr @err --credential @c --anchor @a",
        body.executor, body.submitter
    );
    run(&dir, &everything).unwrap();
}

#[test]
fn what_is_not_as_expected_is_named_and_exits_65() {
    let (dir, body) = world();
    for (flags, field) in [
        (format!("--executor {}", body.submitter), "executor"),
        (format!("--submitter {}", body.executor), "submitter"),
        ("--module @in".to_owned(), "module"),
        ("--stdin @out".to_owned(), "input"),
        ("--stdout @err".to_owned(), "stdout"),
        ("--stderr @out".to_owned(), "stderr"),
        ("--credential @other-c".to_owned(), "executor_credential"),
    ] {
        let (exit, said) = run(&dir, &format!("verify @r {flags}")).unwrap_err();
        assert_eq!(exit, 65, "{flags}");
        assert!(said.contains(&format!("receipt's {field} is")), "{said}");
    }
    let (exit, said) = run(&dir, "verify @r --credential @c --anchor @other-a").unwrap_err();
    assert_eq!(exit, 65);
    assert!(said.contains("issuer"), "{said}");
}

#[test]
fn the_credential_counts_as_of_the_jobs_end() {
    let (dir, body) = world();
    let late = ReceiptBody {
        finished: Timestamp::from_secs(body.finished.secs() + 90 * 86_400),
        ..body
    };
    let late = Receipt::sign(late, &world::node());
    fs::write(dir.path().join("late"), late.bytes()).unwrap();
    run(&dir, "verify @late --credential @c").unwrap();
    let (exit, said) = run(&dir, "verify @late --credential @c --anchor @a").unwrap_err();
    assert_eq!(exit, 65);
    assert!(said.contains("expired"), "{said}");
    // A receipt of an executor without a credential names none.
    let none = Receipt::sign(least(), &world::node());
    fs::write(dir.path().join("none"), none.bytes()).unwrap();
    run(&dir, "verify @none").unwrap();
    assert_eq!(run(&dir, "verify @none --credential @c").unwrap_err().0, 65);
}

#[test]
fn bad_receipts_exit_65_and_missing_files_74() {
    let (dir, _) = world();
    let good = fs::read(dir.path().join("r")).unwrap();
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    fs::write(dir.path().join("forged"), forged).unwrap();
    fs::write(dir.path().join("cut"), &good[..good.len() - 1]).unwrap();
    fs::write(dir.path().join("long"), vec![0; MAX_RECEIPT_BYTES + 1]).unwrap();
    fs::write(dir.path().join("empty"), b"").unwrap();
    for file in ["forged", "cut", "long", "empty"] {
        let said = run(&dir, &format!("verify @{file}"));
        assert_eq!(said.unwrap_err().0, 65, "{file}");
    }
    // It can still be looked at.
    run(&dir, "show @forged").unwrap();
    assert_eq!(run(&dir, "show @cut").unwrap_err().0, 65);
    assert_eq!(run(&dir, "verify @nowhere").unwrap_err().0, 74);
    assert_eq!(run(&dir, "verify @r --module @nowhere").unwrap_err().0, 74);
    assert_eq!(run(&dir, "verify @r --anchor @a").unwrap_err().0, 64);
    assert_eq!(run(&dir, "verify @r --executor me").unwrap_err().0, 64);
}

#[test]
fn what_is_printed_is_all_there_is() {
    let (dir, body) = world();
    let receipt = read(&dir.path().join("r")).unwrap();
    let report = Report {
        file: dir.path(),
        receipt: receipt.hash(),
        job: body.job(),
        signed: true,
        checked: vec!["signature"],
        not_checked: vec!["module"],
        executor_identity: None,
        body: &body,
    };
    let text = content(&report, &OUT());
    for part in [
        body.job().to_string(),
        body.executor.to_string(),
        body.submitter.to_string(),
        "acme/node-1.berlin".to_owned(),
        body.module.to_string(),
        body.arguments.to_string(),
        "exited 0".to_owned(),
        "fuel=1000000000".to_owned(),
        "123456 of fuel".to_owned(),
        "seed 42".to_owned(),
        "2026-11-24T00:30:00.000Z".to_owned(),
    ] {
        assert!(text.contains(&part), "{part} in {text}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["body"]["outcome"]["outcome"], "exited");
    assert_eq!(json["body"]["submitter_identity"], "acme/node-1.berlin");
    assert_eq!(json["body"]["module"]["size"], 6);
    assert_eq!(json["receipt"], receipt.hash().to_string());
}
