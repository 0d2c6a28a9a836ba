//! Checks before a mount goes up. Each stands for a way in which data would be missed, hidden or
//! destroyed; nothing here changes anything on disk.

