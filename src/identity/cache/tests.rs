use super::*;
use crate::identity::{
    TrustAnchors,
    status::{Book, Weighed, test_lists::Make},
    testing::{
        HOUR, NOW, acme, anchors, chain, chain_under, channel, europe, frame_of, globex, mallory,
        node, to_europe, trust_of,
    },
};

fn by(anchors: &TrustAnchors, epoch: u64) -> By<'_> {
    By {
        anchors,
        leniency: None,
        epoch,
        now: NOW,
        elapsed: Duration::ZERO,
    }
}

fn links(chain: &Chain) -> Vec<Vec<u8>> {
    chain.links().map(<[u8]>::to_vec).collect()
}

fn look(cache: &mut IdentityCache, by: By<'_>) -> (Result<(), &'static str>, Look) {
    let (judged, look) = cache.verify_chain(&links(&chain()), node().peer(), by);
    (judged.map(drop).map_err(|why| why.code()), look)
}

#[test]
fn a_chain_is_verified_once_and_judged_each_time() {
    let (mut cache, anchors) = (IdentityCache::default(), anchors());
    assert_eq!(look(&mut cache, by(&anchors, 1)), (Ok(()), Look::Miss));
    assert_eq!(look(&mut cache, by(&anchors, 1)), (Ok(()), Look::Hit));
    // The clock moves, the answer with it, and what expired is forgotten.
    let late = By {
        now: NOW.after(HOUR),
        ..by(&anchors, 1)
    };
    assert_eq!(look(&mut cache, late), (Err("expired"), Look::Hit));
    assert_eq!(cache.len(), (0, 0));
    assert!(cache.chain_of(&chain().credential().hash()).is_none());
    // Not remembered: a clock that was wrong may be set right.
    assert_eq!(look(&mut cache, by(&anchors, 1)), (Ok(()), Look::Miss));
}

#[test]
fn it_forgets_after_a_while_and_with_every_change_of_trust() {
    let (mut cache, anchors) = (IdentityCache::default(), anchors());
    look(&mut cache, by(&anchors, 1)).0.unwrap();
    let later = By {
        elapsed: TIME_TO_LIVE,
        ..by(&anchors, 1)
    };
    assert_eq!(look(&mut cache, later).1, Look::Miss);
    let mut globex_alone = TrustAnchors::default();
    globex_alone.add(trust_of(&globex())).unwrap();
    let changed = look(&mut cache, by(&globex_alone, 2));
    assert_eq!(changed, (Err("unknown_issuer"), Look::Miss));
    // An issuer that is entered a moment later was not refused for good.
    assert_eq!(cache.len(), (0, 0));
    assert_eq!(look(&mut cache, by(&anchors, 3)), (Ok(()), Look::Miss));
}

#[test]
fn the_proof_of_possession_is_demanded_of_a_chain_that_is_known() {
    let (mut cache, anchors) = (IdentityCache::default(), anchors());
    let shown = (&channel(), Role::Opener);
    let good = frame_of(&chain()).encode();
    let peer = node().peer();
    let (judged, first) = cache.verify_frame(&good, peer, shown, by(&anchors, 1));
    assert!(judged.unwrap().pq_auth && first == Look::Miss);
    // The same chain with a proof over another channel, and without one.
    let other = Channel {
        binding: crate::identity::Binding::Exporter([8; 32]),
        ..channel()
    };
    let replayed = cache.verify_frame(&good, peer, (&other, Role::Opener), by(&anchors, 1));
    assert_eq!(replayed.1, Look::Hit);
    assert_eq!(replayed.0.unwrap_err().code(), "possession");
    // And that refusal was not remembered.
    assert_eq!(cache.len(), (1, 0));
    assert!(
        cache
            .verify_frame(&good, peer, shown, by(&anchors, 1))
            .0
            .is_ok()
    );
}

#[test]
fn only_what_is_final_is_remembered_as_refused() {
    let (mut cache, anchors) = (IdentityCache::default(), anchors());
    // Another peer shows the chain: for it, it is wrong for ever; for its owner it is not.
    for wanted in [Look::Miss, Look::Refused] {
        let stolen = cache.verify_chain(&links(&chain()), mallory().peer(), by(&anchors, 1));
        assert_eq!(
            (stolen.0.unwrap_err(), stolen.1),
            (Refusal::WrongKey, wanted)
        );
    }
    assert_eq!(look(&mut cache, by(&anchors, 1)), (Ok(()), Look::Miss));
    let mut forged = links(&chain());
    *forged[0].last_mut().unwrap() ^= 1;
    for wanted in [Look::Miss, Look::Refused] {
        let (judged, look) = cache.verify_chain(&forged, node().peer(), by(&anchors, 1));
        assert_eq!((judged.unwrap_err().code(), look), ("signature", wanted));
    }
    let early = By {
        now: Timestamp::from_secs(NOW.secs() - 3_600),
        ..by(&anchors, 1)
    };
    assert_eq!(look(&mut cache, early).0, Err("not_yet_valid"));
    assert_eq!(look(&mut cache, by(&anchors, 1)).0, Ok(()));
}

#[test]
fn what_was_taken_back_is_forgotten_and_the_rest_is_not() {
    let (mut cache, anchors) = (IdentityCache::default(), anchors());
    let delegated = chain_under(&europe(), &to_europe());
    look(&mut cache, by(&anchors, 1)).0.unwrap();
    let below = cache.verify_chain(&links(&delegated), node().peer(), by(&anchors, 1));
    assert!(below.0.is_ok());
    assert_eq!(cache.len().0, 2);
    let mut book = Book::new(Arc::new(anchors.clone()), false);
    // The delegation to europe has the index 20, the node's own credential 7.
    let list = Make::new(&acme(), 1, &[20]).list();
    match book.weigh_list(&list, NOW) {
        Ok(Weighed::Newer(record)) => drop(book.enact(*record)),
        other => panic!("{other:?}"),
    }
    cache.forget_revoked(&book.view(), NOW);
    assert_eq!(cache.len().0, 1);
    assert!(cache.chain_of(&delegated.credential().hash()).is_none());
    assert!(cache.chain_of(&chain().credential().hash()).is_some());
    assert_eq!(look(&mut cache, by(&anchors, 1)).1, Look::Hit);
}
