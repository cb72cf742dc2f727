use proptest::prelude::*;

use super::*;
use crate::identity::{
    hybrid::forge,
    testing::{HOUR, NOW, credential, mallory, name, node},
};

fn next() -> NodeKey {
    NodeKey::from_seed(&[31; 32])
}

fn statement() -> Continuity {
    static MADE: std::sync::LazyLock<Continuity> = std::sync::LazyLock::new(|| {
        Continuity::seal((&node(), &next()), &credential(), None, NOW).unwrap()
    });
    MADE.clone()
}

fn body() -> Body {
    statement().body
}

/// Signs a payload as it is, by any pairs.
fn signed(payload: &[u8], by: &[&NodeKey]) -> Vec<u8> {
    let signers: Vec<_> = by.iter().map(|key| key.signer()).collect();
    let sealed = Sealed::sign_all(&signers, Domain::Continuity, payload.to_vec());
    sealed.as_bytes().to_vec()
}

#[test]
fn what_is_sealed_opens_and_says_who_becomes_whom() {
    let made = statement();
    let read = Continuity::open(made.as_bytes()).unwrap();
    assert_eq!(read, made);
    assert!(made.as_bytes().len() <= MAX_CONTINUITY_BYTES);
    assert_eq!(
        (read.former(), read.new_keys()),
        (node().peer(), next().public())
    );
    assert_eq!(
        read.old().thumbprint(),
        node().signer().public().thumbprint()
    );
    assert_eq!((read.created(), read.sequence()), (NOW, NOW.secs()));
    assert_eq!(read.label(), "acme/node-1");
    assert!(read.is_from(node().public()) && !read.is_from(next().public()));
    let names = (&name("acme"), &name("node-1"));
    assert_eq!(read.leads_to(Some(next().public()), names), Ok(()));
    for (keys, names) in [
        (Some(node().public()), names),
        (None, names),
        (Some(next().public()), (&name("globex"), &name("node-1"))),
        (Some(next().public()), (&name("acme"), &name("node-2"))),
    ] {
        assert!(matches!(
            read.leads_to(keys, names),
            Err(Refusal::Continuity(_))
        ));
    }
}

#[test]
fn all_four_signatures_are_required_in_order_and_in_this_domain() {
    let (old, new, other) = (node(), next(), mallory());
    let payload = body().encode();
    assert!(Continuity::open(&signed(&payload, &[&old, &new])).is_ok());
    for by in [
        &[&new] as &[&NodeKey],
        &[&old],
        &[&new, &old],
        &[&other, &new],
        &[&old, &other],
        &[&new, &new],
        &[&old, &old],
        &[],
    ] {
        let judged = Continuity::open(&signed(&payload, by));
        assert!(
            matches!(judged, Err(ContinuityError::Signature(_))),
            "{by:?}: {judged:?}"
        );
    }
    // Thumbprints that lie, and each signature of another's in turn.
    let good = Sealed::read(statement().as_bytes(), MAX_CONTINUITY_BYTES).unwrap();
    let good = forge::signatures(&good);
    for at in 0..good.len() {
        let mut parts = good.clone();
        let pair = if at < 2 { &old } else { &new };
        let thumbprint = pair.signer().public().thumbprint();
        let alone = forge::sign(
            Domain::Continuity,
            &payload,
            &[(parts[at].0, thumbprint, other.signer())],
        );
        let alone = Sealed::read(&alone, MAX_CONTINUITY_BYTES).unwrap();
        parts[at] = forge::signatures(&alone).remove(0);
        let judged = Continuity::open(&forge::assemble(&payload, &parts));
        assert!(
            matches!(judged, Err(ContinuityError::Signature(_))),
            "{at}: {judged:?}"
        );
        parts.remove(at);
        assert!(Continuity::open(&forge::assemble(&payload, &parts)).is_err());
    }
    let signers = [old.signer(), new.signer()];
    let elsewhere = Sealed::sign_all(&signers, Domain::Request, payload);
    assert!(Continuity::open(elsewhere.as_bytes()).is_err());
}

#[test]
fn what_cannot_be_is_not_read_however_well_it_is_signed() {
    let (old, new) = (node(), next());
    let refused = |change: &dyn Fn(&mut Body)| {
        let mut body = body();
        change(&mut body);
        let judged = Continuity::open(&signed(&body.encode(), &[&old, &new]));
        assert!(
            matches!(judged, Err(ContinuityError::Malformed(_))),
            "{judged:?}"
        );
    };
    refused(&|body| body.sequence = 0);
    refused(&|body| body.sequence = body.created - 1);
    refused(&|body| body.sequence = body.created + MAX_AHEAD + 1);
    refused(&|body| body.sequence = MAX_SEQUENCE + 1);
    refused(&|body| body.created = MAX_SECONDS + 1);
    refused(&|body| body.issuer = name("self.abc"));
    refused(&|body| body.new = old.public().clone());
    refused(&|body| body.new.ml_dsa = old.public().ml_dsa.clone());
    refused(&|body| body.new.peer = old.peer());
    let credential = credential();
    assert!(Continuity::seal((&old, &old), &credential, None, NOW).is_err());
    assert!(
        Continuity::seal((&new, &old), &credential, None, NOW).is_err(),
        "another's"
    );
    let seal = |last| Continuity::seal((&old, &new), &credential, Some(last), NOW);
    assert!(seal(NOW.secs() + MAX_AHEAD - 1).is_ok() && seal(NOW.secs() + MAX_AHEAD).is_err());
    let long = vec![0; MAX_CONTINUITY_BYTES + 1];
    assert!(Continuity::open(&long).is_err());
}

#[test]
fn a_second_encoding_is_refused() {
    let (old, new) = (node(), next());
    let payload = body().encode();
    // The version as two bytes, a map of indefinite length, a field twice, one too many.
    let at = payload.iter().position(|byte| *byte == 1).unwrap() + 1;
    let mut wide = payload.clone();
    wide.splice(at..=at, [0x18, 1]);
    let mut indefinite = payload.clone();
    indefinite[0] = 0xbf;
    indefinite.push(0xff);
    let mut more = payload.clone();
    more[0] += 1;
    more.extend([0x08, 0x00]);
    let mut trailing = payload;
    trailing.push(0);
    for changed in [wide, indefinite, more, trailing] {
        assert!(Continuity::open(&signed(&changed, &[&old, &new])).is_err());
    }
}

#[test]
fn any_changed_byte_fails() {
    let bytes = statement().as_bytes().to_vec();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(Continuity::open(&changed).is_err(), "byte {at}");
        if at % 64 == 0 {
            assert!(Continuity::open(&bytes[..at]).is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_made_reads_back_and_its_sequence_rises(
        ahead in proptest::option::of(0..MAX_AHEAD), at in 0_u64..=MAX_SECONDS + 10,
    ) {
        let last = ahead.map(|ahead| at.min(MAX_SECONDS) + ahead);
        let now = Timestamp::from_secs(at);
        let made = Continuity::seal((&node(), &next()), &credential(), last, now).unwrap();
        prop_assert_eq!(&Continuity::open(made.as_bytes()).unwrap(), &made);
        prop_assert!(last.is_none_or(|last| made.sequence() > last));
        let again = now.after(HOUR);
        let next = Continuity::seal((&node(), &next()), &credential(), Some(made.sequence()), again);
        prop_assert!(next.unwrap().sequence() > made.sequence());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        prop_assert!(Continuity::open(&bytes).is_err());
        prop_assert!(Continuity::open(&signed(&bytes, &[&node(), &next()])).is_err());
    }
}
