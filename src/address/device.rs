//! An address on an interface of this host: whether it is there or somebody else's, added, announced, removed.
//!
//! `ip` of iproute2 adds and removes; what it does not do (asking who answers for an address, and telling everybody) is
//! done here for IPv4 (RFC 5227). For IPv6 the kernel does both when the address is added (RFC 4862, section 5.4, and
//! RFC 9131).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Address;
use crate::sys::{ArpSocket, HardwareAddress, has_carrier};

/// RFC 5227 has three in 1 to 2 s each; failovers wait for this.
const PROBES: u32 = 3;
const PROBE_EVERY: Duration = Duration::from_millis(300);
/// How long the kernel asks for an IPv6 address, and some.
const DUPLICATES_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why an address was not taken.
#[derive(Debug)]
pub enum NotTaken {
    /// Somebody answers for it; with IPv4 it is known who.
    InUse(Option<HardwareAddress>),
    /// The interface is down, or its cable is out: nobody can be asked.
    NoCarrier,
    Io(io::Error),
}

impl From<io::Error> for NotTaken {
    fn from(error: io::Error) -> NotTaken {
        NotTaken::Io(error)
    }
}

/// A host answers by each of its interfaces on a network for the addresses of all of them.
fn is_of_this_host(address: &HardwareAddress) -> bool {
    let interfaces = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut addresses = interfaces.filter_map(|one| fs::read_to_string(one.path().join("address")).ok());
    addresses.any(|own| own.trim() == address.to_string())
}

impl Address {
    /// Whether this host has it.
    pub fn is_there(&self) -> io::Result<bool> {
        Ok(self.shown()?.is_some())
    }

    /// Adds it, where nobody answers for it, and tells everybody.
    ///
    /// Errors: somebody does; of the system.
    pub fn take(&self) -> Result<(), NotTaken> {
        if !has_carrier(&self.device)? {
            return Err(NotTaken::NoCarrier);
        }
        match self.ip {
            _ if self.is_there()? => {}
            IpAddr::V4(ip) => {
                if let Some(other) = self.owner(ip)? {
                    return Err(NotTaken::InUse(Some(other)));
                }
                self.ip("add")?;
            }
            IpAddr::V6(_) => self.add_v6()?,
        }
        // It is there: who does not hear it now hears it in a moment.
        if let Err(error) = self.announce() {
            log::warn!("{self} is held, and cannot be announced: {error}");
        }
        Ok(())
    }

    /// Tells everybody on the network where it is now. With IPv6 the kernel has done it.
    pub fn announce(&self) -> io::Result<()> {
        let IpAddr::V4(ip) = self.ip else { return Ok(()) };
        let Some(socket) = ArpSocket::open(&self.device)? else { return Ok(()) };
        // Who has it no more says nothing of it.
        if self.is_there()? { socket.announce(ip) } else { Ok(()) }
    }

    /// Who else answers for it, which this host has; IPv4 alone. It takes a moment.
    pub fn rival(&self) -> io::Result<Option<HardwareAddress>> {
        let IpAddr::V4(ip) = self.ip else { return Ok(None) };
        let Some(socket) = ArpSocket::open(&self.device)? else { return Ok(None) };
        socket.probe(ip)?;
        let rival = socket.hear(ip, Instant::now() + PROBE_EVERY)?;
        Ok(rival.filter(|rival| !is_of_this_host(rival)))
    }

    pub fn give_back(&self) -> io::Result<()> {
        match self.shown()? {
            // With the prefix that it has there.
            Some(shown) => self.ip_with("delete", shown["prefixlen"].as_u64().unwrap_or(self.prefix.into())),
            None => Ok(()),
        }
    }

    /// Who answers for it; `None` on an interface without hardware addresses, too.
    fn owner(&self, ip: Ipv4Addr) -> io::Result<Option<HardwareAddress>> {
        let Some(socket) = ArpSocket::open(&self.device)? else { return Ok(None) };
        for _ in 0..PROBES {
            socket.probe(ip)?;
            if let Some(owner) = socket.hear(ip, Instant::now() + PROBE_EVERY)? {
                return Ok(Some(owner));
            }
        }
        Ok(None)
    }

    fn add_v6(&self) -> Result<(), NotTaken> {
        // Neighbours are told when it is there. Where the kernel cannot, they find out later.
        let notify = format!("/proc/sys/net/ipv6/conf/{}/ndisc_notify", self.device);
        if let Err(error) = fs::write(&notify, "1") {
            log::warn!("{notify}: {error}: neighbours are not told of {self}");
        }
        self.ip("add")?;
        let until = Instant::now() + DUPLICATES_MAX;
        loop {
            let Some(shown) = self.shown()? else {
                return Err(io::Error::other("it went away as soon as it was added").into());
            };
            let is = |word: &str| shown[word] == true;
            if is("dadfailed") {
                self.ip("delete")?;
                return Err(NotTaken::InUse(None));
            }
            if !is("tentative") || Instant::now() >= until {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// As `ip` shows it.
    fn shown(&self) -> io::Result<Option<Value>> {
        let output = Command::new("ip").args(["-json", "address", "show", "dev", &self.device]).output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let links: Value = serde_json::from_slice(&output.stdout)?;
        let all = links.as_array().into_iter().flatten();
        let mut all = all.filter_map(|link| link["addr_info"].as_array()).flatten();
        let is_it = |one: &&Value| one["local"].as_str().and_then(|ip| ip.parse().ok()) == Some(self.ip);
        Ok(all.find(is_it).cloned())
    }

    fn ip(&self, what: &str) -> io::Result<()> {
        self.ip_with(what, self.prefix.into())
    }

    fn ip_with(&self, what: &str, prefix: u64) -> io::Result<()> {
        let network = format!("{}/{prefix}", self.ip);
        let output = Command::new("ip").args(["address", what, &network, "dev", &self.device]).output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    }
}
