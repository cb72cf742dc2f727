//! `identity protect`: how a key is sealed at rest.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    args::{Global, ProtectArgs},
    config::load,
    enrol::EnrolError,
    exit::CliError,
    output::Out,
};
use crate::identity::{ISSUER_KEY_FILE, IdentityPaths, IssuerKey, NodeKey, Protection, rotation};

/// Answer of `identity protect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ProtectReport {
    /// The key file.
    pub key: PathBuf,
    /// What opened it before.
    pub before: String,
    /// What opens it now.
    pub now: String,
}

/// The command: without `--with` it only says what opens the key.
///
/// # Errors
/// As the key file's own.
pub(super) fn command(args: &ProtectArgs, global: &Global, out: &Out) -> Result<(), CliError> {
    let report = match &args.issuer {
        Some(dir) => {
            let path = dir.join(ISSUER_KEY_FILE);
            let before = IssuerKey::protection(&path).map_err(EnrolError::from)?;
            if let Some(with) = &args.with {
                IssuerKey::protect(&path, with).map_err(EnrolError::from)?;
            }
            report(path, &before, args.with.as_ref())
        }
        None => {
            let paths = IdentityPaths::new(load(global)?.data_dir);
            let path = paths.node_key();
            let before = NodeKey::protection(&path).map_err(EnrolError::from)?;
            if let Some(with) = &args.with {
                rotation::may_protect(&paths).map_err(EnrolError::from)?;
                NodeKey::protect(&path, with).map_err(EnrolError::from)?;
            }
            report(path, &before, args.with.as_ref())
        }
    };
    out.answer("quantraband.identity-protect/1", &report, || {
        let key = report.key.display();
        if args.with.is_none() {
            return format!("{key} is sealed with: {}", report.now);
        }
        format!(
            "{key} was sealed with: {}; now with: {}\nA copy of the old file still opens as \
             before: destroy what you do not need",
            report.before, report.now
        )
    })
}

fn report(key: PathBuf, before: &Protection, now: Option<&Protection>) -> ProtectReport {
    ProtectReport {
        key,
        before: before.to_string(),
        now: now.unwrap_or(before).to_string(),
    }
}
