#![cfg(test)]

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::{StreamExt, io::Cursor};
use libp2p::{
    Swarm, SwarmBuilder, noise,
    request_response::{Codec as _, Config, Event, Message},
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};

use super::*;
use crate::sandbox::{
    JobId, JobState,
    wire::{MAX_REQUEST, MAX_RESPONSE, PROTOCOL, Request, Response},
};

const NAME: StreamProtocol = StreamProtocol::new(PROTOCOL);

fn codec() -> Codec<Jobs> {
    Codec {
        patience: Duration::from_secs(60),
        protocol: PhantomData,
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().unwrap().block_on(future)
}

#[test]
fn a_request_that_never_ends_is_late_and_not_malformed() {
    let mut codec = Codec::<Jobs> {
        patience: Duration::from_millis(20),
        protocol: PhantomData,
    };
    let read = block_on(codec.read_request(&NAME, &mut Silent)).unwrap();
    assert_eq!(read.unwrap_err(), SLOW);
}

/// A stream on which nothing comes and which never ends.
struct Silent;

impl AsyncRead for Silent {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
}

#[test]
fn messages_go_through_and_others_are_invalid_data() {
    let request = Request::Cancel {
        job: JobId([7; 16]),
    };
    let mut stream = Cursor::new(Vec::new());
    block_on(codec().write_request(&NAME, &mut stream, Ok(request.clone()))).unwrap();
    let mut stream = Cursor::new(stream.into_inner());
    let read = block_on(codec().read_request(&NAME, &mut stream)).unwrap();
    assert_eq!(read, Ok(request));
    for bad in [&b""[..], b"GET / HTTP/1.1\r\n", &[0xa1]] {
        let mut stream = Cursor::new(bad);
        let read = block_on(codec().read_request(&NAME, &mut stream)).unwrap();
        assert!(read.is_err(), "{read:?}");
        let mut stream = Cursor::new(bad);
        let error = block_on(codec().read_response(&NAME, &mut stream)).unwrap_err();
        assert!(is_malformed(&error), "{error}");
    }
}

#[test]
fn of_an_endless_stream_only_the_longest_message_is_read() {
    let long = vec![0x40; 2 * MAX_RESPONSE];
    let longer = Malformed("longer than allowed");
    let mut stream = Cursor::new(&long);
    let read = block_on(codec().read_request(&NAME, &mut stream)).unwrap();
    assert_eq!(read, Err(longer));
    assert_eq!(usize::try_from(stream.position()).unwrap(), MAX_REQUEST + 1);
    let mut stream = Cursor::new(&long);
    let error = block_on(codec().read_response(&NAME, &mut stream)).unwrap_err();
    assert_eq!(error.to_string(), longer.to_string());
    assert_eq!(
        usize::try_from(stream.position()).unwrap(),
        MAX_RESPONSE + 1
    );
}

/// Writes whatever it is told to, as a peer of another mind may.
#[derive(Clone, Default)]
struct Raw;

impl request_response::Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io, MAX_REQUEST).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io, MAX_RESPONSE).await
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }
}

fn swarm<B: NetworkBehaviour>(behaviour: B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| behaviour)
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build()
}

/// Runs both sides until each has seen the end of one request.
async fn exchange(
    executor: &mut Swarm<Behaviour<Jobs>>,
    peer: &mut Swarm<request_response::Behaviour<Raw>>,
) -> (Incoming<Jobs>, Option<Vec<u8>>) {
    let mut seen = None;
    let mut answer = None;
    while seen.is_none() || answer.is_none() {
        tokio::select! {
            event = executor.select_next_some() => match event {
                SwarmEvent::Behaviour(Event::Message {
                    message: Message::Request { request, channel, .. }, ..
                }) => {
                    // As the Swarm actor does: what is no request gets no answer.
                    if request.is_ok() {
                        let state = JobState::Finished;
                        let response = Response::Cancelled { state };
                        executor.behaviour_mut().send_response(channel, response).unwrap();
                    }
                    seen = Some(request);
                }
                SwarmEvent::ConnectionClosed { cause, .. } => panic!("closed: {cause:?}"),
                _ => {}
            },
            event = peer.select_next_some() => match event {
                SwarmEvent::Behaviour(Event::Message {
                    message: Message::Response { response, .. }, ..
                }) => answer = Some(Some(response).filter(|bytes| !bytes.is_empty())),
                SwarmEvent::Behaviour(Event::OutboundFailure { .. }) => answer = Some(None),
                SwarmEvent::ConnectionClosed { cause, .. } => panic!("closed: {cause:?}"),
                _ => {}
            },
        }
    }
    (seen.unwrap(), answer.unwrap())
}

#[tokio::test]
async fn a_malformed_request_ends_its_stream_and_not_the_connection() {
    let mut executor = swarm(behaviour(
        Duration::from_secs(60),
        Duration::from_secs(60),
        8,
    ));
    let protocol = [(NAME, ProtocolSupport::Full)];
    let raw = request_response::Behaviour::with_codec(Raw, protocol, Config::default());
    let mut peer = swarm(raw);
    let any = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
    executor.listen_on(any).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = executor.select_next_some().await {
            break address;
        }
    };
    peer.add_peer_address(*executor.local_peer_id(), address);
    let to = *executor.local_peer_id();
    let cancel = Request::Cancel {
        job: JobId([7; 16]),
    };
    let mut trailing = cancel.encode();
    trailing.push(0);
    let good = Ok(cancel.clone());
    for (bytes, expected) in [
        (
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            Err(Malformed("bytes trail the document")),
        ),
        (cancel.encode(), good.clone()),
        (
            Vec::new(),
            Err(Malformed("not CBOR, cut short, or nested too deep")),
        ),
        (trailing, Err(Malformed("bytes trail the document"))),
        (
            vec![0x40; MAX_REQUEST + 1],
            Err(Malformed("longer than allowed")),
        ),
        (cancel.encode(), good.clone()),
    ] {
        peer.behaviour_mut().send_request(&to, bytes);
        let (seen, answer) = exchange(&mut executor, &mut peer).await;
        assert_eq!(seen, expected);
        let answered = answer.map(|bytes| Response::decode(&bytes).unwrap());
        let state = JobState::Finished;
        assert_eq!(answered, seen.ok().map(|_| Response::Cancelled { state }));
    }
}
