//! What lapsed is heard by its issuer, for a while, and only when all else holds.

use std::time::Duration;

use super::*;
use crate::identity::testing::{
    HOUR, NOW, acme, anchors, chain, chain_under, channel, europe, frame_of, mallory, name, node,
    to_europe,
};

const GRACE: Duration = Duration::from_secs(100);

fn ask(chain: &Chain, leniency: &Leniency, now: Timestamp) -> Result<Tier, Refusal> {
    let frame = frame_of(chain).encode();
    let judges = (&anchors(), Some(leniency));
    let peer = node().peer();
    verify_frame_leniently(&frame, peer, &channel(), Role::Opener, judges, now)
        .map(|identity| identity.tier)
}

fn of(issuer: &str) -> Leniency {
    Leniency {
        issuer: name(issuer),
        grace: GRACE,
    }
}

#[test]
fn it_begins_at_the_end_and_ends_with_the_grace() {
    let (chain, end) = (chain(), NOW.after(HOUR));
    let moment = Duration::from_millis(1);
    let before = Timestamp::from_millis(end.millis() - 1);
    assert_eq!(ask(&chain, &of("acme"), before), Ok(Tier::Member));
    assert_eq!(ask(&chain, &of("acme"), end), Ok(Tier::RenewalOnly));
    let last = Timestamp::from_millis(end.after(GRACE).millis() - 1);
    assert_eq!(ask(&chain, &of("acme"), last), Ok(Tier::RenewalOnly));
    let late = Err(Refusal::Expired(end));
    assert_eq!(ask(&chain, &of("acme"), end.after(GRACE)), late);
    assert_eq!(
        ask(&chain, &of("acme"), end.after(GRACE).after(moment)),
        late
    );
}

#[test]
fn another_issuers_node_and_the_usual_verification_forgive_nothing() {
    let (chain, end) = (chain(), NOW.after(HOUR));
    let late = Refusal::Expired(end);
    assert_eq!(ask(&chain, &of("globex"), end), Err(late.clone()));
    let frame = frame_of(&chain).encode();
    let (peer, channel, anchors) = (node().peer(), channel(), anchors());
    let usual = verify_frame(&frame, peer, &channel, Role::Opener, &anchors, end);
    assert_eq!(usual.unwrap_err(), late);
    assert_eq!(verify_chain(&chain, peer, &anchors, end).unwrap_err(), late);
}

#[test]
fn a_delegation_that_lapsed_is_not_forgiven() {
    let chain = chain_under(&europe(), &to_europe());
    let end = NOW.after(HOUR);
    assert_eq!(ask(&chain, &of("acme.eu"), end), Ok(Tier::RenewalOnly));
    // It is the delegate's node that hears it, not one of who delegates.
    assert_eq!(ask(&chain, &of("acme"), end), Err(Refusal::Expired(end)));
    let patient = Leniency {
        grace: HOUR * 100,
        ..of("acme.eu")
    };
    let over = NOW.after(HOUR * 10);
    assert_eq!(ask(&chain, &patient, over), Err(Refusal::Expired(over)));
}

#[test]
fn possession_and_the_key_of_the_connection_are_proved_all_the_same() {
    let (chain, end) = (chain(), NOW.after(HOUR));
    let anchors = anchors();
    let (acme_only, channel) = (of("acme"), channel());
    let judge = |frame: &Frame, peer| {
        let judges = (&anchors, Some(&acme_only));
        verify_frame_leniently(&frame.encode(), peer, &channel, Role::Opener, judges, end)
            .map(|identity| identity.tier)
    };
    let stolen = Frame::of(&chain, &mallory(), &channel, Role::Opener);
    assert!(matches!(
        judge(&stolen, node().peer()),
        Err(Refusal::Possession(_))
    ));
    let good = frame_of(&chain);
    assert_eq!(judge(&good, mallory().peer()), Err(Refusal::WrongKey));
    assert_eq!(judge(&good, node().peer()), Ok(Tier::RenewalOnly));
    assert_eq!(acme().name(), &acme_only.issuer);
}
