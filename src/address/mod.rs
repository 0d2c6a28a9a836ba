//! The address at which clients reach a set: on the host that serves it, and on no other.
//!
//! ```text
//!  daemon ──status, each second──> Machine ──take──> probe: does somebody answer for it? ──no──> added, announced
//!                                     │                         └─yes──> not taken, said, tried again
//!                                     └─give back──> removed: stopped, stood in for, or silent for too long
//! ```
//! A process of its own, on each host that may serve: it needs to be told nothing by a failover, because the daemon says
//! whether it serves, and a source that is stood in for says so, too.
//!
//! - [`machine`]: what is done when; pure
//! - [`device`]: what the host does with an address

pub mod device;
pub mod machine;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address, the length of its network's prefix in bits, and the interface that is to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub ip: IpAddr,
    pub prefix: u8,
    pub device: String,
}

/// Longest name of an interface, bytes: `IFNAMSIZ` of netdevice(7), without its end.
const DEVICE_LEN_MAX: usize = 15;

impl FromStr for Address {
    type Err = String;

    /// As `192.0.2.10/24@eth0`.
    fn from_str(text: &str) -> Result<Address, String> {
        let (network, device) = text.split_once('@').ok_or("it names no interface: as 192.0.2.10/24@eth0")?;
        let (ip, prefix) = network.split_once('/').ok_or("it has no prefix: as 192.0.2.10/24@eth0")?;
        let ip: IpAddr = ip.parse().map_err(|_| format!("'{ip}' is no address"))?;
        let prefix_max = if ip.is_ipv4() { 32 } else { 128 };
        let prefix: u8 = prefix
            .parse()
            .ok()
            .filter(|prefix| (1..=prefix_max).contains(prefix))
            .ok_or_else(|| format!("'{prefix}' is no length of a prefix: 1 to {prefix_max}"))?;
        if !is_of_a_host(ip, prefix) {
            return Err(format!("{ip}/{prefix} is no address at which clients reach a host"));
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
        let is_device = !device.is_empty()
            && device.len() <= DEVICE_LEN_MAX
            && !device.starts_with(['.', '-'])
            && device.bytes().all(is_name);
        if !is_device {
            return Err(format!("'{device}' is no name of an interface"));
        }
        Ok(Address { ip, prefix, device: device.to_owned() })
    }
}

fn is_of_a_host(ip: IpAddr, prefix: u8) -> bool {
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
        return false;
    }
    match ip {
        // The first and the last of a network are the network's (RFC 1122, section 3.2.1.3; RFC 3021 for two).
        IpAddr::V4(ip) => {
            let host = if prefix < 31 { ip.to_bits() & (u32::MAX >> prefix) } else { 1 };
            !ip.is_broadcast()
                && !ip.is_link_local()
                && host != 0
                && (prefix >= 31 || host != u32::MAX >> prefix)
        }
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && ip.to_ipv4_mapped().is_none(),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.ip, self.prefix, self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_can_be_added() {
        for text in ["192.0.2.10/24@eth0", "2001:db8::10/64@bond0.7", "10.0.0.1/32@br-1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in [
            "192.0.2.10",
            "192.0.2.10@eth0",
            "192.0.2.10/24",
            "192.0.2.10/33@eth0",
            "192.0.2.10/0@eth0",
            "::/64@eth0",
            "2001:db8::1/129@eth0",
            "224.0.0.1/4@eth0",
            "127.0.0.1/8@lo",
            "255.255.255.255/32@eth0",
            "192.0.2.255/24@eth0",
            "192.0.2.0/24@eth0",
            "169.254.1.1/16@eth0",
            "fe80::1/64@eth0",
            "::ffff:10.0.0.1/128@eth0",
            "192.0.2.10/24@",
            "192.0.2.10/24@-x",
            "192.0.2.10/24@a/b",
            "192.0.2.10/24@sixteen-letters-",
            "192.0.2/24@eth0",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
