//! `identity …` and `trust …`: from flags to the functions that do the work, and their reports
//! in print. A running node is told when what it believes has changed.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use super::{
    args::{
        DelegateArgs, Global, IdentityCommand, IssueArgs, IssuerCommand, RevokeWhat, TrustCommand,
    },
    client::{AdminClient, ClientError},
    config::load,
    delegation::{self, DelegationReport},
    exit::{CliError, Exit},
    identity::{self, CredentialReport, ShowReport},
    live::block_on,
    output::Out,
    protect,
    revoke::{What, revoke},
    rotate,
    trust::{self, TrustReport},
};
use crate::{
    admin::protocol::Request,
    identity::{
        Attributes, ClaimError, Grant, Groups, IdentityPaths, Name, Scope, VerifiedIdentity,
    },
    types::{Clock, Span, SystemClock},
};

/// `identity …`
///
/// # Errors
/// As the command's own function.
pub(super) fn identity(
    command: &IdentityCommand,
    global: &Global,
    out: &Out,
) -> Result<(), CliError> {
    let now = SystemClock::new().now();
    match command {
        IdentityCommand::Request {
            subject,
            attributes,
            out: file,
        } => {
            let args = identity::RequestArgs {
                subject: subject.clone(),
                attributes: attribute_map(attributes)?,
                out: file.clone(),
            };
            let report = identity::request(&paths(global)?, &args, now)?;
            out.answer("quantraband.identity-request/1", &report, || {
                format!(
                    "wrote {}: {} asks to be `{}`\nNext: hand it to an issuer, who runs \
                     `quantraband identity issue FILE`",
                    report.request.display(),
                    report.peer_id,
                    report.subject
                )
            })
        }
        IdentityCommand::Issuer(command) => issuer(command, out),
        IdentityCommand::Issue(args) => issue(args, out),
        IdentityCommand::Delegate(args) => delegate(args, out),
        IdentityCommand::Protect(args) => protect::command(args, global, out),
        IdentityCommand::Revoke(args) => {
            take_back(&args.issuer, &what(&args.what), args.next_update, out)
        }
        IdentityCommand::Status {
            issuer,
            next_update,
        } => take_back(issuer, &What::Nothing, *next_update, out),
        IdentityCommand::SelfSign { subject, lifetime } => {
            self_sign(subject, *lifetime, global, out)
        }
        IdentityCommand::Import { file } => {
            let paths = paths(global)?;
            let report = identity::import(&paths, file, now)?;
            out.answer("quantraband.identity-import/1", &report, || {
                credential(&report.credential, out)
            })?;
            tell_node(global, out)
        }
        IdentityCommand::Rotate(args) => rotate::command(args, global, out),
        IdentityCommand::Show { file } => {
            let loaded = load(global)?;
            let (paths, rule) = (
                IdentityPaths::new(loaded.data_dir),
                loaded.config.identity.self_signed,
            );
            let report = identity::show(&paths, file.as_deref(), rule, now)?;
            out.answer("quantraband.identity/1", &report, || shown(&report, out))
        }
        IdentityCommand::Verify { file, anchor } => {
            let paths = match anchor {
                // The anchor alone is believed: no node is needed, so none is looked for.
                Some(_) => IdentityPaths::new(Path::new(".")),
                None => paths(global)?,
            };
            let report = identity::verify(&paths, file, anchor.as_deref(), now)?;
            out.answer("quantraband.identity-verify/1", &report, || {
                verified(&report, out)
            })
        }
    }
}

fn what(args: &RevokeWhat) -> What {
    match (&args.credential, args.index, args.issued_before) {
        (Some(file), ..) => What::File(file.clone()),
        (_, Some(index), _) => What::Index(index),
        (.., Some(before)) => What::IssuedBefore(before),
        // The grammar wants one of them.
        (None, None, None) => What::Nothing,
    }
}

fn take_back(dir: &Path, what: &What, next_update: Span, out: &Out) -> Result<(), CliError> {
    let report = revoke(dir, what, next_update.0, SystemClock::new().now())?;
    out.answer("quantraband.identity-status/1", &report, || {
        let mut items = vec![
            ("issuer", report.issuer.to_string()),
            ("sequence", report.sequence.to_string()),
            ("revoked", report.revoked.to_string()),
            ("next update", report.next_update.to_string()),
        ];
        if let Some(before) = report.issued_before {
            items.push(("revoked if issued before", before.to_string()));
        }
        format!(
            "{}wrote {}\nNext: hand it to any node, which runs `quantraband status import FILE` and \
             tells all others",
            out.list(&items),
            report.file.display()
        )
    })
}

