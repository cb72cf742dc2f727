#![cfg(test)]
//! What is written down of a submitter is what it is judged by later.

use super::*;
use crate::{
    identity::{Name, VerifiedIdentity},
    types::{ChannelKind, Cipher, Footing, Group, SecurityInfo},
};

fn self_signed() -> Submitter {
    let name = "self.0102030405060708090a0b0c0d0e0f10";
    Submitter {
        tier: Tier::SelfSigned,
        anchor: name.parse().ok(),
        identity: Some(format!("{name}/node")),
        expires: Some(later(3_600)),
        ..who(1)
    }
}

/// Through the bytes on disk.
fn stored(submitter: &Submitter) -> Submitter {
    let bytes = serde_json::to_vec(submitter).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn a_submitter_keeps_its_tier_and_its_anchor() {
    let member = Submitter {
        anchor: Some("acme".parse().unwrap()),
        identity: Some("acme.west/node-1".to_owned()),
        expires: Some(later(3_600)),
        groups: vec!["acme.west/workers".to_owned()],
        footing: Some(Footing {
            security: SecurityInfo {
                kind: ChannelKind::Stacked,
                group: Group::X25519MlKem768,
                cipher: Cipher::ChaCha20Poly1305,
            },
            pq_auth: true,
            ip: None,
        }),
        ..who(1)
    };
    let VerifiedIdentity {
        tier,
        issuer,
        anchor,
        subject,
        groups,
        pq_auth,
        expires,
        ..
    } = stored(&member).recorded().unwrap();
    assert_eq!(tier, Tier::Member);
    let names = [&issuer, &anchor, &subject].map(Name::as_str);
    assert_eq!(names, ["acme.west", "acme", "node-1"]);
    assert_eq!(groups, member.groups);
    assert_eq!((pq_auth, Some(expires)), (true, member.expires));
}

#[test]
fn who_signed_for_itself_is_no_member_later() {
    let stored = stored(&self_signed());
    assert_eq!(stored.recorded().unwrap().tier, Tier::SelfSigned);
}

#[test]
fn without_all_of_a_credential_there_is_none() {
    let bare = Submitter {
        tier: Tier::Unverified,
        anchor: None,
        identity: None,
        expires: None,
        ..who(1)
    };
    assert_eq!(stored(&bare).tier, Tier::Unverified);
    assert!(bare.recorded().is_none());
    let mut half = self_signed();
    half.anchor = None;
    assert!(half.recorded().is_none());
}
