//! What one Yamux connection holds in memory, counted from the frames as they arrive.
//!
//! Pure: it sees every byte that comes from the peer, and is told what is read and let go.
//! Yamux's own flow control bounds single streams (256 KiB each); this bounds their sum, which
//! Yamux only bounds at the streams' number times that.
//!
//! # Invariants
//! - Before a frame begins, less than the bound is held; so at most the bound and one frame are.
//! - A stream's bytes are let go with the stream.
//! - Once a breach is found every further read fails.

use std::{collections::HashMap, task::Waker};

use super::{Breach, MAX_STREAMS};

/// Bytes of a Yamux header: version, type, flags, stream, length.
const HEADER: usize = 12;
const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 1;
const SYN: u16 = 1;

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

/// Counts for one connection.
#[derive(Debug, Default)]
pub(super) struct Meter {
    accepted: bool,
    header: [u8; HEADER],
    /// Bytes of the header that have come.
    have: usize,
    /// Bytes of the frame's body that are still to come.
    body: usize,
    /// Unread bytes of the streams that are held open here.
    held: HashMap<u32, usize>,
    total: usize,
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
        if body == 0 {
            self.controls = self.controls.saturating_add(1);
            let most = if self.accepted {
                CONTROLS_PER_SECOND
            } else {
                STRANGER_CONTROLS
            };
            if self.controls > most {
                return Err(Breach::Controls);
            }
        }
        if flags & SYN != 0 && matches!(kind, DATA | WINDOW_UPDATE) {
            if self.held.len() >= MAX_STREAMS {
                return Err(Breach::Streams);
            }
            self.held.entry(stream).or_default();
        }
        if let Some(held) = self.held.get_mut(&stream) {
            *held = held.saturating_add(body);
            self.total = self.total.saturating_add(body);
        }
        self.body = body;
        Ok(())
    }

    /// A stream that was opened here.
    pub(super) fn opened(&mut self, stream: u32) {
        self.held.entry(stream).or_default();
    }

    /// Bytes of a stream were read.
    #[must_use]
    pub(super) fn consumed(&mut self, stream: u32, bytes: usize) -> Option<Waker> {
        if let Some(held) = self.held.get_mut(&stream) {
            let bytes = bytes.min(*held);
            *held = held.saturating_sub(bytes);
            self.total = self.total.saturating_sub(bytes);
        }
        self.wake()
    }

    /// A stream is gone, and what it held.
    #[must_use]
    pub(super) fn gone(&mut self, stream: u32) -> Option<Waker> {
        let held = self.held.remove(&stream).unwrap_or_default();
        self.total = self.total.saturating_sub(held);
        self.wake()
    }

    /// This node accepted the peer.
    #[must_use]
    pub(super) fn accept(&mut self) -> Option<Waker> {
        self.accepted = true;
        self.controls = 0;
        self.wake()
    }

    /// Another second has passed.
    pub(super) fn forgive(&mut self) {
        self.controls = 0;
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
