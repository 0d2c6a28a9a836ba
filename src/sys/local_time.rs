//! What clocks on the wall show.

/// Seconds that local time is ahead of UTC at a moment, in seconds since 1970 (localtime_r(3)); 0 where that is
/// not known.
pub fn utc_offset(unix_s: i64) -> i64 {
    // SAFETY: a `tm` is numbers and a pointer that is only written; all zeros is one.
    let mut time: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to variables of ours; nothing here changes the environment that it reads.
    let told = unsafe { libc::localtime_r(&unix_s, &mut time) };
    if told.is_null() { 0 } else { time.tm_gmtoff }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_is_a_day_ahead() {
        for moment in [0, 1_700_000_000, 4_000_000_000, i64::MIN] {
            assert!(utc_offset(moment).abs() < 86_400, "{moment}");
        }
    }
}
