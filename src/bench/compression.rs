//! What each level of compression saves and costs, on contents of three kinds, in pieces as they travel.

use bytes::Bytes;
use serde::Serialize;

use crate::link::try_compression;
use crate::random::Random;
use crate::sys::usage;
use crate::words::Compression;

/// A large write of a program, or a chunk of a copy.
const PIECE_LEN: usize = 128 << 10;

/// Makes a piece of a content.
type Make = fn(&mut Random) -> Vec<u8>;

const GIB: f64 = (1u64 << 30) as f64;

/// One content at one level.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compressed {
    pub content: &'static str,
    pub level: Compression,
    /// Bytes before for each one after.
    pub ratio: f64,
    /// Seconds of processor time a GiB of content, on the source.
    pub packing: f64,
    /// And on the target.
    pub unpacking: f64,
}

/// `size`: bytes of each content.
pub fn measure(size: u64) -> Vec<Compressed> {
    let pieces = (size as usize / PIECE_LEN).max(1);
    let contents: [(&str, Make); 3] =
        [("log lines", log_lines), ("database pages", database_pages), ("random bytes", random_bytes)];
    let mut lines = Vec::new();
    for (content, piece) in contents {
        let mut random = Random::new(0x5eed);
        let payloads: Vec<Bytes> = (0..pieces).map(|_| Bytes::from(piece(&mut random))).collect();
        for level in Compression::ALL.into_iter().filter(|level| *level != Compression::Off) {
            let trial = try_compression(level, &payloads, || usage().processor);
            let gib = trial.saved.payload_bytes as f64 / GIB;
            lines.push(Compressed {
                content,
                level,
                ratio: trial.saved.payload_bytes as f64 / trial.saved.wire_bytes as f64,
                packing: trial.packing.as_secs_f64() / gib,
                unpacking: trial.unpacking.as_secs_f64() / gib,
            });
        }
    }
    lines
}

/// As a web server writes them.
fn log_lines(random: &mut Random) -> Vec<u8> {
    const PATHS: [&str; 6] =
        ["/", "/index.html", "/static/app.css", "/api/v1/orders", "/api/v1/customers", "/login"];
    let mut text = String::new();
    while text.len() < PIECE_LEN {
        text += &format!(
            "10.{}.{}.{} - - [27/Nov/2026:05:{:02}:{:02} +0000] \"GET {}/{} HTTP/1.1\" {} {}\n",
            random.below(4),
            random.below(256),
            random.below(256),
            random.below(60),
            random.below(60),
            random.one_of(&PATHS),
            random.below(100_000),
            random.one_of(&[200, 200, 200, 304, 404]),
            random.below(50_000)
        );
    }
    text.into_bytes()[..PIECE_LEN].to_vec()
}

/// Pages of 8 KiB, three quarters full: rows with a number, a key of 16 random bytes, a name, an amount.
fn database_pages(random: &mut Random) -> Vec<u8> {
    const PAGE: usize = 8192;
    let mut bytes = Vec::with_capacity(PIECE_LEN);
    let mut row = random.below(1 << 30);
    while bytes.len() < PIECE_LEN {
        let page = bytes.len();
        while bytes.len() - page < PAGE * 3 / 4 {
            row += 1;
            bytes.extend_from_slice(&row.to_le_bytes());
            bytes.extend_from_slice(&random.number().to_le_bytes());
            bytes.extend_from_slice(&random.number().to_le_bytes());
            bytes.extend_from_slice(format!("customer {:06}\0", random.below(1_000_000)).as_bytes());
            bytes.extend_from_slice(&(random.below(100_000) as u32).to_le_bytes());
        }
        bytes.resize(page + PAGE, 0);
    }
    bytes
}

fn random_bytes(random: &mut Random) -> Vec<u8> {
    std::iter::repeat_with(|| random.number().to_le_bytes()).flatten().take(PIECE_LEN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_content_is_measured_at_every_level() {
        let lines = measure(1 << 20);
        assert_eq!(lines.len(), 9);
        for line in lines {
            let shrinks = line.content != "random bytes";
            assert_eq!(line.ratio > 1.2, shrinks, "{line:?}");
            assert!(shrinks || line.ratio == 1.0, "{line:?}");
        }
    }
}
