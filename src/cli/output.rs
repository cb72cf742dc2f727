//! Printing: data to stdout, everything else to stderr; text for people, JSON for programs.
//!
//! A JSON answer is one object on one line, with a `schema` field (`quantraband.status/1`) whose
//! number grows when a field changes its meaning or goes away. Foreign text is made printable.

use std::io::{self, ErrorKind, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};

use super::exit::{CliError, Exit};
use crate::telemetry::printable;

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// Where a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    format: Format,
    colour: bool,
}

impl Out {
    /// Prints in this format to the process's stdout and stderr.
    #[must_use]
    pub fn new(format: Format) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            format,
            colour: io::stdout().is_terminal() && !no_colour,
        }
    }

    /// The format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Prints an answer: as an object with its schema, or as the text that `text` makes.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn answer<T: Serialize>(
        &self,
        schema: &str,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        match self.format {
            Format::Text => self.line(text().trim_end()),
            Format::Json => self.line(&object(schema, value)?.to_string()),
        }
    }

    /// Prints a line to stdout and flushes it. A closed pipe ends the command without a failure.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn line(&self, line: &str) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{line}")
            .and_then(|()| stdout.flush())
            .map_err(|error| match error.kind() {
                ErrorKind::BrokenPipe => CliError::new(Exit::Ok, ""),
                _ => CliError::io("standard output", &error),
            })
    }

    /// Says something that is no data, on stderr.
    pub fn note(&self, text: &str) {
        let text = printable(text);
        let line = match self.format {
            Format::Text => text.into_owned(),
            Format::Json => json!({"schema": "quantraband.note/1", "message": text}).to_string(),
        };
        // Without stderr there is nobody to tell.
        let _ = writeln!(io::stderr(), "{line}");
    }

    /// Says why the command failed, on stderr.
    pub fn failure(&self, error: &CliError) {
        if error.message.is_empty() {
            return;
        }
        let text = match self.format {
            Format::Text => {
                let lines = error.message.lines().map(printable);
                lines.map(|line| format!("error: {line}\n")).collect()
            }
            Format::Json => {
                let value = json!({
                    "schema": "quantraband.error/1",
                    "exit": error.exit.code(),
                    "code": error.exit.name(),
                    "message": error.message,
                });
                format!("{value}\n")
            }
        };
        let _ = io::stderr().write_all(text.as_bytes());
    }

    /// A table with a head; every cell printable.
    #[must_use]
    pub fn table<const N: usize>(&self, head: [&str; N], rows: &[[String; N]]) -> String {
        let mut widths = head.map(|cell| cell.chars().count());
        let rows: Vec<[String; N]> = rows
            .iter()
            .map(|row| row.clone().map(|cell| printable(&cell).into_owned()))
            .collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |cells: &[String; N]| {
            let padded = cells.iter().zip(widths);
            let padded: Vec<_> = padded
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            padded.join("  ").trim_end().to_owned()
        };
        let head = line(&head.map(str::to_uppercase));
        let head = if self.colour {
            format!("\x1b[1m{head}\x1b[0m")
        } else {
            head
        };
        let lines = rows.iter().map(line);
        std::iter::once(head)
            .chain(lines)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Names and values, one a line; those without a value are left out.
    #[must_use]
    pub fn list(&self, items: &[(&str, String)]) -> String {
        let width = items.iter().map(|(name, _)| name.chars().count()).max();
        let width = width.unwrap_or_default();
        let mut out = String::new();
        for (name, value) in items.iter().filter(|(_, value)| !value.is_empty()) {
            out.push_str(&format!("{name:width$}  {}\n", printable(value)));
        }
        out
    }
}

/// `value` as an object with its schema. What is no object stands under `value`.
fn object<T: Serialize>(schema: &str, value: &T) -> Result<Value, CliError> {
    let value = serde_json::to_value(value).map_err(|error| {
        CliError::new(Exit::Software, format!("the answer has no JSON: {error}"))
    })?;
    let mut object = serde_json::Map::new();
    object.insert("schema".to_owned(), schema.into());
    match value {
        Value::Object(fields) => object.extend(fields),
        other => {
            object.insert("value".to_owned(), other);
        }
    }
    Ok(object.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: Out = Out {
        format: Format::Text,
        colour: false,
    };

    #[test]
    fn tables_align_and_are_clean() {
        let rows = [
            ["a".to_owned(), "long value".to_owned()],
            ["longer".to_owned(), "\x1b[2J\nx".to_owned()],
        ];
        let expected = "NAME    STATE\na       long value\nlonger  \\u001b[2J\\u000ax";
        assert_eq!(OUT.table(["name", "state"], &rows), expected);
        let coloured = Out {
            colour: true,
            ..OUT
        };
        assert!(coloured.table(["a"], &[]).starts_with("\x1b[1mA"));
    }

    #[test]
    fn lists_leave_out_what_is_empty() {
        let items = [
            ("a", "1".to_owned()),
            ("b", String::new()),
            ("long", "2".to_owned()),
        ];
        assert_eq!(OUT.list(&items), "a     1\nlong  2\n");
    }

    #[test]
    fn every_object_names_its_schema() {
        let value = object("quantraband.x/1", &json!({"a": 1})).unwrap();
        assert_eq!(value, json!({"a": 1, "schema": "quantraband.x/1"}));
        let value = object("quantraband.x/1", &[1]).unwrap();
        assert_eq!(value["value"][0], 1);
    }
}
