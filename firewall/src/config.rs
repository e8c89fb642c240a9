//! `firewall.toml`: how verdicts are carried out. What they are is in the policies.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::policy::{
    Default as Standard,
    compile::{Inbound, OnDeny, Settings},
};

/// Where the configuration of this machine is.
pub const CONFIG: &str = "/etc/firewall/firewall.toml";

/// The keys of `firewall.toml`. A key that is not here is an error.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What no rule and no policy's default decides: `allow` (default) or `drop`.
    pub default: Option<Passage>,
    /// How a denied `connect` or `sendto` fails: `refuse` (default, ECONNREFUSED),
    /// `unreachable` (EHOSTUNREACH) or `blackhole` (EINVAL).
    pub on_deny: Option<Failure>,
    /// Replies on connections that came from outside: `allow` (default) or `enforce`.
    pub inbound: Option<Replies>,
    /// Packets that cannot be read far enough to judge them: `deny` (default) or `allow`.
    pub unparsable: Option<Unparsable>,
    /// A file of organisations beside those in the binary.
    pub organisations: Option<PathBuf>,
    /// A database of countries in place of the one in the binary.
    pub geo: Option<PathBuf>,
    /// A database of AS numbers in place of the one in the binary.
    pub asn: Option<PathBuf>,
}

/// What happens to what no rule decides.
#[derive(Clone, Copy, Debug, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Passage {
    /// It passes.
    Allow,
    /// It is dropped.
    Drop,
}

/// How a denied call fails.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Failure {
    /// ECONNREFUSED
    Refuse,
    /// EHOSTUNREACH
    Unreachable,
    /// EINVAL
    Blackhole,
}

/// What holds for replies.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Replies {
    /// They pass.
    Allow,
    /// They are judged.
    Enforce,
}

/// What holds for packets that cannot be read.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unparsable {
    /// They are dropped.
    Deny,
    /// They pass, and are recorded.
    Allow,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is wrong.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// The file that was named, or that of this machine, which need not be there.
    pub fn load(named: Option<&Path>) -> Result<Self, Error> {
        let path = named.unwrap_or(Path::new(CONFIG));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
        };
        toml::from_str(&text)
            .map_err(|source| Error::Parse { path: path.to_owned(), source: Box::new(source) })
    }

    /// What of it goes into a generation.
    pub fn settings(&self) -> Settings {
        let standard = Settings::default();
        Settings {
            default: self.default.map_or(standard.default, Into::into),
            on_deny: match self.on_deny {
                None => standard.on_deny,
                Some(Failure::Refuse) => OnDeny::Refuse,
                Some(Failure::Unreachable) => OnDeny::Unreachable,
                Some(Failure::Blackhole) => OnDeny::Blackhole,
            },
            inbound: match self.inbound {
                None => standard.inbound,
                Some(Replies::Allow) => Inbound::Allow,
                Some(Replies::Enforce) => Inbound::Enforce,
            },
            unparsable: match self.unparsable {
                None => standard.unparsable,
                Some(Unparsable::Deny) => Standard::Drop,
                Some(Unparsable::Allow) => Standard::Allow,
            },
            record_allow: standard.record_allow,
            observe: standard.observe,
        }
    }
}

impl From<Passage> for Standard {
    fn from(passage: Passage) -> Self {
        match passage {
            Passage::Allow => Self::Allow,
            Passage::Drop => Self::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_values_are_errors_with_their_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, says) in [
            ("on_deni = \"refuse\"", "unknown field `on_deni`"),
            ("\non_deny = \"no\"", "line 2, column 11"),
            ("default = 3", "line 1"),
        ] {
            std::fs::write(file.path(), text).unwrap();
            let message = Config::load(Some(file.path())).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
        std::fs::write(file.path(), "on_deny = \"unreachable\"\ndefault = \"drop\"").unwrap();
        let settings = Config::load(Some(file.path())).unwrap().settings();
        assert_eq!(settings.on_deny, OnDeny::Unreachable);
        assert_eq!(settings.default, Standard::Drop);
    }
}
