//! Asks resolvers for the addresses of a name: for `explain --resolve`, and for names that are known
//! [ahead](super::ahead).
//!
//! What a name leads to is what the upstreams say: `/etc/hosts` is not read and no search domain is
//! added, and nothing is kept from one question to the next. Only `localhost`, which is the loopback,
//! and what is under `invalid` and `onion`, which is nowhere, is asked of nobody (RFC 6761, RFC 7686).
//!
//! The questions of the firewall itself are never judged. Of `run` that is so because it is not in the
//! cgroup of its command. A daemon on the root cgroup has to except its own sockets: by the process
//! that made them, which the kernel keeps with a socket, and never by port, mark or destination, which
//! any app could take.

mod answer;
mod connection;
mod upstream;

pub use answer::{Answer, Found};
pub use upstream::{DNS, FORMS, Transport, Upstream, WrongUpstream, socket};

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_resolver::{
    Resolver as Library,
    config::{
        ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy,
    },
    net::{DnsError, NetError},
    proto::{
        op::ResponseCode,
        rr::{Name, Record, RecordType},
    },
};
use rustls::ClientConfig;
use tokio::time::timeout;

use crate::tls;
use connection::Provider;

/// How long an upstream may take for one kind of records.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Upstreams that can be given: as many name servers as resolv.conf(5) has.
pub const MOST_UPSTREAMS: usize = 3;

/// Why nobody can be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No certificate is at hand that those of upstreams could be checked with.
    #[error(
        "there are no root certificates to check an upstream by{reason}\n\n\
         hint: install `ca-certificates`, or name a file of them in SSL_CERT_FILE"
    )]
    NoRoots {
        /// What stood in the way, if anything did.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A resolver cannot be made.
    #[error("cannot ask {upstream}: {source}")]
    Upstream {
        /// Which one.
        upstream: Upstream,
        /// Why.
        source: Box<NetError>,
    },
}

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no such name.
    NoSuchName,
    /// The name is there and has no address.
    NoAddress,
    /// No upstream is given.
    NoUpstream,
    /// None of the upstreams told anything: each of them, and why.
    NoAnswer(Vec<(Upstream, String)>),
}

impl Failure {
    /// The word in machine output.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NoSuchName => "no-such-name",
            Self::NoAddress => "no-address",
            Self::NoUpstream => "no-upstream",
            Self::NoAnswer(_) => "no-answer",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchName => f.write_str("there is no such name"),
            Self::NoAddress => f.write_str("the name has no address"),
            Self::NoUpstream => f.write_str("there is nobody to ask: `upstreams` is empty"),
            Self::NoAnswer(reasons) => {
                let reasons: Vec<String> = reasons
                    .iter()
                    .map(|(upstream, reason)| format!("{upstream}: {reason}"))
                    .collect();
                f.write_str(&reasons.join("; "))
            }
        }
    }
}

/// Asks upstreams, one after the other until one of them answers.
#[derive(Clone)]
pub struct Resolver {
    upstreams: Arc<[(Upstream, Library<Provider>)]>,
    /// The one that answered last is asked first.
    last: Arc<AtomicUsize>,
}

/// Why a kind of records did not come.
enum Missing {
    /// There is no such name.
    Name,
    /// The name has none.
    Records,
    /// The upstream does not tell.
    Told(String),
    /// The upstream does not answer.
    Silent(String),
}

impl Resolver {
    /// Asks these upstreams. The roots of the system are read if any of them is asked by TLS:
    /// those in `SSL_CERT_FILE` and `SSL_CERT_DIR`, where these are set.
    pub fn new(upstreams: Vec<Upstream>) -> Result<Self, Error> {
        let encrypted = upstreams.iter().any(|upstream| upstream.transport != Transport::Plain);
        let tls = if encrypted { Some(tls()?) } else { None };
        let made = upstreams.into_iter().map(|upstream| {
            let resolver = one(&upstream, tls.as_ref()).map_err(|source| Error::Upstream {
                upstream: upstream.clone(),
                source: source.into(),
            })?;
            Ok((upstream, resolver))
        });
        Ok(Self { upstreams: made.collect::<Result<_, Error>>()?, last: Arc::default() })
    }

