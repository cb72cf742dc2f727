use std::{fs, io::Read, os::unix::fs::MetadataExt};

use super::*;
use crate::identity::{
    Grant, Protection, SigningRequest, issue, make_dir,
    testing::{NOW, acme, anchors, grant, mallory, name, serial},
    verify_chain,
};

struct World {
    _dir: tempfile::TempDir,
    paths: IdentityPaths,
    key: NodeKey,
}

fn issued(key: &NodeKey, index: u8) -> Chain {
    let bytes = SigningRequest::seal(key, &name("node-1"), &Default::default(), NOW);
    let request = SigningRequest::open(&bytes).unwrap();
    let grant = Grant {
        subject: Some(name("node-1")),
        ..grant()
    };
    Chain::of(issue(&acme(), &request, &grant, serial(index), NOW).unwrap())
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let paths = IdentityPaths::new(dir.path());
    let key = NodeKey::create(&paths.node_key()).unwrap();
    make_dir(paths.credential().parent().unwrap()).unwrap();
    disk::write_atomic(&paths.credential(), &issued(&key, 1).encode(), MODE).unwrap();
    World {
        _dir: dir,
        paths,
        key,
    }
}

/// The credential that an issuer gives for the statement.
fn answer(statement: &Continuity) -> Chain {
    let grant = Grant {
        subject: Some(name("node-1")),
        ..grant()
    };
    let request = statement.request();
    Chain::of(issue(&acme(), &request, &grant, serial(2), NOW).unwrap())
}

fn ready() -> (World, Continuity) {
    let world = world();
    let (pending, before) = begin(&world.paths, NOW).unwrap();
    assert!(!before && pending.chain.is_none());
    adopt(
        &world.paths,
        &pending.statement,
        &answer(&pending.statement),
    )
    .unwrap();
    (world, pending.statement)
}

fn loaded(path: &Path) -> NodeKey {
    NodeKey::load(path).unwrap()
}

#[test]
fn it_begins_once_and_waits_for_its_credential() {
    let world = world();
    let (pending, _) = begin(&world.paths, NOW).unwrap();
    let statement = pending.statement;
    assert!(statement.is_from(world.key.public()));
    assert_eq!(
        loaded(&world.paths.next_key()).public(),
        statement.new_keys()
    );
    let (again, before) = begin(&world.paths, NOW).unwrap();
    assert!(before && again.statement == statement);
    // Without the credential nothing changes.
    let started = start(&world.paths).unwrap();
    assert!(started.rotated.is_none() && started.key.peer() == world.key.peer());
    assert_eq!(
        asking(&world.paths, world.key.public()).unwrap(),
        Some(statement.clone())
    );
    assert_eq!(asking(&world.paths, mallory().public()).unwrap(), None);
    // Another's credential is not taken.
    assert!(adopt(&world.paths, &statement, &issued(&world.key, 3)).is_err());
    adopt(&world.paths, &statement, &answer(&statement)).unwrap();
    assert_eq!(asking(&world.paths, world.key.public()).unwrap(), None);
}

