//! What a target performs for its source, checked before anything of an op is done.
//!
//! Everything a source can have is allowed: devices, setuid, `security.*`. What is refused are
//! values that no source can have, which are orders to the kernel or to the product itself.

use super::fault::Fault;
use crate::packet::{Attributes, Op, Owner, Timestamp, XattrName};
use crate::xattr::OWN_PREFIX;

/// Checks one op; [`Fault::Refused`] says why it is never performed.
pub fn permit(op: &Op) -> Result<(), Fault> {
    match op {
        Op::Create { dir_mtime, attributes, xattrs, .. } => {
            time(dir_mtime)?;
            attributes_of(attributes)?;
            xattrs.iter().try_for_each(|xattr| xattr_name(&xattr.name))
        }
        Op::Link { dir_mtime, .. } | Op::Unlink { dir_mtime, .. } | Op::RemoveDirectory { dir_mtime, .. } => {
            time(dir_mtime)
        }
        Op::Rename { from_mtime, to_mtime, whiteout, .. } => {
            time(from_mtime)?;
            time(to_mtime)?;
            whiteout.as_ref().map_or(Ok(()), |whiteout| attributes_of(&whiteout.attributes))
        }
        Op::Exchange { left_mtime, right_mtime, .. } => time(left_mtime).and_then(|()| time(right_mtime)),
        Op::Write { result, .. } | Op::Resize { result, .. } => time(&result.mtime),
        Op::Reserve { offset, length, result, .. } => {
            time(&result.mtime)?;
            match offset.checked_add(*length) {
                Some(end) if end <= i64::MAX as u64 && *length > 0 => Ok(()),
                _ => Err(Fault::Refused("a range that no file has")),
            }
        }
        Op::SetAttributes { owner, mtime, .. } => {
            owner.as_ref().map_or(Ok(()), owner_of)?;
            mtime.as_ref().map_or(Ok(()), time)
        }
        Op::SetXattr { name, .. } | Op::RemoveXattr { name, .. } => xattr_name(name),
        Op::Barrier { .. } => Ok(()),
    }
}

fn attributes_of(attributes: &Attributes) -> Result<(), Fault> {
    time(&attributes.mtime)?;
    owner_of(&Owner { uid: attributes.uid, gid: attributes.gid })
}

/// -1 means "leave it" to the kernel.
fn owner_of(owner: &Owner) -> Result<(), Fault> {
    if owner.uid == u32::MAX || owner.gid == u32::MAX {
        return Err(Fault::Refused("an owner of -1"));
    }
    Ok(())
}

/// Larger values are orders to the kernel ("now", "leave it").
fn time(time: &Timestamp) -> Result<(), Fault> {
    if time.nanoseconds >= 1_000_000_000 {
        return Err(Fault::Refused("a time of more than 999,999,999 nanoseconds"));
    }
    Ok(())
}

fn xattr_name(name: &XattrName) -> Result<(), Fault> {
    if name.0.starts_with(OWN_PREFIX) {
        return Err(Fault::Refused("an extended attribute of the product itself"));
    }
    Ok(())
}
