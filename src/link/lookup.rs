//! Whom to dial, while that is still being found out: a resolver may take half a minute, and whoever
//! ends a link does not wait for it.

use std::io;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::dial::Dial;
use super::ending::End;
use crate::limits::LOOKUP_TIME_MAX;

/// What comes of it.
pub struct Lookup(oneshot::Receiver<Result<Dial, String>>);

impl Lookup {
    /// Looks on a thread of its own, which ends when `find` does.
    pub fn begin(find: impl FnOnce() -> Result<Dial, String> + Send + 'static) -> io::Result<Lookup> {
        let (found, lookup) = oneshot::channel();
        // Nobody may wait for it any more.
        let look = move || drop(found.send(find()));
        std::thread::Builder::new().name("lookup".into()).spawn(look)?;
        Ok(Lookup(lookup))
    }

    pub(super) async fn found(self) -> Result<Dial, End> {
        self.found_within(LOOKUP_TIME_MAX).await
    }

    async fn found_within(self, patience: Duration) -> Result<Dial, End> {
        match timeout(patience, self.0).await {
            Ok(Ok(found)) => found.map_err(End::Lost),
            Ok(Err(_)) => Err(End::Lost("the look-up of the target's address failed".into())),
            Err(_) => Err(End::Lost(format!("the target's address was not found within {patience:?}"))),
        }
    }
}

/// Nothing has to be looked up.
impl From<Dial> for Lookup {
    fn from(dial: Dial) -> Lookup {
        let (found, lookup) = oneshot::channel();
        let _ = found.send(Ok(dial));
        Lookup(lookup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_up_that_takes_too_long_has_failed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (_open, gate) = std::sync::mpsc::channel::<()>();
        let lookup = Lookup::begin(move || {
            let _ = gate.recv();
            Err("too late".into())
        });
        let lookup = lookup.expect("a thread");
        let found = runtime.block_on(lookup.found_within(Duration::from_millis(10)));
        assert!(matches!(&found, Err(End::Lost(why)) if why.contains("not found within")), "{found:?}");
    }
}
