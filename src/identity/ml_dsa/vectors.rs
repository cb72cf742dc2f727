//! Vectors of Project Wycheproof, and the other implementation of FIPS 204.

use ml_dsa::{
    MlDsa65, Signature, SigningKey, VerifyingKey,
    signature::{Keypair, Signer, Verifier},
};
use serde::Deserialize;

use super::*;
use crate::identity::PublicKey;

#[derive(Deserialize)]
struct File<T> {
    tests: Vec<T>,
}

#[derive(Deserialize)]
struct Vector {
    id: u32,
    comment: String,
    #[serde(with = "hex::serde")]
    key: Vec<u8>,
    #[serde(with = "hex::serde")]
    msg: Vec<u8>,
    #[serde(with = "hex::serde")]
    sig: Vec<u8>,
    result: String,
}

#[derive(Deserialize)]
struct Signing {
    id: u32,
    #[serde(with = "hex::serde")]
    seed: [u8; 32],
    #[serde(with = "hex::serde")]
    key: Vec<u8>,
    #[serde(with = "hex::serde")]
    msg: Vec<u8>,
    #[serde(with = "hex::serde")]
    sig: Vec<u8>,
}

fn read<T: for<'de> Deserialize<'de>>(text: &str) -> Vec<T> {
    serde_json::from_str::<File<T>>(text).unwrap().tests
}

#[test]
fn wycheproof_ml_dsa_65_signatures_are_judged_as_they_say() {
    let text = include_str!("../../../tests/fixtures/vectors/ml-dsa-65-verify.json");
    let vectors: Vec<Vector> = read(text);
    assert!(vectors.len() >= 40);
    for vector in vectors {
        let verified = MlDsaPublic::from_bytes(&vector.key)
            .is_some_and(|key| key.verify(&vector.msg, &vector.sig).is_ok());
        let Vector {
            id,
            comment,
            result,
            ..
        } = &vector;
        assert_eq!(verified, result == "valid", "{id} {comment}");
    }
}

/// FIPS 204: the seed makes the key, and the deterministic signature verifies.
#[test]
fn wycheproof_ml_dsa_65_seeds_make_their_keys() {
    let text = include_str!("../../../tests/fixtures/vectors/ml-dsa-65-sign.json");
    let vectors: Vec<Signing> = read(text);
    assert!(vectors.len() >= 8);
    for vector in vectors {
        let signer = MlDsaSigner::from_seed(&vector.seed).unwrap();
        assert_eq!(signer.public().as_bytes(), vector.key, "{}", vector.id);
        let public = signer.public();
        assert_eq!(
            public.verify(&vector.msg, &vector.sig),
            Ok(()),
            "{}",
            vector.id
        );
        // The other implementation signs the very same bytes.
        let other = SigningKey::<MlDsa65>::from_seed(&vector.seed.into());
        let signature: Signature<MlDsa65> = other.sign(&vector.msg);
        assert_eq!(signature.encode().as_slice(), vector.sig, "{}", vector.id);
    }
}

#[test]
fn wycheproof_ed25519_signatures_are_judged_as_they_say() {
    let text = include_str!("../../../tests/fixtures/vectors/ed25519.json");
    let vectors: Vec<Vector> = read(text);
    assert!(vectors.len() >= 150);
    for vector in vectors {
        let key: [u8; 32] = vector.key.as_slice().try_into().unwrap();
        let verified = PublicKey::from_bytes(&key)
            .is_some_and(|key| key.verify(&vector.msg, &vector.sig).is_ok());
        let Vector {
            id,
            comment,
            result,
            ..
        } = &vector;
        assert_eq!(verified, result == "valid", "{id} {comment}");
    }
}

/// What one implementation signs, the other verifies, both ways, with keys of the same seed.
#[test]
fn two_implementations_agree() {
    for seed in 0..8_u8 {
        let message = vec![seed; usize::from(seed) * 100];
        let ours = MlDsaSigner::from_seed(&[seed; 32]).unwrap();
        let theirs = SigningKey::<MlDsa65>::from_seed(&[seed; 32].into());
        let public: VerifyingKey<MlDsa65> = theirs.verifying_key();
        assert_eq!(public.encode().as_slice(), ours.public().as_bytes());

        let signature = ours.sign(&message);
        let read = Signature::<MlDsa65>::try_from(signature.as_slice()).unwrap();
        public.verify(&message, &read).unwrap();
        assert!(public.verify(b"another", &read).is_err());

        let signature: Signature<MlDsa65> = theirs.sign(&message);
        let signature = signature.encode();
        assert_eq!(ours.public().verify(&message, &signature), Ok(()));
        assert_eq!(
            ours.public().verify(b"another", &signature),
            Err(BadSignature::Mismatch)
        );
    }
}
