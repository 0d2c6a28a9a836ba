//! What a service manager is told: sd_notify(3), the few lines of it that there are.
//!
//! It never waits and never fails: whoever does not listen is not told.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// See the module. Of a process that nobody manages it says nothing.
#[derive(Debug, Default)]
pub struct ServiceManager {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// Half the time within which it wants to hear that the process is alive.
    watchdog: Option<Duration>,
    fed: Option<Instant>,
    status: String,
}

/// The unit that this process is, where one has started it: the innermost control group that is a service
/// (cgroups(7), `/proc/PID/cgroup`).
pub fn unit() -> Option<String> {
    env::var_os("NOTIFY_SOCKET")?;
    unit_in(&std::fs::read_to_string("/proc/self/cgroup").ok()?)
}

fn unit_in(groups: &str) -> Option<String> {
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut units = paths.flat_map(|path| path.rsplit('/')).filter(|part| part.ends_with(".service"));
    units.next().map(str::to_owned)
}

impl ServiceManager {
    /// Of this process, as its environment says.
    pub fn of_process() -> ServiceManager {
        let Some(address) = env::var_os("NOTIFY_SOCKET") else { return ServiceManager::default() };
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|_| is_meant).map(Duration::from_micros);
        ServiceManager::at(&address, watchdog)
    }

    /// `address`: a path, or a name behind an `@`.
    fn at(address: &OsString, watchdog: Option<Duration>) -> ServiceManager {
        let to = connect(address.as_bytes());
        if let Err(error) = &to {
            log::warn!("the service manager at {} cannot be told anything: {error}", address.display());
        }
        ServiceManager {
            to: to.ok(),
            watchdog: watchdog.map(|time| time / 2),
            fed: None,
            status: String::new(),
        }
    }

    /// It serves.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// It reads its files anew; [`ServiceManager::ready`] says when that is over.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let us = now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={us}"));
    }

    /// One line for people, where it is another one than before.
    pub fn status(&mut self, line: &str) {
        if self.status != line {
            self.say(&format!("STATUS={}", line.replace('\n', " ")));
            line.clone_into(&mut self.status);
        }
    }

    /// It ends, in an orderly way, and needs so much time for it at the least.
    pub fn stopping(&self, patience: Duration) {
        self.say(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", patience.as_micros()));
    }

    /// It goes on; told as often as is asked for.
    pub fn alive(&mut self, now: Instant) {
        let Some(every) = self.watchdog else { return };
        if self.fed.is_none_or(|fed| now.saturating_duration_since(fed) >= every) {
            self.fed = Some(now);
            self.say("WATCHDOG=1");
        }
    }

    /// Whether anybody listens.
    pub fn listens(&self) -> bool {
        self.to.is_some()
    }

    fn say(&self, message: &str) {
        if let Some((socket, to)) = &self.to
            && let Err(error) = socket.send_to_addr(message.as_bytes(), to)
        {
            log::debug!("the service manager was not told {message:?}: {error}");
        }
    }
}

fn connect(address: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = match address.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(address))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 4096];
        let len = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..len]).into_owned())
    }

    #[test]
    fn the_innermost_service_is_the_unit() {
        let one = "0::/system.slice/system-standin.slice/standin@srv-web.service\n";
        assert_eq!(unit_in(one).as_deref(), Some("standin@srv-web.service"));
        let below = "1:name=systemd:/user.slice/user@0.service/app.slice/x.service/inner\n";
        assert_eq!(unit_in(below).as_deref(), Some("x.service"));
        assert_eq!(unit_in("0::/user.slice/session-1.scope\n"), None);
    }

    #[test]
    fn each_message_is_one_datagram() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let named = UnixDatagram::bind(&path).unwrap();
        let name = format!("standin-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let unnamed = UnixDatagram::bind_addr(&abstract_name).unwrap();
        for (socket, address) in [(named, path.into_os_string()), (unnamed, format!("@{name}").into())] {
            socket.set_nonblocking(true).unwrap();
            let mut manager = ServiceManager::at(&address, Some(Duration::from_secs(2)));
            assert!(manager.listens());
            manager.ready();
            assert_eq!(heard(&socket).as_deref(), Some("READY=1"));
            manager.status("two\nlines");
            manager.status("two\nlines");
            assert_eq!(heard(&socket).as_deref(), Some("STATUS=two lines"));
            assert_eq!(heard(&socket), None, "what is so already is not said again");
            manager.reloading();
            let reloading = heard(&socket).unwrap();
            let us = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            assert!(us.parse::<u64>().is_ok_and(|us| us > 0), "{reloading}");
            manager.stopping(Duration::from_secs(3));
            assert_eq!(heard(&socket).as_deref(), Some("STOPPING=1\nEXTEND_TIMEOUT_USEC=3000000"));
            let began = Instant::now();
            for (ms, is_told) in [(0, true), (900, false), (1000, true), (1900, false), (2100, true)] {
                manager.alive(began + Duration::from_millis(ms));
                assert_eq!(heard(&socket).as_deref(), is_told.then_some("WATCHDOG=1"), "after {ms} ms");
            }
        }
    }

    /// Nobody, and somebody who does not listen.
    #[test]
    fn it_never_waits_and_never_fails() {
        let mut nobody = ServiceManager::default();
        nobody.ready();
        nobody.alive(Instant::now());
        assert!(!nobody.listens());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let mut manager = ServiceManager::at(&path.into_os_string(), None);
        (0..10_000).for_each(|number| manager.status(&number.to_string()));
        assert!(!ServiceManager::at(&dir.path().join("x".repeat(200)).into_os_string(), None).listens());
    }
}
