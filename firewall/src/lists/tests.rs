use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Everything that came of a list, to be read beside it.
fn shown(format: Option<Format>, text: &str) -> String {
    let parsed = match parse(format, text) {
        Ok(parsed) => parsed,
        Err(error) => return error.to_string(),
    };
    let mut out = String::new();
    for (mark, set) in [("", &parsed.domains), ("except ", &parsed.exceptions)] {
        for (name, scope) in set.iter() {
            writeln!(out, "{mark}{}{name}", scope.mark()).unwrap();
        }
    }
    for network in &parsed.networks {
        writeln!(out, "{network}").unwrap();
    }
    let Report { format, lines, comments, entries, duplicates, skipped } = parsed.report;
    let format = format.map(Format::word).unwrap_or_default();
    writeln!(
        out,
        "{format}: {lines} lines, {comments} comments, {entries} entries, {duplicates} twice"
    )
    .unwrap();
    for Skipped { reason, count, examples } in skipped {
        writeln!(out, "{count} {}", reason.word()).unwrap();
        for Example { line, text } in examples {
            writeln!(out, "  {line}: {text}").unwrap();
        }
    }
    out
}

macro_rules! samples {
    ($($name:ident $format:ident $text:expr;)*) => {$(
        #[test]
        fn $name() {
            let text = $text;
            insta::assert_snapshot!(shown(Some(Format::$format), text));
            assert_eq!(detect(text), Some(Format::$format));
        }
    )*};
}

