//! Whether programs still reach the mount. A lazy unmount while a file is open, or a mount on top
//! of ours, leaves the daemon serving what nobody new can see: what is written at the directory
//! then goes past it.

use std::path::{Path, PathBuf};

use crate::preflight::MountTable;

/// The mount as it was when it came up.
pub struct MountWatch {
    directory: PathBuf,
    /// Device number; `None` where this process cannot see its own mount.
    device: Option<String>,
    lost: Option<String>,
}

impl MountWatch {
    /// `kept`: the device of a mount that may be an older one, which something may have come upon meanwhile.
    pub fn begin(directory: &Path, kept: Option<String>) -> MountWatch {
        let device = kept.or_else(|| device_at(directory));
        MountWatch { directory: directory.to_owned(), device, lost: None }
    }

    /// Logs it when something comes between programs and the mount, and when that ends.
    pub fn look(&mut self, table: &MountTable) {
        let Some(device) = &self.device else { return };
        let on_top = table.at(&self.directory).map(|mount| &mount.device);
        let lost = (on_top != Some(device)).then(|| self.text());
        if self.lost == lost {
            return;
        }
        match &lost {
            Some(text) => log::error!("{text}"),
            None => log::warn!("{} is protected again", self.directory.display()),
        }
        self.lost = lost;
    }

    /// What stands in the way, if something does.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    fn text(&self) -> String {
        format!(
            "The mount on {0} was taken away or covered by another: what is written there now is NOT protected. \
             Only files that were open before still are. Undo that, or stop and start the protection.",
            self.directory.display()
        )
    }
}

/// The device of what is on top there. Touches no mount.
fn device_at(directory: &Path) -> Option<String> {
    MountTable::read().ok()?.at(directory).map(|mount| mount.device.clone())
}
