use super::*;
use crate::{
    cli::identity::{IssueArgs, RequestArgs, issue, issuer_init, request},
    identity::{
        Attributes, Grant, IdentityPaths, NodeKey,
        status::{DEFAULT_NEXT_UPDATE, StatusList},
        testing::{NOW, name},
    },
};

#[test]
fn a_credential_is_taken_back_by_its_file_and_only_by_its_issuer() {
    let root = tempfile::tempdir().unwrap();
    let (acme, globex) = (root.path().join("acme"), root.path().join("globex"));
    issuer_init(&name("acme"), &acme, NOW).unwrap();
    issuer_init(&name("globex"), &globex, NOW).unwrap();
    let paths = IdentityPaths::new(root.path());
    NodeKey::create(&paths.node_key()).unwrap();
    let (asked, granted) = (root.path().join("request"), root.path().join("credential"));
    let wish = RequestArgs {
        subject: name("node-1"),
        attributes: Attributes::default(),
        out: asked.clone(),
    };
    request(&paths, &wish, NOW).unwrap();
    let args = IssueArgs {
        dir: acme.clone(),
        request: asked,
        grant: Grant::default(),
        lifetime: None,
        out: granted.clone(),
    };
    issue(&args, NOW).unwrap();

    let first = revoke(&acme, &What::Nothing, DEFAULT_NEXT_UPDATE, NOW).unwrap();
    assert_eq!((first.sequence, first.revoked), (1, 0));
    let file = What::File(granted);
    let report = revoke(&acme, &file, DEFAULT_NEXT_UPDATE, NOW).unwrap();
    assert_eq!(
        (report.sequence, report.index, report.revoked),
        (2, Some(0), 1)
    );
    let list = StatusList::decode(&std::fs::read(&report.file).unwrap()).unwrap();
    assert!(list.is_set(0));
    let refused = revoke(&globex, &file, DEFAULT_NEXT_UPDATE, NOW);
    assert!(matches!(refused, Err(EnrolError::NotIssuedHere { .. })));
    let request = What::File(root.path().join("request"));
    assert!(revoke(&acme, &request, DEFAULT_NEXT_UPDATE, NOW).is_err());
    // Nothing of that was handed out.
    let last = revoke(&acme, &What::IssuedBefore(NOW), DEFAULT_NEXT_UPDATE, NOW).unwrap();
    assert_eq!(
        (last.sequence, last.revoked, last.issued_before),
        (3, 1, Some(NOW))
    );
}
