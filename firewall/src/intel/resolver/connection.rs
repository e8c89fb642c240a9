//! Connections to upstreams, as the library makes them, with their errors kept.
//!
//! Of an upstream that cannot be reached, or has the wrong certificate, the library says no more than
//! that there is no connection: its pool goes on to the next server where the error is one of input
//! or output, and forgets it. Here each pool has one server, and what was wrong is to be said.

use std::{future::Future, net::IpAddr, pin::Pin};

use futures_util::{Stream, StreamExt as _};
use hickory_resolver::{
    ConnectionProvider, PoolContext,
    config::ConnectionConfig,
    net::{
        NetError,
        runtime::TokioRuntimeProvider,
        xfer::{DnsExchange, DnsHandle},
    },
    proto::op::{DnsRequest, DnsResponse},
};

/// Makes connections.
#[derive(Clone, Default)]
pub struct Provider(TokioRuntimeProvider);

/// A connection.
#[derive(Clone)]
pub struct Connection(DnsExchange<TokioRuntimeProvider>);

impl ConnectionProvider for Provider {
    type Conn = Connection;
    type FutureConn = Pin<Box<dyn Future<Output = Result<Connection, NetError>> + Send>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        context: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let made = self.0.new_connection(ip, config, context)?;
        Ok(Box::pin(async { made.await.map(Connection).map_err(kept) }))
    }

    fn runtime_provider(&self) -> &TokioRuntimeProvider {
        &self.0
    }
}

impl DnsHandle for Connection {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        Box::pin(self.0.send(request).map(|response| {
            response.map_err(|error| {
                // One that was closed meanwhile is made again.
                if error.is_connection_closed() { error } else { kept(error) }
            })
        }))
    }
}

/// The same error in words, which the pool passes on.
fn kept(error: NetError) -> NetError {
    match error {
        NetError::Io(error) => NetError::Msg(error.to_string()),
        other => other,
    }
}
