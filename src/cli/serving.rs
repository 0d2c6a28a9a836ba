//! Answers one GET for each connection of this host: bounded in whatever a peer does, and never reads a body that
//! it sends.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::failure::Failure;

const UNTOUCHED: &str = "Nothing was changed.";

/// Longest head of a request, bytes.
const HEAD_MAX: usize = 8 << 10;
/// For a whole request, and for its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// At once; who comes beyond them is turned away.
const CONNECTIONS_MAX: usize = 16;
/// After an `accept` that failed: there may be no descriptor left.
const REST: Duration = Duration::from_millis(100);

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub method: String,
    pub path: String,
    pub host: Option<String>,
}

/// What is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub code: u16,
    pub media: &'static str,
    /// Further fields of the head, each with its line's end.
    pub fields: &'static str,
    pub text: String,
}

impl Said {
    pub(super) fn text(code: u16, text: impl Into<String>) -> Said {
        Said { code, media: "text/plain; charset=utf-8", fields: "", text: text.into() }
    }
}

/// Until the process ends.
pub(super) fn serve(listener: &TcpListener, answer: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> ! {
    let (answer, busy) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
    loop {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(REST);
            continue;
        };
        if busy.fetch_add(1, SeqCst) >= CONNECTIONS_MAX {
            busy.fetch_sub(1, SeqCst);
            continue;
        }
        let (answer, mine) = (answer.clone(), Served(busy.clone()));
        let converse = move || {
            let _mine = mine;
            let _ = converse(&stream, &*answer);
        };
        // Where there is no thread, the connection ends.
        drop(std::thread::Builder::new().name("answer".into()).spawn(converse));
    }
}

/// A connection that counts.
struct Served(Arc<AtomicUsize>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

fn converse(mut stream: &TcpStream, answer: &impl Fn(&Asked) -> Said) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let Said { code, media, fields, text } = match read_head(stream)?.as_deref().map(parsed) {
        Some(Some(asked)) => answer(&asked),
        Some(None) => Said::text(400, "This is no request.\n"),
        None => Said::text(431, "A request is shorter.\n"),
    };
    let head = format!(
        "HTTP/1.1 {code} {}\r\nContent-Type: {media}\r\nContent-Length: {}\r\nConnection: close\r\n{fields}\r\n",
        phrase(code),
        text.len()
    );
    stream.write_all(&[head.as_bytes(), text.as_bytes()].concat())?;
    stream.shutdown(Shutdown::Write)
}

/// Up to the empty line; `None`: it is longer than any that is answered.
fn read_head(mut stream: &TcpStream) -> io::Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + PATIENCE;
    let (mut head, mut piece) = (Vec::new(), [0; 1024]);
    while head.len() < HEAD_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let read = match stream.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&piece[..read]);
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            head.truncate(end);
            return Ok(Some(head));
        }
    }
    Ok(None)
}

/// RFC 9112, sections 3 and 5, as far as it matters here.
fn parsed(head: &[u8]) -> Option<Asked> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, path, version) = (words.next()?, words.next()?, words.next()?);
    if !version.starts_with("HTTP/1.") || words.next().is_some() {
        return None;
    }
    let fields = lines.map(|line| line.split_once(':'));
    let mut host = None;
    for field in fields {
        let (name, value) = field?;
        if name.eq_ignore_ascii_case("host") && host.replace(value.trim().to_owned()).is_some() {
            return None;
        }
    }
    Some(Asked { method: method.to_owned(), path: path.to_owned(), host })
}

fn phrase(code: u16) -> &'static str {
    match code {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    }
}

/// What listens here is for this host alone. `instead`: how others see it.
///
/// Errors: an address that others reach; one that cannot be had.
pub(super) fn listen_here(address: SocketAddr, instead: &str) -> Result<TcpListener, Failure> {
    if !address.ip().is_loopback() {
        return Err(Failure::new(
            format!("{address} can be reached from other hosts."),
            UNTOUCHED,
            format!("Listen at 127.0.0.1 or [::1]; for other hosts {instead}."),
        ));
    }
    TcpListener::bind(address).map_err(|error| {
        Failure::new(format!("{address} cannot be listened at: {error}."), UNTOUCHED, "Choose another port.")
    })
}

