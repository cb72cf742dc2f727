//! Reads the sets that the configuration names, and tries them before they are used.

use std::path::Path;

use crate::{
    config::PolicyConfig,
    messages::policy::PolicyReport,
    policy::{PolicySet, Rules, read_dir},
};

/// Files of policies.
const SUFFIX: &str = ".cedar";

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
/// Everything that is wrong, with its place; nothing of such a set is used.
pub fn load(config: &PolicyConfig, home: &Path) -> Result<Loaded, String> {
    let dir = (!config.dir.as_os_str().is_empty()).then(|| home.join(&config.dir));
    let active = match &dir {
        Some(dir) => set(dir)?,
        None => PolicySet::built_in().map_err(|error| error.to_string())?,
    };
    let shadow = match config.shadow_dir.as_os_str().is_empty() {
        true => None,
        false => Some(set(&home.join(&config.shadow_dir))?),
    };
    let report = PolicyReport {
        dir,
        policies: active.len(),
        hash: active.hash().to_string(),
        shadow: shadow.as_ref().map(|set| set.hash().to_string()),
        tests: 0,
        warnings: active.warnings().to_vec(),
    };
    Ok(Loaded {
        rules: Rules { active, shadow },
        report,
    })
}

fn set(dir: &Path) -> Result<PolicySet, String> {
    let files = read_dir(dir, SUFFIX).map_err(|error| error.to_string())?;
    PolicySet::load(&files).map_err(|error| error.to_string())
}