#[test]
fn a_switch_that_was_interrupted_anywhere_is_finished() {
    for most in 0..=STEPS.len() {
        let (world, statement) = ready();
        let World { paths, key, .. } = &world;
        let first = switch(paths, most).unwrap();
        assert_eq!(first.key.public(), statement.new_keys());
        // What a crash left is a whole key, either of them.
        let left = loaded(&paths.node_key()).peer();
        let wanted = if most < 2 {
            key.peer()
        } else {
            statement.new_keys().peer
        };
        assert_eq!(left, wanted, "{most}");

        let started = start(paths).unwrap();
        assert_eq!(started.key.public(), statement.new_keys(), "{most}");
        assert_eq!(started.rotated.as_ref(), Some(&statement), "{most}");
        assert_eq!(loaded(&paths.node_key()).peer(), started.key.peer());
        assert_eq!(loaded(&paths.retired_key()).peer(), key.peer(), "{most}");
        let chain = chain(&paths.credential()).unwrap().unwrap();
        verify_chain(&chain, started.key.peer(), &anchors(), NOW).unwrap();
        assert!(!paths.next_key().exists() && !paths.next_credential().exists());
        // Not on record yet: the next start says so again, and the old keys stay.
        assert_eq!(start(paths).unwrap().rotated.as_ref(), Some(&statement));
        assert!(!erase_retired(paths).unwrap() && paths.retired_key().exists());

        finish(paths).unwrap();
        finish(paths).unwrap();
        let after = start(paths).unwrap();
        assert!(after.rotated.is_none() && after.key.peer() == started.key.peer());
        let own = crate::identity::state::load_own(paths, after.key.peer(), &anchors(), NOW);
        assert_eq!(own.unwrap().continuity.as_deref(), Some(&statement));
        assert!(has_retired(paths) && erase_retired(paths).unwrap());
        assert!(!erase_retired(paths).unwrap() && !paths.retired_key().exists());
        assert_eq!(loaded(&paths.node_key()).peer(), after.key.peer());
    }
}

#[test]
fn a_second_rotation_rises_and_replaces_the_retired_key() {
    let (world, first) = ready();
    start(&world.paths).unwrap();
    finish(&world.paths).unwrap();
    // No member was met: the first key is retired still.
    let (second, _) = begin(&world.paths, NOW).unwrap();
    assert_eq!(second.statement.sequence(), first.sequence() + 1);
    assert_eq!(second.statement.former(), first.new_keys().peer);
    adopt(&world.paths, &second.statement, &answer(&second.statement)).unwrap();
    let started = start(&world.paths).unwrap();
    assert_eq!(started.key.public(), second.statement.new_keys());
    let retired = loaded(&world.paths.retired_key()).peer();
    assert_eq!(retired, first.new_keys().peer);
}

#[test]
fn what_is_erased_is_overwritten_but_never_a_key_in_use() {
    let (world, _) = ready();
    start(&world.paths).unwrap();
    finish(&world.paths).unwrap();
    let mut file = fs::File::open(world.paths.retired_key()).unwrap();
    erase_retired(&world.paths).unwrap();
    let mut left = Vec::new();
    file.read_to_end(&mut left).unwrap();
    assert!(!left.is_empty() && left.iter().all(|byte| *byte == 0));
    // A second name of the present key loses that name alone.
    fs::hard_link(world.paths.node_key(), world.paths.retired_key()).unwrap();
    let peer = loaded(&world.paths.node_key()).peer();
    erase_retired(&world.paths).unwrap();
    assert_eq!(loaded(&world.paths.node_key()).peer(), peer);
}

#[test]
fn the_former_key_is_overwritten_where_it_was_too() {
    let (world, _) = ready();
    let paths = &world.paths;
    let mut file = fs::File::open(paths.node_key()).unwrap();
    start(paths).unwrap();
    let links = fs::metadata(paths.retired_key()).unwrap().nlink();
    assert_eq!(links, 1, "a copy, and no second name");
    let mut left = Vec::new();
    file.read_to_end(&mut left).unwrap();
    assert!(!left.is_empty() && left.iter().all(|byte| *byte == 0));
    assert_eq!(loaded(&paths.retired_key()).peer(), world.key.peer());
}

#[test]
fn a_rotation_is_given_up_until_its_credential_is_there() {
    let world = world();
    let paths = &world.paths;
    assert!(matches!(abandon(paths, NOW), Err(RotationError::None)));
    begin(paths, NOW).unwrap();
    assert!(abandon(paths, NOW).unwrap().is_none());
    assert!(!paths.next_key().exists() && pending(paths).unwrap().is_none());
    assert_eq!(start(paths).unwrap().key.peer(), world.key.peer());
    assert!(matches!(abandon(paths, NOW), Err(RotationError::None)));
    let (world, _) = ready();
    assert!(matches!(
        abandon(&world.paths, NOW),
        Err(RotationError::TooLate)
    ));
}

