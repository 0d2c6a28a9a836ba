//! `standin metrics`: what all daemons of this host say of themselves, for monitoring systems.
//!
//! It asks as `standin status` does, over the control sockets, in a process of its own: who scrapes how
//! often is nothing to the data plane.

mod families;
mod text;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use self::families::families;
use self::text::{Family, exposition};
use super::args::Common;
use super::serving::{Asked, Said, listen_here, refusal, serve};
use super::status::not_served::Absent;
use super::{Outcome, find, output};
use crate::failure::Failure;
use crate::store;

#[derive(Debug, Args)]
pub struct Metrics {
    /// Serve them at http://ADDRESS/metrics until interrupted; an address of this host alone, as 127.0.0.1:9466
    #[arg(long, value_name = "ADDRESS", conflicts_with = "output")]
    pub listen: Option<SocketAddr>,
    /// Write them to a file, whole or not at all, for the textfile collector of the node exporter
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub output: Option<PathBuf>,
}

/// Of the text that Prometheus takes.
const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn run(common: &Common, args: &Metrics) -> Outcome {
    if let Some(address) = args.listen {
        return listen(common, address);
    }
    let families = ask(common)?;
    match &args.output {
        Some(file) => write(file, &exposition(&families))?,
        None if common.json => output::json(&json!({ "metrics": families })),
        None => output::text(&exposition(&families)),
    }
    Ok(0)
}

fn ask(common: &Common) -> Result<Vec<Family>, Failure> {
    Ok(families(&find::all(&common.asked_dir())?, &Absent::look(common).not_served))
}

/// Where another user's collector reads it.
fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let replaced = std::path::absolute(file).and_then(|file| store::replace_for_all(&file, text.as_bytes()));
    replaced.map_err(|error| {
        Failure::new(
            format!("{} cannot be written: {error}.", file.display()),
            "What was there is as it was.",
            "Name a file in a directory that exists.",
        )
    })
}

/// Does not return but for a failure.
fn listen(common: &Common, address: SocketAddr) -> Outcome {
    let listener = listen_here(
        address,
        "put what they need in front of it: a proxy with TLS and a password, or the node exporter with --output",
    )?;
    let listened = listener.local_addr().unwrap_or(address);
    output::text(&format!("ready http://{listened}/metrics"));
    let common = common.clone();
    serve(&listener, move |asked| answer(&common, asked))
}

fn answer(common: &Common, asked: &Asked) -> Said {
    if let Some(refusal) = refusal(asked) {
        return refusal;
    }
    match (&*asked.method, &*asked.path) {
        ("GET", "/metrics") => match ask(common) {
            Ok(families) => Said { media: MEDIA, ..Said::text(200, exposition(&families)) },
            Err(failure) => Said::text(503, format!("{failure}\n")),
        },
        ("GET", _) => Said::text(404, "Metrics are at /metrics.\n"),
        _ => Said::text(405, "GET /metrics is all there is.\n"),
    }
}

#[cfg(test)]
mod tests;
