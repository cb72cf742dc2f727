//! Floods of gossip's control messages: well-formed, small, and each a little work for the node.

use futures::AsyncWriteExt;

use crate::{
    common::eventually,
    house::House,
    raw::{self, Raw},
};

/// Frames that one flood sends.
const FRAMES: u32 = 4_000;
const BURST: u32 = 100;

/// Protocol buffers: a field of bytes, all shorter than 128.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
    out.extend_from_slice(bytes);
    out
}

/// One frame of the gossipsub RPC with one control message, its length before it.
fn control(n: u32) -> Vec<u8> {
    let (topic, id) = (field(1, b"attacks"), [n.to_be_bytes(); 8].concat());
    let message = match n % 4 {
        0 => field(1, &[topic, field(2, &id)].concat()), // IHAVE
        1 => field(2, &field(1, &id)),                   // IWANT
        2 => field(3, &topic),                           // GRAFT
        _ => field(4, &topic),                           // PRUNE
    };
    let rpc = field(3, &message);
    [&[u8::try_from(rpc.len()).unwrap()], rpc.as_slice()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_control_messages_is_not_looked_at_once_its_sender_is_over_the_budget() {
    let house = House::build(&format!(
        "limits.frames_per_second = 1\nlimits.frame_burst = {BURST}"
    ));
    let raw = Raw::dial(75, &house.open_address()).await;
    let mut stream = raw.stream("/meshsub/1.1.0").await.unwrap();
    for first in (0..FRAMES).step_by(100) {
        let frames: Vec<u8> = (first..first + 100).flat_map(control).collect();
        raw::send(&mut stream, &frames).await;
    }
    let dropped = "quantraband_messages_refused_total{reason=\"neighbour_frames\"}";
    let mut looked_at = FRAMES;
    eventually("the rest is dropped", || {
        looked_at = FRAMES.saturating_sub(house.count(dropped));
        // What a second gives back while the flood is under way, and no more.
        (looked_at <= 2 * BURST).then_some(())
    });
    println!("counted: control frames sent {FRAMES}, looked at {looked_at}");
    let _ = stream.close().await;
    house.friend_is_served();
    let actors = house.attacked.json(&["actors"]);
    for actor in actors["actors"].as_array().unwrap() {
        assert_eq!(actor["restarts"], 0, "{actor}");
    }
}
