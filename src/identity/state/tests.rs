use super::*;
use crate::identity::{
    Anchor, Grants, IssuerKey,
    testing::{
        HOUR, NOW, acme, anchors, channel, credential, globex, mallory, name, node, trust_of,
    },
    verify_frame,
};

fn data() -> (tempfile::TempDir, IdentityPaths) {
    let dir = tempfile::tempdir().unwrap();
    let paths = IdentityPaths::new(dir.path());
    fs::create_dir_all(paths.trust()).unwrap();
    fs::create_dir_all(paths.credential().parent().unwrap()).unwrap();
    (dir, paths)
}

fn write_anchor(paths: &IdentityPaths, issuer: &IssuerKey) {
    let entry = trust_of(issuer);
    fs::write(paths.anchor(&entry.issuer), entry.to_text()).unwrap();
}

#[test]
fn a_bare_node_trusts_nobody_and_shows_an_empty_chain() {
    let dir = tempfile::tempdir().unwrap();
    let paths = IdentityPaths::new(dir.path());
    let key = NodeKey::create(&paths.node_key()).unwrap();
    let (own, anchors) = load(&paths, NOW).unwrap();
    assert_eq!(own, OwnIdentity::bare(key.peer()));
    assert!(anchors.is_empty());
    let frame = own.frame(&key, &channel(), Role::Opener, Vec::new());
    assert!(Frame::decode(&frame).unwrap().chain().is_empty());
}

#[test]
fn an_enrolled_node_loads_its_identity() {
    let (_dir, paths) = data();
    write_anchor(&paths, &acme());
    fs::write(paths.trust().join(".acme.anchor.0.tmp"), "half").unwrap();
    fs::write(paths.trust().join("notes.txt"), "who").unwrap();
    fs::write(paths.credential(), credential().as_bytes()).unwrap();
    let anchors = load_anchors(&paths).unwrap();
    let own = load_own(&paths, node().peer(), &anchors, NOW).unwrap();
    assert_eq!(own.label().unwrap(), "acme/node-1");
    assert_eq!(
        own.identity.as_ref().unwrap().credential_hash,
        credential().hash()
    );
    assert_eq!(own.problem, None);
    let frame = own.frame(&node(), &channel(), Role::Opener, Vec::new());
    let role = Role::Opener;
    let shown = verify_frame(&frame, node().peer(), &channel(), role, &anchors, NOW).unwrap();
    assert!(shown.pq_auth);
    let without = VerifiedIdentity {
        pq_auth: false,
        ..shown
    };
    assert_eq!(Some(Arc::new(without)), own.identity);
}

#[test]
fn an_expired_or_untrusted_credential_is_loaded_with_its_problem() {
    let (_dir, paths) = data();
    fs::write(paths.credential(), credential().as_bytes()).unwrap();
    let late = NOW.after(HOUR);
    let own = load_own(&paths, node().peer(), &anchors(), late).unwrap();
    assert_eq!(own.problem, Some(Refusal::Expired(late)));
    assert_eq!(own.identity, None);
    let own = load_own(&paths, node().peer(), &TrustAnchors::default(), NOW).unwrap();
    assert_eq!(own.problem, Some(Refusal::UnknownIssuer("acme".into())));
}

#[test]
fn a_foreign_or_broken_credential_is_an_error_that_names_the_file() {
    let (_dir, paths) = data();
    fs::write(paths.credential(), credential().as_bytes()).unwrap();
    let error = load_own(&paths, mallory().peer(), &anchors(), NOW).unwrap_err();
    assert!(matches!(error, StateError::ForeignCredential { .. }));
    fs::write(paths.credential(), &credential().as_bytes()[1..]).unwrap();
    let error = load_own(&paths, node().peer(), &anchors(), NOW).unwrap_err();
    assert!(matches!(error, StateError::Credential { .. }));
    assert!(error.to_string().contains("credential.cose"));
}

#[test]
fn a_wrong_trust_entry_is_an_error_that_names_the_file() {
    let (_dir, paths) = data();
    write_anchor(&paths, &acme());
    let place = paths.anchor(&name("globex"));
    // Copied by hand: the issuer's own anchor, and another entry under a wrong name.
    fs::write(&place, Anchor::seal(&globex(), NOW)).unwrap();
    let error = load_anchors(&paths).unwrap_err().to_string();
    assert!(
        error.contains("globex.anchor") && error.contains("trust add"),
        "{error}"
    );
    fs::write(&place, trust_of(&acme()).to_text()).unwrap();
    assert!(matches!(
        load_anchors(&paths),
        Err(StateError::AnchorName { .. })
    ));
}

#[test]
fn a_view_covers_what_was_verified_until_the_entry_changes() {
    let first = TrustView::default().next(anchors());
    assert_eq!(first.epoch, 1);
    assert!(first.covers(&name("acme"), 1) && first.covers(&name("globex"), 1));
    assert!(!first.covers(&name("initech"), 1));
    assert_eq!(first.next(anchors()), first, "nothing changed");

    // globex may grant less: what was verified before must be verified again; acme's stays.
    let mut changed = anchors();
    let mut entry = trust_of(&globex());
    entry.grants = Grants {
        groups: vec![],
        ..Grants::default()
    };
    changed.add(entry).unwrap();
    let second = first.next(changed);
    assert_eq!(second.epoch, 2);
    assert!(second.covers(&name("acme"), 1));
    assert!(!second.covers(&name("globex"), 1) && second.covers(&name("globex"), 2));

    // Removed and entered with another key in between: never covered again.
    let third = second.next(TrustAnchors::default());
    assert!(!third.covers(&name("acme"), 2));
    let fourth = third.next(anchors());
    assert!(!fourth.covers(&name("acme"), 2) && fourth.covers(&name("acme"), 4));
}
