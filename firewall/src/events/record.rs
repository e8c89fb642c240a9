//! Reading verdict events back: what of a line the commands need that look at the past.
//!
//! Keys that are not known are passed over, so that lines of later versions with the same schema can
//! be read.

use std::{
    io::{self, BufRead, Read as _},
    net::IpAddr,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{App, Endpoint, SCHEMA, View};

/// Bytes of a line. Those that events have are shorter.
const MAX_LINE: u64 = 1 << 20;

/// A line that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A verdict.
    Verdict(Box<Record>),
    /// Events that the kernel had no room for.
    Lost(u64),
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Record {
    /// Its number; 0 of one without.
    #[serde(default)]
    pub seq: u64,
    /// When.
    pub time: Timestamp,
    /// What happened.
    pub verdict: Verdict,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// The policy that decided.
    #[serde(default)]
    pub policy: Option<String>,
    /// The rule.
    #[serde(default)]
    pub rule: Option<String>,
    /// Where it was decided.
    #[serde(default)]
    pub hook: String,
    /// Who.
    pub app: App,
    /// The protocol.
    #[serde(default)]
    pub proto: String,
    /// Where from.
    #[serde(default)]
    pub src: Option<Endpoint>,
    /// Where to; of a question, who is asked.
    pub dst: To,
    /// The name of the destination, or the one that is asked for.
    #[serde(default)]
    pub host: Option<Host>,
    /// What is known of the destination.
    #[serde(default)]
    pub geo: Geo,
    /// How often; 0 where only bytes are told.
    pub count: u64,
    /// Transport payload sent so far, in bytes.
    #[serde(default)]
    pub bytes_out: u64,
    /// Transport payload received so far, in bytes.
    #[serde(default)]
    pub bytes_in: u64,
}

/// The word for what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It passed.
    Allow,
    /// It was recorded, and passed.
    Audit,
    /// It was stopped.
    Deny,
}

impl Verdict {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Audit => "audit",
            Self::Deny => "deny",
        }
    }
}

/// Of the destination.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct To {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    #[serde(default)]
    pub port: Option<u16>,
}

/// Of the name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Host {
    /// The name itself.
    pub name: String,
    /// The TLS ClientHello has an encrypted one inside.
    #[serde(default)]
    pub encrypted_hello: bool,
    /// What it is an alias of.
    #[serde(default)]
    pub chain: Vec<String>,
}

/// Of what is known of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geo {
    /// ISO 3166-1 alpha-2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Origin AS; what is known of apps does not tell it.
    #[serde(default, skip_serializing)]
    pub asn: Option<u32>,
    /// Owner by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    /// Name of the AS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_name: Option<String>,
}

/// Why a line was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It is of another kind or version.
    #[error("{0}")]
    Unknown(String),
    /// It is damaged or no event.
    #[error("{0}")]
    Broken(String),
}

/// What tells kinds of lines apart.
#[derive(Deserialize)]
struct Head {
    schema: u32,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    count: Option<u64>,
}

impl<'a> From<&'a Record> for View<'a> {
    fn from(record: &'a Record) -> Self {
        let Record {
            time, verdict, reason, policy, rule, hook, app, proto, dst, host, geo, ..
        } = record;
        Self {
            time: Some(*time),
            verdict: verdict.word(),
            reason,
            policy: policy.as_deref(),
            rule: rule.as_deref(),
            hook,
            app,
            proto,
            ip: dst.ip,
            port: dst.port,
            host: host.as_ref().map(|host| host.name.as_str()),
            encrypted_hello: host.as_ref().is_some_and(|host| host.encrypted_hello),
            chain: host.as_ref().map_or(&[], |host| &host.chain),
            country: geo.country.as_deref(),
            asn: geo.asn,
            organisation: geo.organisation.as_deref(),
            as_name: geo.as_name.as_deref(),
            count: record.count,
            bytes_out: record.bytes_out,
            bytes_in: record.bytes_in,
        }
    }
}

/// Lines that were not understood, and the first of each kind with its number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unreadable {
    /// Those that are damaged or no events.
    pub broken: (u64, Option<(u64, String)>),
    /// Those of another kind or version.
    pub unknown: (u64, Option<(u64, String)>),
}

impl Unreadable {
    fn add(&mut self, line: u64, why: Unread) {
        let (times, first) = match why {
            Unread::Broken(_) => &mut self.broken,
            Unread::Unknown(_) => &mut self.unknown,
        };
        *times += 1;
        first.get_or_insert((line, why.to_string()));
    }
}

/// Reads events line by line, and counts what is none.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    line: Vec<u8>,
    /// The line was told: the next one begins anew.
    told: bool,
    /// The rest of a line that is too long is passed over.
    skips: bool,
    number: u64,
    /// What was not understood.
    pub unreadable: Unreadable,
}

impl<R: BufRead> Reader<R> {
    /// Reads from here.
    pub fn new(input: R) -> Self {
        let (line, unreadable) = (Vec::new(), Unreadable::default());
        Self { input, line, told: false, skips: false, number: 0, unreadable }
    }

