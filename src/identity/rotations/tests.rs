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

fn shown(index: u32) -> Shown {
    Shown {
        issued: NOW,
        indexes: vec![index],
    }
}

fn weighed(
    known: Option<&Record>,
    statement: &Continuity,
    index: u32,
) -> Result<Weighed, NotTaken> {
    weigh(known, statement, &shown(index), NOW)
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
    assert_eq!(old_of(weighed(None, &first, 41)), [41]);
    let chain = issued(&key(42), 60);
    let record = answered(None, &first, &chain, vec![41], (NOW, UNTIL));
    save(dir.path(), &subject, &record).unwrap();
    // As after a restart: from the disk.
    let known = load(dir.path(), &subject).unwrap().unwrap();
    assert_eq!(known, record);
    match weighed(Some(&known), &first, 41) {
        Ok(Weighed::Answered(again, until)) => assert_eq!((*again, until), (chain, UNTIL)),
        other => panic!("{other:?}"),
    }
    // Another statement of the same sequence, and an older one.
    let same = statement(41, Some(first.sequence() - 1));
    assert_eq!(same.sequence(), first.sequence());
    let replayed = NotTaken::Replayed(first.sequence());
    assert_eq!(weighed(Some(&known), &same, 41).unwrap_err(), replayed);
    let newer = statement(42, Some(first.sequence()));
    let after = answered(
        None,
        &newer,
        &issued(&key(43), 61),
        vec![41, 60],
        (NOW, UNTIL),
    );
    let refused = weighed(Some(&after), &first, 41).unwrap_err();
    assert_eq!(refused, NotTaken::GivenUp);
    assert!(known.gave_up(key(41).peer(), NOW) && !known.gave_up(key(42).peer(), NOW));
    // Nor are keys from before; one that is enrolled anew is.
    assert!(after.gave_up(key(41).peer(), NOW) && after.gave_up(key(42).peer(), NOW));
    let anew = Timestamp::from_secs(NOW.secs() + 1);
    assert!(!after.gave_up(key(41).peer(), anew));
}

#[test]
fn a_thief_of_keys_that_were_given_up_moves_the_subject_nowhere() {
    let first = statement(41, None);
    let open = answered(None, &first, &issued(&key(42), 60), vec![41], (NOW, UNTIL));
    // With the old keys, and another credential of them that still holds.
    let theft = statement(41, Some(first.sequence()));
    let theft = |known: &Record, at| weigh(Some(known), &theft, &shown(77), at);
    let given_up = |weighed: Result<Weighed, NotTaken>| weighed.unwrap_err() == NotTaken::GivenUp;
    // Until the new keys are seen the node itself may have changed its mind.
    assert!(theft(&open, NOW).is_ok());
    assert!(given_up(theft(&open.clone().with_proof(), NOW)));
    assert!(given_up(theft(&open.clone().done(), NOW)));
    assert!(given_up(theft(&open, UNTIL)), "the grace is over");
    // A repeat of what was taken gets no answer either, then.
    let repeat = weigh(Some(&open.clone().with_proof()), &first, &shown(41), NOW);
    assert!(given_up(repeat));
    // Two rotations later.
    let second = statement(42, Some(first.sequence()));
    let open = answered(
        None,
        &second,
        &issued(&key(43), 61),
        vec![41, 60],
        (NOW, UNTIL),
    );
    let oldest = statement(41, Some(second.sequence()));
    assert!(given_up(weighed(Some(&open), &oldest, 77)));
    // Who was enrolled anew since has keys of its own.
    let anew = Shown {
        issued: Timestamp::from_secs(NOW.secs() + 1),
        indexes: vec![80],
    };
    assert!(weigh(Some(&open.done()), &oldest, &anew, NOW).is_ok());
}

