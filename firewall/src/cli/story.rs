//! The whole story of one verdict, for people.

use std::fmt::Write as _;

use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

use crate::policy::diagnostic::printable;

/// What a record says, line by line.
pub fn of(event: &str, zone: &TimeZone) -> String {
    // What is no JSON any more is shown as it stands there.
    let Ok(event) = serde_json::from_str::<Value>(event) else { return printable(event) + "\n" };
    let mut story = Story(String::new());
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let time = local(&event["time"], "%Y-%m-%d %H:%M:%S%.6f %:z", zone);
    story.line("event", &format!("{}, at {time}", event["seq"]));
    story.line("verdict", &verdict(&event));
    story.line("decided by", &decided(&event));
    for (number, evidence) in list(&event["evidence"]).iter().enumerate() {
        story.line(if number == 0 { "evidence" } else { "" }, evidence);
    }
    for (number, data) in data(&event["data"], zone).iter().enumerate() {
        story.line(if number == 0 { "data" } else { "" }, data);
    }
    story.app(&event["app"]);
    story.line("destination", &destination(&event));
    if let Some(name) = text(&event["host"]["name"]) {
        story.line("name", &format!("{name}{}", learned(&event["host"])));
        let chain = list(&event["host"]["chain"]);
        if !chain.is_empty() {
            story.line("", &format!("an alias of {}", chain.join(", of ")));
        }
    }
    let geo = &event["geo"];
    let owner = [
        text(&geo["country"]).map(|country| format!("country {country}")),
        geo["asn"].as_u64().map(|asn| format!("AS{asn}")),
        text(&geo["as_name"]),
        text(&geo["organisation"]).map(|name| format!("organisation {name}")),
    ];
    let owner: Vec<String> = owner.into_iter().flatten().collect();
    if !owner.is_empty() {
        story.line("owner", &owner.join(", "));
    }
    let [out, back] = ["bytes_out", "bytes_in"].map(|key| event[key].as_u64().unwrap_or_default());
    story.line("bytes", &format!("{out} sent, {back} received"));
    match event["count"].as_u64() {
        Some(count) if count > 1 => story.line("repeated", &format!("{count} times in a second")),
        _ => {}
    }
    story.0
}

struct Story(String);

impl Story {
    fn line(&mut self, what: &str, text: &str) {
        // Into a text nothing fails.
        let _ = writeln!(self.0, "{what:<12} {}", printable(text));
    }

    fn app(&mut self, app: &Value) {
        let text = |key: &str| app[key].as_str().map(str::to_owned);
        let mut who = text("name").unwrap_or_default();
        if let Some(pid) = app["pid"].as_u64() {
            who += &format!(", process {pid}");
        }
        let user = text("user").or_else(|| app["uid"].as_u64().map(|uid| uid.to_string()));
        who += &user.map(|user| format!(", of user {user}")).unwrap_or_default();
        self.line("app", &who);
        let parents = list(&app["parents"]);
        if !parents.is_empty() {
            self.line("", &format!("started by {}", parents.join(", by ")));
        }
        for key in ["exe", "script", "unit", "cgroup", "flatpak", "snap"] {
            if let Some(value) = text(key) {
                self.line("", &format!("{key} {value}"));
            }
        }
        if let Some(name) = app["package"]["name"].as_str() {
            let version = app["package"]["version"].as_str().unwrap_or_default();
            self.line("", &format!("package {name} {version}"));
        }
        let container = &app["container"];
        if let Some(name) = container["name"].as_str().or_else(|| container["id"].as_str()) {
            self.line("", &format!("container {name}"));
        }
    }
}

fn list(value: &Value) -> Vec<String> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(|one| one.as_str().map(str::to_owned)).collect()
}

/// A time where the reader is; as it stands there where it is none.
fn local(time: &Value, format: &str, zone: &TimeZone) -> String {
    let time = time.as_str().unwrap_or_default();
    let local = time.parse::<Timestamp>().map(|time| time.to_zoned(zone.clone()));
    local.map_or_else(|_| time.to_owned(), |time| time.strftime(format).to_string())
}

/// What the evidence rests on.
fn data(data: &Value, zone: &TimeZone) -> Vec<String> {
    let table = |(key, what): (&str, &str)| {
        let [name, version, date] =
            ["name", "version", "date"].map(|part| data[key][part].as_str());
        Some(format!("{what} by {} {}, of {}", name?, version?, date?))
    };
    let tables = [("country", "countries"), ("asn", "AS numbers")].into_iter().filter_map(table);
    let lists = data["lists"].as_object().into_iter().flatten();
    let lists = lists.map(|(name, copy)| {
        format!("list {name}, fetched {}", local(&copy["fetched"], "%Y-%m-%d %H:%M:%S %:z", zone))
    });
    tables.chain(lists).collect()
}

fn verdict(event: &Value) -> String {
    let what = match (event["verdict"].as_str(), event["action"].as_str()) {
        (Some("deny"), _) => "deny: it was stopped",
        (Some("audit"), Some("drop")) => {
            "audit: it passed, and would have been stopped if the policy were enforced"
        }
        (Some("audit"), _) => "audit: it passed, and was recorded",
        (Some("allow"), _) => "allow: it passed",
        (other, _) => other.unwrap_or("unknown"),
    };
    let hook = match event["hook"].as_str().unwrap_or_default() {
        "connect" => "when it was to be connected",
        "sendmsg" => "when it was to be sent",
        "dns" => "as a question for a name",
        "tls" => "by the name in its TLS hello",
        "quic" => "by the name in its QUIC hello",
        "http" => "by the name in its HTTP request",
        "packet" => "as a packet on its way out",
        "close" => "told when it ended",
        other => other,
    };
    format!("{what} ({hook})")
}

fn decided(event: &Value) -> String {
    let text = |key: &str| event[key].as_str();
    let by = match (text("policy"), text("rule")) {
        (Some(policy), Some(rule)) => format!("rule {rule} of policy {policy}"),
        (Some(policy), None) => format!("the default of policy {policy}"),
        _ => format!("no rule: {}", text("reason").unwrap_or("unknown")),
    };
    match text("mode") {
        Some("observe") => by + ", which observes",
        _ => by,
    }
}

fn destination(event: &Value) -> String {
    let dst = &event["dst"];
    let ip = dst["ip"].as_str().unwrap_or("unknown");
    let proto = event["proto"].as_str().unwrap_or_default();
    match dst["port"].as_u64() {
        Some(port) if ip.contains(':') => format!("[{ip}]:{port}/{proto}"),
        Some(port) => format!("{ip}:{port}/{proto}"),
        None => format!("{ip}/{proto}"),
    }
}

/// How a name was learned, and how sure it is.
fn learned(host: &Value) -> String {
    let via = match host["via"].as_str() {
        Some("dns") => ", from an answer that the app got",
        Some("resolver") => ", from an answer that a resolver of this machine got",
        Some("ahead") => ", looked up ahead by the firewall",
        Some("tls") => ", from the TLS hello",
        Some("quic") => ", from the QUIC hello",
        Some("http") => ", from the HTTP request",
        _ => "",
    };
    let sure = match host["confidence"].as_str() {
        Some("confirmed") => " (confirmed by the payload)",
        Some("unique") => " (the only name known for the address)",
        Some("ambiguous") => " (one of several names known for the address)",
        _ => "",
    };
    format!("{via}{sure}")
}
