//! Two hosts and the wire between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;

use super::{Capture, Certificate, Https, Kind, Listener, NameServer, Namespace, Zone};

/// The client's own addresses and the server's, on the wire between them.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 2);
/// See [`CLIENT_V4`].
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xf1e3, 0, 0, 0, 0, 0, 2);
/// See [`CLIENT_V4`].
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);
/// See [`CLIENT_V4`].
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xf1e3, 0, 0, 0, 0, 0, 1);

/// The end of the wire, by the same name in both namespaces.
const WIRE: &str = "wire0";

/// A client and a server that only have each other.
pub struct Net {
    pub client: Namespace,
    pub server: Namespace,
    server_addresses: Vec<IpAddr>,
}

impl Net {
    /// Makes both; the server also answers at these addresses, v4 or v6, whomever they belong to.
    pub fn new<A: AsRef<str>>(addresses: &[A]) -> Self {
        let public: Vec<IpAddr> = addresses
            .iter()
            .map(|text| text.as_ref().parse().expect("an address of the server"))
            .collect();
        let mut server_addresses = vec![SERVER_V4.into(), SERVER_V6.into()];
        server_addresses.extend(&public);
        let name = super::unique_name();
        let client = Namespace::new(&format!("{name}-client"));
        let server = Namespace::new(&format!("{name}-server"));
        let net = Self { client, server, server_addresses };
        net.client.ip(&[format!(
            "link add {WIRE} type veth peer name {WIRE} netns {}",
            net.server.name()
        )]);

        for namespace in [&net.client, &net.server] {
            namespace.sysctl(&[
                ("ipv4/ip_forward", "0"),
                ("ipv6/conf/all/forwarding", "0"),
                ("ipv4/conf/all/rp_filter", "0"),
                (&format!("ipv4/conf/{WIRE}/rp_filter"), "0"),
                // Without these an address is of no use in its first second or two.
                (&format!("ipv6/conf/{WIRE}/accept_dad"), "0"),
                (&format!("ipv6/conf/{WIRE}/dad_transmits"), "0"),
                (&format!("ipv6/conf/{WIRE}/router_solicitations"), "0"),
                // Tests send pings as well, also without raw sockets.
                ("ipv4/ping_group_range", "0 2147483647"),
            ]);
        }
        let mut server = vec![
            format!("addr add {SERVER_V4}/24 dev {WIRE}"),
            format!("addr add {SERVER_V6}/64 dev {WIRE} nodad"),
            format!("link set {WIRE} up"),
        ];
        server.extend(public.iter().map(|address| match address {
            IpAddr::V4(v4) => format!("addr add {v4}/32 dev lo"),
            IpAddr::V6(v6) => format!("addr add {v6}/128 dev lo nodad"),
        }));
        net.server.ip(&server);
        net.client.ip(&[
            format!("addr add {CLIENT_V4}/24 dev {WIRE}"),
            format!("addr add {CLIENT_V6}/64 dev {WIRE} nodad"),
            format!("link set {WIRE} up"),
            format!("route add 0.0.0.0/0 via {SERVER_V4}"),
            format!("route add ::/0 via {SERVER_V6}"),
        ]);
        net
    }

    /// A command that will run as the client.
    pub fn client_command(&self, program: &str) -> Command {
        self.client.command(program)
    }

    /// A command that will run as the server.
    pub fn server_command(&self, program: &str) -> Command {
        self.server.command(program)
    }

    /// Runs a closure on a thread of the client.
    pub fn in_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.client.run(work)
    }

    /// Runs a closure on a thread of the server.
    pub fn in_server<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.server.run(work)
    }

    /// A web server that answers 200 to everything. `[::]:80` is port 80 of every address.
    pub fn serve_http(&self, on: &[&str]) -> Listener {
        Listener::http(&self.server, &parse(on))
    }

    /// Accepts connections, and reads until they end.
    pub fn listen_tcp(&self, on: &[&str]) -> Listener {
        Listener::tcp(&self.server, &parse(on))
    }

    /// Accepts connections, and sends back what it reads.
    pub fn echo_tcp(&self, on: &[&str]) -> Listener {
        Listener::echo(&self.server, &parse(on))
    }

    /// A web server with TLS, whose certificate nobody signed.
    pub fn serve_https(&self, on: &[&str]) -> Https {
        Https::new(&self.server, &parse(on))
    }

    /// A real name server that knows this zone and nothing else.
    pub fn serve_names(&self, kind: Kind, zone: &Zone, on: &[&str]) -> NameServer {
        NameServer::new(&self.server, kind, zone, &parse(on))
    }

    /// A real name server that is asked by TLS at the first address and by HTTPS, with the path
    /// `/dns-query`, at the second.
    pub fn serve_names_encrypted(
        &self,
        zone: &Zone,
        on: [&str; 2],
        certificate: &Certificate,
    ) -> NameServer {
        let on = on.map(|text| text.parse().expect("ADDRESS:PORT"));
        NameServer::encrypted(&self.server, zone, on, certificate)
    }

    /// A caching resolver beside the client, on its loopback.
    pub fn stub_resolver(&self, on: &str, upstream: &str) -> NameServer {
        NameServer::stub(&self.client, parse(&[on])[0], parse(&[upstream])[0])
    }

    /// Receives datagrams, and sends each one back. `[::]:53` is port 53 of every address.
    pub fn listen_udp(&self, on: &[&str]) -> Listener {
        self.answer_udp(on, |datagram, _| Some(datagram.to_vec()))
    }

    /// Receives datagrams, and sends back what `answer` says to them. Every address has its own
    /// copy of `answer`.
    pub fn answer_udp(
        &self,
        on: &[&str],
        answer: impl FnMut(&[u8], SocketAddr) -> Option<Vec<u8>> + Send + Clone + 'static,
    ) -> Listener {
        // One socket each: from a socket for all, answers would come from the wrong address.
        let mut each = Vec::new();
        for address in parse(on) {
            if address.ip().is_unspecified() {
                let all = self.server_addresses.iter();
                each.extend(all.map(|ip| SocketAddr::new(*ip, address.port())));
            } else {
                each.push(address);
            }
        }
        Listener::udp(&self.server, &each, answer)
    }

    /// Records what arrives at the server from now on.
    pub fn capture(&self) -> Capture {
        Capture::new(&self.client, &self.server, WIRE)
    }
}

fn parse(addresses: &[&str]) -> Vec<SocketAddr> {
    addresses.iter().map(|text| text.parse().expect("ADDRESS:PORT")).collect()
}
