//! TLS as this product uses it: 1.3 only, both sides show a key, both keys are pinned.
//!
//! A certificate is only the wrapping of a key: no authority, name or date in it counts. What
//! counts is that the key is the pinned one and that the peer proves, by the signature over the
//! handshake, that it holds the private half. No 0-RTT, no resumption: every connection proves it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureScheme,
};

use super::identity::{Identity, fingerprint_of};
use crate::words::Fingerprint;

/// What a connection is for (ALPN). The number rises with the bytes behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Replication: only keys that are paired.
    Replication,
    /// The exchange of one token: any key, and nothing else than that exchange.
    Pairing,
}

impl Protocol {
    const fn name(self) -> &'static [u8] {
        match self {
            Protocol::Replication => b"standin/1",
            Protocol::Pairing => b"standin-pair/1",
        }
    }
}

/// Whether a listener admits strangers to the pairing exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strangers {
    Refused,
    MayPair,
}

/// The name that a source asks for. Not checked: the key is.
pub(super) const SERVER_NAME: &str = "standin";

/// The alert that a listener sends to a key that it does not know (RFC 8446, access_denied).
pub(super) const ALERT_ACCESS_DENIED: u8 = 49;

/// Decides whether a key may connect. Called on the link thread: must not block.
pub(super) type Authorise = Arc<dyn Fn(&Fingerprint) -> bool + Send + Sync>;

/// The key that a peer showed in one handshake, for the text of a refusal.
pub(super) type Seen = Arc<OnceLock<Fingerprint>>;

/// TLS of a source that accepts one target only.
pub(super) fn client(
    identity: &Identity,
    target: Fingerprint,
    protocol: Protocol,
) -> Result<(Arc<QuicClientConfig>, Seen), Error> {
    let (config, seen) = client_config(identity, target, protocol)?;
    Ok((Arc::new(QuicClientConfig::try_from(config).map_err(no_initial_suite)?), seen))
}

pub(super) fn client_config(
    identity: &Identity,
    target: Fingerprint,
    protocol: Protocol,
) -> Result<(rustls::ClientConfig, Seen), Error> {
    let seen = Seen::default();
    let verifier = PinnedTarget { target, seen: seen.clone(), provider: provider() };
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(vec![identity.certificate()], identity.key())?;
    config.alpn_protocols = vec![protocol.name().to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    Ok((config, seen))
}

/// TLS of a listener, for one handshake.
pub(super) fn server(
    identity: &Identity,
    authorise: Authorise,
    strangers: Strangers,
) -> Result<(Arc<QuicServerConfig>, Seen), Error> {
    let (config, seen) = server_config(identity, authorise, strangers)?;
    Ok((Arc::new(QuicServerConfig::try_from(config).map_err(no_initial_suite)?), seen))
}

pub(super) fn server_config(
    identity: &Identity,
    authorise: Authorise,
    strangers: Strangers,
) -> Result<(rustls::ServerConfig, Seen), Error> {
    let seen = Seen::default();
    let only_pairs = Arc::new(AtomicBool::new(false));
    let verifier =
        PairedSources { authorise, only_pairs: only_pairs.clone(), seen: seen.clone(), provider: provider() };
    let signer = provider().key_provider.load_private_key(identity.key())?;
    let certified = Arc::new(CertifiedKey::new(vec![identity.certificate()], signer));
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(OwnCertificate { certified, strangers, only_pairs }));
    config.alpn_protocols = vec![Protocol::Replication.name().to_vec()];
    if strangers == Strangers::MayPair {
        config.alpn_protocols.push(Protocol::Pairing.name().to_vec());
    }
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok((config, seen))
}

/// What both sides agreed on in a handshake that is through.
pub(super) fn protocol_of(connection: &quinn::Connection) -> Option<Protocol> {
    let data = connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
    let agreed = data.protocol?;
    [Protocol::Replication, Protocol::Pairing].into_iter().find(|protocol| protocol.name() == agreed)
}

/// AES-128-GCM first: measured the cheapest on processors with AES instructions.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let build = || {
        let cipher_suites = vec![
            ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
            ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() })
    };
    PROVIDER.get_or_init(build).clone()
}

fn no_initial_suite(error: quinn::crypto::rustls::NoInitialCipherSuite) -> Error {
    Error::General(error.to_string())
}

/// Accepts exactly one key.
#[derive(Debug)]
struct PinnedTarget {
    target: Fingerprint,
    seen: Seen,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedTarget {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = fingerprint_of(end_entity)?;
        let _ = self.seen.set(shown);
        if shown == self.target {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Shows this host's certificate, and notes in passing whether the client offers nothing but the
/// pairing exchange: its key is looked at later in the same handshake.
#[derive(Debug)]
struct OwnCertificate {
    certified: Arc<CertifiedKey>,
    strangers: Strangers,
    only_pairs: Arc<AtomicBool>,
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut offers = hello.alpn().into_iter().flatten();
        let only = offers.next() == Some(Protocol::Pairing.name()) && offers.next().is_none();
        self.only_pairs.store(only && self.strangers == Strangers::MayPair, Relaxed);
        Some(self.certified.clone())
    }
}

/// Accepts the keys that the product says are paired, and any key that only wants to pair.
struct PairedSources {
    authorise: Authorise,
    only_pairs: Arc<AtomicBool>,
    seen: Seen,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for PairedSources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PairedSources")
    }
}

impl ClientCertVerifier for PairedSources {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let shown = fingerprint_of(end_entity)?;
        let _ = self.seen.set(shown);
        if self.only_pairs.load(Relaxed) || (self.authorise)(&shown) {
            return Ok(ClientCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn only_tls13() -> Error {
    PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into()
}
