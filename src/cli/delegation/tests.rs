//! Three organisations: one lets another issue, which enrols a node that the third knows.

use std::fs;

use super::*;
use crate::{
    cli::{
        identity::{
            IssueArgs, RequestArgs, alone, import as import_credential, issue, issuer_init,
            request, show, verify,
        },
        trust::{self, AddArgs},
    },
    identity::{Attributes, Grant, Groups, Refusal, SelfSigned},
    types::Span,
};

const NOW: Timestamp = Timestamp::from_secs(1_795_478_400);
const DAY: Duration = Duration::from_hours(24);

fn name(text: &str) -> Name {
    Name::try_new(text).unwrap()
}

struct World {
    dir: tempfile::TempDir,
    node: IdentityPaths,
}

impl World {
    /// acme, acme.eu with leave to put nodes in `work*` for up to ten days each, and a node.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = IdentityPaths::new(dir.path().join("data"));
        fs::create_dir(dir.path().join("data")).unwrap();
        NodeKey::create(&node.node_key()).unwrap();
        let world = Self { dir, node };
        for issuer in ["acme", "acme.eu"] {
            issuer_init(&name(issuer), &world.path(issuer), NOW).unwrap();
        }
        let made = world
            .delegate("acme", "acme.eu", &["work*"], 0, "leave")
            .unwrap();
        assert_eq!((made.issuer, made.subject), (name("acme"), name("acme.eu")));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn anchor(&self, issuer: &str) -> PathBuf {
        self.path(issuer).join(format!("{issuer}.anchor"))
    }

    fn delegate(
        &self,
        from: &str,
        to: &str,
        groups: &[&str],
        depth: u8,
        out: &str,
    ) -> Result<DelegationReport, EnrolError> {
        let args = DelegateArgs {
            dir: self.path(from),
            anchor: self.anchor(to),
            scope: Scope {
                groups: groups.iter().map(|g| g.parse().unwrap()).collect(),
                max_lifetime: Span(DAY * 10),
                depth,
            },
            lifetime: None,
            out: self.path(out),
        };
        delegate(&args, NOW)
    }

    fn adopt(&self, who: &str, file: &str) -> Result<DelegationReport, EnrolError> {
        import(&self.path(who), &self.path(file), &self.anchor("acme"), NOW)
    }

    fn issue(&self, who: &str, groups: &[&str], out: &str) -> Result<CredentialReport, EnrolError> {
        let asked = self.path(&format!("{out}.request"));
        let wish = RequestArgs {
            subject: name("node-1"),
            attributes: Attributes::default(),
            out: asked.clone(),
        };
        request(&self.node, &wish, NOW)?;
        let args = IssueArgs {
            dir: self.path(who),
            request: asked,
            grant: Grant {
                groups: Groups::try_new(groups.iter().map(|g| name(g))).unwrap(),
                ..Grant::default()
            },
            lifetime: None,
            out: self.path(out),
        };
        Ok(issue(&args, NOW)?.credential)
    }

    fn trust(&self, issuer: &str) {
        let args = AddArgs {
            anchor: self.anchor(issuer),
            ..AddArgs::default()
        };
        trust::add(&self.node, &args).unwrap();
    }
}

#[test]
fn a_delegate_enrols_a_node_that_trusts_the_anchor_alone() {
    let world = World::new();
    // Before the delegation is taken over, acme.eu issues on its own account.
    let alone_issued = world.issue("acme.eu", &["workers"], "before").unwrap();
    assert!(alone_issued.delegated_by.is_empty());
    world.adopt("acme.eu", "leave").unwrap();
    let issued = world.issue("acme.eu", &["workers"], "cred").unwrap();
    assert_eq!(issued.delegated_by, [name("acme")]);
    assert_eq!(issued.status_index, Some(1), "the second of acme.eu's list");
    assert_eq!(issued.expires, NOW.after(DAY * 10), "as long as it may");

    world.trust("acme");
    let cred = world.path("cred");
    assert!(import_credential(&world.node, &world.path("before"), NOW).is_err());
    let imported = import_credential(&world.node, &cred, NOW).unwrap();
    assert_eq!(imported.credential, issued);
    assert!(issued.chain_bytes > issued.bytes);
    let shown = show(&world.node, None, SelfSigned::Deny, NOW).unwrap();
    assert!(shown.valid);
    let verified = verify(&world.node, &cred, Some(&world.anchor("acme")), NOW).unwrap();
    assert_eq!(verified.groups, ["acme.eu/workers"]);
    assert_eq!(verified.anchor, name("acme"));
    // An operator who narrows what acme may grant here refuses it.
    let args = AddArgs {
        anchor: world.anchor("acme"),
        max_depth: Some(0),
        ..AddArgs::default()
    };
    trust::add(&world.node, &args).unwrap();
    let error = verify(&world.node, &cred, None, NOW).unwrap_err();
    assert!(error.to_string().contains("anchor.max-depth"), "{error}");
}

