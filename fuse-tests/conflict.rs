//! Two threads that do nothing but get into each other's way, on three names and one page range:
//! if the queue's order is not the order of effects on disk, the replica differs at the end.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::host::{Protected, Setup, dir_on_disk, heavy};
use crate::random::setting;
use crate::sys::{Aio, Aligned, DIRECT_ALIGN};
use crate::tree::Rules;
use standin::random::Random;

/// The load is cut into this many parts, each with a comparison: a difference that a later change
/// would cover is seen.
const PARTS: u64 = 3;

struct Fighter<'a> {
    root: &'a Path,
    random: Random,
    aio: Aio,
    done: u64,
}

impl Fighter<'_> {
    fn name(&mut self) -> PathBuf {
        self.root.join(*self.random.one_of(&["a", "b", "c", "dir/a", "dir/b"]))
    }

    fn page(&mut self) -> u64 {
        self.random.below(4) * DIRECT_ALIGN as u64
    }

    fn buffer(&mut self) -> Aligned {
        Aligned::new(1 + self.random.below(2) as usize, self.random.number() as u8)
    }

    fn open(&mut self, flags: i32) -> io::Result<File> {
        File::options().write(true).custom_flags(flags).open(self.name())
    }

    fn act(&mut self) -> io::Result<()> {
        match self.random.below(11) {
            0 => fs::rename(self.name(), self.name()),
            1 => fs::write(self.name(), self.buffer().bytes()),
            2 => fs::remove_file(self.name()),
            3 => fs::hard_link(self.name(), self.name()),
            4 => self.open(libc::O_DIRECT)?.write_all_at(self.buffer().bytes(), self.page()),
            5 | 6 => {
                let file = self.open(libc::O_DIRECT)?;
                let offsets = [self.page(), self.page(), self.page()];
                let buffer = self.buffer();
                self.aio.write_all(&file, &buffer, &offsets).map(drop)
            }
            7 => self.open(0)?.set_len(self.random.below(20_000)),
            8 => {
                let file = File::options().read(true).write(true).open(self.name())?;
                file.write_all_at(&self.buffer().bytes()[..1000], self.random.below(16_000))
            }
            9 => self.open(libc::O_APPEND)?.write_at(b"appended", 0).map(drop),
            _ => {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(self.random.below(0o1000) as u32);
                fs::set_permissions(self.name(), mode)
            }
        }
    }

    fn fight(&mut self, until: Instant) {
        while Instant::now() < until {
            match self.act() {
                Ok(()) => self.done += 1,
                Err(error) => {
                    let fine = [libc::ENOENT, libc::EEXIST];
                    assert!(error.raw_os_error().is_some_and(|code| fine.contains(&code)), "{error}");
                }
            }
        }
    }
}

/// Fights for a while; gives the operations that worked.
fn fight(root: &Path, seed: u64, time: Duration) -> u64 {
    let until = Instant::now() + time;
    std::thread::scope(|scope| {
        let fighters: Vec<_> = (0..2)
            .map(|thread| {
                let random = Random::new(seed ^ (thread << 56));
                let mut fighter = Fighter { root, random, aio: Aio::new(8).expect("io_setup"), done: 0 };
                scope.spawn(move || {
                    fighter.fight(until);
                    fighter.done
                })
            })
            .collect();
        fighters.into_iter().map(|fighter| fighter.join().expect("a fighter")).sum()
    })
}

#[test]
fn conflicts_arrive_in_order() {
    let _alone = heavy();
    run(Duration::from_secs(setting("STANDIN_CONFLICT_SECONDS").unwrap_or(4)), &[]);
}

pub fn run(time: Duration, arguments: &[&'static str]) {
    let protected = Protected::start(Setup { arguments: arguments.to_vec(), ..Setup::default() });
    fs::create_dir(protected.mount.join("dir")).expect("a directory");
    for part in 0..PARTS {
        let done = fight(&protected.mount, part, time / PARTS as u32);
        println!("part {part}: {done} operations worked");
        assert!(done > 50, "part {part}: only {done} operations worked");
        // Files here are smaller than the slack: order is what counts, and it shows in the bytes.
        protected.assert_in_sync_by(&Rules { hole_slack: 64 * 1024, ..Rules::default() });
    }
}

#[test]
fn conflicts_are_no_errors_on_a_plain_directory() {
    let dir = dir_on_disk();
    fs::create_dir(dir.path().join("dir")).expect("a directory");
    assert!(fight(dir.path(), 1, Duration::from_millis(200)) > 50);
}
