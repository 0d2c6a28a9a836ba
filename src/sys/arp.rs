//! The Address Resolution Protocol on one interface (RFC 826, RFC 5227; packet(7)).

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Of Ethernet, 48 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardwareAddress([u8; 6]);

/// Packets of that protocol, to everybody on one network and from them.
pub struct ArpSocket {
    fd: OwnedFd,
    index: i32,
    own: HardwareAddress,
}

/// Of an Ethernet packet for IPv4, without the frame's head.
const PACKET_LEN: usize = 28;
const HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const NOBODY: HardwareAddress = HardwareAddress([0; 6]);
const EVERYBODY: HardwareAddress = HardwareAddress([0xff; 6]);

impl ArpSocket {
    /// `None` where the interface is no Ethernet: there is nobody to ask.
    ///
    /// Errors: there is no such interface; of the system, `EPERM` without `CAP_NET_RAW`.
    pub fn open(device: &str) -> io::Result<Option<ArpSocket>> {
        let protocol = (libc::ETH_P_ARP as u16).to_be();
        // SAFETY: three numbers in, a descriptor or -1 out.
        let fd = unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, i32::from(protocol))
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given it, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let index = asked(&fd, device, libc::SIOCGIFINDEX)?;
        // SAFETY: that call has filled the number.
        let index = unsafe { index.ifr_ifru.ifru_ifindex };
        let own = asked(&fd, device, libc::SIOCGIFHWADDR)?;
        // SAFETY: that call has filled the address.
        let own = unsafe { own.ifr_ifru.ifru_hwaddr };
        if own.sa_family != libc::ARPHRD_ETHER {
            return Ok(None);
        }
        let mut bytes = [0; 6];
        bytes.iter_mut().zip(own.sa_data).for_each(|(byte, its)| *byte = its as u8);
        let own = HardwareAddress(bytes);
        let socket = ArpSocket { fd, index, own };
        let to = socket.everybody();
        // SAFETY: an address of that length, which is read.
        let bound = unsafe {
            libc::bind(socket.fd.as_raw_fd(), (&raw const to).cast(), size_of_val(&to) as libc::socklen_t)
        };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(Some(socket)) }
    }

    /// Asks who has an address, without saying that it is ours.
    pub fn probe(&self, ip: Ipv4Addr) -> io::Result<()> {
        self.send(REQUEST, Ipv4Addr::UNSPECIFIED, ip, NOBODY)
    }

    /// Says to everybody that an address is ours: as a question and as an answer, because some take only one of them.
    pub fn announce(&self, ip: Ipv4Addr) -> io::Result<()> {
        self.send(REQUEST, ip, ip, NOBODY)?;
        self.send(REPLY, ip, ip, EVERYBODY)
    }

    /// Somebody else who says to have an address, if one does until then.
    pub fn hear(&self, ip: Ipv4Addr, until: Instant) -> io::Result<Option<HardwareAddress>> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.is_heard_within(left)? {
                return Ok(None);
            }
            let mut packet = [0_u8; 64];
            // SAFETY: the kernel writes at most so many bytes.
            let len = unsafe {
                libc::recv(self.fd.as_raw_fd(), packet.as_mut_ptr().cast(), packet.len(), libc::MSG_DONTWAIT)
            };
            if len < 0 {
                let error = io::Error::last_os_error();
                match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => continue,
                    _ => return Err(error),
                }
            }
            if let Some(owner) = owner(&packet[..len as usize], ip).filter(|owner| *owner != self.own) {
                return Ok(Some(owner));
            }
        }
    }

    fn is_heard_within(&self, time: Duration) -> io::Result<bool> {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry that outlives the call.
        match unsafe { libc::poll(&raw mut poll, 1, time.as_millis().clamp(1, 60_000) as i32) } {
            0 => Ok(false),
            1.. => Ok(true),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(true),
                error => Err(error),
            },
        }
    }

    fn send(&self, what: u8, from: Ipv4Addr, of: Ipv4Addr, target: HardwareAddress) -> io::Result<()> {
        let packet = packet(what, self.own, from, target, of);
        let to = self.everybody();
        // SAFETY: a packet and an address of those lengths, which are read.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                size_of_val(&to) as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn everybody(&self) -> libc::sockaddr_ll {
        let mut bytes = [0; 8];
        bytes[..6].copy_from_slice(&EVERYBODY.0);
        libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
            sll_ifindex: self.index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: bytes,
        }
    }
}

