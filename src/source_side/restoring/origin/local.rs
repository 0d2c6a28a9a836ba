//! A replica on this host, of `protect --to local:` or of `standin serve`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::select;

use crate::apply::{Applier, Places, Replica, set_of};
use crate::failure::Failure;
use crate::link::{FrameReceiver, SourceEvent, SourceLink, TargetEvent, TargetLink, direct};
use crate::packet::{Features, OfCopy, Position, SetId, TargetMessage};
use crate::preflight::{Claim, Role, open_directory};
use crate::sets::Matcher;
use crate::source_side::embedded::replica_state;
use crate::source_side::restoring::{RestoreOptions, UNTOUCHED};
use crate::target_side::reading::{Accept, Reading, ReadingFeed, come_to_rest};

/// See the module.
pub struct Local {
    pub set: SetId,
    /// `None` where its state is lost.
    pub applied: Option<Position>,
    link: TargetLink,
    reads: Option<JoinHandle<()>>,
    /// Keeps its state locked; `None` where that is lost.
    _applier: Option<Applier>,
    _claim: Claim,
}

impl Local {
    pub fn open(path: &Path, options: &RestoreOptions) -> Result<Local, Failure> {
        let opened = open_directory(path).and_then(|root| Ok((File::from(root.try_clone()?), root)));
        let (root, claimed) = opened.map_err(|error| {
            let next = "Name the replica's directory; if it is on a disk that is not mounted, mount that.";
            refused(path, &format!("cannot be opened: {error}"), next)
        })?;
        let claim = Claim::take(Role::Replica, &options.name, path, claimed).map_err(|failure| Failure {
            what: format!("{} cannot be restored from. {}", path.display(), failure.what),
            untouched: UNTOUCHED.into(),
            next:
                "Stop the protection that sends to it, or the target that serves it; of a target that runs, \
                   restore with standin://HOST:PORT/REPSET."
                    .into(),
            ..failure
        })?;
        let state = state_of(path, options);
        let set = identity(&root, state.as_deref(), path)?;
        let accept = if options.accept_bad_data { Accept::Anything } else { Accept::Good };
        let applier = state.map(|state| rest(path, &state, set, accept)).transpose()?;
        if applier.is_none() && accept == Accept::Good {
            return Err(without_state(path, options));
        }
        let rules = applier.as_ref().map(Applier::rules_of_set).transpose().map(Option::flatten);
        let rules = rules
            .map_err(|error| refused(path, &format!("cannot be read: the rules of its set: {error}"), ""))?;
        let (link, reads) =
            read(root, rules).map_err(|error| refused(path, &format!("cannot be read: {error}"), ""))?;
        let applied = applier.as_ref().map(|applier| applier.proof().applied);
        Ok(Local { set, applied, link, reads: Some(reads), _applier: applier, _claim: claim })
    }

    pub fn frames(&self) -> FrameReceiver {
        self.link.frames()
    }

    pub fn say(&self, said: OfCopy) {
        self.link.send(match said {
            OfCopy::Wanted { listing, objects } => TargetMessage::Wanted { listing, objects },
            OfCopy::Doubt { directories } => TargetMessage::Doubt { directories },
            OfCopy::Complete { end } => {
                TargetMessage::Resynchronised { end, orphans: 0, left_out: Default::default() }
            }
        });
    }

    pub fn next_event(&self) -> Option<TargetEvent> {
        self.link.messages().try_recv().ok()
    }

    pub fn close(mut self) {
        self.link.close("the restoration is over");
        if let Some(reads) = self.reads.take()
            && reads.join().is_err()
        {
            log::error!("the reading thread panicked");
        }
    }
}

/// The same link as within a process that protects.
fn read(root: File, rules: Option<Arc<Matcher>>) -> io::Result<(TargetLink, JoinHandle<()>)> {
    let feed = ReadingFeed::new();
    let lane = feed.lane();
    let (giver, taker) = direct(feed);
    let reading = Reading::start(root, lane, giver.waker(), rules, Arc::default())?;
    giver.start_feed(Features::default());
    taker.welcome();
    let thread = std::thread::Builder::new().name("give".into()).spawn(move || serve(giver, &reading))?;
    Ok((taker, thread))
}

fn serve(link: SourceLink, reading: &Reading) {
    let reason = loop {
        select! {
            recv(link.events()) -> event => match event {
                Ok(SourceEvent::Message(message)) => {
                    if let Some(said) = of_copy(message)
                        && let Err(reason) = reading.hear(said)
                    {
                        break reason;
                    }
                }
                Ok(SourceEvent::Up) => {}
                Ok(SourceEvent::Lost { reason, .. }) => break reason,
                Err(_) => break "the link is gone".into(),
            },
            recv(reading.ended()) -> outcome => match outcome {
                Ok(Ok(_)) => break "everything was given".into(),
                Ok(Err(error)) => break error.to_string(),
                Err(_) => break "the reading thread died".into(),
            },
        }
    };
    link.close(&reason);
}

fn of_copy(message: TargetMessage) -> Option<OfCopy> {
    Some(match message {
        TargetMessage::Wanted { listing, objects } => OfCopy::Wanted { listing, objects },
        TargetMessage::Doubt { directories } => OfCopy::Doubt { directories },
        TargetMessage::Resynchronised { end, .. } => OfCopy::Complete { end },
        _ => return None,
    })
}

/// Where index and positions of the replica at this path are: of a set on this host that sends to it, or of
/// a target that served it.
fn state_of(path: &Path, options: &RestoreOptions) -> Option<PathBuf> {
    let within = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let of_sets = within(&options.state).into_iter().map(|dir| replica_state(&dir, path));
    let served = options.state.join(".serve").join(path.file_name()?);
    of_sets.chain([served]).find(|state| state.join("slot").exists())
}

fn identity(root: &File, state: Option<&Path>, path: &Path) -> Result<SetId, Failure> {
    match set_of(root, state) {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(refused(path, "is no replica", "Name the directory that a protection has sent to.")),
        Err(error) => Err(refused(path, &format!("does not say whose replica it is: {error}"), "")),
    }
}

fn rest(path: &Path, state: &Path, set: SetId, accept: Accept) -> Result<Applier, Failure> {
    let opened = Replica::open(&Places::beside(path, state), set);
    let replica = opened.map_err(|error| refused(path, &format!("cannot be opened: {error}"), ""))?;
    let mut applier = Applier::new(replica);
    come_to_rest(&mut applier, accept)
        .map_err(|why| refused(path, &format!("is not restored from: {why}"), ""))?;
    Ok(applier)
}

/// Nobody can say then what of it is whole.
fn without_state(path: &Path, options: &RestoreOptions) -> Failure {
    let what = format!(
        "has no index and positions in {}: nobody can say that it is a consistent copy",
        options.state.display()
    );
    refused(
        path,
        &what,
        "Name the state directory that it was made with (--state), or take what is there with --accept-bad-data.",
    )
}

fn refused(path: &Path, what: &str, next: &str) -> Failure {
    Failure::new(format!("The replica {} {what}.", path.display()), UNTOUCHED, next)
}
