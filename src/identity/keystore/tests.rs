//! What is sealed opens with its secret and with nothing else.

use proptest::prelude::*;

use super::*;

const TEXT: &str = "quantraband-node-key-v2\ned25519 00\n";
/// Argon2id as cheap as it can be: the tests are about the file, not about its cost.
const CHEAP: Cost = Cost {
    memory_kib: 8,
    passes: 1,
    lanes: 1,
};

fn sealed(with: &str, kdf: &Kdf) -> String {
    let sealed = seal_with(TEXT, with, kdf, b"secret", [3; NONCE_LEN]).unwrap();
    sealed.as_str().to_owned()
}

fn open(text: &str, secret: &[u8]) -> Result<String, SealError> {
    let opened = Sealed::read(text.as_bytes())?.open(secret)?;
    Ok(String::from_utf8(opened.to_vec()).unwrap())
}

#[test]
fn what_is_sealed_opens_with_its_secret_alone() {
    for (with, kdf) in [
        ("passphrase", Kdf::Argon2id(CHEAP, [1; SALT])),
        ("file wrap.key", Kdf::Hkdf([1; SALT])),
        ("systemd node-key", Kdf::Hkdf([2; SALT])),
    ] {
        let text = sealed(with, &kdf);
        assert!(is_sealed(text.as_bytes()) && !text.contains("ed25519"));
        assert_eq!(open(&text, b"secret").as_deref(), Ok(TEXT));
        assert_eq!(open(&text, b"another"), Err(SealError::Wrong));
    }
}

#[test]
fn a_file_says_what_opens_it() {
    let of = |with| {
        let text = sealed(with, &Kdf::Hkdf([1; SALT]));
        Sealed::read(text.as_bytes()).map(|sealed| sealed.protection)
    };
    assert_eq!(of("passphrase"), Ok(Protection::Passphrase));
    assert_eq!(of("file /a b"), Ok(Protection::File("/a b".into())));
    assert_eq!(of("systemd k"), Ok(Protection::Systemd("k".into())));
    for bad in [
        "",
        "file ",
        "systemd ../x",
        "systemd a/b",
        "systemd .x",
        "luck",
    ] {
        assert!(matches!(of(bad), Err(SealError::Content(2, _))), "{bad}");
    }
}

#[test]
fn real_costs_are_those_of_the_rfc_and_what_is_dearer_is_refused() {
    let text = seal(TEXT, &Protection::Passphrase, b"a long passphrase").unwrap();
    assert!(text.contains("kdf argon2id m=65536 t=3 p=4 salt="));
    assert_eq!(open(&text, b"a long passphrase").as_deref(), Ok(TEXT));
    for dear in [
        "m=1048577 t=3 p=4",
        "m=65536 t=17 p=4",
        "m=65536 t=3 p=17",
        "m=1 t=0 p=0",
    ] {
        let text = text.replace("m=65536 t=3 p=4", dear);
        assert!(
            matches!(
                open(&text, b"a long passphrase"),
                Err(SealError::Content(3, _))
            ),
            "{dear}"
        );
    }
}

#[test]
fn two_seals_of_one_text_have_nothing_in_common() {
    let protection = Protection::File("wrap.key".into());
    let seal = || seal(TEXT, &protection, &[7; 32]).unwrap();
    let (one, two) = (seal(), seal());
    assert_ne!(one.lines().nth(2), two.lines().nth(2), "salts");
    assert_ne!(one.lines().nth(3), two.lines().nth(3), "data");
}

#[test]
fn names_of_protections_read_back() {
    for text in ["none", "passphrase", "file:/etc/key", "systemd:node.key"] {
        assert_eq!(text.parse::<Protection>().unwrap().to_string(), text);
    }
    for bad in [
        "",
        "file:",
        "file:a\nb",
        "systemd:",
        "systemd:a/b",
        "Passphrase",
        "tpm",
    ] {
        assert_eq!(bad.parse::<Protection>(), Err(ProtectionError), "{bad}");
    }
}

proptest! {
    /// Whatever is changed, nothing opens: the first three lines are authenticated as well.
    #[test]
    fn no_changed_byte_is_accepted(at in 0_usize..4_096, flip in 1_u8..=255) {
        let text = sealed("file wrap.key", &Kdf::Hkdf([1; SALT]));
        let mut bytes = text.into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        let opened = Sealed::read(&bytes).and_then(|sealed| sealed.open(b"secret"));
        prop_assert!(opened.is_err());
    }
}
