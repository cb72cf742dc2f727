//! Other people's code verifies what the real program made: `cwt` and `cryptography`, two
//! independent Python libraries, on a credential of an anchor and on one of a delegate.
//!
//! Needs python3 with venv, and the network once: the libraries go into a virtual environment in
//! the user's cache. Without them the test says aloud that it was skipped, or fails where
//! `QUANTRABAND_REQUIRE_INTEROP=1`.
#![cfg(test)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::{BINARY, Issuer, foreign, must};
use quantraband::identity::{
    NodeKey,
    sealed::{self, Purpose},
};
use tempfile::TempDir;

const REQUIRE: &str = "QUANTRABAND_REQUIRE_INTEROP";

/// What is installed. `cryptography` has ML-DSA since version 47.
const LIBRARIES: [&str; 3] = ["cwt==3.3.0", "cryptography==50.0.2", "cbor2==5.9.0"];

/// A Python that has the libraries, or why there is none.
fn python() -> Result<PathBuf, String> {
    foreign::python(
        &LIBRARIES,
        "cwt, cbor2, cryptography.hazmat.primitives.asymmetric.mldsa",
    )
}

fn skip(why: &str) {
    foreign::skip("identity_interop", REQUIRE, why);
}

struct World {
    root: TempDir,
}

impl World {
    fn must(&self, args: &[&str]) -> String {
        must(self.root.path(), args)
    }

    fn path(&self, name: &str) -> String {
        self.root.path().join(name).display().to_string()
    }

    /// A chain for `node-7` in the group `workers`, by the issuer in this folder.
    fn issue(&self, issuer: &str, out: &str) -> String {
        let file = self.path(out);
        let request = self.path("node.request");
        self.must(&[
            "identity",
            "issue",
            &request,
            "--issuer",
            issuer,
            "--group",
            "workers",
            "--lifetime",
            "1d",
            "--out",
            &file,
        ]);
        file
    }
}

/// Two issuers, the second with leave of the first, and the request of a node.
fn world() -> (World, Issuer, Issuer) {
    let root = TempDir::new().unwrap();
    let (acme, europe) = (
        Issuer::init(root.path(), "acme"),
        Issuer::init(root.path(), "acme.eu"),
    );
    let world = World { root };
    world.must(&["init", "--dir", &world.path("node")]);
    let (anchor, leave) = (acme.anchor(), world.path("leave"));
    let text = |path: &Path| path.display().to_string();
    world.must(&[
        "identity",
        "delegate",
        &text(&europe.anchor()),
        "--issuer",
        &text(&acme.dir),
        "--group",
        "work*",
        "--out",
        &leave,
    ]);
    world.must(&[
        "identity",
        "issuer",
        "import",
        &leave,
        "--anchor",
        &text(&anchor),
        "--dir",
        &text(&europe.dir),
    ]);
    let (config, request) = (world.path("node/node.toml"), world.path("node.request"));
    world.must(&[
        "--config",
        &config,
        "identity",
        "request",
        "--subject",
        "node-7",
        "--out",
        &request,
    ]);
    (world, acme, europe)
}

#[test]
fn two_python_libraries_verify_what_this_program_made() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => return skip(&why),
    };
    let (world, acme, europe) = world();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/py/verify.py");
    let anchor = acme.anchor().display().to_string();
    let verify = |chain: &str| {
        let mut command = Command::new(&python);
        command
            .arg(&script)
            .args([&anchor, chain, "node-7", "workers"]);
        command.output().unwrap()
    };
    for (issuer, file, links) in [(&acme, "direct", 1), (&europe, "delegated", 2)] {
        let chain = world.issue(&issuer.dir.display().to_string(), file);
        // This program agrees, by the anchor alone.
        world.must(&["identity", "verify", &chain, "--anchor", &anchor]);
        let output = verify(&chain);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{file}: {said}");
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["issuer"], issuer.name.as_str());
        assert_eq!(found["links"], links);
        // And both disagree with a forgery: one bit of the ML-DSA signature at its end.
        let mut forged = fs::read(&chain).unwrap();
        *forged.last_mut().unwrap() ^= 1;
        let forgery = world.path("forged");
        fs::write(&forgery, forged).unwrap();
        assert!(!verify(&forgery).status.success(), "{file}");
        let ours = Command::new(BINARY)
            .args(["identity", "verify", &forgery, "--anchor", &anchor])
            .output();
        assert_eq!(ours.unwrap().status.code(), Some(65), "{file}");
    }
}

/// The X-Wing seed in an open key file.
fn x_wing_seed(key_file: &Path) -> String {
    let text = fs::read_to_string(key_file).unwrap();
    let seed = text.lines().find_map(|line| line.strip_prefix("x-wing "));
    seed.unwrap().to_owned()
}

#[test]
fn a_python_library_opens_what_was_sealed() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => return skip(&why),
    };
    let root = TempDir::new().unwrap();
    must(root.path(), &["init", "--dir", "."]);
    let key_file = root.path().join("data/node.key");
    let key = NodeKey::load(&key_file).unwrap();
    let sender = NodeKey::from_seed(&[9; 32]).peer();
    let others = NodeKey::from_seed(&[8; 32]).public().x_wing.clone();
    let recipients = [others, key.public().x_wing.clone()];
    let purpose = Purpose::Message("acme/orders");
    let bytes = sealed::seal(b"forty-two", &recipients, sender, purpose).unwrap();
    let file = root.path().join("sealed");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/py/open.py");
    let open = |bytes: &[u8], topic: &str| {
        fs::write(&file, bytes).unwrap();
        let mut command = Command::new(&python);
        command.arg(&script).arg(&file).args([
            &x_wing_seed(&key_file),
            &hex::encode(sender.key_bytes()),
            topic,
        ]);
        command.output().unwrap()
    };
    let opened = open(&bytes, "acme/orders");
    let said = String::from_utf8_lossy(&opened.stderr);
    assert_eq!(opened.stdout, b"forty-two", "{said}");
    assert!(
        !open(&bytes, "acme/invoices").status.success(),
        "another purpose"
    );
    let mut changed = bytes;
    *changed.last_mut().unwrap() ^= 1;
    assert!(
        !open(&changed, "acme/orders").status.success(),
        "another payload"
    );
}
