//! The op that is being performed, whole, in a file that survives the death of the process: the
//! next one finishes it by itself, also where the source never comes back.
//!
//! ```text
//!  0  8  magic | 8  1  what the source was allowed: device 1, setuid 2, security 4 | 9  7  zero
//! 16     the packet's frame, as on the wire
//! ```
//! It is written before *begun* is stored: the record of the position that *begun* names is whole.
//! Never synced: after a power loss *begun* does not count either.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::FallocateFlags;

use crate::failpoint;
use crate::limits::BEGUN_ROOM;
use crate::packet::{Frame, PREFIX_LEN, PacketHeader, Position, Prefix, same_packet_frame};
use crate::words::Allow;

pub(super) const MAGIC: [u8; 8] = *b"sdbegun1";
const HEAD_LEN: usize = 16;

/// See the module.
pub struct Begun {
    file: File,
    /// Of the record that is whole in the file, where that is known.
    noted: Option<Position>,
}

impl Begun {
    pub fn open(path: &Path) -> io::Result<Begun> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        if file.metadata()?.len() < BEGUN_ROOM {
            // A full disk may still take the op that makes room on it.
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BEGUN_ROOM) {
                Ok(()) | Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOSPC) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Begun { file, noted: None })
    }

    /// Writes down the op that is performed next; nothing is done where it is there already.
    pub fn note(&mut self, received: &Frame, packet: &PacketHeader, allow: Allow) -> io::Result<()> {
        if self.noted == Some(received.position) {
            return Ok(());
        }
        failpoint::at("note")?;
        self.noted = None;
        let frame = same_packet_frame(received, packet);
        let mut head = [0; HEAD_LEN];
        head[..8].copy_from_slice(&MAGIC);
        head[8] = flags(allow);
        write_parts(&self.file, [&head, &frame.head, &frame.payload])?;
        self.noted = Some(received.position);
        Ok(())
    }

    /// The op that was noted at this position; `None` where the file does not have it whole.
    pub fn read(&mut self, position: Position) -> io::Result<Option<(Frame, Allow)>> {
        let mut head = [0; HEAD_LEN + PREFIX_LEN];
        if !read_whole(&self.file, &mut head, 0)? || head[..8] != MAGIC {
            return Ok(None);
        }
        let prefix: &[u8; PREFIX_LEN] = head[HEAD_LEN..].first_chunk().expect("that long");
        let Ok(decoded) = Prefix::decode(prefix) else { return Ok(None) };
        let (mut header, mut payload) = (vec![0; decoded.header_len], vec![0; decoded.payload_len]);
        let at = head.len() as u64;
        if !read_whole(&self.file, &mut header, at)?
            || !read_whole(&self.file, &mut payload, at + header.len() as u64)?
        {
            return Ok(None);
        }
        match decoded.frame(prefix, &header, Bytes::from(payload)) {
            Ok(frame) if frame.position == position => {
                self.noted = Some(position);
                Ok(Some((frame, allowed(head[8]))))
            }
            Ok(_) | Err(_) => Ok(None),
        }
    }
}

/// Writes the parts one behind the other, in one call nearly always, and copies none of them.
fn write_parts(file: &File, parts: [&[u8]; 3]) -> io::Result<()> {
    let mut done = match rustix::io::pwritev(file, &parts.map(IoSlice::new), 0) {
        Err(rustix::io::Errno::INTR) => 0,
        done => done?,
    };
    let mut at = 0;
    for part in parts {
        let whole = done.min(part.len());
        file.write_all_at(&part[whole..], at + whole as u64)?;
        (at, done) = (at + part.len() as u64, done - whole);
    }
    Ok(())
}

/// `false` where the file ends before.
fn read_whole(file: &File, buffer: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, at) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn flags(allow: Allow) -> u8 {
    u8::from(allow.device) | u8::from(allow.setuid) << 1 | u8::from(allow.security) << 2
}

fn allowed(flags: u8) -> Allow {
    Allow { device: flags & 1 != 0, setuid: flags & 2 != 0, security: flags & 4 != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Bounded, FrameHeader, HeaderDigest, Op, Sequence, ToWhom};

    fn position(number: u64) -> Position {
        Position { sequence: Sequence(number), ..Position::default() }
    }

    #[test]
    fn the_op_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("begun");
        let op = Op::Barrier { durable: true, name: None };
        let allow = Allow { device: true, setuid: false, security: true };
        let mut begun = Begun::open(&path).unwrap();
        assert!(begun.read(position(1)).unwrap().is_none());
        for (number, payload) in [(1, vec![7; 1 << 20]), (2, vec![8; 10])] {
            let payload = Bytes::from(payload);
            let packet =
                PacketHeader { path: Bounded(b"a/b".to_vec()), op: op.clone(), to_whom: ToWhom::AllOf };
            let header = FrameHeader::Packet(packet.clone());
            let received = Frame::new(position(number), HeaderDigest(0), header, payload.clone());
            begun.note(&received, &packet, allow).unwrap();
            begun = Begun::open(&path).unwrap();
            let (frame, found) = begun.read(position(number)).unwrap().unwrap();
            let FrameHeader::Packet(packet) = frame.header else { panic!("no packet") };
            assert!(frame.payload == payload && found == allow && packet.op == op);
            assert_eq!(packet.path.0, b"a/b");
            assert!(begun.read(position(number + 1)).unwrap().is_none());
        }
        begun.file.write_all_at(b"torn", 90).unwrap();
        assert!(begun.read(position(2)).unwrap().is_none());
        begun.file.set_len(40).unwrap();
        assert!(begun.read(position(2)).unwrap().is_none());
    }
}
