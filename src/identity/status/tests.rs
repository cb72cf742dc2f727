//! Lists and the book, with the world of the room's other tests.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::{
    test_lists::{Make, NEVER},
    *,
};
use crate::{
    identity::{
        IssuerKey, TrustAnchors,
        testing::{
            HOUR, NOW, acme, anchors, berlin, chain, chain_under, europe, globex, name, node,
            to_berlin, to_europe,
        },
        verify_chain,
    },
    types::Timestamp,
};

fn list(sequence: u64, set: &[u32]) -> StatusList {
    Make::new(&acme(), sequence, set).list()
}

fn book() -> Book {
    Book::new(Arc::new(anchors()), false)
}

fn take(book: &mut Book, list: &StatusList) {
    match book.weigh_list(list, NOW) {
        Ok(Weighed::Newer(record)) => drop(book.enact(*record)),
        other => panic!("{other:?}"),
    }
}

fn take_head(book: &mut Book, list: &StatusList) {
    match book.weigh_head(list.head().clone(), NOW) {
        Ok(Weighed::Newer(record)) => drop(book.enact(*record)),
        other => panic!("{other:?}"),
    }
}

/// How the node of acme's index 7, issued at NOW, stands.
fn standing(book: &Book, now: Timestamp) -> Status {
    let identity = verify_chain(&chain(), node().peer(), &anchors(), NOW).unwrap();
    book.view().standing(&identity, now)
}

#[test]
fn a_list_reads_back_and_its_bits_are_the_lowest_first() {
    let made = list(3, &[0, 7, 9, 1023]);
    let read = StatusList::decode(&made.as_bytes()).unwrap();
    assert_eq!(read, made);
    assert!(made.as_bytes().len() < MAX_STATUS_BYTES);
    assert_eq!(&read.bits()[..2], &[0b1000_0001, 0b10]);
    assert_eq!(read.revoked(), 4);
    for (index, set) in [
        (0, true),
        (1, false),
        (7, true),
        (9, true),
        (1023, true),
        (1024, false),
    ] {
        assert_eq!(read.is_set(index), set, "{index}");
    }
    assert!(!read.is_set(u32::MAX));
    assert!(read.verify(&anchors()).is_ok());
    let head = StatusHead::decode(made.head().as_bytes()).unwrap();
    assert!(head.as_bytes().len() <= MAX_HEAD_BYTES);
    assert_eq!(head, *made.head());
}

#[test]
fn the_longest_list_fits() {
    let bits = vec![0xff; 16 * 1024];
    let times = (NOW, NOW.after(HOUR), NEVER);
    let statement = Statement::about(berlin().name().clone(), 1, times, &bits);
    assert_eq!(statement.entries, MAX_ENTRIES);
    let head = StatusHead::sign(statement, berlin().signer());
    let made = StatusList::try_new(head, bits, to_berlin()).unwrap();
    assert_eq!(StatusList::decode(&made.as_bytes()).unwrap(), made);
    assert!(made.verify(&anchors()).is_ok());
}

#[test]
fn any_changed_byte_of_a_list_is_refused() {
    let made = list(3, &[7]).as_bytes();
    for at in 0..made.len() {
        let mut changed = made.to_vec();
        changed[at] ^= 1 << (at % 8);
        let accepted =
            StatusList::decode(&changed).is_ok_and(|list| list.verify(&anchors()).is_ok());
        assert!(!accepted, "byte {at}");
    }
    for cut in [0, 1, made.len() / 2, made.len() - 1] {
        assert!(StatusList::decode(&made[..cut]).is_err());
    }
    assert!(StatusList::decode(&[&made[..], &[0]].concat()).is_err());
}

#[test]
fn a_second_encoding_of_a_list_is_refused() {
    let made = list(3, &[7]).as_bytes();
    // The map's head with a length byte: the same map, written longer.
    assert_eq!(made[0], 0xa4);
    let longer = [&[0xb8, 0x04], &made[1..]].concat();
    assert!(StatusList::decode(&longer).is_err());
    let open = [&[0xbf], &made[1..], &[0xff][..]].concat();
    assert!(StatusList::decode(&open).is_err());
}

#[test]
fn bits_of_another_head_or_beyond_the_entries_are_refused() {
    let (one, other) = (list(1, &[7]), list(2, &[8]));
    assert!(StatusList::try_new(one.head().clone(), other.bits().to_vec(), Vec::new()).is_err());
    let bits = vec![0b1000_0000];
    let times = (NOW, NOW.after(HOUR), NEVER);
    let mut statement = Statement::about(name("acme"), 1, times, &bits);
    statement.entries = 7;
    let head = StatusHead::sign(statement, acme().signer());
    assert!(StatusList::try_new(head, bits, Vec::new()).is_err());
}

