//! The office's web server, as small as HTTP/1.0 allows, and a client that checks what it got.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::tcp;
use crate::lab::Namespace;

/// Serves one page at every path; `/file/N` is N bytes of [`super::pattern`]; POST counts the body.
#[derive(Debug)]
pub struct WebServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl WebServer {
    /// Listens inside `namespace`.
    pub fn start(namespace: &Namespace, address: IpAddr, port: u16) -> Result<Self> {
        let listener = namespace
            .run(|| TcpListener::bind((address, port)))
            .with_context(|| format!("cannot listen on {address} in {}", namespace.name()))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if flag.load(Ordering::Relaxed) {
                    break;
                }
                thread::spawn(move || answer(stream));
            }
        });
        Ok(Self { address, stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        // The thread ends with the next connection or with the process; it holds nothing but the socket.
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Fetches a path and gives the body.
pub fn fetch(namespace: &Namespace, from: SocketAddr, path: &str) -> Result<Vec<u8>> {
    let mut stream = tcp::connect(namespace, from, PATIENCE)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: office\r\n\r\n")?;
    let mut reply = Vec::new();
    stream
        .read_to_end(&mut reply)
        .with_context(|| format!("reading {path} from {from}, {} bytes so far", reply.len()))?;
    let end = reply
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("no end of the reply's head")?;
    ensure!(
        reply.starts_with(b"HTTP/1.0 200"),
        "{}",
        String::from_utf8_lossy(&reply[..end])
    );
    Ok(reply.split_off(end + 4))
}

/// Downloads `length` bytes and compares each with what it must be.
pub fn download(namespace: &Namespace, from: SocketAddr, length: usize) -> Result<()> {
    let body = fetch(namespace, from, &format!("/file/{length}"))?;
    ensure!(
        body == super::pattern(length, length as u64),
        "the file arrived damaged ({} of {length} bytes)",
        body.len()
    );
    Ok(())
}

/// Uploads `length` bytes; the server compares them and says so.
pub fn upload(namespace: &Namespace, to: SocketAddr, length: usize) -> Result<()> {
    let mut stream = tcp::connect(namespace, to, PATIENCE)?;
    write!(stream, "POST /file/{length} HTTP/1.0\r\n\r\n")?;
    stream
        .write_all(&super::pattern(length, length as u64))
        .with_context(|| format!("sending to {to}"))?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    ensure!(reply.ends_with("intact"), "the server says: {reply}");
    Ok(())
}

fn answer(mut stream: std::net::TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split_whitespace();
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let length = path
        .strip_prefix("/file/")
        .and_then(|number| number.parse::<usize>().ok());
    let body = match (method, length) {
        ("POST", Some(length)) => {
            let mut body = vec![0; length];
            stream.read_exact(&mut body)?;
            let intact = body == super::pattern(length, length as u64);
            if intact {
                b"intact".to_vec()
            } else {
                b"damaged".to_vec()
            }
        }
        (_, Some(length)) => super::pattern(length, length as u64),
        _ => PAGE.as_bytes().to_vec(),
    };
    write!(
        stream,
        "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)
}

/// What the office serves.
pub const PAGE: &str = "<html><title>Intranet</title><h1>Welcome to the office</h1></html>\n";

const PATIENCE: Duration = Duration::from_secs(60);