    /// The next line that is understood. Where `more` may come, a line without an end waits for it.
    ///
    /// # Errors
    ///
    /// When the input cannot be read.
    pub fn next_line(&mut self, more: bool) -> io::Result<Option<Line>> {
        loop {
            if std::mem::take(&mut self.told) {
                self.line.clear();
            }
            let room = MAX_LINE - self.line.len() as u64;
            self.input.by_ref().take(room).read_until(b'\n', &mut self.line)?;
            let ends = self.line.last() == Some(&b'\n');
            if !ends && self.line.len() as u64 == MAX_LINE {
                self.skips = true;
                self.line.clear();
                continue;
            }
            if !ends && (more || self.line.is_empty() && !self.skips) {
                return Ok(None);
            }
            self.told = true;
            self.number += 1;
            let read = match std::mem::take(&mut self.skips) {
                true => Err(Unread::Broken(format!("longer than {MAX_LINE} bytes"))),
                false => read(self.text()),
            };
            match read {
                Ok(line) => return Ok(Some(line)),
                Err(why) => self.unreadable.add(self.number, why),
            }
        }
    }

    /// What is read from.
    pub fn input(&self) -> &R {
        &self.input
    }

    /// The line that was told last, as it stands there, without its end.
    pub fn text(&self) -> &[u8] {
        self.line.trim_ascii()
    }
}

/// Reads one line.
pub fn read(line: &[u8]) -> Result<Line, Unread> {
    let broken = |error: serde_json::Error| {
        // The line is named by whoever counts them.
        let text = error.to_string();
        let text = text.split(" at line ").next().unwrap_or_default();
        Unread::Broken(format!("{text} (column {})", error.column()))
    };
    let Head { schema, kind, count } = serde_json::from_slice(line).map_err(broken)?;
    if schema != SCHEMA {
        return Err(Unread::Unknown(format!("schema {schema}, and this reads schema {SCHEMA}")));
    }
    match (kind.as_deref(), count) {
        (None, _) => serde_json::from_slice(line)
            .map(|record| Line::Verdict(Box::new(record)))
            .map_err(broken),
        (Some("lost"), Some(count)) => Ok(Line::Lost(count)),
        (Some("lost"), None) => Err(Unread::Broken("`lost` without a count".to_owned())),
        (Some(kind), _) => Err(Unread::Unknown(format!("kind {kind:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"schema":1,"seq":1,"time":"2026-11-22T01:25:18.215945Z","verdict":"deny",
        "app":{"name":"curl","uid":0,"later":[1]},"dst":{"ip":"110.242.68.66","port":80},
        "later":{"a":1},"count":3}"#;

    fn broken(line: &str) -> String {
        match read(line.as_bytes()) {
            Err(Unread::Broken(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_that_are_not_known_are_passed_over() {
        let Ok(Line::Verdict(record)) = read(EVENT.as_bytes()) else { panic!() };
        assert_eq!((record.verdict, record.count), (Verdict::Deny, 3));
        assert_eq!(record.app, App { name: "curl".to_owned(), ..App::default() });
        assert_eq!((record.host, record.geo), (None, Geo::default()));
    }

    #[test]
    fn lines_one_by_one() {
        let event = EVENT.replace('\n', "");
        let long = "x".repeat(3 << 20);
        let text = format!("{event}\n{long}\n\n{event}\n{{\"schema\":2}}\n{event}");
        let mut reader = Reader::new(text.as_bytes());
        for _ in 0..2 {
            assert!(matches!(reader.next_line(true), Ok(Some(Line::Verdict(_)))));
            assert_eq!(reader.text(), event.as_bytes());
        }
        // The last one has no end yet.
        assert_eq!(reader.next_line(true).unwrap(), None);
        assert_eq!(reader.next_line(true).unwrap(), None);
        assert!(matches!(reader.next_line(false), Ok(Some(Line::Verdict(_)))));
        assert_eq!(reader.next_line(false).unwrap(), None);
        let Unreadable { broken, unknown } = &reader.unreadable;
        assert_eq!(*broken, (2, Some((2, "longer than 1048576 bytes".to_owned()))));
        assert_eq!((unknown.0, unknown.1.as_ref().unwrap().0), (1, 5));
        let mut reader = Reader::new(long.as_bytes());
        assert_eq!(reader.next_line(false).unwrap(), None);
        assert_eq!(reader.unreadable.broken.0, 1);
    }

    #[test]
    fn other_lines() {
        assert_eq!(read(br#"{"schema":1,"kind":"lost","count":17}"#), Ok(Line::Lost(17)));
        for unknown in [r#"{"schema":2,"app":7}"#, r#"{"schema":1,"kind":"new"}"#] {
            let read = read(unknown.as_bytes());
            assert!(matches!(read, Err(Unread::Unknown(_))), "{read:?}");
        }
        assert_eq!(broken(""), "EOF while parsing a value (column 0)");
        assert_eq!(broken("{\"schema\":1"), "EOF while parsing an object (column 11)");
        assert_eq!(broken(r#"{"schema":1,"verdict":"deny"}"#), "missing field `time` (column 29)");
        assert!(broken(&EVENT.replace("deny", "maybe")).starts_with("unknown variant `maybe`"));
        assert!(broken(&EVENT.replace("\"uid\":0,", "")).starts_with("missing field `uid`"));
        assert!(broken(r#"{"schema":1,"kind":"lost"}"#).contains("without a count"));
        assert!(read(b"\xff\xfe").is_err());
    }
}
