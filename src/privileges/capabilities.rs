//! Capabilities: a list for each process, and how the others are given up.

use std::io;

use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, capabilities_secure_bits,
    capability_is_in_bounding_set, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
};

/// A source, with the targets of `local:` in it. No `CAP_SYS_RESOURCE`: programs on the mount must
/// not get past their quotas.
pub const PROTECT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_PTRACE);

/// A target daemon whose sources may have plain data; [`for_allowed`] adds to it.
pub const SERVE: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_RESOURCE);

/// What a target daemon needs until it listens and never later: a port below 1024, large buffers
/// of its socket, and giving up capabilities itself.
pub const SERVE_START: CapabilitySet =
    CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_BIND_SERVICE).union(CapabilitySet::SETPCAP);

/// What a source needs for nothing but giving up the rest.
pub const PROTECT_START: CapabilitySet = CapabilitySet::SETPCAP;

/// The helper that flushes a mount: it opens the mount's root, and files that may be mapped, whoever
/// owns them; those of which the disk refused something also for writing.
pub const FLUSHER: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::DAC_READ_SEARCH);

/// Who only keeps descriptors.
pub const HOLDER: CapabilitySet = CapabilitySet::empty();

/// Who only tells the kernel, over a connection that it was given, what to drop.
pub const PAGES: CapabilitySet = CapabilitySet::empty();

/// The checks of a drill: what programs of the data need that root starts, and nothing that mounts,
/// traces, configures, or reaches an object by its file handle (which would lead from the clone to the
/// replica on the same file system).
pub const DRILL: CapabilitySet = CapabilitySet::AUDIT_WRITE
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYS_CHROOT);

/// What a target needs on top to make device nodes, and to set `security.*` attributes.
pub fn for_allowed(device: bool, security: bool) -> CapabilitySet {
    let mut set = CapabilitySet::empty();
    set.set(CapabilitySet::MKNOD, device);
    set.set(CapabilitySet::SETFCAP, security);
    set
}

/// Whether this thread has all of these.
pub fn holds(wanted: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|now| now.effective.contains(wanted))
}

/// Keeps these capabilities on this thread, and on those that it starts later, and gives up all
/// others, in every set; no program that is started later gets more (`no_new_privs`). A change of
/// the file-system user leaves capabilities alone from now on (`SECBIT_NO_SETUID_FIXUP`).
///
/// Answers those of `keep` that were not there to begin with (containers).
/// Errors: the system's; some may be given up and others not.
pub fn give_up(keep: CapabilitySet) -> io::Result<CapabilitySet> {
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    let now = capabilities(None)?;
    if now.effective.contains(CapabilitySet::SETPCAP) {
        let bits = capabilities_secure_bits()?;
        set_capabilities_secure_bits(bits | CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
        narrow_bounds(keep)?;
    }
    let kept = now.permitted & keep;
    let empty = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: empty })?;
    Ok(keep - kept)
}

/// Keeps these capabilities at most on this thread and on all programs that it starts, whoever they are
/// started as. Unlike [`give_up`] a program may change its user as ever, and loses them with it.
///
/// Errors: the system's; some may be given up and others not.
pub fn narrow(keep: CapabilitySet) -> io::Result<()> {
    clear_ambient_capability_set()?;
    narrow_bounds(keep)?;
    let kept = capabilities(None)?.permitted & keep;
    let empty = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: empty })?;
    Ok(())
}

/// The bounding set is what a program that root starts could get.
fn narrow_bounds(keep: CapabilitySet) -> io::Result<()> {
    for capability in (0..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
        match capability_is_in_bounding_set(capability) {
            Ok(true) if !keep.contains(capability) => remove_capability_from_bounding_set(capability)?,
            Ok(_) => {}
            // Beyond the last one that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
