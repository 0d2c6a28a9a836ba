//! A driver that goes: nobody waits for what cannot come any more.

use std::time::SystemTime;

use super::super::surroundings::{NetworkLink, Surroundings};
use super::Driver;
use crate::control::ConnectionState;

impl<S: Surroundings> Drop for Driver<S> {
    /// Nobody waits for what cannot come any more, and a fault of the program is not hidden.
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Its link reads the queue.
            if let Some(session) = self.session.take() {
                session.link.close("a fault of the program ended the connection");
            }
            self.cursor.take().into_iter().for_each(|cursor| self.queue.detach(cursor));
            self.update(|report| {
                let reason =
                    "a fault of the program ended it: stop and start the protection, and report this";
                (report.state, report.since) = (ConnectionState::Error, SystemTime::now());
                report.needs_copy = Some(reason.into());
                report.reason = reason.into();
                report.streaming = false;
                report.connected = None;
                report.retry_at = None;
            });
        }
        if let Some(watch) = &self.settings.watch {
            watch(None);
        }
    }
}
