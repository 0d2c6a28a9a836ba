//! The pairing exchange: the one thing that a stranger may say to a target.
//!
//! ```text
//!  stranger ── TLS, "standin-pair/1", target's key pinned ──> listener
//!  one stream: request, end ────────────────────────────────> desk (on a thread of its own)
//!  answer, end <────────────────────────────────────────────
//! ```
//! Bytes of both are others' business; here they are bounded, tied to the TLS session, and counted:
//! a listener takes few attempts a second, and each has little time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quinn::{ClientConfig, Connection};
use tokio::time::timeout;

use super::dial::Dial;
use super::ending::{self, End};
use super::listener::plain;
use super::probe;
use super::socket::{self, Purpose};
use super::tls::{self, Protocol};
use crate::limits::{CLOSE_FLUSH, HANDSHAKE_TIME_MAX, PAIRING_ATTEMPTS_PER_SECOND, PAIRING_LEN_MAX};
use crate::packet::{PairingVisit, SESSION_BINDING_LEN};
use crate::words::Fingerprint;

const BINDING_LABEL: &[u8] = b"EXPORTER standin pairing";

/// Threads that answer strangers.
pub(super) const DESK_THREADS: usize = 2;

/// Answers a visit; may block, for a disk.
pub type PairingDesk = Arc<dyn Fn(PairingVisit) -> Vec<u8> + Send + Sync>;

/// The desk, and how many came in this second.
pub(super) struct Counter {
    desk: PairingDesk,
    window: Mutex<(Instant, u32)>,
}

impl Counter {
    pub(super) fn new(desk: PairingDesk) -> Counter {
        Counter { desk, window: Mutex::new((Instant::now(), 0)) }
    }

    /// Takes one request and answers it.
    pub(super) async fn serve(&self, connection: &Connection, peer: Fingerprint) -> Result<(), String> {
        if !self.admit() {
            let end = End::Fault("too many pairing attempts at this moment, try again later".into());
            end.close(connection);
            return Err(format!("key {peer}: {}", end.reason()));
        }
        self.exchange(connection, peer).await.map_err(|end| {
            end.close(connection);
            format!("pairing of key {peer}: {}", end.reason())
        })
    }

    fn admit(&self) -> bool {
        let mut window = self.window.lock();
        if window.0.elapsed() >= Duration::from_secs(1) {
            *window = (Instant::now(), 0);
        }
        window.1 += 1;
        window.1 <= PAIRING_ATTEMPTS_PER_SECOND
    }

    async fn exchange(&self, connection: &Connection, peer: Fingerprint) -> Result<(), End> {
        let (mut send, mut receive) = connection.accept_bi().await?;
        let request = receive.read_to_end(PAIRING_LEN_MAX).await.map_err(read_end)?;
        let binding = binding_of(connection)?;
        let visit = PairingVisit { peer, address: plain(connection.remote_address()), binding, request };
        let desk = self.desk.clone();
        let answered = tokio::task::spawn_blocking(move || desk(visit)).await;
        let answer = answered.map_err(|error| End::Lost(format!("the pairing desk failed: {error}")))?;
        send.write_all(&answer).await?;
        let _ = send.finish();
        // The stranger closes when it has read the answer.
        let _ = timeout(CLOSE_FLUSH, connection.closed()).await;
        Ok(())
    }
}

/// Speaks to a target's desk once, on this thread: `request` is made from the session's binding.
///
/// Errors: one line; nothing was agreed on as far as this side knows.
pub fn visit_desk(
    dial: &Dial,
    request: impl FnOnce(&[u8; SESSION_BINDING_LEN]) -> Vec<u8>,
) -> Result<Vec<u8>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime for the link: {error}"))?;
    runtime.block_on(async {
        let answered = tokio::select! {
            answered = timeout(dial.patience, visit(dial, request)) => answered,
            end = probe::nobody_there(dial.address) => return Err(end.reason().to_owned()),
        };
        match answered {
            Ok(answer) => answer.map_err(|end| end.reason().to_owned()),
            Err(_) => Err(format!("no answer from {} within {:?}", dial.address, dial.patience)),
        }
    })
}

async fn visit(
    dial: &Dial,
    request: impl FnOnce(&[u8; SESSION_BINDING_LEN]) -> Vec<u8>,
) -> Result<Vec<u8>, End> {
    let endpoint = socket::endpoint(socket::local_for(dial.address), None)
        .map_err(|error| End::Lost(format!("no UDP socket: {error}")))?;
    let (tls, seen) = tls::client(&dial.identity, dial.target, Protocol::Pairing)
        .map_err(|error| End::Lost(format!("TLS: {error}")))?;
    let mut config = ClientConfig::new(tls);
    config.transport_config(socket::transport(Purpose::Small, HANDSHAKE_TIME_MAX, None));
    let connecting = endpoint
        .connect_with(config, dial.address, tls::SERVER_NAME)
        .map_err(|error| End::Lost(format!("cannot dial {}: {error}", dial.address)))?;
    let connection = connecting.await.map_err(|error| match seen.get() {
        Some(shown) if *shown != dial.target => End::Lost(format!(
            "the target at {} shows the key {shown}, but the token names {}",
            dial.address, dial.target
        )),
        _ => End::Lost(ending::describe(&error)),
    })?;
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&request(&binding_of(&connection)?)).await?;
    let _ = send.finish();
    let answer = receive.read_to_end(PAIRING_LEN_MAX).await.map_err(read_end)?;
    End::Closed("paired or not, it is said".into()).close(&connection);
    let _ = timeout(CLOSE_FLUSH, endpoint.wait_idle()).await;
    Ok(answer)
}

fn binding_of(connection: &Connection) -> Result<[u8; SESSION_BINDING_LEN], End> {
    let mut binding = [0; SESSION_BINDING_LEN];
    match connection.export_keying_material(&mut binding, BINDING_LABEL, &[]) {
        Ok(()) => Ok(binding),
        Err(_) => Err(End::Fault("the session gives no keying material".into())),
    }
}

fn read_end(error: quinn::ReadToEndError) -> End {
    match error {
        quinn::ReadToEndError::Read(error) => error.into(),
        quinn::ReadToEndError::TooLong => End::Fault("a pairing message is too long".into()),
    }
}
