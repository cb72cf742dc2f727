//! Whatever a peer sends, the meter's bounds hold.

use proptest::prelude::*;

use super::{
    CONNECTION_WINDOW, Frames, STRANGER_WINDOW,
    meter::{FRAME, MAX_BODY, Meter},
};

/// One step of a peer, or of this node's readers.
#[derive(Debug, Clone)]
enum Step {
    /// A frame of data for a stream.
    Data(u32, usize),
    /// A stream is read empty.
    Read(u32),
    /// A stream is dropped here, and Yamux has let go of it.
    Drop(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let stream = (0u32..6).prop_map(|n| n * 2 + 1);
    let size = prop_oneof![Just(0), Just(1), 1..64usize, Just(200 << 10)];
    let step = prop_oneof![
        20 => (stream.clone(), size).prop_map(|(stream, size)| Step::Data(stream, size)),
        1 => stream.clone().prop_map(Step::Read),
        1 => stream.prop_map(Step::Drop),
    ];
    proptest::collection::vec(step, 1..400)
}

fn header(flags: u16, stream: u32, length: usize) -> Vec<u8> {
    let mut frame = vec![0, 0];
    frame.extend(flags.to_be_bytes());
    frame.extend(stream.to_be_bytes());
    frame.extend(u32::try_from(length).unwrap().to_be_bytes());
    frame
}

/// What Yamux would keep: bytes and frames by stream.
type Kept = std::collections::HashMap<u32, (usize, usize)>;

/// As many frames as the meter lets in of one step repeated; `false` when it found a breach.
fn send(meter: &mut Meter, kept: &mut Kept, stream: u32, size: usize) -> bool {
    for _ in 0..3_000 {
        if !matches!(meter.room(), Ok(Some(_))) {
            return meter.room().is_ok();
        }
        let opens = u16::from(!kept.contains_key(&stream));
        if meter.arrived(&header(opens, stream, size)).is_err() {
            return false;
        }
        let held = kept.entry(stream).or_default();
        if size > 0 {
            *held = (held.0 + size, held.1 + 1);
            if meter.arrived(&vec![0; size]).is_err() {
                return false;
            }
        }
    }
    true
}

proptest! {
    /// Each frame is an allocation and a queue entry for Yamux, however little it carries: bytes and
    /// frames together are bounded, whatever is sent, read and dropped in whatever order.
    #[test]
    fn frames_and_what_they_carry_never_pass_the_window(steps in steps(), accepted: bool) {
        let mut meter = Meter::default();
        meter.peer_is_client(true);
        let mut window = STRANGER_WINDOW;
        if accepted {
            let _ = meter.accept();
            window = CONNECTION_WINDOW;
        }
        let mut kept = Kept::new();
        for step in steps {
            match step {
                Step::Data(stream, size) => {
                    if !send(&mut meter, &mut kept, stream, size) {
                        break;
                    }
                }
                Step::Read(stream) => {
                    if let Some(held) = kept.get_mut(&stream) {
                        let _ = meter.consumed(stream, held.0);
                        *held = (0, 0);
                    }
                }
                Step::Drop(stream) => {
                    let _ = meter.gone(stream);
                    meter.polling();
                    let _ = meter.idle(true).unwrap();
                    kept.remove(&stream);
                }
            }
            let cost = kept.values().map(|(bytes, frames)| bytes + frames * FRAME);
            let cost: usize = cost.sum();
            prop_assert!(cost <= window + MAX_BODY.min(200 << 10) + FRAME, "{cost}");
            prop_assert_eq!(cost, meter.total());
        }
    }

    /// Whatever bytes come in whatever pieces: no more is held than the window and one frame.
    #[test]
    fn no_bytes_break_the_meter(
        bytes in proptest::collection::vec(any::<u8>(), 0..4_096),
        piece in 1usize..40,
        accepted: bool,
    ) {
        let mut frames = Frames::new(accepted);
        let mut breached = false;
        for piece in bytes.chunks(piece) {
            let taken = frames.take(piece);
            prop_assert!(!breached || taken.is_err(), "a breach is for good");
            breached = taken.is_err();
            prop_assert!(frames.held() <= Frames::MOST);
        }
    }
}
