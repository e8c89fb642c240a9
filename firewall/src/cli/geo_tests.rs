//! What `firewall geo lookup` prints.

use super::*;

fn tables(intel: &Intel) -> Tables<'_> {
    Tables {
        geo: intel.geo().unwrap(),
        asn: intel.asn().unwrap(),
        organisations: intel.organisations().unwrap(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_table_for_people() {
    let intel = Intel::default();
    let tables = tables(&intel);
    let asked =
        ["110.242.68.66", "103.235.46.191", "2001:200::1", "::ffff:1.94.179.165", "10.0.0.1"];
    let answers = asked.map(|text| tables.answer(ip(text)));
    insta::assert_snapshot!(human(&answers, &tables), @r"
    IP                                  COUNTRY       NETWORK          AS       AS NETWORK       ORGANISATION  AS NAME
    110.242.68.66                       CN China      110.240.0.0/12   AS4837   110.240.0.0/12   -             CHINA UNICOM China169 Backbone
    103.235.46.191                      HK Hong Kong  103.235.44.0/22  AS55967  103.235.44.0/22  baidu         Beijing Baidu Netcom Science and Technology Co., Ltd.
    2001:200::1                         JP Japan      2001:200::/32    AS2500   2001:200::/40    -             WIDE Project
    ::ffff:1.94.179.165 (1.94.179.165)  CN China      1.80.0.0/12      AS55990  1.94.0.0/15      huawei-cloud  Huawei Cloud Service data center
    10.0.0.1                            -             -                -        -                -             -

    country: iptocc 1.4.175, of 2026-11-01 (MIT OR Apache-2.0; delegated statistics of AFRINIC, APNIC, ARIN, LACNIC and the RIPE NCC (NRO))
    AS: @ip-location-db/asn 2.3.2026061719, of 2026-06-17 (CC-BY-4.0; RouteViews (routeviews.org), DB-IP (db-ip.com), NRO (nro.net))
    The country is the one an address is registered in.
    ");
}

#[test]
fn json_leaves_out_what_is_not_known() {
    let intel = Intel::default();
    let tables = tables(&intel);
    let json = |text| serde_json::to_string(&tables.answer(ip(text))).unwrap();
    let lines = ["64:ff9b::67eb:2ebf", "110.242.68.66", "10.0.0.1"].map(json).join("\n");
    insta::assert_snapshot!(lines, @r#"
    {"ip":"64:ff9b::67eb:2ebf","unwrapped":"103.235.46.191","country":"HK","network":"103.235.44.0/22","asn":55967,"as_name":"Beijing Baidu Netcom Science and Technology Co., Ltd.","organisation":"baidu","as_network":"103.235.44.0/22","source":{"country":{"name":"iptocc","version":"1.4.175","date":"2026-11-01"},"asn":{"name":"@ip-location-db/asn","version":"2.3.2026061719","date":"2026-06-17"}}}
    {"ip":"110.242.68.66","country":"CN","network":"110.240.0.0/12","asn":4837,"as_name":"CHINA UNICOM China169 Backbone","as_network":"110.240.0.0/12","source":{"country":{"name":"iptocc","version":"1.4.175","date":"2026-11-01"},"asn":{"name":"@ip-location-db/asn","version":"2.3.2026061719","date":"2026-06-17"}}}
    {"ip":"10.0.0.1","source":{"country":{"name":"iptocc","version":"1.4.175","date":"2026-11-01"},"asn":{"name":"@ip-location-db/asn","version":"2.3.2026061719","date":"2026-06-17"}}}
    "#);
}

#[test]
fn all_that_is_no_address_is_named() {
    let texts = ["1.2.3.4", "1.2.3", "chat.deepseek.com", "[::1]:443", "10.0.0.0/8"];
    let message = parse(&texts.map(str::to_owned)).unwrap_err();
    insta::assert_snapshot!(message, @r"
    error: `1.2.3` is not an IP address
    error: `chat.deepseek.com` is not an IP address
    error: `[::1]:443` is not an IP address
    error: `10.0.0.0/8` is not an IP address

    hint: write addresses like 110.242.68.66 or 2400:3200::1, with no port, prefix length, brackets or zone
    hint: `getent ahosts NAME` tells the addresses of a name, `firewall explain NAME` what happens to the question for it
    ");
}

#[test]
fn carriers_of_ipv4_addresses() {
    let inside = |text: &str| unwrap(text.parse().unwrap()).map(|ip| ip.to_string());
    for carrier in [
        "::ffff:103.235.46.191",
        "64:ff9b::103.235.46.191",
        "2002:67eb:2ebf::1",
        "2001:0:4136:e378:8000:63bf:9814:d140",
    ] {
        assert_eq!(inside(carrier).as_deref(), Some("103.235.46.191"), "{carrier}");
    }
    for other in ["::1", "::", "64:ff9b:1::1", "2001:200::1", "2400:3200::1", "::103.235.46.191"] {
        assert_eq!(inside(other), None, "{other}");
    }
}

#[test]
fn arguments() {
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }
    let exit = |arguments: &[&str]| {
        let cli = Cli::try_parse_from([&["geo"], arguments].concat())?;
        Ok::<_, clap::Error>(run(cli.args).map(|code| format!("{code:?}")))
    };
    let code = |code: u8| format!("{:?}", ExitCode::from(code));
    assert_eq!(exit(&["lookup", "127.0.0.1", "--json"]).unwrap().unwrap(), code(0));
    assert_eq!(exit(&["lookup", "127.0.0.1", "localhost"]).unwrap().unwrap(), code(2));
    assert!(exit(&["lookup"]).is_err());
    assert!(exit(&["lookup", "::1", "--geo", "/nonexistent.mmdb"]).unwrap().is_err());
}