#[test]
fn whatever_was_given_for_keys_that_are_given_up_is_taken_back() {
    let first = statement(41, None);
    let given = issued(&key(42), 60);
    let record = answered(None, &first, &given, vec![41], (NOW, UNTIL));
    // It rotates again from the keys it just got, and from the old ones after giving those up.
    let onward = statement(42, Some(first.sequence()));
    assert_eq!(old_of(weighed(Some(&record), &onward, 60)), [41, 60]);
    let instead = statement(41, Some(first.sequence()));
    assert_eq!(old_of(weighed(Some(&record), &instead, 41)), [41, 60]);
    let done = record.done();
    assert!(done.old().is_empty());
    assert_eq!(old_of(weighed(Some(&done), &onward, 60)), [60]);
    // Over is over: the answer is gone, and the statement is not taken again.
    assert!(weighed(Some(&done), &first, 41).is_err());
    let many = (0..=u32::try_from(MAX_OLD).unwrap()).collect();
    let full = answered(None, &first, &given, many, (NOW, UNTIL));
    let refused = weighed(Some(&full), &onward, 99).unwrap_err();
    assert_eq!(refused, NotTaken::Often);
}

#[test]
fn a_subject_rotates_once_an_hour_and_may_give_one_up() {
    let later = |secs| NOW.after(Duration::from_secs(secs));
    let until = NOW.after(HOUR * 24);
    let first = statement(41, None);
    let open = answered(None, &first, &issued(&key(42), 60), vec![41], (NOW, until));
    let onward = statement(42, Some(first.sequence()));
    let instead = statement(41, Some(first.sequence()));
    assert_eq!(
        open.wait(&onward, later(600)),
        Some(PACE - later(600).since(NOW))
    );
    assert_eq!(open.wait(&onward, NOW.after(PACE)), None);
    // A clock that was set back opens nothing.
    assert_eq!(open.wait(&onward, Timestamp::from_secs(1)), Some(PACE));
    // It may be replaced by the keys it led away from, once, and not after the new ones were seen.
    assert_eq!(open.wait(&instead, later(1)), None);
    assert!(open.clone().with_proof().wait(&instead, later(1)).is_some());
    let given = issued(&key(43), 61);
    let second = answered(
        Some(&open),
        &instead,
        &given,
        vec![41, 60],
        (later(1), until),
    );
    let third = statement(41, Some(instead.sequence()));
    assert_eq!(
        second.wait(&third, later(2)),
        Some(PACE - later(1).since(NOW))
    );
    assert_eq!(second.wait(&third, later(1).after(PACE)), None);
    // After the hour it begins anew.
    let slow = answered(
        Some(&second),
        &third,
        &given,
        vec![],
        (later(1).after(PACE), until),
    );
    assert!(!slow.replaced);
}

#[test]
fn what_is_over_is_over_for_its_statement_alone() {
    let first = statement(41, None);
    let one = answered(None, &first, &issued(&key(42), 60), vec![41], (NOW, UNTIL));
    let done = one.clone().taken_back(&first.hash(), &[41]);
    assert_eq!(done, one.clone().done());
    // While the list was on its way the node stated something else.
    let second = statement(41, Some(first.sequence()));
    let given = issued(&key(43), 61);
    let two = answered(Some(&one), &second, &given, vec![41, 60], (NOW, UNTIL));
    let kept = two.clone().taken_back(&first.hash(), &[41]);
    assert_eq!((kept.old(), &kept.chain), (&[60_u32][..], &two.chain));
    assert_eq!(kept.until(), UNTIL);
    assert!(matches!(
        weighed(Some(&kept), &second, 41),
        Ok(Weighed::Answered(..))
    ));
}

#[test]
fn what_is_not_over_is_found_at_a_start() {
    let dir = tempfile::tempdir().unwrap();
    assert!(open(dir.path()).unwrap().is_empty());
    let record = answered(
        None,
        &statement(41, None),
        &issued(&key(42), 60),
        vec![41],
        (NOW, UNTIL),
    );
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
