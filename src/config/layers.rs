//! The layers: file, environment, flags, laid over each other key by key.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

use super::{
    describe::{Origin, PEERS, example, join, nearest},
    error::{Place, Problem},
};

/// What environment variables for keys begin with: `QUANTRABAND_LIMITS__CONNECTIONS=500`.
pub const ENV_PREFIX: &str = "QUANTRABAND_";

/// The layers below the flags, with the origin of each key set so far.
#[derive(Debug)]
pub(super) struct Layers {
    /// The file, for messages.
    pub(super) path: PathBuf,
    /// The values.
    pub(super) table: Table,
    /// Origins by key (`network.listen`), by section and by element (`network.listen[0]`).
    pub(super) origins: BTreeMap<String, Origin>,
}

impl Layers {
    /// The bottom layer: the file's text.
    pub(super) fn from_text(path: &Path, text: &str) -> Result<Self, Problem> {
        let spans = DeTable::parse(text).map_err(|error| syntax(path, text, &error))?;
        let table = toml::from_str(text).map_err(|error| syntax(path, text, &error))?;
        let mut layers = Self {
            path: path.to_owned(),
            table,
            origins: BTreeMap::new(),
        };
        let lines = LineIndex::new(text);
        layers.note_table("", spans.get_ref(), &lines);
        Ok(layers)
    }

    fn note_table(&mut self, prefix: &str, table: &DeTable<'_>, lines: &LineIndex) {
        for (key, value) in table {
            let path = join(prefix, key.get_ref());
            let line = lines.line(key.span().start);
            self.origins.insert(path.clone(), Origin::File { line });
            self.note_value(&path, value, lines);
        }
    }

    fn note_value(&mut self, path: &str, value: &Spanned<DeValue<'_>>, lines: &LineIndex) {
        match value.get_ref() {
            DeValue::Table(table) => self.note_table(path, table, lines),
            DeValue::Array(array) => {
                for (index, element) in array.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    let line = lines.line(element.span().start);
                    self.origins.insert(path.clone(), Origin::File { line });
                    self.note_value(&path, element, lines);
                }
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }

    /// Lays one value over what is there.
    pub(super) fn set(
        &mut self,
        defaults: &BTreeMap<String, Value>,
        key: &str,
        text: &str,
        origin: Origin,
    ) -> Result<(), Problem> {
        let Some(example) = example(defaults, key) else {
            return Err(self.unknown(defaults, key, &origin));
        };
        let value = read(example, text).ok_or_else(|| Problem {
            place: Place::of(&origin, &self.path),
            key: key.to_owned(),
            wrong: format!("`{}` is not {}", clip(text), kind(example)),
            remedy: format!("the default is `{example}`"),
        })?;
        let replaced = format!("{key}[");
        self.origins
            .retain(|known, _| !known.starts_with(&replaced));
        if !put(&mut self.table, key, value) {
            return Err(Problem {
                place: Place::of(&origin, &self.path),
                key: key.to_owned(),
                wrong: "a part of this key is a value in the file, not a section".to_owned(),
                remedy: "make it a section there".to_owned(),
            });
        }
        self.origins.insert(key.to_owned(), origin);
        Ok(())
    }

    /// The problems of every key that does not exist.
    pub(super) fn unknown_keys(&self, defaults: &BTreeMap<String, Value>) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.walk("", &self.table, defaults, &mut problems);
        problems
    }

    fn walk(
        &self,
        prefix: &str,
        table: &Table,
        defaults: &BTreeMap<String, Value>,
        problems: &mut Vec<Problem>,
    ) {
        for (key, value) in table {
            let path = join(prefix, key);
            let section = is_section(defaults, &path);
            match value {
                Value::Table(inner) if section => self.walk(&path, inner, defaults, problems),
                _ if section || example(defaults, &path).is_some() => {}
                _ => problems.push(self.unknown(defaults, &path, self.origin(&path))),
            }
        }
    }

    fn unknown(&self, defaults: &BTreeMap<String, Value>, key: &str, origin: &Origin) -> Problem {
        let remedy = match nearest(defaults, key) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "remove it; `quantraband config default` prints every key".to_owned(),
        };
        Problem {
            place: Place::of(origin, &self.path),
            key: clip(key),
            wrong: "unknown key".to_owned(),
            remedy,
        }
    }

    /// Where the value at `path` came from; an element's is its list's when it has none itself.
    pub(super) fn origin(&self, path: &str) -> &Origin {
        let list = path.split('[').next().unwrap_or_default();
        self.origins
            .get(path)
            .or_else(|| self.origins.get(list))
            .unwrap_or(&Origin::Default)
    }

    /// Where to look: at `key` when somebody set it, else at the first of `related` that
    /// somebody set.
    pub(super) fn blame(&self, key: &str, related: &[String]) -> &Origin {
        std::iter::once(key)
            .chain(related.iter().map(String::as_str))
            .map(|key| self.origin(key))
            .find(|origin| **origin != Origin::Default)
            .unwrap_or(&Origin::Default)
    }
}

