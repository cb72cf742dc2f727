//! Peers that prove a key and then misbehave, and a keeper that fails: nothing gets through.

use crate::{
    fakes::{Answer, peer_of, soon},
    node::{Node, Plan},
    raw::{self, Raw, RawListener},
};
use futures::AsyncWriteExt;
use quantraband::{
    audit::Direction,
    identity::Refusal,
    network::gate::{MAX_FRAME, Message, Verdict},
};

/// The node's verdict about the only peer so far, once nothing is left of it.
async fn verdict(node: &Node) -> Refusal {
    let (direction, refusal) = node.keeper.refusal().await;
    assert_eq!(direction, Direction::Inbound);
    node.until("a failed connection", |seen| {
        seen.inbound_errors == 1 && seen.counts.pending == 0
    })
    .await;
    node.assert_untouched().await;
    assert_eq!(node.keeper.refusals().len(), 1);
    refusal
}

#[tokio::test]
async fn a_peer_that_plays_by_the_rules_is_let_in() {
    // The foil to everything below: the same raw peer, well behaved.
    let node = Plan::new(1).start().await;
    let peer = Raw::dial(2, &node.address).await;
    let mut gate = peer.gate().await;
    raw::credential(&mut gate).await;
    raw::accept(&mut gate).await;
    assert!(matches!(
        raw::receive(&mut gate).await,
        Some(Message::Credential(_))
    ));
    let verdict = raw::receive(&mut gate).await;
    assert_eq!(verdict, Some(Message::Verdict(Verdict::Accepted)));
    // It may open streams as soon as it was accepted, even before the node hands it on.
    let _stream = peer.stream("/ipfs/ping/1.0.0").await;
    node.until("a connection", |seen| seen.established.len() == 1)
        .await;
}

