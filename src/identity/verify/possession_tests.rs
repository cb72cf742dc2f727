//! Possession: a proof is of one key, over one channel, by one end of it.

use super::*;
use crate::identity::{
    BINDING_BYTES, Binding, NodeKey,
    testing::{NOW, anchors, chain, channel, frame_of, mallory, node},
};

fn judge(frame: &Frame, channel: &Channel, role: Role) -> Result<VerifiedIdentity, Refusal> {
    let peer = match role {
        Role::Opener => channel.opener,
        Role::Listener => channel.listener,
    };
    verify_frame(&frame.encode(), peer, channel, role, &anchors(), NOW)
}

fn nonces(opener: u8, listener: u8) -> Channel {
    Channel {
        binding: Binding::Nonces {
            opener: [opener; BINDING_BYTES],
            listener: [listener; BINDING_BYTES],
        },
        ..channel()
    }
}

const MISMATCH: Refusal = Refusal::Possession("does not verify");

#[test]
fn only_an_exporter_makes_a_proof_quantum_safe() {
    let exported = judge(&frame_of(&chain()), &channel(), Role::Opener).unwrap();
    assert!(exported.pq_auth);
    let over = nonces(1, 2);
    let frame = Frame::of(&chain(), &node(), &over, Role::Opener);
    let relayable = judge(&frame, &over, Role::Opener).unwrap();
    assert!(!relayable.pq_auth);
}

#[test]
fn a_proof_for_another_channel_role_or_key_is_refused_and_charged() {
    let frame = frame_of(&chain());
    // The man in the middle holds two channels: what was said on one is worth nothing on the other.
    let other_exporter = Channel {
        binding: Binding::Exporter([8; BINDING_BYTES]),
        ..channel()
    };
    let other_listener = Channel {
        listener: NodeKey::from_seed(&[5; 32]).peer(),
        ..channel()
    };
    for over in [other_exporter, other_listener, nonces(9, 9)] {
        let refusal = judge(&frame, &over, Role::Opener).unwrap_err();
        assert_eq!(refusal, MISMATCH);
        assert!(refusal.charged());
        assert_eq!(refusal.code(), "possession");
    }
    // The same nonces, the sides swapped; and a proof over nonces on an exported channel.
    let over_nonces = Frame::of(&chain(), &node(), &nonces(1, 2), Role::Opener);
    assert_eq!(
        judge(&over_nonces, &nonces(2, 1), Role::Opener),
        Err(MISMATCH)
    );
    assert_eq!(judge(&over_nonces, &channel(), Role::Opener), Err(MISMATCH));

    // The other role: as the listener of a channel that the node opened.
    let turned = Channel {
        opener: channel().listener,
        listener: channel().opener,
        ..channel()
    };
    assert_eq!(judge(&frame, &turned, Role::Listener), Err(MISMATCH));
    let wrong_end = verify_frame(
        &frame.encode(),
        node().peer(),
        &channel(),
        Role::Listener,
        &anchors(),
        NOW,
    );
    assert_eq!(
        wrong_end,
        Err(Refusal::Possession(
            "the peer is not that end of the channel"
        ))
    );

    // Another's key: whoever took over the Ed25519 key alone.
    let by_mallory = Frame::of(&chain(), &mallory(), &channel(), Role::Opener);
    assert_eq!(judge(&by_mallory, &channel(), Role::Opener), Err(MISMATCH));
}

#[test]
fn a_proof_is_required_and_of_its_length() {
    let links: Vec<Vec<u8>> = chain().links().map(<[u8]>::to_vec).collect();
    for length in [0, 64, 3308] {
        let frame = Frame::with_parts(links.clone(), vec![1; length]);
        assert_eq!(
            judge(&frame, &channel(), Role::Opener),
            Err(Refusal::Possession("of the wrong length"))
        );
    }
    let frame = Frame::with_parts(links, vec![1; 3309]);
    assert_eq!(judge(&frame, &channel(), Role::Opener), Err(MISMATCH));
}

#[test]
fn nothing_else_the_node_signs_is_a_proof() {
    // A document signed by both of its keys: the ML-DSA signature within is over other bytes.
    let sealed = node().signer().seal(
        crate::identity::Domain::Request,
        &channel().statement(Role::Opener),
    );
    let signature = sealed[sealed.len() - 3309..].to_vec();
    let links: Vec<Vec<u8>> = chain().links().map(<[u8]>::to_vec).collect();
    let frame = Frame::with_parts(links, signature);
    assert_eq!(judge(&frame, &channel(), Role::Opener), Err(MISMATCH));
}

#[test]
fn heads_of_status_lists_travel_unread() {
    let frame = frame_of(&chain()).with_heads(vec![0xff; 40]);
    let bytes = frame.encode();
    let read = Frame::decode(&bytes).unwrap();
    assert_eq!(read.heads(), [0xff; 40]);
    assert!(judge(&read, &channel(), Role::Opener).is_ok());
}
