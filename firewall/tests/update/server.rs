//! A web server with TLS on the loopback, whose pages do all that servers do to those who download.
#![allow(dead_code, reason = "each test includes this and uses a part")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "it panics on purpose")]

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

/// The longest that one client can keep a thread busy with saying nothing.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where a page ends that has no end: more than anybody takes.
const ENDLESS: usize = 512 << 20;

/// What a server answers to whoever asks for a path.
#[derive(Clone)]
pub struct Page {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Body,
}

#[derive(Clone)]
enum Body {
    Whole(Vec<u8>),
    /// Repeated until the client has had enough.
    Endless(Vec<u8>),
    /// A byte after each pause.
    Drip(Vec<u8>, Duration),
    /// So much more is announced than comes.
    Short(Vec<u8>, usize),
    /// It begins, and then nothing comes.
    Stall(Vec<u8>),
    /// It has no length, and ends without the word that ends a connection.
    HangUp(Vec<u8>),
    /// All of it, once so many clients are there at the same time.
    Meet(Vec<u8>, usize),
}

impl Page {
    /// All of it, at once.
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self { status: "200 OK", headers: Vec::new(), body: Body::Whole(body.into()) }
    }

    /// With another status.
    pub fn status(self, status: &'static str) -> Self {
        Self { status, ..self }
    }

    /// With one more header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Leads elsewhere.
    pub fn redirect(to: impl Into<String>) -> Self {
        Self::new("").status("302 Found").header("Location", to)
    }

    /// Without an end.
    pub fn endless(self) -> Self {
        self.with(Body::Endless)
    }

    /// A byte after each pause.
    pub fn drip(self, pause: Duration) -> Self {
        self.with(|bytes| Body::Drip(bytes, pause))
    }

    /// Announced as so much longer than it is.
    pub fn short(self, by: usize) -> Self {
        self.with(|bytes| Body::Short(bytes, by))
    }

    /// Nothing follows, and the connection stays.
    pub fn stall(self) -> Self {
        self.with(Body::Stall)
    }

    /// Cut off by hanging up, as whoever is on the way can do.
    pub fn hang_up(self) -> Self {
        self.with(Body::HangUp)
    }

    /// Once so many clients are there at the same time.
    pub fn meet(self, clients: usize) -> Self {
        self.with(|bytes| Body::Meet(bytes, clients))
    }

    fn with(self, body: impl FnOnce(Vec<u8>) -> Body) -> Self {
        let Body::Whole(bytes) = self.body else { panic!("it is something else already") };
        Self { body: body(bytes), ..self }
    }
}

/// Somebody asked for a page.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    headers: HashMap<String, String>,
}

