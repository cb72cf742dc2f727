//! What one Yamux connection holds in memory, counted from the frames as they arrive.
//!
//! Pure: it sees every byte that comes from the peer, and is told what is read and let go.
//! Yamux's own flow control bounds single streams (256 KiB each); this bounds their sum, which
//! Yamux only bounds at the streams' number times that.
//!
//! # Invariants
//! - Before a frame begins, less than the bound is held; so at most the bound and one frame are.
//! - A frame costs what it carries and [`FRAME`], as it does in memory.
//! - A stream dropped here counts until Yamux let go of it too, which it does not while the
//!   socket takes no writes.
//! - Once a breach is found every further read fails.

use std::{collections::HashMap, task::Waker};

use super::{Breach, FIRST_WINDOW, MAX_STREAMS};

/// Bytes of a Yamux header: version, type, flags, stream, length.
const HEADER: usize = 12;
const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 1;
const SYN: u16 = 1;
const RST: u16 = 8;

/// Bytes that may lie unread in all streams of an accepted peer's connection together: what
/// QUIC's connections get too. 50 ms away it still carries 40 MB a second.
pub const CONNECTION_WINDOW: usize = 2 << 20;
/// The same before this node accepted the peer: the largest frame of the gate (64 KiB) and what
/// surrounds it, twice.
pub const STRANGER_WINDOW: usize = 128 << 10;
/// Largest body of a frame: what a stream's first window holds. Implementations cut at 16 KiB
/// (Rust) or 64 KiB (Go, JavaScript).
const MAX_BODY: usize = 256 << 10;
/// Frames without a body that a peer may send before it is accepted: pings, window updates,
/// closes. An honest one sends a handful.
const STRANGER_CONTROLS: u64 = 64;
/// The same for an accepted peer in one second. An honest one sends one for each 128 KiB it reads
/// and a few a stream: this many carry 2 GB a second.
const CONTROLS_PER_SECOND: u64 = 16_384;

/// What a frame costs in memory beside its bytes: Yamux keeps each in an allocation and a queue
/// entry of its own.
const FRAME: usize = 64;
/// Most bytes that may still come for streams let go: each had a first window at most.
const MOST_STRAYS: usize = MAX_STREAMS * FIRST_WINDOW;

/// What a stream has unread.
#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    /// [`FRAME`] for each frame since the stream was last read empty.
    overhead: usize,
    /// Dropped before the poll that is under way began.
    before: bool,
}

impl Held {
    fn all(&self) -> usize {
        self.bytes.saturating_add(self.overhead)
    }
}

/// Counts for one connection.
#[derive(Debug, Default)]
pub(super) struct Meter {
    accepted: bool,
    header: [u8; HEADER],
    /// Bytes of the header that have come.
    have: usize,
    /// Bytes of the frame's body that are still to come.
    body: usize,
    /// Whether the peer, being the client, opens streams with odd numbers.
    odd: bool,
    /// The streams that are held open here.
    held: HashMap<u32, Held>,
    /// Those dropped here that Yamux may still keep.
    parting: HashMap<u32, Held>,
    /// What both have unread.
    total: usize,
    /// Bytes for streams that are not known, since they were last forgiven.
    strays: usize,
    /// How many more of them streams that are gone leave to be expected.
    expected: usize,
    /// Frames without a body: before acceptance in all, then in this second.
    controls: u64,
    breach: Option<Breach>,
    /// Woken when there is room again.
    reader: Option<Waker>,
}

impl Meter {
    /// How many bytes may be read now without passing into the next part of a frame; `None`
    /// when no further frame may begin.
    pub(super) fn room(&self) -> Result<Option<usize>, Breach> {
        if let Some(breach) = self.breach {
            return Err(breach);
        }
        if self.body > 0 {
            return Ok(Some(self.body));
        }
        if self.have == 0 && self.total >= self.window() {
            return Ok(None);
        }
        Ok(Some(HEADER.saturating_sub(self.have)))
    }

    fn window(&self) -> usize {
        if self.accepted {
            CONNECTION_WINDOW
        } else {
            STRANGER_WINDOW
        }
    }

    /// Wakes `waker` when there is room.
    pub(super) fn wait(&mut self, waker: &Waker) {
        self.reader = Some(waker.clone());
    }

    /// These bytes came; at most as many as [`Meter::room`] allowed.
    pub(super) fn arrived(&mut self, bytes: &[u8]) -> Result<(), Breach> {
        if self.body > 0 {
            self.body = self.body.saturating_sub(bytes.len());
            return Ok(());
        }
        for (place, byte) in self.header.iter_mut().skip(self.have).zip(bytes) {
            *place = *byte;
        }
        self.have = self.have.saturating_add(bytes.len());
        if self.have < HEADER {
            return Ok(());
        }
        self.have = 0;
        let framed = self.frame();
        self.breach = framed.err();
        framed
    }

