//! Every code, once: the word that scripts rely on, what it says, and what to do.

use serde::{Deserialize, Serialize};

/// Whether it lasts, or happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It begins and ends.
    State,
    /// It has happened.
    Moment,
}

macro_rules! codes {
    ($($variant:ident $word:literal $kind:ident $says:literal $next:literal)*) => {
        /// What an event is about. The words are a promise.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $(#[serde(rename = $word)] $variant,)*
            /// Of a daemon of another version.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl Code {
            /// In the order of the documentation.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)* Code::Unknown];

            pub fn word(self) -> &'static str {
                match self {
                    $(Code::$variant => $word,)*
                    Code::Unknown => "unknown",
                }
            }

            pub fn kind(self) -> Kind {
                match self {
                    $(Code::$variant => Kind::$kind,)*
                    Code::Unknown => Kind::State,
                }
            }

            /// What it says.
            pub fn says(self) -> &'static str {
                match self {
                    $(Code::$variant => $says,)*
                    Code::Unknown => "the daemon is of a later version than the command that asks it",
                }
            }

            /// What to do; may be empty.
            pub fn next(self) -> &'static str {
                match self {
                    $(Code::$variant => $next,)*
                    Code::Unknown => "Ask with the command of the daemon's version.",
                }
            }
        }
    };
}

