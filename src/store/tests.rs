//! Damage from below: truncated and flipped files, missing files, a killed process.

use std::{
    collections::BTreeMap,
    io::Write,
    os::unix::fs::FileExt,
    process::{Command, Stdio},
};

use super::*;
use serde::Deserialize;
use tempfile::TempDir;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
/// Set for the child of [`what_was_flushed_survives_kill_9`] only.
const CHILD: &str = "QUANTRABAND_TEST_STORE_CHILD";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Item {
    n: u64,
    text: String,
}

fn item(n: u64) -> Item {
    Item {
        n,
        text: format!("value {n} {}", "x".repeat(usize::try_from(n % 97).unwrap())),
    }
}

fn dir() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    (dir, path)
}

fn open(path: &Path) -> (Store, Option<SetAside>) {
    Store::open(path, NOW).unwrap()
}

/// A store with two trees of `count` items each, durable and closed.
fn filled(path: &Path, count: u64) -> BTreeMap<Vec<u8>, Item> {
    let (store, aside) = open(path);
    assert_eq!(aside, None);
    let mut expected = BTreeMap::new();
    for name in ["bans", "debts"] {
        let tree: Tree<Item> = store.tree(name, 1).unwrap();
        for n in 0..count {
            tree.put(&n.to_be_bytes(), &item(n)).unwrap();
            expected.insert(n.to_be_bytes().to_vec(), item(n));
        }
        // Some history, so that stale pages exist that damage could bring back.
        for n in 0..count / 2 {
            tree.put(&n.to_be_bytes(), &item(n + 1_000)).unwrap();
            expected.insert(n.to_be_bytes().to_vec(), item(n + 1_000));
        }
        store.flush_durable().unwrap();
    }
    expected
}

fn contents(store: &Store, name: &str) -> BTreeMap<Vec<u8>, Item> {
    let tree: Tree<Item> = store.tree(name, 1).unwrap();
    tree.scan(10_000).unwrap().into_iter().collect()
}

/// The one promise of this room: all of it, or set aside aloud.
fn intact_or_aloud(path: &Path, expected: &BTreeMap<Vec<u8>, Item>, what: &str) -> bool {
    let (store, aside) = Store::open(path, NOW).unwrap_or_else(|e| panic!("{what}: {e}"));
    match aside {
        None => {
            for name in ["bans", "debts"] {
                assert_eq!(
                    &contents(&store, name),
                    expected,
                    "{what}: silently changed"
                );
            }
            false
        }
        Some(aside) => {
            assert!(
                aside.path.join("db").exists() || what.contains("removed"),
                "{what}"
            );
            assert!(!aside.reason.is_empty());
            assert!(contents(&store, "bans").is_empty());
            let tree: Tree<Item> = store.tree("bans", 1).unwrap();
            tree.put(b"new", &item(1)).unwrap();
            store.flush_durable().unwrap();
            true
        }
    }
}

#[test]
fn values_round_trip_and_survive_reopening() {
    let (_dir, path) = dir();
    let expected = filled(&path, 100);
    assert!(!intact_or_aloud(&path, &expected, "untouched"));
    let (store, _) = open(&path);
    let tree: Tree<Item> = store.tree("bans", 1).unwrap();
    tree.remove(&1_u64.to_be_bytes()).unwrap();
    let mut batch = Batch::default();
    batch.put(b"a", item(7));
    batch.remove(&2_u64.to_be_bytes());
    tree.apply(&batch).unwrap();
    assert_eq!(tree.get(b"a").unwrap(), Some(item(7)));
    assert_eq!(tree.get(&1_u64.to_be_bytes()).unwrap(), None);
    assert_eq!(tree.get(&2_u64.to_be_bytes()).unwrap(), None);
    drop((store, tree));
    let (store, aside) = open(&path);
    assert_eq!(aside, None);
    assert_eq!(contents(&store, "bans").len(), 99);
}

