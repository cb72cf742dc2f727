use std::path::Path;

use clap::{CommandFactory, error::ErrorKind};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("quantraband").chain(line.split_whitespace()))
}

/// Every command of the contract, as an operator would type it.
const COMMANDS: &[&str] = &[
    "init",
    "init --dir d",
    "run",
    "config check",
    "config show",
    "config show --origin",
    "config default",
    "status",
    "peers",
    "peers bans",
    "peers ban 192.0.2.1 --for 2h --reason noise",
    "peers ban acme/node-3 --for 2h",
    "peers unban acme/node-3",
    "peers unban 12D3KooWA1bysjrTACSWqf6q172inxvwKHUxAnBtVgaVDKMxpZtx",
    "actors",
    "actors restart swarm",
    "actors show swarm",
    "actors inject swarm panic",
    "publish t --data hello",
    "publish t --file f",
    "publish t -",
    "publish t",
    "subscribe t",
    "subscribe t --count 3 --timeout 5s",
    "audit tail",
    "audit tail -n 5",
    "audit verify",
    "audit verify --dir d",
    "audit verify --key k --key 12D3 --checkpoint c",
    "audit verify --key k --proof f",
    "audit checkpoint",
    "audit key",
    "audit prove 7",
    "audit prove 000102030405060708090a0b0c0d0e0f --dir d --out f",
    "audit rotate",
    "identity request --subject node-1 --attribute role=worker --out r",
    "identity issuer init acme --dir i",
    "identity issue r --issuer i --group workers --attribute a=b --lifetime 30days --out c",
    "identity import c",
    "identity show",
    "identity verify c --anchor a",
    "trust add a --thumbprint ab --max-lifetime 30days --group workers",
    "trust list",
    "trust remove acme",
    "receipt verify r",
    "receipt verify r --module m --stdin i --stdout o --stderr e --credential c --anchor a",
    "receipt show r",
    "policy check",
    "policy check d",
    "policy test d",
    "policy show --dir d",
    "policy schema",
    "policy explain --action publish --topic t --tier member --issuer acme --subject n \
     --group acme/workers --attribute role=x --trust 50 --anomaly 1 --quarantined --probation \
     --transport noise --post-quantum true --pq-auth --ip 10.0.0.1 --now 1 --dir d",
    "devnet --nodes 3",
    "devnet --nodes 3 --issuers 2 --dir d",
    "stop",
];

#[test]
fn networks_are_no_members() {
    for party in ["10.0.0.0/8", "192.0.2.1/32", "self/x", "acme/"] {
        for command in ["ban", "unban"] {
            assert!(
                parse(&format!("peers {command} {party}")).is_err(),
                "{party}"
            );
        }
    }
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn shared_flags_stand_before_and_after_every_command() {
    for command in COMMANDS {
        for line in [
            format!("--config /x/node.toml --output json {command}"),
            format!("{command} --config /x/node.toml --output json"),
        ] {
            let cli = parse(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(
                cli.global.config.as_deref(),
                Some(Path::new("/x/node.toml")),
                "{line}"
            );
            assert_eq!(cli.global.output, Format::Json, "{line}");
        }
    }
    let cli = parse("actors --config a restart swarm").unwrap();
    assert_eq!(cli.global.config.as_deref(), Some(Path::new("a")));
}

#[test]
fn what_is_wrong_is_refused() {
    for line in [
        "",
        "explode",
        "init extra",
        "publish",
        "publish t --data a --file b",
        "publish t --data a -",
        "publish t other",
        "publish sp@ce --data a",
        "subscribe t --count 0",
        "subscribe t --timeout soon",
        "peers ban nobody",
        "peers ban 192.0.2.1 --for ever",
        "actors restart",
        "actors inject swarm explode",
        "identity request --subject UPPER",
        "identity request --subject a --attribute novalue",
        "audit prove",
        "audit prove first",
        "audit verify --proof f",
        "audit verify --key k --proof f --dir d",
        "devnet",
        "devnet --nodes 0",
        "devnet --nodes 65",
        "status --output xml",
        "--set novalue status",
    ] {
        let error = parse(line).expect_err(line);
        assert!(error.use_stderr(), "{line}");
    }
}

#[test]
fn the_version_is_told() {
    let error = parse("--version").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DisplayVersion);
    assert!(error.to_string().contains(crate::VERSION));
}

#[test]
fn payload_text_may_begin_with_a_dash_after_an_equals_sign() {
    let Command::Publish(args) = parse("publish t --data=-x").unwrap().command else {
        panic!("not publish");
    };
    assert_eq!(args.data.as_deref(), Some("-x"));
}
