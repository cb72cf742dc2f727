use std::time::Duration;

use tokio::{io::BufReader, net::UnixListener};

use super::*;
use crate::cli::{far::Target, output::Format};
use crate::{
    admin::{
        lines::{self, LineReader},
        protocol::{MessageReport, SOCKET},
    },
    types::{PeerId, Span, Timestamp, Topic},
};

fn message(payload: &[u8]) -> Response {
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
    Response::Message(MessageReport {
        topic: "t".parse().unwrap(),
        author: PeerId::from(&key),
        sent: Timestamp::from_secs(1),
        payload: payload.to_vec(),
        sealed: false,
    })
}

/// A node that answers one connection with these lines, then stays until it is dropped, or
/// hangs up.
fn node(dir: &Path, answers: Vec<Response>, hang_up: bool) -> std::thread::JoinHandle<()> {
    let socket = dir.join(SOCKET);
    let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || {
        let served = block_on(async {
            let listener = UnixListener::bind(socket).unwrap();
            ready.send(()).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let (reader, mut writer) = stream.into_split();
            let mut reader = LineReader::new(BufReader::new(reader));
            let _request: Request = reader.next().await.unwrap().unwrap();
            for answer in &answers {
                lines::write(&mut writer, answer).await.unwrap();
            }
            if !hang_up {
                // Until the client hangs up.
                assert!(matches!(reader.next::<Request>().await, Ok(None) | Err(_)));
            }
            Ok(())
        });
        served.unwrap();
    });
    is_ready.recv().unwrap();
    thread
}

fn subscribed() -> Response {
    Response::Subscribed {
        topic: Topic::try_new("t").unwrap(),
    }
}

fn run(answers: Vec<Response>, hang_up: bool, count: Option<u64>, ms: Option<u64>) -> Exit {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), answers, hang_up);
    let args = SubscribeArgs {
        topic: "t".parse().unwrap(),
        count,
        timeout: ms.map(|ms| Span(Duration::from_millis(ms))),
    };
    let result = subscribe(dir.path(), &args, &Out::new(Format::Text));
    node.join().unwrap();
    result.map_or_else(|error| error.exit, |()| Exit::Ok)
}

#[test]
fn subscribe_ends_by_count_time_or_the_node() {
    let two = || vec![subscribed(), message(b"a\n"), message(&[0xff])];
    assert_eq!(run(two(), false, Some(2), None), Exit::Ok);
    assert_eq!(run(two(), false, None, Some(50)), Exit::Ok);
    assert_eq!(run(two(), false, Some(3), Some(50)), Exit::TryAgain);
    assert_eq!(run(two(), true, None, None), Exit::TryAgain);
    let lagged = vec![subscribed(), Response::Lagged { dropped: 9 }, message(b"x")];
    assert_eq!(run(lagged, false, Some(1), None), Exit::Ok);
    assert_eq!(
        run(vec![Response::Done {}], false, None, None),
        Exit::Software
    );
}

#[test]
fn audit_tail_prints_until_the_stream_is_done() {
    let record = Response::AuditRecord {
        line: "{\"a\":1}".to_owned(),
    };
    for (answers, hang_up, good) in [
        (vec![record.clone(), Response::Done {}], false, true),
        (vec![record], true, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path(), answers, hang_up);
        let result = crate::cli::far::audit_tail(
            &Target {
                data_dir: dir.path(),
                node: None,
            },
            5,
            false,
            &Out::new(Format::Json),
        );
        assert_eq!(result.is_ok(), good);
        node.join().unwrap();
    }
}

#[test]
fn a_payload_is_bounded_before_it_is_sent() {
    let mut endless = io::repeat(b'x');
    let error = bounded(&mut endless, "file").unwrap_err();
    assert_eq!(error.exit, Exit::Data);
    let mut largest = io::repeat(b'x').take(MAX_PAYLOAD as u64);
    assert_eq!(bounded(&mut largest, "file").unwrap().len(), MAX_PAYLOAD);
}
