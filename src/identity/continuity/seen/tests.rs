use super::*;
use crate::identity::{
    Chain, Grant, NodeKey, SigningRequest, issue,
    testing::{HOUR, NOW, acme, anchors, grant, name, serial},
    verify_chain,
};

/// The keys of the subject, one after another.
fn key(n: u8) -> NodeKey {
    NodeKey::from_seed(&[n; 32])
}

fn at(secs: u64) -> Timestamp {
    NOW.after(Duration::from_secs(secs))
}

fn chain(key: &NodeKey, subject: &str, issued: Timestamp) -> Chain {
    let request = SigningRequest::seal(key, &name(subject), &Default::default(), issued);
    let request = SigningRequest::open(&request).unwrap();
    let grant = Grant {
        subject: Some(name(subject)),
        ..grant()
    };
    Chain::of(issue(&acme(), &request, &grant, serial(1), issued).unwrap())
}

/// The holder of these keys, with a credential issued then.
fn who(n: u8, issued: Timestamp) -> VerifiedIdentity {
    let key = key(n);
    verify_chain(
        &chain(&key, "node-1", issued),
        key.peer(),
        &anchors(),
        issued,
    )
    .unwrap()
}

fn leads(old: u8, new: u8, last: Option<u64>, made: Timestamp) -> Continuity {
    let held = chain(&key(old), "node-1", NOW);
    Continuity::seal((&key(old), &key(new)), held.credential(), last, made).unwrap()
}

fn superseded<T>() -> Result<T, Refusal> {
    Err(Refusal::Denied("continuity.superseded".into()))
}

fn replayed<T>() -> Result<T, Refusal> {
    Err(Refusal::Denied("continuity.replayed".into()))
}

#[test]
fn no_keys_that_a_node_gave_up_are_taken_again() {
    let mut seen = Seen::default();
    let now = at(4_000);
    let (one, two) = (leads(1, 2, None, at(10)), leads(2, 3, None, at(3_700)));
    let (first, second, third) = (who(1, NOW), who(2, at(11)), who(3, at(3_701)));
    assert_eq!(seen.check(&first, None, now), Ok(()));
    assert_eq!(seen.admit(&second, Some(&one), now), Ok(true));
    assert_eq!(seen.admit(&second, Some(&one), now), Ok(false), "once");
    assert_eq!(seen.check(&first, None, now), superseded());
    assert_eq!(seen.admit(&third, Some(&two), now), Ok(true));
    // The last keys, and those before them: A, B, C, and then A.
    assert_eq!(seen.check(&second, None, now), superseded());
    assert_eq!(seen.check(&first, None, now), superseded());
    assert_eq!(seen.check(&second, Some(&one), now), replayed());
    assert_eq!(seen.check(&third, Some(&two), now), Ok(()));
    assert_eq!(seen.check(&third, None, now), Ok(()));
    // Another of the same sequence says something else.
    let fork = leads(2, 1, Some(two.sequence() - 1), at(3_700));
    assert_eq!(fork.sequence(), two.sequence());
    assert_eq!(seen.check(&first, Some(&fork), now), replayed());
    // Who was enrolled anew since has keys of its own, the first ones also.
    assert_eq!(seen.check(&who(4, at(3_701)), None, now), Ok(()));
    assert_eq!(seen.check(&who(1, at(3_701)), None, now), Ok(()));
    assert_eq!(seen.check(&who(4, at(3_700)), None, now), superseded());
    // Others are not concerned.
    let mut other = first;
    other.subject = name("node-2");
    assert_eq!(seen.check(&other, None, now), Ok(()));
}

#[test]
fn a_statement_from_keys_that_the_subject_never_had_leads_nowhere() {
    let mut seen = Seen::default();
    let now = at(4_000);
    let one = leads(1, 2, None, at(10));
    assert_eq!(seen.admit(&who(2, at(11)), Some(&one), now), Ok(true));
    // A thief of the old keys makes a later one with keys of his own, which leads to the old ones.
    let own = leads(66, 1, Some(one.sequence()), at(20));
    assert_eq!(seen.check(&who(1, NOW), Some(&own), now), superseded());
    // By the present keys it holds, however early the credential was issued.
    let back = leads(2, 5, Some(one.sequence()), at(20));
    assert_eq!(seen.admit(&who(5, at(9)), Some(&back), now), Ok(true));
    // And it goes on where a statement in between was not seen.
    let later = leads(7, 8, None, at(3_900));
    assert_eq!(seen.admit(&who(8, at(3_901)), Some(&later), now), Ok(true));
}

#[test]
fn a_statement_of_the_future_is_not_taken() {
    let seen = Seen::default();
    let now = at(10);
    let fast = leads(1, 2, None, now.after(MAX_AHEAD));
    assert_eq!(seen.check(&who(2, at(11)), Some(&fast), now), Ok(()));
    let future = leads(1, 2, None, now.after(MAX_AHEAD * 2));
    assert_eq!(
        seen.check(&who(2, at(11)), Some(&future), now),
        Err(Refusal::Denied("continuity.future".into()))
    );
}

#[test]
fn what_changed_between_the_check_and_the_admission_counts() {
    let mut seen = Seen::default();
    let now = at(100);
    let first = who(1, NOW);
    assert_eq!(seen.check(&first, None, now), Ok(()));
    let one = leads(1, 2, None, at(10));
    assert_eq!(seen.admit(&who(2, at(11)), Some(&one), now), Ok(true));
    assert_eq!(seen.admit(&first, None, now), superseded());
}

#[test]
fn subjects_remembered_are_bounded() {
    let mut seen = Seen::default();
    let one = leads(1, 2, None, NOW);
    for n in 0..MAX_SEEN + 10 {
        let mut body = one.body.clone();
        body.subject = name(&format!("node-{n}"));
        // What is remembered was verified before; signing thousands would take long.
        let made = Continuity {
            body,
            ..one.clone()
        };
        assert!(seen.take(&made));
    }
    assert_eq!(
        (seen.subjects.len(), seen.order.len()),
        (MAX_SEEN, MAX_SEEN)
    );
    let old = |n: usize| VerifiedIdentity {
        subject: name(&format!("node-{n}")),
        ..who(1, NOW)
    };
    assert!(seen.check(&old(0), None, NOW.after(HOUR)).is_ok());
    assert!(
        seen.check(&old(MAX_SEEN + 9), None, NOW.after(HOUR))
            .is_err()
    );
}