codes! {
    DaemonStarting "daemon_starting" State "a daemon starts: it does not serve yet"
        "Wait; where it lasts, read its log."
    DaemonStopping "daemon_stopping" State "a daemon was told to stop, and is at it"
        "Nothing, where it was meant."
    DaemonStarted "daemon_started" Moment "a daemon has begun to run"
        "Nothing, where it was meant; else read its log for why the one before ended."
    DaemonEnded "daemon_ended" Moment "a daemon has ended in an orderly way"
        "Nothing, where it was meant: until it is started again nothing is replicated."
    DaemonGone "daemon_gone" State "a daemon has ended without a word: it was killed, or crashed"
        "Read its log, and start it again."
    DaemonMute "daemon_mute" State "a daemon does not answer within 5 s: it is stopped, hangs, or its host is overloaded"
        "Look at the process (its state, its log); where it was stopped, let it go on (SIGCONT)."
    CommandGiven "command_given" Moment "a person, or a script, has told a daemon to change something"
        "Nothing, where it was meant."
    RoleChanged "role_changed" Moment "a source writes in another epoch than before"
        "Nothing, where a failover was meant."
    StoodInFor "stood_in_for" State "another host writes the set: this source is read-only"
        "Stop it, save what never reached the replica, and let the stand-in bring this directory into line."
    SplitBrain "split_brain" State "two hosts have stood in for one set, and both have written it"
        "`standin roles` shows both histories; save what the one has that goes, and name the one to keep there: `standin roles keep`."
    ConnectionStopped "connection_stopped" State "a connection was stopped: changes are only queued"
        "`standin connection start`, when it may send again."
    ConnectionPaused "connection_paused" State "a connection is paused, by a person or by the guard of deletions"
        "Read why in `standin status`; `standin connection resume` lets it go on."
    ConnectionFailed "connection_failed" State "a target cannot be reached, or has refused; it is tried again"
        "Read why in `standin status`; see that the target's daemon runs and its port can be reached."
    SessionFailed "session_failed" State "the last session of a schedule has failed"
        "As for `connection_failed`; the schedule tries it again."
    CopyNeeded "copy_needed" State "the queue has nothing for a target that is away: it was let go"
        "Bring the target back: a copy of what has changed follows by itself."
    NotConsistent "not_consistent" State "a replica is no copy of its directory as of any moment"
        "While a copy runs, wait for it; else start one (`standin mirror start`). Use no replica that is bad."
    SetAside "set_aside" State "a target could not perform a change, and has set the object aside"
        "Mend the cause that `standin status` names: it is tried again by itself."
    LeftOut "left_out" State "a copy had to leave objects out"
        "Mend what `standin status` names: it is tried again by itself."
    OpRetried "op_retried" State "a target cannot perform a change, and everything behind it waits"
        "Mend the cause that `standin status` names (a full disk, mostly)."
    MarkerHolds "marker_holds" State "the command of a marker runs on a target, and holds the stream"
        "Nothing: it goes on when the command is through, or its time is over."
    Lagging "lagging" State "a target is more than a minute behind"
        "See what is slow: the network, the target's disk, a limit (`standin status`)."
    LimitTooLow "limit_too_low" State "more is written than a connection may send"
        "Raise the limit (`standin connection limit`), or see that the queue has room until the load ends."
    DifferencesFound "differences_found" State "the last verification has found differences"
        "`standin verify --last` names them; `standin verify --repair` mends them."
    VerifyEnded "verify_ended" Moment "a verification has come to its end"
        "Nothing, where nothing differs."
    MirrorEnded "mirror_ended" Moment "a copy has come to its end"
        "Nothing; what it left out is an event of its own."
    NoConnection "no_connection" State "a source has no connection: nothing is replicated"
        "`standin connection add`, or start the protection with a target (`--to`)."
    QueueFull "queue_full" State "the queue is full, and programs wait"
        "See why targets do not take what is queued; give the queue more room."
    QueueHalfFull "queue_half_full" State "the queue in memory is more than half full"
        "See why targets do not take what is queued."
    DiskQueueHalfFull "disk_queue_half_full" State "the queue on disk is more than half full"
        "Bring the target back, or give the queue more room (`--queue-disk-limit`)."
    DiskQueueRefuses "disk_queue_refuses" State "the queue on disk takes nothing: it is at its limit, or its disk is full or fails"
        "Make room on its disk, or mend it."
    FsyncTimedOut "fsync_timed_out" State "targets do not make syncs durable in time: programs get I/O errors"
        "See why the target is slow or away."
    FsyncDegraded "fsync_degraded" State "targets do not make syncs durable in time: syncs return with the local disk alone"
        "See why the target is slow or away."
    FsyncOutsideSchedule "fsync_outside_schedule" State "syncs of programs wait for a target that has a schedule"
        "Take the schedule away, or `--fsync=target`."
    FsyncUnderLimit "fsync_under_limit" State "syncs of programs wait for what a limit lets through"
        "Raise the limit, or take `--fsync=target` away."
    SourceDiskLostWrites "source_disk_lost_writes" State "the source's disk has lost writes that programs took for done"
        "Copy from a replica what is missing before the protection is started again."
    CaptureDiverged "capture_diverged" State "a change could not be captured: replicas may miss it"
        "Let the copy that follows come to its end."
    SetChanged "set_changed" State "other names belong to the set than replicas have"
        "Let the copy that follows come to its end."
    MappedStoresRefused "mapped_stores_refused" State "bytes that programs had written were refused later, and are lost on both sides"
        "See that the disk of the directory has room; write again what is lost."
    MountLost "mount_lost" State "the mount is not there any more: changes pass the protection by"
        "Stop the programs, and start the protection again."
    MountOptions "mount_options" State "the mount does not have the options that it should have"
        "Mount it again as `standin status` says."
    SetFile "set_file" State "the file of a daemon's options cannot be followed"
        "Mend the file; what it said before goes on to hold."
    SetFileWaits "set_file_waits" State "the file of a daemon's options says otherwise than what holds"
        "`standin config diff` shows how; `standin reload`, or a restart."
    ActivityLogFailed "activity_log_failed" State "the activity log is not kept: a power loss would cost a comparison of everything"
        "Mend its disk, and start the protection again."
    StatisticsFailing "statistics_failing" State "lines of the statistics cannot be written, and are dropped (`--statistics`)"
        "Make room on their disk, or mend what `standin status` names."
    DiskHangs "disk_hangs" State "a disk of a daemon does not answer: a thread has waited for it for 20 s and more"
        "See which one hangs (dmesg), and mend it: what waits goes on by itself then."
    MmapFlushFailing "mmap_flush_failing" State "what the kernel gathers may stay unseen for long"
        "Read why in `standin status`."
    OpenPastMount "open_past_mount" State "somebody can write past the mount"
        "Take the other mount away, or let it use the protected directory."
    TouchedPastMount "touched_past_mount" State "an object was touched past the mount"
        "Nothing: the next start compares it."
    StartNote "start_note" State "something that the start has come upon"
        "Read it."
    SourceAway "source_away" State "the source of a replica is not connected"
        "See that its daemon runs and reaches this host."
    SourceYellow "source_yellow" State "a source does not answer its monitor as it should"
        "Look at its host, and at the network between."
    SourceRed "source_red" State "a source gives its monitor no sign of life"
        "Look at its host. Where it is gone, cut it off and give the command of `docs/failover.md` here."
    MonitorBlind "monitor_blind" State "a monitor concludes nothing: its own network is gone, or nothing can be asked"
        "`standin monitor SET --status` says why; until it sees again nobody is called."
    MonitorGone "monitor_gone" State "a monitor was killed, has crashed, or stands still: nobody watches the source"
        "Read its log, and start it again."
    AutoFailed "auto_failed" State "a monitor that fails over by itself does not: nothing more is done"
        "Read why in `standin monitor SET --status`, and fail over by hand where it has to be."
    AutoStoodIn "auto_stood_in" State "a monitor has had this host stand in for its source"
        "See that programs have what they need; the way back is in `docs/failover.md`."
    LostWritesKept "lost_writes_kept" State "what only a directory had when it became a replica is kept: it cannot be served before"
        "`standin lost-writes list`; take it out, or give it up, as `standin status` says."
    ReplicaUnusable "replica_unusable" State "a replica cannot be opened"
        "Mend what `standin status` names."
    DevicesWithheld "devices_withheld" State "device nodes were left out"
        "Nothing, or allow them (`--allow device`)."
    SetuidWithheld "setuid_withheld" State "setuid and setgid bits were left out"
        "Nothing, or allow them (`--allow setuid`)."
    SecurityWithheld "security_withheld" State "attributes `security.*` were left out"
        "Nothing, or allow them (`--allow security`)."
    FlagsWithheld "flags_withheld" State "immutable, append-only and no-dump flags were left out"
        "Put the replica on a file system that has them, where they matter."
    TimesCut "times_cut" State "the replica's file system cannot hold modification times as they are"
        "Put the replica on another file system where they matter."
    ClockSet "clock_set" Moment "the clock of a source was set while replicas tell moments by it"
        "See that both hosts have a time service."
    CloneFailed "clone_failed" State "a clone has failed"
        "`standin clone list` says why; stop it, and begin another one."
    DrillEnded "drill_ended" Moment "a drill has come to its end"
        "Nothing, where it passed; else `standin drill report` says what failed."
    DrillOverdue "drill_overdue" State "a drill has not passed for longer than its file expects, or never"
        "Run it, and see why nothing does: `systemctl list-timers`, `standin drill list`."
    DrillFailed "drill_failed" State "a drill that is expected to pass has failed the last time"
        "`standin drill report` says what failed."
    SetNotServed "set_not_served" State "a set of this host is served by no daemon: it was stopped, or its daemon was killed"
        "Start it as before, or `standin set delete SET` where nobody is to serve it; `standin status` has the command."
    EventsLost "events_lost" Moment "more has happened than a daemon keeps: some events were not heard"
        "`standin status` says how it is now."
    EventsSummed "events_summed" Moment "more events than hooks are called for: they come in one call"
        "`standin events list` has each of them."
    Test "test" Moment "a person tries the hooks"
        "Nothing."
}

