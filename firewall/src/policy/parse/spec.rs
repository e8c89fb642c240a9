//! The command line's SPEC: one matcher in one word, `country:CN`.

use std::path::Path;
use std::sync::Arc;

use super::super::diagnostic::quoted;
use super::super::model::{Destinations, List, ListSource};
use super::super::selector::Selector;
use super::super::source::Files;
use super::values::{self, Complaint, complaint};
use super::{list, nearest};
use crate::intel::organisations::Organisations;

/// What is wrong with a SPEC, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}\n\nhint: {hint}")]
pub struct SpecError {
    /// What is wrong, in one line.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

const KINDS: &[&str] = &["country", "org", "as", "net", "domain", "list"];

/// See [`super::super::parse_spec`]; lists are read from `files`.
pub fn parse_spec(
    text: &str,
    organisations: &Organisations,
    files: &dyn Files,
) -> Result<Destinations, SpecError> {
    let parsed = parse(text, organisations, files);
    parsed.map_err(|Complaint { message, hint }| SpecError { message, hint })
}

/// See [`super::super::parse_selector`].
pub fn parse_selector(text: &str, files: &dyn Files) -> Result<Selector, SpecError> {
    let parsed = super::apps::selector(text, files);
    parsed.map_err(|Complaint { message, hint }| SpecError { message, hint })
}

fn parse(
    text: &str,
    organisations: &Organisations,
    files: &dyn Files,
) -> Result<Destinations, Complaint> {
    let none = Destinations::default();
    let Some((kind, value)) = text.split_once(':') else {
        return complaint(format!("{} is not a matcher", quoted(text)), bare(text, organisations));
    };
    match kind {
        "country" => Ok(Destinations { jurisdictions: vec![values::country(value)?], ..none }),
        "org" => {
            let name = values::organisation(value, organisations).map_err(|mut complaint| {
                complaint.hint = complaint.hint.replace("`asns = [\"AS64500\"]`", "`as:64500`");
                complaint
            })?;
            Ok(Destinations { organisations: vec![name], ..none })
        }
        "as" => {
            let asn = match values::decimal(value) {
                true => values::asn(&format!("AS{value}")),
                false => values::asn(value),
            };
            Ok(Destinations { asns: vec![asn?], ..none })
        }
        "net" => Ok(Destinations { networks: vec![values::network(value)?], ..none }),
        "domain" => {
            let domain = values::domain(value).map_err(|mut complaint| {
                if complaint.hint.contains("`networks`") {
                    complaint.hint = format!("did you mean {}?", quoted(&format!("net:{value}")));
                }
                complaint
            })?;
            Ok(Destinations { domains: vec![domain], ..none })
        }
        "list" => Ok(Destinations { lists: vec![Arc::new(read_list(value, files)?)], ..none }),
        _ => {
            let meant = match kind {
                "geo" | "jurisdiction" | "jurisdictions" | "countries" | "cc" => Some("country"),
                "organisation" | "organization" | "owner" => Some("org"),
                "asn" | "AS" | "ASN" => Some("as"),
                "ip" | "cidr" | "network" | "networks" | "addr" => Some("net"),
                "host" | "dns" | "name" => Some("domain"),
                // The address was written without a kind, and is IPv6.
                _ if values::network(text).is_ok() => {
                    return complaint(
                        format!("{} is not a matcher", quoted(text)),
                        format!("did you mean `net:{text}`?"),
                    );
                }
                _ => nearest(kind, KINDS.iter().copied()),
            };
            let hint = match meant {
                Some(meant) => format!("did you mean {}?", quoted(&format!("{meant}:{value}"))),
                None => FORM.to_owned(),
            };
            complaint(format!("there is no matcher {}", quoted(&format!("{kind}:"))), hint)
        }
    }
}

const FORM: &str = "write `country:CN`, `org:baidu`, `as:37963`, `net:10.0.0.0/8`, \
                    `domain:hm.baidu.com` or `list:FILE`";

/// The list in a file, in whatever format its content tells.
fn read_list(path: &str, files: &dyn Files) -> Result<List, Complaint> {
    if path.is_empty() {
        return complaint("`list:` names no file", "write `list:FILE`, as `list:/etc/hosts.deny`");
    }
    let path_of = Path::new(path);
    let bytes = match files.read(path_of) {
        Ok(bytes) => bytes,
        Err(_) if path.starts_with("https://") => {
            return complaint(
                format!("the list {} is not in a file", quoted(path)),
                "write a policy with a `[list.NAME]` and its `url`",
            );
        }
        Err(why) => {
            return complaint(
                format!("the list {} cannot be read: {why}", quoted(path)),
                "write the path of a list's file; a path starts at the current folder",
            );
        }
    };
    let source = ListSource::File(path_of.to_owned());
    let list = list::parse(path, source, None, &bytes, files).map_err(|mut complaint| {
        complaint.hint = "`list:` tells the format by the content: for this one, write a policy \
                          with a `[list.NAME]` and its `format`"
            .to_owned();
        complaint
    })?;
    match list.report.entries {
        0 => complaint(
            format!("the list {} has no entries", quoted(path)),
            "`firewall list show` says what became of its lines",
        ),
        _ => Ok(list),
    }
}

/// What somebody meant who wrote no kind.
fn bare(text: &str, organisations: &Organisations) -> String {
    let upper = text.to_ascii_uppercase();
    if values::network(text).is_ok() {
        format!("did you mean `net:{text}`?")
    } else if organisations.asns(text).is_some() {
        format!("did you mean `org:{text}`?")
    } else if values::country(&upper).is_ok() {
        format!("did you mean `country:{upper}`?")
    } else if values::asn(&upper).is_ok() {
        format!("did you mean `as:{}`?", &upper[2..])
    } else if text.contains('.') && values::domain(text).is_ok() {
        format!("did you mean {}?", quoted(&format!("domain:{text}")))
    } else {
        FORM.to_owned()
    }
}
