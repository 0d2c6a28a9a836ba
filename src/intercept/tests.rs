use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::packet::{Epoch, Incarnation, Position};
use crate::queue::Queue;

fn volume(backing: &Path) -> Arc<Volume> {
    let queue = Queue::new(1 << 27, Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3)));
    let fd = OwnedFd::from(std::fs::File::open(backing).unwrap());
    Arc::new(Volume::new(fd, queue, 1).unwrap())
}

#[test]
fn smoke() {
    let dir = tempfile::tempdir().unwrap();
    let (backing, mount_point) = (dir.path().join("backing"), dir.path().join("mnt"));
    std::fs::create_dir(&backing).unwrap();
    std::fs::create_dir(&mount_point).unwrap();
    let mount = Mount::new(volume(&backing), &mount_point, "test").unwrap();
    let mut serving = mount.serve().unwrap();
    if let Ok(cmd) = std::env::var("SMOKE") {
        let s = std::process::Command::new("bash").arg("-c").arg(cmd).current_dir(&mount_point).status();
        println!("{s:?}");
    }
    std::fs::write(mount_point.join("a"), "hello").unwrap();
    assert_eq!(std::fs::read_to_string(backing.join("a")).unwrap(), "hello");
    serving.unmount().unwrap();
}
