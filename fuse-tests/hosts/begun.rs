//! What a program begins past the mount before it is there.

use std::fs::{self, File};

use super::Hosts;
use crate::host::{self, Daemon};
use crate::sys::Mapping;

/// What a program stores past the mount is not replicated: one that begins to while targets are waited
/// for keeps the start from coming up, as one that was there before.
#[test]
fn who_begins_to_write_while_targets_are_waited_for_is_named() {
    let mut hosts = Hosts::prepare();
    let page = hosts.backing().join("a page");
    fs::write(&page, [b'0'; 4096]).unwrap();
    hosts.serve();
    hosts.pair();
    hosts.stop_target();
    let mut command = hosts.protect_command();
    command.args(host::profile(&[]));
    let mut source = Daemon::spawn(command);
    // It has seen that nobody had a file open for writing, and waits for its target.
    host::wait_until("waits for its target", || source.said().contains("tried for"));
    let file = File::options().read(true).write(true).open(&page).unwrap();
    let mapping = Mapping::new(&file, 4096).unwrap();
    drop(file);
    mapping.store(0, &[b'A'; 4096]).unwrap();
    hosts.serve();
    let status = source.wait(host::SYNC_MAX).expect("it ends");
    assert_eq!(status.code(), Some(2), "{}", source.said());
    host::wait_until("names the file", || source.said().contains("a page"));
    drop(mapping);
    hosts.protect();
    assert_eq!(fs::read(hosts.replica().join("a page")).unwrap(), [b'A'; 4096]);
    hosts.assert_in_sync();
    hosts.stop_source();
}
