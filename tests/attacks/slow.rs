//! Slow-loris at every step: each client goes as far as its step and then says nothing more. Each
//! is cut off at the step's deadline and counted, and the honest pair never notices.

use futures::AsyncReadExt as _;
use quantraband::{identity, network::gate, sandbox};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    house::House,
    raw::{self, Raw, soon},
};

/// A multistream message: its length and a line.
fn line(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 1).unwrap();
    [&[length], text.as_bytes(), b"\n"].concat()
}

/// Sends `bytes`, then waits in silence until the node hangs up.
async fn silent_after(port: u16, bytes: &[u8]) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let end = soon("the node hangs up", socket.read_to_end(&mut answer)).await;
    // A reset is an end too.
    let _ = end;
}

/// A byte every tenth of a second: never silent, never done.
async fn drip(port: u16, bytes: &[u8]) {
    let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut reader, mut writer) = socket.into_split();
    let endless = bytes.iter().cycle();
    let dripping = async {
        for byte in endless {
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let mut answer = Vec::new();
    soon("the node hangs up", async {
        tokio::select! {
            () = dripping => {}
            _ = reader.read_to_end(&mut answer) => {}
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_at_any_step_is_cut_off_there_and_counted() {
    let house = House::build("");
    let port = house.attacked.port;
    let hello = line("/multistream/1.0.0");

    let before = house.denied(gate::HANDSHAKE_TIMEOUT);
    let noise = [&hello[..], &line("/noise")].concat();
    // Noise XX begins with 32 bytes of any key, behind their length.
    let first = [&noise[..], &[0, 32], &[9; 32]].concat();
    let tls = [&hello[..], &line("/tls/1.0.0")].concat();
    // The head of a ClientHello of 512 bytes, and a little of it.
    let client_hello = [&tls[..], &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]].concat();
    tokio::join!(
        silent_after(port, b""),
        silent_after(port, &hello),
        silent_after(port, &noise),
        silent_after(port, &first),
        silent_after(port, &client_hello),
        drip(port, &[0x80]),
        drip(port, b"\x70/multistream/1.0.0 and so on"),
    );
    house.counted(gate::HANDSHAKE_TIMEOUT, before, 5);
    // Dripping nonsense may also be told from the protocol before time is up.
    let failed = house.denied(gate::HANDSHAKE_FAILED) + house.denied(gate::HANDSHAKE_TIMEOUT);
    assert!(failed >= before + 7, "{failed}");
    house.friend_is_served();

    // Authenticated, but without a word at the gate, or with half of one.
    let before = house.denied("identity_timeout");
    let address = house.attacked.address();
    let quiet = Raw::dial(41, &address).await;
    let half = Raw::dial(42, &address).await;
    let mut gate = half.stream(gate::PROTOCOL).await.unwrap();
    raw::send(&mut gate, &[0, 0]).await;
    let body = Raw::dial(43, &address).await;
    let mut begun = body.stream(gate::PROTOCOL).await.unwrap();
    raw::send(&mut begun, &[0, 0, 4, 0, 1, 2, 3]).await;
    for one in [&quiet, &half, &body] {
        one.cut_off().await;
    }
    house.counted("identity_timeout", before, 3);
    house.friend_is_served();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_never_ends_is_dropped_and_counted_on_every_protocol() {
    let house = House::build("network.idle_timeout = \"10m\"\n");
    let raw = Raw::dial(44, &house.open_address()).await;
    let protocols = [
        identity::wire::PROTOCOL,
        sandbox::wire::PROTOCOL,
        identity::enrolment::PROTOCOL,
        quantraband::admin::remote::PROTOCOL,
    ];
    for protocol in protocols {
        let before = house.denied("request_timeout");
        let mut stream = raw.stream(protocol).await.unwrap();
        raw::send(&mut stream, &[0xa2]).await;
        raw::ended(&mut stream).await;
        house.counted("request_timeout", before, 1);
    }
    // It was slow, not wrong: the connection stands, and a ping is answered.
    let mut ping = raw.stream("/ipfs/ping/1.0.0").await.unwrap();
    raw::send(&mut ping, &[7; 32]).await;
    let mut pong = [0; 32];
    soon("a pong", ping.read_exact(&mut pong)).await.unwrap();
    assert_eq!(pong, [7; 32]);
    house.friend_is_served();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_streams_ends_when_it_was_idle_long_enough() {
    let house = House::build("network.idle_timeout = \"1s\"\n");
    // It keeps no stream of its own and refuses those of the node.
    let raw = Raw::dial_refusing(45, &house.open_address()).await;
    raw.cut_off().await;
    house.friend_is_served();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_answers_no_ping_is_cut_off() {
    let house = House::build("network.ping_interval = \"500ms\"\nnetwork.ping_timeout = \"1s\"\n");
    // It takes every stream of the node, and says nothing on any.
    let raw = Raw::dial(46, &house.open_address()).await;
    raw.cut_off().await;
    house.friend_is_served();
}
