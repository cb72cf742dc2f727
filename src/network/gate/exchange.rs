//! One exchange of credentials and verdicts over a fresh connection.
//!
//! Owned by the upgrade's future; talks to nobody but the peer and the [`GateKeeper`].
//!
//! Traps this file minds:
//! - `V1Lazy` negotiation that failed leaves a stream whose next write panics, so nothing is
//!   written once an operation on the stream failed ([`Exchange::tellable`]);
//! - flushing a stream hands bytes to the muxer, not to the wire: a refusal is followed by
//!   driving the muxer until the peer hangs up, or it might never arrive;
//! - a refused peer may lie or hang: nobody waits for its verdict, and every wait is bounded.

use std::{
    future::{Future, poll_fn},
    io,
    net::IpAddr,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerExt};
use multistream_select::{
    Negotiated, NegotiationError, ProtocolError, Version, dialer_select_proto,
    listener_select_proto,
};
use tokio::time::timeout;

use super::{
    Admitted, GateKeeper, Presented,
    drive::{Muxer, Others, Who, drive, ended, poll_muxer},
    wire::{self, Message, NONCE, PREFIX, PROTOCOL, Verdict},
};
use crate::{
    audit::Direction,
    identity::{BINDING_BYTES, Binding, Channel, Refusal, Role},
    network::{
        attribution, convert,
        secure::{Breach, Policy},
    },
    types::{Origin, PeerId, SecurityInfo},
};

type Stream = Negotiated<<StreamMuxerBox as StreamMuxer>::Substream>;

/// How long telling a refusal may take; a peer that does not read it learns nothing.
const TELL: Duration = Duration::from_secs(2);
/// How long the refused peer has to hang up first, so that closing does not discard what it has
/// not read. About ten round trips around the world.
const LINGER: Duration = Duration::from_secs(2);
/// How long an orderly close of the muxer may take.
const CLOSE: Duration = Duration::from_millis(250);
/// Streams a refused peer may still open while we linger; they are dropped unread.
const LINGER_STREAMS: usize = 64;
/// Longest text of a peer's refusal kept, in characters before escaping.
const PEER_TEXT: usize = 120;

/// A connection that stands, and what is known of it.
pub(super) struct Connection {
    pub(super) muxer: StreamMuxerBox,
    pub(super) me: PeerId,
    pub(super) peer: PeerId,
    pub(super) ip: Option<IpAddr>,
    pub(super) direction: Direction,
    /// This side's; the opener of the connection opens the gate's stream too.
    pub(super) role: Role,
    pub(super) security: SecurityInfo,
    /// The TLS exporter, where the channel has one.
    pub(super) exporter: Option<[u8; BINDING_BYTES]>,
}

/// The exchange over one [`Connection`].
pub(super) struct Exchange {
    muxer: StreamMuxerBox,
    me: PeerId,
    peer: PeerId,
    ip: Option<IpAddr>,
    direction: Direction,
    role: Role,
    security: SecurityInfo,
    exporter: Option<[u8; BINDING_BYTES]>,
    keeper: Arc<dyn GateKeeper>,
    /// For the whole exchange.
    deadline: Duration,
    stream: Option<Stream>,
    /// The peer may be told a refusal: the stream is sound and between two messages.
    tellable: bool,
    /// The peer was seen to speak the gate's protocol.
    speaks: bool,
}

/// No operation can be asked of a stream that failed.
const NO_STREAM: Refusal = Refusal::Interrupted("the exchange has no stream");

impl Exchange {
    pub(super) fn new(
        connection: Connection,
        keeper: Arc<dyn GateKeeper>,
        deadline: Duration,
    ) -> Self {
        let Connection {
            muxer,
            me,
            peer,
            ip,
            direction,
            role,
            security,
            exporter,
        } = connection;
        Self {
            muxer,
            me,
            peer,
            ip,
            direction,
            role,
            security,
            exporter,
            keeper,
            deadline,
            stream: None,
            tellable: false,
            speaks: false,
        }
    }