#[tokio::test]
async fn an_oversize_frame_is_refused_before_its_body() {
    let node = Plan::new(1).start().await;
    let peer = Raw::dial(2, &node.address).await;
    let mut gate = peer.gate().await;
    let length = u32::try_from(MAX_FRAME + 2).unwrap();
    raw::send(&mut gate, &length.to_be_bytes()).await;
    assert_eq!(raw::refusal_code(&mut gate).await, "malformed");
    peer.hung_up().await;
    assert!(matches!(verdict(&node).await, Refusal::Malformed(_)));
    assert!(node.keeper.judged.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_largest_frame_is_read_whole() {
    let node = Plan::new(1).start().await;
    let peer = Raw::dial(2, &node.address).await;
    let mut gate = peer.gate().await;
    let frame = Message::Credential(vec![7; MAX_FRAME]);
    raw::send(&mut gate, &frame.encode()).await;
    raw::accept(&mut gate).await;
    node.until("a connection", |seen| seen.established.len() == 1)
        .await;
    let judged = node.keeper.judged.lock().unwrap();
    assert_eq!(judged[0].frame, vec![7; MAX_FRAME]);
}

#[tokio::test]
async fn garbage_is_refused() {
    let node = Plan::new(1).start().await;
    let peer = Raw::dial(2, &node.address).await;
    let mut gate = peer.gate().await;
    raw::send(&mut gate, &[0, 0, 0, 3, 0xff, 0xff, 0xff]).await;
    assert_eq!(raw::refusal_code(&mut gate).await, "malformed");
    let refusal = verdict(&node).await;
    assert!(matches!(refusal, Refusal::Malformed(_)) && refusal.charged());
}

#[tokio::test]
async fn a_verdict_in_place_of_a_credential_opens_nothing() {
    let node = Plan::new(1).start().await;
    let peer = Raw::dial(2, &node.address).await;
    let mut gate = peer.gate().await;
    raw::accept(&mut gate).await;
    assert_eq!(raw::refusal_code(&mut gate).await, "violation");
    assert!(matches!(verdict(&node).await, Refusal::Violation(_)));
}

#[tokio::test]
async fn a_second_credential_in_place_of_a_verdict_opens_nothing() {
    let node = Plan::new(1).start().await;
    let peer = Raw::dial(2, &node.address).await;
    let mut gate = peer.gate().await;
    raw::credential(&mut gate).await;
    raw::credential(&mut gate).await;
    assert!(matches!(verdict(&node).await, Refusal::Violation(_)));
}

#[tokio::test]
async fn a_peer_that_never_sends_runs_into_the_deadline() {
    let node = Plan::new(1).identity_timeout(300).start().await;
    let peer = Raw::dial(2, &node.address).await;
    let mut gate = peer.gate().await;
    assert_eq!(raw::refusal_code(&mut gate).await, "identity_timeout");
    peer.hung_up().await;
    let refusal = verdict(&node).await;
    assert!(matches!(refusal, Refusal::Late) && !refusal.charged());
}

#[tokio::test]
async fn a_peer_that_opens_no_stream_or_stops_in_a_frame_runs_into_the_deadline() {
    let node = Plan::new(1).identity_timeout(300).start().await;
    let silent = Raw::dial(2, &node.address).await;
    silent.hung_up().await;
    let slow = Raw::dial(3, &node.address).await;
    let mut gate = slow.gate().await;
    raw::send(&mut gate, &[0, 0, 1, 0, 0, 7, 7]).await;
    slow.hung_up().await;
    node.until("two failures", |seen| seen.inbound_errors == 2)
        .await;
    node.assert_untouched().await;
}

#[tokio::test]
async fn a_stream_before_acceptance_ends_the_exchange() {
    let node = Plan::new(1).keeper(Answer::Never).start().await;
    let peer = Raw::dial(2, &node.address).await;
    let mut gate = peer.gate().await;
    raw::credential(&mut gate).await;
    // The node's own frame shows that it heard us; its keeper is still thinking.
    assert!(matches!(
        raw::receive(&mut gate).await,
        Some(Message::Credential(_))
    ));
    let judging = async {
        while node.keeper.judged.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon("the keeper is asked", judging).await;
    let _early = peer.stream("/meshsub/1.1.0").await;
    assert_eq!(raw::refusal_code(&mut gate).await, "violation");
    peer.hung_up().await;
    let refusal = verdict(&node).await;
    assert!(matches!(refusal, Refusal::Violation(_)) && refusal.charged());
}

#[tokio::test]
async fn a_stream_opened_by_the_dialled_before_acceptance_ends_the_exchange() {
    let mut listener = RawListener::bind(2).await;
    let node = Plan::new(1).keeper(Answer::Never).start().await;
    let id = raw::key(2).public().to_peer_id();
    node.dial(id, &listener.address).await;
    let mut peer = listener.accept().await;
    let mut gate = peer.accept_gate().await;
    raw::credential(&mut gate).await;
    let judging = async {
        while node.keeper.judged.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon("the keeper is asked", judging).await;
    let _early = peer.stream("/meshsub/1.1.0").await;
    assert_eq!(raw::refusal_code(&mut gate).await, "violation");
    let seen = node
        .until("a failed dial", |seen| !seen.dial_errors.is_empty())
        .await;
    assert!(matches!(seen.dial_errors[0], Some(Refusal::Violation(_))));
    node.assert_untouched().await;
}

#[tokio::test]
async fn a_keeper_that_never_answers_refuses() {
    let plan = Plan::new(1).keeper(Answer::Never).identity_timeout(600);
    let node = plan.start().await;
    let peer = Raw::dial(2, &node.address).await;
    let mut gate = peer.gate().await;
    raw::credential(&mut gate).await;
    assert_eq!(raw::refusal_code(&mut gate).await, "unavailable");
    let refusal = verdict(&node).await;
    assert!(matches!(refusal, Refusal::Unavailable(_)) && !refusal.charged());
}

#[tokio::test]
async fn a_judgement_about_another_peer_refuses() {
    let node = Plan::new(1).keeper(Answer::AnotherPeer).start().await;
    let peer = Raw::dial(2, &node.address).await;
    let mut gate = peer.gate().await;
    raw::credential(&mut gate).await;
    assert_eq!(raw::refusal_code(&mut gate).await, "unavailable");
    assert!(matches!(verdict(&node).await, Refusal::Unavailable(_)));
}

#[tokio::test]
async fn a_keeper_that_panics_lets_nobody_in_and_the_peer_is_named() {
    let node = Plan::new(1).keeper(Answer::Panic).start().await;
    let peer = Raw::dial(2, &node.address).await;
    let mut gate = peer.gate().await;
    raw::credential(&mut gate).await;
    let mut panicked = node.blame.panicked.subscribe();
    let told = soon("the panic", panicked.wait_for(|all| !all.is_empty())).await;
    let (origin, detail) = told.unwrap()[0].clone();
    assert_eq!(origin.peer, Some(peer_of(&[2; 32])));
    assert_eq!(origin.address, Some([127, 0, 0, 1].into()));
    assert_eq!(detail, "the keeper broke");
    assert!(node.seen().established.is_empty());
}

#[tokio::test]
async fn a_peer_that_hangs_up_in_the_middle_is_not_charged() {
    let node = Plan::new(1).start().await;
    let peer = Raw::dial(2, &node.address).await;
    let mut gate = peer.gate().await;
    raw::send(&mut gate, &[0, 0]).await;
    assert!(matches!(
        raw::receive(&mut gate).await,
        Some(Message::Credential(_))
    ));
    gate.close().await.unwrap();
    drop((gate, peer));
    let refusal = verdict(&node).await;
    assert!(matches!(refusal, Refusal::Interrupted(_)) && !refusal.charged());
}

#[tokio::test]
async fn a_peers_refusal_is_escaped_and_bounded() {
    let node = Plan::new(1).start().await;
    let peer = Raw::dial(2, &node.address).await;
    let mut gate = peer.gate().await;
    raw::credential(&mut gate).await;
    let refused = Verdict::Refused {
        code: "x\u{1b}[31m".to_owned(),
        text: "\n".repeat(160),
    };
    raw::send(&mut gate, &Message::Verdict(refused).encode()).await;
    let Refusal::ByPeer(reason) = verdict(&node).await else {
        panic!("not the peer's refusal")
    };
    assert!(reason.starts_with("x\\u{1b}[31m: \\n"));
    assert!(!reason.chars().any(char::is_control) && reason.len() < 300);
}

#[tokio::test]
async fn a_dialler_waits_for_the_peers_acceptance() {
    let mut listener = RawListener::bind(2).await;
    let node = Plan::new(1).start().await;
    node.dial(raw::key(2).public().to_peer_id(), &listener.address)
        .await;
    let mut peer = listener.accept().await;
    let mut gate = peer.accept_gate().await;
    raw::credential(&mut gate).await;
    assert!(matches!(
        raw::receive(&mut gate).await,
        Some(Message::Credential(_))
    ));
    let accepted = raw::receive(&mut gate).await;
    assert_eq!(accepted, Some(Message::Verdict(Verdict::Accepted)));
    // The node said yes; without ours there is still no connection.
    raw::moment().await;
    node.assert_still_upgrading().await;
    raw::accept(&mut gate).await;
    node.until("a connection", |seen| seen.established.len() == 1)
        .await;
}

#[tokio::test]
async fn a_peer_that_never_accepts_is_no_connection() {
    let mut listener = RawListener::bind(2).await;
    let node = Plan::new(1).identity_timeout(300).start().await;
    node.dial(raw::key(2).public().to_peer_id(), &listener.address)
        .await;
    let mut peer = listener.accept().await;
    let mut gate = peer.accept_gate().await;
    raw::credential(&mut gate).await;
    let seen = node
        .until("a failed dial", |seen| !seen.dial_errors.is_empty())
        .await;
    assert!(matches!(seen.dial_errors[0], Some(Refusal::Late)));
    node.assert_untouched().await;
}
