//! Who a daemon is: a key of its own, known to others by the hash of its public half.

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ParsedCertificate;

use super::socket::ResetKey;
use crate::store;
use crate::words::{Fingerprint, hmac_sha256, sha256};

/// Name of the key file (PKCS#8, DER) in the state directory.
const KEY_FILE: &str = "identity.key";

/// A daemon's Ed25519 key with a self-signed certificate around it. Only the key counts: the
/// certificate is made anew at every start.
pub struct Identity {
    key: PrivatePkcs8KeyDer<'static>,
    certificate: CertificateDer<'static>,
    fingerprint: Fingerprint,
}

impl Identity {
    /// A new identity in memory.
    ///
    /// Panics only where the kernel has no random numbers, which no supported one lacks.
    pub fn generate() -> Identity {
        let key =
            rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("the kernel gives random numbers");
        Identity::around(&key).expect("a key just made signs its certificate")
    }

    /// The identity kept in `dir`; made there (directory 0700, key file 0600) if there is none.
    ///
    /// Errors: the key file can be read by others, is damaged, or cannot be read or written.
    pub fn load_or_create(dir: &Path) -> io::Result<Identity> {
        let path = dir.join(KEY_FILE);
        // Of two daemons that start at once, one makes the key and both have it.
        let lock = store::own_directory(dir, 0o700, store::Symlink::Own)?;
        lock.lock()?;
        match std::fs::read(&path) {
            Ok(der) => {
                refuse_if_readable_by_others(&path)?;
                Identity::from_key(&der).map_err(|why| invalid(format!("{}: {why}", path.display())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Identity::generate();
                store::replace(&path, identity.key.secret_pkcs8_der())?;
                Ok(identity)
            }
            Err(error) => Err(error),
        }
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) fn reset_key(&self) -> ResetKey {
        let private = sha256(self.key.secret_pkcs8_der());
        ResetKey(hmac_sha256(&private, b"standin stateless reset"))
    }

    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }

    fn from_key(der: &[u8]) -> Result<Identity, String> {
        let key = rcgen::KeyPair::try_from(der).map_err(|error| error.to_string())?;
        Identity::around(&key)
    }

    fn around(key: &rcgen::KeyPair) -> Result<Identity, String> {
        let certificate = rcgen::CertificateParams::new(vec!["standin".to_string()])
            .and_then(|params| params.self_signed(key))
            .map_err(|error| error.to_string())?;
        let certificate = CertificateDer::from(certificate);
        Ok(Identity {
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
            fingerprint: fingerprint_of(&certificate).map_err(|error| error.to_string())?,
            certificate,
        })
    }
}

/// The fingerprint of the key in a certificate.
pub(super) fn fingerprint_of(certificate: &CertificateDer<'_>) -> Result<Fingerprint, rustls::Error> {
    let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
    Ok(Fingerprint::from_bytes(sha256(&key)))
}

impl fmt::Debug for Identity {
    /// The private key stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint)
    }
}

fn refuse_if_readable_by_others(path: &Path) -> io::Result<()> {
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("{}: mode {mode:03o} lets others read the key; set it to 600", path.display()),
    ))
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::BadFingerprint;

    #[test]
    fn an_identity_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let first = Identity::load_or_create(&state).unwrap();
        let second = Identity::load_or_create(&state).unwrap();
        assert_eq!(first.fingerprint(), second.fingerprint());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state.join(KEY_FILE)), 0o600);
        assert_eq!(mode(&state), 0o700);
        assert_ne!(first.fingerprint(), Identity::generate().fingerprint());
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_damaged_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_create(dir.path()).unwrap();
        let path = dir.path().join(KEY_FILE);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let error = Identity::load_or_create(dir.path()).unwrap_err();
        assert!(error.to_string().contains("640"), "{error}");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&path, b"junk").unwrap();
        assert_eq!(Identity::load_or_create(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_fingerprint_is_read_back_from_its_text() {
        let fingerprint = Identity::generate().fingerprint();
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        for bad in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(BadFingerprint));
        }
    }
}
