//! The packet stream and the openings of streams, damaged: no panic, and no more memory than one
//! frame may have.

use super::*;
use crate::limits::{HEADER_COST, HEADER_LEN_MAX};
use crate::link::assembler::Assembler;
use crate::link::opening::Opening;
use crate::mutation::with_damage;
use crate::pool::Pool;
use crate::sys::allocated;

fn stream(frames: u64) -> Vec<u8> {
    let frames = (0..frames).map(|n| frame(n, payload(n, n as usize * 700)));
    frames.flat_map(|frame| [frame.head, frame.payload].concat()).collect()
}

#[test]
fn damaged_streams_in_pieces() {
    let good = stream(4);
    let others = [stream(2), stream(9)];
    let (mut whole, mut refused) = (0, 0);
    with_damage(8000, |damage| {
        let mut bytes = Bytes::from(damage.damaged(&good, &others));
        let most = 2 * PAYLOAD_LEN_MAX + HEADER_LEN_MAX + HEADER_COST * bytes.len() + (64 << 10);
        let ((), memory) = allocated(|| {
            let mut assembler = Assembler::new(Pool::new());
            while !bytes.is_empty() {
                let mut piece = bytes.split_to((1 + damage.below(900)).min(bytes.len()));
                loop {
                    match assembler.take(&mut piece) {
                        Ok(Some(_)) => whole += 1,
                        Ok(None) => break,
                        Err(_) => {
                            refused += 1;
                            return;
                        }
                    }
                }
            }
        });
        assert!(memory.peak <= most, "{memory:?}");
    });
    assert!(whole > 1000 && refused > 1000 || whole + refused < 20, "{whole} frames, {refused} refused");
}

/// A header that is announced and never comes costs what has come of it.
#[test]
fn an_announced_frame_costs_nothing() {
    let op = Op::Barrier { durable: false, name: None };
    let mut head =
        packet_frame(&Position::default(), &encode_packet_header(b"", &op), Bytes::new()).head.to_vec();
    head[4..8].copy_from_slice(&(HEADER_LEN_MAX as u32).to_le_bytes());
    let mut bytes = Bytes::from(head);
    let (_assembler, memory) = allocated(|| {
        let mut assembler = Assembler::new(Pool::new());
        assert!(assembler.take(&mut bytes).unwrap().is_none());
        assembler
    });
    assert!(memory.peak < 4096, "{memory:?}");
}

#[test]
fn damaged_openings() {
    let interval = Duration::from_millis(3000);
    let good =
        Opening { role: crate::link::opening::Role::Control, heartbeat_interval: interval, session: 5 };
    with_damage(20_000, |damage| {
        let mut bytes = damage.damaged(&good.encode(), &[]);
        bytes.resize(32, 0);
        let bytes: [u8; 32] = bytes.try_into().unwrap();
        if let Some(opening) = Opening::decode(&bytes) {
            let again = opening.encode();
            // The interval comes back within its bounds.
            assert_eq!((&again[..8], &again[12..]), (&bytes[..8], &bytes[12..]));
        }
    });
}
