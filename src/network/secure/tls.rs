//! TLS 1.3 with libp2p's certificates: self-signed, the peer's key in an extension.
//!
//! As libp2p's own TLS, with three differences that matter here: the groups are chosen, no
//! session is kept for resumption, and no key log exists. One certificate serves the node's whole
//! life; it proves the node's key, not its own.

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::identity::Keypair;
use libp2p_tls::certificate;
use rustls::{
    CipherSuite, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName,
    HandshakeKind, NamedGroup, PeerIncompatible, PeerMisbehaved, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs},
    pki_types::{CertificateDer, IpAddr, ServerName, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::time::timeout;

use super::{ChannelError, ChannelFault, Cipher, Group, SetupError};
use crate::identity::BINDING_BYTES;

/// RFC 9266: what both ends of one TLS 1.3 connection share, and no other connection.
const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";
/// How long the other side of a failed handshake has to hear why: about five round trips around
/// the world, and nothing beside the whole handshake's deadline.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Reads of what it still sends meanwhile: more than the longest flight of a handshake.
const LAST_READS: usize = 64;
/// ALPN of libp2p's own TLS.
pub(super) const ALPN_LIBP2P: &[u8] = b"libp2p";
/// ALPN inside the stacked channel: it settles the muxer too, which saves a round trip.
pub(super) const ALPN_STACKED: &[u8] = b"quantraband/yamux/1";

/// The groups of the stacked channel: one, so that nothing else can be agreed on.
pub(super) const HYBRID_ONLY: &[&dyn SupportedKxGroup] = &[aws_lc_rs::kx_group::X25519MLKEM768];
/// The groups of libp2p's own TLS, best first.
pub(super) const ANY_GROUP: &[&dyn SupportedKxGroup] = &[
    aws_lc_rs::kx_group::X25519MLKEM768,
    aws_lc_rs::kx_group::X25519,
    aws_lc_rs::kx_group::SECP256R1,
    aws_lc_rs::kx_group::SECP384R1,
];

/// Both sides' configuration. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    alpn: &'static [u8],
}

/// What a finished handshake says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proven {
    pub(super) peer: libp2p::PeerId,
    pub(super) group: Group,
    pub(super) cipher: Cipher,
    pub(super) exporter: [u8; BINDING_BYTES],
}

/// The node's certificate, made once.
pub(super) struct Certificate(CertifiedKey);

impl Certificate {
    pub(super) fn generate(key: &Keypair) -> Result<Self, SetupError> {
        let (certificate, secret) = certificate::generate(key)?;
        let secret = aws_lc_rs::default_provider()
            .key_provider
            .load_private_key(secret)?;
        Ok(Self(CertifiedKey::new(vec![certificate], secret)))
    }
}

impl Tls {
    pub(super) fn new(
        certificate: &Certificate,
        groups: &[&'static dyn SupportedKxGroup],
        alpn: &'static [u8],
    ) -> Result<Self, SetupError> {
        let provider = Arc::new(CryptoProvider {
            kx_groups: groups.to_vec(),
            ..aws_lc_rs::default_provider()
        });
        let own = Arc::new(SingleCertAndKey::from(certificate.0.clone()));
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PeerVerifier))
            .with_client_cert_resolver(own.clone());
        client.alpn_protocols = vec![alpn.to_vec()];
        client.resumption = Resumption::disabled();
        // libp2p's certificates carry no name, and none is sent.
        client.enable_sni = false;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(PeerVerifier))
            .with_cert_resolver(own);
        server.alpn_protocols = vec![alpn.to_vec()];
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
            alpn,
        })
    }

    #[cfg(test)]
    pub(super) fn logs_secrets(&self) -> bool {
        let logs = |log: &dyn rustls::KeyLog| log.will_log("CLIENT_TRAFFIC_SECRET_0");
        logs(&*self.client.key_log) || logs(&*self.server.key_log)
    }

    #[cfg(test)]
    pub(super) fn keeps_sessions(&self) -> bool {
        self.server.send_tls13_tickets > 0 || self.server.session_storage.can_cache()
    }

    /// Runs the handshake and says what it proved. Nothing of the application was sent or read
    /// when this returns.
    pub(super) async fn handshake<S>(
        &self,
        stream: S,
        client: bool,
    ) -> io::Result<(TlsStream<S>, Proven)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let outcome = if client {
            let anybody = ServerName::IpAddress(IpAddr::from(Ipv4Addr::UNSPECIFIED));
            let connector = TlsConnector::from(Arc::clone(&self.client));
            let connecting = connector.connect(anybody, stream).into_fallible();
            connecting.await.map(TlsStream::from)
        } else {
            let acceptor = TlsAcceptor::from(Arc::clone(&self.server));
            let accepting = acceptor.accept(stream).into_fallible();
            accepting.await.map(TlsStream::from)
        };
        match outcome {
            Ok(stream) => {
                let proven = self.examine(&stream)?;
                Ok((stream, proven))
            }
            Err((error, below)) => {
                // Late or lost, it changes nothing here.
                let _ = timeout(LAST_WORDS, last_words(below)).await;
                Err(named(error))
            }
        }
    }

    fn examine<S>(&self, stream: &TlsStream<S>) -> io::Result<Proven> {
        let (_, state) = stream.get_ref();
        let peer = peer_of(state)?;
        let fault = |fault| ChannelError {
            fault,
            peer: Some(peer),
        };
        if state.alpn_protocol() != Some(self.alpn) {
            return Err(fault(ChannelFault::Alpn).into());
        }
        if state.handshake_kind() == Some(HandshakeKind::Resumed) {
            return Err(fault(ChannelFault::Handshake("tls13")).into());
        }
        let group = state.negotiated_key_exchange_group();
        let suite = state.negotiated_cipher_suite();
        let empty = [0; BINDING_BYTES];
        let exported = match stream {
            TlsStream::Client(stream) => {
                let (_, connection) = stream.get_ref();
                connection.export_keying_material(empty, EXPORTER, None)
            }
            TlsStream::Server(stream) => {
                let (_, connection) = stream.get_ref();
                connection.export_keying_material(empty, EXPORTER, None)
            }
        };
        let exporter = exported.map_err(|_| fault(ChannelFault::Handshake("tls13")))?;
        Ok(Proven {
            peer,
            group: group.map_or(Group::Other, |group| name_of(group.name())),
            cipher: match suite.map(|suite| suite.suite()) {
                Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) => Cipher::ChaCha20Poly1305,
                Some(CipherSuite::TLS13_AES_128_GCM_SHA256) => Cipher::Aes128Gcm,
                Some(CipherSuite::TLS13_AES_256_GCM_SHA384) => Cipher::Aes256Gcm,
                _ => Cipher::Untold,
            },
            exporter,
        })
    }
}

