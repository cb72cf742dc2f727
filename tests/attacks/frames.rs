//! Oversize and malformed frames at every protocol: the stream or the connection ends, nothing
//! else does, and no frame is read beyond its bound.

use quantraband::{identity, network::gate, sandbox};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    common::eventually,
    house::House,
    raw::{self, Raw, soon},
};

/// A length no protocol here allows, as a variable-length integer.
const HUGE: [u8; 5] = [0xff, 0xff, 0xff, 0xff, 0x0f];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_before_authentication_ends_that_connection_and_is_counted() {
    let house = House::build("");
    let hello = b"\x13/multistream/1.0.0\n";
    let noise = [&hello[..], b"\x07/noise\n"].concat();
    let tls = [&hello[..], b"\x0b/tls/1.0.0\n"].concat();
    let openings = [
        // No multistream at all; a line longer than any; a line that is none.
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        HUGE.to_vec(),
        [&hello[..], &[0x05], b"abcde"].concat(),
        // Noise: a message of nothing, one of rubbish, the largest of rubbish.
        [&noise[..], &[0, 0]].concat(),
        [&noise[..], &[0, 3, 1, 2, 3]].concat(),
        [&noise[..], &[0xff, 0xff], &[7; 0xffff]].concat(),
        // TLS: no record, one of a wrong version, an oversize one.
        [&tls[..], b"not a record at all"].concat(),
        [&tls[..], &[22, 3, 1, 0xff, 0xff], &[0; 70_000]].concat(),
    ];
    for opening in openings {
        let before = house.denied_in_all();
        let mut socket = TcpStream::connect(("127.0.0.1", house.attacked.port))
            .await
            .unwrap();
        // The node may hang up in the middle of it.
        let _ = socket.write_all(&opening).await;
        let mut answer = Vec::new();
        let _ = soon("the node hangs up", socket.read_to_end(&mut answer)).await;
        eventually(
            &format!("{:?} is counted", opening.get(..32.min(opening.len()))),
            || (house.denied_in_all() > before).then_some(()),
        );
    }
    house.friend_is_served();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversize_frame_at_the_gate_is_a_violation_before_its_body() {
    let house = House::build("");
    let before = house.denied("malformed") + house.denied("violation");
    let raw = Raw::dial(51, &house.attacked.address()).await;
    let mut gate = raw.stream(gate::PROTOCOL).await.unwrap();
    raw::send(&mut gate, &[0xff; 4]).await;
    raw.cut_off().await;
    eventually("it is counted", || {
        (house.denied("malformed") + house.denied("violation") > before).then_some(())
    });
    house.friend_is_served();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_on_every_protocol_of_an_accepted_peer_harms_nobody_else() {
    let house = House::build("");
    let protocols = [
        identity::wire::PROTOCOL,
        sandbox::wire::PROTOCOL,
        identity::enrolment::PROTOCOL,
        quantraband::admin::remote::PROTOCOL,
        "/meshsub/1.1.0",
        "/ipfs/id/push/1.0.0",
        "/ipfs/ping/1.0.0",
    ];
    let nonsense: [Vec<u8>; 4] = [
        HUGE.to_vec(),
        vec![0xff; 1 << 16],
        vec![0x05, 0x0a, 0x03, 0xff, 0xff, 0xff],
        vec![0; 1 << 20],
    ];
    let cases = protocols
        .iter()
        .flat_map(|protocol| nonsense.iter().map(move |bytes| (*protocol, bytes)));
    // A peer each: who was cut off for one of them would not be let in for the next.
    for (n, (protocol, bytes)) in (60..).zip(cases) {
        let raw = Raw::dial(n, &house.open_address()).await;
        raw.is_let_in().await;
        let mut stream = raw.stream(protocol).await.expect("a stream");
        raw::send(&mut stream, bytes).await;
        let closing = futures::AsyncWriteExt::close(&mut stream);
        let _ = tokio::time::timeout(raw::SENDING, closing).await;
        // The node ends the stream, or the whole connection, and nothing else.
        raw::ended(&mut stream).await;
    }
    house.friend_is_served();
    let actors = house.attacked.json(&["actors"]);
    for actor in actors["actors"].as_array().unwrap() {
        assert_eq!(actor["restarts"], 0, "{actor}");
    }
}
