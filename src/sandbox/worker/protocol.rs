//! What a node and its worker process say to each other, over the worker's stdin and stdout.
//!
//! A frame is one byte of kind, four of length (little-endian) and that many bytes. Small frames
//! hold JSON. After an order the node sends the bytes it announces (module, input) as they are.
//!
//! The node's side ([`FromWorker`], [`Decoder`]) treats every byte as written by the guest: each
//! kind has its own bound, buffers grow with what has arrived and never with what was announced,
//! and texts are held to their form. The worker's side trusts its node.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio_util::{
    bytes::{Buf, BytesMut},
    codec,
};

use crate::sandbox::{ContentHash, Limits, MAX_CHUNK, Outcome, Stream, Usage};

/// Bytes before a frame's content.
const HEADER: usize = 5;
/// Most bytes of an order: arguments and environment, in JSON's longest way of writing them
/// (`\u0001` for one byte), twice over.
const MAX_ORDER: usize = 1 << 20;
/// Most bytes of what a worker says of itself.
const MAX_WORD: usize = 4 * 1024;
/// Largest compiled module. The node holds it in memory to authenticate it before a worker gets
/// it; real compilers compiled to WebAssembly (60 MiB) stay below.
pub(crate) const MAX_ARTIFACT: usize = 256 << 20;
/// Longest name of a trap.
const MAX_TRAP: usize = 64;

/// How machine code is made: each has its own compiled form of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// As wasmtime makes it: time is looked after by another thread, which ends the process.
    Plain,
    /// Counts instructions.
    Fuel,
    /// Counts instructions, and computes the same bits everywhere.
    Deterministic,
}

impl Mode {
    /// Every mode, in the order of [`Ready::fingerprints`].
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::Fuel, Self::Deterministic];

    /// A stable name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Fuel => "fuel",
            Self::Deterministic => "deterministic",
        }
    }
}

/// The node's first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// The guest's stack, bytes, of the jobs that are likely to come.
    pub(crate) stack: u64,
    /// Whether this process shall only show that it can protect itself, and say what its
    /// compiled modules are called.
    pub(crate) probe: bool,
}

/// The worker's first word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// For a probe: what a compiled module of each mode depends on, hashed.
    pub(crate) fingerprints: Option<[ContentHash; 3]>,
}

/// What a worker shall do, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(crate) enum Order {
    /// Check and compile the module that follows.
    Compile(CompileOrder),
    /// Run the compiled module that follows, with the input that follows it.
    Run(RunOrder),
}

/// To compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CompileOrder {
    /// For which engine.
    pub(crate) mode: Mode,
    /// Bytes of the module.
    pub(crate) module_len: u64,
    /// Most functions.
    pub(crate) max_functions: u32,
    /// Deepest nesting.
    pub(crate) max_nesting: u32,
    /// Most time, milliseconds.
    pub(crate) time_ms: u64,
    /// Most memory, bytes.
    pub(crate) memory: u64,
}

/// To run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunOrder {
    /// For which engine the module was compiled.
    pub(crate) mode: Mode,
    /// For deterministic mode.
    pub(crate) seed: u64,
    /// Bytes of the compiled module.
    pub(crate) artifact_len: u64,
    /// Bytes of standard input.
    pub(crate) input_len: u64,
    /// `argv`
    pub(crate) arguments: Vec<String>,
    /// The environment.
    pub(crate) environment: Vec<(String, String)>,
    /// What it may use.
    pub(crate) limits: Limits,
}

/// The worker's last word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// What became of the guest; after a compilation, `exited 0` follows a compiled module.
    pub(crate) outcome: Outcome,
    /// What was used.
    pub(crate) usage: Usage,
    /// The compiled module is none that this program can use.
    #[serde(default)]
    pub(crate) stale: bool,
}