#[test]
fn a_statement_has_a_number_and_holds_for_a_while() {
    let wrong: [fn(&mut Statement); 3] = [
        |s| s.sequence = 0,
        |s| s.next_update = s.issued,
        |s| s.entries = MAX_ENTRIES + 1,
    ];
    for change in wrong {
        let mut statement = list(1, &[]).statement().clone();
        change(&mut statement);
        let head = StatusHead::sign(statement, acme().signer());
        assert!(StatusHead::decode(head.as_bytes()).is_err());
    }
}

#[test]
fn without_lists_nobody_is_revoked_and_required_lists_are_missed() {
    assert_eq!(standing(&book(), NOW), Status::Unlisted);
    let required = Book::new(Arc::new(anchors()), true);
    assert_eq!(standing(&required, NOW), Status::Stale);
}

#[test]
fn a_list_is_in_force_until_its_next_update() {
    let mut book = book();
    take(&mut book, &list(1, &[8]));
    assert_eq!(standing(&book, NOW), Status::Good);
    let last = NOW.after(HOUR - Duration::from_secs(1));
    assert_eq!(standing(&book, last), Status::Good);
    assert_eq!(standing(&book, NOW.after(HOUR)), Status::Stale);
    take(&mut book, &list(2, &[7, 8]));
    assert_eq!(standing(&book, NOW), Status::Revoked(Why::Listed));
    // Revoked is worse than stale.
    assert_eq!(
        standing(&book, NOW.after(HOUR)),
        Status::Revoked(Why::Listed)
    );
}

#[test]
fn what_was_issued_before_is_revoked_and_what_was_issued_then_is_not() {
    for (before, revoked) in [(NOW, false), (NOW.after(Duration::from_secs(1)), true)] {
        let (mut book, acme) = (book(), acme());
        let mut make = Make::new(&acme, 1, &[]);
        make.before = before;
        take(&mut book, &make.list());
        assert_eq!(standing(&book, NOW).is_revoked(), revoked);
    }
}

#[test]
fn only_a_greater_sequence_is_accepted() {
    let mut book = book();
    let (one, two) = (list(1, &[]), list(2, &[7]));
    take(&mut book, &two);
    let older = Rejected::Older {
        offered: 1,
        known: 2,
    };
    assert_eq!(book.weigh_list(&one, NOW), Err(older.clone()));
    assert_eq!(book.weigh_head(one.head().clone(), NOW), Err(older.clone()));
    assert!(!older.charged());
    assert_eq!(book.weigh_list(&two, NOW), Ok(Weighed::Known));
    assert_eq!(book.weigh_head(two.head().clone(), NOW), Ok(Weighed::Known));
    // Signed again under the same number, the same statement: other bytes, no fork.
    assert_eq!(book.weigh_list(&list(2, &[7]), NOW), Ok(Weighed::Known));
}

#[test]
fn a_fork_is_reported_and_replaces_nothing() {
    let mut book = book();
    take(&mut book, &list(2, &[7]));
    let other = list(2, &[]);
    let Ok(Weighed::Forked(fork)) = book.weigh_list(&other, NOW) else {
        panic!("no fork")
    };
    assert_eq!((fork.sequence, fork.other), (2, other.statement().hash));
    let head = book.weigh_head(other.head().clone(), NOW);
    assert!(matches!(head, Ok(Weighed::Forked(_))));
    assert!(standing(&book, NOW).is_revoked());
}

#[test]
fn a_head_counts_at_once_and_its_list_is_missed_until_it_came() {
    let (mut book, acme) = (book(), acme());
    take(&mut book, &list(1, &[]));
    take_head(&mut book, &list(3, &[7]));
    assert_eq!(standing(&book, NOW), Status::Stale);
    assert_eq!(book.behind(), vec![(name("acme"), 1)]);
    // One between the two is news, and not the end of it.
    take(&mut book, &list(2, &[7]));
    assert_eq!(standing(&book, NOW), Status::Revoked(Why::Listed));
    assert_eq!(book.behind(), vec![(name("acme"), 2)]);
    // Not the list the head promised.
    let forked = book.weigh_list(&list(3, &[]), NOW);
    assert!(matches!(forked, Ok(Weighed::Forked(_))));
    take(&mut book, &list(3, &[7]));
    assert!(book.behind().is_empty());

    let mut fresh = self::book();
    let mut make = Make::new(&acme, 1, &[]);
    make.before = NOW.after(HOUR);
    take_head(&mut fresh, &make.list());
    assert_eq!(standing(&fresh, NOW), Status::Revoked(Why::IssuedBefore));
}

