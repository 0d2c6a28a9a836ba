//! The loopback interface of a network namespace, which is down at its birth.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Brings `lo` up: 127.0.0.1 and ::1 answer in this namespace from now on.
///
/// Errors: the system's; `EPERM` without `CAP_NET_ADMIN`.
pub fn raise_loopback() -> io::Result<()> {
    let socket = any_socket()?;
    let mut request = request_for_loopback();
    // SAFETY: the request is a whole `ifreq` that outlives the call, which fills its flags.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call before has filled the flags, a number of 16 bits.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    // SAFETY: as above; this one only reads it.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A socket that is bound to nothing: no address answers yet.
fn any_socket() -> io::Result<UdpSocket> {
    // SAFETY: three numbers in, a descriptor or -1 out.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given it, and nobody else has it.
    Ok(UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn request_for_loopback() -> libc::ifreq {
    let mut name = [0; libc::IFNAMSIZ];
    for (at, letter) in name.iter_mut().zip(b"lo") {
        *at = *letter as libc::c_char;
    }
    libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 } }
}