    fn frame(&mut self) -> Result<(), Breach> {
        let [_, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = self.header;
        let flags = u16::from_be_bytes([f0, f1]);
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let body = if kind == DATA { length } else { 0 };
        if body > MAX_BODY || (body > STRANGER_WINDOW && !self.accepted) {
            return Err(Breach::Frame);
        }
        let opens = self.opens(kind, flags, stream)?;
        let known = self.held.contains_key(&stream) || self.parting.contains_key(&stream);
        let kept = body > 0 && flags & RST == 0 && (opens || known);
        if !kept {
            self.carries_nothing(body)?;
        }
        if opens {
            self.held.entry(stream).or_default();
        }
        let held = self.held.get_mut(&stream);
        if kept && let Some(held) = held.or_else(|| self.parting.get_mut(&stream)) {
            held.bytes = held.bytes.saturating_add(body);
            held.overhead = held.overhead.saturating_add(FRAME);
            self.total = self.total.saturating_add(body).saturating_add(FRAME);
        }
        self.body = body;
        Ok(())
    }

    /// Whether a frame opens a stream, as Yamux decides it.
    fn opens(&self, kind: u8, flags: u16, stream: u32) -> Result<bool, Breach> {
        // Yamux looks at the reset first and then at nothing else.
        if flags & SYN == 0 || flags & RST != 0 || !matches!(kind, DATA | WINDOW_UPDATE) {
            return Ok(false);
        }
        let known = self.held.contains_key(&stream) || self.parting.contains_key(&stream);
        if known || (stream % 2 == 1) != self.odd {
            return Err(Breach::Opening);
        }
        let all = self.held.len().saturating_add(self.parting.len());
        if self.held.len() >= MAX_STREAMS || all >= super::MOST_KEPT {
            return Err(Breach::Streams);
        }
        Ok(true)
    }

    /// A frame of which nothing is kept: it has no body, or it is for no stream.
    fn carries_nothing(&mut self, body: usize) -> Result<(), Breach> {
        self.controls = self.controls.saturating_add(1);
        let most = if self.accepted {
            CONTROLS_PER_SECOND
        } else {
            STRANGER_CONTROLS
        };
        let expected = self.expected.min(body);
        self.expected = self.expected.saturating_sub(expected);
        let stray = body.saturating_sub(expected);
        self.strays = self.strays.saturating_add(stray);
        if self.controls > most || self.strays > self.window() {
            return Err(Breach::Controls);
        }
        Ok(())
    }

    /// Whether the peer is the client of the connection.
    pub(super) fn peer_is_client(&mut self, client: bool) {
        self.odd = client;
    }

    /// A stream that was opened here.
    pub(super) fn opened(&mut self, stream: u32) {
        self.held.entry(stream).or_default();
    }

    /// Bytes of a stream were read.
    #[must_use]
    pub(super) fn consumed(&mut self, stream: u32, bytes: usize) -> Option<Waker> {
        if let Some(held) = self.held.get_mut(&stream) {
            let before = held.all();
            held.bytes = held.bytes.saturating_sub(bytes);
            // Only then is it certain that no frame is left; a reader can always get there.
            if held.bytes == 0 {
                held.overhead = 0;
            }
            let less = before.saturating_sub(held.all());
            self.total = self.total.saturating_sub(less);
        }
        self.wake()
    }

    /// A stream was dropped here. The connection is to be polled, so that Yamux lets go of it.
    #[must_use]
    pub(super) fn gone(&mut self, stream: u32) -> Option<Waker> {
        if let Some(held) = self.held.remove(&stream) {
            self.parting.insert(stream, held);
        }
        self.reader.take()
    }

    /// Yamux is about to be polled.
    pub(super) fn polling(&mut self) {
        for held in self.parting.values_mut() {
            held.before = true;
        }
    }

    /// Yamux has done all there was to do. Where no write was held up (`written`), it let go of
    /// every stream dropped before; else it may keep them, and more than a window of them is
    /// what only a peer makes that sends and does not read.
    pub(super) fn idle(&mut self, written: bool) -> Result<Option<Waker>, Breach> {
        if !written {
            let parting = self.parting.values().map(Held::all);
            if parting.fold(0, usize::saturating_add) >= self.window() {
                self.breach = Some(Breach::Unread);
                return Err(Breach::Unread);
            }
            return Ok(None);
        }
        let (mut less, mut more) = (0_usize, self.expected);
        self.parting.retain(|_, held| {
            if held.before {
                less = less.saturating_add(held.all());
                more = more.saturating_add(FIRST_WINDOW);
            }
            !held.before
        });
        self.total = self.total.saturating_sub(less);
        self.expected = more.min(MOST_STRAYS);
        Ok(self.wake())
    }

    /// This node accepted the peer.
    #[must_use]
    pub(super) fn accept(&mut self) -> Option<Waker> {
        self.accepted = true;
        self.controls = 0;
        self.strays = 0;
        self.wake()
    }

    /// Another second has passed.
    pub(super) fn forgive(&mut self) {
        self.controls = 0;
        self.strays = 0;
    }

    fn wake(&mut self) -> Option<Waker> {
        if self.total < self.window() {
            self.reader.take()
        } else {
            None
        }
    }

    pub(super) fn breach(&self) -> Option<Breach> {
        self.breach
    }

    #[cfg(test)]
    pub(super) fn total(&self) -> usize {
        self.total
    }
}