#[test]
fn another_issuers_signature_and_other_keys_are_refused() {
    let book = book();
    // globex signs for acme: the head says so itself, and so is another's key under the name.
    let stranger = IssuerKey::from_seed(name("acme"), &[2; 32]);
    let made = Make::new(&stranger, 1, &[]).list();
    let refused = book.weigh_list(&made, NOW).unwrap_err();
    assert_eq!((refused.code(), refused.charged()), ("other_key", false));
    let refused = book.weigh_head(made.head().clone(), NOW).unwrap_err();
    assert_eq!(refused.code(), "other_key");
    let unknown = IssuerKey::from_seed(name("initech"), &[9; 32]);
    let refused = book.weigh_list(&Make::new(&unknown, 1, &[]).list(), NOW);
    assert_eq!(refused.unwrap_err().code(), "unknown_issuer");
    // A list of globex revokes nobody of acme's.
    let (mut book, globex) = (book, globex());
    take(&mut book, &Make::new(&globex, 1, &[7]).list());
    assert_eq!(standing(&book, NOW), Status::Unlisted);
}

#[test]
fn a_forged_signature_by_the_right_name_of_a_key_is_charged() {
    let bytes = list(1, &[7]).head().as_bytes().to_vec();
    let mut changed = bytes;
    let last = changed.len() - 1;
    changed[last] ^= 1;
    let head = StatusHead::decode(&changed).unwrap();
    let refused = book().weigh_head(head, NOW).unwrap_err();
    assert_eq!((refused.code(), refused.charged()), ("forged", true));
}

#[test]
fn what_is_dated_in_the_future_waits() {
    let early = Timestamp::from_secs(NOW.secs() - 120);
    let refused = book().weigh_list(&list(1, &[]), early).unwrap_err();
    assert_eq!((refused.code(), refused.charged()), ("future", false));
}

fn below(issuer: &IssuerKey, sequence: u64, set: &[u32]) -> StatusList {
    let mut make = Make::new(issuer, sequence, set);
    make.above = if issuer.name() == europe().name() {
        to_europe()
    } else {
        to_berlin()
    };
    make.list()
}

#[test]
fn a_delegates_list_is_proved_by_its_delegations() {
    let (mut book, europe) = (book(), europe());
    let made = below(&europe, 1, &[22]);
    // A head alone cannot be judged, and so costs nobody anything.
    let head = book.weigh_head(made.head().clone(), NOW);
    assert_eq!(head, Ok(Weighed::Unproved));
    let bare = Make::new(&europe, 1, &[]).list();
    assert_eq!(
        book.weigh_list(&bare, NOW).unwrap_err().code(),
        "unknown_issuer"
    );
    take(&mut book, &made);
    take_head(&mut book, &below(&europe, 2, &[]));
    let chain = chain_under(&europe, &to_europe());
    let identity = verify_chain(&chain, node().peer(), &anchors(), NOW).unwrap();
    assert!(book.view().standing(&identity, NOW).is_revoked());
}

#[test]
fn a_revoked_delegation_ends_all_below_and_its_lists_count_no_more() {
    let (mut book, europe, berlin) = (book(), europe(), berlin());
    take(&mut book, &below(&europe, u64::MAX, &[]));
    take(&mut book, &below(&berlin, 1, &[]));
    let chain = chain_under(&berlin, &to_berlin());
    let identity = verify_chain(&chain, node().peer(), &anchors(), NOW).unwrap();
    assert_eq!(book.view().standing(&identity, NOW), Status::Unlisted);
    // acme takes its delegation to europe (index 20) back.
    take(&mut book, &list(1, &[20]));
    assert!(book.view().standing(&identity, NOW).is_revoked());
    let states: Vec<_> = book.reports(NOW).into_iter().map(|r| r.state).collect();
    assert_eq!(states, ["in_force", "cut", "cut"]);
    let refused = book.weigh_list(&below(&berlin, 2, &[]), NOW).unwrap_err();
    assert_eq!((refused.code(), refused.charged()), ("revoked", false));
    // New keys under the old name begin anew, whatever the old ones said last.
    let next = IssuerKey::from_seed(name("acme.eu"), &[77; 32]);
    let anchor = crate::identity::testing::anchor_of(&next);
    let scope = crate::identity::testing::scope(&["work*"], 4, 1);
    let serial = crate::identity::testing::serial(30);
    let above =
        crate::identity::delegate((&acme(), &[]), &anchor, scope, HOUR, serial, NOW).unwrap();
    let mut make = Make::new(&next, 1, &[]);
    make.above = above;
    take(&mut book, &make.list());
}

