//! `standin serve`: from what was typed to what a target daemon needs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::Outcome;
use super::args::{Allowed, Common, Serve};
use super::config::{self, Typed};
use crate::clone::lacks_room;
use crate::cover::is_handed_over;
use crate::failure::Failure;
use crate::limits::PORT;
use crate::preflight::{MountTable, resolve};
use crate::source_side::{HostRole, who_writes_here};
use crate::target_side::{self, ServeOptions};
use crate::units;
use crate::words::{Allow, Configuration, is_set_name};

const UNTOUCHED: &str = "Nothing was changed.";

pub(super) fn run(common: &Common, typed: &Typed) -> Outcome {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(
            "Serving replicas needs root: they keep the owners of their files.",
            UNTOUCHED,
            "Start it as root, for example with sudo or as a systemd service.",
        ));
    }
    let options = config::serve(common, typed)?;
    refuse_lost_writes(&options)?;
    target_side::run(options)?;
    Ok(0)
}

/// What only a directory has whose host was stood in for is kept before it is overwritten: asked before anything is.
fn refuse_lost_writes(options: &ServeOptions) -> Result<(), Failure> {
    if !options.adopt || options.lost_writes.is_some() {
        return Ok(());
    }
    // What cannot be read is refused later, by who needs it.
    for one in who_writes_here(&options.state).unwrap_or_default() {
        let Some(tree) = one.tree.filter(|tree| tree.parent() == Some(&options.root)) else { continue };
        if one.role == HostRole::Target || is_handed_over(&options.state.join(&one.name)) {
            continue;
        }
        let lacks = lacks_room(&tree).map_err(|error| {
            Failure::new(
                format!(
                    "Whether there is room to keep what only {} has cannot be told: {error}.",
                    tree.display()
                ),
                UNTOUCHED,
                "Mend this; or say how much it may take with --lost-writes SIZE.",
            )
        })?;
        let Some((taken, free)) = lacks else { continue };
        return Err(Failure::new(
            format!(
                "What only {} has is kept before it is overwritten; it takes {} or more, and {} is free for that.",
                tree.display(),
                units::size(taken),
                units::size(free)
            ),
            UNTOUCHED,
            "Make room. Or say how much it may take with --lost-writes SIZE: what does not fit is lost; 0 keeps nothing.",
        ));
    }
    Ok(())
}

/// `mounts`: of the start; a daemon that is confined cannot read them again.
pub(super) fn options(common: &Common, args: Serve, mounts: &MountTable) -> Result<ServeOptions, Failure> {
    if !is_set_name(&args.name) {
        return Err(Failure::new(
            format!("'{}' cannot name a daemon.", args.name),
            UNTOUCHED,
            "Choose at most 64 letters, digits and any of - _ . @ +, not starting with a dot.",
        ));
    }
    let unreachable = |path: &Path, error: &std::io::Error| {
        Failure::new(format!("{} cannot be reached: {error}.", path.display()), UNTOUCHED, "Check the path.")
    };
    let place = |path: &Path| resolve(path, mounts).map_err(|error| unreachable(path, &error));
    let root = args.root.as_deref().ok_or_else(|| {
        Failure::new(
            "It is not said where the replicas are.",
            UNTOUCHED,
            format!(
                "Type --root PATH, or write `root` below [serve] in {}.",
                config::serve_path(common).display()
            ),
        )
    })?;
    Ok(ServeOptions {
        name: args.name,
        root: place(root)?,
        listen: args.listen.map_or_else(everywhere, |address| vec![address]),
        state: place(&common.state_dir())?,
        run: place(&common.run_dir())?,
        allow: allow(&args.allow),
        keep_good: args.keep_good,
        adopt: args.adopt,
        lost_writes: args.lost_writes,
        statistics: args.statistics.asked(mounts, UNTOUCHED)?,
        configuration: Configuration::default(),
    })
}

/// What was typed behind `--allow`.
pub(super) fn allow(kinds: &[Allowed]) -> Allow {
    kinds.iter().fold(Allow::NOTHING, |allow, kind| match kind {
        Allowed::Device => Allow { device: true, ..allow },
        Allowed::Setuid => Allow { setuid: true, ..allow },
        Allowed::Security => Allow { security: true, ..allow },
        Allowed::Nothing => allow,
    })
}

/// All addresses of both families; of IPv4 alone where there is no IPv6.
fn everywhere() -> Vec<SocketAddr> {
    [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)]
        .map(|address| SocketAddr::new(address, PORT))
        .to_vec()
}

/// `ADDRESS` or `ADDRESS:PORT`; an IPv6 address with a port stands in brackets.
pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(address) => Ok(SocketAddr::new(address, PORT)),
        Err(_) => {
            Err("give an address of this host, as in 192.0.2.1, 192.0.2.1:7447 or [2001:db8::1]:7447".into())
        }
    }
}
