//! The host of an HTTP/1 request: real ones, built ones and bent ones, against a slow parser.
#![expect(clippy::unwrap_used, reason = "tests panic")]

#[path = "stream/cuts.rs"]
mod cuts;
mod stream;

use cuts::{cuts, places};
use firewall_common::parse::payload::{MAX_PAYLOAD, flags};
use proptest::{option, prelude::*, sample::Index, sample::select};
use stream::{Read, agree, any_pieces, http::read as slow, read, whole};

const HTTP: u32 = flags::HTTP;
const MALFORMED: Read = Read::NoName(flags::HTTP | flags::MALFORMED);
const NO_HTTP: Read = Read::NoName(0);

fn named(name: &str) -> Read {
    Read::Name(name.to_owned())
}

/// A request with these lines, which end in CRLF or LF alike.
fn check(lines: &str, want: Read) {
    for lines in [lines.replace('\n', "\r\n"), lines.to_owned()] {
        assert_eq!(any_pieces(lines.as_bytes()), want, "{lines:?}");
        assert_eq!(slow(lines.as_bytes()), want, "slow: {lines:?}");
    }
}

/// A request with this target, and perhaps a `Host` that is the same.
fn target(line: &str, want: Read) {
    let host = match &want {
        Read::Name(name) => format!("Host: {name}:80\n"),
        _ => String::new(),
    };
    check(&format!("{line} HTTP/1.1\n{host}\n"), want);
}

/// A request with this target and this `Host`.
fn beside(line: &str, host: &str, want: Read) {
    check(&format!("{line} HTTP/1.1\nX: y\nHost: {host}\n\n"), want);
}

/// A request with these headers.
fn headers(lines: &str, want: Read) {
    check(&format!("GET / HTTP/1.1\n{lines}\n\n"), want);
}

#[test]
fn real_clients() {
    let hm = Some("hm.baidu.com");
    for (stream, name) in [
        (&include_bytes!("payload/curl-get")[..], hm),
        (include_bytes!("payload/curl-post"), hm),
        (include_bytes!("payload/curl-proxy-get"), hm),
        (include_bytes!("payload/curl-connect"), hm),
        (include_bytes!("payload/node-get"), Some("gator.volces.com")),
        (include_bytes!("payload/curl-h2"), None),
    ] {
        let want = name.map_or(NO_HTTP, named);
        assert_eq!(any_pieces(stream), want);
        for end in 0..stream.len() {
            let cut = whole(&stream[..end]);
            assert_eq!(cut, slow(&stream[..end]), "up to {end}");
            assert!(cut == Read::More || cut == want, "up to {end}: {cut:?}");
        }
    }
}

#[test]
fn the_host_of_the_target_goes_before_the_header() {
    target("GET /", named("beside.example"));
    target("GET //a.com/", named("beside.example"));
    target("GET /http://a.com/", named("beside.example"));
    target("OPTIONS *", named("beside.example"));
    target("GET http://HM.Baidu.com/hm.js", named("hm.baidu.com"));
    target("GET HTTP://a.com", named("a.com"));
    target("GET https://a.com.:8443/x", named("a.com"));
    target("GET http://a.com:", named("a.com"));
    target("GET http://a.com?b", named("a.com"));
    target("GET http://a.com#b/c d", named("a.com"));
    target("GET a+b://c.com/", named("c.com"));
    target("GET  http://a.com/ ", named("a.com"));
    target("get http://a.com/", named("a.com"));
    target("M-SEARCH http://a.com/", named("a.com"));
    target("GET http://[2001:db8::1]:80/", Read::NoName(HTTP));
    target("CONNECT a.com:443", named("a.com"));
    target("CONNECT 192.0.2.1:443", named("192.0.2.1"));
    target("CONNECT [::1]:443", Read::NoName(HTTP));
    for bad in [
        "GET a.com",
        "GET a.com:80",
        "GET http:/a.com/",
        "GET http:a.com",
        "GET http:///x",
        "GET http://user@a.com/",
        "GET http://a.com:80x/",
        "GET http://a..com/",
        "GET http://a,b/",
        "GET http://[::1/",
        "GET http://[::1]a/",
        "GET http://%61.com/",
        "GET [::1]:80",
        "GET ?x",
        "GET http\u{e9}://a.com/",
        "GET ://a.com",
        "CONNECT a.com",
        "CONNECT a.com:",
        "CONNECT /",
        "CONNECT http://a.com:80/",
        "CONNECT a+b:443",
        "CONNECT .:443",
        "CONNECT *",
    ] {
        target(bad, MALFORMED);
    }
}

