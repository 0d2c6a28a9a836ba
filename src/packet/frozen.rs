//! What two sides say to each other before they know which version of the wire the other one speaks. It is the same
//! in every version, from the first one on, or a side of another version could not be told from damage:
//!
//! ```text
//!  source   Hello, Ask, Restore        (the first message of a connection, and nothing behind it before the answer)
//!  target   Refused, About, WrittenIn  (the answer to one that it may not understand)
//! ```
//! A kind keeps its number and its fields. Bytes behind them are of another version, and are passed over where the
//! versions of the two have nothing in common; what only one version says is in messages of its own, which go when
//! both are known.
//!
//! Some builds of version 4 had more behind `Hello` and `WrittenIn`, and could not do without it: they cannot read
//! ours.

use bincode::{Decode, Encode};

use super::codec::{CodecError, decode_first};
use super::message::{SourceMessage, TargetMessage, WIRE_VERSION, WIRE_VERSION_OLDEST};

/// Of those builds.
pub const WIRE_VERSION_THAT_READS_NO_OTHER: u16 = 4;

/// What a decoder is to know of the kinds that a peer of another version sends.
pub trait Frozen: Encode + Decode<()> {
    /// Whether what stands behind this message may be of a version that is not known here.
    fn may_go_on(&self) -> bool;
}

impl Frozen for SourceMessage {
    fn may_go_on(&self) -> bool {
        match self {
            SourceMessage::Hello { version_oldest, version, .. }
            | SourceMessage::Restore { version_oldest, version, .. } => {
                !understands(*version_oldest, *version)
            }
            // It says no version.
            SourceMessage::Ask { .. } => true,
            _ => false,
        }
    }
}

impl Frozen for TargetMessage {
    fn may_go_on(&self) -> bool {
        match self {
            TargetMessage::About { version_oldest, version, .. } => !understands(*version_oldest, *version),
            TargetMessage::Refused { .. } | TargetMessage::WrittenIn { .. } => true,
            _ => false,
        }
    }
}

/// Whether a side that speaks these versions and this one have one in common.
pub fn understands(oldest: u16, newest: u16) -> bool {
    oldest <= WIRE_VERSION && newest >= WIRE_VERSION_OLDEST
}

/// One line for both sides, where they have none in common. `whose`: of the side that speaks these.
pub fn other_version(whose: &str, oldest: u16, newest: u16) -> String {
    let versions = |oldest, newest| match oldest == newest {
        true => format!("version {newest}"),
        false => format!("versions {oldest} to {newest}"),
    };
    format!(
        "{whose} speaks {} of the protocol, this host {}: update the older side",
        versions(oldest, newest),
        versions(WIRE_VERSION_OLDEST, WIRE_VERSION)
    )
}

/// A message of the control stream from its bytes (without the length), of whatever version.
pub fn decode_control<M: Frozen>(bytes: &[u8]) -> Result<M, CodecError> {
    let (message, used) = decode_first::<M>(bytes)?;
    match bytes.len() - used {
        0 => Ok(message),
        _ if message.may_go_on() => Ok(message),
        left => Err(CodecError::Trailing(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Text, encode_message};

    /// As they stood in `golden.txt` in versions before, and stand for ever: add to them, change none.
    const KEPT: &str = include_str!("frozen.txt");

    fn bytes(hex: &str) -> Vec<u8> {
        let pairs = hex.as_bytes().chunks(2);
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// The message that a side of this version reads, as it would send it itself.
    fn understood(who: &str, bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
        match who {
            "source" => decode_control::<SourceMessage>(bytes).map(|message| encode_message(&message)),
            "target" => decode_control::<TargetMessage>(bytes).map(|message| encode_message(&message)),
            other => panic!("{other} says nothing"),
        }
    }

    /// A side of the version before was said to be unreachable: its first message was damage.
    #[test]
    fn the_first_words_of_every_version_are_read_by_this_one() {
        let mut kinds = std::collections::BTreeSet::new();
        for line in KEPT.lines() {
            let mut parts = line.split(": ");
            let (who, what, hex) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
            let bytes = bytes(hex);
            let read = understood(who, &bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(bytes.starts_with(&read[4..]), "{what}: fields have changed");
            assert_eq!(bytes.len() > read.len() - 4, what.contains("some builds"), "{what}");
            // A later version has more to say.
            let more = [&bytes[..], &[0xff; 40]].concat();
            assert_eq!(understood(who, &more).as_ref(), Ok(&read), "{what}");
            kinds.insert((who.to_owned(), bytes[0]));
        }
        assert_eq!(kinds.len(), 6, "each kind that is frozen: {kinds:?}");
    }

    #[test]
    fn what_this_version_sends_ends_where_it_ends() {
        let restore = |version_oldest, version| SourceMessage::Restore {
            version_oldest,
            version,
            features: crate::packet::Features(3),
            set_name: Text::from_str_cut("web"),
            accept_bad_data: true,
        };
        for (message, passes) in [
            (restore(1, WIRE_VERSION_OLDEST - 1), true),
            (restore(WIRE_VERSION + 1, WIRE_VERSION + 2), true),
            (restore(WIRE_VERSION, WIRE_VERSION), false),
            (restore(1, WIRE_VERSION + 1), false),
            (SourceMessage::Goodbye, false),
        ] {
            let bytes = [&encode_message(&message)[4..], &[1, 2]].concat();
            let read = decode_control::<SourceMessage>(&bytes);
            assert_eq!(read.as_ref().ok(), passes.then_some(&message), "{message:?}");
            assert!(passes || read == Err(CodecError::Trailing(2)), "{read:?}");
        }
    }

    #[test]
    fn one_line_says_which_side_is_older() {
        let line = other_version("the source", 4, 4);
        assert_eq!(
            line,
            format!(
                "the source speaks version 4 of the protocol, this host version {WIRE_VERSION}: update the older side"
            )
        );
        assert!(other_version("it", 6, 8).starts_with("it speaks versions 6 to 8 of"));
    }
}