#[test]
fn a_delegation_that_is_replaced_brings_nobody_back() {
    let (mut book, europe) = (book(), europe());
    take(&mut book, &below(&europe, 5, &[22]));
    // acme delegates anew to the same keys, and takes the first delegation (index 20) back.
    let anchor = crate::identity::testing::anchor_of(&europe);
    let scope = crate::identity::testing::scope(&["work*", "ops"], 4, 1);
    let serial = crate::identity::testing::serial(30);
    let above =
        crate::identity::delegate((&acme(), &[]), &anchor, scope, HOUR * 9, serial, NOW).unwrap();
    let chain = chain_under(&europe, &above);
    let identity = verify_chain(&chain, node().peer(), &anchors(), NOW).unwrap();
    assert!(book.view().standing(&identity, NOW).is_revoked());
    take(&mut book, &list(1, &[20]));
    assert_eq!(book.reports(NOW)[1].state, "cut");
    // The list that let it go rests on what was taken back, and still lets it go.
    assert!(book.view().standing(&identity, NOW).is_revoked());
    assert!(
        book.view().list(europe.name(), 0).is_none(),
        "it is not passed on"
    );
    // Its head, when it comes again, is asked for with its new delegation; then it is in force.
    let mut make = Make::new(&europe, 5, &[22]);
    make.above = above;
    let renewed = make.list();
    let head = book.weigh_head(renewed.head().clone(), NOW);
    assert_eq!(head, Ok(Weighed::Unproved));
    assert_eq!(
        book.sequence(europe.name()),
        0,
        "whatever there is, is asked for"
    );
    take(&mut book, &renewed);
    assert_eq!(book.reports(NOW)[1].state, "in_force");
    assert!(book.view().standing(&identity, NOW).is_revoked());
}

#[test]
fn taking_an_anchor_away_and_back_lets_no_old_list_in() {
    let mut book = book();
    take(&mut book, &list(5, &[7]));
    book.trust(Arc::new(TrustAnchors::default()));
    assert_eq!(standing(&book, NOW), Status::Unlisted);
    assert_eq!(book.reports(NOW)[0].state, "untrusted");
    book.trust(Arc::new(anchors()));
    assert!(standing(&book, NOW).is_revoked());
    assert_eq!(
        book.weigh_list(&list(4, &[]), NOW).unwrap_err().code(),
        "older"
    );
}

#[test]
fn the_book_is_bounded_under_each_anchor() {
    let mut book = book();
    for n in 0..=MAX_UNDER_ANCHOR {
        let issuer = IssuerKey::from_seed(name(&format!("acme.n{n}")), &[99; 32]);
        let anchor = crate::identity::testing::anchor_of(&issuer);
        let scope = crate::identity::testing::scope(&[], 4, 1);
        let serial = crate::identity::testing::serial(40);
        let above =
            crate::identity::delegate((&acme(), &[]), &anchor, scope, HOUR, serial, NOW).unwrap();
        let mut make = Make::new(&issuer, 1, &[]);
        make.above = above;
        let made = make.list();
        if n < MAX_UNDER_ANCHOR {
            take(&mut book, &made);
        } else {
            assert_eq!(book.weigh_list(&made, NOW), Err(Rejected::Full));
        }
    }
    // Its own list, and another anchor's, find room all the same.
    take(&mut book, &list(1, &[]));
    take(&mut book, &Make::new(&globex(), 1, &[]).list());
}

#[test]
fn what_was_written_is_restored_and_judged_again() {
    let mut book = book();
    take(&mut book, &list(1, &[7]));
    let ahead = list(2, &[7]);
    let Ok(Weighed::Newer(record)) = book.weigh_head(ahead.head().clone(), NOW) else {
        panic!("not news")
    };
    let bytes = record.list().map(|list| list.as_bytes());
    let again = Record::restore(bytes.as_deref(), record.head().as_bytes()).unwrap();
    assert_eq!(again, *record);
    let mut fresh = self::book();
    fresh.enact(again);
    assert!(standing(&fresh, NOW).is_revoked());
    assert_eq!(fresh.behind(), vec![(name("acme"), 1)]);
    // A head and a list that were swapped on the disk do not fit together.
    assert!(Record::restore(Some(&ahead.as_bytes()), list(1, &[7]).head().as_bytes()).is_err());
    // And one whose keys nobody trusts is no more than remembered.
    let other = Make::new(&IssuerKey::from_seed(name("acme"), &[2; 32]), 9, &[7]).list();
    let mut fresh = self::book();
    fresh.enact(Record::restore(Some(&other.as_bytes()), other.head().as_bytes()).unwrap());
    assert_eq!(standing(&fresh, NOW), Status::Unlisted);
    take(&mut fresh, &list(1, &[]));
}

