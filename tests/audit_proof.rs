//! An auditor's way: keys and a checkpoint from the running node, a proof, everything verified
//! offline; and what a tampered log looks like to him and to the node. Needs python3, which runs the
//! check of a proof that the reference prints.
#![cfg(test)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::{Node, run_in};
use serde_json::Value;
use tempfile::TempDir;

/// What an auditor took with him from a node that has ended since.
struct Auditor {
    root: TempDir,
    node: Node,
    log: PathBuf,
    keys: String,
    early: String,
    late: String,
}

impl Auditor {
    fn visits() -> Self {
        let root = TempDir::new().unwrap();
        let mut node = Node::init(root.path(), "node", "");
        node.start();
        let keep = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let keys = keep("keys", &node.must(&["audit", "key"]));
        let early = keep("early", &node.must(&["audit", "checkpoint"]));
        node.must(&["peers", "ban", "198.51.100.7", "--for", "1h"]);
        let late = node.json(&["audit", "checkpoint"]);
        let late = keep("late", late["note"].as_str().unwrap());
        assert!(size(&early) < size(&late));
        assert_eq!(node.stop().code(), Some(0));
        Self {
            log: node.dir.join("data/audit"),
            root,
            node,
            keys,
            early,
            late,
        }
    }

    /// `audit verify`: the exit code and the report.
    fn verify(&self, more: &[&str]) -> (Option<i32>, Value) {
        let args = [&["audit", "verify", "--output", "json"], more].concat();
        let output = run_in(self.root.path(), &args);
        let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), report)
    }

    /// As [`Auditor::verify`] of the log: the exit code and the first kind of damage.
    fn judge(&self, more: &[&str]) -> (Option<i32>, Value) {
        let log = ["--dir", self.log.to_str().unwrap()];
        let (code, report) = self.verify(&[&log, more].concat());
        (code, report["findings"][0]["damage"].clone())
    }
}

/// Records of a checkpoint that was kept.
fn size(note: &str) -> usize {
    let text = fs::read_to_string(note).unwrap();
    text.lines().nth(1).unwrap().parse().unwrap()
}

/// The program in the reference that checks a proof without this one.
fn documented_check() -> String {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/audit-log.md");
    let text = fs::read_to_string(reference).unwrap();
    let from = text.find("import base64, hashlib, sys").unwrap();
    text[from..].split("```").next().unwrap().to_owned()
}

#[test]
fn an_auditor_verifies_offline() {
    let auditor = Auditor::visits();
    let Auditor {
        node, keys, root, ..
    } = &auditor;
    for held in [&auditor.early, &auditor.late] {
        let log = auditor.log.to_str().unwrap();
        let more = ["--dir", log, "--key", keys, "--checkpoint", held];
        let (code, report) = auditor.verify(&more);
        assert_eq!(code, Some(0), "{report}");
        // Not one record is left that no checkpoint covers, but the last one's own.
        let records = report["records"].as_u64().unwrap();
        assert_eq!(report["vouched"].as_u64().unwrap() + 1, records);
    }
    let bundle = root.path().join("1.tlog-proof");
    let bundle = bundle.to_str().unwrap();
    node.must(&["audit", "prove", "1", "--out", bundle]);
    let id = node.audit()[1]["metadata"]["uid"].clone();
    let by_id = node.must(&["audit", "prove", id.as_str().unwrap()]);
    let text = fs::read_to_string(bundle).unwrap();
    let same = |text: &str| text.split_once("\n\n").unwrap().0.to_owned();
    assert_eq!(same(&by_id), same(&text));
    let late = node.cli(&["audit", "prove", "999999"]);
    assert_eq!(late.status.code(), Some(65), "there is no such record");
    // With nothing but the proof and the keys, or the peer id.
    for key in [keys, &node.peer_id()] {
        let (code, proved) = auditor.verify(&["--key", key, "--proof", bundle]);
        assert_eq!((code, proved["record"].as_u64()), (Some(0), Some(1)));
    }
    let other = Node::init(root.path(), "other", "").peer_id();
    let (code, _) = auditor.verify(&["--key", &other, "--proof", bundle]);
    assert_eq!(code, Some(65));
    let not_signed = (Some(65), "not_signed".into());
    assert_eq!(auditor.judge(&["--key", &other]), not_signed);
    let check = ["-c", &documented_check(), bundle];
    let output = Command::new("python3").args(check).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Cut off behind the early checkpoint: the node knows by its own, an auditor by his.
#[test]
fn a_shortened_log_is_not_started_on_and_a_rolled_back_one_is_exposed() {
    let auditor = Auditor::visits();
    let Auditor {
        node, keys, log, ..
    } = &auditor;
    let segment = log.join("00000001.jsonl");
    let whole = fs::read_to_string(&segment).unwrap();
    // With the record of that checkpoint.
    let kept = whole.split_inclusive('\n').take(size(&auditor.early) + 1);
    fs::write(&segment, kept.collect::<String>()).unwrap();
    let shortened = (Some(65), "shortened".into());
    assert_eq!(auditor.judge(&[]), shortened);
    let output = node.cli(&["run"]);
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("00000001.jsonl"), "{said}");
    assert!(said.contains("cut off"), "{said}");
    // Rolled back whole, with the checkpoint of then: only what was kept elsewhere shows it.
    fs::copy(&auditor.early, log.join("checkpoint")).unwrap();
    assert_eq!(auditor.judge(&["--key", keys]).0, Some(0));
    let late = ["--key", keys, "--checkpoint", &auditor.late];
    assert_eq!(auditor.judge(&late), shortened);
}
