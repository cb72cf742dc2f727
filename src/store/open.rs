//! Opening: validate everything, or set aside and begin anew.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use super::{Inner, SetAside, Store, StoreError, guard::guarded, seal::Seal, tree::TreeInner};
use crate::types::Timestamp;

/// Memory sled may use for pages. The node's state is a few megabytes at most.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Corrupt stores kept beside the live one. They are evidence, so they are never deleted here;
/// a disk that breaks it this often must be looked at.
const MAX_SET_ASIDE: usize = 8;
/// Written first into a new store, under sled's default tree.
const MARKER: (&[u8], &[u8]) = (b"format", b"quantraband-store/1");
const DEFAULT_TREE: &[u8] = b"__sled__default";

pub(super) fn open(path: &Path, now: Timestamp) -> Result<(Store, Option<SetAside>), StoreError> {
    match attempt(path) {
        Err(StoreError::Corrupt(reason)) => {
            let aside = set_aside(path, now)?;
            let store = attempt(path)?;
            Ok((
                store,
                Some(SetAside {
                    path: aside,
                    reason,
                }),
            ))
        }
        other => Ok((other?, None)),
    }
}

fn attempt(path: &Path) -> Result<Store, StoreError> {
    let io = |source| StoreError::Io {
        path: path.to_owned(),
        source,
    };
    // Scores and bans are nobody else's business.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io)?;
    let db_existed = path.join("db").try_exists().map_err(io)?;
    let db = guarded(path, || {
        sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .open()
    })?;
    // Only now, under sled's lock: a running node may be writing its seal.
    let seal = match Seal::read(path) {
        Err(bad) if bad.kind() == io::ErrorKind::InvalidData => {
            return Err(StoreError::Corrupt(bad.to_string()));
        }
        other => other.map_err(io)?,
    };
    if !db_existed && seal.is_some() {
        return Err(StoreError::Corrupt("the data file is missing".to_owned()));
    }
    let trees = validated_trees(path, &db)?;
    match &seal {
        Some(seal) => check_seal(&db, path, seal, &trees)?,
        // Creation writes the seal before any tree can be used.
        None if !trees.is_empty() => {
            return Err(StoreError::Corrupt("the seal is missing".to_owned()));
        }
        None => begin(&db, path)?,
    }
    Ok(Store(Arc::new(Inner {
        db,
        path: path.to_owned(),
        trees: Mutex::new(trees),
        seal: Mutex::new(seal.unwrap_or_default()),
        synced: AtomicU64::new(0),
    })))
}

fn validated_trees(
    path: &Path,
    db: &sled::Db,
) -> Result<BTreeMap<String, Arc<TreeInner>>, StoreError> {
    let names = guarded(path, || Ok(db.tree_names()))?;
    let mut trees = BTreeMap::new();
    for name in names.iter().filter(|name| *name != DEFAULT_TREE) {
        let text = std::str::from_utf8(name)
            .map_err(|_| StoreError::Corrupt("a tree's name is no text".to_owned()))?;
        let raw = guarded(path, || db.open_tree(name))?;
        let tree = TreeInner::validated(text, raw, path)?;
        trees.insert(text.to_owned(), Arc::new(tree));
    }
    Ok(trees)
}

/// Nothing that was once durable may be missing.
fn check_seal(
    db: &sled::Db,
    path: &Path,
    seal: &Seal,
    trees: &BTreeMap<String, Arc<TreeInner>>,
) -> Result<(), StoreError> {
    let marker = guarded(path, || db.get(MARKER.0))?;
    if marker.as_deref() != Some(MARKER.1) {
        return Err(StoreError::Corrupt(
            "its format marker is missing".to_owned(),
        ));
    }
    for (name, sealed) in &seal.trees {
        let found = trees.get(name).map_or(0, |tree| tree.position().1);
        if found < *sealed {
            return Err(StoreError::Corrupt(format!(
                "tree `{name}` went back in time, from write {sealed} to {found}"
            )));
        }
    }
    Ok(())
}

/// Marks a new store, durably, and seals it empty.
fn begin(db: &sled::Db, path: &Path) -> Result<(), StoreError> {
    guarded(path, || {
        db.insert(MARKER.0, MARKER.1)?;
        db.flush()
    })?;
    super::sync_all_below(path)
        .and_then(|()| Seal::default().write(path))
        .map_err(|source| StoreError::Io {
            path: path.to_owned(),
            source,
        })
}

/// Renames the store's directory and answers where it is now.
fn set_aside(path: &Path, now: Timestamp) -> Result<PathBuf, StoreError> {
    let io = |source| StoreError::Io {
        path: path.to_owned(),
        source,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let prefix = format!("{name}.corrupt-");
    let mut count = 0;
    for entry in fs::read_dir(parent).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            count += 1;
        }
    }
    if count >= MAX_SET_ASIDE {
        return Err(StoreError::TooManySetAside {
            path: path.to_owned(),
            count,
        });
    }
    // A name taken already (the clock may stand still) gets a number.
    let target = (0..=MAX_SET_ASIDE)
        .map(|n| match n {
            0 => parent.join(format!("{prefix}{}", now.millis())),
            n => parent.join(format!("{prefix}{}-{n}", now.millis())),
        })
        .find(|target| !target.exists())
        .ok_or_else(|| io(io::ErrorKind::AlreadyExists.into()))?;
    fs::rename(path, &target).map_err(io)?;
    fs::File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(io)?;
    Ok(target)
}