    /// Whether the channel is good enough for this peer, and the peer worth hearing.
    fn precheck(&self, policy: &Policy) -> Result<(), Refusal> {
        policy
            .admits(&self.peer, &self.security)
            .map_err(Refusal::Channel)?;
        self.keeper.precheck(&self.peer, self.ip)
    }

    /// Exchanges credentials and verdicts; the muxer comes back only when both sides accepted.
    pub(super) async fn required(
        mut self,
        policy: &Policy,
    ) -> Result<(StreamMuxerBox, Admitted), Refusal> {
        if let Err(refusal) = self.precheck(policy) {
            self.report(&refusal);
            self.tell_unheard(&refusal).await;
            return Err(refusal);
        }
        match within(self.deadline, self.converse()).await {
            Ok(admitted) => Ok((self.muxer, admitted)),
            Err(refusal) => {
                self.report(&refusal);
                self.part(&refusal).await;
                Err(refusal)
            }
        }
    }

    /// Asks the keeper alone: the peer of an open listener shows nothing.
    pub(super) async fn open(
        mut self,
        policy: &Policy,
    ) -> Result<(StreamMuxerBox, Admitted), Refusal> {
        let judged = match self.precheck(policy) {
            Ok(()) => {
                let judging = self.keeper.judge_open(self.peer, self.ip, self.security);
                let judging = bounded_judgement(self.deadline, judging);
                let who = self.who();
                match drive(&mut self.muxer, who, Others::Wait, judging).await {
                    Ok(judged) => judged.and_then(|admitted| self.about_this_peer(admitted)),
                    Err(refusal) => Err(refusal),
                }
            }
            Err(refusal) => Err(refusal),
        };
        match judged {
            Ok(admitted) => Ok((self.muxer, admitted)),
            Err(refusal) => {
                self.report(&refusal);
                self.close().await;
                Err(refusal)
            }
        }
    }

    async fn converse(&mut self) -> Result<Admitted, Refusal> {
        self.open_stream().await?;
        let channel = self.bind().await?;
        let own = wire::encode_credential(&self.keeper.own_frame(&channel, self.role));
        self.write(Others::Forbidden, &own).await?;
        let frame = match self.read().await? {
            Message::Credential(frame) => frame,
            Message::Verdict(verdict) => return Err(unheard(verdict)),
            Message::Hello(_) => return Err(Refusal::Violation("a hello out of place")),
        };
        let presented = Presented {
            peer: self.peer,
            ip: self.ip,
            direction: self.direction,
            frame,
            channel,
            role: self.role,
            security: self.security,
        };
        let who = self.who();
        let judging = bounded_judgement(self.deadline / 2, self.keeper.judge(presented));
        let admitted = match drive(&mut self.muxer, who, Others::Forbidden, judging).await {
            Ok(judged) => self.about_this_peer(judged?)?,
            Err(Refusal::Interrupted(lost)) => return Err(self.last_words(lost).await),
            Err(refusal) => return Err(refusal),
        };
        // From here on the peer may have our acceptance and begin to open streams.
        let welcome = Message::Verdict(Verdict::Accepted).encode();
        self.write(Others::Wait, &welcome).await?;
        // It was told yes: a later failure is not told, the connection just ends.
        self.tellable = false;
        match self.read_verdict().await? {
            Verdict::Accepted => Ok(admitted),
            Verdict::Refused { code, text } => Err(by_peer(&code, &text)),
        }
    }

    /// What proofs of possession on this connection are about; without an exporter the two sides
    /// first tell each other a nonce.
    async fn bind(&mut self) -> Result<Channel, Refusal> {
        let binding = match self.exporter {
            Some(value) => Binding::Exporter(value),
            None => {
                let mine: [u8; NONCE] = rand::random();
                self.write(Others::Forbidden, &Message::Hello(mine).encode())
                    .await?;
                let theirs = match self.read().await? {
                    Message::Hello(nonce) => nonce,
                    Message::Verdict(verdict) => return Err(unheard(verdict)),
                    Message::Credential(_) => {
                        return Err(Refusal::Violation("a credential before the hello"));
                    }
                };
                let (opener, listener) = self.by_role(mine, theirs);
                Binding::Nonces { opener, listener }
            }
        };
        let (opener, listener) = self.by_role(self.me, self.peer);
        Ok(Channel {
            opener,
            listener,
            binding,
        })
    }

