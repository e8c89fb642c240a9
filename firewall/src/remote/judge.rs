//! Whether what a server sent is the list that its policy asks for.
//!
//! Servers answer with error pages, captive portals with their own, and lists are emptied by mistake:
//! the copy that is there is better than any of these.

use super::{Reason, Remote, Trouble, digest};
use crate::lists::{self, Report};

/// What is in the list, if it is good; `before` is how many entries the last good copy has, if a new
/// one may not have far fewer.
pub fn judge(remote: &Remote, before: Option<usize>, bytes: &[u8]) -> Result<Report, Trouble> {
    if let Some(wanted) = &remote.sha256 {
        let found = digest(bytes);
        if found != *wanted {
            let message =
                format!("it is another one than the policy asks for: its SHA-256 is {found}");
            return Err((Reason::Sha256, message));
        }
    }
    let text = String::from_utf8_lossy(bytes);
    let start = text.trim_start_matches(|c: char| c == '\u{feff}' || c.is_whitespace());
    if start.starts_with('<') {
        let message = "it is a page (HTML or XML), not a list".to_owned();
        return Err((Reason::Page, message));
    }
    let parsed = lists::parse(remote.format, &text);
    let report = parsed.map_err(|error| (Reason::Format, error.to_string()))?.report;
    let of = |reason| report.skipped.iter().find(|skipped| skipped.reason == reason);
    let malformed = of(lists::Reason::Malformed).map_or(0, |skipped| skipped.count);
    if malformed > report.entries + report.duplicates {
        let asked = report.format.map_or("auto", lists::Format::word);
        let mut message = format!(
            "most of it is not `{asked}`: {malformed} malformed, {} usable",
            report.entries
        );
        if let Some(other) = lists::detect(&text).filter(|other| Some(*other) != report.format) {
            message += &format!("; it looks like `{}`", other.word());
        }
        return Err((Reason::Format, message));
    }
    if report.entries == 0 {
        let message = match report.skipped() {
            0 => "nothing but comments stands in it".to_owned(),
            skipped => format!("none of its {skipped} items can be used"),
        };
        return Err((Reason::Empty, message));
    }
    match before {
        Some(before) if report.entries < before.div_ceil(2) => {
            let message = format!("it has {} entries, the last good copy {before}", report.entries);
            Err((Reason::Shrunk, message))
        }
        _ => Ok(report),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lists::Format;

    fn reason(format: Option<Format>, before: Option<usize>, text: &str) -> Option<&'static str> {
        let remote = Remote {
            url: "https://example.org/".parse().unwrap(),
            format,
            sha256: None,
            refresh: Remote::REFRESH,
        };
        judge(&remote, before, text.as_bytes()).err().map(|(reason, _)| reason.word())
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for (format, text, wanted) in [
            (None, "a.example\nb.example\n", None),
            (None, "\u{feff} \n<!DOCTYPE html><p>a.example\n", Some("page")),
            (Some(Format::Domains), "<html>\n", Some("page")),
            (None, "\u{0}\u{1}\n", Some("format")),
            (Some(Format::Lsrules), "a.example\n", Some("format")),
            // Names are no line of a hosts file, and one line in a foreign form is no other format.
            (Some(Format::Hosts), "a.example\nb.example\n", Some("format")),
            (Some(Format::Hosts), "0.0.0.0 a.example\nb.example\n", None),
            (None, "Sorry, the quota of this repository is exceeded.\n", Some("format")),
            (None, "", Some("empty")),
            (None, "# Nothing yet.\n", Some("empty")),
            (None, "##.ad\n/x/\n", Some("empty")),
        ] {
            assert_eq!(reason(format, None, text), wanted, "{format:?}: {text:?}");
        }
    }

    #[test]
    fn less_than_half_is_refused() {
        for (before, wanted) in [(None, None), (Some(4), None), (Some(5), Some("shrunk"))] {
            assert_eq!(reason(None, before, "a.example\nb.example\n"), wanted, "{before:?}");
        }
    }
}
