//! The command line's SPEC: one matcher in one word, `country:CN`.

use super::super::diagnostic::quoted;
use super::super::model::Destinations;
use super::nearest;
use super::values::{self, Complaint, complaint};
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

/// The destinations of `country:CN`, `org:baidu`, `as:37963` or `net:10.0.0.0/8`.
///
/// # Errors
///
/// When it is none of these; `domain:` and `list:` cannot be enforced yet and are refused.
pub fn parse_spec(text: &str, organisations: &Organisations) -> Result<Destinations, SpecError> {
    parse(text, organisations).map_err(|Complaint { message, hint }| SpecError { message, hint })
}

fn parse(text: &str, organisations: &Organisations) -> Result<Destinations, Complaint> {
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
            values::domain(value)?;
            not_yet("`domain:`")
        }
        "list" => not_yet("`list:`"),
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

const FORM: &str = "write `country:CN`, `org:baidu`, `as:37963` or `net:10.0.0.0/8`";

fn not_yet(what: &str) -> Result<Destinations, Complaint> {
    complaint(
        format!("this version cannot enforce {what} yet"),
        "use `country:`, `org:`, `as:` or `net:`",
    )
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
    } else {
        FORM.to_owned()
    }
}