/// Node.js and Python look at `Host` alone, proxies at the target.
#[test]
fn two_hosts_have_to_be_one() {
    for line in ["GET http://a.com/", "GET HTTPS://A.com.:80", "CONNECT a.com:443"] {
        for host in ["a.com", "A.COM", "a.com.", "a.com:8080", "a.com.:", "\ta.com "] {
            beside(line, host, named("a.com"));
        }
        beside(line, "", named("a.com"));
        check(&format!("{line} HTTP/1.1\n\n"), named("a.com"));
        for host in
            ["b.com", "a.co", "a.comm", "a.com..", "a.com.x", ".", ":80", "[::1]", "a.com b.com"]
        {
            beside(line, host, MALFORMED);
        }
        check(&format!("{line} HTTP/1.1\nHost: a.com\nHost: a.com\n\n"), MALFORMED);
    }
    for line in ["GET http://[::1]/", "CONNECT [::1]:443"] {
        beside(line, "[::1]:443", Read::NoName(HTTP));
        beside(line, "", Read::NoName(HTTP));
        for host in ["a.com", ".", ":80"] {
            beside(line, host, MALFORMED);
        }
    }
    beside("GET http://192.0.2.1/", "192.0.2.1", named("192.0.2.1"));
    beside("GET http://192.0.2.1/", "a.com", MALFORMED);
}

#[test]
fn what_is_no_request() {
    for line in [
        "GET",
        "GET ",
        "GET / xHTTP/1.1",
        "GET  HTTP/1.1",
        "GET / x",
        "GET, / HTTP/1.1",
        "G\u{b}/ HTTP/1.1",
        "\0",
        "{\"a\":1}",
        "PRI * HTTP/2.0",
        "EHLO mail.example",
        "MAIL FROM:<a@b.example>",
        "NICK bot",
        "USER bot 0 * :http://bot.example/",
        "RTSP rtsp://cam.example/ RTSP/1.0",
        "*1\n$4\nPING",
        "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3",
        "003egit-upload-pack /firewall.git\0host=git.example\0",
    ] {
        check(&format!("{line}\nHost: a.com\n\n"), NO_HTTP);
    }
    for start in [
        &b"\0\0\0\x08\x04\xd2\x16/"[..],
        b"\x10\x0c\0\x04MQTT\x04\x02",
        b"\x13BitTorrent protocol",
        b"AMQP\0\0\x09\x01",
        // A bind of LDAP.
        b"0\x0c\x02\x01\x01`\x07",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"*1\r\n",
    ] {
        assert_eq!(any_pieces(start), NO_HTTP);
        assert_eq!(slow(start), NO_HTTP);
    }
    assert_eq!(whole(b"GET / HTTP/1.1"), Read::More);
}

