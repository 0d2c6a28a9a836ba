//! A replica that a target on another host shows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::limits::HANDSHAKE_TIME_MAX;
use crate::link::{FrameReceiver, Identity, LostBy, SourceEvent, SourceLink, TargetEvent};
use crate::packet::{
    DataState, Features, OfCopy, Position, SetId, SourceMessage, TargetMessage, Text, WIRE_VERSION,
    WIRE_VERSION_OLDEST,
};
use crate::source_side::remote::Paired;
use crate::source_side::restoring::{RestoreOptions, UNTOUCHED};
use crate::words::OwnedBy;

/// Addresses of a host that are tried, one after the other.
const TRIES: u32 = 3;

/// See the module.
pub struct Remote {
    pub set: SetId,
    pub applied: Position,
    /// What its source may not have had there, in words.
    pub allowed: String,
    link: SourceLink,
    frames: FrameReceiver,
}

/// Why nothing comes.
enum Refused {
    /// It may be that nobody listens at this address.
    Away(String),
    Said(String),
}

impl Remote {
    pub fn reach(repset: &str, options: &RestoreOptions) -> Result<Remote, Failure> {
        let identity = Identity::load_or_create(&options.state).map_err(|error| {
            let state = options.state.display();
            Failure::new(format!("This host's key in {state} cannot be used: {error}."), UNTOUCHED, "")
        })?;
        let paired = Paired::new(&options.from, &options.state, Arc::new(identity)).map_err(|failure| Failure {
            untouched: UNTOUCHED.into(),
            next: format!(
                "On the target: standin invite {repset} --restore. Then here, with the token it prints on standard \
                 input: standin pair {}",
                options.from
            ),
            ..failure
        })?;
        let mut last = String::new();
        for attempt in 0..TRIES {
            match greet(&paired, attempt, repset, options) {
                Ok(remote) => return Ok(remote),
                Err(Refused::Said(why)) => return Err(refused(options, &why)),
                Err(Refused::Away(why)) => last = why,
            }
        }
        Err(Failure::new(
            format!("{} cannot be reached: {last}.", options.from),
            UNTOUCHED,
            "Check the address; `standin serve` has to run there, and its UDP port to be open.",
        )
        .passing())
    }

    pub fn frames(&self) -> FrameReceiver {
        self.frames.clone()
    }

    pub fn say(&self, said: OfCopy) {
        self.link.send(SourceMessage::OfCopy(said));
    }

    pub fn next_event(&self) -> Option<TargetEvent> {
        match self.link.events().try_recv().ok()? {
            SourceEvent::Lost { reason, .. } => Some(TargetEvent::Lost { reason }),
            SourceEvent::Message(TargetMessage::Refused { reason }) => {
                Some(TargetEvent::Lost { reason: reason.to_text() })
            }
            SourceEvent::Up | SourceEvent::Message(_) => None,
        }
    }

    pub fn close(self) {
        self.link.close("the restoration is over");
    }
}

fn refused(options: &RestoreOptions, why: &str) -> Failure {
    Failure::new(
        format!("{} does not give its replica: {why}.", options.from),
        UNTOUCHED,
        "Do what it says; the log of `standin serve` on the target has the same line.",
    )
}

fn greet(paired: &Paired, attempt: u32, repset: &str, options: &RestoreOptions) -> Result<Remote, Refused> {
    let features = match options.owners {
        OwnedBy::Name => Features::OFFERED,
        OwnedBy::Number => Features::OFFERED.without(Features::OWNER_NAMES),
    };
    let (link, frames) = paired.dial_to_read(attempt).map_err(Refused::Away)?;
    link.send(SourceMessage::Restore {
        version_oldest: WIRE_VERSION_OLDEST,
        version: WIRE_VERSION,
        features,
        set_name: Text::from_str_cut(repset),
        accept_bad_data: options.accept_bad_data,
    });
    // A replica that has much to bring to rest takes its time.
    let deadline = Instant::now() + 2 * HANDSHAKE_TIME_MAX + Duration::from_secs(30);
    let mut is_up = false;
    loop {
        match link.events().recv_deadline(deadline) {
            Ok(SourceEvent::Up) => is_up = true,
            Ok(SourceEvent::Message(TargetMessage::Restoring {
                version,
                features: theirs,
                set,
                data,
                reason,
                allowed,
                applied,
            })) => {
                if !(WIRE_VERSION_OLDEST..=WIRE_VERSION).contains(&version) {
                    return Err(Refused::Said("it speaks another version of the protocol".into()));
                }
                if options.owners == OwnedBy::Name && !theirs.has(Features::OWNER_NAMES) {
                    return Err(Refused::Said("its version of standin knows no owners by name".into()));
                }
                if data == DataState::Bad {
                    aside!("standin: the replica is no consistent copy: {}", reason.to_text());
                }
                return Ok(Remote { set, applied, allowed: allowed.to_text(), link, frames });
            }
            Ok(SourceEvent::Message(TargetMessage::Refused { reason })) => {
                return Err(Refused::Said(reason.to_text()));
            }
            Ok(SourceEvent::Message(_)) => {}
            Ok(SourceEvent::Lost { by: LostBy::Refusal, reason }) => return Err(Refused::Said(reason)),
            Ok(SourceEvent::Lost { reason, .. }) if is_up => return Err(Refused::Said(reason)),
            Ok(SourceEvent::Lost { reason, .. }) => return Err(Refused::Away(reason)),
            Err(_) => return Err(Refused::Away("it does not answer".into())),
        }
    }
}
