//! A peer that writes its own frames, over a pipe in memory, polled by hand.

use super::{super::bounded::*, *};
use crate::{config::LimitsConfig, types::ManualClock};
use futures::task::noop_waker;
use libp2p::core::muxing::StreamMuxerBox;
use proptest::prelude::*;
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

/// What the peer has sent and this side has not read; what this side writes is dropped.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<VecDeque<u8>>>, Arc<AtomicBool>);

impl Wire {
    fn send(&self, frames: &[Vec<u8>]) {
        self.0.lock().unwrap().extend(frames.iter().flatten());
    }

    /// The peer reads nothing more.
    fn hold_up(&self) {
        self.1.store(true, Ordering::Relaxed);
    }

    fn left(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut bytes = self.0.lock().unwrap();
        let most = buffer.len().min(bytes.len());
        if most == 0 {
            return Poll::Pending;
        }
        for (place, byte) in buffer.iter_mut().zip(bytes.drain(..most)) {
            *place = byte;
        }
        Poll::Ready(Ok(most))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.1.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.1.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

const DATA: u8 = 0;
const UPDATE: u8 = 1;
const PING: u8 = 2;
const SYN: u16 = 1;
const RST: u16 = 8;

fn header(kind: u8, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    let mut frame = vec![0, kind];
    frame.extend(flags.to_be_bytes());
    frame.extend(stream.to_be_bytes());
    frame.extend(length.to_be_bytes());
    frame
}

fn data(stream: u32, length: usize) -> Vec<u8> {
    let mut frame = header(DATA, 0, stream, u32::try_from(length).unwrap());
    frame.resize(frame.len() + length, 7);
    frame
}

fn open(stream: u32) -> Vec<u8> {
    header(UPDATE, SYN, stream, 0)
}

fn server(wire: &Wire) -> (Muxer<Wire>, Window) {
    let window = Window::default();
    let muxer = Muxer::new(wire.clone(), Mode::Server, window.clone());
    (muxer, window)
}

/// Drives the connection until it stands still; the streams the peer opened, or its end.
fn take<M: StreamMuxer + Unpin>(muxer: &mut M) -> Result<Vec<M::Substream>, M::Error> {
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    let mut streams = Vec::new();
    loop {
        match Pin::new(&mut *muxer).poll_inbound(&mut cx) {
            Poll::Ready(stream) => streams.push(stream?),
            Poll::Pending => return Ok(streams),
        }
    }
}

fn read(stream: &mut Stream) -> usize {
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    let (mut all, mut buffer) = (0, vec![0; 1 << 20]);
    while let Poll::Ready(Ok(read)) = Pin::new(&mut *stream).poll_read(&mut cx, &mut buffer) {
        if read == 0 {
            break;
        }
        all += read;
    }
    all
}

/// 64 streams, each filled to its own window: 16 MiB that Yamux alone would hold.
fn fill(wire: &Wire) -> usize {
    let streams: Vec<u32> = (0..64).map(|n| n * 2 + 1).collect();
    for stream in &streams {
        wire.send(&[open(*stream)]);
        wire.send(&vec![data(*stream, 16 << 10); 16]);
    }
    streams.len() * (256 << 10)
}

#[test]
fn what_lies_unread_is_bounded_and_nothing_of_it_is_lost() {
    for (accepted, bound) in [(false, STRANGER_WINDOW), (true, CONNECTION_WINDOW)] {
        let wire = Wire::default();
        let (mut muxer, window) = server(&wire);
        if accepted {
            window.accept();
        }
        let sent = fill(&wire);
        let mut streams = take(&mut muxer).unwrap();
        assert!(window.held() >= bound && window.held() <= bound + (17 << 10));
        assert!(wire.left() > sent / 2);

        // As it is read, the rest comes.
        let mut got = 0;
        loop {
            let more: usize = streams.iter_mut().map(read).sum();
            streams.extend(take(&mut muxer).unwrap());
            got += more;
            if more == 0 {
                break;
            }
        }
        assert_eq!((got, window.held(), wire.left()), (sent, 0, 0));
    }
}

#[test]
fn a_full_connection_goes_on_when_its_streams_are_let_go() {
    let wire = Wire::default();
    let (mut muxer, window) = server(&wire);
    // What still comes for streams that were let go counts as a control frame.
    window.accept();
    fill(&wire);
    let mut rounds = 0;
    while (wire.left() > 0 || window.held() > 0) && rounds < 1_000 {
        drop(take(&mut muxer).unwrap());
        rounds += 1;
    }
    assert_eq!((window.held(), wire.left()), (0, 0));
}

#[test]
fn streams_dropped_while_the_peer_does_not_read_count_until_they_are_let_go() {
    let wire = Wire::default();
    let (mut muxer, window) = server(&wire);
    window.accept();
    wire.send(&(0..200).map(|n| open(n * 2 + 1)).collect::<Vec<_>>());
    wire.hold_up();
    drop(take(&mut muxer).unwrap());
    for n in 0..200 {
        wire.send(&vec![data(n * 2 + 1, 16 << 10); 16]);
    }
    let sent = wire.left();
    let error = take(&mut muxer).err().unwrap();
    assert_eq!(Breach::of(&error), Some(Breach::Unread));
    assert!(window.held() <= CONNECTION_WINDOW + (32 << 10));
    assert!(wire.left() > sent / 2);
}

#[test]
fn small_frames_cost_what_they_cost_in_memory() {
    let wire = Wire::default();
    let (mut muxer, window) = server(&wire);
    window.accept();
    wire.send(&[open(1)]);
    wire.send(&vec![data(1, 1); 100_000]);
    let mut streams = take(&mut muxer).unwrap();
    let kept = 100_000 - wire.left() / 13;
    assert!(kept * 64 <= CONNECTION_WINDOW + 64, "{kept}");
    let mut got = 0;
    while got < 100_000 {
        let more: usize = streams.iter_mut().map(read).sum();
        assert!(more > 0);
        got += more;
        take(&mut muxer).unwrap();
    }
    assert_eq!((window.held(), wire.left()), (0, 0));
}

#[test]
fn frames_for_no_stream_are_no_gift() {
    let breach = |frames: &[Vec<u8>]| {
        let wire = Wire::default();
        let (mut muxer, window) = server(&wire);
        window.accept();
        wire.send(frames);
        take(&mut muxer).err().and_then(|error| Breach::of(&error))
    };
    assert_eq!(breach(&vec![data(999, 1); 16_384]), None);
    assert_eq!(breach(&vec![data(999, 1); 16_385]), Some(Breach::Controls));
    assert_eq!(breach(&vec![data(999, 256 << 10); 8]), None);
    let bytes = vec![data(999, 256 << 10); 9];
    assert_eq!(breach(&bytes), Some(Breach::Controls));
    assert_eq!(breach(&[open(2)]), Some(Breach::Opening));
    assert_eq!(breach(&[open(1), open(1)]), Some(Breach::Opening));

    // Opened and reset in one: Yamux takes it for no stream, and nothing is kept of it.
    let wire = Wire::default();
    let (mut muxer, window) = server(&wire);
    let mut frame = header(DATA, SYN | RST, 1, 100);
    frame.resize(frame.len() + 100, 7);
    wire.send(&[frame]);
    assert!(take(&mut muxer).unwrap().is_empty());
    assert_eq!(window.held(), 0);
}

#[test]
fn a_frame_above_every_window_is_a_breach_before_its_body_comes() {
    for (accepted, length) in [(false, STRANGER_WINDOW + 1), (true, (256 << 10) + 1)] {
        let wire = Wire::default();
        let (mut muxer, window) = server(&wire);
        if accepted {
            window.accept();
        }
        wire.send(&[open(1), header(DATA, 0, 1, u32::try_from(length).unwrap())]);
        let error = loop {
            if let Err(error) = take(&mut muxer) {
                break error;
            }
        };
        assert_eq!(Breach::of(&error), Some(Breach::Frame));
    }
}

#[test]
fn a_flood_of_control_frames_is_a_breach() {
    let wire = Wire::default();
    let (mut muxer, _) = server(&wire);
    wire.send(&vec![header(PING, SYN, 0, 1); 64]);
    assert!(take(&mut muxer).is_ok());
    wire.send(&[header(PING, SYN, 0, 1)]);
    let error = take(&mut muxer).err().unwrap();
    assert_eq!(Breach::of(&error), Some(Breach::Controls));

    // An accepted peer has far more, and them anew each second.
    let wire = Wire::default();
    let (mut muxer, window) = server(&wire);
    window.accept();
    for _ in 0..3 {
        wire.send(&vec![header(UPDATE, 0, 9, 1); 16_384]);
        assert!(take(&mut muxer).is_ok());
        window.forgive();
    }
    wire.send(&vec![header(UPDATE, 0, 9, 1); 16_385]);
    let error = take(&mut muxer).err().unwrap();
    assert_eq!(Breach::of(&error), Some(Breach::Controls));
}

#[test]
fn streams_nobody_takes_wait_in_a_bounded_queue() {
    let wire = Wire::default();
    let (mut muxer, window) = server(&wire);
    window.accept();
    wire.send(
        &(0..=u32::try_from(QUEUE).unwrap())
            .map(|n| open(n * 2 + 1))
            .collect::<Vec<_>>(),
    );
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    let mut polls = 0;
    let error = loop {
        polls += 1;
        assert!(polls < 10_000);
        if let Poll::Ready(Err(error)) = Pin::new(&mut muxer).poll(&mut cx) {
            break error;
        }
    };
    assert_eq!(Breach::of(&error), Some(Breach::Streams));
    assert_eq!(muxer.waiting.len(), QUEUE);
}

/// A connection within `limits`, and how often a breach was told.
fn bounded(wire: &Wire, limits: StreamLimits) -> (Bounded, ManualClock, Arc<AtomicUsize>) {
    let (muxer, window) = server(wire);
    let clock = ManualClock::default();
    let told = Arc::new(AtomicUsize::new(0));
    let telling = Arc::clone(&told);
    let muxer = StreamMuxerBox::new(muxer);
    let bounded = Bounded::new(
        muxer,
        Some(window),
        limits,
        Arc::new(clock.clone()),
        Box::new(move |_| {
            telling.fetch_add(1, Ordering::Relaxed);
        }),
    );
    (bounded, clock, told)
}

const LIMITS: StreamLimits = StreamLimits {
    at_once: 20,
    per_second: 10,
    burst: 50,
};

#[test]
fn streams_at_once_are_limited_and_those_that_end_make_room() {
    let wire = Wire::default();
    let (mut muxer, _, told) = bounded(&wire, LIMITS);
    wire.send(&(0..20).map(|n| open(n * 2 + 1)).collect::<Vec<_>>());
    let mut streams = take(&mut muxer).unwrap();
    assert_eq!(streams.len(), 20);
    streams.pop();
    wire.send(&[open(101)]);
    streams.extend(take(&mut muxer).unwrap());
    wire.send(&[open(103)]);
    let error = take(&mut muxer).err().unwrap();
    assert_eq!(Breach::of(&error), Some(Breach::Streams));
    // It stays ended, and whoever asked was told once.
    let again = take(&mut muxer).err().unwrap();
    assert_eq!(Breach::of(&again), Some(Breach::Streams));
    assert_eq!(told.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_disconnected_all_the_same() {
    let wire = Wire::default();
    let (mut muxer, ..) = bounded(&wire, LIMITS);
    wire.hold_up();
    let closed = std::future::poll_fn(|cx| Pin::new(&mut muxer).poll_close(cx));
    assert!(closed.await.is_ok());
}

#[test]
fn streams_that_are_reset_at_once_count_all_the_same() {
    let wire = Wire::default();
    let limits = StreamLimits {
        at_once: 1_000,
        ..LIMITS
    };
    let (mut muxer, clock, _) = bounded(&wire, limits);
    let mut next = 1;
    let mut rapid = |count: u32| {
        for _ in 0..count {
            wire.send(&[open(next), header(DATA, RST, next, 0)]);
            next += 2;
        }
    };
    rapid(50);
    assert_eq!(take(&mut muxer).unwrap().len(), 50);
    clock.advance(Duration::from_secs(1));
    rapid(10);
    assert_eq!(take(&mut muxer).unwrap().len(), 10);
    rapid(1);
    let error = take(&mut muxer).err().unwrap();
    assert_eq!(Breach::of(&error), Some(Breach::StreamRate));
}

#[test]
fn a_breach_below_is_told_above() {
    let wire = Wire::default();
    let (mut muxer, _, told) = bounded(&wire, LIMITS);
    wire.send(&[header(DATA, 0, 1, 1 << 30)]);
    assert!(take(&mut muxer).is_err());
    assert_eq!(told.load(Ordering::Relaxed), 1);
}

#[test]
fn job_requests_never_run_into_the_limit_of_streams() {
    let limits = LimitsConfig {
        job_requests_per_second: 5_000,
        job_request_burst: 6_000,
        ..LimitsConfig::default()
    };
    let streams = StreamLimits::from(&limits);
    assert_eq!((streams.per_second, streams.burst), (5_000, 6_000));
}

proptest! {
    /// Whatever bytes come in whatever pieces: no more is held than the window and one frame, and
    /// no more streams are known than a connection may have.
    #[test]
    fn no_bytes_break_the_meter(
        bytes in proptest::collection::vec(any::<u8>(), 0..4_096),
        piece in 1usize..40,
        accepted: bool,
    ) {
        let mut meter = Meter::default();
        if accepted {
            let _ = meter.accept();
        }
        let mut rest = bytes.as_slice();
        while let Ok(Some(room)) = meter.room()
            && !rest.is_empty()
        {
            let (now, later) = rest.split_at(room.min(piece).min(rest.len()));
            if meter.arrived(now).is_err() {
                prop_assert!(meter.room().is_err());
                break;
            }
            rest = later;
            prop_assert!(meter.total() <= CONNECTION_WINDOW + (257 << 10));
        }
    }
}