/// Answers those who ask for another host.
pub(super) fn refusal(asked: &Asked) -> Option<Said> {
    let is_ours = asked.host.as_deref().is_none_or(is_this_host);
    (!is_ours).then(|| Said::text(421, "This is no address of this host.\n"))
}

/// A page in a browser that has made a name of its own lead here asks with that name.
fn is_this_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = match name.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').and_then(|ip| ip.parse::<Ipv6Addr>().ok()).map(IpAddr::V6),
        None => name.parse().ok(),
    };
    name.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Option<(String, String, Option<String>)> {
        parsed(text.as_bytes()).map(|Asked { method, path, host }| (method, path, host))
    }

    #[test]
    fn a_request_is_a_line_and_fields() {
        let get = |host: Option<&str>| Some(("GET".to_owned(), "/m".to_owned(), host.map(str::to_owned)));
        assert_eq!(asked("GET /m HTTP/1.1\r\nA: b\r\nhOsT:  x:1 "), get(Some("x:1")));
        assert_eq!(asked("GET /m HTTP/1.0"), get(None));
        for wrong in
            ["", "GET /m", "GET  /m HTTP/1.1", "GET /m HTTP/2", "GET /m HTTP/1.1 x", "GET /m HTTP/1.1\r\nno"]
        {
            assert_eq!(asked(wrong), None, "{wrong:?}");
        }
        assert_eq!(asked("GET /m HTTP/1.1\r\nHost: a\r\nHost: b"), None, "two hosts");
        assert!(parsed(b"GET /\xff HTTP/1.1").is_none());
    }

    #[test]
    fn only_this_host_is_asked_for() {
        for host in ["localhost", "LocalHost:9466", "127.0.0.1:9466", "[::1]:9466", "[::1]", "127.8.9.1"] {
            assert!(is_this_host(host), "{host}");
        }
        for host in [
            "example.org",
            "example.org:9466",
            "192.0.2.1:9466",
            "localhost.example.org",
            "",
            "[::2]:1",
            "127.0.0.1]",
        ] {
            assert!(!is_this_host(host), "{host}");
        }
    }

    fn started() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            serve(&listener, |asked| Said::text(200, format!("{} {}", asked.method, asked.path)))
        });
        address
    }

    fn answer(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        // A body that nobody has read makes the kernel reset the connection, after the answer.
        let mut piece = [0; 4096];
        loop {
            match stream.read(&mut piece) {
                Ok(read @ 1..) => answer.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn whatever_a_peer_does_others_are_answered() {
        let address = started();
        let good = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        let is_well = || {
            let answer = answer(address, good);
            assert!(
                answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nGET /metrics"),
                "{answer}"
            );
        };
        is_well();
        let body = answer(address, b"GET /metrics HTTP/1.1\r\nContent-Length: 9000000000000000000\r\n\r\n");
        assert!(body.starts_with("HTTP/1.1 200 "), "{body}");
        let post = answer(address, b"POST /x HTTP/1.1\r\nContent-Length: 100000\r\n\r\n");
        assert!(post.ends_with("POST /x"), "{post}");
        let long = answer(address, &[b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'a'; HEAD_MAX]].concat());
        assert!(long.is_empty() || long.starts_with("HTTP/1.1 431 "), "{long}");
        assert!(answer(address, b"nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
        is_well();
        // Pipelined requests get one answer.
        let many = answer(address, &good.repeat(100));
        assert_eq!(many.matches("HTTP/1.1").count(), 1);
        let idle: Vec<TcpStream> =
            (0..CONNECTIONS_MAX / 2).map(|_| TcpStream::connect(address).unwrap()).collect();
        is_well();
        drop(idle);
        is_well();
    }

    #[test]
    fn too_many_are_turned_away_and_it_goes_on() {
        let address = started();
        let idle: Vec<TcpStream> =
            (0..4 * CONNECTIONS_MAX).map(|_| TcpStream::connect(address).unwrap()).collect();
        drop(idle);
        let good = b"GET /metrics HTTP/1.1\r\n\r\n";
        let deadline = Instant::now() + Duration::from_secs(60);
        while !answer(address, good).starts_with("HTTP/1.1 200 ") {
            assert!(Instant::now() < deadline, "it does not come back");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
