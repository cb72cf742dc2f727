//! `config check | show | default`.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

use super::{
    args::{ConfigCommand, Global},
    exit::{CliError, Exit},
    output::{Format, Out},
};
use crate::config::{self, Config, Loaded, Machine, Origin, SHIPPED, process_env};

/// Loads the configuration as the shared flags say.
///
/// # Errors
/// With exit code 78.
pub fn load(global: &Global) -> Result<Loaded, CliError> {
    let named = global.config.as_deref();
    Ok(config::load(named, &global.set, &process_env())?)
}

#[derive(Serialize)]
struct CheckReport {
    config: PathBuf,
    data_dir: PathBuf,
    valid: bool,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct ShowReport<'a> {
    config: PathBuf,
    data_dir: PathBuf,
    values: &'a Config,
    #[serde(skip_serializing_if = "Option::is_none")]
    origins: Option<BTreeMap<String, Origin>>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct DefaultReport {
    values: Config,
    text: &'static str,
}

/// The command.
///
/// # Errors
/// When the configuration is wrong, or stdout cannot be written.
pub fn command(command: &ConfigCommand, global: &Global, out: &Out) -> Result<(), CliError> {
    match command {
        ConfigCommand::Default => {
            let report = DefaultReport {
                values: Config::default(),
                text: SHIPPED,
            };
            out.answer("quantraband.config-default/1", &report, || {
                SHIPPED.to_owned()
            })
        }
        ConfigCommand::Check => {
            let loaded = load(global)?;
            let report = CheckReport {
                notes: notes(&loaded),
                config: loaded.path,
                data_dir: loaded.data_dir,
                valid: true,
            };
            out.answer("quantraband.config-check/1", &report, || {
                let mut text = format!("{}: good", report.config.display());
                for note in &report.notes {
                    text.push_str(&format!("\nnote: {note}"));
                }
                text
            })
        }
        // Asked of the running node.
        ConfigCommand::Reload => Ok(()),
        ConfigCommand::Show { origin } => show(&load(global)?, *origin, out),
    }
}

/// What the start on this machine would change, and what is not for production.
fn notes(loaded: &Loaded) -> Vec<String> {
    let (_, lowered) = config::derive(&loaded.config, Machine::claim());
    let mut notes: Vec<String> = lowered.iter().map(ToString::to_string).collect();
    if loaded.config.testing.fault_injection {
        notes.push("testing.fault_injection is on: never in production".to_owned());
    }
    notes
}

fn show(loaded: &Loaded, origin: bool, out: &Out) -> Result<(), CliError> {
    let keys = config::keys(&loaded.config);
    if out.format() == Format::Json {
        let origins = keys
            .keys()
            .map(|key| (key.clone(), loaded.origin(key).clone()));
        let report = ShowReport {
            config: loaded.path.clone(),
            data_dir: loaded.data_dir.clone(),
            values: &loaded.config,
            origins: origin.then(|| origins.collect()),
            notes: notes(loaded),
        };
        return out.answer("quantraband.config/1", &report, String::new);
    }
    let mut text = format!("# {}\n", loaded.path.display());
    for note in notes(loaded) {
        text.push_str(&format!("# note: {note}\n"));
    }
    if origin {
        for (key, value) in &keys {
            text.push_str(&format!("{key} = {value}  # {}\n", loaded.origin(key)));
        }
    } else {
        let toml = toml::to_string(&loaded.config);
        let toml = toml.map_err(|error| CliError::new(Exit::Software, error.to_string()))?;
        text.push_str(&toml);
    }
    out.line(text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_loaded_again() {
        let text = toml::to_string(&Config::default()).unwrap();
        let loaded = config::from_text("/n/node.toml".as_ref(), &text, &[], &[]).unwrap();
        assert_eq!(loaded.config, Config::default());
        // Dotted keys, as with --origin, are TOML too.
        let dotted: Vec<_> = config::keys(&Config::default())
            .iter()
            .map(|(key, value)| format!("{key} = {value}  # {}", Origin::Default))
            .collect();
        let text = dotted.join("\n");
        let loaded = config::from_text("/n/node.toml".as_ref(), &text, &[], &[]).unwrap();
        assert_eq!(loaded.config, Config::default());
    }
}