fn packet(
    what: u8,
    sender: HardwareAddress,
    from: Ipv4Addr,
    target: HardwareAddress,
    of: Ipv4Addr,
) -> [u8; PACKET_LEN] {
    let parts: [&[u8]; 6] = [&HEAD, &[0, what], &sender.0, &from.octets(), &target.0, &of.octets()];
    let mut packet = [0; PACKET_LEN];
    let mut at = 0;
    for part in parts {
        packet[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    packet
}

/// Who says in this packet to have the address, or asks for it at the same moment (RFC 5227, section 2.1.1).
fn owner(packet: &[u8], ip: Ipv4Addr) -> Option<HardwareAddress> {
    let is_arp = packet.len() >= PACKET_LEN && packet[..6] == HEAD && packet[6] == 0;
    if !is_arp {
        return None;
    }
    let sender = HardwareAddress(packet[8..14].try_into().ok()?);
    let (from, of) = (&packet[14..18], &packet[24..28]);
    let is_probe = packet[7] == REQUEST && from == [0; 4] && of == ip.octets();
    (from == ip.octets() || is_probe).then_some(sender)
}

/// Whether an interface is up, and its cable in.
///
/// Errors: there is no such interface.
pub fn has_carrier(device: &str) -> io::Result<bool> {
    // SAFETY: three numbers in, a descriptor or -1 out.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given it, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let flags = asked(&fd, device, libc::SIOCGIFFLAGS)?;
    // SAFETY: that call has filled the flags.
    let flags = i32::from(unsafe { flags.ifr_ifru.ifru_flags });
    Ok(flags & (libc::IFF_UP | libc::IFF_RUNNING) == libc::IFF_UP | libc::IFF_RUNNING)
}

/// What the kernel says of an interface (netdevice(7)).
fn asked(fd: &OwnedFd, device: &str, what: libc::Ioctl) -> io::Result<libc::ifreq> {
    let mut name = [0; libc::IFNAMSIZ];
    if device.len() >= name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    name.iter_mut().zip(device.bytes()).for_each(|(at, letter)| *at = letter as libc::c_char);
    let mut request =
        libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_ifindex: 0 } };
    // SAFETY: the request is a whole `ifreq` that outlives the call.
    match unsafe { libc::ioctl(fd.as_raw_fd(), what, &raw mut request) } {
        0 => Ok(request),
        _ => Err(io::Error::last_os_error()),
    }
}

impl fmt::Display for HardwareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);

    #[test]
    fn who_has_an_address_is_told_from_others() {
        let host = HardwareAddress([2, 0, 0, 0, 0, 10]);
        assert_eq!(host.to_string(), "02:00:00:00:00:0a");
        for (what, from, of, expected) in [
            (REPLY, IP, OTHER, true),
            (REQUEST, IP, IP, true),
            (REQUEST, IP, OTHER, true),
            (REQUEST, Ipv4Addr::UNSPECIFIED, IP, true),
            (REQUEST, OTHER, IP, false),
            (REPLY, OTHER, IP, false),
            (REPLY, Ipv4Addr::UNSPECIFIED, IP, false),
        ] {
            let packet = packet(what, host, from, NOBODY, of);
            assert_eq!(owner(&packet, IP), expected.then_some(host), "{what} {from} {of}");
            assert_eq!(owner(&packet[..27], IP), None, "short");
        }
        assert_eq!(owner(&[7; 40], IP), None);
    }

    #[test]
    fn a_packet_is_as_the_standard_has_it() {
        let host = HardwareAddress([2, 0, 0, 0, 0, 10]);
        let expected =
            [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 10, 192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 192, 0, 2, 11];
        assert_eq!(packet(REQUEST, host, IP, NOBODY, OTHER), expected);
    }

    #[test]
    fn an_interface_without_hardware_addresses_has_nobody_to_ask() {
        assert!(ArpSocket::open("lo").unwrap().is_none());
        assert!(ArpSocket::open("no-such-one").is_err());
        assert!(has_carrier("no-such-one").is_err());
    }
}