/// Sees to it that the alert arrives. It is written, but the layer below may still hold it; and
/// a connection dropped while the other side still writes is reset, its last bytes unread.
async fn last_words<S>(mut below: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if below.flush().await.is_err() || below.close().await.is_err() {
        return;
    }
    let mut unread = [0; 512];
    for _ in 0..LAST_READS {
        if !matches!(below.read(&mut unread).await, Ok(1..)) {
            return;
        }
    }
}

fn name_of(group: NamedGroup) -> Group {
    match group {
        NamedGroup::X25519MLKEM768 => Group::X25519MlKem768,
        NamedGroup::X25519 => Group::X25519,
        NamedGroup::secp256r1 => Group::Secp256r1,
        NamedGroup::secp384r1 => Group::Secp384r1,
        _ => Group::Other,
    }
}

/// The peer of a finished handshake.
fn peer_of(state: &CommonState) -> Result<libp2p::PeerId, ChannelError> {
    let bad = ChannelError::from(ChannelFault::Handshake("tls13"));
    match state.peer_certificates() {
        Some([one]) => match certificate::parse(one) {
            Ok(certificate) => Ok(certificate.peer_id()),
            Err(_) => Err(bad),
        },
        _ => Err(bad),
    }
}

/// A failed handshake by its name, when it was the handshake and not the line.
fn named(error: io::Error) -> io::Error {
    let Some(cause) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return error;
    };
    let fault = match cause {
        // In TLS 1.3 the alert means that no acceptable set of parameters was found: both sides
        // have the same cipher suites, so it was the group.
        rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure)
        | rustls::Error::PeerIncompatible(
            PeerIncompatible::NoKxGroupsInCommon
            | PeerIncompatible::NamedGroupsExtensionRequired
            | PeerIncompatible::KeyShareExtensionRequired,
        )
        | rustls::Error::PeerMisbehaved(
            PeerMisbehaved::IllegalHelloRetryRequestWithUnofferedNamedGroup
            | PeerMisbehaved::SelectedUnofferedKxGroup
            | PeerMisbehaved::WrongGroupForKeyShare,
        ) => ChannelFault::Group(None),
        rustls::Error::NoApplicationProtocol
        | rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol) => {
            ChannelFault::Alpn
        }
        _ => ChannelFault::Handshake("tls13"),
    };
    tracing::debug!(error = %cause, "a TLS handshake failed");
    ChannelError::from(fault).into()
}

/// Accepts exactly one certificate that proves some peer's key; which peer is asked later.
#[derive(Debug)]
struct PeerVerifier;

impl PeerVerifier {
    fn certificate(
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        if !others.is_empty() {
            return Err(rustls::Error::General("more than one certificate".into()));
        }
        certificate::parse(own)?;
        Ok(())
    }

    fn signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        certificate::parse(certificate)?.verify_signature(
            signed.scheme,
            message,
            signed.signature(),
        )?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn no_tls12() -> rustls::Error {
        rustls::Error::General("TLS 1.2 is not spoken".into())
    }

    /// What libp2p's certificates may be signed with.
    fn schemes() -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ED25519,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA256,
        ]
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Self::certificate(own, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(Self::no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Self::certificate(own, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(Self::no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}
