//! Programs that others wrote, and the environments in which they run.
//!
//! The libraries come from their registries once, into the user's cache; a folder's name says
//! what is in it. Where they cannot be had, [`skip`] says so aloud, or fails where it is demanded.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use quantraband::sandbox::ContentHash;

fn cache() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = set("XDG_CACHE_HOME").map_or_else(
        || Path::new(&set("HOME").unwrap_or_default()).join(".cache"),
        PathBuf::from,
    );
    cache.join("quantraband/interop")
}

/// Runs a program to its end, and says the last it said when it fails.
fn run(command: &mut Command) -> Result<(), String> {
    let called = format!("{command:?}");
    let output = command.output().map_err(|e| format!("{called}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.trim().lines().last().unwrap_or_default().to_owned();
    Err(format!("{called}: {last}"))
}

/// An empty folder at `home`: what is there is half made, or of a program that is gone.
fn afresh(home: &Path) -> Result<(), String> {
    let _ = fs::remove_dir_all(home);
    fs::create_dir_all(home).map_err(|error| format!("{}: {error}", home.display()))
}

/// A Python that has `libraries`, or why there is none. `imports` is what it must be able to
/// import. Needs python3 with venv.
pub(crate) fn python(libraries: &[&str], imports: &str) -> Result<PathBuf, String> {
    let home = cache().join(libraries.join("-").replace("==", "-"));
    let python = home.join("bin/python");
    let imports = format!("import {imports}");
    let works = || run(Command::new(&python).args(["-c", &imports]));
    if works().is_ok() {
        return Ok(python);
    }
    afresh(&home)?;
    run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
    let quiet = ["-m", "pip", "install", "--quiet"];
    run(Command::new(&python)
        .args(quiet)
        .arg("--disable-pip-version-check")
        .args(libraries))?;
    works().map(|()| python)
}

/// A script of `tests/interop/js` beside its libraries, and a Node.js that runs it. Needs npm,
/// which brings the Node.js too.
pub(crate) fn javascript(script: &str) -> Result<(PathBuf, PathBuf), String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/js");
    let lock = fs::read(source.join("package-lock.json")).map_err(|error| error.to_string())?;
    let version = ContentHash::of(&lock).to_string();
    let home = cache().join(format!("js-{}", version.get(..16).unwrap_or_default()));
    let node = home.join("node_modules/node/bin/node");
    let works = || run(Command::new(&node).arg("--version"));
    let copy = |name: &str| {
        let copied = fs::copy(source.join(name), home.join(name));
        copied.map(drop).map_err(|error| format!("{name}: {error}"))
    };
    if works().is_err() || !home.join("complete").exists() {
        afresh(&home)?;
        copy("package.json")?;
        copy("package-lock.json")?;
        run(Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(&home))?;
        works()?;
        fs::write(home.join("complete"), "").map_err(|error| error.to_string())?;
    }
    copy(script)?;
    Ok((node, home.join(script)))
}

/// Says aloud that `test` was not made, past the harness's capture; fails where the environment
/// has `require=1`.
pub(crate) fn skip(test: &str, require: &str, why: &str) {
    assert!(
        std::env::var(require).as_deref() != Ok("1"),
        "{why}, and {require}=1 demands it"
    );
    let text = format!("\n*** SKIPPED {test}: {why}. {require}=1 turns this into a failure. ***\n");
    let _ = std::io::stderr().write_all(text.as_bytes());
}
