//! Probes that a policy stops by name: each has a name of its own, and an address of its own where it says
//! that name to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;

use crate::{
    harness::{Contact, Listener},
    probe::{Control, Families, PROBE, Places, Probe, Trial, denied_name, denied_to, probe},
    support::{
        dns::{self, hex, message, question},
        elsewhere::program_in,
        hello::client_hello,
        quic_client,
    },
    world::World,
};

/// Where the receiving side sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// A question with the name.
    Question,
    /// A stream with the name.
    Stream,
    /// A datagram of QUIC that begins a connection.
    Quic,
    /// Anything that is more than a handshake.
    Payload,
}

type Line = (Probe, Seen);

/// What one try says, and to whom.
struct Target {
    name: String,
    ip: IpAddr,
    port: u16,
}

const FIRST_PORT: u16 = 9000;
/// Where whatever is said is said back: openssl would wait for each connection that was torn.
const TLS: u16 = 8443;
/// Registered in US, of whom no policy here says anything.
const SERVERS: [&str; 2] = ["3.173.21.63", "2600:9000::10"];

impl Target {
    fn new(number: u16, v6: bool, denied: bool) -> Self {
        let zone = if denied { "hm.baidu.com" } else { "evilbaidu.com" };
        let ip = match v6 {
            false => Ipv4Addr::new(3, 173, (number / 250) as u8, (number % 250) as u8 + 2).into(),
            true => Ipv6Addr::new(0x2600, 0x9000, 0, 0, 0, 0, 2, number).into(),
        };
        // As long as any other, whatever its number.
        Self { name: format!("n{number:03}.{zone}"), ip, port: FIRST_PORT + number }
    }

    fn stands_for(&self, word: &str) -> String {
        let v6 = self.ip.is_ipv6();
        let at = |port| SocketAddr::new(self.ip, port).to_string();
        match word {
            "NAME" => self.name.clone(),
            "UPPER" => self.name.to_uppercase(),
            "DOTTED" => format!("{}.", self.name),
            "BESIDE" => "n000.evilbaidu.com".to_owned(),
            "SAMELENGTH" => "x".repeat(self.name.len() - 4) + ".com",
            "DNS" if v6 => "[fd00:f1e3::1]:53".to_owned(),
            "DNS" => "10.200.0.1:53".to_owned(),
            "ASKED" => at(53),
            "UNLISTED" => at(5300),
            "WEB" => at(80),
            "TLS" => at(TLS),
            "QUIC" => SocketAddr::new(SERVERS[usize::from(v6)].parse().expect("ip"), self.port)
                .to_string(),
            "EACHBYTE" => (1..60).map(|n| n.to_string()).collect::<Vec<_>>().join(","),
            other => other.to_owned(),
        }
    }
}