#[test]
fn what_a_delegate_may_not_do_is_not_signed() {
    let world = World::new();
    world.adopt("acme.eu", "leave").unwrap();
    let error = world.issue("acme.eu", &["admins"], "cred").unwrap_err();
    assert!(error.to_string().contains("scope.groups"), "{error}");
    assert!(!world.path("cred").exists());
    let berlin = name("acme.eu.berlin");
    issuer_init(&berlin, &world.path("acme.eu.berlin"), NOW).unwrap();
    let error = world
        .delegate("acme.eu", "acme.eu.berlin", &["workers"], 0, "below")
        .unwrap_err();
    assert!(error.to_string().contains("scope.depth"), "{error}");
    let error = world.delegate("acme.eu", "acme", &[], 0, "up").unwrap_err();
    assert!(error.to_string().contains("does not lie under"), "{error}");
}

#[test]
fn a_chain_of_three_is_made_by_hand() {
    let world = World::new();
    let berlin = "acme.eu.berlin";
    issuer_init(&name(berlin), &world.path(berlin), NOW).unwrap();
    world
        .delegate("acme", "acme.eu", &["work*"], 1, "wide")
        .unwrap();
    world.adopt("acme.eu", "wide").unwrap();
    world
        .delegate("acme.eu", berlin, &["workers"], 0, "below")
        .unwrap();
    world.adopt(berlin, "below").unwrap();
    let issued = world.issue(berlin, &["workers"], "cred").unwrap();
    assert_eq!(issued.delegated_by, [name("acme.eu"), name("acme")]);
    world.trust("acme");
    let imported = import_credential(&world.node, &world.path("cred"), NOW).unwrap();
    assert_eq!(imported.credential.groups, ["acme.eu.berlin/workers"]);
}

#[test]
fn a_delegation_is_taken_over_by_whom_it_is_for_and_from_whom_it_must_be() {
    let world = World::new();
    issuer_init(&name("globex"), &world.path("globex"), NOW).unwrap();
    let error = world.adopt("globex", "leave").unwrap_err();
    assert!(error.to_string().contains("globex"), "{error}");
    let by_other = import(
        &world.path("acme.eu"),
        &world.path("leave"),
        &world.anchor("globex"),
        NOW,
    );
    assert!(matches!(
        by_other,
        Err(EnrolError::Refused {
            refusal: Refusal::UnknownIssuer(_),
            ..
        })
    ));
    fs::write(world.path("junk"), b"junk").unwrap();
    assert!(matches!(
        world.adopt("acme.eu", "junk"),
        Err(EnrolError::Delegation { .. })
    ));
    assert!(!world.path("acme.eu").join(DELEGATION_FILE).exists());
    // Somebody else's keys under the same name.
    fs::remove_dir_all(world.path("acme.eu")).unwrap();
    issuer_init(&name("acme.eu"), &world.path("acme.eu"), NOW).unwrap();
    assert!(world.adopt("acme.eu", "leave").is_err());
}

#[test]
fn a_node_signs_for_itself_and_replaces_no_issuers_word() {
    let world = World::new();
    let made = self_sign(&world.node, &name("lone"), DAY, NOW).unwrap();
    assert!(made.credential.issuer.is_self_signed() && !made.replaced);
    assert_eq!(made.credential.status_index, None);
    assert!(
        self_sign(&world.node, &name("lone"), DAY, NOW)
            .unwrap()
            .replaced
    );
    let valid = |rule| show(&world.node, None, rule, NOW).unwrap().valid;
    assert!(valid(SelfSigned::Allow) && !valid(SelfSigned::Deny));
    let shown = show(&world.node, None, SelfSigned::Deny, NOW).unwrap();
    assert!(
        shown
            .problem
            .unwrap()
            .detail
            .contains("identity.self_signed")
    );

    world.trust("acme");
    world.issue("acme", &[], "cred").unwrap();
    import_credential(&world.node, &world.path("cred"), NOW).unwrap();
    assert!(matches!(
        self_sign(&world.node, &name("lone"), DAY, NOW),
        Err(EnrolError::Disk(DiskError::Exists(_)))
    ));
    assert!(alone(&world.anchor("acme")).is_ok());
    for reserved in ["self", "self.acme"] {
        assert!(issuer_init(&name(reserved), &world.path("reserved"), NOW).is_err());
    }
}