fn issuer(command: &IssuerCommand, out: &Out) -> Result<(), CliError> {
    let now = SystemClock::new().now();
    match command {
        IssuerCommand::Init { name, dir } => {
            let report = identity::issuer_init(name, dir, now)?;
            out.answer("quantraband.identity-issuer/1", &report, || {
                format!(
                    "wrote {} (secret)\nwrote {}\nthumbprint {}\nNext: hand the anchor to \
                     whoever shall trust `{}`, and tell the thumbprint by another way",
                    report.key.display(),
                    report.anchor.display(),
                    report.thumbprint,
                    report.issuer
                )
            })
        }
        IssuerCommand::Import { file, anchor, dir } => {
            let report = delegation::import(dir, file, anchor, now)?;
            out.answer("quantraband.identity-delegation/1", &report, || {
                let next = "Next: `quantraband identity issue` now issues under it";
                format!("{}{next}", delegated(&report, out))
            })
        }
    }
}

fn self_sign(subject: &Name, lifetime: Span, global: &Global, out: &Out) -> Result<(), CliError> {
    let now = SystemClock::new().now();
    let report = delegation::self_sign(&paths(global)?, subject, lifetime.0, now)?;
    out.answer("quantraband.identity-self-sign/1", &report, || {
        format!(
            "{}wrote {}\nPeers let this node in only where `identity.self_signed` is \"allow\", \
             and then as one that may do no more than an unverified one",
            credential(&report.credential, out),
            report.file.display()
        )
    })?;
    tell_node(global, out)
}

fn issue(args: &IssueArgs, out: &Out) -> Result<(), CliError> {
    let grant = Grant {
        subject: args.subject.clone(),
        groups: Groups::try_new(args.groups.iter().cloned()).map_err(|error| claim(&error))?,
        attributes: attribute_map(&args.attributes)?,
        ..Grant::default()
    };
    let args = identity::IssueArgs {
        dir: args.issuer.clone(),
        request: args.request.clone(),
        grant,
        lifetime: args.lifetime.map(|span| span.0),
        out: args.out.clone(),
    };
    let report = identity::issue(&args, SystemClock::new().now())?;
    out.answer("quantraband.identity-issue/1", &report, || {
        let mut text = format!(
            "{}wrote {}\nNext: hand it back to the node, which runs `quantraband identity \
             import FILE`",
            credential(&report.credential, out),
            report.file.display()
        );
        if let Some(rotated) = &report.rotated {
            text.push_str(&rotate::take_back_hint(rotated, &args.dir));
        }
        text
    })
}

fn delegate(args: &DelegateArgs, out: &Out) -> Result<(), CliError> {
    let args = delegation::DelegateArgs {
        dir: args.issuer.clone(),
        anchor: args.anchor.clone(),
        scope: Scope {
            groups: args.groups.iter().cloned().collect(),
            max_lifetime: args.max_lifetime,
            depth: args.depth,
        },
        lifetime: args.lifetime.map(|span| span.0),
        out: args.out.clone(),
    };
    let report = delegation::delegate(&args, SystemClock::new().now())?;
    out.answer("quantraband.identity-delegation/1", &report, || {
        format!(
            "{}wrote {}\nNext: hand it to `{}`, who runs `quantraband identity issuer import \
             FILE --anchor YOURS`",
            delegated(&report, out),
            report.file.display(),
            report.subject
        )
    })
}

fn delegated(report: &DelegationReport, out: &Out) -> String {
    let groups: Vec<_> = report
        .scope
        .groups
        .iter()
        .map(ToString::to_string)
        .collect();
    out.list(&[
        (
            "delegation",
            format!("{} lets {} issue", report.issuer, report.subject),
        ),
        ("keys", report.thumbprint.to_string()),
        ("groups", groups.join(" ")),
        ("max lifetime", report.scope.max_lifetime.to_string()),
        ("further issuers", report.scope.depth.to_string()),
        ("until", report.expires.to_string()),
    ])
}

/// `trust …`
///
/// # Errors
/// As the command's own function.
pub(super) fn trust(command: &TrustCommand, global: &Global, out: &Out) -> Result<(), CliError> {
    let paths = paths(global)?;
    match command {
        TrustCommand::Add {
            anchor,
            thumbprint,
            max_lifetime,
            max_depth,
            groups,
        } => {
            let args = trust::AddArgs {
                anchor: anchor.clone(),
                thumbprint: thumbprint.clone(),
                max_lifetime: *max_lifetime,
                max_depth: *max_depth,
                groups: (!groups.is_empty()).then(|| groups.clone()),
            };
            let report = trust::add(&paths, &args)?;
            out.answer("quantraband.trust-add/1", &report, || {
                let change = match report.change {
                    trust::Change::Added => "trusts",
                    trust::Change::Changed => "trusts, changed,",
                    trust::Change::Unchanged => "trusted already",
                    trust::Change::Removed => "trusts no longer",
                };
                let entry = &report.entry;
                let mut text =
                    format!("{change} {}\nthumbprint {}", entry.issuer, entry.thumbprint);
                if thumbprint.is_none() {
                    text.push_str("\nCompare the thumbprint with what the issuer tells you.");
                }
                text
            })?;
            tell_node(global, out)
        }
        TrustCommand::List => {
            #[derive(Serialize)]
            struct List {
                issuers: Vec<TrustReport>,
            }
            let issuers = trust::list(&paths)?;
            let report = List { issuers };
            out.answer("quantraband.trust/1", &report, || {
                entries(&report.issuers, out)
            })
        }
        TrustCommand::Remove { issuer } => {
            let report = trust::remove(&paths, issuer)?;
            out.answer("quantraband.trust-remove/1", &report, || {
                format!("trusts {} no longer", report.issuer)
            })?;
            tell_node(global, out)
        }
    }
}