#[test]
fn the_heads_of_a_frame_are_a_sequence_of_three_at_most() {
    let mut book = book();
    take(&mut book, &list(1, &[]));
    take(&mut book, &Make::new(&globex(), 1, &[]).list());
    let names = [name("acme"), name("globex"), name("nobody")];
    let bytes = book.view().heads_of(names.iter());
    assert!(bytes.len() <= crate::identity::MAX_HEADS_BYTES);
    assert_eq!(heads_of_bytes(&bytes).unwrap().len(), 2);
    assert!(heads_of_bytes(&[]).unwrap().is_empty());
    assert!(heads_of_bytes(&[&bytes[..], &bytes[..]].concat()).is_err());
    assert!(heads_of_bytes(&bytes[1..]).is_err());
}

#[test]
fn a_folder_never_signs_two_lists_with_one_sequence() {
    let dir = tempfile::tempdir().unwrap();
    let acme = acme();
    let folder = Folder::new(dir.path(), &acme);
    let publish = |what| folder.publish(&what, &[], HOUR, NOW);
    let first = publish(Revocation::Refresh).unwrap();
    assert_eq!((first.statement().sequence, first.revoked()), (1, 0));
    let second = publish(Revocation::Index(5000)).unwrap();
    assert_eq!(second.statement().sequence, 2);
    assert!(second.is_set(5000) && second.statement().entries == 5_120);
    let third = publish(Revocation::IssuedBefore(NOW)).unwrap();
    assert!(third.is_set(5000) && third.statement().issued_before == NOW);
    // An old state out of a backup: what was handed out counts.
    let state = dir.path().join("status-state");
    std::fs::remove_file(&state).unwrap();
    let fourth = publish(Revocation::Refresh).unwrap();
    assert_eq!(fourth.statement().sequence, 4);
    assert!(fourth.is_set(5000) && fourth.statement().issued_before == NOW);
    // The crash after the state and before the list: the number is lost, the bits are not.
    std::fs::remove_file(folder.list_file()).unwrap();
    let fifth = publish(Revocation::Refresh).unwrap();
    assert!(fifth.statement().sequence == 5 && fifth.is_set(5000));
    let numbers: std::collections::BTreeSet<u64> = std::thread::scope(|scope| {
        let one = || {
            folder
                .publish(&Revocation::Refresh, &[], HOUR, NOW)
                .unwrap()
        };
        let all: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
        all.into_iter()
            .map(|t| t.join().unwrap().statement().sequence)
            .collect()
    });
    assert_eq!(numbers, (6..=9).collect());
    std::fs::write(&state, "{").unwrap();
    assert!(matches!(
        publish(Revocation::Refresh),
        Err(FolderError::State { .. })
    ));
    assert!(publish(Revocation::Index(MAX_ENTRIES)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn decode_after_encode_is_the_same(
        sequence in 1_u64..,
        bits in proptest::collection::vec(any::<u8>(), 0..300),
        issued in 0_u64..2_000_000_000,
        holds in 1_u64..1_000_000,
        before in 0_u64..2_000_000_000,
    ) {
        let secs = Timestamp::from_secs;
        let times = (secs(issued), secs(issued + holds), secs(before));
        let statement = Statement::about(name("acme"), sequence, times, &bits);
        let head = StatusHead::sign(statement, acme().signer());
        let made = StatusList::try_new(head, bits, Vec::new()).unwrap();
        prop_assert_eq!(StatusList::decode(&made.as_bytes()).unwrap(), made.clone());
        prop_assert!(made.verify(&anchors()).is_ok());
    }

    #[test]
    fn whatever_comes_in_whatever_order_the_newest_stays(order in Just((1_u64..=6).collect::<Vec<_>>()).prop_shuffle()) {
        let mut book = book();
        let mut newest = 0;
        for sequence in order {
            match book.weigh_list(&list(sequence, &[]), NOW) {
                Ok(Weighed::Newer(record)) => {
                    prop_assert!(sequence > newest);
                    newest = sequence;
                    book.enact(*record);
                }
                Err(Rejected::Older { .. }) => prop_assert!(sequence < newest),
                other => prop_assert!(false, "{:?}", other),
            }
            prop_assert_eq!(book.sequence(&name("acme")), newest);
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = StatusList::decode(&bytes);
        let _ = StatusHead::decode(&bytes);
        let _ = heads_of_bytes(&bytes);
    }
}