    /// Those that are asked.
    pub fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        self.upstreams.iter().map(|(upstream, _)| upstream)
    }

    /// Where a name leads: A, AAAA and HTTPS records, and the names that it is an alias of. Takes
    /// [`PATIENCE`] for each upstream that does not answer, and as much again for the last.
    pub async fn resolve(&self, name: &str) -> Result<Answer, Failure> {
        let Ok(name) = Name::from_ascii(format!("{name}.")) else {
            return Err(Failure::NoSuchName);
        };
        let count = self.upstreams.len();
        let first = self.last.load(Ordering::Relaxed);
        let mut reasons = Vec::new();
        for place in (first..first + count).map(|place| place % count) {
            let (upstream, resolver) = &self.upstreams[place];
            match ask(resolver, &name).await {
                Err(Missing::Told(reason) | Missing::Silent(reason)) => {
                    reasons.push((upstream.clone(), reason));
                }
                told => {
                    self.last.store(place, Ordering::Relaxed);
                    return match told {
                        Ok(answer) => Ok(Answer { upstream: place, ..answer }),
                        Err(Missing::Name) => Err(Failure::NoSuchName),
                        Err(_) => Err(Failure::NoAddress),
                    };
                }
            }
        }
        if reasons.is_empty() { Err(Failure::NoUpstream) } else { Err(Failure::NoAnswer(reasons)) }
    }
}

/// Asks one upstream. The rest is not asked if it is silent, or says that there is no such name.
async fn ask(resolver: &Library<Provider>, name: &Name) -> Result<Answer, Missing> {
    let mut records = Vec::new();
    let mut missing = Vec::new();
    let mut take = |kind: RecordType, told| match told {
        Ok(further) => records.extend::<Vec<Record>>(further),
        Err(Missing::Name | Missing::Records) => {}
        Err(Missing::Told(reason) | Missing::Silent(reason)) => missing.push((kind.into(), reason)),
    };
    match look_up(resolver, name, RecordType::A).await {
        Err(none @ (Missing::Name | Missing::Silent(_))) => return Err(none),
        told => take(RecordType::A, told),
    }
    let (v6, https) = tokio::join!(
        look_up(resolver, name, RecordType::AAAA),
        look_up(resolver, name, RecordType::HTTPS)
    );
    take(RecordType::AAAA, v6);
    take(RecordType::HTTPS, https);
    let answer = Answer { missing, ..Answer::read(name, &records) };
    if answer.addresses.is_empty() {
        return Err(match answer.missing.into_iter().next() {
            Some((kind, reason)) => Missing::Told(format!("{kind} records: {reason}")),
            None => Missing::Records,
        });
    }
    Ok(answer)
}

async fn look_up(
    resolver: &Library<Provider>,
    name: &Name,
    kind: RecordType,
) -> Result<Vec<Record>, Missing> {
    let error = match timeout(PATIENCE, resolver.lookup(name.clone(), kind)).await {
        Ok(Ok(lookup)) => return Ok(lookup.answers().to_vec()),
        Ok(Err(error)) => error,
        Err(_) => NetError::Timeout,
    };
    Err(match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Missing::Name,
            _ => Missing::Records,
        },
        NetError::Dns(DnsError::ResponseCode(code)) => Missing::Told(format!("it says `{code}`")),
        NetError::Timeout => Missing::Silent(format!("no answer within {} s", PATIENCE.as_secs())),
        NetError::NoConnections => Missing::Silent("it closed the connection".to_owned()),
        other => Missing::Silent(other.to_string()),
    })
}

/// A resolver of the library that asks one upstream alone: which one answers decides about trust,
/// and what is asked goes to no more of them than need be.
fn one(upstream: &Upstream, tls: Option<&ClientConfig>) -> Result<Library<Provider>, NetError> {
    let connections = match &upstream.transport {
        Transport::Plain => vec![ConnectionConfig::udp(), ConnectionConfig::tcp()],
        Transport::Tls { name } => vec![ConnectionConfig::tls(name.as_str().into())],
        Transport::Https { name, path } => {
            vec![ConnectionConfig::https(name.as_str().into(), Some(path.as_str().into()))]
        }
    };
    let connections = connections
        .into_iter()
        .map(|mut connection| {
            connection.port = upstream.address.port();
            connection
        })
        .collect();
    let server = NameServerConfig::new(upstream.address.ip(), true, connections);
    let config = ResolverConfig::from_name_servers(vec![server]);
    let mut builder = Library::builder_with_config(config, Provider::default());
    if let Some(tls) = tls {
        builder = builder.with_tls_config(tls.clone());
    }
    let options = builder.options_mut();
    options.timeout = PATIENCE;
    options.attempts = 0;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    builder.build()
}

/// TLS with the roots of the system.
fn tls() -> Result<ClientConfig, Error> {
    let roots = tls::system_roots().map_err(|errors| {
        let reason = errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        Error::NoRoots { reason }
    })?;
    Ok(tls::client(roots)?)
}
