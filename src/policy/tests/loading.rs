//! What is loaded, and what is refused with which words.

use super::*;

#[test]
fn the_built_in_set_and_the_schema_are_sound() {
    let set = PolicySet::built_in().unwrap();
    assert_eq!(set.warnings(), [] as [String; 0]);
    assert_eq!(set.len(), 14);
    assert!(!set.reads_time());
}

/// Each text, and what the complaint must contain: the place, and what is wrong.
#[test]
fn faults_are_told_with_place_and_remedy() {
    let permit = "permit(principal, action, resource);";
    let cases = [
        (permit.to_owned(), "test.cedar:1:1: `` is no name"),
        (format!("@id permit{}", &permit[6..]), "is no name"),
        (format!("@id(\"a b\") {permit}"), "`a b` is no name"),
        (format!("@id(\"default.deny\") {permit}"), "the program's own"),
        (format!("@id(\"identity.mine\") {permit}"), "the program's own"),
        (format!("@id(\"tier.connect_min_score\") {permit}"), "the program's own"),
        (format!("@id(\"run_job.local\") {permit}"), "the program's own"),
        (
            format!("@id(\"a\") {permit}\n\n  @id(\"a\") {permit}"),
            "test.cedar:3:3: a second policy @id(\"a\"); the first is at test.cedar:1:1",
        ),
        (format!("@id(\"a\") @hint(\"x\") {permit}"), "@hint means nothing"),
        (
            format!("@id(\"a\") @obligation(\"quarantine\") {permit}"),
            "an obligation on a permit",
        ),
        (
            "@id(\"a\") @obligation(\"beg\") forbid(principal, action, resource);".to_owned(),
            "not known",
        ),
        (
            "@id(\"a\") @obligation(\"step_up\") forbid(principal, action, resource);".to_owned(),
            "not known",
        ),
        (
            "@id(\"a\") permit(principal == ?principal, action, resource);".to_owned(),
            "slots",
        ),
        (
            format!("@id(\"a\") {permit}\n@id(\"b\") permit(principal, action, resource"),
            "test.cedar:2:",
        ),
        (
            "@id(\"a\")\npermit(principal is Qb::Peer, action, resource)\nwhen { principal.turst > 1 };"
                .to_owned(),
            "test.cedar:3:8",
        ),
        (
            "@id(\"a\") permit(principal, action == Qb::Action::\"fly\", resource);".to_owned(),
            "fly",
        ),
        (
            format!("@id(\"a\") @advice(\"{}\") {permit}", "x".repeat(201)),
            "@advice",
        ),
    ];
    for (text, wanted) in cases {
        let error = set_or(&text).expect_err(&text).to_string();
        assert!(error.contains(wanted), "{text}\n-> {error}");
    }
}

#[test]
fn bounds_hold() {
    let file = |n: usize| (format!("{n:04}.cedar"), String::new());
    let many: Vec<_> = (0..257).map(file).collect();
    assert!(PolicySet::load(&many).is_err());
    let big = "/".repeat(4 << 20) + "/";
    assert!(set_or(&big).is_err());
    let twice = [file(1), file(1)];
    assert!(PolicySet::load(&twice).is_err());
}

#[test]
fn the_hash_is_of_names_and_texts_in_any_order() {
    let one = (
        "a.cedar".to_owned(),
        "@id(\"a\") permit(principal, action, resource);".to_owned(),
    );
    let two = (
        "b.cedar".to_owned(),
        "@id(\"b\") forbid(principal, action, resource);".to_owned(),
    );
    let hash = |files: &[(String, String)]| PolicySet::load(files).unwrap().hash();
    let both = hash(&[one.clone(), two.clone()]);
    assert_eq!(both, hash(&[two.clone(), one.clone()]));
    assert_ne!(both, hash(std::slice::from_ref(&one)));
    let renamed = ("c.cedar".to_owned(), two.1.clone());
    assert_ne!(both, hash(&[one, renamed]));
}

#[test]
fn an_empty_set_denies_everything() {
    let none = PolicySet::load(&[]).unwrap();
    for action in Action::JUDGED {
        assert!(!Case::new(action, Tier::Member).judge(&none).permits());
    }
}

#[test]
fn a_folder_gives_its_regular_files_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    std::fs::write(path.join("b.cedar"), "b").unwrap();
    std::fs::write(path.join("a.cedar"), "a").unwrap();
    std::fs::write(path.join("notes.txt"), "no").unwrap();
    let files = read_dir(path, ".cedar").unwrap();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a.cedar", "b.cedar"]);
    std::os::unix::fs::symlink("/etc/passwd", path.join("c.cedar")).unwrap();
    let error = read_dir(path, ".cedar").unwrap_err().to_string();
    assert!(error.contains("not a regular file"), "{error}");
    assert!(read_dir(&path.join("absent"), ".cedar").is_err());
}
