//! Two organisations meet: the commands in the order an operator uses them, and what goes wrong.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use super::*;
use crate::cli::{
    enrol::FailureClass,
    trust::{self, AddArgs, Change},
};
use crate::identity::{AnchorError, Groups, Refusal, RequestError};

const NOW: Timestamp = Timestamp::from_secs(1_795_478_400);

struct World {
    dir: tempfile::TempDir,
    node: IdentityPaths,
}

fn name(text: &str) -> Name {
    Name::try_new(text).unwrap()
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = IdentityPaths::new(dir.path().join("data"));
        fs::create_dir(dir.path().join("data")).unwrap();
        NodeKey::create(&node.node_key()).unwrap();
        Self { dir, node }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn issuer(&self, who: &str) -> IssuerReport {
        issuer_init(&name(who), &self.path(who), NOW).unwrap()
    }

    fn request(&self, node: &IdentityPaths, out: &str) -> RequestReport {
        let args = RequestArgs {
            subject: name("node-1"),
            attributes: Attributes::default(),
            out: self.path(out),
        };
        request(node, &args, NOW).unwrap()
    }

    fn issue(&self, who: &str, from: &str, out: &str) -> Result<IssueReport, EnrolError> {
        let grant = Grant {
            groups: Groups::try_new([name("workers")]).unwrap(),
            ..Grant::default()
        };
        let args = IssueArgs {
            dir: self.path(who),
            request: self.path(from),
            grant,
            lifetime: Some(Duration::from_hours(1)),
            out: self.path(out),
        };
        issue(&args, NOW)
    }

    fn trust(&self, anchor: PathBuf) -> Result<trust::AddReport, EnrolError> {
        let args = AddArgs {
            anchor,
            ..AddArgs::default()
        };
        trust::add(&self.node, &args)
    }
}

#[test]
fn a_node_is_enrolled_by_the_commands() {
    let world = World::new();
    assert_eq!(
        show(&world.node, None, SelfSigned::Deny, NOW)
            .unwrap()
            .credential,
        None
    );
    let acme = world.issuer("acme");
    let asked = world.request(&world.node, "req");
    let issued = world.issue("acme", "req", "cred").unwrap();
    assert_eq!(issued.credential.peer_id, asked.peer_id);
    assert_eq!(issued.credential.groups, ["acme/workers"]);
    assert_eq!(issued.credential.signed_by, Some(acme.thumbprint));

    // Before the issuer is trusted its signature cannot be checked.
    let error = import(&world.node, &issued.file, NOW).unwrap_err();
    assert!(error.to_string().contains("trust add"), "{error}");
    assert!(!world.node.credential().exists());

    assert_eq!(
        world.trust(acme.anchor.clone()).unwrap().change,
        Change::Added
    );
    let imported = import(&world.node, &issued.file, NOW).unwrap();
    assert!(!imported.replaced);
    assert!(import(&world.node, &issued.file, NOW).unwrap().replaced);
    let shown = show(&world.node, None, SelfSigned::Deny, NOW).unwrap();
    assert!(shown.valid);
    assert_eq!(shown.credential, Some(issued.credential));
    let verified = verify(&world.node, &issued.file, Some(&acme.anchor), NOW).unwrap();
    assert_eq!(verified.peer, asked.peer_id);

    let later = NOW.after(Duration::from_hours(2));
    let shown = show(&world.node, None, SelfSigned::Deny, later).unwrap();
    assert_eq!(
        (shown.valid, shown.problem.unwrap().code),
        (false, "expired")
    );
    assert!(
        serde_json::to_string(&imported)
            .unwrap()
            .contains("acme/workers")
    );
}

#[test]
fn secrets_are_private_and_nothing_is_overwritten() {
    let world = World::new();
    let acme = world.issuer("acme");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&acme.key), 0o600);
    assert_eq!(mode(&world.path("acme")), 0o700);
    let before = fs::read(&acme.key).unwrap();
    let error = issuer_init(&name("acme"), &world.path("acme"), NOW).unwrap_err();
    assert_eq!(error.class(), FailureClass::CannotCreate);
    assert_eq!(fs::read(&acme.key).unwrap(), before);

    world.request(&world.node, "req");
    fs::write(world.path("cred"), "precious").unwrap();
    assert_eq!(
        world.issue("acme", "req", "cred").unwrap_err().class(),
        FailureClass::CannotCreate
    );
    assert_eq!(fs::read(world.path("cred")).unwrap(), b"precious");
}

#[test]
fn an_interrupted_issuer_init_is_completed_for_the_same_name_alone() {
    let world = World::new();
    let acme = world.issuer("acme");
    fs::remove_file(&acme.anchor).unwrap();
    let error = issuer_init(&name("globex"), &world.path("acme"), NOW).unwrap_err();
    assert!(matches!(error, EnrolError::OtherIssuer { .. }));
    assert_eq!(world.issuer("acme"), acme);
}

