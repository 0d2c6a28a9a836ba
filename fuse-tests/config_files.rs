//! Files of options that chance has made: good ones, and good ones that somebody has damaged. The library's own tests
//! read this file, too.

/// A number below the one that is given.
pub type Chance<'a> = &'a mut dyn FnMut(u64) -> u64;

fn one_of<'a>(below: Chance<'_>, from: &[&'a str]) -> &'a str {
    from[below(from.len() as u64) as usize]
}

/// Lines that stand for themselves; a file has each or not.
const LINES: [&[&str]; 17] = [
    &["limit = \"1M\"", "limit = \"8Mbit\"", "limit = \"weekdays 08:00-18:00 1M, sat+sun 00:00-24:00 8M\""],
    &["schedule = \"window=00:00-23:59\"", "schedule = \"queue=1,every=1h\"", "schedule = 'queue=64M'"],
    &["compression = 1", "compression = \"2\"", "compression = 0"],
    &["ignore_deletes = true", "keep-deleted = \"trash\"", "keep_deleted = { dir = \"bin\", days = 3 }"],
    &["verify = { every = \"24h\", at = \"03:00\" }", "verify_every = \"7d\"\nverify_mode = \"audit\""],
    &["queue_memory = \"64M\"", "queue-memory = \"1G\""],
    &["queue_disk_limit = \"1G\"", "queue_disk_limit = 0"],
    &["map_size = \"16M\""],
    &["activity_log = \"strict\"", "activity-log = \"lazy\""],
    &["profile = \"batch\"", "profile = \"default\""],
    &["mmap_lag = \"500ms\"", "mmap_lag = 0"],
    &["on_queue_full = \"block\""],
    &["delete_guard = 20", "delete_guard = \"off\""],
    &["orphans = \"keep\"\norphan_age = \"12h\"", "orphans = 'aside'"],
    &["fsync_timeout = \"5s\"\nfsync_degrade = true"],
    &["# a comment", "", "   # another one, äöü"],
    &["to = [\"null:\"]", "to = \"null:\""],
];

/// Rules, behind everything else.
const RULES: [&str; 4] = [
    "[[rule]]\nexclude = \"*.tmp\"",
    "[[rule]]\nexclude = \"/cache\"\n\n[[rule]]\ninclude = \"/cache/keep\"",
    "[[rule]]\nexclude = \"*.log\"\nrecursive = false",
    "[[rule]]\nexclude = 'a?b*'",
];

/// What is right behind `first`, which names the directory.
pub fn good(below: Chance<'_>, first: &str) -> String {
    let mut lines = vec![first.to_owned()];
    for line in LINES {
        if below(3) == 0 {
            lines.push(one_of(below, line).to_owned());
        }
    }
    // The keys have no order.
    for last in (1..lines.len()).rev() {
        lines.swap(last, below(last as u64 + 1) as usize);
    }
    if below(2) == 0 {
        lines.push(one_of(below, &RULES).to_owned());
    }
    lines.join("\n") + "\n"
}

/// What makes a file wrong whatever else stands in it, above everything.
const WRONG: [&str; 22] = [
    "limt = \"1M\"",
    "quue_memory = \"64M\"",
    "nothing_of_ours = 1",
    "limit = [\"1M\"]",
    "limit = { rate = \"1M\" }",
    "map-size = true",
    "map_size = 1.5",
    "map_size = \"16 elephants\"",
    "queue_memory = \"1K\"",
    "compression = 11",
    "schedule = \"queue=banana\"",
    "adopt = true",
    "force = false",
    "name = \"other\"",
    "run = \"/run\"",
    "password = \"x\"",
    "to = \"local:relative\"",
    "rule = \"*.tmp\"",
    "rule = [{ exclude = \"a\", include = \"b\" }]",
    "rule = [{ exclude = \"a//b\" }]",
    "fsync = \"target\"\nfsync_timeout = 0",
    "exclude = [\"*.tmp\"]",
];

/// A good one, damaged.
pub fn bad(below: Chance<'_>, first: &str) -> String {
    let good = good(below, first);
    match below(4) {
        0 => format!("{}\n{good}", one_of(below, &WRONG)),
        // A key twice, in either spelling.
        1 => format!("fsync_degrade = true\nfsync-degrade = true\n{}", without(&good, "fsync")),
        // The beginning of the file is gone in the middle of its first text.
        2 => format!(
            "{}\n{good}",
            one_of(below, &["limit = \"1M", "to = [\"null:\"", "= 3", "dir", "]", "a = {"])
        ),
        // A letter of a key is another one.
        _ => {
            let keys = good.match_indices(" = ").map(|(at, _)| at);
            let keys: Vec<usize> =
                keys.filter(|at| good[..*at].ends_with(|c: char| c.is_ascii_lowercase())).collect();
            let at = keys[below(keys.len() as u64) as usize];
            format!("{}_x{}", &good[..at], &good[at..])
        }
    }
}

fn without(text: &str, part: &str) -> String {
    text.lines().filter(|line| !line.contains(part)).map(|line| format!("{line}\n")).collect()
}