samples! {
    hosts Hosts "\u{feff}# Title: hosts\n127.0.0.1 localhost\n::1 ip6-localhost # local\nfe80::1%lo0 localhost\n0.0.0.0 0.0.0.0\n\n0.0.0.0 ads.roku.com\n0.0.0.0\tADS.roku.com.  second.example # two\n127.0.0.1 a#b\n:: v6.example\n0.0.0.0 *.star.example\n192.168.1.5 nas.example\nplain.example\n0.0.0.0\n0.0.0.0 bücher.example\n";
    domains Domains "# comment\nads.roku.com\nADS.ROKU.COM. # again\n\n bad name here\n=x.example\n1.2.3.4\n2001:db8::1\n_dmarc.example\n";
    wildcard Wildcard "*.ads.roku.com\nfoo.com. #Inline\n*.foo.com\nads*.x.com\n*.*.x\n*.ads.roku.com.\n";
    adblock Adblock "[Adblock Plus 2.0]\n! Title: x\n||hm.baidu.com^$third-party\n||hm.baidu.com^\n||*.below.example^\n||ads.example^$script\n||only.example^$domain=a.example\n@@||good.hm.baidu.com^\n@@||x.example^$document\n||example.org^$important\n@@||a.example.org^\nexample.com##.ad\n#@#.ad\n/banner[0-9]+/\n/ads/banner.\n||ads.example/path\n||ads.\n||ads*.example^\n||no-end.example\n||1.2.3.4^\n||port.example:8080^\n|https://x.example|\n-banner-\n||gone.example^\n||gone.example^$badfilter\n0.0.0.0 hosts.example\n# comment\n@@\n";
    dnsmasq Dnsmasq "# x\nlocal=/ads.roku.com/\naddress=/a.example/0.0.0.0\naddress=/b.example/c.example/#\naddress=/d.example/::\nserver=/e.example/\nserver=/good.ads.roku.com/#\nserver=/example.com/#\nlocal=/x.example.com/\nserver=/f.example/192.0.2.1\naddress=/g.example/192.0.2.1\nlocal=/#/\naddress=/*ads.example/\nlocal=/*.h.example/\nlocal=/.i.example/\ncache-size=10000\nno-resolv\nlocal=//\n";
    unbound Unbound "server:\n# x\nlocal-zone: \"ads.roku.com.\" always_null\n  local-zone: \"b.example\" always_nxdomain # c\nlocal-zone: c.example static\nlocal-zone: \"d.example\" redirect\nlocal-data: \"d.example A 0.0.0.0\"\nlocal-data: 'e.example. 60 IN AAAA ::'\nlocal-data: \"f.example A 192.0.2.1\"\nlocal-data: \"g.example TXT x\"\nlocal-zone: \"good.ads.roku.com\" always_transparent\nlocal-zone: \"10.in-addr.arpa.\" nodefault\nlocal-zone: \"x.example\" nonsense\nlocal-zone: \"y.example\"\ncache-max-ttl: 3600\nlocal-data: \"\"\nword\n";
    rpz Rpz "$TTL 300\n$ORIGIN rpz.example.\n@ SOA localhost. root.localhost. (\n  1 ; serial\n  2 3 4 5 )\n  NS localhost.\n; comment\nads.roku.com CNAME .\n*.ads.roku.com CNAME .\nb.example 60 IN CNAME *.\nc.example.rpz.example. CNAME rpz-drop.\ngood.ads.roku.com CNAME rpz-passthru.\nd.example CNAME walled.garden.\ne.example A 0.0.0.0\n    AAAA 2001:db8::1\nf.example A 192.0.2.1\ng.example TXT \"x\"\n32.1.2.0.192.rpz-ip CNAME .\n24.0.2.0.192.rpz-ip CNAME .\n48.zz.2.db8.2001.rpz-ip CNAME .\n24.1.2.0.192.rpz-ip CNAME .\n32.1.2.0.192.rpz-client-ip CNAME .\noutside.example. CNAME .\nh.example\n*.i.*.example CNAME .\nj.example CNAME\n";
    netset Netset "# ipv4 hash:net ipset\n# Entries : 3 subnets\n1.10.16.0/20\n1.10.16.0/20\n192.0.2.7\n192.0.2.0-192.0.2.127\n198.51.100.1 - 198.51.100.2\n1.10.16.1/20\n1.2.3.0/24 ; SBL1\n2001:db8::/32\n::ffff:203.0.113.0/120\nexample.com\n1.2.3.4.5\n9.9.9.9-1.1.1.1\n";
    geosite Geosite "# x\ninclude:other\ndomain:roku.com @ads\nplain.example\nfull:ads.roku.com @ads @!cn &aff # c\nkeyword:track\nregexp:^ads[0-9]+\\.\nbad name\nother:x.example\nfull:\n";
    lsrules Lsrules "{\n \"name\": \"x\",\n \"denied-remote-domains\": [\"roku.com\", \"a b\", 7],\n \"denied-remote-hosts\": [\"ads.roku.com\", \"192.0.2.1\"],\n \"denied-remote-addresses\": [\"192.0.2.0/24\", \"198.51.100.0-198.51.100.3\"],\n \"denied-remote-notes\": \"n\",\n \"new-key\": 1,\n \"rules\": [\n  {\"action\":\"deny\",\"process\":\"any\",\"remote-domains\":\"b.example\"},\n  {\"action\":\"deny\",\"remote-hosts\":[\"c.example\",\"d.example\"],\"direction\":\"outgoing\",\"ports\":\"any\"},\n  {\"action\":\"deny\",\"remote-addresses\":\"203.0.113.1, 203.0.113.9\"},\n  {\"action\":\"allow\",\"remote-domains\":\"e.example\"},\n  {\"action\":\"deny\",\"process\":\"/usr/bin/curl\",\"remote-domains\":\"f.example\"},\n  {\"action\":\"deny\",\"ports\":\"443\",\"remote-domains\":\"g.example\"},\n  {\"action\":\"deny\",\"remote\":\"any\"},\n  {\"action\":\"deny\",\"remote-domains\":\"h.example\",\"disabled\":true},\n  {\"action\":5}\n ]\n}\n";
}

#[test]
fn what_tells_no_format_is_no_list() {
    assert_eq!(detect("# x\n\n"), Some(Format::Domains));
    assert_eq!(detect("\u{0}\u{1}"), None);
    assert_eq!(parse(None, "two words\n"), Err(Error::Undetected));
    let error = parse(None, "{\n\"rules\": [1,\n}\n").unwrap_err().to_string();
    assert_eq!(error, "line 3: expected value");
    let error = parse(None, "{\n\"denied-remote-hosts\":\n 1}\n").unwrap_err().to_string();
    assert_eq!(error, "line 3: invalid type: integer `1`, expected a sequence");
}

