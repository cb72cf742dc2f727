use std::{io::Write, path::Path};

use super::*;
use crate::types::SecurityLevel;

fn pairs(items: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    items.iter().map(owned).collect()
}

fn parse(text: &str) -> Result<Loaded, ConfigError> {
    from_text(Path::new("/etc/qb/node.toml"), text, &[], &[])
}

const PEER: &str = "12D3KooWA1bysjrTACSWqf6q172inxvwKHUxAnBtVgaVDKMxpZtx";

#[test]
fn the_shipped_file_has_every_key_and_only_defaults() {
    let loaded = parse(SHIPPED).unwrap();
    assert_eq!(loaded.config, Config::default());
    for key in keys(&Config::default()).keys() {
        assert!(
            matches!(loaded.origin(key), Origin::File { .. }),
            "config/node.toml lacks {key}"
        );
    }
    assert!(SHIPPED.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn an_empty_file_is_the_default() {
    let loaded = parse("").unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.data_dir, Path::new("/etc/qb/data"));
    assert_eq!(*loaded.origin("limits.connections"), Origin::Default);
}

/// Each bad file: its text, the line of the problem, the key, words of what is wrong and of the
/// remedy.
const BAD: &[(&str, usize, &str, &str, &str)] = &[
    ("[node]\ndata_dir = ", 2, "", "not TOML", "key = value"),
    (
        "[log]\nlevel = \"info\"\nlevel = \"warn\"",
        3,
        "",
        "duplicate key",
        "every key once",
    ),
    ("version = 2", 1, "version", "does not know", "write 1"),
    (
        "[limits]\nconections = 5",
        2,
        "limits.conections",
        "unknown key",
        "limits.connections",
    ),
    ("[limts]\nx = 5", 1, "limts", "unknown key", "`limits`"),
    (
        "\n[network]\nqueue = 1",
        3,
        "network.queue",
        "unknown key",
        "audit.queue",
    ),
    (
        "[limits]\nconnections = \"many\"",
        2,
        "limits.connections",
        "expected u32",
        "1000",
    ),
    (
        "[limits]\nconnections = -1",
        2,
        "limits.connections",
        "invalid value",
        "1000",
    ),
    (
        "[limits]\nconnections = 0",
        2,
        "limits.connections",
        "out of bounds",
        "from 1 to",
    ),
    ("limits = 5", 1, "limits", "invalid type", "section"),
    (
        "[audit]\ntimeout = \"soon\"",
        2,
        "audit.timeout",
        "not a span",
        "5s",
    ),
    (
        "[audit]\ntimeout = \"0s\"",
        2,
        "audit.timeout",
        "zero",
        "5s",
    ),
    (
        "[limits]\nmax_message_size = \"big\"",
        2,
        "limits.max_message_size",
        "size",
        "10 MB",
    ),
    (
        "[limits]\nmax_message_size = \"1 GB\"",
        2,
        "limits.max_message_size",
        "bounds",
        "16777216",
    ),
    (
        "[reputation]\nneutral = 2.0",
        2,
        "reputation.neutral",
        "0 to 1",
        "0.5",
    ),
    (
        "[reputation]\nneutral = nan",
        2,
        "reputation.neutral",
        "0 to 1",
        "0.5",
    ),
    (
        "[reputation]\nprobation_score = 0.1",
        2,
        "reputation.probation_score",
        "never end",
        "above",
    ),
    (
        "[policy]\nconnect_min_score = 0.4",
        2,
        "policy.connect_min_score",
        "above",
        "lower",
    ),
    (
        "[policy]\nmember_topics = [\"a\",\n \"b c\"]",
        3,
        "policy.member_topics[1]",
        "pattern",
        "acme/*",
    ),
    (
        "[policy]\nunverified_topics = [\"b c\"]",
        2,
        "policy.unverified_topics[0]",
        "may not",
        "default",
    ),
    (
        "[admin]\nhttp = \"0.0.0.0:9464\"",
        2,
        "admin.http",
        "loopback",
        "127.0.0.1",
    ),
    (
        "[admin]\nhttp = \"here\"",
        2,
        "admin.http",
        "neither",
        "9464",
    ),
    (
        "[log]\nlevel = \"info,=,\"",
        2,
        "log.level",
        "no filter",
        "warn",
    ),
    ("[log]\nformat = \"xml\"", 2, "log.format", "xml", "auto"),
    (
        "[network]\nlisten = [\"/ip4/1.2.3.4/udp/1\"]",
        2,
        "network.listen[0]",
        "no TCP",
        "/ip4/",
    ),
    (
        "[network]\nlisten = [\"nonsense\"]",
        2,
        "network.listen[0]",
        "multiaddr",
        "4001",
    ),
    (
        "[network]\nlisten = []",
        2,
        "network.listen",
        "alone",
        "4001",
    ),
    (
        "[network]\nbootstrap = [\n\"/ip4/1.2.3.4/tcp/1\"]",
        3,
        "network.bootstrap[0]",
        "end in",
        "12D3KooW",
    ),
    (
        "[network]\nbootstrap = [\"/ip4/1.2.3.4/tcp/1/p2p/\
         QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N\"]",
        2,
        "network.bootstrap[0]",
        "Ed25519",
        "12D3KooW",
    ),
    (
        "[limits]\nexempt_networks = [\"10.0.0.1/8\"]",
        2,
        "limits.exempt_networks[0]",
        "no network",
        "10.0.0.0/8",
    ),
    (
        "[limits]\nexempt_networks = [\"10.0.0.0/33\"]",
        2,
        "limits.exempt_networks[0]",
        "no network",
        "10.0.0.0/8",
    ),
    (
        "[limits]\npending_per_address = 999",
        2,
        "limits.pending_per_address",
        "above",
        "raise",
    ),
    (
        "[supervision.actors.swram]\nfaults = 1",
        1,
        "supervision.actors.swram",
        "no actor",
        "swarm",
    ),
    (
        "[supervision.actors.swarm]\nfault = 1",
        2,
        "supervision.actors.swarm.fault",
        "unknown",
        "faults",
    ),
    (
        "[supervision.actors.swarm]\nwindow = \"1s\"",
        2,
        "supervision.actors.swarm.window",
        "twice",
        "at least",
    ),
    (
        "[supervision.default]\nfaults = 0",
        2,
        "supervision.default.faults",
        "bounds",
        "from 1",
    ),
    (
        "[transport]\nsecurity = \"strict\"",
        2,
        "transport.security",
        "strict",
        "prefer-hybrid",
    ),
    (
        "[transport.peers]\nsomebody = \"classic\"",
        2,
        "transport.peers.somebody",
        "12D3KooW",
        "prefer-hybrid",
    ),
    (
        "[transport]\nsecurity = \"require-hybrid\"\n[network]\n\
         listen = [\"/ip4/1.2.3.4/udp/1/quic-v1\"]",
        4,
        "network.listen[0]",
        "cannot prove",
        "prefer-hybrid",
    ),
    (
        "[testing]\nfault_injection = \"yes\"",
        2,
        "testing.fault_injection",
        "boolean",
        "false",
    ),
    (
        "[testing]\npanic_on = \"x\"",
        2,
        "testing.panic_on",
        "fault injection is off",
        "take it out",
    ),
];

#[test]
fn a_bad_value_is_named_with_file_line_key_and_remedy() {
    for (text, line, key, wrong, remedy) in BAD {
        let error = parse(text).expect_err(text);
        let first = &error.problems()[0];
        let shown = first.to_string();
        assert!(
            shown.starts_with(&format!("/etc/qb/node.toml:{line}: ")),
            "{text}: {shown}"
        );
        assert_eq!(first.key, *key, "{text}: {shown}");
        assert!(first.wrong.contains(wrong), "{text}: {shown}");
        assert!(first.remedy.contains(remedy), "{text}: {shown}");
        assert!(!shown.contains('\n'), "{text}: {shown}");
    }
}

#[test]
fn every_problem_is_told_in_order() {
    let error = parse("[limits]\nconnections = 0\n[audit]\ntimeout = \"0s\"").unwrap_err();
    let lines: Vec<_> = error
        .problems()
        .iter()
        .map(|p| p.place.to_string())
        .collect();
    assert_eq!(lines[0], "/etc/qb/node.toml:2");
    assert!(error.problems().len() >= 2);
    assert_eq!(error.to_string().lines().count(), error.problems().len());
}

#[test]
fn layers_win_in_order() {
    let text = "[limits]\nconnections = 5\nmessages_per_second = 6\nmessage_burst = 7";
    let env = pairs(&[
        ("QUANTRABAND_LIMITS__MESSAGES_PER_SECOND", "60"),
        ("QUANTRABAND_LIMITS__MESSAGE_BURST", "70"),
        ("QUANTRABAND_SUPERVISION__ACTORS__RATE_LIMIT__FAULTS", "3"),
        (
            "QUANTRABAND_NETWORK__BOOTSTRAP",
            &format!("/dns4/a.example/tcp/1/p2p/{PEER}"),
        ),
        ("QUANTRABAND_ADMIN__HTTP", "off"),
        ("QUANTRABAND_REPUTATION__NEUTRAL", "0.6"),
        ("QUANTRABAND_GIT_REVISION", "unrelated"),
        ("HOME", "/root"),
    ]);
    let flags = pairs(&[("limits.message_burst", "700")]);
    let loaded = from_text(Path::new("/n/node.toml"), text, &flags, &env).unwrap();
    let limits = &loaded.config.limits;
    assert_eq!(
        (
            limits.connections,
            limits.messages_per_second,
            limits.message_burst
        ),
        (5, 60, 700)
    );
    assert_eq!(loaded.config.supervision.for_actor("rate_limit").faults, 3);
    assert_eq!(loaded.config.network.bootstrap.len(), 1);
    assert_eq!(loaded.config.admin.http, None);
    assert_eq!(
        *loaded.origin("limits.connections"),
        Origin::File { line: 2 }
    );
    assert_eq!(loaded.origin("limits.message_burst"), &Origin::Flag);
    assert!(matches!(
        loaded.origin("limits.messages_per_second"),
        Origin::Env { variable } if variable.ends_with("MESSAGES_PER_SECOND")
    ));
}

#[test]
fn bad_variables_and_flags_are_named() {
    for (variable, value, words) in [
        (
            "QUANTRABAND_LIMITS__CONECTIONS",
            "1",
            "did you mean `limits.connections`",
        ),
        ("QUANTRABAND_LIMITS_CONNECTIONS", "1", "two underscores"),
        (
            "QUANTRABAND_LIMITS__CONNECTIONS",
            "many",
            "not a whole number",
        ),
        ("QUANTRABAND_LIMITS__CONNECTIONS", "0", "from 1 to"),
        ("QUANTRABAND_NETWORK__LISTEN", "nonsense", "multiaddr"),
    ] {
        let env = pairs(&[(variable, value)]);
        let error = from_text(Path::new("/n/node.toml"), "", &[], &env).unwrap_err();
        let shown = error.to_string();
        assert!(shown.contains(variable), "{shown}");
        assert!(shown.contains(words), "{shown}");
    }
    let flags = pairs(&[("limits.connections", "x")]);
    let error = from_text(Path::new("/n/node.toml"), "", &flags, &[]).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("command line: limits.connections: ")
    );
}

