//! Reads the sets that the configuration names, and tries them before they are used.

use std::path::Path;

use crate::{
    config::PolicyConfig,
    messages::policy::PolicyReport,
    policy::{PolicySet, Rules, Stock},
};

/// Failed tests that are told; the command `policy test` tells all.
const MAX_TOLD: usize = 8;

/// Sets that were good when they were read.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The sets.
    pub rules: Rules,
    /// What an operator sees of them.
    pub report: PolicyReport,
}

/// Reads the policies that `[policy]` names; paths are relative to `home`.
///
/// # Errors
/// Everything that is wrong, with its place, and the policy tests that fail; nothing of such a set
/// is used.
pub fn load(config: &PolicyConfig, home: &Path) -> Result<Loaded, String> {
    let folder = |path: &Path| (!path.as_os_str().is_empty()).then(|| home.join(path));
    let dir = folder(&config.dir);
    let (active, tests) = tried(dir.as_deref())?;
    let shadow = match folder(&config.shadow_dir) {
        Some(dir) => Some(tried(Some(&dir))?.0),
        None => None,
    };
    let report = PolicyReport {
        dir,
        policies: active.len(),
        hash: active.hash().to_string(),
        shadow: shadow.as_ref().map(|set| set.hash().to_string()),
        tests,
        warnings: active.warnings().to_vec(),
    };
    Ok(Loaded {
        rules: Rules { active, shadow },
        report,
    })
}

/// A set whose tests pass, and how many these are.
fn tried(dir: Option<&Path>) -> Result<(PolicySet, usize), String> {
    let stock = Stock::load(dir).map_err(|error| error.to_string())?;
    let results = stock.test().map_err(|error| error.to_string())?;
    let failed = results
        .iter()
        .filter_map(|one| Some((one, one.failure.as_ref()?)));
    let failed: Vec<String> = failed
        .map(|(one, why)| format!("{}: the policy test `{}` fails: {why}", one.place, one.name))
        .take(MAX_TOLD)
        .collect();
    if failed.is_empty() {
        Ok((stock.set, results.len()))
    } else {
        Err(failed.join("; "))
    }
}
