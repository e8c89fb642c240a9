//! One download over HTTPS, with an end to everything: time, bytes, redirects.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{
    CONTENT_ENCODING, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LAST_MODIFIED,
};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{Response, StatusCode};
use rustls::RootCertStore;
use url::Url;

use super::{Reason, Trouble, Validators};
use crate::policy::diagnostic::printable;
use crate::policy::source::LARGEST;
use crate::tls;

/// How many redirects are followed.
const REDIRECTS: usize = 5;

/// Longer than any validator that is worth keeping.
const LONGEST_VALIDATOR: usize = 1_000;

/// Where a download ends that does not end by itself.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Until there is a connection.
    pub connect: Duration,
    /// During which nothing comes.
    pub idle: Duration,
    /// From the beginning to the last byte.
    pub total: Duration,
    /// Of the list, without compression.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            total: Duration::from_mins(10),
            bytes: LARGEST,
        }
    }
}

/// How far a download is.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// How many bytes have come, without compression.
    pub bytes: u64,
    /// How many it will be, where the server says.
    pub of: Option<u64>,
}

/// What is told of downloads: which one, and how far it is; `None` when it has ended.
pub type Progress = Arc<dyn Fn(usize, Option<Received>) + Send + Sync>;

/// What a server answers.
#[derive(Debug)]
pub enum Answer {
    /// It has nothing newer than what the validators name.
    NotModified,
    /// A list, and what the server calls this version of it.
    List(Vec<u8>, Validators),
}

/// Downloads with the roots that this machine trusts.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    limits: Limits,
}

impl Client {
    /// With the roots of this machine, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    ///
    /// # Errors
    ///
    /// When there are no roots.
    pub fn new(limits: Limits) -> Result<Self, String> {
        let roots = tls::system_roots().map_err(|errors| {
            let why: Vec<String> = errors.iter().map(ToString::to_string).collect();
            format!("there are no trusted root certificates: {}", why.join("; "))
        })?;
        Self::trusting(roots, limits)
    }

    /// With these roots.
    ///
    /// # Errors
    ///
    /// When the TLS library or the HTTP library cannot be set up.
    pub fn trusting(roots: RootCertStore, limits: Limits) -> Result<Self, String> {
        let tls = tls::client(roots).map_err(|error| error.to_string())?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(Policy::custom(redirect))
            .referer(false)
            .user_agent(concat!("firewall/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits.connect)
            .read_timeout(limits.idle)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { http, limits })
    }

    /// What stands at a URL, if it is not what the validators name.
    pub async fn fetch(
        &self,
        url: &Url,
        validators: &Validators,
        progress: impl Fn(Received),
    ) -> Result<Answer, Trouble> {
        let total = self.limits.total;
        let answer = tokio::time::timeout(total, self.answer(url, validators, progress)).await;
        answer.unwrap_or_else(|_| {
            Err((Reason::Timeout, format!("it takes longer than {} s", total.as_secs())))
        })
    }

    async fn answer(
        &self,
        url: &Url,
        validators: &Validators,
        progress: impl Fn(Received),
    ) -> Result<Answer, Trouble> {
        let headers = conditions(validators);
        let conditional = !headers.is_empty();
        let request = self.http.get(url.clone()).headers(headers);
        let mut response = request.send().await.map_err(|error| self.no_answer(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if conditional => return Ok(Answer::NotModified),
            status => return Err((Reason::Status, format!("the server answers {status}"))),
        }
        // What was asked for is taken apart already, and the header gone.
        if let Some(encoding) = response.headers().get(CONTENT_ENCODING)
            && encoding != "identity"
        {
            let encoding = printable(&String::from_utf8_lossy(encoding.as_bytes()));
            let message = format!("it is compressed as `{encoding}`, which was not asked for");
            return Err((Reason::Encoding, message));
        }
        let of = response.content_length();
        let too_large = || {
            let message = format!("it is larger than {} MiB", self.limits.bytes >> 20);
            (Reason::TooLarge, message)
        };
        if of.is_some_and(|of| of > self.limits.bytes) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| self.broken(&error, bytes.len()))?
        {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > self.limits.bytes {
                return Err(too_large());
            }
            progress(Received { bytes: bytes.len() as u64, of });
        }
        Ok(Answer::List(bytes, validators_of(&response)))
    }

    fn no_answer(&self, error: &reqwest::Error) -> Trouble {
        let why = innermost(error);
        if error.is_redirect() {
            return (Reason::Redirect, why);
        }
        if let Some(error) = tls_error(error) {
            return (Reason::Tls, format!("the server is not to be trusted: {error}"));
        }
        match (error.is_timeout(), error.is_connect()) {
            (true, true) => {
                let limit = self.limits.connect.min(self.limits.idle).as_secs();
                (Reason::Timeout, format!("there is no connection after {limit} s"))
            }
            (true, false) => {
                let limit = self.limits.idle.as_secs();
                (Reason::Timeout, format!("there is no answer after {limit} s"))
            }
            (false, true) => (Reason::Unreachable, format!("there is no connection: {why}")),
            (false, false) => (Reason::Interrupted, format!("the answer breaks off: {why}")),
        }
    }

    fn broken(&self, error: &reqwest::Error, bytes: usize) -> Trouble {
        if error.is_timeout() {
            let limit = self.limits.idle.as_secs();
            let message = format!("nothing more comes for {limit} s, after {bytes} bytes");
            return (Reason::Timeout, message);
        }
        let why = innermost(error);
        (Reason::Interrupted, format!("it breaks off or is damaged after {bytes} bytes: {why}"))
    }
}

/// Follows a redirect, but a few only and never to where others can read and change what comes.
fn redirect(attempt: Attempt<'_>) -> Action {
    let url = attempt.url();
    if url.scheme() != "https" {
        let message =
            format!("the server leads to {}, which is not https", printable(url.as_str()));
        return attempt.error(message);
    }
    if attempt.previous().len() > REDIRECTS {
        return attempt.error(format!("the server leads elsewhere more than {REDIRECTS} times"));
    }
    attempt.follow()
}

/// The headers that ask for something newer. What cannot be sent any more was never a validator.
fn conditions(validators: &Validators) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Validators { etag, last_modified } = validators;
    for (name, value) in [(IF_NONE_MATCH, etag), (IF_MODIFIED_SINCE, last_modified)] {
        if let Some(value) = value.as_ref().and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
    headers
}

fn validators_of(response: &Response) -> Validators {
    let value = |name: HeaderName| {
        let value = response.headers().get(name)?.to_str().ok()?;
        (value.len() <= LONGEST_VALIDATOR).then(|| value.to_owned())
    };
    Validators { etag: value(ETAG), last_modified: value(LAST_MODIFIED) }
}

fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    chain(error).find_map(|mut cause| {
        // The source of an `io::Error` is not the error that it was made of, but the source of that.
        while let Some(inner) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            cause = inner;
        }
        cause.downcast_ref()
    })
}

/// What lies at the bottom of an error, on one line: the rest says what was being done.
fn innermost(error: &reqwest::Error) -> String {
    const LONGEST: usize = 300;
    let hung_up = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
    };
    if chain(error).any(hung_up) {
        return "the server hung up".to_owned();
    }
    let text = chain(error).last().map_or_else(|| error.to_string(), ToString::to_string);
    printable(&text).chars().take(LONGEST).collect()
}

fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}
