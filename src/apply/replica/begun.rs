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
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::FallocateFlags;

use crate::failpoint;
use crate::limits::BEGUN_ROOM;
use crate::packet::{Frame, Op, PREFIX_LEN, Position, Prefix, encode_packet_header, packet_frame};
use crate::words::Allow;

const MAGIC: [u8; 8] = *b"sdbegun1";
const HEAD_LEN: usize = 16;

/// See the module.
pub struct Begun {
    file: File,
    /// Of the record that is whole in the file, where that is known.
    noted: Option<Position>,
}

/// What is noted of an op.
pub struct Noted<'a> {
    pub position: Position,
    pub path: &'a [u8],
    pub op: &'a Op,
    pub payload: &'a Bytes,
    pub allow: Allow,
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
    pub fn note(&mut self, noted: &Noted<'_>) -> io::Result<()> {
        if self.noted == Some(noted.position) {
            return Ok(());
        }
        failpoint::at("note")?;
        self.noted = None;
        let header = encode_packet_header(noted.path, noted.op);
        let frame = packet_frame(&noted.position, &header, noted.payload.clone());
        let mut record = Vec::with_capacity(HEAD_LEN + frame.len());
        record.extend_from_slice(&MAGIC);
        record.push(flags(noted.allow));
        record.resize(HEAD_LEN, 0);
        record.extend_from_slice(&frame.head);
        record.extend_from_slice(&frame.payload);
        assert_eq!(record.len(), HEAD_LEN + frame.len(), "the record of an op is not the op");
        self.file.write_all_at(&record, 0)?;
        self.noted = Some(noted.position);
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
    use crate::packet::{FrameHeader, Sequence};

    fn position(number: u64) -> Position {
        Position { sequence: Sequence(number), ..Position::default() }
    }

    #[test]
    fn the_op_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("begun");
        let op = Op::Barrier { durable: true };
        let allow = Allow { device: true, setuid: false, security: true };
        let mut begun = Begun::open(&path).unwrap();
        assert!(begun.read(position(1)).unwrap().is_none());
        for (number, payload) in [(1, vec![7; 1 << 20]), (2, vec![8; 10])] {
            let payload = Bytes::from(payload);
            let noted = Noted { position: position(number), path: b"a/b", op: &op, payload: &payload, allow };
            begun.note(&noted).unwrap();
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
