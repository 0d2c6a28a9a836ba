//! `standin metrics` beside real daemons: printed, as a file, and served on this host.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::host::{COMMAND_MAX, Daemon, Protected, Setup, describe, output_within, standin};

fn metrics(run: &Path, arguments: &[&str]) -> String {
    let output = output_within(standin(run).arg("metrics").args(arguments), COMMAND_MAX);
    assert!(output.status.success(), "{}", describe(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.split(['{', ' ']).next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("no {name}:\n{text}"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

/// Status line and body of an answer.
fn get(address: &str, host: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(COMMAND_MAX)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.lines().next().expect("a line").to_owned(), body.to_owned())
}

#[test]
fn metrics_say_what_was_written() {
    let mut protected = Protected::start(Setup::default());
    fs::write(protected.mount.join("secret-name"), vec![7; 10_000]).expect("a write");
    protected.wait_sync();
    let text = metrics(&protected.run, &[]);
    assert_eq!(value(&text, "standin_up"), 1.0);
    assert!(value(&text, "standin_captured_bytes_total") >= 10_000.0, "{text}");
    assert_eq!(value(&text, "standin_connection_lag_known"), 1.0);
    assert_eq!(value(&text, "standin_connection_lag_packets"), 0.0);
    assert_eq!(value(&text, "standin_connection_applied_position"), value(&text, "standin_position"));
    let base = protected.base.path().to_str().expect("UTF-8");
    assert!(!text.contains("secret-name") && !text.contains(base), "{text}");
    let json: serde_json::Value = serde_json::from_str(&metrics(&protected.run, &["--json"])).expect("JSON");
    assert_eq!((json["format"].as_u64(), json["metrics"][0]["name"].as_str()), (Some(1), Some("standin_up")));
    protected.stop();
}

#[test]
fn metrics_are_written_whole_for_others_to_read() {
    let mut protected = Protected::start(Setup::default());
    let file = protected.base.path().join("standin.prom");
    fs::write(&file, "old").expect("a file");
    metrics(&protected.run, &["--output", file.to_str().expect("UTF-8")]);
    let text = fs::read_to_string(&file).expect("a file");
    assert!(text.starts_with("# HELP standin_up ") && text.ends_with('\n'), "{text}");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o644);
    let nowhere = protected.base.path().join("nowhere/standin.prom");
    let output =
        output_within(standin(&protected.run).args(["metrics", "--output"]).arg(&nowhere), COMMAND_MAX);
    assert_eq!(output.status.code(), Some(2), "{}", describe(&output));
    assert!(!nowhere.exists());
    protected.stop();
}

#[test]
fn metrics_are_served_on_this_host_alone() {
    let mut protected = Protected::start(Setup::default());
    let mut command = standin(&protected.run);
    command.args(["metrics", "--listen", "127.0.0.1:0"]);
    let mut server = Daemon::spawn(command);
    server.wait_ready();
    let said = server.said();
    let address = said.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    let (status, body) = get(address, address, "/metrics");
    assert!(status.contains(" 200 ") && value(&body, "standin_up") == 1.0, "{status}\n{body}");
    for (host, path, code) in [
        (address, "/other", " 404 "),
        ("example.org", "/metrics", " 421 "),
        ("localhost", "/metrics", " 200 "),
    ] {
        let (status, body) = get(address, host, path);
        assert!(status.contains(code), "{host} {path}: {status}");
        assert_eq!(body.contains("standin_up"), code == " 200 ", "{host} {path}: {body}");
    }
    // Whoever asks for nothing keeps nobody else waiting.
    let _idle = TcpStream::connect(address).expect("it listens");
    assert!(get(address, address, "/metrics").0.contains(" 200 "));
    protected.stop();
    let (_, body) = get(address, address, "/metrics");
    assert!(!body.contains("standin_severity"), "a daemon that ended in order is not there: {body}");
    server.signal(libc::SIGTERM);
    server.wait(COMMAND_MAX);
    let output = output_within(
        standin(Path::new("/nowhere")).args(["metrics", "--listen", "0.0.0.0:9466"]),
        COMMAND_MAX,
    );
    let said = describe(&output);
    assert!(output.status.code() == Some(2) && said.contains("can be reached from other hosts"), "{said}");
}
