//! Counts for Prometheus, by HTTP at a socket or a port of this host.

use std::{
    convert::Infallible,
    fs,
    io::{self},
    net::{self, SocketAddr},
    os::unix::{fs::PermissionsExt as _, net as unix},
    path::PathBuf,
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
use crate::{api, metrics::Metrics};

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

/// Where metrics can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A Unix socket, for its owner and group.
    Socket(PathBuf),
    /// A port of a loopback address, for everybody on this host.
    Port(SocketAddr),
}

/// What listens there.
#[derive(Debug)]
pub enum Listener {
    /// At a Unix socket.
    Socket(unix::UnixListener),
    /// At a port.
    Port(net::TcpListener),
}

impl Place {
    /// Listens there, in a runtime.
    ///
    /// # Errors
    /// When it is taken, or not permitted; the text is for people.
    pub fn bind(&self) -> Result<Listener, String> {
        match self {
            Self::Socket(path) => {
                let bound = api::bind(path).map_err(|error| {
                    let text = error.to_string();
                    text.lines().next().unwrap_or_default().to_owned()
                })?;
                let listener = bound.into_std().map(Listener::Socket);
                // It tells which programs are used here.
                let private = fs::set_permissions(path, fs::Permissions::from_mode(0o660));
                private.and(listener).map_err(|error| self.cannot(&error))
            }
            Self::Port(address) => {
                let bound = net::TcpListener::bind(address).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    Ok(Listener::Port(listener))
                });
                bound.map_err(|error| self.cannot(&error))
            }
        }
    }

    fn cannot(&self, error: &io::Error) -> String {
        let place = match self {
            Self::Socket(path) => path.display().to_string(),
            Self::Port(address) => address.to_string(),
        };
        format!("cannot listen at {place}: {error}")
    }
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

/// Answers on a thread of its own, as long as the process lives.
///
/// # Errors
/// When there is no thread to be had.
pub fn serve(listener: Listener, metrics: Arc<Metrics>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("metrics".to_owned()).spawn(move || {
        // Without a listener there is nothing to answer; to make it one of the runtime takes no more than
        // memory.
        let _ = runtime.block_on(answer(listener, metrics));
    })?;
    Ok(())
}

async fn answer(listener: Listener, metrics: Arc<Metrics>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(MOST));
    match listener {
        Listener::Socket(listener) => {
            let listener = UnixListener::from_std(listener)?;
            loop {
                accept(listener.accept().await, &places, &metrics).await;
            }
        }
        Listener::Port(listener) => {
            let listener = TcpListener::from_std(listener)?;
            loop {
                accept(listener.accept().await, &places, &metrics).await;
            }
        }
    }
}

/// Answers who was let in, and waits for a place for the next one.
async fn accept<S, A>(accepted: io::Result<(S, A)>, places: &Arc<Semaphore>, metrics: &Arc<Metrics>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok((stream, _)) = accepted else { return sleep(PAUSE).await };
    // It is never closed.
    let place = Arc::clone(places).acquire_owned().await;
    let metrics = Arc::clone(metrics);
    tokio::spawn(async move {
        let _place = place;
        let service = service_fn(move |request| {
            let response = respond(&request, &metrics);
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

fn respond(request: &Request<Incoming>, metrics: &Metrics) -> Response<String> {
    let told = match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET) => {
            metrics.text().map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
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