/// Kinds of frames.
mod kind {
    pub(super) const SETUP: u8 = 1;
    pub(super) const ORDER: u8 = 2;
    pub(super) const CANCEL: u8 = 3;
    pub(super) const READY: u8 = 16;
    pub(super) const REFUSED: u8 = 17;
    pub(super) const STARTED: u8 = 18;
    pub(super) const STDOUT: u8 = 19;
    pub(super) const STDERR: u8 = 20;
    pub(super) const ARTIFACT: u8 = 21;
    pub(super) const VERDICT: u8 = 22;
}

/// Everything a worker can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FromWorker {
    /// It stands ready.
    Ready(Ready),
    /// It cannot protect itself, and why: at most 4 KiB, printable.
    Refused(String),
    /// The work begins: its time counts from here.
    Started,
    /// The guest wrote something: 1 to [`MAX_CHUNK`] bytes.
    Output(Stream, Vec<u8>),
    /// The compiled module.
    Artifact(Vec<u8>),
    /// The last word.
    Verdict(Verdict),
}

/// A worker that broke the protocol: it is not believed any more.
#[derive(Debug, Error)]
pub(crate) enum ProtocolError {
    /// The pipe broke.
    #[error("the pipe: {0}")]
    Pipe(#[from] io::Error),
    /// No such kind.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// Too long, or empty where something must be.
    #[error("a frame of kind {kind} with {length} bytes")]
    Length {
        /// Which kind.
        kind: u8,
        /// Announced.
        length: usize,
    },
    /// Not what its kind demands.
    #[error("a malformed frame of kind {0}")]
    Content(u8),
    /// Right in itself, but not now.
    #[error("{0} was not to be expected")]
    Unexpected(&'static str),
}

/// Cuts a worker's bytes into [`FromWorker`].
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// Whether compiled modules are expected at all.
    pub(crate) artifact: bool,
}

impl Decoder {
    fn bound(&self, kind: u8) -> Result<std::ops::RangeInclusive<usize>, ProtocolError> {
        Ok(match kind {
            kind::READY | kind::REFUSED | kind::VERDICT => 1..=MAX_WORD,
            kind::STARTED => 0..=0,
            kind::STDOUT | kind::STDERR => 1..=MAX_CHUNK,
            kind::ARTIFACT if self.artifact => 1..=MAX_ARTIFACT,
            _ => return Err(ProtocolError::Kind(kind)),
        })
    }
}

impl codec::Decoder for Decoder {
    type Item = FromWorker;
    type Error = ProtocolError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<FromWorker>, ProtocolError> {
        let Some((&[kind, a, b, c, d], content)) = source.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if !self.bound(kind)?.contains(&length) {
            return Err(ProtocolError::Length { kind, length });
        }
        if content.len() < length {
            return Ok(None);
        }
        source.advance(HEADER);
        let content = source.split_to(length);
        let frame = parse(kind, &content);
        if source.is_empty() && source.capacity() > 4 * MAX_CHUNK {
            // Do not keep the room of a compiled module.
            *source = BytesMut::new();
        }
        frame.map(Some)
    }
}

fn parse(kind: u8, content: &[u8]) -> Result<FromWorker, ProtocolError> {
    let malformed = ProtocolError::Content(kind);
    Ok(match kind {
        kind::READY => FromWorker::Ready(json(content).ok_or(malformed)?),
        kind::REFUSED => {
            let text = std::str::from_utf8(content).map_err(|_| malformed)?;
            FromWorker::Refused(text.escape_debug().collect())
        }
        kind::STARTED => FromWorker::Started,
        kind::STDOUT => FromWorker::Output(Stream::Stdout, content.to_vec()),
        kind::STDERR => FromWorker::Output(Stream::Stderr, content.to_vec()),
        kind::ARTIFACT => FromWorker::Artifact(content.to_vec()),
        kind::VERDICT => {
            let verdict: Verdict = json(content).ok_or(ProtocolError::Content(kind))?;
            if let Outcome::Trapped { trap } = &verdict.outcome
                && !is_trap_name(trap)
            {
                return Err(malformed);
            }
            FromWorker::Verdict(verdict)
        }
        other => return Err(ProtocolError::Kind(other)),
    })
}

fn is_trap_name(text: &str) -> bool {
    (1..=MAX_TRAP).contains(&text.len())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

fn json<T: DeserializeOwned>(content: &[u8]) -> Option<T> {
    serde_json::from_slice(content).ok()
}

fn frame(kind: u8, content: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(HEADER.saturating_add(content.len()));
    bytes.push(kind);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(content);
    Ok(bytes)
}

fn word(kind: u8, content: &impl Serialize) -> io::Result<Vec<u8>> {
    frame(kind, &serde_json::to_vec(content)?)
}

/// The node's frames.
pub(crate) mod from_node {
    use super::{CompileOrder, Order, RunOrder, Setup, frame, io, kind, word};

    /// The first word.
    pub(crate) fn setup(setup: &Setup) -> io::Result<Vec<u8>> {
        word(kind::SETUP, setup)
    }

    /// An order to compile.
    pub(crate) fn compile(order: CompileOrder) -> io::Result<Vec<u8>> {
        word(kind::ORDER, &Order::Compile(order))
    }

    /// An order to run.
    pub(crate) fn run(order: RunOrder) -> io::Result<Vec<u8>> {
        word(kind::ORDER, &Order::Run(order))
    }

    /// End the job.
    pub(crate) fn cancel() -> io::Result<Vec<u8>> {
        frame(kind::CANCEL, &[])
    }
}

/// Writes a worker's frame; every call is one write to the pipe, or few for a large one.
pub(crate) fn say(to: &mut impl Write, word_or_bytes: &FromWorker) -> io::Result<()> {
    let bytes = match word_or_bytes {
        FromWorker::Ready(ready) => word(kind::READY, ready)?,
        FromWorker::Refused(reason) => {
            let end = reason.floor_char_boundary(MAX_WORD);
            frame(kind::REFUSED, reason.get(..end).unwrap_or("?").as_bytes())?
        }
        FromWorker::Started => frame(kind::STARTED, &[])?,
        FromWorker::Output(Stream::Stdout, bytes) => frame(kind::STDOUT, bytes)?,
        FromWorker::Output(Stream::Stderr, bytes) => frame(kind::STDERR, bytes)?,
        FromWorker::Artifact(bytes) => frame(kind::ARTIFACT, bytes)?,
        FromWorker::Verdict(verdict) => word(kind::VERDICT, verdict)?,
    };
    to.write_all(&bytes)?;
    to.flush()
}

fn hear(from: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; HEADER];
    from.read_exact(&mut header)?;
    let [kind, a, b, c, d] = header;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).map_err(io::Error::other)?;
    if length > MAX_ORDER {
        return Err(io::Error::other("a frame too long"));
    }
    let mut content = vec![0; length];
    from.read_exact(&mut content)?;
    Ok((kind, content))
}

/// Reads the node's first word.
pub(crate) fn hear_setup(from: &mut impl Read) -> io::Result<Setup> {
    match hear(from)? {
        (kind::SETUP, content) => Ok(serde_json::from_slice(&content)?),
        _ => Err(io::Error::other("not a setup")),
    }
}

/// Reads the order.
pub(crate) fn hear_order(from: &mut impl Read) -> io::Result<Order> {
    match hear(from)? {
        (kind::ORDER, content) => Ok(serde_json::from_slice(&content)?),
        _ => Err(io::Error::other("not an order")),
    }
}

/// Waits for the node to cancel.
pub(crate) fn hear_cancel(from: &mut impl Read) -> io::Result<()> {
    match hear(from)? {
        (kind::CANCEL, _) => Ok(()),
        _ => Err(io::Error::other("not a cancellation")),
    }
}

/// Reads what was announced.
pub(crate) fn hear_bytes(from: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
