//! Settings: what the operator asks of the configuration in force.

use std::path::PathBuf;

use actix::Message;
use serde::{Deserialize, Serialize};

use super::policy::PolicyReport;
use crate::config::Change;

// Used by Admin, and by the node on SIGHUP.

/// Reads the configuration file and the policies again and takes over what a running node can.
/// On any error everything stays as it is. When all is good but an actor does not begin anew, that
/// is no error: the report says so, and the next reload tries again.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<SettingsReport, String>")]
pub struct ReloadSettings;

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsReport {
    /// The file.
    pub config: PathBuf,
    /// SHA-256 of the configuration in force, hex.
    pub hash: String,
    /// Keys that the file has otherwise than the node had.
    pub changes: Vec<Change>,
    /// Actors that began anew with their new settings.
    pub restarted: Vec<String>,
    /// Actors that still run with their former settings, and why. The next reload tries again.
    pub failed: Vec<String>,
    /// The policies in force.
    pub policy: PolicyReport,
}
