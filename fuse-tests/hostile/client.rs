//! A client of `standin serve` that speaks QUIC and TLS well and keeps no other rule.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

pub const REPLICATION: &[u8] = b"standin/1";
pub const PAIRING: &[u8] = b"standin-pair/1";

/// How long a stream may be blocked before it counts as full.
const BLOCKED: Duration = Duration::from_millis(300);

/// A key pair, and its certificate.
pub struct Key {
    private: Vec<u8>,
    certificate: CertificateDer<'static>,
}

impl Key {
    pub fn generate() -> Key {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let params = rcgen::CertificateParams::new(vec!["x".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate").into();
        Key { private: key.serialize_der(), certificate }
    }

    /// Makes it the key of the product with this state directory.
    pub fn install(&self, state: &Path) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir_all(state).expect("a directory");
        let path = state.join("identity.key");
        std::fs::write(&path, &self.private).expect("a key file");
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("our own file");
    }
}

/// Dials with this key, or none, and offers these protocols.
pub async fn dial(
    endpoint: &Endpoint,
    target: SocketAddr,
    key: Option<&Key>,
    protocols: &[&[u8]],
) -> Result<Connection, ConnectionError> {
    let provider = Arc::new(ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match key {
        Some(key) => {
            let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.private.clone()));
            builder.with_client_auth_cert(vec![key.certificate.clone()], private).expect("a pair")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let crypto = QuicClientConfig::try_from(config).expect("a QUIC suite");
    let mut config = ClientConfig::new(Arc::new(crypto));
    let mut transport = TransportConfig::default();
    // It would take the whole of any window.
    transport.send_window(256 << 20);
    config.transport_config(Arc::new(transport));
    endpoint.connect_with(config, target, "x").expect("an address").await
}

pub fn endpoint() -> Endpoint {
    Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a UDP socket")
}

/// Writes until the peer lets no more in, or `most` bytes are gone; gives how many went.
pub async fn pour(stream: &mut SendStream, most: usize) -> usize {
    let chunk = vec![0x5a; 64 << 10];
    let mut sent = 0;
    while sent < most {
        match tokio::time::timeout(BLOCKED, stream.write(&chunk)).await {
            Ok(Ok(len)) => sent += len,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    sent
}

/// The 32 bytes with which a stream opens (`link/opening.rs`).
pub fn opening(role: u8, session: u128) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(b"sdlk");
    (bytes[4], bytes[5]) = (1, role);
    bytes[8..12].copy_from_slice(&3000u32.to_le_bytes());
    bytes[16..].copy_from_slice(&session.to_le_bytes());
    bytes
}

/// A session as a source opens it: control and heartbeats on one connection, packets on another.
pub struct BareSession {
    pub small: Connection,
    _large: Connection,
    pub control: (SendStream, RecvStream),
    pub packets: SendStream,
    heartbeats: tokio::task::JoinHandle<()>,
}

impl BareSession {
    /// Errors: what the target said, or how it ended.
    pub async fn open(
        endpoint: &Endpoint,
        target: SocketAddr,
        key: &Key,
        session: u128,
    ) -> Result<BareSession, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let small = dial(endpoint, target, Some(key), &[REPLICATION]).await.map_err(|e| text(&e))?;
        let mut control = small.open_bi().await.map_err(|error| text(&error))?;
        control.0.write_all(&opening(1, session)).await.map_err(|error| text(&error))?;
        let mut greeting = [0; 4];
        control.1.read_exact(&mut greeting).await.map_err(|error| text(&error))?;
        let large = dial(endpoint, target, Some(key), &[REPLICATION]).await.map_err(|e| text(&e))?;
        let mut packets = large.open_uni().await.map_err(|error| text(&error))?;
        packets.write_all(&opening(2, session)).await.map_err(|error| text(&error))?;
        let heartbeats = tokio::spawn(beat(small.clone()));
        Ok(BareSession { small, _large: large, control, packets, heartbeats })
    }

    /// Why the target ended it.
    pub async fn end(&self) -> String {
        let ended = tokio::time::timeout(Duration::from_secs(20), self.small.closed()).await;
        ended.map_or_else(|_| "it never ended".into(), |error| error.to_string())
    }
}

impl Drop for BareSession {
    fn drop(&mut self) {
        self.heartbeats.abort();
    }
}

async fn beat(connection: Connection) {
    let Ok((mut send, mut receive)) = connection.open_bi().await else { return };
    let mut answer = [0; 64];
    while send.write_all(&[1]).await.is_ok() && receive.read(&mut answer).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Takes every target for the right one.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
