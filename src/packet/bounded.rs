//! Bytes with a bound that is checked when they are decoded.

use std::fmt;

use bincode::de::Decoder;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};

use crate::limits::{MARKER_NAME_LEN_MAX, NAME_LEN_MAX};
use crate::words::is_set_name;

/// Name of a directory entry: 1..=255 bytes, no `/`, no NUL, not `.` or `..`. Bytes, not UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
pub struct Name(Box<[u8]>);

/// Why bytes are no [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadName;

impl Name {
    /// Checks the bytes once; afterwards the type is the proof.
    pub fn new(bytes: &[u8]) -> Result<Name, BadName> {
        let bad = bytes.is_empty()
            || bytes.len() > NAME_LEN_MAX
            || bytes == b"."
            || bytes == b".."
            || bytes.iter().any(|&byte| byte == b'/' || byte == 0);
        if bad { Err(BadName) } else { Ok(Name(bytes.into())) }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn as_os_str(&self) -> &std::ffi::OsStr {
        std::os::unix::ffi::OsStrExt::from_bytes(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl<Context> Decode<Context> for Name {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let bytes = bounded_bytes(decoder, NAME_LEN_MAX)?;
        Name::new(&bytes).map_err(|BadName| DecodeError::Other("not a file name"))
    }
}
bincode::impl_borrow_decode!(Name);

/// Name of a marker, as those of sets: letters, digits and any of `-_.@+`, so that no shell and no terminal takes it
/// for anything else.
#[derive(Clone, PartialEq, Eq, Hash, Encode)]
pub struct MarkerName(Box<[u8]>);

impl MarkerName {
    /// `None`: it cannot be one.
    pub fn new(name: &str) -> Option<MarkerName> {
        is_set_name(name).then(|| MarkerName(name.as_bytes().into()))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("it was made of text")
    }
}

impl fmt::Debug for MarkerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<Context> Decode<Context> for MarkerName {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let bytes = bounded_bytes(decoder, MARKER_NAME_LEN_MAX)?;
        let name = std::str::from_utf8(&bytes).ok().and_then(MarkerName::new);
        name.ok_or(DecodeError::Other("not a name of a marker"))
    }
}
bincode::impl_borrow_decode!(MarkerName);

/// Bytes whose length is bounded when they are decoded: at most `MAX` bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
pub struct Bounded<const MAX: usize>(pub Vec<u8>);

impl<const MAX: usize> fmt::Debug for Bounded<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl<Context, const MAX: usize> Decode<Context> for Bounded<MAX> {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Bounded(bounded_bytes(decoder, MAX)?))
    }
}

impl<'de, Context, const MAX: usize> bincode::BorrowDecode<'de, Context> for Bounded<MAX> {
    fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Decode::decode(decoder)
    }
}

/// Reads a length and that many bytes, refusing before it allocates.
fn bounded_bytes<D: Decoder>(decoder: &mut D, max: usize) -> Result<Vec<u8>, DecodeError> {
    use bincode::de::read::Reader;
    let len = u64::decode(decoder)?;
    if len > max as u64 {
        return Err(DecodeError::Other("bytes longer than their bound"));
    }
    decoder.claim_bytes_read(len as usize)?;
    let mut bytes = vec![0; len as usize];
    decoder.reader().read(&mut bytes)?;
    Ok(bytes)
}
