//! Log lines: to stderr, one line an event, for people on a terminal and as JSON otherwise.
//!
//! Text of peers may stand in any field. Whatever could end a line, drive a terminal or turn text
//! around is escaped here, so that no peer can forge a line. (tracing-subscriber 0.3.23 does so
//! for the message alone, not for `%` fields.)

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::Arc,
};

use thiserror::Error;
use tracing::{Subscriber, field::Field};
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt,
    fmt::{
        MakeWriter,
        format::{Writer, debug_fn},
    },
};

use super::printable::{escape, is_hostile, printable};
use crate::config::{LogConfig, LogFormat};

/// Why logging could not begin.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// `log.level` is no filter.
    #[error("log.level `{}` is no filter: {reason}; write for example \"info\"", .level.escape_debug())]
    Filter {
        /// What was configured.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another subscriber is set already.
    #[error("logging was set up before: {0}")]
    Twice(String),
}

/// Libraries that write a line for whatever a peer does, which would let it fill the disk; what
/// matters of it this program counts and records itself. A filter of the operator's own that
/// names targets is taken as it is.
const QUIET: &str = "libp2p_gossipsub=error,libp2p_swarm=warn,actix_server=warn";

/// Sends the program's log lines to stderr as configured. Once a process.
///
/// # Errors
/// As [`LoggingError`] says.
pub fn init_logging(config: &LogConfig) -> Result<LogFilter, LoggingError> {
    let terminal = io::stderr().is_terminal();
    // https://no-color.org: any value that is not empty.
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let (subscriber, filter) = subscriber(config, terminal, terminal && !no_colour, io::stderr)?;
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|error| LoggingError::Twice(error.to_string()))?;
    Ok(filter)
}

/// Replaces the filter of the log's lines while the program runs.
#[derive(Clone)]
pub struct LogFilter(Arc<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>);

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogFilter").finish_non_exhaustive()
    }
}

impl LogFilter {
    /// One that changes nothing, where nothing is logged.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::new(|_| Ok(())))
    }

    /// From now on `level`, as `log.level` says it.
    ///
    /// # Errors
    /// [`LoggingError::Filter`]; the former filter stays.
    pub fn set(&self, level: &str) -> Result<(), LoggingError> {
        (self.0)(filter(level)?).map_err(|reason| LoggingError::Filter {
            level: level.to_owned(),
            reason,
        })
    }
}

fn filter(level: &str) -> Result<EnvFilter, LoggingError> {
    let text = match level {
        "info" | "warn" => format!("{level},{QUIET}"),
        other => other.to_owned(),
    };
    text.parse().map_err(
        |error: tracing_subscriber::filter::ParseError| LoggingError::Filter {
            level: level.to_owned(),
            reason: error.to_string(),
        },
    )
}

/// A subscriber that writes whole, clean lines to `writer`.
fn subscriber<W>(
    config: &LogConfig,
    terminal: bool,
    colour: bool,
    writer: W,
) -> Result<(Box<dyn Subscriber + Send + Sync>, LogFilter), LoggingError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let pretty = match config.format {
        LogFormat::Auto => terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let colour = colour && pretty;
    let filter = filter(&config.level)?;
    let builder = tracing_subscriber::fmt()
        .with_writer(CleanLines {
            inner: writer,
            colour,
        })
        .with_ansi(colour);
    Ok(if pretty {
        let fields = debug_fn(write_field).delimited(" ");
        let builder = builder
            .fmt_fields(fields)
            .with_env_filter(filter)
            .with_filter_reloading();
        let handle = builder.reload_handle();
        let set = move |filter| handle.reload(filter).map_err(|error| error.to_string());
        (Box::new(builder.finish()), LogFilter(Arc::new(set)))
    } else {
        let builder = builder
            .json()
            .flatten_event(true)
            .with_env_filter(filter)
            .with_filter_reloading();
        let handle = builder.reload_handle();
        let set = move |filter| handle.reload(filter).map_err(|error| error.to_string());
        (Box::new(builder.finish()), LogFilter(Arc::new(set)))
    })
}

/// Writes a field as `name=value` (the message as it is), its value made printable: here,
/// because in the finished line foreign escape sequences could not be told from our colours.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = format!("{value:?}");
    let text = printable(&text);
    match field.name() {
        "message" => write!(writer, "{text}"),
        name if writer.has_ansi_escapes() => write!(writer, "\x1b[3m{name}\x1b[0m={text}"),
        name => write!(writer, "{name}={text}"),
    }
}

/// Makes writers that keep an event on its line.
struct CleanLines<W> {
    inner: W,
    colour: bool,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for CleanLines<W> {
    type Writer = CleanWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        CleanWriter {
            inner: self.inner.make_writer(),
            colour: self.colour,
        }
    }
}

/// The last defence, for the JSON form and for whatever does not pass through a field: escapes
/// what would break the line. tracing-subscriber writes each event in one call.
struct CleanWriter<W> {
    inner: W,
    /// Escape sequences are ours.
    colour: bool,
}

impl<W: Write> Write for CleanWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (body, end) = match text.strip_suffix('\n') {
            Some(body) => (body, "\n"),
            None => (&*text, ""),
        };
        let colour = self.colour;
        let clean = escape(body, |c| is_hostile(c) && !(colour && c == '\u{1b}'));
        self.inner.write_all(clean.as_bytes())?;
        self.inner.write_all(end.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, colour: bool) -> String {
        let config = LogConfig {
            level: "info".to_owned(),
            format,
        };
        let buffer = Buffer::default();
        let out = buffer.clone();
        let subscriber = subscriber(&config, false, colour, move || out.clone())
            .unwrap()
            .0;
        tracing::subscriber::with_default(subscriber, || {
            let evil = "x\n2026 INFO forged\r\x1b[2J\u{9b}31m\0";
            tracing::info!(peer = evil, shown = %evil, debug = ?evil, "said {evil}");
            tracing::debug!("not shown");
        });
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_event_is_one_line_whatever_a_peer_says() {
        for format in [LogFormat::Pretty, LogFormat::Json, LogFormat::Auto] {
            let text = logged(format, false);
            assert_eq!(text.lines().count(), 1, "{text:?}");
            assert!(text.ends_with('\n'));
            let hostile = |c: char| c.is_control() && c != '\n';
            assert!(!text.contains(hostile), "{format:?}: {text:?}");
        }
    }

    #[test]
    fn colours_are_ours_alone() {
        let text = logged(LogFormat::Pretty, true);
        assert!(text.contains("\x1b["));
        assert!(!text.contains("\x1b[2J"), "{text:?}");
        assert!(!text.contains('\u{9b}'), "{text:?}");
    }

    #[test]
    fn without_a_terminal_lines_are_json() {
        let value: serde_json::Value =
            serde_json::from_str(&logged(LogFormat::Auto, false)).unwrap();
        assert_eq!(value["level"], "INFO");
        assert!(value["peer"].as_str().unwrap().contains("forged"));
    }

    #[test]
    fn a_bad_filter_is_named() {
        let config = LogConfig {
            level: "info,=,".to_owned(),
            format: LogFormat::Auto,
        };
        let result = subscriber(&config, false, false, io::sink);
        assert!(matches!(result, Err(LoggingError::Filter { .. })));
    }
}