/// The keys that environment variables set, with the variable's name; a name that looks like a
/// key but cannot be one is a problem, not silence.
pub(super) fn env_keys<'a>(
    env: &'a [(String, String)],
    defaults: &BTreeMap<String, Value>,
) -> Result<Vec<(String, &'a str, &'a str)>, Problem> {
    let mut found = Vec::new();
    for (variable, value) in env {
        let Some(rest) = variable.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        let lower = rest.to_ascii_lowercase();
        let section = lower.split('_').next().unwrap_or_default();
        if lower.contains("__") {
            found.push((lower.replace("__", "."), value.as_str(), variable.as_str()));
        } else if lower == "version" {
            found.push((lower, value.as_str(), variable.as_str()));
        } else if lower != section && is_section(defaults, section) {
            return Err(Problem {
                place: Place::Env(variable.clone()),
                key: String::new(),
                wrong: "names no key".to_owned(),
                remedy: format!(
                    "part the section from the key by two underscores: {ENV_PREFIX}{}__…",
                    section.to_ascii_uppercase()
                ),
            });
        }
    }
    Ok(found)
}

/// Whether `path` is a section (`limits`, `supervision.actors.swarm`).
fn is_section(defaults: &BTreeMap<String, Value>, path: &str) -> bool {
    let prefix = format!("{path}.");
    let actors = "supervision.actors";
    path == actors
        || path == PEERS
        || path
            .strip_prefix("supervision.actors.")
            .is_some_and(|name| !name.contains('.'))
        || defaults.keys().any(|key| key.starts_with(&prefix))
}

/// Reads a flag's or variable's text as a value of the example's type.
fn read(example: &Value, text: &str) -> Option<Value> {
    match example {
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Integer(_) => text.trim().parse().ok().map(Value::Integer),
        Value::Float(_) => text.trim().parse().ok().map(Value::Float),
        Value::Boolean(_) => text.trim().parse().ok().map(Value::Boolean),
        Value::Array(_) => read_list(text),
        Value::Datetime(_) | Value::Table(_) => None,
    }
}

/// A list: as TOML (`["a", "b"]`) or with commas (`a,b`); empty text is the empty list.
fn read_list(text: &str) -> Option<Value> {
    let text = text.trim();
    if text.starts_with('[') {
        let table: Table = toml::from_str(&format!("list = {text}")).ok()?;
        return table.get("list").cloned().filter(Value::is_array);
    }
    let items = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    Some(Value::Array(
        items.map(|item| Value::String(item.to_owned())).collect(),
    ))
}

fn kind(example: &Value) -> &'static str {
    match example {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "`true` or `false`",
        Value::Array(_) => "a list",
        Value::Datetime(_) | Value::Table(_) => "a value",
    }
}

/// Puts a value at a dotted key; `false` when something on the way is no table.
pub(super) fn put(table: &mut Table, key: &str, value: Value) -> bool {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            true
        }
        Some((section, rest)) => {
            let inner = table
                .entry(section)
                .or_insert_with(|| Value::Table(Table::new()));
            inner
                .as_table_mut()
                .is_some_and(|inner| put(inner, rest, value))
        }
    }
}

fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> Problem {
    let at = error.span().map_or(0, |span| span.start);
    let lines = LineIndex::new(text);
    let line = lines.line(at);
    let shown = text.lines().nth(line - 1).unwrap_or_default().trim();
    Problem {
        place: Place::Line(path.to_owned(), line),
        key: String::new(),
        wrong: format!(
            "not TOML: {} (in `{}`)",
            one_line(error.message()),
            clip(shown)
        ),
        remedy: "write `key = value` under a `[section]`; texts stand in \"quotes\", every key \
                 once"
            .to_owned(),
    }
}

/// A text on one line.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text of the operator's, safe to print and short.
pub(super) fn clip(text: &str) -> String {
    /// Enough to recognise a value by; keeps messages to a line.
    const MAX: usize = 80;
    let mut shown: String = text.chars().take(MAX).collect();
    if text.chars().nth(MAX).is_some() {
        shown.push('…');
    }
    shown.escape_debug().to_string()
}

/// Finds the line of a byte.
struct LineIndex(Vec<usize>);

impl LineIndex {
    fn new(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line of the byte `at`, counted from 1.
    fn line(&self, at: usize) -> usize {
        self.0.partition_point(|end| *end < at) + 1
    }
}