fn questions() -> Vec<Line> {
    fn ask(of: Places<'_>, kind: u16) -> String {
        let rest = [&dns::encode(&of("NAME"))[..], &kind.to_be_bytes(), &[0, 1]].concat();
        format!("dns-hex {} {}", of("DNS"), hex(&message(9, 1, &rest)))
    }
    let asks = |what, lines| (probe(what, lines), Seen::Question);
    let made = |what, step| (probe(what, "").made(step), Seen::Question);
    vec![
        asks("DNS: A", "dns DNS NAME A"),
        asks("DNS: AAAA", "dns DNS NAME AAAA"),
        asks("DNS: HTTPS", "dns DNS NAME HTTPS"),
        made("DNS: TXT", |of| ask(of, 16)),
        made("DNS: ANY", |of| ask(of, 255)),
        made("DNS: a type nobody knows", |of| ask(of, 65_280)),
        asks("DNS: in upper case", "dns DNS UPPER A"),
        asks("DNS: with a final dot", "dns DNS DOTTED A"),
        asks("DNS: unconnected socket", "dns-sendto DNS NAME A"),
        asks("DNS: from port 53", "dns-from 53 DNS NAME A"),
        asks("DNS: from port 5333", "dns-from 5333 DNS NAME A"),
        asks("DNS: EDNS", "dns-edns DNS NAME A"),
        asks("DNS: second of sendmmsg", "dns-mmsg DNS BESIDE NAME"),
        asks("DNS: second segment of UDP_SEGMENT", "dns-segments DNS SAMELENGTH NAME"),
        (probe("DNS: in two parts, MSG_MORE", "dns-more ASKED NAME").open(), Seen::Question),
        made("DNS: second of two questions", |of| {
            let tail = vec![0, 1, 0, 1];
            let two =
                [of("BESIDE"), of("NAME")].map(|name| [dns::encode(&name), tail.clone()].concat());
            format!("dns-hex {} {}", of("DNS"), hex(&message(9, 2, &two.concat())))
        }),
        made("DNS: to a resolver nobody trusts", |of| {
            format!("dns-hex {} {}", of("ASKED"), hex(&question(9, &of("NAME"), "A")))
        }),
        (
            probe("DNS: a pointer into the first question", "").made(|of| {
                // Of which the first, all but one label of what is denied, is not.
                let name = of("NAME");
                let at = name.match_indices('.').rev().nth(1).expect("three labels").0;
                let first = [dns::encode(&name[at + 1..]), vec![0, 1, 0, 1]].concat();
                let head = dns::encode(&name[..at]);
                let own = [&head[..head.len() - 1], &[0xc0, 12, 0, 1, 0, 1]].concat();
                let rest = [first, own].concat();
                format!("dns-hex {} {}", of("ASKED"), hex(&message(9, 2, &rest)))
            }),
            Seen::Payload,
        ),
        (
            probe("DNS: a loop of pointers", "")
                .made(|of| {
                    let rest = [1, b'a', 0xc0, 12, 0, 1, 0, 1];
                    format!("dns-hex {} {}", of("ASKED"), hex(&message(9, 1, &rest)))
                })
                .open(),
            Seen::Payload,
        ),
        (
            probe("DNS: in pages that change", "")
                .made(|of| {
                    let [good, bad] =
                        [of("SAMELENGTH"), of("NAME")].map(|name| hex(&question(7, &name, "A")));
                    format!("swap {} {good} {bad}", of("ASKED"))
                })
                .open()
                .v4(),
            Seen::Payload,
        ),
        asks("DNS over TCP", "dns-tcp DNS NAME A whole"),
        asks("DNS over TCP: length split", "dns-tcp DNS NAME A 1"),
        asks("DNS over TCP: split in the header", "dns-tcp DNS NAME A 1,2,3,9"),
        asks("DNS over TCP: split in the name", "dns-tcp DNS NAME A 20"),
        asks("DNS over TCP: second question", "dns-tcp-two DNS BESIDE NAME"),
        (
            probe("DNS: at a port that is not of DNS", "")
                .made(|of| {
                    format!("dns-hex {} {}", of("UNLISTED"), hex(&question(9, &of("NAME"), "A")))
                })
                .known("A name that nobody shows"),
            Seen::Question,
        ),
    ]
}

fn streams() -> Vec<Line> {
    let says = |what, lines| (probe(what, lines), Seen::Stream);
    let made = |what, step| (probe(what, "").made(step), Seen::Stream);
    // Denied whatever it names, as servers read it in different ways.
    let odd = |what, step| (probe(what, "").made(step).open(), Seen::Stream);
    vec![
        says("TLS: hello", "tls TLS plain NAME whole"),
        says("TLS: name in upper case", "tls TLS plain UPPER whole"),
        says("TLS: name with a final dot", "tls TLS plain DOTTED whole"),
        says("TLS: GREASE", "tls TLS grease NAME whole"),
        says("TLS: post-quantum, two segments", "tls TLS large NAME whole"),
        says("TLS: post-quantum, many segments", "tls TLS large NAME hundreds"),
        says("TLS: outer name beside ECH", "tls TLS ech NAME whole"),
        says("TLS: split behind the first byte", "tls TLS plain NAME 1"),
        says("TLS: split in the name", "tls TLS plain NAME 120"),
        says("TLS: a segment each byte", "tls TLS plain NAME EACHBYTE"),
        made("TLS: split into two records", |of| records(of, 60)),
        made("TLS: records of 20 bytes", |of| records(of, 20)),
        says("TLS: second hello after a retry", "two-hellos TLS BESIDE NAME"),
        says("HTTP: Host", "http WEB NAME whole"),
        says("HTTP: Host in upper case", "http WEB UPPER whole"),
        says("HTTP: Host with a final dot", "http WEB DOTTED whole"),
        says("HTTP: split in Host", "http WEB NAME 20,25"),
        says("HTTP: a segment each byte", "http WEB NAME EACHBYTE"),
        // Denied whatever they name, as they differ.
        odd("HTTP: absolute form", |of| {
            format!("http-absolute {} http://{}/x evilbaidu.com whole", of("WEB"), of("NAME"))
        }),
        odd("HTTP: Host behind another's absolute form", |of| {
            sent(of, "GET http://shop.example/ HTTP/1.1\r\nHost: NAME\r\n\r\n")
        }),
        odd("HTTP: CONNECT", |of| sent(of, "CONNECT NAME:443 HTTP/1.1\r\nHost: NAME:443\r\n\r\n")),
        odd("HTTP: empty lines first", |of| {
            sent(of, "\r\n\r\nGET / HTTP/1.1\r\nHost: NAME\r\n\r\n")
        }),
        odd("HTTP: version 1.01", |of| sent(of, "GET / HTTP/1.01\r\nHost: NAME\r\n\r\n")),
        odd("HTTP: two Hosts", |of| {
            sent(of, "GET / HTTP/1.1\r\nHost: shop.example\r\nHost: NAME\r\n\r\n")
        }),
        odd("HTTP: Host folded over two lines", |of| {
            sent(of, "GET / HTTP/1.1\r\nHost:\r\n NAME\r\n\r\n")
        }),
        (
            probe("HTTP: an urgent byte in Host", "")
                .made(|of| {
                    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", of("NAME"));
                    format!("urgent 24 {} {}", of("WEB"), hex(request.as_bytes()))
                })
                .open(),
            Seen::Stream,
        ),
        (
            probe("HTTP: a second request of a connection", "")
                .made(|of| {
                    let one = |name| format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n");
                    let both = one(of("BESIDE")) + &one(of("NAME"));
                    format!("bytes {} {}", of("WEB"), hex(both.as_bytes()))
                })
                .known("A name behind the first one"),
            Seen::Stream,
        ),
    ]
}

