//! The token that a person carries from the target to the source.
//!
//! ```text
//! text   "standin1-" and the bytes below in Crockford's base32, lower case; case, white space
//!        and dashes behind the prefix do not count
//! offset size
//!      0   32  fingerprint of the target's key
//!     32   16  secret, random
//!     48    1  length of the set's name, then the name
//!          1   length of the address hint, then the hint (host:port, may be empty)
//!          4   crc32c of all before, little-endian: against slips of the hand
//! ```

use std::fmt;
use std::str::FromStr;

use crate::store;
use crate::words::{Fingerprint, sha256};

const PREFIX: &str = "standin1-";
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const FINGERPRINT_LEN: usize = 32;
const SECRET_LEN: usize = 16;

/// Longest text that is looked at, in bytes: two names of 255 bytes, and room.
pub const TOKEN_TEXT_MAX: usize = 1200;

/// 128 random bits: what proves that the token was seen.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_LEN]);

impl Secret {
    pub fn generate() -> Secret {
        Secret(store::random_u128().to_le_bytes())
    }

    /// Names the token without saying anything about the secret.
    pub fn number(&self) -> u64 {
        let hash = sha256(&[b"standin token number\0".as_slice(), &self.0].concat());
        u64::from_le_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))
    }

    /// The key of proofs; only its hash is kept by the target.
    pub(super) fn key(&self) -> [u8; 32] {
        sha256(&[b"standin token key\0".as_slice(), &self.0].concat())
    }
}

impl fmt::Debug for Secret {
    /// Stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub target: Fingerprint,
    pub secret: Secret,
    pub set_name: String,
    /// Where the target may be reached, if it was said; at most 255 bytes.
    pub address: String,
}

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadToken {
    NotAToken,
    OtherVersion,
    Mistyped,
}

impl fmt::Display for BadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadToken::NotAToken => "this is no token of `standin invite`",
            BadToken::OtherVersion => "the token is of another version of standin",
            BadToken::Mistyped => "the token is not complete or was mistyped",
        })
    }
}

impl std::error::Error for BadToken {}

impl Token {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.target.bytes().to_vec();
        bytes.extend_from_slice(&self.secret.0);
        for text in [&self.set_name, &self.address] {
            let text = &text.as_bytes()[..text.len().min(255)];
            bytes.push(text.len() as u8);
            bytes.extend_from_slice(text);
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Token> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (target, rest) = body.split_first_chunk::<FINGERPRINT_LEN>()?;
        let (secret, rest) = rest.split_first_chunk::<SECRET_LEN>()?;
        let (set_name, rest) = short_text(rest)?;
        let (address, rest) = short_text(rest)?;
        let target = Fingerprint::from_bytes(*target);
        rest.is_empty().then_some(Token { target, secret: Secret(*secret), set_name, address })
    }
}

fn short_text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (&len, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(len.into())?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", to_base32(&self.bytes()))
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Token, BadToken> {
        let text: String = text.split_whitespace().collect::<String>().to_ascii_lowercase();
        if text.len() > TOKEN_TEXT_MAX {
            return Err(BadToken::NotAToken);
        }
        match text.strip_prefix(PREFIX) {
            Some(digits) => {
                from_base32(digits).and_then(|bytes| Token::parse(&bytes)).ok_or(BadToken::Mistyped)
            }
            None if text.starts_with("standin") => Err(BadToken::OtherVersion),
            None => Err(BadToken::NotAToken),
        }
    }
}

fn to_base32(bytes: &[u8]) -> String {
    let digit = |index: usize| {
        let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
        let value = (0..5).fold(0, |value, at| value << 1 | bit(index * 5 + at));
        char::from(ALPHABET[usize::from(value)])
    };
    (0..(bytes.len() * 8).div_ceil(5)).map(digit).collect()
}

/// `None`: a character that is no digit, or left-over bits that are not zero.
fn from_base32(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut value, mut bits) = (Vec::with_capacity(text.len() * 5 / 8), 0u16, 0);
    for digit in text.bytes().filter(|&digit| digit != b'-') {
        let digit = ALPHABET.iter().position(|&known| known == digit)?;
        value = value << 5 | digit as u16;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((value >> bits) as u8);
            value &= (1 << bits) - 1;
        }
    }
    (value == 0 && bits < 5).then_some(bytes)
}
