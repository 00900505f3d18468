//! TLS 1.3 with raw public keys (RFC 7250) on both sides: a node is its Ed25519 key, so there are
//! no certificates, names or authorities.
//!
//! Neither side resumes sessions: a ticket would let a key in again that was refused meanwhile.
//! This module does not decide which keys are welcome, except that a dialler insists on the key of
//! the node that it dialled.

use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, SignatureScheme,
};

use peerage_proto::admission::verdict::Binding;
use peerage_proto::id::NodeId;
use peerage_proto::identity::Keypair;
use peerage_proto::wire::{ALPN_JOIN, ALPN_MEMBER};

/// What precedes an Ed25519 public key in its SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What precedes an Ed25519 seed in its PKCS #8 form (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A key that another node showed where one was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the host there is node {}, not {}", found.short(), expected.short())]
pub(super) struct WrongKey {
    /// The node that was dialled.
    pub(super) expected: NodeId,
    /// The node that answered.
    pub(super) found: NodeId,
}

/// This node's side of every handshake.
#[derive(Clone)]
pub(super) struct Identity {
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    own: NodeId,
}

impl Identity {
    /// # Errors
    /// None that a [`Keypair`] can cause; what rustls says of the key otherwise.
    pub(super) fn new(keypair: &Keypair) -> Result<Self, Error> {
        let provider = rustls::crypto::ring::default_provider();
        let pkcs8 = [PKCS8_PREFIX.as_slice(), &keypair.seed()].concat();
        let key = provider.key_provider.load_private_key(PrivatePkcs8KeyDer::from(pkcs8).into())?;
        let spki = [SPKI_PREFIX.as_slice(), keypair.node_id().as_bytes()].concat();
        let key = Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], key));
        Ok(Self { provider: Arc::new(provider), key, own: keypair.node_id() })
    }

    /// Whether `node` is this node itself.
    pub(super) fn is_of(&self, node: NodeId) -> bool {
        self.own == node
    }

    /// Accepts any key whose holder proves it, for both protocols.
    pub(super) fn server(&self) -> Result<QuicServerConfig, Error> {
        let verifier = AnyKey { provider: self.provider.clone() };
        let mut config = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(self.key.clone())));
        config.alpn_protocols = vec![ALPN_MEMBER.to_vec(), ALPN_JOIN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        QuicServerConfig::try_from(config).map_err(|e| Error::General(e.to_string()))
    }

    /// Insists on one node's key. A different key fails the handshake and is left in the cell.
    pub(super) fn client(
        &self,
        expected: NodeId,
        alpn: &[u8],
    ) -> Result<(QuicClientConfig, Arc<OnceLock<WrongKey>>), Error> {
        let wrong = Arc::new(OnceLock::new());
        let verifier = OneKey { expected, wrong: wrong.clone(), provider: self.provider.clone() };
        let mut config = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                self.key.clone(),
            )));
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        let config =
            QuicClientConfig::try_from(config).map_err(|e| Error::General(e.to_string()))?;
        Ok((config, wrong))
    }
}

/// The node at the other end of a connection whose handshake is done.
pub(super) fn peer_of(connection: &quinn::Connection) -> Option<NodeId> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    node_of(identity.first()?)
}

/// The application protocol of a connection whose handshake is done.
pub(super) fn alpn_of(connection: &quinn::Connection) -> Option<Vec<u8>> {
    let data = connection.handshake_data()?;
    data.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?.protocol
}

/// The value that ties the proof of a joiner to one connection: both ends have the same value, and
/// no other connection has it (RFC 5705). `None` for a connection whose handshake is not done.
pub fn joining_binding(connection: &quinn::Connection) -> Option<Binding> {
    let mut binding = Binding::default();
    connection.export_keying_material(&mut binding, b"EXPORTER-peerage-join", b"").ok()?;
    Some(binding)
}

/// The name of a connection, which both ends derive and nobody else can. Zero, a name that
/// supersedes nothing, for a connection whose handshake is not done.
pub(super) fn connection_name(connection: &quinn::Connection) -> u64 {
    let mut name = [0; 8];
    let label = b"EXPORTER-peerage-connection-name";
    match connection.export_keying_material(&mut name, label, b"") {
        Ok(()) => u64::from_be_bytes(name),
        Err(_) => 0,
    }
}

fn node_of(spki: &CertificateDer<'_>) -> Option<NodeId> {
    let key = spki.strip_prefix(SPKI_PREFIX.as_slice())?;
    Some(NodeId(key.try_into().ok()?))
}

fn verify(
    provider: &CryptoProvider,
    message: &[u8],
    spki: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    if dss.scheme != SignatureScheme::ED25519 {
        return Err(Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon));
    }
    let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
    verify_tls13_signature_with_raw_key(
        message,
        &spki,
        dss,
        &provider.signature_verification_algorithms,
    )
}

fn not_tls13<T>() -> Result<T, Error> {
    Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
}

/// The dialler's check: one node and no other.
#[derive(Debug)]
struct OneKey {
    expected: NodeId,
    wrong: Arc<OnceLock<WrongKey>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OneKey {
    fn verify_server_cert(
        &self,
        spki: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match node_of(spki) {
            Some(found) if found == self.expected => Ok(ServerCertVerified::assertion()),
            Some(found) => {
                let wrong = WrongKey { expected: self.expected, found };
                // The first key seen is the one to tell of; a handshake shows only one.
                let _ = self.wrong.set(wrong);
                Err(CertificateError::Other(OtherError(Arc::new(wrong))).into())
            }
            None => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        not_tls13()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(&self.provider, message, spki, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The acceptor's check: any Ed25519 key that its holder proves. The hello decides whether the node
/// is welcome.
#[derive(Debug)]
struct AnyKey {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        spki: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match node_of(spki) {
            Some(_) => Ok(ClientCertVerified::assertion()),
            None => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        not_tls13()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(&self.provider, message, spki, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