#[test]
fn requests_that_only_some_servers_take() {
    for line in [
        "GET / HTTP/1.01",
        "GET / HTTP/1.10",
        "GET / HTTP/1.x",
        "GET / HTTP/",
        "GET / HTTP/1.1 x",
        "GET / x HTTP/1.1 y",
        "GET / HTTP/2.0",
        "PRI / HTTP/2",
        "GET /\u{1} HTTP/1.1",
        "GET http://a.com/\u{1} HTTP/1.1",
        "GET http://a\0.com/ HTTP/1.1",
        "GET\u{b}/ HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\u{b}HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET \u{c}/ HTTP/1.1",
        "GET /\r HTTP/1.1",
        "GET /\rHTTP/1.1",
        "GET\r/ HTTP/1.1",
        "GET / HTTP/1.1\r ",
        " GET / HTTP/1.1",
        "\u{1c}GET / HTTP/1.1",
        // HTTP/0.9, behind which Node.js and Python read headers.
        "GET /",
        "POST /x ",
        "GET http://a.com/",
        "GET /\u{a0}HTTP/1.1",
    ] {
        check(&format!("{line}\nHost: a.com\n\n"), MALFORMED);
    }
    let nbsp = b"GET\xa0/ HTTP/1.1\n\n";
    assert_eq!(any_pieces(nbsp), MALFORMED);
    assert_eq!(slow(nbsp), MALFORMED);
    for line in [
        "GET / http/1.0",
        "PRI * HTTP/1.1",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1",
        "_ / HTTP/1.1",
        "-x / HTTP/1.1",
        "1 / HTTP/1.1",
        "GET / x HTTP/1.1 ",
        "GET /voil\u{e0} HTTP/1.1",
    ] {
        check(&format!("{line}\nHost: a.com\n\n"), named("a.com"));
    }
    // nginx goes past any number of empty lines.
    let after = |lines: usize| {
        let stream = "\n".repeat(lines) + "GET / HTTP/1.1\nHost: a.com\n\n";
        assert_eq!(slow(stream.as_bytes()), whole(stream.as_bytes()));
        whole(stream.as_bytes())
    };
    check("\n\nGET / HTTP/1.1\nHost: a.com\n\n", named("a.com"));
    assert_eq!(after(8), named("a.com"));
    assert_eq!(after(9), MALFORMED);
    assert_eq!(whole(&b"\n".repeat(9)), Read::More);
    let long = Read::NoName(flags::MALFORMED | flags::TOO_LONG);
    assert_eq!(whole(&b"\n".repeat(MAX_PAYLOAD as usize + 1)), long);
}

#[test]
fn the_host_header() {
    for (lines, name) in [
        ("Host: a.com", "a.com"),
        ("host:a.com", "a.com"),
        ("HOST: \t A.Com.:8080 \t", "a.com"),
        ("Accept: */*\nX-Host: b.com\nHost: a.com\nHosts: c.com", "a.com"),
        ("X: Host: b.com\nHost: a.com", "a.com"),
        ("Host: 192.0.2.1:80", "192.0.2.1"),
        ("Host: a_b.com:", "a_b.com"),
        ("X: 12345678901234567890\u{e9}\u{e9}\nHost: a.com\nX:", "a.com"),
        ("Xhost: b.com\nhost: a.com\nhostx: c.com\nhost\u{7e}: c.com", "a.com"),
    ] {
        headers(lines, named(name));
    }
    for lines in ["Host:", "Host: \t", "X: y", "Host: [::1]", "Host: [2001:db8::1%25eth0]:80 "] {
        headers(lines, Read::NoName(HTTP));
    }
    check("GET / HTTP/1.0\n\n", Read::NoName(HTTP));
    check("GET / HTTP/1.0\n\nHost: a.com\n\n", Read::NoName(HTTP));
    for lines in [
        "Host: a.com\nHost: a.com",
        "Host: a.com\nhOST: b.com",
        "Host:\nHost: a.com",
        "Host: [::1]\nHost: a.com",
        "Host: a.com\n b.com",
        "Host:\n a.com",
        " Host: a.com",
        "Host : a.com",
        "Host\n: a.com",
        ": a.com\nHost: a.com",
        "no colon\nHost: a.com",
        "Host: a.com, b.com",
        "Host: a.com b.com",
        "Host: a.com:80 x",
        "Host: a.com:80x",
        "Host: a@b.com",
        "Host: http://a.com",
        "Host: a..com",
        "Host: .",
        "Host: :80",
        "Host: [::1",
        "Host: [::1]x",
        "Host: [:: 1]",
        "Host: a[::1]",
        "Host: a.com\0",
        "X: y\n z\nHost: a.com",
        "X\u{e9}: y\nHost: a.com",
    ] {
        headers(lines, MALFORMED);
    }
    for (bytes, want) in [
        ("GET / HTTP/1.1\r\nX: a\rHost: b.com\r\nHost: a.com\r\n\r\n", MALFORMED),
        ("GET / HTTP/1.1\rHost: a.com\r\n\r\n", MALFORMED),
        ("GET / HTTP/1.1\r\nHost: a.com\r\n\rX: y\r\n\r\n", MALFORMED),
        ("GET / HTTP/1.1\r\nHost: a.com\n\r\n", named("a.com")),
        ("GET / HTTP/1.1\r\nHost: a.com\r\n\r", Read::More),
        ("GET http://a.com/ HTTP/1.1\r\n", Read::More),
    ] {
        assert_eq!(any_pieces(bytes.as_bytes()), want, "{bytes:?}");
        assert_eq!(slow(bytes.as_bytes()), want, "slow: {bytes:?}");
    }
}

