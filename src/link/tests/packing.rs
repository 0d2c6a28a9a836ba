//! What is compressed on its way arrives as it was; what a peer makes up is refused.

use super::super::outgoing::Outgoing;
use super::super::packing::{Compressor, Packer};
use super::*;
use crate::pool::Pool;
use crate::random::Random;
use crate::words::Compression;

/// Text, what cannot be compressed, and some of both.
fn contents() -> Vec<Bytes> {
    let mut random = Random::new(7);
    let mut noise = |len: usize| (0..len).map(|_| (random.number() >> 32) as u8).collect::<Vec<u8>>();
    let text =
        |len: usize| b"a line that comes again, ".iter().copied().cycle().take(len).collect::<Vec<u8>>();
    let mut all = Vec::new();
    for len in [0, 1, 1023, 1024, 1025, 4096, 50_000, 131_072, PAYLOAD_LEN_MAX] {
        all.push(text(len));
        all.push(noise(len));
        all.push([text(len / 2), noise(len - len / 2)].concat());
        all.push(vec![0; len]);
    }
    all.into_iter().map(Bytes::from).collect()
}

fn packer(level: Compression) -> (Packer, Compressor) {
    let compressor = Compressor::default();
    compressor.set(level);
    (Packer::new(compressor.clone()), compressor)
}

fn assembled(frame: &EncodedFrame) -> Result<Frame, CodecError> {
    let mut stream = Bytes::from([&frame.head[..], &frame.payload[..]].concat());
    let frame = Assembler::new(Pool::new()).take(&mut stream)?;
    Ok(frame.expect("the frame is whole").frame)
}

#[test]
fn every_content_comes_back_at_every_level() {
    for level in Compression::ALL {
        let (mut packer, compressor) = packer(level);
        for (number, content) in contents().into_iter().enumerate() {
            let before = frame(number as u64, content.clone());
            let plain = assembled(&before).unwrap();
            let packed = packer.pack(before.clone());
            assert!(packed.len() <= before.len());
            let after = assembled(&packed).unwrap();
            assert_eq!(after.payload, content, "level {level}, content {number}");
            assert_eq!((after.digest, after.payload_hash), (plain.digest, plain.payload_hash));
        }
        let saved = compressor.saved();
        assert_eq!(
            saved.wire_bytes < saved.payload_bytes / 2,
            level != Compression::Off,
            "{level}: {saved:?}"
        );
    }
}

/// Short ones, and those that would not shrink.
#[test]
fn what_saves_nothing_travels_as_it_is() {
    let noise: Vec<u8> = (0..200_000u32).map(|at| blake3::hash(&at.to_le_bytes()).as_bytes()[0]).collect();
    for level in [Compression::Fast, Compression::Good, Compression::Better] {
        let (mut packer, _) = packer(level);
        for content in [vec![0; 1023], noise.clone()] {
            let before = frame(1, Bytes::from(content));
            let after = packer.pack(before.clone());
            assert_eq!((after.head, after.payload), (before.head, before.payload));
        }
    }
}

/// A peer says what its bytes become, and sends others: none of it is taken, and no more memory than the frame
/// says is.
#[test]
fn what_does_not_become_what_it_says_is_refused() {
    let content = Bytes::from(vec![9; 100_000]);
    for (level, by) in [(Compression::Fast, Packing::Lz4), (Compression::Better, Packing::Zstandard)] {
        let (mut packer, _) = packer(level);
        let good = packer.pack(frame(1, content.clone()));
        let other = match by {
            Packing::Lz4 => Packing::Zstandard,
            Packing::Zstandard => Packing::Lz4,
        };
        for len in [1024, 99_999, 100_001, PAYLOAD_LEN_MAX] {
            let claims = frame(1, Bytes::from(vec![9; len])).packed(by, good.payload.clone());
            assert_eq!(assembled(&claims).unwrap_err(), CodecError::Packing, "{by:?} as {len} bytes");
        }
        let claims = frame(1, content.clone()).packed(other, good.payload.clone());
        assert_eq!(assembled(&claims).unwrap_err(), CodecError::Packing);
        // The right length, and other bytes.
        let claims = frame(1, Bytes::from(vec![8; 100_000])).packed(by, good.payload.clone());
        assert_eq!(assembled(&claims).unwrap_err(), CodecError::PayloadChecksum);
        for at in 0..good.payload.len() {
            let mut bytes = good.payload.to_vec();
            bytes[at] ^= 1;
            let claims = frame(1, content.clone()).packed(by, Bytes::from(bytes));
            let taken = assembled(&claims).map(|frame| frame.payload == content);
            assert!(taken != Ok(false), "{by:?}, byte {at}");
        }
    }
    let short = frame(1, Bytes::from(vec![9; 1023])).packed(Packing::Lz4, Bytes::from(vec![1; 5]));
    assert_eq!(assembled(&short).unwrap_err(), CodecError::Packing, "too short to be compressed");
}

/// Whoever reads a frame from anywhere but a network takes nothing compressed.
#[test]
fn nothing_compressed_lies_anywhere() {
    let packed = packer(Compression::Fast).0.pack(frame(1, Bytes::from(vec![0; 5000])));
    assert_eq!(packed.decode().unwrap_err(), CodecError::Packing);
}

/// Cut twenty times, the level changed a hundred times.
#[test]
fn a_level_changes_while_frames_flow() {
    let outgoing = Outgoing::default();
    let contents = contents();
    let mut sequence = 0;
    for session in 0..20u64 {
        let identity = Arc::new(Identity::generate());
        let paired = identity.fingerprint();
        let (listener, key) = listen(move |shown| *shown == paired);
        let (frames, dial) = (Frames::default(), Dial::new(listener.local_addr(), key, identity));
        let source = SourceLink::dial_within(dial, frames.clone(), outgoing.clone());
        assert_eq!(source.events().recv_timeout(LONG), Ok(SourceEvent::Up));
        let target = listener.accept().unwrap();
        target.welcome();
        // Every other target knows nothing of it.
        let theirs = if session % 2 == 0 { Features::OFFERED } else { Features::default() };
        let before = outgoing.compressor.saved();
        source.start_feed(theirs);
        for turn in 0..5 {
            outgoing.compressor.set(Compression::ALL[(session as usize + turn) % 4]);
            let first = sequence;
            for _ in 0..8 {
                frames.push(frame(sequence, contents[sequence as usize * 5 % contents.len()].clone()));
                sequence += 1;
            }
            source.waker().wake();
            for sequence in first..sequence {
                let frame = next(&target.frames());
                assert_eq!(frame.position.sequence, Sequence(sequence));
                assert_eq!(frame.payload, contents[sequence as usize * 5 % contents.len()]);
            }
        }
        assert_eq!(outgoing.compressor.saved() == before, session % 2 == 1, "session {session}");
        drop(target);
        lost(&source);
    }
}
