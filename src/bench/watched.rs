//! Everything that looks at a daemon on a host that is well watched: statistics in a file, metrics asked for each second, a
//! page that is open, and events that are followed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::error::{Context, Error, Result};
use super::process::Process;

/// How often each is asked.
const EVERY: Duration = Duration::from_secs(1);
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// They end with it.
pub struct Watched {
    _watchers: Vec<Process>,
    ended: Arc<AtomicBool>,
}

impl Watched {
    /// The file for statistics of a daemon whose home that is, in a directory of its own.
    pub fn statistics(home: &Path) -> Result<PathBuf> {
        let dir = home.join("statistics");
        std::fs::create_dir(&dir).at(&dir)?;
        Ok(dir.join("statistics.jsonl"))
    }

    /// Begins to watch the daemons of that home.
    pub fn start(program: &Path, home: &Path, stop: &AtomicBool) -> Result<Watched> {
        let (mut watchers, mut links) = (Vec::new(), Vec::new());
        for (what, arguments) in [
            ("metrics", &["metrics", "--listen", "127.0.0.1:0"][..]),
            ("page", &["web", "--listen", "127.0.0.1:0"]),
        ] {
            let log = home.join(format!("{what}.log"));
            let mut watcher = Process::spawn(command(program, home, arguments), what, log.clone())?;
            watcher.wait_until(stop, || link_in(&log).is_some())?;
            links.extend(link_in(&log));
            watchers.push(watcher);
        }
        let follow = command(program, home, &["events", "follow", "--json"]);
        watchers.push(Process::spawn(follow, "events", home.join("events.log"))?);
        let ended = Arc::new(AtomicBool::new(false));
        let over = ended.clone();
        let look = move || {
            while !over.load(Relaxed) {
                links.iter().for_each(|(address, path)| drop(get(address, path)));
                std::thread::sleep(EVERY);
            }
        };
        let looks = std::thread::Builder::new().name("watch".into()).spawn(look);
        looks.map_err(|error| Error::Wrong(format!("nobody can watch: {error}")))?;
        Ok(Watched { _watchers: watchers, ended })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
    }
}

fn command(program: &Path, home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("--state").arg(home.join("state")).arg("--run").arg(home.join("run")).args(arguments);
    command
}

/// Address and path, once it is said.
fn link_in(log: &Path) -> Option<(String, String)> {
    let text = std::fs::read_to_string(log).ok()?;
    let link = text.lines().find_map(|line| line.strip_prefix("ready http://"))?;
    let (address, path) = link.split_once('/')?;
    Some((address.to_owned(), format!("/{path}")))
}

/// Asks, and reads the answer to its end.
fn get(address: &str, path: &str) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)
}
