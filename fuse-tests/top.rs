//! `standin top` on a real terminal: it shows a daemon, changes a connection, and leaves nothing behind; and what becomes
//! of programs whose terminal goes away.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::host::{
    COMMAND_MAX, Protected, STOP_MAX, SYNC_MAX, Setup, describe, is_mounted, output_within, standin,
    wait_until,
};

/// What brings back what was on the terminal before (xterm's private mode 1049), and the cursor (25).
const LEAVES: [&str; 2] = ["\x1b[?1049l", "\x1b[?25h"];

/// What a terminal shows that has been sent this: letters, moves of the cursor and erasing (ECMA-48 CUP, ED); the
/// rest changes no letter.
fn screen(sent: &str) -> String {
    let mut cells = vec![vec![' '; 80]; 24];
    let (mut row, mut column) = (0, 0);
    let mut letters = sent.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\x1b' => {
                let Some('[') = letters.next() else { continue };
                let mut numbers = String::new();
                let end = letters.by_ref().find(|letter| {
                    let is_end = ('@'..='~').contains(letter);
                    if !is_end {
                        numbers.push(*letter);
                    }
                    is_end
                });
                let number = |at: usize| numbers.split(';').nth(at).and_then(|one| one.parse::<usize>().ok());
                match end {
                    Some('H') => (row, column) = (number(0).unwrap_or(1) - 1, number(1).unwrap_or(1) - 1),
                    Some('J') => cells = vec![vec![' '; 80]; 24],
                    _ => {}
                }
            }
            '\r' => column = 0,
            '\n' => row += 1,
            letter => {
                if let Some(cell) = cells.get_mut(row).and_then(|row: &mut Vec<char>| row.get_mut(column)) {
                    *cell = letter;
                }
                column += 1;
            }
        }
    }
    cells.into_iter().map(|row| row.into_iter().collect::<String>() + "\n").collect()
}

/// A program on a terminal of 80 × 24.
struct Shown {
    child: Child,
    terminal: Option<File>,
    seen: Arc<Mutex<Vec<u8>>>,
    is_unread: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

/// What a program does when it is told that its terminal is gone.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hangup {
    Heeded,
    /// As `nohup` has it.
    Ignored,
}

/// Both ends of a new one, which no other program inherits: it would live on with that.
fn terminal() -> (OwnedFd, OwnedFd) {
    let failed = || std::io::Error::last_os_error();
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: no memory is touched.
    let ours = unsafe { libc::posix_openpt(flags) };
    assert!(ours >= 0, "a terminal: {}", failed());
    // SAFETY: it was opened just now, and nobody else has it.
    let ours = unsafe { OwnedFd::from_raw_fd(ours) };
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: it is open; the size is read, and the other calls touch no memory.
    let theirs = unsafe {
        let ours = ours.as_raw_fd();
        assert!(libc::unlockpt(ours) == 0 && libc::ioctl(ours, libc::TIOCSWINSZ, &size) == 0, "{}", failed());
        libc::ioctl(ours, libc::TIOCGPTPEER, flags)
    };
    assert!(theirs >= 0, "its other end: {}", failed());
    // SAFETY: as above.
    (ours, unsafe { OwnedFd::from_raw_fd(theirs) })
}

impl Shown {
    fn start(protected: &Protected, arguments: &[&str]) -> Shown {
        let mut command = standin(&protected.run);
        command.arg("top").args(arguments);
        Shown::of(command, Hangup::Heeded)
    }