impl Code {
    /// Of whoever listens to daemons, not of one of them.
    pub fn is_of_the_watch(self) -> bool {
        matches!(
            self,
            Code::DaemonGone
                | Code::DaemonMute
                | Code::DaemonEnded
                | Code::RoleChanged
                | Code::DrillEnded
                | Code::DrillOverdue
                | Code::DrillFailed
                | Code::EventsLost
                | Code::SourceYellow
                | Code::SourceRed
                | Code::MonitorBlind
                | Code::MonitorGone
                | Code::AutoFailed
                | Code::AutoStoodIn
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_code_is_one_word_and_comes_back() {
        let words: BTreeSet<&str> = Code::ALL.iter().map(|code| code.word()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        for code in Code::ALL {
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{}\"", code.word()));
            assert_eq!(serde_json::from_str::<Code>(&json).unwrap(), *code);
            assert!(code.word().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            assert!(!code.says().is_empty() && !code.next().is_empty(), "{code:?}");
        }
        assert_eq!(serde_json::from_str::<Code>("\"of_tomorrow\"").unwrap(), Code::Unknown);
    }

    /// The page has the table as it is made here.
    #[test]
    fn the_page_has_each_code() {
        let mut table = String::from("| code | what it says | what to do |\n|---|---|---|\n");
        for code in Code::ALL {
            let mark = if code.kind() == Kind::Moment { ", once" } else { "" };
            table += &format!("| `{}`{mark} | {} | {} |\n", code.word(), code.says(), code.next());
        }
        let page = include_str!("../../docs/events.md");
        assert!(page.contains(&table), "docs/events.md is to have this table:\n{table}");
    }
}