#[test]
fn what_was_stated_is_given_up_for_another_rotation_alone() {
    let world = world();
    let paths = &world.paths;
    let (first, _) = begin(paths, NOW).unwrap();
    stating(paths, &first.statement).unwrap();
    stating(paths, &first.statement).unwrap();
    let second = abandon(paths, NOW).unwrap().unwrap().statement;
    assert_eq!(second.sequence(), first.statement.sequence() + 1);
    assert_ne!(second.new_keys(), first.statement.new_keys());
    assert_eq!(loaded(&paths.next_key()).public(), second.new_keys());
    // The answer to the first comes after all: it is not of what is on the disk.
    let late = adopt(paths, &first.statement, &answer(&first.statement));
    assert!(matches!(late, Err(RotationError::Mixed(_))), "{late:?}");
    // Interrupted after the removal: it is known what was stated, and the command is repeated.
    fs::remove_file(paths.rotation()).unwrap();
    fs::remove_file(paths.next_key()).unwrap();
    let late = adopt(paths, &second, &answer(&second));
    assert!(matches!(late, Err(RotationError::None)), "{late:?}");
    let third = abandon(paths, NOW).unwrap().unwrap().statement;
    assert_eq!(third.sequence(), first.statement.sequence() + 1);
    // It comes to its end; then nothing is left of those.
    stating(paths, &third).unwrap();
    adopt(paths, &third, &answer(&third)).unwrap();
    start(paths).unwrap();
    finish(paths).unwrap();
    assert!(!paths.stated().exists());
    stating(paths, &third).unwrap();
    assert!(
        matches!(abandon(paths, NOW), Err(RotationError::None)),
        "a crash left it"
    );
}

#[test]
fn keys_are_sealed_anew_when_no_others_would_stay_as_they_are() {
    let (world, _) = ready();
    let paths = &world.paths;
    assert!(matches!(may_protect(paths), Err(RotationError::UnderWay)));
    start(paths).unwrap();
    finish(paths).unwrap();
    assert!(matches!(may_protect(paths), Err(RotationError::Retired(_))));
    erase_retired(paths).unwrap();
    may_protect(paths).unwrap();
}

#[test]
fn files_of_another_rotation_change_nothing() {
    let (world, statement) = ready();
    // Somebody put another next key there.
    fs::remove_file(world.paths.next_key()).unwrap();
    NodeKey::create(&world.paths.next_key()).unwrap();
    let started = start(&world.paths).unwrap();
    assert!(started.rotated.is_none() && started.key.peer() == world.key.peer());
    // A credential of other keys: said, and given up.
    let foreign = issued(&world.key, 9).encode();
    disk::write_atomic(&world.paths.next_credential(), &foreign, MODE).unwrap();
    assert!(matches!(
        pending(&world.paths),
        Err(RotationError::Mixed(_))
    ));
    assert_eq!(start(&world.paths).unwrap().key.peer(), world.key.peer());
    abandon(&world.paths, NOW).unwrap();
    // A node without a credential, or with its own, has nothing to go on with.
    fs::remove_file(world.paths.credential()).unwrap();
    let begun = begin(&world.paths, NOW);
    assert!(matches!(begun, Err(RotationError::NoCredential)));
    drop(statement);
}

#[test]
fn the_next_keys_are_sealed_as_the_present_ones_are() {
    let world = world();
    let with = Protection::File("wrap.key".into());
    NodeKey::protect(&world.paths.node_key(), &with).unwrap();
    let (pending, _) = begin(&world.paths, NOW).unwrap();
    let sealed = fs::read_to_string(world.paths.next_key()).unwrap();
    assert!(
        sealed.starts_with("quantraband-sealed-key-v1\nwith file wrap.key\n"),
        "{sealed}"
    );
    adopt(
        &world.paths,
        &pending.statement,
        &answer(&pending.statement),
    )
    .unwrap();
    let started = start(&world.paths).unwrap();
    assert_eq!(started.key.public(), pending.statement.new_keys());
    assert_eq!(NodeKey::protection(&world.paths.node_key()).unwrap(), with);
}
