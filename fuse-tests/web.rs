//! `standin web` beside real daemons: who has its address sees how they are, and nobody else does.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use crate::host::{COMMAND_MAX, Daemon, Protected, Setup, describe, output_within, standin, wait_until};

/// Head and body of an answer.
fn ask(address: &str, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(COMMAND_MAX)).expect("a timeout");
    write!(stream, "{request}\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

/// A page that is served: its address, and the path of it.
fn start(protected: &Protected, arguments: &[&str]) -> (Daemon, String, String) {
    let mut command = standin(&protected.run);
    command.arg("--state").arg(&protected.state).args(["web", "--listen", "127.0.0.1:0"]).args(arguments);
    let mut page = Daemon::spawn(command);
    page.wait_ready();
    let said = page.said();
    let link = said.split("http://").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a link");
    let (address, path) = link.split_once('/').expect("a path");
    (page, address.to_owned(), format!("/{path}"))
}

fn end(mut page: Daemon) {
    page.signal(libc::SIGTERM);
    page.wait(COMMAND_MAX).expect("it ends");
}

#[test]
fn the_page_follows_its_daemons() {
    let mut protected = Protected::start(Setup::default());
    let (page, address, path) = start(&protected, &[]);
    let shown = || ask(&address, &format!("GET {path} HTTP/1.1\r\nHost: {address}")).1;
    wait_until("all is well", || shown().contains("1 daemon: all is well"));
    fs::write(protected.mount.join("secret-name"), vec![7; 100_000]).expect("a write");
    protected.wait_sync();
    wait_until("what was written is in its curves", || {
        let page = shown();
        let words = page.split("<b>captured</b>").nth(1).and_then(|rest| rest.split("</figcaption>").next());
        words.is_some_and(|words| words.contains("at most") && !words.contains("at most 0 B/s"))
    });
    assert!(!shown().contains("secret-name"));
    protected.kill9();
    wait_until("its end is to be seen", || shown().contains("was killed") && shown().contains("(X) standin"));
    protected.start_again();
    wait_until("it is back", || shown().contains("1 daemon: all is well"));
    protected.stop();
    wait_until("none is there", || shown().contains("0 daemons, 1 set not served: 1 with a warning"));
    assert!(shown().contains("it was stopped in order"), "{}", shown());
    end(page);
}

#[test]
fn only_who_has_the_key_sees_it() {
    let mut protected = Protected::start(Setup::default());
    let (page, address, path) = start(&protected, &[]);
    let get = |path: &str, host: &str| ask(&address, &format!("GET {path} HTTP/1.1\r\nHost: {host}"));
    let (head, _) = get(&path, &address);
    for field in ["200 OK", "default-src 'none'", "no-referrer", "nosniff", "no-store", "text/html"] {
        assert!(head.contains(field), "no {field}: {head}");
    }
    assert!(get(&format!("{path}style.css"), "localhost").0.contains("text/css"));
    let mut wrong = path.clone().into_bytes();
    wrong[5] = if wrong[5] == b'0' { b'1' } else { b'0' };
    let wrong = String::from_utf8(wrong).expect("ASCII");
    for (path, host, code) in [
        ("/", &*address, " 404 "),
        ("/style.css", &address, " 404 "),
        (&wrong, &address, " 404 "),
        (&format!("{path}../"), &address, " 404 "),
        (&path, "example.org", " 421 "),
    ] {
        let (head, body) = get(path, host);
        assert!(head.contains(code) && !body.contains("<html"), "{path} {host}: {head}\n{body}");
    }
    let before = protected.status();
    let (head, _) = ask(&address, &format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0"));
    assert!(head.contains(" 405 "), "{head}");
    let connections = |status: &str| -> serde_json::Value {
        let status: serde_json::Value = serde_json::from_str(status).expect("JSON");
        status["connections"][0]["state"].clone()
    };
    assert_eq!(connections(&protected.status()), connections(&before));
    end(page);
    // It is the same at the next start, and another one when that is asked for.
    let (page, _, again) = start(&protected, &[]);
    assert_eq!(again, path);
    end(page);
    let (page, _, another) = start(&protected, &["--new-key"]);
    assert_ne!(another, path);
    end(page);
    let output =
        output_within(standin(Path::new("/nowhere")).args(["web", "--listen", "0.0.0.0:9467"]), COMMAND_MAX);
    let said = describe(&output);
    assert!(output.status.code() == Some(2) && said.contains("reached from other hosts"), "{said}");
    protected.stop();
}
