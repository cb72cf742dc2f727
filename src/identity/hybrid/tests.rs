use super::*;

fn signer(seed: u8) -> HybridSigner {
    HybridSigner::from_seeds(&[seed; 32], &[seed ^ 0xff; 32]).unwrap()
}

fn sealed() -> Sealed {
    Sealed::sign(&signer(1), Domain::Request, b"payload".to_vec())
}

fn read(bytes: &[u8]) -> Sealed {
    Sealed::read(bytes, 16 * 1024).unwrap()
}

#[test]
fn both_signatures_hold_in_their_domain_alone() {
    let document = read(sealed().as_bytes());
    assert_eq!(document, sealed_again(&document));
    let public = signer(1).public().clone();
    assert_eq!(document.verify(&public, Domain::Request), Ok(()));
    for other in [
        Domain::Anchor,
        Domain::Credential,
        Domain::Delegation,
        Domain::Receipt,
    ] {
        assert_eq!(document.verify(&public, other), Err(BadSignature::Mismatch));
    }
}

fn sealed_again(document: &Sealed) -> Sealed {
    read(&forge::assemble(
        document.payload(),
        &forge::signatures(document),
    ))
}

#[test]
fn neither_signature_can_be_cut_swapped_repeated_or_joined_by_a_third() {
    let document = sealed();
    let public = signer(1).public().clone();
    let [ed25519, ml_dsa]: [forge::Raw; 2] = forge::signatures(&document).try_into().unwrap();
    let mut unknown = ml_dsa.clone();
    unknown.0 = -50;
    for wrong in [
        vec![],
        vec![ed25519.clone()],
        vec![ml_dsa.clone()],
        vec![ml_dsa.clone(), ed25519.clone()],
        vec![ed25519.clone(), ed25519.clone()],
        vec![ed25519.clone(), ml_dsa.clone(), ml_dsa.clone()],
        vec![ed25519.clone(), ml_dsa.clone(), unknown.clone()],
        vec![ed25519.clone(), unknown],
    ] {
        let forged = read(&forge::assemble(document.payload(), &wrong));
        assert_eq!(
            forged.verify(&public, Domain::Request),
            Err(BadSignature::Required)
        );
    }
    let five = vec![ed25519; 5];
    let forged = forge::assemble(document.payload(), &five);
    assert!(Sealed::read(&forged, 16 * 1024).is_err());
}

#[test]
fn breaking_one_of_the_two_is_not_enough() {
    let document = sealed();
    let public = signer(1).public().clone();
    for broken in [0, 1] {
        let mut signatures = forge::signatures(&document);
        signatures[broken].2[40] ^= 1;
        let forged = read(&forge::assemble(document.payload(), &signatures));
        assert_eq!(
            forged.verify(&public, Domain::Request),
            Err(BadSignature::Mismatch)
        );
        signatures[broken].2.pop();
        let forged = read(&forge::assemble(document.payload(), &signatures));
        assert_eq!(
            forged.verify(&public, Domain::Request),
            Err(BadSignature::Length)
        );
    }
}

#[test]
fn halves_of_two_pairs_make_no_pair() {
    let (one, two) = (signer(1), signer(2));
    let mixed = HybridPublic::new(one.public().ed25519(), two.public().ml_dsa().clone());
    assert_ne!(mixed, *one.public());
    // Signed by one for itself: the header names the pair, so no other pair may claim it.
    assert_eq!(
        sealed().verify(&mixed, Domain::Request),
        Err(BadSignature::OtherKey)
    );
    // Signed with the stolen Ed25519 half and a key of the thief's own, under the good name.
    let name = one.public().thumbprint();
    let makers = [(ED25519, name, &one), (ML_DSA_65, name, &two)];
    let forged = read(&forge::sign(Domain::Request, b"payload", &makers));
    assert_eq!(
        forged.verify(one.public(), Domain::Request),
        Err(BadSignature::Mismatch)
    );
    let makers = [(ED25519, name, &two), (ML_DSA_65, name, &one)];
    let forged = read(&forge::sign(Domain::Request, b"payload", &makers));
    assert_eq!(
        forged.verify(one.public(), Domain::Request),
        Err(BadSignature::Mismatch)
    );
}

#[test]
fn pairs_read_back_and_their_thumbprint_is_of_both_keys() {
    let public = signer(1).public().clone();
    let bytes = cbor::encode(&public.to_value());
    let read = HybridPublic::from_value(cbor::decode(&bytes, 4096).unwrap()).unwrap();
    assert_eq!(read, public);
    assert_eq!(
        public.thumbprint().0,
        <[u8; 32]>::from(Sha256::digest(&bytes))
    );
    let others = [signer(2).public().clone()];
    assert!(others.iter().all(|o| o.thumbprint() != public.thumbprint()));
}

#[test]
fn no_secret_is_shown() {
    let shown = format!("{:?} {:?}", signer(1), signer(1).ml_dsa());
    assert!(shown.contains("secret"));
    assert!(
        !shown.contains(&"01".repeat(8)) && !shown.contains(&"fe".repeat(8)),
        "{shown}"
    );
}
