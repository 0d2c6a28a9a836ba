//! One request of a caller: a line of bounded length.

use std::io::{self, BufRead, BufReader, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use crate::limits::CONTROL_REQUEST_LEN_MAX;

/// See the module.
pub(super) enum Line {
    Request(Vec<u8>),
    TooLong,
}

/// The next line; `None` at the end. After a line that is too long there is only the end.
pub(super) fn read_request(reader: &mut BufReader<UnixStream>) -> io::Result<Option<Line>> {
    let mut bytes = Vec::new();
    reader.take(CONTROL_REQUEST_LEN_MAX as u64 + 1).read_until(b'\n', &mut bytes)?;
    if bytes.len() > CONTROL_REQUEST_LEN_MAX {
        reader.get_ref().shutdown(Shutdown::Read)?;
        reader.consume(reader.buffer().len());
        return Ok(Some(Line::TooLong));
    }
    Ok(if bytes.is_empty() { None } else { Some(Line::Request(bytes)) })
}
