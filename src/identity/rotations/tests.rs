use super::*;
use crate::identity::{
    NodeKey, issue,
    testing::{HOUR, NOW, acme, grant, name, serial},
};

const UNTIL: Timestamp = Timestamp::from_secs(1_795_482_000);

fn key(n: u8) -> NodeKey {
    NodeKey::from_seed(&[n; 32])
}

fn issued(key: &NodeKey, index: u8) -> Chain {
    let request = crate::identity::testing::request_of(key);
    Chain::of(issue(&acme(), &request, &grant(), serial(index), NOW).unwrap())
}

/// The key with this number goes on with the next.
fn statement(n: u8, last: Option<u64>) -> Continuity {
    let (old, new) = (key(n), key(n + 1));
    let chain = issued(&old, n);
    Continuity::seal((&old, &new), chain.credential(), last, NOW).unwrap()
}

fn old_of(weighed: Result<Weighed, NotTaken>) -> Vec<u32> {
    match weighed {
        Ok(Weighed::New(old)) => old,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_repeat_gets_the_same_and_an_older_statement_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let subject = name("node-1");
    assert_eq!(load(dir.path(), &subject).unwrap(), None);
    let first = statement(41, None);
    assert_eq!(old_of(weigh(None, &first, Some(41))), [41]);
    let chain = issued(&key(42), 60);
    let record = answered(&first, &chain, vec![41], UNTIL);
    save(dir.path(), &subject, &record).unwrap();
    // As after a restart: from the disk.
    let known = load(dir.path(), &subject).unwrap().unwrap();
    assert_eq!(known, record);
    match weigh(Some(&known), &first, Some(41)) {
        Ok(Weighed::Answered(again, until)) => assert_eq!((*again, until), (chain, UNTIL)),
        other => panic!("{other:?}"),
    }
    // Another statement of the same sequence, and an older one.
    let same = statement(41, Some(first.sequence() - 1));
    assert_eq!(same.sequence(), first.sequence());
    let replayed = NotTaken::Replayed(first.sequence());
    assert_eq!(weigh(Some(&known), &same, Some(41)).unwrap_err(), replayed);
    let newer = statement(42, Some(first.sequence()));
    let after = answered(&newer, &issued(&key(43), 61), vec![41, 60], UNTIL);
    let refused = weigh(Some(&after), &first, Some(41)).unwrap_err();
    assert_eq!(refused, NotTaken::Replayed(newer.sequence()));
    assert!(known.gave_up(key(41).peer()) && !known.gave_up(key(42).peer()));
}

#[test]
fn whatever_was_given_for_keys_that_are_given_up_is_taken_back() {
    let first = statement(41, None);
    let given = issued(&key(42), 60);
    let record = answered(&first, &given, vec![41], UNTIL);
    // It rotates again from the keys it just got, and from the old ones after giving those up.
    let onward = statement(42, Some(first.sequence()));
    assert_eq!(old_of(weigh(Some(&record), &onward, Some(60))), [41, 60]);
    let instead = statement(41, Some(first.sequence()));
    assert_eq!(old_of(weigh(Some(&record), &instead, Some(41))), [41, 60]);
    let done = record.done();
    assert!(done.old().is_empty());
    assert_eq!(old_of(weigh(Some(&done), &onward, Some(60))), [60]);
    // Over is over: the answer is gone, and the statement is not taken again.
    assert!(weigh(Some(&done), &first, Some(41)).is_err());
    let many = (0..=u32::try_from(MAX_OLD).unwrap()).collect();
    let full = answered(&first, &given, many, UNTIL);
    let refused = weigh(Some(&full), &onward, Some(99)).unwrap_err();
    assert_eq!(refused, NotTaken::Often);
}

#[test]
fn what_is_not_over_is_found_at_a_start() {
    let dir = tempfile::tempdir().unwrap();
    assert!(open(dir.path()).unwrap().is_empty());
    let record = answered(&statement(41, None), &issued(&key(42), 60), vec![41], UNTIL);
    save(dir.path(), &name("node-1"), &record).unwrap();
    save(dir.path(), &name("node-2"), &record.clone().done()).unwrap();
    fs::write(dir.path().join(DIR).join(".node-3.0.tmp"), "half").unwrap();
    let found = open(dir.path()).unwrap();
    assert_eq!(found, [(name("node-1"), record.clone())]);
    assert_eq!(found[0].1.until().since(NOW), HOUR);
    // One that is damaged is an error and not a subject that never rotated.
    fs::write(dir.path().join(DIR).join("node-1"), "{}").unwrap();
    assert!(open(dir.path()).is_err() && load(dir.path(), &name("node-1")).is_err());
}
