//! What the kernel interrupts goes on: a process that was stopped for a moment, or handles a signal, takes that for
//! neither an end nor a time-out (signal(7)).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::os::unix::thread::JoinHandleExt;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use standin::control::Client;
use standin::drill::make_way;

use crate::host::{COMMAND_MAX, Daemon, dir_on_disk, standin};

/// What is waited for in vain.
const PATIENCE: Duration = Duration::from_millis(600);

extern "C" fn nothing(_: libc::c_int) {}

/// Interrupts the thread again and again; gives what it gives, and how long it took.
fn interrupted<T>(thread: JoinHandle<T>) -> (T, Duration) {
    let began = Instant::now();
    // SAFETY: a handler that does nothing.
    unsafe { libc::signal(libc::SIGUSR2, nothing as *const () as libc::sighandler_t) };
    while !thread.is_finished() && began.elapsed() < COMMAND_MAX {
        std::thread::sleep(Duration::from_millis(50));
        // SAFETY: it was not joined yet.
        unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGUSR2) };
    }
    (thread.join().expect("it ends"), began.elapsed())
}

#[test]
fn a_process_that_lives_has_not_ended_because_of_a_signal() {
    let mut lives: Child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep");
    let pid = rustix::process::Pid::from_child(&lives);
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("a process");
    let waits = std::thread::spawn(move || make_way::has_ended(&process, PATIENCE).expect("it is known"));
    let (has_ended, took) = interrupted(waits);
    lives.kill().and_then(|()| lives.wait()).expect("it ends");
    assert!(!has_ended && took >= PATIENCE, "{has_ended} after {took:?}");
}

#[test]
fn the_end_of_a_daemon_is_awaited_over_a_signal() {
    let base = dir_on_disk();
    let socket = base.path().join("socket");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let mut client = Client::connect(&socket).expect("it listens");
    let (daemon, _) = listener.accept().expect("a caller");
    let waits = std::thread::spawn(move || client.wait_for_end(COMMAND_MAX));
    let ends = std::thread::spawn(move || {
        std::thread::sleep(PATIENCE);
        drop(daemon);
    });
    assert!(interrupted(waits).0, "a signal was taken for a time-out");
    ends.join().expect("it ends");

    let mut client = Client::connect(&socket).expect("it listens");
    let _daemon = listener.accept().expect("a caller");
    let (has_ended, took) = interrupted(std::thread::spawn(move || client.wait_for_end(PATIENCE)));
    assert!(!has_ended && took >= PATIENCE && took < COMMAND_MAX, "{has_ended} after {took:?}");
}

#[test]
fn who_asks_a_server_that_was_stopped_is_answered() {
    let base = dir_on_disk();
    let mut command = standin(base.path());
    command.args(["metrics", "--listen", "127.0.0.1:0"]);
    let mut server = Daemon::spawn(command);
    server.wait_ready();
    let said = server.said();
    let address = said.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(b"GET /metrics HTTP/1.1\r\n").expect("half a request");
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(50));
        server.signal(libc::SIGSTOP);
        std::thread::sleep(Duration::from_millis(20));
        server.signal(libc::SIGCONT);
    }
    write!(stream, "Host: {address}\r\n\r\n").expect("the other half");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{read:?}: {answer}");
    server.signal(libc::SIGTERM);
    server.wait(COMMAND_MAX).expect("it ends");
}