#[test]
fn a_host_too_long_is_none_before_it_ends() {
    let name = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
    headers(&format!("Host: {name}"), named(&name));
    headers(&format!("Host: {name}."), named(&name));
    headers(&format!("Host: {name}d"), MALFORMED);
    target(&format!("CONNECT {name}:443"), named(&name));
    target(&format!("CONNECT {name}d:443"), MALFORMED);
    let host = |text: &str| any_pieces(format!("GET / HTTP/1.1\nHost: {text}").as_bytes());
    assert_eq!(host(&format!("{name}.")), Read::More);
    assert_eq!(host(&format!("{name}.d")), MALFORMED);
}

#[test]
fn no_more_than_sixteen_kilobytes_are_read() {
    let request = |len: usize, host: &str| {
        format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "y".repeat(len)).into_bytes()
    };
    // There could be a second host behind.
    let past = Read::NoName(HTTP | flags::MALFORMED | flags::TOO_LONG);
    for (host, within) in [("", Read::NoName(HTTP)), ("Host: a.com\r\n", named("a.com"))] {
        let fits = MAX_PAYLOAD as usize - request(0, host).len();
        for (len, want) in [(fits, within), (fits + 1, past.clone())] {
            let stream = request(len, host);
            assert_eq!(whole(&stream), want);
            assert_eq!(read(&stream, &[5000, 10000]).0, want);
            assert_eq!(slow(&stream), want);
        }
    }
    let target = [b"GET /", &b"y".repeat(MAX_PAYLOAD as usize)[..]].concat();
    assert_eq!(whole(&target), Read::NoName(flags::MALFORMED | flags::TOO_LONG));
}

/// As base64 is that was never broken into lines.
#[test]
fn a_word_that_long_is_no_method() {
    for leading in ["", "\n"] {
        let text = |letters: usize| [leading.as_bytes(), &b"QUJD".repeat(letters / 4)].concat();
        assert_eq!(whole(&text(MAX_PAYLOAD as usize - 4)), Read::More);
        let long = text(MAX_PAYLOAD as usize + 4);
        assert_eq!(whole(&long), Read::NoName(0));
        assert_eq!(read(&long, &[1, 9000]).0, Read::NoName(0));
        assert_eq!(slow(&long), Read::NoName(0));
    }
}

fn host() -> impl Strategy<Value = (String, Option<String>)> {
    let name = prop_oneof![
        4 => "[a-zA-Z0-9_-]{1,20}(\\.[a-zA-Z0-9_-]{1,20}){0,4}\\.?",
        1 => "\\[[0-9a-f:.]{2,30}\\]",
    ];
    (name, option::of("[0-9]{0,5}")).prop_map(|(text, port)| {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_suffix('.').unwrap_or(&lower).to_owned();
        let name = Some(name).filter(|_| !text.starts_with('['));
        (port.map_or(text.clone(), |port| format!("{text}:{port}")), name)
    })
}