#[test]
fn the_format_is_that_of_most_lines() {
    let cases = [
        ("a.example\n*.b.example\nc.example\n", Format::Wildcard),
        ("a.example\nfull:b.example\nc.example\n", Format::Geosite),
        ("a.example\n0.0.0.0 b.example\n0.0.0.0 c.example\n", Format::Hosts),
        ("1.2.3.4\na.example\n1.2.3.5\n", Format::Netset),
        ("||a.example^\n/x/\n", Format::Adblock),
        ("example.com##.ad\n", Format::Adblock),
    ];
    for (text, format) in cases {
        assert_eq!(detect(text), Some(format), "{text}");
    }
}

/// What a line of a generated list should come to.
#[derive(Clone, Debug)]
enum Item {
    Domain(String),
    Except(String),
    Network(&'static str),
    Skip(Reason),
    Comment,
}

type Line = (String, Vec<Item>);

fn name() -> impl Strategy<Value = String> {
    let label = select(&["a", "b", "ads", "x-1", "_t", "com", "a-very-long-label-indeed"][..]);
    prop::collection::vec(label, 1..4).prop_map(|labels| format!("{}.example", labels.join(".")))
}

/// The name as somebody may have written it.
fn written(name: &str, style: u8) -> String {
    match style % 4 {
        0 => name.to_uppercase(),
        1 => format!("{name}."),
        _ => name.to_owned(),
    }
}

fn line(format: Format) -> impl Strategy<Value = Line> {
    let tail = select(&["", "  ", "\t"][..]);
    (name(), name(), any::<u8>(), 0..8_u8, tail).prop_map(move |(a, b, style, kind, tail)| {
        let w = written(&a, style);
        let tree = || vec![Item::Domain(a.clone())];
        let exact = || vec![Item::Domain(format!("={a}"))];
        let (text, items) = match (format, kind) {
            (Format::Hosts, 0) => (format!("0.0.0.0 {w} {b}"), {
                vec![Item::Domain(format!("={a}")), Item::Domain(format!("={b}"))]
            }),
            (Format::Hosts, 1) => (format!("10.0.0.1 {w}"), vec![Item::Skip(Reason::Redirect)]),
            (Format::Hosts, 2) => ("::1 localhost".into(), vec![Item::Skip(Reason::LocalName)]),
            (Format::Hosts, _) => (format!("  127.0.0.1\t{w} # {b}"), exact()),
            (Format::Domains, 0) => ("192.0.2.1".into(), vec![Item::Network("192.0.2.1/32")]),
            (Format::Domains, _) => (format!(" {w} # {b}"), tree()),
            (Format::Wildcard, 0..4) => (format!("*.{w}"), tree()),
            (Format::Wildcard, _) => (w, exact()),
            (Format::Adblock, 0) => (format!("@@||{b}^"), vec![Item::Except(b)]),
            (Format::Adblock, 1) => (format!("{b}##.{a}"), vec![Item::Skip(Reason::Cosmetic)]),
            (Format::Adblock, 2) => (format!("||{w}^$script"), vec![Item::Skip(Reason::Modifier)]),
            (Format::Adblock, 3) => (format!("||*.{w}^"), vec![Item::Domain(format!("*.{a}"))]),
            (Format::Adblock, 4) => (format!("||{w}/{b}"), vec![Item::Skip(Reason::Path)]),
            (Format::Adblock, _) => (format!("||{w}^$third-party"), tree()),
            (Format::Dnsmasq, 0) => {
                (format!("server=/{w}/192.0.2.1"), { vec![Item::Skip(Reason::Redirect)] })
            }
            (Format::Dnsmasq, 1) => {
                (format!("address=/{w}/{b}/::"), { vec![Item::Domain(a.clone()), Item::Domain(b)] })
            }
            (Format::Dnsmasq, _) => (format!("local=/{w}/"), tree()),
            (Format::Unbound, 0) => (format!("local-data: \"{w} IN A 0.0.0.0\""), exact()),
            (Format::Unbound, 1) => ("verbosity: 1".into(), vec![Item::Skip(Reason::Setting)]),
            (Format::Unbound, _) => (format!("local-zone: \"{w}\" always_null"), tree()),
            (Format::Rpz, 0) => (format!("*.{w} 60 IN CNAME ."), {
                // A final dot would make the name absolute, and nothing tells the zone.
                match w.ends_with('.') {
                    true => vec![Item::Skip(Reason::Malformed)],
                    false => vec![Item::Domain(format!("*.{a}"))],
                }
            }),
            (Format::Rpz, 1) => {
                ("24.0.2.0.192.rpz-ip CNAME .".into(), { vec![Item::Network("192.0.2.0/24")] })
            }
            (Format::Rpz, _) => (format!("{a} cname rpz-drop."), exact()),
            (Format::Geosite, 0) => (format!("full:{w} @{b}"), exact()),
            (Format::Geosite, 1) => (format!("keyword:{w}"), vec![Item::Skip(Reason::Pattern)]),
            (Format::Geosite, _) => (format!("domain:{w}"), tree()),
            (_, 0) => ("192.0.2.1/24".into(), vec![Item::Skip(Reason::BitsBehindPrefix)]),
            (_, 1) => ("2001:db8::/32".into(), vec![Item::Network("2001:db8::/32")]),
            (_, 2) => ("not a network".into(), vec![Item::Skip(Reason::Malformed)]),
            (_, _) => ("192.0.2.128-192.0.2.255".into(), vec![Item::Network("192.0.2.128/25")]),
        };
        (format!("{text}{tail}"), items)
    })
}

fn list() -> impl Strategy<Value = (Format, Vec<Line>)> {
    let formats: Vec<Format> =
        Format::ALL.into_iter().filter(|format| *format != Format::Lsrules).collect();
    select(formats).prop_flat_map(|format| {
        let comment = match format {
            Format::Adblock => "! x",
            Format::Rpz => "; x",
            _ => "# x",
        };
        let quiet = select(&["", "  ", "c"][..]).prop_map(move |text| match text {
            "c" => (comment.to_owned(), vec![Item::Comment]),
            blank => (blank.to_owned(), vec![]),
        });
        let lines = prop::collection::vec(prop_oneof![5 => line(format), 1 => quiet], 0..30);
        (Just(format), lines)
    })
}

proptest! {
    #[test]
    fn each_line_comes_to_what_it_says((format, lines) in list(), crlf in any::<bool>()) {
        let end = if crlf { "\r\n" } else { "\n" };
        let text: String = lines.iter().map(|(line, _)| format!("{line}{end}")).collect();
        let items: Vec<&Item> = lines.iter().flat_map(|(_, items)| items).collect();
        let set = |wanted: fn(&Item) -> Option<&str>| -> BTreeSet<String> {
            items.iter().filter_map(|item| wanted(item)).map(str::to_owned).collect()
        };
        let entries = set(|item| match item { Item::Domain(text) => Some(text), _ => None });
        let exceptions = set(|item| match item { Item::Except(text) => Some(text), _ => None });
        let networks = set(|item| match item { Item::Network(text) => Some(text), _ => None });
        let comments = items.iter().filter(|item| matches!(item, Item::Comment)).count();
        let mut skipped: Vec<Reason> = items
            .iter()
            .filter_map(|item| match item { Item::Skip(reason) => Some(*reason), _ => None })
            .collect();
        skipped.sort();

        let parsed = parse(Some(format), &text).unwrap();
        let of = |set: &DomainSet| -> BTreeSet<String> {
            set.iter().map(|(name, scope)| format!("{}{name}", scope.mark())).collect()
        };
        prop_assert_eq!(of(&parsed.domains), entries.clone());
        prop_assert_eq!(of(&parsed.exceptions), exceptions.clone());
        let found: BTreeSet<String> = parsed.networks.iter().map(ToString::to_string).collect();
        prop_assert_eq!(found, networks.clone());
        let report = parsed.report;
        prop_assert_eq!(report.comments, comments);
        prop_assert_eq!(report.entries, entries.len() + exceptions.len() + networks.len());
        prop_assert_eq!(report.entries + report.duplicates + skipped.len() + comments, items.len());
        let mut reasons: Vec<Reason> = report
            .skipped
            .iter()
            .flat_map(|skipped| std::iter::repeat_n(skipped.reason, skipped.count))
            .collect();
        reasons.sort();
        prop_assert_eq!(reasons, skipped);
    }
}
