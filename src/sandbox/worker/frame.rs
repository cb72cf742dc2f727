//! Frames between node and worker: one byte kind, four bytes length (big-endian), payload.
//!
//! Both ends bound what they read. The node takes everything a worker says for hostile: a guest
//! may have taken the worker over.

use std::io::{self, Read, Write};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest payload. Output comes in smaller pieces; modules and inputs in pieces of this size.
pub(crate) const MAX_PAYLOAD: usize = 256 << 10;
/// Kind and length.
const HEADER: usize = 5;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    // From the node.
    /// Compile: an order.
    Compile = b'C',
    /// Run: an order.
    Run = b'R',
    /// A piece of a module, to be compiled or compiled already.
    Module = b'M',
    /// A piece of standard input.
    Input = b'I',
    /// All is there: begin.
    Go = b'G',
    /// Stop.
    Cancel = b'X',
    // From the worker.
    /// It is hardened and waits for an order.
    Ready = b'S',
    /// It could not be hardened; why.
    Failed = b'F',
    /// A piece of standard output.
    Stdout = b'O',
    /// A piece of standard error.
    Stderr = b'E',
    /// A piece of a compiled module.
    Compiled = b'B',
    /// The end.
    Report = b'D',
}

impl Kind {
    const ALL: [Self; 12] = [
        Self::Compile,
        Self::Run,
        Self::Module,
        Self::Input,
        Self::Go,
        Self::Cancel,
        Self::Ready,
        Self::Failed,
        Self::Stdout,
        Self::Stderr,
        Self::Compiled,
        Self::Report,
    ];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) bytes: Vec<u8>,
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn header(kind: Kind, length: usize) -> io::Result<[u8; HEADER]> {
    let length = u32::try_from(length).ok().filter(|_| length <= MAX_PAYLOAD);
    let [a, b, c, d] = length
        .ok_or_else(|| invalid("a frame is too long"))?
        .to_be_bytes();
    Ok([kind as u8, a, b, c, d])
}

fn parse([kind, a, b, c, d]: [u8; HEADER]) -> io::Result<(Kind, usize)> {
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    let kind = Kind::of(kind).ok_or_else(|| invalid("a frame of no known kind"))?;
    if length > MAX_PAYLOAD {
        return Err(invalid("a frame is too long"));
    }
    Ok((kind, length))
}

/// Writes a frame and flushes it.
pub(crate) fn write(out: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    out.write_all(&header(kind, bytes.len())?)?;
    out.write_all(bytes)?;
    out.flush()
}

/// Reads a frame; `None` at the end between two frames.
pub(crate) fn read(input: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut head = [0; HEADER];
    let (first, rest) = head.split_at_mut(1);
    if input.read(first)? == 0 {
        return Ok(None);
    }
    input.read_exact(rest)?;
    let (kind, length) = parse(head)?;
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    Ok(Some(Frame { kind, bytes }))
}

/// As [`write`], on the node's side.
pub(crate) async fn send<W: AsyncWrite + Unpin>(
    out: &mut W,
    kind: Kind,
    bytes: &[u8],
) -> io::Result<()> {
    out.write_all(&header(kind, bytes.len())?).await?;
    out.write_all(bytes).await
}

/// As [`read`], on the node's side. Not cancel-safe.
pub(crate) async fn receive<R: AsyncRead + Unpin>(input: &mut R) -> io::Result<Option<Frame>> {
    let mut head = [0; HEADER];
    let (first, rest) = head.split_at_mut(1);
    if input.read(first).await? == 0 {
        return Ok(None);
    }
    input.read_exact(rest).await?;
    let (kind, length) = parse(head)?;
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes).await?;
    Ok(Some(Frame { kind, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_round_trip_and_both_readers_agree() {
        let mut bytes = Vec::new();
        write(&mut bytes, Kind::Stdout, b"hello").unwrap();
        write(&mut bytes, Kind::Go, b"").unwrap();
        let mut input = bytes.as_slice();
        let first = read(&mut input).unwrap().unwrap();
        assert_eq!(
            (first.kind, first.bytes.as_slice()),
            (Kind::Stdout, &b"hello"[..])
        );
        assert_eq!(read(&mut input).unwrap().unwrap().kind, Kind::Go);
        assert_eq!(read(&mut input).unwrap(), None);
        assert!(write(&mut bytes, Kind::Module, &vec![0; MAX_PAYLOAD + 1]).is_err());
    }

    #[test]
    fn a_claimed_length_reserves_nothing_above_the_bound() {
        let lie = [b'O', 0xff, 0xff, 0xff, 0xff, 1, 2];
        assert!(read(&mut lie.as_slice()).is_err());
        let unknown = [b'?', 0, 0, 0, 0];
        assert!(read(&mut unknown.as_slice()).is_err());
        let cut = [b'O', 0, 0, 0, 9, 1];
        assert!(read(&mut cut.as_slice()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_alike_by_both_sides(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let blocking = read(&mut bytes.as_slice());
            let waiting = runtime.block_on(receive(&mut bytes.as_slice()));
            prop_assert_eq!(blocking.ok(), waiting.ok());
        }
    }
}