    /// Mine and theirs as the opener's and the listener's.
    fn by_role<T>(&self, mine: T, theirs: T) -> (T, T) {
        match self.role {
            Role::Opener => (mine, theirs),
            Role::Listener => (theirs, mine),
        }
    }

    /// The connection was lost while we judged: a refusal of the peer may have come before.
    async fn last_words(&mut self, lost: &'static str) -> Refusal {
        self.tellable = false;
        match self.read_verdict().await {
            Ok(Verdict::Refused { code, text }) => by_peer(&code, &text),
            Ok(Verdict::Accepted) | Err(_) => Refusal::Interrupted(lost),
        }
    }

    /// A keeper that mixes up two peers, or two connections, must not let in either.
    fn about_this_peer(&self, admitted: Admitted) -> Result<Admitted, Refusal> {
        if admitted.peer != self.peer {
            Err(Refusal::Unavailable("the judgement was about another peer"))
        } else if admitted.security != self.security {
            Err(Refusal::Unavailable(
                "the judgement was about another channel",
            ))
        } else {
            Ok(admitted)
        }
    }

    async fn open_stream(&mut self) -> Result<(), Refusal> {
        let (opener, who) = (self.role == Role::Opener, self.who());
        let muxer = &mut self.muxer;
        let raw = poll_fn(|cx| {
            attribution::note(who.peer, who.ip);
            let polled = if opener {
                // Drives the connection; the peer has no business opening a stream here.
                match muxer.poll_inbound_unpin(cx) {
                    Poll::Ready(Ok(_)) => return Poll::Ready(Err(Refusal::Missing)),
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => muxer.poll_outbound_unpin(cx),
                }
            } else {
                muxer.poll_inbound_unpin(cx)
            };
            polled.map_err(|error| ended(Breach::of(&error)))
        })
        .await?;
        let stream = if opener {
            let select = dialer_select_proto(raw, [PROTOCOL], Version::V1Lazy);
            drive(&mut self.muxer, who, Others::Forbidden, select).await?
        } else {
            let select = listener_select_proto(raw, [PROTOCOL]);
            let selected = drive(&mut self.muxer, who, Others::Forbidden, select).await?;
            self.speaks = selected.is_ok();
            selected
        };
        let (_, stream) = stream.map_err(|error| match error {
            NegotiationError::ProtocolError(ProtocolError::IoError(_)) => {
                Refusal::Interrupted("the peer closed the exchange")
            }
            // It proposes other protocols only, as a plain client does: no misdeed, no entry.
            NegotiationError::ProtocolError(_) | NegotiationError::Failed => Refusal::Missing,
        })?;
        self.stream = Some(stream);
        Ok(())
    }

    async fn write(&mut self, others: Others, bytes: &[u8]) -> Result<(), Refusal> {
        self.tellable = false;
        let who = self.who();
        let stream = self.stream.as_mut().ok_or(NO_STREAM)?;
        let written = drive(&mut self.muxer, who, others, async {
            stream.write_all(bytes).await?;
            stream.flush().await
        })
        .await?;
        written.map_err(|_| Refusal::Interrupted("the peer closed the exchange"))?;
        self.tellable = true;
        Ok(())
    }

    /// Reads one message while other streams are forbidden.
    async fn read(&mut self) -> Result<Message, Refusal> {
        let bytes = self.read_bytes(Others::Forbidden).await?;
        Message::decode(bytes).map_err(wire::WireError::refusal)
    }

    async fn read_verdict(&mut self) -> Result<Verdict, Refusal> {
        let bytes = self.read_bytes(Others::Wait).await?;
        match Message::decode(bytes) {
            Ok(Message::Verdict(verdict)) => Ok(verdict),
            Ok(Message::Credential(_)) => Err(Refusal::Violation("a second credential frame")),
            Ok(Message::Hello(_)) => Err(Refusal::Violation("a hello out of place")),
            Err(error) => Err(error.refusal()),
        }
    }

