//! Every secure channel under the gate: what is agreed on, what a proof of possession is bound to,
//! and what is refused by name where the strict level holds.

use libp2p::{Multiaddr, multiaddr::Protocol};
use quantraband::{
    audit::Direction,
    identity::{Binding, Channel, Refusal, Role},
    network::{convert, gate::Message},
    types::{ChannelFault, ChannelKind, Group, SecurityInfo, SecurityLevel},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::{
    fakes::{Answer, peer_of, soon},
    node::{Node, Plan},
    raw::{self, Raw},
};
use SecurityLevel::{Classic, PreferHybrid, RequireHybrid};

/// Connects the second node to the first and says how both see the channel.
async fn connected(one: &Node, two: &Node) -> SecurityInfo {
    two.dial(one.id, &one.address).await;
    one.until("a connection", |seen| seen.established == [two.id])
        .await;
    two.until("a connection", |seen| seen.established == [one.id])
        .await;
    let (first, second) = (one.securities().await, two.securities().await);
    assert_eq!(first, second);
    first[0]
}

/// What both sides bound their proofs to; the second node is the opener.
fn bound(one: &Node, two: &Node) -> Channel {
    let heard = one.keeper.judged.lock().unwrap()[0].clone();
    let told = two.keeper.bound.lock().unwrap()[0];
    assert_eq!((heard.channel, heard.role), (told.0, Role::Listener));
    assert_eq!(told.1, Role::Opener);
    let heard = two.keeper.judged.lock().unwrap()[0].clone();
    let told = one.keeper.bound.lock().unwrap()[0];
    assert_eq!((heard.channel, heard.role), (told.0, Role::Opener));
    assert_eq!(told.1, Role::Listener);
    assert_eq!(told.0.opener, peer_of(&[2; 32]));
    assert_eq!(told.0.listener, peer_of(&[1; 32]));
    told.0
}

#[tokio::test]
async fn by_default_two_nodes_agree_on_the_stacked_channel_and_its_exporter() {
    let (one, two) = (Plan::new(1).start().await, Plan::new(2).start().await);
    let security = connected(&one, &two).await;
    assert_eq!(security.kind, ChannelKind::Stacked);
    assert!(security.is_hybrid());
    let channel = bound(&one, &two);
    assert!(
        matches!(channel.binding, Binding::Exporter(_)),
        "{channel:?}"
    );
    let judged = one.keeper.judged.lock().unwrap()[0].security;
    assert_eq!(judged, security);
}

#[tokio::test]
async fn classic_nodes_use_noise_and_fresh_nonces() {
    let one = Plan::new(1).security(Classic).start().await;
    let mut all = Vec::new();
    for _ in 0..2 {
        let two = Plan::new(2).security(Classic).start().await;
        two.dial(one.id, &one.address).await;
        two.until("a connection", |seen| seen.established == [one.id])
            .await;
        let security = two.securities().await[0];
        assert_eq!(security.kind, ChannelKind::Noise);
        assert_eq!(security.group, Group::X25519);
        let Binding::Nonces { opener, listener } = bound_last(&one, &two).binding else {
            panic!("no nonces")
        };
        all.extend([opener, listener]);
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 4);
}

/// As [`bound`], for the newest connection of the first node.
fn bound_last(one: &Node, two: &Node) -> Channel {
    let heard = one.keeper.judged.lock().unwrap().last().unwrap().channel;
    let told = two.keeper.bound.lock().unwrap()[0].0;
    assert_eq!(heard, told);
    told
}

#[tokio::test]
async fn quic_has_the_gate_too_and_claims_nothing_it_cannot_prove() {
    let one = Plan::new(1).quic().start().await;
    let two = Plan::new(2).start().await;
    let security = connected(&one, &two).await;
    assert_eq!(security.kind, ChannelKind::Quic);
    assert_eq!(security.group, Group::Unproven);
    assert!(!security.is_hybrid());
    let channel = bound(&one, &two);
    assert!(
        matches!(channel.binding, Binding::Nonces { .. }),
        "{channel:?}"
    );
}

#[tokio::test]
async fn quic_refuses_through_the_gate_and_the_refused_learn_why() {
    let denied = Refusal::Denied("members_only".to_owned());
    let one = Plan::new(1).quic().keeper(Answer::Refuse(denied));
    let (one, two) = (one.start().await, Plan::new(2).start().await);
    two.dial(one.id, &one.address).await;
    let seen = two
        .until("a failed dial", |seen| !seen.dial_errors.is_empty())
        .await;
    assert!(
        matches!(&seen.dial_errors[0], Some(Refusal::ByPeer(why)) if why.starts_with("denied: ")),
        "{:?}",
        seen.dial_errors
    );
    one.until("a failed connection", |seen| seen.inbound_errors == 1)
        .await;
    one.assert_untouched().await;
    two.assert_untouched().await;
}

#[tokio::test]
async fn a_strict_listener_refuses_a_peer_that_only_speaks_noise() {
    let one = Plan::new(1).security(RequireHybrid).start().await;
    let two = Plan::new(2).security(Classic).start().await;
    two.dial(one.id, &one.address).await;
    let seen = two
        .until("a failed dial", |seen| !seen.dial_errors.is_empty())
        .await;
    let none = Refusal::Channel(ChannelFault::NoneInCommon);
    assert_eq!(seen.dial_errors, [Some(none.clone())]);
    assert_eq!(two.keeper.refusals(), [(Direction::Outbound, none)]);
    one.until("a failed connection", |seen| seen.inbound_errors == 1)
        .await;
    one.assert_untouched().await;
    two.assert_untouched().await;
    // Nobody was proved, so it is counted by address.
    let denials = one.with(|s| s.behaviour_mut().node.admission.take_denials());
    let denials = denials.await;
    assert_eq!(denials.len(), 1);
    assert_eq!(denials[0].reason, "hybrid_required");
    assert_eq!(denials[0].address, Some([127, 0, 0, 1].into()));
    assert!(one.keeper.refusals().is_empty());
}

#[tokio::test]
async fn a_strict_dialler_refuses_a_peer_that_only_speaks_noise() {
    let one = Plan::new(1).security(Classic).start().await;
    let two = Plan::new(2).security(RequireHybrid).start().await;
    two.dial(one.id, &one.address).await;
    let seen = two
        .until("a failed dial", |seen| !seen.dial_errors.is_empty())
        .await;
    let refusal = Refusal::Channel(ChannelFault::HybridNotAccepted);
    assert_eq!(refusal.code(), "hybrid_required");
    assert!(refusal.to_string().contains("require-hybrid"));
    assert_eq!(seen.dial_errors, [Some(refusal.clone())]);
    assert_eq!(two.keeper.refusals(), [(Direction::Outbound, refusal)]);
    one.until("a failed connection", |seen| seen.inbound_errors == 1)
        .await;
    one.assert_untouched().await;
    two.assert_untouched().await;
}

/// Answers the first proposal with "not available", whatever the node behind it speaks, and
/// relays what follows: an active attacker who wants the weakest channel.
async fn stripper(target: &Multiaddr) -> Multiaddr {
    let port = target.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let port = port.unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let near = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(strip(client, port));
        }
    });
    format!("/ip4/127.0.0.1/tcp/{near}").parse().unwrap()
}

