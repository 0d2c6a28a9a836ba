//! `standin merge`: what is in doubt on a target is brought into line now.

use clap::Args;

use super::args::{Common, MirrorOf};
use super::find::no_answer;
use super::resync::source;
use super::{Outcome, connection, output};
use crate::control::ConnectionChange;
use crate::words::HashKind;

#[derive(Debug, Args)]
pub struct Merge {
    #[command(flatten)]
    which: MirrorOf,
    /// Compare everything, as `standin mirror start`, not only what is marked
    #[arg(long)]
    full: bool,
}

pub(super) fn run(common: &Common, args: &Merge) -> Outcome {
    let named = connection::named(args.which.connection.as_ref())?;
    let found = source(common, args.which.set.as_deref())?;
    let changed = found.client()?.connection(change(args.full), named);
    let changed = changed.map_err(|error| no_answer(&found.status.name, &error))?;
    match common.json {
        true => output::json(&changed),
        false => output::text(&connection::text(&changed)),
    }
    Ok(0)
}

fn change(full: bool) -> ConnectionChange {
    match full {
        false => ConnectionChange::Merge,
        true => ConnectionChange::StartMirror {
            mode: None,
            hash: HashKind::default(),
            rate: None,
            orphans: None,
            path: None,
        },
    }
}