    fn of(mut command: Command, hangup: Hangup) -> Shown {
        let (ours, theirs) = terminal();
        command.env("TERM", "xterm").env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR");
        let end = |of: &OwnedFd| Stdio::from(of.try_clone().expect("a descriptor"));
        command.stdin(end(&theirs)).stdout(end(&theirs)).stderr(end(&theirs));
        let theirs_raw = theirs.as_raw_fd();
        // Under `nohup` the tests ignore it, and so would what they start.
        let at_hangup = if hangup == Hangup::Ignored { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: only async-signal-safe calls: a session of its own, with this terminal.
        unsafe {
            command.pre_exec(move || {
                if libc::setsid() < 0 || libc::ioctl(theirs_raw, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                libc::signal(libc::SIGHUP, at_hangup);
                Ok(())
            });
        }
        let child = command.spawn().expect("it starts");
        drop(command);
        drop(theirs);
        let terminal = File::from(ours);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let is_unread = Arc::new(AtomicBool::new(false));
        let mut from = terminal.try_clone().expect("a descriptor");
        let (into, is_over) = (seen.clone(), is_unread.clone());
        let read = move || {
            let mut bytes = [0; 4096];
            while !is_over.load(Ordering::SeqCst) {
                let mut waited = libc::pollfd { fd: from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                // SAFETY: one descriptor, which is open.
                if unsafe { libc::poll(&mut waited, 1, 50) } < 1 {
                    continue;
                }
                // The end of the other side is EIO.
                let Ok(count @ 1..) = from.read(&mut bytes) else { return };
                into.lock().extend_from_slice(&bytes[..count]);
            }
        };
        let (terminal, reader) = (Some(terminal), Some(std::thread::spawn(read)));
        Shown { child, terminal, seen, is_unread, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock()).into_owned()
    }

    #[track_caller]
    fn wait_for(&self, part: &str) {
        let deadline = Instant::now() + SYNC_MAX;
        while !screen(&self.text()).contains(part) {
            assert!(Instant::now() < deadline, "'{part}' is never on\n{}", screen(&self.text()));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.terminal.as_mut().expect("it is there").write_all(keys.as_bytes()).expect("a key");
    }

    /// Its exit code, and all that it has drawn.
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("it ends");
        self.reader.take().expect("there is one").join().expect("it has read");
        (status.code(), self.text())
    }
}

impl Shown {
    /// Its terminal goes away, as that of a session that is cut or a window that is closed. Its exit code; `None`: it goes on,
    /// or a signal has ended it.
    fn hang_up(mut self) -> Option<i32> {
        self.is_unread.store(true, Ordering::SeqCst);
        self.reader.take().expect("there is one").join().expect("it has read");
        drop(self.terminal.take());
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn state(protected: &Protected) -> String {
    let output = output_within(standin(&protected.run).args(["status", "--json"]), COMMAND_MAX);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    status["connections"][0]["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn top_pauses_and_resumes_and_leaves_no_trace() {
    let mut protected = Protected::start(Setup::default());
    protected.wait_sync();
    let mut shown = Shown::start(&protected, &[]);
    shown.wait_for("all is well");
    shown.type_in("p");
    shown.wait_for("Pause connection 1");
    assert_eq!(state(&protected), "started");
    shown.type_in("n");
    shown.wait_for("Nothing was changed.");
    assert_eq!(state(&protected), "started");
    shown.type_in("py");
    wait_until("paused", || state(&protected) == "paused");
    shown.wait_for("with a warning");
    shown.type_in("ry");
    wait_until("started", || state(&protected) == "started");
    shown.type_in("q");
    let (code, text) = shown.end();
    assert_eq!(code, Some(0));
    assert!(text.contains("\x1b[?1049h") && LEAVES.iter().all(|part| text.contains(part)), "{text:?}");
    assert!(!text.rsplit("\x1b[?1049l").next().unwrap().contains("standin"), "{text:?}");
    protected.stop();
}

#[test]
fn top_goes_when_it_is_told_and_when_its_daemon_is_killed_it_says_so() {
    let mut protected = Protected::start(Setup::default());
    let shown = Shown::start(&protected, &["--ascii", "--no-color"]);
    shown.wait_for("all is well");
    protected.kill9();
    shown.wait_for("was killed");
    let pid = rustix::process::Pid::from_child(&shown.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is told");
    let (code, text) = shown.end();
    assert_eq!(code, Some(0));
    assert!(LEAVES.iter().all(|part| text.contains(part)), "{text:?}");
    let drawn = text.replace(LEAVES[0], "");
    assert!(drawn.is_ascii() && !drawn.contains("\x1b[31m"), "{text:?}");
}

#[test]
fn top_says_where_it_cannot_draw() {
    let protected = Protected::start(Setup::default());
    let output = output_within(standin(&protected.run).arg("top"), COMMAND_MAX);
    assert_eq!(output.status.code(), Some(2), "{}", describe(&output));
    assert!(describe(&output).contains("status --watch"), "{}", describe(&output));
    let output = output_within(standin(&protected.run).args(["top", "--json"]), COMMAND_MAX);
    assert_eq!(output.status.code(), Some(2), "{}", describe(&output));
}

/// It read the end of its terminal for ever, with all of a processor, and heard no signal meanwhile.
#[test]
fn what_goes_on_ends_with_its_terminal() {
    let mut protected = Protected::start(Setup::default());
    protected.wait_sync();
    for (arguments, part) in
        [(&["top"][..], "all is well"), (&["status", "--watch"], "serving"), (&["events", "follow"], "")]
    {
        for hangup in [Hangup::Heeded, Hangup::Ignored] {
            let mut command = standin(&protected.run);
            command.arg("--state").arg(&protected.state).args(arguments);
            let shown = Shown::of(command, hangup);
            shown.wait_for(part);
            let code = shown.hang_up();
            // What prints lines is ended by the signal itself.
            let is_ended_by_signal = arguments[0] == "events" && hangup == Hangup::Heeded;
            assert_eq!(code, (!is_ended_by_signal).then_some(0), "{arguments:?} {hangup:?}");
        }
    }
    protected.stop();
}

/// Its last words found no terminal, and it died of that.
#[test]
fn a_daemon_ends_well_with_its_terminal() {
    let places = Protected::prepare(Setup::default());
    let shown = Shown::of(places.protect_command(), Hangup::Heeded);
    shown.wait_for("ready");
    std::fs::write(places.mount.join("written"), "it").expect("written");
    assert_eq!(shown.hang_up(), Some(0));
    assert!(!is_mounted(&places.mount));
    assert_eq!(std::fs::read(places.replica.join("written")).expect("it is there"), b"it");
}
