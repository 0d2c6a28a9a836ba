//! Network namespaces with a cable between them, in place of two hosts. Gone on drop.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::host::{self, run};

/// Addresses of the two ends of the cable.
pub const SOURCE: &str = "192.0.2.1";
pub const TARGET: &str = "192.0.2.2";

/// Two network namespaces with a cable between them; gone on drop.
pub struct Cable {
    pub source: String,
    pub target: String,
}

impl Cable {
    pub fn lay() -> Cable {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        host::require_program("ip");
        host::require_program("nsenter");
        // Taken in one step: tests that begin at the same moment had the same hosts.
        let number = NUMBER.fetch_add(1, Relaxed);
        let name = |end: &str| format!("sd{}-{number}{end}", std::process::id());
        let cable = Cable { source: name("s"), target: name("t") };
        for end in [&cable.source, &cable.target] {
            ip(&["netns", "add", end]);
            ip(&["-n", end, "link", "set", "lo", "up"]);
        }
        let (source, target) = (cable.source.as_str(), cable.target.as_str());
        ip(&["-n", source, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", target]);
        for (end, address) in [(source, SOURCE), (target, TARGET)] {
            ip(&["-n", end, "address", "add", &format!("{address}/24"), "dev", "cable"]);
            ip(&["-n", end, "link", "set", "cable", "up"]);
        }
        cable
    }

    /// Longest IP packet that one end sends, and takes: what is longer it drops without a word.
    pub fn set_mtu(&self, end: &str, mtu: u32) {
        ip(&["-n", end, "link", "set", "cable", "mtu", &mtu.to_string()]);
    }

    /// Bytes that the source has put on the cable.
    pub fn sent_bytes(&self) -> u64 {
        let output = run(Command::new("ip").args(["-n", &self.source, "-s", "-j", "link", "show", "cable"]));
        let link: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        link[0]["stats64"]["tx"]["bytes"].as_u64().expect("a number")
    }

    pub fn cut(&self) {
        ip(&["-n", &self.target, "link", "set", "cable", "down"]);
    }

    pub fn mend(&self) {
        ip(&["-n", &self.target, "link", "set", "cable", "up"]);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for end in [&self.source, &self.target] {
            let _ = Command::new("ip").args(["netns", "delete", end]).stderr(Stdio::null()).status();
        }
    }
}

pub fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}
