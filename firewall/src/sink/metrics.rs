//! Counts for Prometheus, by HTTP at a socket or a port of this host.

use std::{
    convert::Infallible,
    fmt, fs, io, net,
    os::unix::{fs::PermissionsExt as _, net as unix},
    sync::Arc,
    thread,
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{Entry, Sink, Written};
use crate::{api, config::Listen, metrics::Metrics};

/// Counts what is recorded.
#[derive(Debug)]
pub struct Counting(pub Arc<Metrics>);

impl Sink for Counting {
    fn name(&self) -> &'static str {
        "metrics"
    }

    fn write(&mut self, entries: &[Entry]) -> Written {
        for entry in entries {
            // Losses are counted by who lost.
            if let Entry::Event { event, recorded, .. } = entry {
                self.0.count(event, *recorded);
            }
        }
        Written::default()
    }
}

/// What listens where metrics can be read.
#[derive(Debug)]
pub enum Listener {
    /// At a Unix socket.
    Socket(unix::UnixListener),
    /// At a port.
    Port(net::TcpListener),
}

impl Listener {
    /// Listens there, in a runtime.
    ///
    /// # Errors
    /// When it is taken, or not permitted; the text is for people.
    pub fn bind(place: &Listen) -> Result<Self, String> {
        match place {
            Listen::Socket(path) => {
                let bound = api::bind(path).map_err(|error| {
                    let text = error.to_string();
                    text.lines().next().unwrap_or_default().to_owned()
                })?;
                let listener = bound.into_std().map(Self::Socket);
                // It tells which programs are used here.
                let private = fs::set_permissions(path, fs::Permissions::from_mode(0o660));
                private.and(listener).map_err(|error| cannot(path.display(), &error))
            }
            Listen::Port(address) => {
                let bound = net::TcpListener::bind(address).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    Ok(Self::Port(listener))
                });
                bound.map_err(|error| cannot(address, &error))
            }
        }
    }
}

fn cannot(place: impl fmt::Display, error: &io::Error) -> String {
    format!("cannot listen at {place}: {error}")
}

/// Scrapes at once. More wait to be taken.
const MOST: usize = 16;
/// How long a scrape may take, from its first byte to its last.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long no connection is taken when the system has no room for one.
const PAUSE: Duration = Duration::from_millis(100);
/// Of the text that is told.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// What is told to who asks, or why there is nothing to tell.
type Text = dyn Fn() -> Result<String, String> + Send + Sync;

/// Answers with `text` on a thread of its own, as long as the process lives.
///
/// # Errors
/// When there is no thread to be had.
pub fn serve(
    listener: Listener,
    text: impl Fn() -> Result<String, String> + Send + Sync + 'static,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("metrics".to_owned()).spawn(move || {
        // Without a listener there is nothing to answer; to make it one of the runtime takes no more than
        // memory.
        let _ = runtime.block_on(answer(listener, Arc::new(text)));
    })?;
    Ok(())
}

async fn answer(listener: Listener, text: Arc<Text>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(MOST));
    match listener {
        Listener::Socket(listener) => {
            let listener = UnixListener::from_std(listener)?;
            loop {
                accept(listener.accept().await, &places, &text).await;
            }
        }
        Listener::Port(listener) => {
            let listener = TcpListener::from_std(listener)?;
            loop {
                accept(listener.accept().await, &places, &text).await;
            }
        }
    }
}

/// Answers who was let in, and waits for a place for the next one.
async fn accept<S, A>(accepted: io::Result<(S, A)>, places: &Arc<Semaphore>, text: &Arc<Text>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok((stream, _)) = accepted else { return sleep(PAUSE).await };
    // It is never closed.
    let place = Arc::clone(places).acquire_owned().await;
    let text = Arc::clone(text);
    tokio::spawn(async move {
        let _place = place;
        let service = service_fn(move |request| {
            let response = respond(&request, &*text);
            async { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        // What goes wrong with a connection is the client's matter.
        let _ = timeout(PATIENCE, connection).await;
    });
}

fn respond(request: &Request<Incoming>, text: &Text) -> Response<String> {
    let told = match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET) => {
            text().map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error))
        }
        ("/metrics", _) => Err((StatusCode::METHOD_NOT_ALLOWED, "ask with GET".to_owned())),
        _ => Err((StatusCode::NOT_FOUND, "the metrics are at /metrics".to_owned())),
    };
    match told {
        Ok(text) => {
            let mut response = Response::new(text);
            response.headers_mut().insert(CONTENT_TYPE, OPEN_METRICS);
            response
        }
        Err((status, why)) => {
            let mut response = Response::new(why + "\n");
            *response.status_mut() = status;
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    use super::*;

    /// The whole of what is answered.
    fn ask(mut stream: impl Read + Write, request: &str) -> String {
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn who_asks_at_a_port_is_answered() {
        let listener = Listener::bind(&Listen::Port("[::1]:0".parse().unwrap())).unwrap();
        let Listener::Port(port) = &listener else { panic!() };
        let address = port.local_addr().unwrap();
        let taken = Listener::bind(&Listen::Port(address)).unwrap_err();
        assert_eq!(
            taken,
            format!("cannot listen at {address}: Address already in use (os error 98)")
        );
        serve(listener, || Ok("x 1\n".to_owned())).unwrap();
        // Clients that say nothing are not in the way.
        let _silent = [0; MOST - 1].map(|_| net::TcpStream::connect(address).unwrap());
        let ask = |request| ask(net::TcpStream::connect(address).unwrap(), request);
        let told = ask("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!(
            told.starts_with("HTTP/1.1 200 OK\r\n") && told.ends_with("\r\n\r\nx 1\n"),
            "{told}"
        );
        assert!(
            told.contains("content-type: application/openmetrics-text; version=1.0.0"),
            "{told}"
        );
        let told = ask("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!(told.starts_with("HTTP/1.1 404") && told.contains("are at /metrics\n"), "{told}");
        let told = ask("POST /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!(told.starts_with("HTTP/1.1 405"), "{told}");
    }

    #[tokio::test]
    async fn a_socket_is_for_its_owner_and_group() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.sock");
        let place = Listen::Socket(path.clone());
        let listener = Listener::bind(&place).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(Listener::bind(&place).unwrap_err().starts_with("another process answers at"));
        serve(listener, || Err("no kernel".to_owned())).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
        let told = ask(UnixStream::connect(&path).unwrap(), request);
        assert!(told.starts_with("HTTP/1.1 500") && told.ends_with("no kernel\n"), "{told}");

        let file = folder.path().join("file");
        fs::write(&file, "precious").unwrap();
        let error = Listener::bind(&Listen::Socket(file.clone())).unwrap_err();
        assert!(error.ends_with("is there and no socket"), "{error}");
        assert_eq!(fs::read(file).unwrap(), b"precious");
    }
}