fn paths(global: &Global) -> Result<IdentityPaths, CliError> {
    Ok(IdentityPaths::new(load(global)?.data_dir))
}

fn attribute_map(pairs: &[(String, String)]) -> Result<Attributes, CliError> {
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        if map.insert(key.clone(), value.clone()).is_some() {
            let key = key.escape_debug();
            return Err(CliError::usage(format!(
                "the attribute `{key}` is given twice"
            )));
        }
    }
    Attributes::try_new(map).map_err(|error| claim(&error))
}

fn claim(error: &ClaimError) -> CliError {
    CliError::new(Exit::Usage, error.to_string())
}

/// Tells a running node to read what has changed. The files are what counts: no node is no
/// failure, and one that cannot be told is said.
fn tell_node(global: &Global, out: &Out) -> Result<(), CliError> {
    let data_dir = load(global)?.data_dir;
    let told: Result<(), ClientError> = block_on(async {
        Ok(match AdminClient::connect(&data_dir).await {
            Ok(client) => client.ask(&Request::IdentityReload {}).await.map(drop),
            Err(error) => Err(error),
        })
    })?;
    match told {
        Ok(()) => out.note("the running node has read it"),
        Err(ClientError::NoNode { .. }) => {}
        Err(error) => out.note(&format!(
            "the running node could not be told ({error}); `quantraband actors restart identity` \
             makes it read its files"
        )),
    }
    Ok(())
}

fn credential(report: &CredentialReport, out: &Out) -> String {
    let attributes: Vec<_> = report
        .attributes
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    out.list(&[
        (
            "credential",
            format!("{}/{}", report.issuer, report.subject),
        ),
        ("for", report.peer_id.to_string()),
        ("groups", report.groups.join(" ")),
        ("attributes", attributes.join(" ")),
        (
            "by leave of",
            report
                .delegated_by
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "),
        ),
        ("from", report.not_before.to_string()),
        ("until", report.expires.to_string()),
        (
            "signed by",
            report
                .signed_by
                .map(|key| key.to_string())
                .unwrap_or_default(),
        ),
    ])
}

fn shown(report: &ShowReport, out: &Out) -> String {
    let mut items = vec![("node", report.peer_id.to_string())];
    if let Some(next) = &report.rotation {
        items.push((
            "next",
            format!("{} ({})", next.next_peer_id, next.state.words()),
        ));
    }
    if report.former_key {
        let when = "kept until a member is connected".to_owned();
        items.push(("former keys", when));
    }
    let node = out.list(&items);
    let Some(found) = &report.credential else {
        return format!(
            "{node}no credential yet\nNext: quantraband identity request --subject NAME"
        );
    };
    let verdict = match &report.problem {
        None => "valid now".to_owned(),
        Some(problem) => format!("NOT VALID: {}", problem.detail),
    };
    format!(
        "{node}{}{}",
        credential(found, out),
        out.list(&[("verdict", verdict)])
    )
}

fn verified(report: &VerifiedIdentity, out: &Out) -> String {
    let attributes: Vec<_> = report
        .attributes
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    out.list(&[
        ("valid", format!("{}/{}", report.issuer, report.subject)),
        ("for", report.peer.to_string()),
        ("groups", report.groups.join(" ")),
        ("attributes", attributes.join(" ")),
        ("tier", report.tier.to_string()),
        ("anchor", report.anchor.to_string()),
        ("until", report.expires.to_string()),
    ])
}

fn entries(issuers: &[TrustReport], out: &Out) -> String {
    let rows: Vec<_> = issuers
        .iter()
        .map(|entry| {
            let groups: Vec<_> = entry
                .grants
                .groups
                .iter()
                .map(ToString::to_string)
                .collect();
            [
                entry.issuer.to_string(),
                groups.join(" "),
                entry.grants.max_lifetime.to_string(),
                entry.thumbprint.to_string(),
            ]
        })
        .collect();
    out.table(["issuer", "groups", "max lifetime", "thumbprint"], &rows)
}
