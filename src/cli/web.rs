//! `standin web`: how all daemons of this host are, on one page for a browser of this host.
//!
//! ```text
//!  daemons ──each second──> top::host::Host ──Look──> html::page ──> serving ──> browser, anew each 5 s
//! ```
//! A process of its own, as `standin top`: who looks how often is nothing to the data plane. The page changes nothing, runs
//! no script and loads nothing but its style. Its address has a key: other users of this host can connect, too.

mod html;
mod key;
mod sketch;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::SystemTime;

use clap::Args;

use super::args::Common;
use super::serving::{Asked, Said, listen_here, refusal, serve};
use super::top::host::Host;
use super::{Outcome, output};
use crate::control::{sockets, unix_ms};
use crate::failure::Failure;

use self::html::Pace;
use self::key::Key;

#[derive(Debug, Args)]
pub struct Web {
    /// Where it listens, until interrupted; an address of this host alone
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9467")]
    pub listen: SocketAddr,
    /// Draw a new key: links with the one of before lead nowhere, once other `standin web` of this state directory have ended
    #[arg(long)]
    pub new_key: bool,
}

const UNTOUCHED: &str = "Nothing was changed.";

/// Nothing is loaded but the style, nothing is sent, nobody shows it in a frame of theirs, and nothing is kept.
const FIELDS: &str = "Content-Security-Policy: default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
                      Cache-Control: no-store\r\n";

/// Does not return but for a failure.
pub(super) fn run(common: &Common, args: &Web) -> Outcome {
    if common.json {
        let next = "`standin status --json` and `standin metrics --json` print what it shows.";
        return Err(Failure::new("A page is no JSON.", UNTOUCHED, next));
    }
    let listener =
        listen_here(args.listen, "use ssh: ssh -L 9467:127.0.0.1:9467 HOST, and the same link there")?;
    let run = common.asked_dir();
    sockets(&run).map_err(|error| {
        let what = format!("The run directory {} cannot be read: {error}.", run.display());
        Failure::new(what, UNTOUCHED, "Ask as root, or name another run directory with --run.")
    })?;
    let key = Key::of(&common.state_dir().join(".web"), args.new_key)?;
    let host = Host::start(common).map_err(|error| {
        Failure::new(format!("Nobody can ask the daemons: {error}."), UNTOUCHED, "Try again.")
    })?;
    let listened = listener.local_addr().unwrap_or(args.listen);
    output::text(&format!("ready http://{listened}/{key}/"));
    serve(&listener, move |asked| answer(&host, &key, asked))
}

fn answer(host: &Host, key: &Key, asked: &Asked) -> Said {
    if let Some(refusal) = refusal(asked) {
        return refusal;
    }
    if asked.method != "GET" {
        return Said::text(405, "Nothing is changed here.\n");
    }
    // The same answer to whoever has no key, wherever it looks.
    let page = |pace| Said {
        media: "text/html; charset=utf-8",
        fields: FIELDS,
        ..Said::text(200, html::page(&host.look(unix_ms(SystemTime::now())), pace))
    };
    match key.opens(&asked.path) {
        Some("") => page(Pace::Goes),
        Some("still") => page(Pace::Still),
        Some("style.css") => {
            Said { media: "text/css; charset=utf-8", fields: FIELDS, ..Said::text(200, html::STYLE) }
        }
        Some(_) | None => {
            Said::text(404, "Nothing is here: `standin web` has printed the address of the page.\n")
        }
    }
}
