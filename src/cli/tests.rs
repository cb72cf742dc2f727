use std::{cell::Cell, path::Path};

use super::*;

/// A node whose commands end as they are told to, and say which was asked.
struct Fake {
    asked: Cell<&'static str>,
    exit: Exit,
}

impl Fake {
    fn end(&self, asked: &'static str) -> Result<(), CliError> {
        self.asked.set(asked);
        match self.exit {
            Exit::Ok => Ok(()),
            exit => Err(CliError::new(exit, "")),
        }
    }
}

impl Node for Fake {
    fn run(&self, _: Loaded, _: RunArgs, _: &Out) -> Result<(), CliError> {
        self.end("run")
    }

    fn devnet(&self, _: &DevnetArgs, _: &Out) -> Result<(), CliError> {
        self.end("devnet")
    }

    fn verify(&self, dir: &Path, _: &AuditVerifyArgs, _: &Out) -> Result<(), CliError> {
        assert!(dir.ends_with("audit"));
        self.end("verify")
    }
}

fn exit_of(args: &[&str], exit: Exit) -> (Exit, &'static str) {
    let fake = Fake {
        asked: Cell::new("nothing"),
        exit,
    };
    let args = std::iter::once(&"quantraband")
        .chain(args)
        .map(OsString::from);
    let code = main(args, &fake);
    // `ExitCode` shows its number only to the system and to `Debug`.
    let found = Exit::ALL
        .into_iter()
        .find(|exit| format!("{:?}", ExitCode::from(*exit)) == format!("{code:?}"));
    (found.unwrap(), fake.asked.get())
}

fn node_dir() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    std::fs::write(&path, "").unwrap();
    let path = path.display().to_string();
    (dir, path)
}

#[test]
fn usage_errors_are_64_and_help_is_0() {
    for args in [
        &["explode"][..],
        &[],
        &["publish"],
        &["devnet", "--nodes", "0"],
    ] {
        assert_eq!(
            exit_of(args, Exit::Ok),
            (Exit::Usage, "nothing"),
            "{args:?}"
        );
    }
    assert_eq!(exit_of(&["--help"], Exit::Ok).0, Exit::Ok);
    assert_eq!(exit_of(&["--version"], Exit::Ok).0, Exit::Ok);
}

#[test]
fn configuration_errors_are_78_whatever_the_command() {
    let (dir, path) = node_dir();
    for text in ["version = 2", "[limits]\nconections = 1", "not toml"] {
        std::fs::write(&path, text).unwrap();
        for command in [
            &["run"][..],
            &["status"],
            &["config", "check"],
            &["trust", "list"],
        ] {
            let args = [&["--config", &path], command].concat();
            assert_eq!(
                exit_of(&args, Exit::Ok),
                (Exit::Config, "nothing"),
                "{args:?}"
            );
        }
    }
    drop(dir);
    assert_eq!(
        exit_of(&["run", "--config", &path], Exit::Ok).0,
        Exit::Config
    );
}

#[test]
fn without_a_node_its_commands_are_69() {
    let (_dir, path) = node_dir();
    for command in [
        &["status"][..],
        &["peers"],
        &["actors", "restart", "swarm"],
        &["publish", "t", "--data", "x"],
        &["subscribe", "t", "--count", "1"],
        &["audit", "tail"],
        &["stop"],
    ] {
        let args = [command, &["--config", &path]].concat();
        assert_eq!(exit_of(&args, Exit::Ok).0, Exit::Unavailable, "{args:?}");
    }
}

#[test]
fn the_nodes_own_commands_end_as_it_says() {
    let (_dir, path) = node_dir();
    for exit in [Exit::Ok, Exit::Software, Exit::Io] {
        assert_eq!(exit_of(&["run", "--config", &path], exit), (exit, "run"));
    }
    assert_eq!(
        exit_of(&["devnet", "--nodes", "2"], Exit::Ok),
        (Exit::Ok, "devnet")
    );
    let verify = ["audit", "verify", "--config", &path];
    assert_eq!(exit_of(&verify, Exit::Data), (Exit::Data, "verify"));
    // A directory that is named needs no configuration.
    let verify = ["audit", "verify", "--dir", "/nowhere/audit"];
    assert_eq!(exit_of(&verify, Exit::Ok), (Exit::Ok, "verify"));
}

#[test]
fn two_organisations_enrol_by_commands() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let config = at("n/node.toml");
    let run = |args: &[&str]| exit_of(args, Exit::Ok).0;
    assert_eq!(run(&["init", "--dir", &at("n")]), Exit::Ok);
    assert_eq!(
        run(&["identity", "issuer", "init", "acme", "--dir", &at("i")]),
        Exit::Ok
    );
    let request = [
        "identity",
        "request",
        "--subject",
        "node-1",
        "--out",
        &at("r"),
    ];
    assert_eq!(
        run(&[&request[..], &["--config", &config]].concat()),
        Exit::Ok
    );
    let issue = [
        "identity",
        "issue",
        &at("r"),
        "--issuer",
        &at("i"),
        "--out",
        &at("c"),
    ];
    assert_eq!(
        run(&[&issue[..], &["--group", "workers"]].concat()),
        Exit::Ok
    );
    // The issuer must be trusted before its credential can be imported.
    let import = ["identity", "import", &at("c"), "--config", &config];
    assert_eq!(run(&import), Exit::Data);
    let anchor = at("i/acme.anchor");
    assert_eq!(
        run(&["trust", "add", &anchor, "--config", &config]),
        Exit::Ok
    );
    assert_eq!(run(&import), Exit::Ok);
    assert_eq!(run(&["identity", "show", "--config", &config]), Exit::Ok);
    assert_eq!(
        run(&["identity", "verify", &at("c"), "--anchor", &anchor]),
        Exit::Ok
    );
    assert_eq!(
        run(&["trust", "list", "--output", "json", "--config", &config]),
        Exit::Ok
    );
    assert_eq!(
        run(&["trust", "remove", "acme", "--config", &config]),
        Exit::Ok
    );
    assert_eq!(
        run(&["identity", "verify", &at("c"), "--config", &config]),
        Exit::Data
    );
    // What exists is not overwritten.
    assert_eq!(run(&issue), Exit::CannotCreate);
}
