//! The configuration: typed sections, loaded in layers, validated, described.
//!
//! Precedence: flag, then environment (`QUANTRABAND_SECTION__KEY`), then file, then default.
//! A key that does nothing is a defect; an unset limit is never "unlimited".
//!
//! Loading reads one bounded file and nothing else. It fails as a whole: a configuration with
//! any problem is never used in part, and every problem names its place, its key, what is wrong
//! and what would be right ([`ConfigError`]).

mod describe;
mod error;
mod identity;
mod layers;
mod live;
mod machine;
mod off_or;
mod reach;
mod sandbox;
mod sections;
mod supervision;
mod validate;

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sha2::{Digest, Sha256};

pub use describe::{Origin, SHIPPED, keys};
pub use error::{ConfigError, Place, Problem};
pub use identity::*;
pub use layers::ENV_PREFIX;
pub use live::{Applies, Change, Merged, applies, merge};
pub use machine::{Lowered, Machine, derive};
pub use reach::*;
pub use sandbox::*;
pub use sections::*;
pub use supervision::*;
pub use validate::ACTORS;

use layers::{Layers, clip, env_keys, one_line};

/// Most bytes of a configuration file; the shipped one has about 12 KB.
pub const MAX_FILE: u64 = 1 << 20;

/// The file's name in the usual places.
pub const FILE_NAME: &str = "node.toml";

/// A configuration that may be used, and where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration, validated.
    pub config: Config,
    /// Where each key's value came from; keys that are absent have their default.
    pub origins: BTreeMap<String, Origin>,
    /// The file, absolute.
    pub path: PathBuf,
    /// The data directory, absolute: `node.data_dir` seen from the file's folder.
    pub data_dir: PathBuf,
    /// What lies over the file: flags, and the environment's variables of this program.
    flags: Vec<(String, String)>,
    env: Vec<(String, String)>,
}

impl Loaded {
    /// Where the value of `key` came from.
    #[must_use]
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// Loads the same file again, under the same flags and environment.
    ///
    /// # Errors
    /// As [`load`].
    pub fn again(&self) -> Result<Self, ConfigError> {
        load(Some(&self.path), &self.flags, &self.env)
    }

    /// A path of the configuration, seen from the file's folder.
    #[must_use]
    pub fn beside(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("/")).join(path)
    }
}

/// SHA-256 of a configuration's canonical JSON, hex: what the log knows it by.
#[must_use]
pub fn hash(config: &Config) -> String {
    let text = serde_json_canonicalizer::to_vec(config).unwrap_or_default();
    hex::encode(Sha256::digest(text))
}

/// The process's environment, without what is not Unicode (no key of ours is).
#[must_use]
pub fn process_env() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Where a configuration is looked for without `--config`, in order.
#[must_use]
pub fn usual_places(env: &[(String, String)]) -> Vec<PathBuf> {
    let get = |name: &str| {
        let found = env
            .iter()
            .find(|(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| PathBuf::from(value))
    };
    // The XDG specification: `$HOME/.config` when the variable is not set, relative paths ignored.
    let xdg = get("XDG_CONFIG_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| get("HOME").map(|home| home.join(".config")));
    let mut places = vec![PathBuf::from(FILE_NAME)];
    places.extend(xdg.map(|path| path.join("quantraband").join(FILE_NAME)));
    places.push(Path::new("/etc/quantraband").join(FILE_NAME));
    places
}

/// The file to load: the one named, or the first of the usual places that exists.
///
/// # Errors
/// [`ConfigError::NotFound`] when there is none.
pub fn locate(named: Option<&Path>, env: &[(String, String)]) -> Result<PathBuf, ConfigError> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let looked_at = usual_places(env);
    let found = looked_at.iter().find(|path| path.exists()).cloned();
    found.ok_or(ConfigError::NotFound { looked_at })
}

/// Loads the configuration: `named` or the usual places, then `env`, then `flags` (key and
/// text, as in `--set limits.connections=500`).
///
/// # Errors
/// As [`ConfigError`] says.
pub fn load(
    named: Option<&Path>,
    flags: &[(String, String)],
    env: &[(String, String)],
) -> Result<Loaded, ConfigError> {
    let path = locate(named, env)?;
    let text = read(&path)?;
    from_text(&path, &text, flags, env)
}

/// As [`load`], with the file's text at hand.
///
/// # Errors
/// [`ConfigError::Invalid`].
pub fn from_text(
    path: &Path,
    text: &str,
    flags: &[(String, String)],
    env: &[(String, String)],
) -> Result<Loaded, ConfigError> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let one = |problem| ConfigError::Invalid(vec![problem]);
    let defaults = keys(&Config::default());
    let mut layers = Layers::from_text(&path, text).map_err(one)?;
    for (key, value, variable) in env_keys(env, &defaults).map_err(one)? {
        let origin = Origin::Env {
            variable: variable.to_owned(),
        };
        layers.set(&defaults, &key, value, origin).map_err(one)?;
    }
    for (key, value) in flags {
        layers
            .set(&defaults, key, value, Origin::Flag)
            .map_err(one)?;
    }
    let unknown = layers.unknown_keys(&defaults);
    if !unknown.is_empty() {
        return Err(in_order(unknown));
    }
    let config = typed(&layers, &defaults).map_err(one)?;
    let complaints = validate::check(&config);
    if !complaints.is_empty() {
        let problems = complaints.into_iter().map(|complaint| Problem {
            place: Place::of(layers.blame(&complaint.key, &complaint.related), &path),
            key: complaint.key,
            wrong: complaint.wrong,
            remedy: complaint.remedy,
        });
        return Err(in_order(problems.collect()));
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    let data_dir = folder.join(&config.node.data_dir);
    Ok(Loaded {
        config,
        origins: layers.origins,
        data_dir,
        path,
        flags: flags.to_vec(),
        env: env
            .iter()
            .filter(|(name, _)| name.starts_with(ENV_PREFIX))
            .cloned()
            .collect(),
    })
}

/// The typed configuration of the merged layers.
fn typed(layers: &Layers, defaults: &BTreeMap<String, toml::Value>) -> Result<Config, Problem> {
    let value = toml::Value::Table(layers.table.clone());
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
    Config::deserialize(deserializer).map_err(|error: toml::de::Error| {
        let key = track.path().to_string();
        let plain = key.split('[').next().unwrap_or_default();
        let remedy = match describe::example(defaults, plain) {
            Some(example) => format!("the default is `{example}`"),
            None => format!("make `[{key}]` a section; `quantraband config default` shows it"),
        };
        Problem {
            place: Place::of(layers.origin(&key), &layers.path),
            key,
            wrong: one_line(&clip_message(error.message())),
            remedy,
        }
    })
}

/// Messages quote the value: bounded, and without control characters.
fn clip_message(message: &str) -> String {
    let clean: String = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    // A value of thousands of characters is no use in a message.
    if clean.chars().count() > 300 {
        clip(&clean)
    } else {
        clean
    }
}

fn in_order(mut problems: Vec<Problem>) -> ConfigError {
    problems.sort_by_key(|problem| match problem.place {
        Place::Line(_, line) => line,
        Place::Env(_) | Place::Flag | Place::Default => usize::MAX,
    });
    ConfigError::Invalid(problems)
}

/// Reads the file, bounded.
fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
            limit: MAX_FILE,
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