async fn strip(mut client: TcpStream, port: u16) {
    const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";
    let mut header = [0; HEADER.len()];
    client.read_exact(&mut header).await.unwrap();
    assert_eq!(header, HEADER);
    let length = client.read_u8().await.unwrap();
    let mut proposal = vec![0; usize::from(length)];
    client.read_exact(&mut proposal).await.unwrap();
    assert_eq!(proposal, b"/quantraband/noise+tls13pq/1\n");
    client.write_all(HEADER).await.unwrap();
    client.write_all(b"\x03na\n").await.unwrap();
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    server.write_all(HEADER).await.unwrap();
    server.read_exact(&mut header).await.unwrap();
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

#[tokio::test]
async fn stripping_the_proposal_works_unless_the_strict_level_forbids_it() {
    let one = Plan::new(1).start().await;
    let stripped = stripper(&one.address).await;
    // What "prefer" means, and what it does not: the attacker gets Noise, and it is shown.
    let two = Plan::new(2).security(PreferHybrid).start().await;
    two.dial(one.id, &stripped).await;
    two.until("a connection", |seen| seen.established == [one.id])
        .await;
    assert_eq!(two.securities().await[0].kind, ChannelKind::Noise);

    let three = Plan::new(3).security(RequireHybrid).start().await;
    three.dial(one.id, &stripped).await;
    let seen = three
        .until("a failed dial", |seen| !seen.dial_errors.is_empty())
        .await;
    let refusal = Refusal::Channel(ChannelFault::HybridNotAccepted);
    assert_eq!(seen.dial_errors, [Some(refusal)]);
    three.assert_untouched().await;

    // A single peer that must be hybrid is enough.
    let four = Plan::new(4).security_of(peer_of(&[1; 32]), RequireHybrid);
    let four = four.start().await;
    four.dial(one.id, &stripped).await;
    four.until("a failed dial", |seen| !seen.dial_errors.is_empty())
        .await;
    four.assert_untouched().await;
}

#[tokio::test]
async fn a_peer_that_must_be_hybrid_is_refused_before_it_shows_a_credential() {
    let one = Plan::new(1)
        .security(Classic)
        .security_of(peer_of(&[2; 32]), RequireHybrid)
        .start()
        .await;
    let two = Plan::new(2).security(Classic).start().await;
    two.dial(one.id, &one.address).await;
    let seen = two
        .until("a failed dial", |seen| !seen.dial_errors.is_empty())
        .await;
    assert!(
        matches!(
            &seen.dial_errors[0],
            Some(Refusal::ByPeer(why)) if why.starts_with("hybrid_required: ")
        ),
        "{:?}",
        seen.dial_errors
    );
    let refusal = Refusal::Channel(ChannelFault::HybridRequired(ChannelKind::Noise));
    assert_eq!(one.keeper.refusal().await, (Direction::Inbound, refusal));
    one.until("a failed connection", |seen| seen.inbound_errors == 1)
        .await;
    one.assert_untouched().await;
    assert!(one.keeper.judged.lock().unwrap().is_empty());
    assert!(one.keeper.bound.lock().unwrap().is_empty());
    // Others are not held to it, and the same peer comes in by the stacked channel.
    let three = Plan::new(3).security(Classic).start().await;
    three.dial(one.id, &one.address).await;
    one.until("a connection", |seen| seen.established == [three.id])
        .await;
    let two = Plan::new(2).start().await;
    two.dial(one.id, &one.address).await;
    two.until("a connection", |seen| seen.established == [one.id])
        .await;
    assert!(two.securities().await[0].is_hybrid());
}

#[tokio::test]
async fn quic_is_not_good_enough_for_a_peer_that_must_be_hybrid() {
    let plan = Plan::new(1).quic();
    let one = plan.security_of(peer_of(&[2; 32]), RequireHybrid);
    let (one, two) = (one.start().await, Plan::new(2).start().await);
    two.dial(one.id, &one.address).await;
    let refusal = Refusal::Channel(ChannelFault::HybridRequired(ChannelKind::Quic));
    assert_eq!(
        one.keeper.refusal().await,
        (Direction::Inbound, refusal.clone())
    );
    two.until("a failed dial", |seen| !seen.dial_errors.is_empty())
        .await;
    one.until("a failed connection", |seen| seen.inbound_errors == 1)
        .await;
    one.assert_untouched().await;

    // And such a peer is not even dialled by it.
    let three = Plan::new(3).security_of(peer_of(&[1; 32]), RequireHybrid);
    let three = three.start().await;
    three.dial(one.id, &one.address).await;
    let seen = three
        .until("a failed dial", |seen| !seen.dial_errors.is_empty())
        .await;
    assert_eq!(seen.dial_errors, [Some(refusal)]);
    assert_eq!(one.seen().inbound_errors, 1);
}

#[tokio::test]
async fn a_raw_classic_peer_that_says_hello_first_is_let_in() {
    // The foil to what follows.
    let node = Plan::new(1).start().await;
    let peer = Raw::dial_as(Classic, 2, &node.address).await;
    let mut gate = peer.gate().await;
    raw::hello(&mut gate, 7).await;
    let Some(Message::Hello(nonce)) = raw::receive(&mut gate).await else {
        panic!("no hello")
    };
    // The listener need not wait for more: its frame follows at once.
    let frame = raw::receive(&mut gate).await;
    assert!(matches!(frame, Some(Message::Credential(_))), "{frame:?}");
    raw::credential(&mut gate).await;
    raw::accept(&mut gate).await;
    node.until("a connection", |seen| seen.established.len() == 1)
        .await;
    let channel = node.keeper.judged.lock().unwrap()[0].channel;
    let expected = Binding::Nonces {
        opener: [7; 32],
        listener: nonce,
    };
    assert_eq!(channel.binding, expected);
}

/// What the node makes of a classic peer that sends this first.
async fn verdict_on(level: SecurityLevel, first: &Message) -> Refusal {
    let node = Plan::new(1).start().await;
    let peer = Raw::dial_as(level, 2, &node.address).await;
    let mut gate = peer.gate().await;
    raw::send(&mut gate, &first.encode()).await;
    let refusal = node.keeper.refusal().await.1;
    node.until("a failed connection", |seen| seen.inbound_errors == 1)
        .await;
    node.assert_untouched().await;
    assert!(node.keeper.judged.lock().unwrap().is_empty());
    refusal
}

#[tokio::test]
async fn a_hello_is_due_exactly_where_there_is_no_exporter() {
    let credential = Message::Credential(b"raw".to_vec());
    let refusal = verdict_on(Classic, &credential).await;
    assert!(matches!(refusal, Refusal::Violation(_)), "{refusal:?}");
    let refusal = verdict_on(RequireHybrid, &Message::Hello([7; 32])).await;
    assert!(matches!(refusal, Refusal::Violation(_)), "{refusal:?}");
}

#[tokio::test]
async fn a_second_hello_is_a_violation() {
    let node = Plan::new(1).start().await;
    let peer = Raw::dial_as(Classic, 2, &node.address).await;
    let mut gate = peer.gate().await;
    raw::hello(&mut gate, 7).await;
    raw::hello(&mut gate, 8).await;
    let refusal = node.keeper.refusal().await.1;
    assert!(matches!(refusal, Refusal::Violation(_)), "{refusal:?}");
    node.until("a failed connection", |seen| seen.inbound_errors == 1)
        .await;
    node.assert_untouched().await;
}

#[tokio::test]
async fn a_judgement_about_another_channel_refuses() {
    let plan = Plan::new(1).keeper(Answer::AnotherChannel);
    let (one, two) = (plan.start().await, Plan::new(2).start().await);
    two.dial(one.id, &one.address).await;
    let refusal = one.keeper.refusal().await.1;
    assert!(matches!(refusal, Refusal::Unavailable(_)), "{refusal:?}");
    one.until("a failed connection", |seen| seen.inbound_errors == 1)
        .await;
    one.assert_untouched().await;
}

#[tokio::test]
async fn a_quic_address_without_its_peer_still_meets_the_gate() {
    let one = Plan::new(1).quic().start().await;
    let two = Plan::new(2).start().await;
    let (bare, _) = convert::split_p2p(&one.address);
    let dial = two.with(move |swarm| swarm.dial(bare));
    soon("a dial", dial).await.unwrap();
    two.until("a connection", |seen| seen.established == [one.id])
        .await;
    assert_eq!(two.securities().await[0].kind, ChannelKind::Quic);
    assert_eq!(two.keeper.judged.lock().unwrap().len(), 1);
}