fn sent(of: Places<'_>, request: &str) -> String {
    format!("bytes {} {}", of("WEB"), hex(request.replace("NAME", &of("NAME")).as_bytes()))
}

/// A hello in records of so many bytes.
fn records(of: Places<'_>, size: usize) -> String {
    let hello = client_hello("plain", &of("NAME"));
    let records = hello[5..]
        .chunks(size)
        .flat_map(|part| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat());
    format!("bytes {} {}", of("TLS"), hex(&records.collect::<Vec<u8>>()))
}

fn quic() -> Vec<Line> {
    let says = |what, lines| (probe(what, lines), Seen::Quic);
    vec![
        says("QUIC v1: Initial", "quic QUIC v1 whole NAME"),
        says("QUIC v2: Initial", "quic QUIC v2 whole NAME"),
        says("QUIC v1: name in upper case", "quic QUIC v1 whole UPPER"),
        says("QUIC v1: hello over two packets", "quic QUIC v1 large NAME"),
        says("QUIC v2: hello over two packets", "quic QUIC v2 large NAME"),
        says("QUIC v1: later packet first", "quic QUIC v1 reversed NAME"),
        says("QUIC v2: later packet first", "quic QUIC v2 reversed NAME"),
        says("QUIC v1: CRYPTO frames overlap, reversed", "quic QUIC v1 crumbs NAME"),
        says("QUIC v1: two packets by UDP_SEGMENT", "quic QUIC v1 at-once NAME"),
        says("QUIC v1: GREASE", "quic QUIC v1 grease NAME"),
        says("QUIC v1: outer name beside ECH", "quic QUIC v1 ech NAME"),
        says("QUIC v1: fixed bit cleared", "quic QUIC v1 unfixed NAME"),
        says("QUIC v1: connected socket", "quic QUIC v1 connected NAME"),
        (
            probe("QUIC v1: coalesced behind another packet", "quic QUIC v1 behind NAME").open(),
            Seen::Quic,
        ),
    ]
}

/// A part of QUIC: each try waits to send again, so parts go on side by side.
pub fn of_quic(part: usize, parts: usize) -> Vec<Trial> {
    let lines = quic();
    let chunk = lines.len().div_ceil(parts);
    trials(lines.chunks(chunk).nth(part).expect("a part"))
}

pub fn of_names() -> Vec<Trial> {
    trials(&[questions(), streams()].concat())
}

struct Try<'a> {
    line: &'a Line,
    target: Target,
    steps: String,
    control: Target,
    control_steps: String,
}

