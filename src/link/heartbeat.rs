//! Heartbeats: a byte each interval from the source, sent back by the target. Whoever hears
//! nothing for [`HEARTBEATS_MISSED`] intervals ends the connection. A target that wants to know sooner calls: the
//! source answers at once, from the thread of its links, whatever its packets wait for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quinn::Connection;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

use super::ending::End;
use crate::limits::HEARTBEATS_MISSED;

const BEAT: [u8; 1] = [1];

/// From a target: to be answered with a beat, at once.
const CALL: [u8; 1] = [2];

/// When the peer was last heard.
#[derive(Clone, Debug)]
pub(super) struct Heard(Arc<Mutex<Instant>>);

impl Heard {
    pub(super) fn now() -> Heard {
        Heard(Arc::new(Mutex::new(Instant::now())))
    }

    fn again(&self) {
        *self.0.lock() = Instant::now();
    }

    pub(super) fn age(&self) -> Duration {
        self.0.lock().elapsed()
    }

    /// Waits until nothing was heard for `limit`.
    async fn silence(&self, limit: Duration) -> End {
        let until = *self.0.lock() + limit;
        sleep_until(until.into()).await;
        silent(limit)
    }
}

fn silent(limit: Duration) -> End {
    End::Lost(format!("no heartbeat for {:.1} s", limit.as_secs_f64()))
}

/// The source's side: opens its stream on the small connection, beats and listens until the end.
pub(super) async fn beat(connection: Connection, every: Duration, heard: Heard) -> End {
    let (mut send, mut receive) = match connection.open_bi().await {
        Ok(streams) => streams,
        Err(error) => return error.into(),
    };
    let limit = every * HEARTBEATS_MISSED;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answer = [0; 64];
    loop {
        // What was heard counts before what was missed: this side may itself have been stopped.
        tokio::select! {
            biased;
            read = receive.read(&mut answer) => match read {
                Ok(Some(len)) => {
                    heard.again();
                    if answer[..len].contains(&CALL[0])
                        && let Err(error) = send.write_all(&BEAT).await
                    {
                        return error.into();
                    }
                }
                Ok(None) => return End::Fault("the peer ended the heartbeats".into()),
                Err(error) => return error.into(),
            },
            end = heard.silence(limit) => return end,
            _ = ticks.tick() => if let Err(error) = send.write_all(&BEAT).await {
                return error.into();
            },
        }
    }
}

/// The target's side: waits for the source's stream, answers until the end; calls when it is asked to.
pub(super) async fn answer(connection: Connection, every: Duration, heard: Heard, call: Arc<Notify>) -> End {
    let limit = every * HEARTBEATS_MISSED;
    let (mut send, mut receive) = match timeout(limit, connection.accept_bi()).await {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => return error.into(),
        Err(_) => return silent(limit),
    };
    heard.again();
    let mut beats = [0; 64];
    loop {
        let says = tokio::select! {
            biased;
            read = receive.read(&mut beats) => match read {
                Ok(Some(_)) => {
                    heard.again();
                    BEAT
                }
                Ok(None) => return End::Fault("the peer ended the heartbeats".into()),
                Err(error) => return error.into(),
            },
            end = heard.silence(limit) => return end,
            () = call.notified() => CALL,
        };
        if let Err(error) = send.write_all(&says).await {
            return error.into();
        }
    }
}
