use super::*;

fn signer(seed: u8) -> MlDsaSigner {
    MlDsaSigner::from_seed(&[seed; 32]).unwrap()
}

#[test]
fn a_signature_holds_for_its_message_and_key_alone() {
    let (one, two) = (signer(1), signer(2));
    let signature = one.sign(b"message");
    assert_eq!(signature.len(), ML_DSA_SIGNATURE_BYTES);
    assert_eq!(one.public().verify(b"message", &signature), Ok(()));
    assert_eq!(
        one.public().verify(b"messages", &signature),
        Err(BadSignature::Mismatch)
    );
    assert_eq!(
        two.public().verify(b"message", &signature),
        Err(BadSignature::Mismatch)
    );
    // Hedged: a second signature is another, and as good.
    let again = one.sign(b"message");
    assert_ne!(again, signature);
    assert_eq!(one.public().verify(b"message", &again), Ok(()));
}

#[test]
fn keys_read_back_and_nothing_else_is_a_key() {
    let public = signer(1).public().clone();
    assert_eq!(
        MlDsaPublic::from_bytes(public.as_bytes()),
        Some(public.clone())
    );
    assert_eq!(
        MlDsaPublic::from_value(public.to_value()),
        Ok(public.clone())
    );
    for length in [0, 32, 1312, 1951, 1953, 2592] {
        assert_eq!(MlDsaPublic::from_bytes(&vec![1; length]), None);
    }
}
