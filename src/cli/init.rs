//! `init`: a commented configuration, a private data directory, the node's key.
//!
//! Never overwrites: what exists is kept, checked, and said to be kept.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    args::{Global, InitArgs},
    enrol::EnrolError,
    exit::CliError,
    output::Out,
};
use crate::{
    config::{self, FILE_NAME, SHIPPED, process_env},
    identity::{DiskError, IdentityPaths, KeyFileError, NodeKey, create_new, make_dir},
    types::PeerId,
};

/// Mode of the configuration: it holds no secret.
const CONFIG_MODE: u32 = 0o644;

/// Answer of `init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InitReport {
    /// The configuration file.
    pub config: PathBuf,
    /// Whether it was made now; `false`: it was there and was kept.
    pub config_made: bool,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The key's file.
    pub key: PathBuf,
    /// Whether it was made now; `false`: it was there and was kept.
    pub key_made: bool,
    /// Who this node is.
    pub peer_id: PeerId,
}

/// Makes what is missing.
///
/// # Errors
/// When a file cannot be made, or what is there already cannot be used.
pub fn init(args: &InitArgs, global: &Global) -> Result<InitReport, CliError> {
    let file = match &global.config {
        Some(file) => file.clone(),
        None => args.dir.join(FILE_NAME),
    };
    let file = std::path::absolute(&file).unwrap_or(file);
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(|error| {
            CliError::io(&format!("cannot create {}", folder.display()), &error)
        })?;
    }
    let config_made = match create_new(&file, SHIPPED.as_bytes(), CONFIG_MODE) {
        Ok(()) => true,
        Err(DiskError::Exists(_)) => false,
        Err(error) => return Err(EnrolError::from(error).into()),
    };
    let loaded = config::load(Some(&file), &global.set, &process_env())?;
    make_dir(&loaded.data_dir).map_err(EnrolError::from)?;
    let path = IdentityPaths::new(&loaded.data_dir).node_key();
    let (key, key_made) = match NodeKey::create(&path) {
        Ok(key) => (key, true),
        Err(KeyFileError::Disk(DiskError::Exists(_))) => {
            (NodeKey::load(&path).map_err(EnrolError::from)?, false)
        }
        Err(error) => return Err(EnrolError::from(error).into()),
    };
    Ok(InitReport {
        config: file,
        config_made,
        data_dir: loaded.data_dir,
        key: path,
        key_made,
        peer_id: key.peer(),
    })
}

/// The command.
///
/// # Errors
/// As [`init`].
pub fn command(args: &InitArgs, global: &Global, out: &Out) -> Result<(), CliError> {
    let report = init(args, global)?;
    out.answer("quantraband.init/1", &report, || {
        let done = |made: bool, path: &Path| match made {
            true => format!("wrote {}", path.display()),
            false => format!("kept  {} (exists already)", path.display()),
        };
        format!(
            "{}\n{}\npeer  {}\nNext: quantraband run --config {}",
            done(report.config_made, &report.config),
            done(report.key_made, &report.key),
            report.peer_id,
            report.config.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::cli::{exit::Exit, output::Format};

    fn run(dir: &Path) -> Result<InitReport, CliError> {
        let global = Global {
            node: None,
            config: None,
            set: Vec::new(),
            output: Format::Text,
        };
        init(
            &InitArgs {
                dir: dir.to_owned(),
            },
            &global,
        )
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_second_init_overwrites_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("deep/er");
        let first = run(&dir).unwrap();
        assert!(first.config_made && first.key_made);
        assert_eq!(first.data_dir, dir.join("data"));
        assert_eq!(mode(&dir.join("data")), 0o700);
        assert_eq!(mode(&first.key), 0o600);
        assert_eq!(fs::read_to_string(&first.config).unwrap(), SHIPPED);

        fs::write(&first.config, "# mine\n").unwrap();
        let key = fs::read(&first.key).unwrap();
        let second = run(&dir).unwrap();
        assert!(!second.config_made && !second.key_made);
        assert_eq!(second.peer_id, first.peer_id);
        assert_eq!(fs::read(&first.key).unwrap(), key);
        assert_eq!(fs::read_to_string(&first.config).unwrap(), "# mine\n");
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_broken_is_told_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let key = run(dir.path()).unwrap().key;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let error = run(dir.path()).unwrap_err();
        assert_eq!(error.exit, Exit::NoPermission);
        assert!(error.message.contains("chmod 600"), "{error}");
        fs::write(&key, "junk").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(run(dir.path()).unwrap_err().exit, Exit::Data);
        assert_eq!(fs::read_to_string(&key).unwrap(), "junk");
    }

    #[test]
    fn an_existing_configuration_says_where_the_data_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join(FILE_NAME),
            "[node]\ndata_dir = \"elsewhere\"",
        )
        .unwrap();
        let report = run(dir.path()).unwrap();
        assert_eq!(report.data_dir, dir.path().join("elsewhere"));
        fs::write(dir.path().join(FILE_NAME), "[node]\ndata_dri = 1").unwrap();
        assert_eq!(run(dir.path()).unwrap_err().exit, Exit::Config);
    }
}
