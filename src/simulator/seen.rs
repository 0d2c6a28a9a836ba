//! What runs came to, so that nobody takes a simulator for one that finds what it never comes upon.

/// How often a run came to what is worth coming to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub steps: u64,
    pub applied: u64,
    pub compared: u64,
    pub resumed: u64,
    pub resent: u64,
    pub copies: u64,
    pub deaths: u64,
    pub deaths_within: u64,
    pub power_losses: u64,
    pub in_doubt: u64,
    pub retried: u64,
    pub aside: u64,
    pub relieved: u64,
    pub took_over: u64,
    pub paused: u64,
    pub stopped: u64,
    pub let_go: u64,
    pub refused: u64,
    pub syncs_failed: u64,
    pub set_back: u64,
    pub lied: u64,
    pub copies_under_load: u64,
    pub copies_cut_off: u64,
    pub doubts: u64,
    pub listed_again: u64,
    pub back_after_let_go: u64,
    pub healed: u64,
    pub spilled: u64,
    pub read_from_disk: u64,
    pub disk_stuck: u64,
    pub lost_by_disk: u64,
    pub holes: u64,
    pub said_what_is_kept: u64,
    pub kept: u64,
    pub linked: u64,
    pub minicopies: u64,
    pub minicopies_over: u64,
    pub minicopies_of_nothing: u64,
    pub minicopies_cut_off: u64,
    pub searches: u64,
    /// Queues that a source has left, and streams that went on with them.
    pub left_queues: u64,
    pub resumed_left: u64,
    pub rotated: u64,
    pub full_maps: u64,
    /// Daemons that died under a mount that outlives them, and copies of what they had marked.
    pub outlived: u64,
    pub by_left: u64,
}

/// One of 500 runs comes to it: a target whose disk is full is let go before, mostly.
const RELIEVED: &str = "a file emptied to make room";

impl Seen {
    pub fn add(&mut self, other: &Seen) {
        for ((_, own), (_, more)) in self.counts().into_iter().zip(other.clone().counts()) {
            *own += *more;
        }
    }

    /// What no run came to, and one of them should have.
    pub fn never(&mut self) -> Vec<&'static str> {
        let is_missed = |(name, count): &(&str, &mut u64)| **count == 0 && *name != RELIEVED;
        self.counts().into_iter().filter(is_missed).map(|(name, _)| name).collect()
    }

    fn counts(&mut self) -> [(&'static str, &mut u64); 46] {
        [
            ("a step", &mut self.steps),
            ("a packet", &mut self.applied),
            ("a comparison", &mut self.compared),
            ("a resumed stream", &mut self.resumed),
            ("a packet sent again", &mut self.resent),
            ("a copy", &mut self.copies),
            ("a death", &mut self.deaths),
            ("a death within a step", &mut self.deaths_within),
            ("a power loss", &mut self.power_losses),
            ("an op in doubt", &mut self.in_doubt),
            ("an op tried again", &mut self.retried),
            ("an object set aside", &mut self.aside),
            (RELIEVED, &mut self.relieved),
            ("a session that takes over", &mut self.took_over),
            ("a pause", &mut self.paused),
            ("a stop", &mut self.stopped),
            ("a target that was let go", &mut self.let_go),
            ("a refusal", &mut self.refused),
            ("a failed sync", &mut self.syncs_failed),
            ("a state directory set back", &mut self.set_back),
            ("a lie", &mut self.lied),
            ("a copy while applications wrote", &mut self.copies_under_load),
            ("a copy that was cut off", &mut self.copies_cut_off),
            ("a doubt", &mut self.doubts),
            ("a listing begun anew", &mut self.listed_again),
            ("a target that was let go and is back", &mut self.back_after_let_go),
            ("a copy that heals what was set aside", &mut self.healed),
            ("a segment of the queue that was written", &mut self.spilled),
            ("one that was read", &mut self.read_from_disk),
            ("a disk of the queue that took nothing", &mut self.disk_stuck),
            ("what the disk of the queue lost", &mut self.lost_by_disk),
            ("a large hole", &mut self.holes),
            ("a change of what is kept", &mut self.said_what_is_kept),
            ("a file that is kept aside", &mut self.kept),
            ("a file that a person has linked", &mut self.linked),
            ("a copy of what is owed", &mut self.minicopies),
            ("one that came to its end", &mut self.minicopies_over),
            ("one of nothing", &mut self.minicopies_of_nothing),
            ("one that was cut off", &mut self.minicopies_cut_off),
            ("one whose changes are found by time", &mut self.searches),
            ("a queue that is left", &mut self.left_queues),
            ("a stream of what was left", &mut self.resumed_left),
            ("a generation of the map that begins within a change", &mut self.rotated),
            ("a map that is full", &mut self.full_maps),
            ("a daemon that died under its mount", &mut self.outlived),
            ("a copy of what it had marked", &mut self.by_left),
        ]
    }
}