#[test]
fn a_tampered_request_and_anothers_credential_are_refused() {
    let world = World::new();
    let acme = world.issuer("acme");
    world.trust(acme.anchor).unwrap();
    let other = IdentityPaths::new(world.path("other"));
    fs::create_dir(world.path("other")).unwrap();
    NodeKey::create(&other.node_key()).unwrap();
    world.request(&other, "req");

    let mut bytes = fs::read(world.path("req")).unwrap();
    let at = bytes.windows(6).position(|w| w == b"node-1").unwrap();
    bytes[at] = b'm';
    fs::write(world.path("bad"), &bytes).unwrap();
    let error = world.issue("acme", "bad", "none").unwrap_err();
    assert!(matches!(
        error,
        EnrolError::Request {
            why: RequestError::Proof,
            ..
        }
    ));
    assert_eq!(error.class(), FailureClass::Data);
    assert!(!world.path("none").exists());

    let foreign = world.issue("acme", "req", "cred").unwrap();
    let error = import(&world.node, &foreign.file, NOW).unwrap_err();
    assert!(matches!(
        error,
        EnrolError::Refused {
            refusal: Refusal::WrongKey,
            ..
        }
    ));
    assert!(!world.node.credential().exists());
}

#[test]
fn a_failed_import_keeps_the_credential_that_was_there() {
    let world = World::new();
    let acme = world.issuer("acme");
    world.trust(acme.anchor).unwrap();
    world.request(&world.node, "req");
    let issued = world.issue("acme", "req", "cred").unwrap();
    import(&world.node, &issued.file, NOW).unwrap();
    let before = fs::read(world.node.credential()).unwrap();
    fs::write(world.path("junk"), "junk").unwrap();
    assert!(import(&world.node, &world.path("junk"), NOW).is_err());
    let late = NOW.after(Duration::from_hours(2));
    assert!(import(&world.node, &issued.file, late).is_err());
    assert_eq!(fs::read(world.node.credential()).unwrap(), before);
}

#[test]
fn trust_is_added_listed_changed_and_removed() {
    let world = World::new();
    let acme = world.issuer("acme");
    assert_eq!(
        world.trust(acme.anchor.clone()).unwrap().change,
        Change::Added
    );
    assert_eq!(
        world.trust(acme.anchor.clone()).unwrap().change,
        Change::Unchanged
    );
    let narrower = AddArgs {
        anchor: acme.anchor.clone(),
        thumbprint: Some(acme.thumbprint.to_string().to_uppercase()),
        groups: Some(vec!["work*".parse().unwrap()]),
        ..AddArgs::default()
    };
    assert_eq!(
        trust::add(&world.node, &narrower).unwrap().change,
        Change::Changed
    );
    // Adding again without grants leaves the narrower ones.
    assert_eq!(
        world.trust(acme.anchor.clone()).unwrap().change,
        Change::Unchanged
    );
    let listed = trust::list(&world.node).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].thumbprint, acme.thumbprint);
    assert_eq!(listed[0].grants.groups, ["work*".parse().unwrap()]);
    let mode = fs::metadata(&listed[0].file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);

    trust::remove(&world.node, &name("acme")).unwrap();
    assert!(trust::list(&world.node).unwrap().is_empty());
    let error = trust::remove(&world.node, &name("acme")).unwrap_err();
    assert!(matches!(error, EnrolError::NotTrusted(_)));
}

#[test]
fn another_key_under_a_trusted_name_is_refused_until_the_old_entry_is_removed() {
    let world = World::new();
    let acme = world.issuer("acme");
    world.trust(acme.anchor).unwrap();
    let imposter = issuer_init(&name("acme"), &world.path("elsewhere"), NOW).unwrap();
    let error = world.trust(imposter.anchor.clone()).unwrap_err();
    assert!(matches!(
        error,
        EnrolError::Anchor {
            why: AnchorError::OtherKey { .. },
            ..
        }
    ));
    assert_eq!(
        trust::list(&world.node).unwrap()[0].thumbprint,
        acme.thumbprint
    );
    trust::remove(&world.node, &name("acme")).unwrap();
    world.trust(imposter.anchor).unwrap();
    assert_eq!(
        trust::list(&world.node).unwrap()[0].thumbprint,
        imposter.thumbprint
    );
}

#[test]
fn a_thumbprint_that_does_not_match_is_refused() {
    let world = World::new();
    let args = AddArgs {
        anchor: world.issuer("acme").anchor,
        thumbprint: Some("00".repeat(32)),
        ..AddArgs::default()
    };
    let error = trust::add(&world.node, &args).unwrap_err();
    assert!(matches!(error, EnrolError::Thumbprint { .. }));
    assert!(trust::list(&world.node).unwrap().is_empty());
}

#[test]
fn a_broken_entry_can_be_removed() {
    let world = World::new();
    world.trust(world.issuer("acme").anchor).unwrap();
    fs::write(world.node.anchor(&name("acme")), "broken").unwrap();
    assert!(trust::list(&world.node).is_err());
    trust::remove(&world.node, &name("acme")).unwrap();
    assert!(trust::list(&world.node).unwrap().is_empty());
}

#[test]
fn a_credential_with_another_ml_dsa_key_is_not_taken_over() {
    let world = World::new();
    let acme = world.issuer("acme");
    world.trust(acme.anchor).unwrap();
    world.request(&world.node, "req");
    let issued = world.issue("acme", "req", "cred").unwrap();
    // The node keeps its Ed25519 key and makes the others anew.
    let file = world.node.node_key();
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let digits = &lines[2]["ml-dsa-65 ".len()..];
    let swapped: String = digits.chars().rev().collect();
    assert_ne!(swapped, digits);
    fs::write(&file, text.replace(digits, &swapped)).unwrap();
    let error = import(&world.node, &issued.file, NOW).unwrap_err();
    assert!(matches!(
        error,
        EnrolError::Refused {
            refusal: Refusal::WrongKey,
            ..
        }
    ));
    assert!(!world.node.credential().exists());
    fs::write(&file, text).unwrap();
    import(&world.node, &issued.file, NOW).unwrap();
}
