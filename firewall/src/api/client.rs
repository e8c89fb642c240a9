//! The daemon's client, for the command line. It blocks.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, runtime::Runtime, time::timeout};

use super::dto::Failure;

/// Bytes of an answer that is no stream.
const MOST: usize = 64 << 20;
/// The daemon itself gives up before.
const PATIENCE: Duration = Duration::from_secs(16 * 60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error("no daemon answers at {}: {source}", socket.display())]
    NoDaemon {
        /// Where it should.
        socket: PathBuf,
        /// What connecting said.
        source: io::Error,
    },
    /// The daemon says no.
    #[error("{}", reason.error.message)]
    Refused {
        /// In a number of HTTP.
        status: StatusCode,
        /// In words.
        reason: Failure,
    },
    /// The daemon says what makes no sense here, or stops in the middle of it.
    #[error("the answer of the daemon at {} is broken: {message}", socket.display())]
    Broken {
        /// Where it listens.
        socket: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

impl Error {
    /// What to do.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::NoDaemon { .. } => Some(
                "`sudo systemctl start firewall` or `sudo firewall daemon` starts it; --socket PATH \
                 names another",
            ),
            Self::Refused { reason, .. } => reason.error.hint.as_deref(),
            Self::Broken { .. } => Some("`firewall status` and `firewall --version` tell versions"),
        }
    }

    /// Whether what was asked for is not valid, as against what may not or cannot be done.
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::UNPROCESSABLE_ENTITY)
    }
}

/// A way to the daemon.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// To the daemon at a socket.
    ///
    /// # Errors
    /// When the system has no means to wait for it.
    pub fn new(socket: &Path) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { socket: socket.to_owned(), runtime })
    }

    /// Asks for something.
    ///
    /// # Errors
    /// When there is no answer, or it is a no.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.ask(Method::GET, path)
    }

    /// Asks to change something.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.ask(Method::POST, path)
    }

    /// Asks for lines, which come as they are read.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn lines(self, path: &str) -> Result<Lines, Error> {
        let response = self.runtime.block_on(self.send(Method::GET, path))?;
        let body = response.into_body();
        Ok(Lines { body, piece: Bytes::new(), client: self })
    }

    fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, Error> {
        let answer = async { self.whole(self.send(method, path).await?.into_body()).await };
        let bytes = self.runtime.block_on(answer)?;
        serde_json::from_slice(&bytes).map_err(|error| self.broken(error))
    }

    fn broken(&self, error: impl ToString) -> Error {
        Error::Broken { socket: self.socket.clone(), message: error.to_string() }
    }

    async fn whole(&self, body: Incoming) -> Result<Bytes, Error> {
        let whole = timeout(PATIENCE, Limited::new(body, MOST).collect()).await;
        match whole {
            Ok(Ok(whole)) => Ok(whole.to_bytes()),
            Ok(Err(error)) => Err(self.broken(error)),
            Err(_) => Err(self.broken("it does not end")),
        }
    }

    /// The answer, if it is what was asked for.
    async fn send(&self, method: Method, path: &str) -> Result<Response<Incoming>, Error> {
        let no_daemon = |source| Error::NoDaemon { socket: self.socket.clone(), source };
        let stream = UnixStream::connect(&self.socket).await.map_err(no_daemon)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        // It ends with the body that it brings.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            // There is no host: the socket says whom this is for.
            .header(hyper::header::HOST, "firewall")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.broken(error))?;
        let response = match timeout(PATIENCE, sender.send_request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.broken(error)),
            Err(_) => return Err(self.broken("it does not come")),
        };
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let bytes = self.whole(response.into_body()).await?;
        let reason = serde_json::from_slice(&bytes)
            .map_err(|error| self.broken(format!("status {status}, and {error}")))?;
        Err(Error::Refused { status, reason })
    }
}

/// Lines that come from the daemon. At the end it has no more to say, or is gone.
#[derive(Debug)]
pub struct Lines {
    client: Client,
    body: Incoming,
    piece: Bytes,
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.client.runtime.block_on(self.body.frame()) {
                None => return Ok(0),
                Some(Ok(frame)) => self.piece = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Err(io::Error::other(error)),
            }
        }
        let number = self.piece.len().min(buffer.len());
        buffer[..number].copy_from_slice(&self.piece.split_to(number));
        Ok(number)
    }
}