    async fn read_bytes(&mut self, others: Others) -> Result<Vec<u8>, Refusal> {
        let mut prefix = [0; PREFIX];
        self.read_exact(others, &mut prefix).await?;
        // The first answer on the stream completes the negotiation: this peer speaks the gate.
        self.speaks = true;
        let length = wire::body_length(prefix).map_err(wire::WireError::refusal)?;
        let mut body = vec![0; length];
        self.read_exact(others, &mut body).await?;
        Ok(body)
    }

    async fn read_exact(&mut self, others: Others, buffer: &mut [u8]) -> Result<(), Refusal> {
        let who = self.who();
        let stream = self.stream.as_mut().ok_or(NO_STREAM)?;
        let reading = stream.read_exact(buffer);
        match drive(&mut self.muxer, who, others, reading).await? {
            Ok(()) => Ok(()),
            Err(error) => {
                // The stream goes: its next write could panic.
                self.stream = None;
                self.tellable = false;
                Err(self.read_failure(&error))
            }
        }
    }

    fn read_failure(&self, error: &io::Error) -> Refusal {
        if self.speaks || error.kind() == io::ErrorKind::UnexpectedEof {
            Refusal::Interrupted("the peer closed the exchange")
        } else {
            Refusal::Missing
        }
    }

    fn who(&self) -> Who {
        Who {
            peer: self.peer,
            ip: self.ip,
            speaks: self.speaks,
        }
    }

    fn report(&self, refusal: &Refusal) {
        self.keeper
            .refused(&self.peer, self.ip, self.direction, refusal);
    }

    /// Tells a peer that is not even heard, then closes.
    async fn tell_unheard(&mut self, refusal: &Refusal) {
        if let Ok(Ok(())) = timeout(TELL, self.open_stream()).await {
            self.tellable = true;
        }
        self.part(refusal).await;
    }

    /// Tells the refusal when it is ours and can be told, then closes.
    async fn part(&mut self, refusal: &Refusal) {
        let ours = !matches!(refusal, Refusal::ByPeer(_));
        if ours && self.tellable {
            let verdict = Message::Verdict(Verdict::refused(refusal)).encode();
            if let Ok(Ok(())) = timeout(TELL, self.write(Others::Wait, &verdict)).await {
                self.linger().await;
            }
        }
        self.close().await;
    }

    /// Drives the muxer until the peer hangs up, dropping whatever it still opens.
    async fn linger(&mut self) {
        let muxer = &mut self.muxer;
        let mut streams = 0;
        let gone = poll_fn(|cx| match poll_muxer(muxer, Others::Forbidden, cx) {
            Muxer::Alive => Poll::Pending,
            Muxer::Lost(_) => Poll::Ready(()),
            Muxer::Stream => {
                streams += 1;
                if streams > LINGER_STREAMS {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        });
        // Either way the connection is closed next.
        let _ = timeout(LINGER, gone).await;
    }

    async fn close(&mut self) {
        self.stream = None;
        let muxer = &mut self.muxer;
        // A peer that does not let go in time is dropped.
        let _ = timeout(CLOSE, poll_fn(|cx| muxer.poll_close_unpin(cx))).await;
    }
}

async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    timeout(deadline, work).await.unwrap_or(Err(Refusal::Late))
}

/// Half the exchange's time at most, so that the other half can tell the peer.
async fn bounded_judgement(
    deadline: Duration,
    judging: impl Future<Output = Result<Admitted, Refusal>>,
) -> Result<Admitted, Refusal> {
    let late = Refusal::Unavailable("no decision in time");
    timeout(deadline, judging).await.unwrap_or(Err(late))
}

/// The peer sent a verdict where its credential belongs.
fn unheard(verdict: Verdict) -> Refusal {
    match verdict {
        Verdict::Accepted => Refusal::Violation("a verdict before any credential"),
        Verdict::Refused { code, text } => by_peer(&code, &text),
    }
}

fn by_peer(code: &str, text: &str) -> Refusal {
    Refusal::ByPeer(convert::loggable(&format!("{code}: {text}"), PEER_TEXT))
}

/// Who is on the other end, for [`attribution`].
pub(super) fn origin(ip: Option<IpAddr>) -> Origin {
    Origin {
        peer: None,
        address: ip,
    }
}
