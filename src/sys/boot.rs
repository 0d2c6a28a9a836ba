//! Which boot of the machine this is.

use std::io;
use std::sync::OnceLock;

/// Read once: a boot does not change under a process. One that confines itself reads it before: no
/// rule of landlock holds for `/proc`, whose inodes are new ones after the kernel has dropped them.
static BOOT: OnceLock<u128> = OnceLock::new();

/// The random id of this boot (random(4)).
pub fn boot_id() -> io::Result<u128> {
    if let Some(&boot) = BOOT.get() {
        return Ok(boot);
    }
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let boot = u128::from_str_radix(&hex, 16).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(*BOOT.get_or_init(|| boot))
}