#[test]
fn bounds_and_versions_are_checked() {
    let (_dir, path) = dir();
    let (store, _) = open(&path);
    let tree: Tree<String> = store.tree("t", 1).unwrap();
    assert!(matches!(
        tree.put(b"k", &"x".repeat(600_000)),
        Err(StoreError::TooLarge { .. })
    ));
    assert!(matches!(
        tree.put(&[0; 300], &String::new()),
        Err(StoreError::TooLarge { .. })
    ));
    for n in 0..4_u8 {
        tree.put(&[n], &"v".to_owned()).unwrap();
    }
    assert!(matches!(tree.scan(3), Err(StoreError::TooMany { .. })));
    assert_eq!(tree.scan(4).unwrap().len(), 4);
    let later: Tree<String> = store.tree("t", 2).unwrap();
    assert!(matches!(
        later.get(&[0]),
        Err(StoreError::Version {
            found: 1,
            expected: 2,
            ..
        })
    ));
    assert!(matches!(store.tree::<u8>("", 1), Err(StoreError::Name(_))));
    assert!(matches!(
        store.tree::<u8>("__sled__default", 1),
        Err(StoreError::Name(_))
    ));
}

#[test]
fn a_second_opening_is_refused_and_sets_nothing_aside() {
    let (dir, path) = dir();
    let expected = filled(&path, 3);
    let (store, _) = open(&path);
    assert!(matches!(
        Store::open(&path, NOW),
        Err(StoreError::Locked(_))
    ));
    drop(store);
    assert!(!intact_or_aloud(&path, &expected, "after the refusal"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_directory_that_cannot_be_made_is_an_io_error() {
    let (dir, _) = dir();
    let file = dir.path().join("file");
    fs::write(&file, b"not a directory").unwrap();
    let refused = Store::open(&file.join("state"), NOW);
    assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
    assert_eq!(fs::read(&file).unwrap(), b"not a directory");
}

#[test]
fn truncation_is_never_silent() {
    let (template, path) = dir();
    let expected = filled(&path, 60);
    let length = fs::metadata(path.join("db")).unwrap().len();
    let mut loud = 0;
    for part in 0..12 {
        let copy = template.path().join(format!("copy-{part}"));
        copy_store(&path, &copy);
        let cut = length * part / 12;
        let file = fs::OpenOptions::new()
            .write(true)
            .open(copy.join("db"))
            .unwrap();
        file.set_len(cut).unwrap();
        drop(file);
        loud += u32::from(intact_or_aloud(&copy, &expected, &format!("cut at {cut}")));
    }
    assert!(loud > 0, "cutting the file to nothing must be noticed");
}

#[test]
fn flipped_bytes_are_never_silent() {
    let (template, path) = dir();
    let expected = filled(&path, 60);
    let written = fs::read(path.join("db")).unwrap();
    // Only where something was written: sled leaves the rest of a segment zero.
    let used: Vec<usize> = (0..written.len()).filter(|at| written[*at] != 0).collect();
    let mut loud = 0;
    for step in 0..40 {
        let at = used[step * used.len() / 40];
        let copy = template.path().join("copy");
        copy_store(&path, &copy);
        let file = fs::OpenOptions::new()
            .write(true)
            .open(copy.join("db"))
            .unwrap();
        let garbage: Vec<u8> = written[at..].iter().take(16).map(|b| b ^ 0x5a).collect();
        file.write_all_at(&garbage, u64::try_from(at).unwrap())
            .unwrap();
        drop(file);
        loud += u32::from(intact_or_aloud(&copy, &expected, &format!("flip at {at}")));
        for entry in fs::read_dir(template.path()).unwrap() {
            let entry = entry.unwrap().path();
            if entry != path {
                fs::remove_dir_all(entry).unwrap();
            }
        }
    }
    assert!(loud > 0, "no flip was noticed at all");
}

#[test]
fn missing_or_broken_side_files_are_never_silent() {
    let (template, path) = dir();
    let expected = filled(&path, 20);
    for (n, file) in ["db", "seal", "conf"].into_iter().enumerate() {
        for (m, action) in ["removed", "emptied", "overwritten"]
            .into_iter()
            .enumerate()
        {
            let copy = template.path().join(format!("copy-{n}-{m}"));
            copy_store(&path, &copy);
            let target = copy.join(file);
            match action {
                "removed" => fs::remove_file(target).unwrap(),
                "emptied" => fs::write(target, b"").unwrap(),
                _ => fs::write(target, b"{}0123456789").unwrap(),
            }
            let loud = intact_or_aloud(&copy, &expected, &format!("{file} {action}"));
            assert!(loud || file == "conf", "{file} {action} was not noticed");
        }
    }
}

#[test]
fn an_older_copy_of_the_data_file_is_noticed() {
    let (dir, path) = dir();
    filled(&path, 20);
    let old = fs::read(path.join("db")).unwrap();
    let (store, _) = open(&path);
    let tree: Tree<Item> = store.tree("bans", 1).unwrap();
    tree.put(b"the ban that must not be forgotten", &item(1))
        .unwrap();
    store.flush_durable().unwrap();
    drop((store, tree));
    fs::write(path.join("db"), old).unwrap();
    for entry in fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("snap") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let (_, aside) = open(&path);
    let aside = aside.expect("a rollback must be noticed");
    assert!(aside.reason.contains("back in time"), "{}", aside.reason);
    assert!(aside.path.starts_with(dir.path()));
}

#[test]
fn an_entry_taken_out_behind_our_back_is_noticed() {
    let (_dir, path) = dir();
    filled(&path, 5);
    // A process that another test starts at this moment holds the lock until it is its own.
    let db = (0..1_000).find_map(|_| {
        let opened = sled::Config::new().path(&path).open().ok();
        if opened.is_none() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        opened
    });
    let db = db.unwrap();
    let tree = db.open_tree("bans").unwrap();
    let (key, _) = tree.range([b'k']..).next().unwrap().unwrap();
    tree.remove(key).unwrap();
    db.flush().unwrap();
    drop((db, tree));
    let (_, aside) = open(&path);
    let reason = aside.expect("a vanished entry must be noticed").reason;
    assert!(reason.contains("missing or stale"), "{reason}");
}

#[test]
fn a_disk_that_breaks_it_again_and_again_stops_the_node() {
    let (_dir, path) = dir();
    filled(&path, 2);
    for _ in 0..8 {
        fs::write(path.join("seal"), b"").unwrap();
        let (_, aside) = open(&path);
        assert!(aside.is_some());
    }
    fs::write(path.join("seal"), b"").unwrap();
    assert!(matches!(
        Store::open(&path, NOW),
        Err(StoreError::TooManySetAside { count: 8, .. })
    ));
}

/// The child half of the next test; does nothing in an ordinary run.
#[test]
fn child_writes_until_killed() {
    let Ok(path) = std::env::var(CHILD) else {
        return;
    };
    let (store, _) = open(Path::new(&path));
    let tree: Tree<Item> = store.tree("bans", 1).unwrap();
    for n in 0.. {
        tree.put(&u64::to_be_bytes(n), &item(n)).unwrap();
        store.flush().unwrap();
        let mut out = io::stdout().lock();
        writeln!(out, "\nflushed {n}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn what_was_flushed_survives_kill_9() {
    use std::io::BufRead;
    let (_dir, path) = dir();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::tests::child_writes_until_killed",
            "--nocapture",
        ])
        .env(CHILD, &path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut last = None;
    for line in lines {
        let line = line.unwrap();
        if let Some(n) = line.strip_prefix("flushed ") {
            last = Some(n.parse::<u64>().unwrap());
        }
        if last == Some(50) {
            // Child::kill is SIGKILL.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    let last = last.expect("the child wrote nothing");
    let (store, aside) = open(&path);
    assert_eq!(aside, None);
    let found = contents(&store, "bans");
    for n in 0..=last {
        assert_eq!(found.get(n.to_be_bytes().as_slice()), Some(&item(n)));
    }
}

fn copy_store(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_store(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
