//! Where the scheduler put the threads of a process, from `/proc/PID/task` (proc(5)).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::load::Cpus;

/// What is known of the threads of a process at one moment.
#[derive(Clone, Debug, Default)]
pub struct Threads(BTreeMap<u32, Thread>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Thread {
    /// How often it was taken off its processor.
    switches: u64,
    /// How often it came to another one; 0 where the kernel does not count that.
    migrations: u64,
    /// On which it ran last.
    cpu: usize,
}

/// What happened between two moments. Threads that ended in between are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Where the threads that ran were seen at the end.
    pub cpus: Cpus,
    pub switches: u64,
    pub migrations: u64,
}

impl Threads {
    pub fn of(pid: u32) -> io::Result<Threads> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let entry = entry?;
            let id = entry.file_name().to_string_lossy().parse();
            // A thread that has just ended has no files any more.
            if let (Ok(id), Some(thread)) = (id, read(&entry.path())) {
                threads.insert(id, thread);
            }
        }
        Ok(Threads(threads))
    }

    pub fn since(&self, before: &Threads) -> Placement {
        let mut placement = Placement::default();
        for (id, now) in &self.0 {
            let then = before.0.get(id);
            let switches = now.switches - then.map_or(0, |then| then.switches).min(now.switches);
            let migrations = now.migrations - then.map_or(0, |then| then.migrations).min(now.migrations);
            placement.switches += switches;
            placement.migrations += migrations;
            if switches > 0 {
                placement.cpus.insert(now.cpu);
            }
        }
        placement
    }
}

fn read(task: &Path) -> Option<Thread> {
    let text = |name: &str| fs::read_to_string(task.join(name)).ok();
    let status = text("status")?;
    let switches =
        number(&status, "voluntary_ctxt_switches:")? + number(&status, "nonvoluntary_ctxt_switches:")?;
    let migrations = text("sched").and_then(|sched| number(&sched, "se.nr_migrations")).unwrap_or(0);
    Some(Thread { switches, migrations, cpu: last_cpu(&text("stat")?)? })
}

/// The last word of the line that begins with this word.
fn number(text: &str, word: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split_ascii_whitespace().next() == Some(word))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

/// Field 39. The command (field 2) may hold blanks and parentheses: fields are counted behind its
/// last one.
fn last_cpu(stat: &str) -> Option<usize> {
    stat.rsplit_once(") ")?.1.split_ascii_whitespace().nth(36)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_words() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t17\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(number(status, "voluntary_ctxt_switches:"), Some(17));
        assert_eq!(number(status, "nonvoluntary_ctxt_switches:"), Some(3));
        assert_eq!(number("se.nr_migrations      :         42\n", "se.nr_migrations"), Some(42));
        assert_eq!(number(status, "missing"), None);
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 \
                    33 34 35 6 0";
        assert_eq!(last_cpu(stat), Some(6));
        assert_eq!(last_cpu(""), None);
    }

    #[test]
    fn threads_that_ran_are_seen() {
        let thread = |switches, migrations, cpu| Thread { switches, migrations, cpu };
        let before = Threads([(1, thread(10, 1, 0)), (2, thread(5, 0, 1)), (3, thread(9, 9, 9))].into());
        let after = Threads([(1, thread(14, 3, 1)), (2, thread(5, 0, 1)), (4, thread(2, 0, 3))].into());
        let placement = after.since(&before);
        assert_eq!((placement.cpus.list(), placement.switches, placement.migrations), (vec![1, 3], 6, 2));
    }

    #[test]
    fn this_process_has_threads() {
        assert!(!Threads::of(std::process::id()).unwrap().0.is_empty());
    }
}
