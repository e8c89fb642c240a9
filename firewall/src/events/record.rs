//! Reading verdict events back: what of a line the commands need that look at the past.
//!
//! Keys that are not known are passed over, so that lines of later versions with the same schema can
//! be read.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{App, Endpoint, SCHEMA};

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
    /// When.
    pub time: Timestamp,
    /// What happened.
    pub verdict: Verdict,
    /// Why, in a word.
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
    /// Where to; of a question, who is asked.
    pub dst: Endpoint,
    /// The name of the destination, or the one that is asked for.
    #[serde(default)]
    pub host: Option<Host>,
    /// What is known of the destination.
    #[serde(default)]
    pub geo: Geo,
    /// How often.
    pub count: u64,
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
    const ALL: [(&'static str, Self); 3] =
        [("allow", Self::Allow), ("audit", Self::Audit), ("deny", Self::Deny)];

    /// The one of this word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == word).map(|(_, verdict)| *verdict)
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, verdict)| *verdict == self).map_or("", |(word, _)| word)
    }
}

/// Of the name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Host {
    /// The name itself.
    pub name: String,
    /// It is the outer one of an encrypted hello.
    #[serde(default)]
    pub encrypted_hello: bool,
}

/// Of what is known of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geo {
    /// ISO 3166-1 alpha-2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Origin AS.
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