impl Request {
    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// Serves until it is dropped, with a certificate that vouches for itself.
pub struct Server {
    address: SocketAddr,
    directory: TempDir,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    pages: Mutex<HashMap<String, Page>>,
    requests: Mutex<Vec<Request>>,
    stop: AtomicBool,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Shared {
    fn pages(&self) -> MutexGuard<'_, HashMap<String, Page>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [key, certificate] = ["key.pem", "root.pem"].map(|name| directory.path().join(name));
        certify(&key, &certificate);
        let config =
            ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
                .with_safe_default_protocol_versions()
                .expect("protocol versions")
                .with_no_client_auth()
                .with_single_cert(
                    vec![CertificateDer::from_pem_file(&certificate).expect("a certificate")],
                    PrivateKeyDer::from_pem_file(&key).expect("a key"),
                )
                .expect("a server");
        let listener = TcpListener::bind("127.0.0.1:0").expect("binding TCP");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::<Shared>::default();
        let (config, serving) = (Arc::new(config), Arc::clone(&shared));
        // Whoever drops it can be in another network namespace, from where it cannot be woken.
        listener.set_nonblocking(true).expect("our own socket");
        let thread = thread::spawn(move || {
            while !serving.stop.load(Ordering::Acquire) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(2));
                    continue;
                };
                let (config, shared) = (Arc::clone(&config), Arc::clone(&serving));
                // Bounded by its time-outs and by how much is sent, so nobody waits for this thread.
                thread::spawn(move || {
                    let now = shared.now.fetch_add(1, Ordering::AcqRel) + 1;
                    shared.most.fetch_max(now, Ordering::AcqRel);
                    // A client that has had enough hangs up.
                    let _ = serve(stream, config, &shared);
                    shared.now.fetch_sub(1, Ordering::AcqRel);
                });
            }
        });
        Self { address, directory, shared, thread: Some(thread) }
    }

    /// The root that vouches for it, in a file.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root.pem")
    }

    /// The URL of a path, which begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// From now on, this is what stands at a path.
    pub fn put(&self, path: &str, page: Page) {
        self.shared.pages().insert(path.to_owned(), page);
    }

    /// Who asked for what since this was last called.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.shared.requests())
    }

    /// How many clients were there at the same time.
    pub fn most(&self) -> usize {
        self.shared.most.load(Ordering::Acquire)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn certify(key: &Path, certificate: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-noenc", "-days", "2", "-subj", "/CN=test"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        // Who vouches for itself is no authority for others.
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .stdin(Stdio::null())
        .output()
        .expect("openssl (package openssl): run `cargo xtask setup`");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Answers one request, and hangs up.
fn serve(stream: TcpStream, config: Arc<ServerConfig>, shared: &Shared) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let Some(request) = request(&mut stream)? else { return Ok(()) };
    let page = shared.pages().get(&request.path).cloned();
    let page = page.unwrap_or_else(|| Page::new("nothing").status("404 Not Found"));
    let same = |tag: &str, condition: &str| {
        let (_, value) = page.headers.iter().find(|(name, _)| *name == tag)?;
        request.header(condition).map(|known| known == value)
    };
    // If-None-Match comes before the other (RFC 9110, section 13.2.2).
    let unchanged = same("ETag", "if-none-match")
        .or_else(|| same("Last-Modified", "if-modified-since"))
        .unwrap_or(false);
    shared.requests().push(request);
    let mut out = stream.into_inner();
    if unchanged {
        write!(out, "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n")?;
    } else {
        answer(&mut out, page, shared)?;
    }
    out.conn.send_close_notify();
    out.flush()
}

/// `None` if who connected asks for nothing.
fn request(stream: &mut impl io::BufRead) -> io::Result<Option<Request>> {
    let mut lines = stream.take(64 << 10).lines();
    let Some(first) = lines.next() else { return Ok(None) };
    let path = first?.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Some(Request { path, headers }))
}

fn answer(out: &mut impl Write, page: Page, shared: &Shared) -> io::Result<()> {
    let Page { status, headers, body } = page;
    let length = match &body {
        Body::Whole(bytes) | Body::Drip(bytes, _) | Body::Meet(bytes, _) => Some(bytes.len()),
        Body::Short(bytes, by) => Some(bytes.len() + by),
        Body::Stall(bytes) => Some(bytes.len() + 1),
        Body::Endless(_) | Body::HangUp(_) => None,
    };
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    match length {
        Some(length) => head += &format!("Content-Length: {length}\r\n\r\n"),
        None => head += "\r\n",
    }
    out.write_all(head.as_bytes())?;
    match body {
        Body::Whole(bytes) | Body::Short(bytes, _) => out.write_all(&bytes),
        Body::Endless(bytes) => {
            let times = ENDLESS / bytes.len();
            (0..times).try_for_each(|_| out.write_all(&bytes))
        }
        Body::Drip(bytes, pause) => bytes.chunks(1).try_for_each(|byte| {
            out.write_all(byte)?;
            out.flush()?;
            thread::sleep(pause);
            Ok(())
        }),
        Body::HangUp(bytes) => {
            out.write_all(&bytes)?;
            out.flush()?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        Body::Meet(bytes, clients) => {
            let end = Instant::now() + PATIENCE;
            while shared.most.load(Ordering::Acquire) < clients && Instant::now() < end {
                thread::sleep(Duration::from_millis(2));
            }
            out.write_all(&bytes)
        }
        Body::Stall(bytes) => {
            out.write_all(&bytes)?;
            out.flush()?;
            thread::sleep(PATIENCE);
            Ok(())
        }
    }
}
