//! What is said where a directory had something of its own when it became a replica.

use super::Finding;
use crate::control::LostWrites;
use crate::events::Code;
use crate::units;

impl LostWrites {
    /// `replica`: its name. `None` where nothing is kept that would go.
    pub(super) fn finding(&self, replica: &str) -> Option<Finding> {
        let LostWrites { clone, area_bytes, copy_ended, failed: None, .. } = self else { return None };
        let when = if *copy_ended { "" } else { ", once the copy is over," };
        let text = format!(
            "Replica {replica}: what its directory had when it became the replica is kept ({clone}, {}): `standin failover` \
             here and `protect --stand-in` are refused until it{when} was taken out (`standin lost-writes list {replica}`, \
             `standin lost-writes extract --to DIR --set {replica}`) or given up (`standin clone stop {clone} --force --set \
             {replica}`).",
            units::size(*area_bytes)
        );
        Some(Finding::warning(Code::LostWritesKept, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Severity;

    /// A failover was refused for what no status had warned of.
    #[test]
    fn what_is_kept_is_a_warning_and_what_failed_is_none() {
        let kept = LostWrites {
            clone: "lost-writes-2".into(),
            since_unix_ms: 1,
            area_bytes: 0,
            copy_ended: true,
            failed: None,
        };
        let finding = kept.finding("web").unwrap();
        assert_eq!((finding.severity, finding.code), (Severity::Warning, Code::LostWritesKept));
        assert!(
            finding.text.contains("`standin clone stop lost-writes-2 --force --set web`"),
            "{}",
            finding.text
        );
        let failed = LostWrites { failed: Some("its area is full".into()), ..kept };
        assert!(failed.finding("web").is_none());
    }
}
