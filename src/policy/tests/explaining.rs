//! Why a decision came about, and the tests that lie beside policies.

use super::*;

#[test]
fn a_missed_permit_says_which_condition_failed() {
    let set = set(r#"@id("workers")
permit(principal in Qb::Group::"acme/admins", action == Qb::Action::"run_job", resource is Qb::Sandbox)
when { principal.verified && principal.trust >= 70 && principal.hasTag("x") && principal.getTag("x") == "y" }
unless { !context.post_quantum };"#);
    let facts = Case::new(Action::RunJob, Tier::Member).facts();
    let why = explain(&set, &facts);
    assert_eq!(why.missed.len(), 1);
    let missed = &why.missed[0];
    assert_eq!(
        (missed.id.as_str(), missed.place.as_str()),
        ("workers", "test.cedar:1:1")
    );
    let failed: Vec<&str> = missed
        .failed
        .iter()
        .map(|one| one.condition.as_str())
        .collect();
    assert_eq!(
        failed,
        [
            "principal in Qb::Group::\"acme/admins\"",
            "principal.trust >= 70",
            // That the tag's value cannot be had follows, and is not told.
            "principal.hasTag(\"x\")",
            "unless { !context.post_quantum }"
        ],
    );
}

#[test]
fn who_decided_is_named_with_the_place() {
    let built_in = PolicySet::built_in().unwrap();
    let why = explain(&built_in, &Case::new(Action::Connect, Tier::Member).facts());
    assert!(why.missed.is_empty());
    let one = &why.determining[0];
    assert_eq!((one.id.as_str(), one.effect), ("connect.member", "permit"));
    assert!(one.place.starts_with("default.cedar:"));
}

#[test]
fn the_tests_beside_the_built_in_policies_pass() {
    let (name, text) = BUILT_IN_TESTS;
    let files = [(name.to_owned(), text.to_owned())];
    let results = run_tests(&PolicySet::built_in().unwrap(), &files).unwrap();
    assert!(results.len() > 15);
    for result in results {
        assert_eq!(result.failure, None, "{}: {}", result.place, result.name);
    }
}

#[test]
fn the_examples_load_beside_the_built_in_policies() {
    let (name, text) = BUILT_IN;
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/policies/examples");
    let mut files = read_dir(&dir, ".cedar").unwrap();
    assert_eq!(files.len(), 3);
    files.push((name.to_owned(), text.to_owned()));
    let set = PolicySet::load(&files).unwrap();
    assert_eq!(set.warnings(), [] as [String; 0]);
}

#[test]
fn a_test_that_fails_says_how_and_a_file_that_is_none_is_refused() {
    let built_in = PolicySet::built_in().unwrap();
    let one = |text: &str| run_tests(&built_in, &[("a.test.toml".to_owned(), text.to_owned())]);
    let test = "\n[[test]]\nname = \"n\"\naction = \"run_job\"\n";
    let failure = |more: &str| {
        let results = one(&format!("{test}{more}")).unwrap();
        (
            results[0].place.clone(),
            results[0].failure.clone().unwrap_or_default(),
        )
    };
    let (place, text) = failure("expect = \"deny\"");
    assert_eq!(
        (place.as_str(), text.as_str()),
        ("a.test.toml:2:1", "allow by run_job.member, not deny")
    );
    let (_, text) = failure("expect = \"allow\"\nrule = \"other\"");
    assert_eq!(text, "allow by run_job.member, not by other");
    let (_, text) = failure("expect = \"allow\"\ntopic = \"t\"");
    assert!(text.contains("no topic"), "{text}");
    let (_, text) =
        failure("expect = \"allow\"\nprincipal = { issuer = \"a\", groups = [\"b/x\"] }");
    assert!(text.contains("not of the issuer"), "{text}");
    let (_, text) = failure("expect = \"allow\"\nprincipal = { trust = 101 }");
    assert!(text.contains("0 to 100"), "{text}");
    for bad in ["expect = \"perhaps\"", "expect = \"allow\"\nexpct = 1", ""] {
        let error = one(&format!("{test}{bad}")).unwrap_err().to_string();
        assert!(error.starts_with("a.test.toml:"), "{error}");
    }
}
