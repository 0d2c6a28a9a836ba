//! What is said of lost writes.

use serde_json::{Value, json};

use super::Kept;
use crate::cli::status::said;
use crate::clone::Differing;
use crate::control::PathText;
use crate::units;
use crate::words::shown;

pub(super) fn head(one: &Kept, is_taken_out: bool) -> String {
    let since = shown((one.clone.started_unix_ms / 1000) as i64, &crate::sys::utc_offset);
    let how = match one.ended() {
        Some(why) => format!("nothing of it can be read: {why}"),
        None if is_taken_out => "was taken out".into(),
        None if one.is_good => "nobody has taken it out".into(),
        None => "the copy has not ended: more may differ".into(),
    };
    format!(
        "{}  {}\n   {}  as of {since}, takes {}; {how}\n",
        one.replica,
        one.directory.display(),
        one.clone.name,
        units::size(one.clone.area_bytes)
    )
}

pub(super) fn line(object: &Differing) -> String {
    let how: Vec<&str> = object.how.iter().map(|how| how.word()).collect();
    let at = shown(object.modified().0, &crate::sys::utc_offset);
    let (size, path) = (units::size(object.size()), said(&object.path));
    format!("   {:<18}  {size:>10}  {at}  {path}\n", how.join(", "))
}

pub(super) fn document(object: &Differing) -> Value {
    let how: Vec<&str> = object.how.iter().map(|how| how.word()).collect();
    let (seconds, nanoseconds) = object.modified();
    json!({
        "path": PathText(object.path.clone()),
        "kind": kind(object),
        "size": object.size(),
        "modified_unix_ms": seconds * 1000 + i64::from(nanoseconds / 1_000_000),
        "differs": how,
    })
}

fn kind(object: &Differing) -> &'static str {
    use rustix::fs::FileType;
    match object.kind() {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        FileType::Unknown => "unknown",
    }
}