#[test]
fn files_that_cannot_be_read_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    let load_it = || load(Some(&path), &[], &[]);
    assert!(matches!(load_it(), Err(ConfigError::Unreadable { .. })));
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&[0xff, 0xfe]).unwrap();
    assert!(matches!(load_it(), Err(ConfigError::Unreadable { .. })));
    file.set_len(MAX_FILE + 1).unwrap();
    file.write_all(b"#").unwrap();
    fs::write(&path, vec![b'#'; 1 + usize::try_from(MAX_FILE).unwrap()]).unwrap();
    assert!(matches!(load_it(), Err(ConfigError::TooLarge { .. })));
    fs::write(&path, "[node]\ndata_dir = \"/var/lib/qb\"").unwrap();
    assert_eq!(load_it().unwrap().data_dir, Path::new("/var/lib/qb"));
}

#[test]
fn the_usual_places_in_order() {
    let env = pairs(&[("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")]);
    let shown = |env: &[(String, String)]| {
        let places = usual_places(env);
        places
            .iter()
            .map(|p| p.display().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        shown(&env),
        [
            "node.toml",
            "/x/quantraband/node.toml",
            "/etc/quantraband/node.toml"
        ]
    );
    assert_eq!(
        shown(&pairs(&[("XDG_CONFIG_HOME", "x"), ("HOME", "/h")]))[1],
        "/h/.config/quantraband/node.toml"
    );
    assert_eq!(shown(&[]).len(), 2);
}

#[test]
fn single_peers_have_a_level_of_their_own() {
    let text = format!(
        "[transport]\nsecurity = \"classic\"\n[transport.peers]\n\"{PEER}\" = \"require-hybrid\"\n\
         [network]\nlisten = [\"/ip4/1.2.3.4/udp/1/quic-v1\"]"
    );
    let loaded = parse(&text).unwrap();
    let transport = &loaded.config.transport;
    assert_eq!(transport.security, SecurityLevel::Classic);
    let peer = PEER.parse().unwrap();
    assert_eq!(transport.peers[&peer], SecurityLevel::RequireHybrid);
    let flags = [(format!("transport.peers.{PEER}"), "classic".to_owned())];
    let path = Path::new("/etc/qb/node.toml");
    let loaded = from_text(path, &text, &flags, &[]).unwrap();
    assert_eq!(loaded.config.transport.peers[&peer], SecurityLevel::Classic);
}