fn tries(lines: &[Line]) -> Vec<Try<'_>> {
    let mut tries = Vec::new();
    for line in lines {
        for v6 in [false, true] {
            if line.0.families == Families::V4 && v6 {
                continue;
            }
            let number = tries.len() as u16 * 2 + 1;
            let target = Target::new(number, v6, true);
            let control = Target::new(number + 1, v6, line.0.control == Control::Open);
            let [steps, control_steps] =
                [&target, &control].map(|of| line.0.lines(&|word| of.stands_for(word)));
            tries.push(Try { line, target, steps, control, control_steps });
        }
    }
    tries
}

fn trials(lines: &[Line]) -> Vec<Trial> {
    let world = World::new();
    world.net.server.ip(&["3.173.0.0/16", "2600:9000::/28"]
        .map(|network| format!("route add local {network} dev lo")));
    let tries = tries(lines);
    let quic = tries.iter().filter(|one| one.line.1 == Seen::Quic);
    let places: Vec<String> =
        quic.flat_map(|one| [&one.target, &one.control]).map(|of| of.stands_for("QUIC")).collect();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let server = world.net.answer_udp(&places, |datagram, _| quic_client::answer(datagram));
    let tls = world.net.echo_tcp(&[&format!("[::]:{TLS}")]);
    let folder = tempfile::tempdir().expect("a directory");
    crate::support::open_to_all(folder.path());
    let program = program_in(folder.path(), PROBE);
    let program = program.to_str().expect("UTF-8");

    let open = |one: &&Try<'_>| one.line.0.control == Control::Open;
    let under: Vec<&str> = tries
        .iter()
        .map(|one| one.steps.as_str())
        .chain(tries.iter().filter(|one| !open(one)).map(|one| one.control_steps.as_str()))
        .collect();
    let without: Vec<&str> =
        tries.iter().filter(open).map(|one| one.control_steps.as_str()).collect();
    let policy = world.deny(&["hm.baidu.com"], "");
    let outcome = world.start(&["--policy", &policy]).client_of(program, &under.join("\n"));
    outcome.assert_status(0);
    // No rule by name: nobody looks.
    let open_outcome =
        world.start(&["--deny", "net:192.0.2.0/24"]).client_of(program, &without.join("\n"));
    open_outcome.assert_status(0);

    let seen = |line: &Line, target: &Target| arrived(&world, &server, &tls, line.1, target);
    let trial = |one: &Try<'_>| {
        let Probe { what, charged, known, .. } = one.line.0;
        Trial {
            what: what.to_owned(),
            family: if one.target.ip.is_ipv4() { "v4" } else { "v6" },
            policy: "name",
            by: "run",
            seen: seen(one.line, &one.target),
            control: seen(one.line, &one.control),
            skip: None,
            event: event(&outcome.events, &one.target),
            charged,
            user: "root",
            known,
        }
    };
    tries.iter().map(trial).collect()
}

fn event(events: &[Value], target: &Target) -> Option<Value> {
    denied_name(events, &target.name).or_else(|| denied_to(events, target.ip))
}

fn arrived(world: &World, quic: &Listener, tls: &Listener, seen: Seen, target: &Target) -> bool {
    match seen {
        Seen::Question => world.on_the_wire(&target.name) || world.names.was_asked(&target.name),
        Seen::Stream => {
            let contacts = [world.http.contacts(), tls.contacts()].concat();
            contacts.iter().any(|one| one.to.ip() == target.ip && says(one, &target.name))
        }
        Seen::Quic => quic.contacts().iter().any(|one| {
            one.to.port() == target.port && one.data.first().is_some_and(|b| *b >= 0x80)
        }),
        Seen::Payload => {
            world.capture.to(&target.ip.to_string()).iter().any(|one| one.protocol == 17)
        }
    }
}

/// Whether a name was said: in a hello, of one record or several, or in the head of a request, which
/// servers read to its end (RFC 9112, section 2.2).
fn says(contact: &Contact, name: &str) -> bool {
    let mut rest = &contact.data[..];
    let mut hello = Vec::new();
    // RFC 8446, section 5.1
    while let [22, _, _, a, b, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*a, *b])).min(more.len());
        hello.extend(&more[..length]);
        rest = &more[length..];
    }
    let find = |bytes: &[u8], what: &[u8]| {
        bytes.to_ascii_lowercase().windows(what.len()).position(|part| part == what)
    };
    let in_head = find(rest, name.as_bytes()).and_then(|at| find(&rest[at..], b"\r\n\r\n"));
    find(&hello, name.as_bytes()).is_some() || in_head.is_some()
}