fn request() -> impl Strategy<Value = (String, Option<String>)> {
    let line =
        ("[!#0-9A-Za-z_]{0,2}[A-Z-]{2,40}", "(/[!-~]{0,40}|\\*)", option::weighted(0.3, host()));
    let header = ("([A-GI-Za-gi-z][!#$a-z-]{0,12}|[Hh]o?)", "[ \t]?[ -~\u{80}-\u{ff}]{0,40}");
    let host = (host(), "[Hh][Oo][Ss][Tt]", "[ \t]{0,3}", "[ \t]{0,3}");
    let rest = (any::<Index>(), any::<bool>(), "[ -~\r\n]{0,40}", 0..4usize);
    (line, prop::collection::vec(header, 0..6), option::weighted(0.8, host), rest).prop_map(
        |((method, path, absolute), headers, host, (place, cr, body, leading))| {
            let end = if cr { "\r\n" } else { "\n" };
            let mut lines: Vec<String> =
                headers.into_iter().map(|(name, value)| format!("{name}:{value}{end}")).collect();
            let mut name = None;
            // Beside a target with a host the header says the same.
            let host = host.map(|(text, header, left, right)| {
                (absolute.clone().unwrap_or(text), header, left, right)
            });
            if let Some(((text, found), header, left, right)) = host {
                let line = format!("{header}:{left}{text}{right}{end}");
                lines.insert(place.index(lines.len() + 1), line);
                name = found;
            }
            let mut target = path;
            if let Some((text, found)) = absolute {
                target = format!("http://{text}{}", target.replace('*', "?"));
                name = found;
            }
            let leading = end.repeat(leading);
            let all = lines.concat();
            (format!("{leading}{method} {target} HTTP/1.1{end}{all}{end}{body}"), name)
        },
    )
}

/// What requests are made of, and what they should not be made of.
const PARTS: &[&str] = &[
    "GET",
    "CONNECT",
    "PRI",
    "get",
    " ",
    " ",
    "\t",
    "/",
    "*",
    "http",
    "://",
    ":",
    ":80",
    "//",
    "?",
    "#",
    "@",
    "a.com",
    "b",
    ".",
    "..",
    "[::1]",
    "[",
    "]",
    "HTTP/1.1",
    "HTTP/1.",
    " HTTP/1.1\r\n",
    " HTTP/1.1\n",
    "\r\n",
    "\r\n",
    "\n",
    "\r",
    "Host",
    "Host: ",
    "\r\nHost: a.com",
    "\nhost:b.com",
    "X: y",
    "X-Host: z",
    "\0",
    "\u{1}",
    "\u{b}",
    "\u{a0}",
    "\u{e9}",
    "HTTP/2.0",
    "HTTP/1.01",
    "0123456789",
    "+",
    "-",
];

/// More and more of a request that is right.
const STARTS: &[&str] = &[
    "",
    "GET ",
    "CONNECT ",
    "GET http://",
    "GET / HTTP/1.1\r\n",
    "GET / HTTP/1.1\nHost: ",
    "GET http://a.com/ HTTP/1.1\nHost: ",
    "CONNECT [::1]:443 HTTP/1.1\nHost: ",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_request_is_read_as_it_was_built((text, name) in request(), cuts in cuts()) {
        let want = name.as_deref().map_or(Read::NoName(HTTP), named);
        let stream = text.as_bytes();
        prop_assert_eq!(slow(stream), want.clone(), "slow: {:?}", text);
        prop_assert_eq!(whole(stream), want.clone(), "{:?}", text);
        prop_assert_eq!(read(stream, &places(&cuts, stream.len())).0, want);
    }

    #[test]
    fn a_bent_request_is_read_as_the_slow_parser_reads_it(
        (text, _) in request(),
        bends in prop::collection::vec((any::<Index>(), select(PARTS)), 1..4),
        cuts in cuts(),
        end in option::of(any::<Index>()),
    ) {
        let mut stream = text.into_bytes();
        for (at, part) in bends {
            let at = at.index(stream.len());
            stream.splice(at..at + 1, part.bytes());
        }
        if let Some(end) = end {
            stream.truncate(end.index(stream.len() + 1));
        }
        agree(&stream, &[]);
        agree(&stream, &places(&cuts, stream.len()));
    }

    #[test]
    fn any_parts_are_read_as_the_slow_parser_reads_them(
        start in select(STARTS),
        parts in prop::collection::vec(select(PARTS), 0..24),
        cuts in cuts(),
    ) {
        let stream = [start, &parts.concat()].concat().into_bytes();
        agree(&stream, &[]);
        agree(&stream, &places(&cuts, stream.len()));
    }

    #[test]
    fn any_bytes_are_read_as_the_slow_parser_reads_them(
        start in select(STARTS),
        bytes in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let stream = [start.as_bytes(), &bytes].concat();
        agree(&stream, &[]);
    }
}
