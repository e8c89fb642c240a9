//! Organisations: names for sets of AS numbers.
//!
//! A file of them has one AS a line: the name of the organisation, the AS number and the name of the
//! AS, with tabs between. Empty lines and lines that begin with `#` say nothing.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    path::Path,
};

use super::{Error, asn::parse_asn};
use crate::policy::source::Files;

/// Names for sets of AS numbers.
#[derive(Clone, Debug, Default)]
pub struct Organisations {
    asns: BTreeMap<String, Vec<u32>>,
    owners: HashMap<u32, String>,
}

/// A line of a file that says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The file, as it was named.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// What is wrong, and what to write instead.
    pub problem: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.problem)
    }
}

impl Organisations {
    /// Those in the binary.
    ///
    /// # Errors
    /// None, unless the binary is damaged.
    pub fn embedded() -> Result<Self, Error> {
        let mut embedded = Self::default();
        embedded.extend("organisations.tsv", super::ORGANISATIONS)?;
        Ok(embedded)
    }

    /// Adds those of a file. An organisation that is known already gets the AS numbers of the file as
    /// well. The owner of an AS number stays the first that was named, so that a group of
    /// organisations made by a user does not stand in their place in the log.
    ///
    /// # Errors
    /// The file cannot be read, or some of its lines are wrong, all of which are named. Nothing is
    /// added then.
    pub fn extend_from(&mut self, path: &Path, files: &dyn Files) -> Result<(), Error> {
        let unread =
            |why: String| Error::Read { path: path.to_owned(), source: io::Error::other(why) };
        let text = files.read(path).map_err(unread)?;
        let text = std::str::from_utf8(&text).map_err(|error| unread(error.to_string()))?;
        self.extend(&path.display().to_string(), text)
    }

    fn extend(&mut self, file: &str, text: &str) -> Result<(), Error> {
        let (mut entries, mut bad) = (Vec::new(), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            match parse(line) {
                Ok(entry) => entries.push(entry),
                Err(problem) => {
                    bad.push(BadLine { file: file.to_owned(), line: number, problem });
                }
            }
        }
        if !bad.is_empty() {
            return Err(Error::Organisations(bad));
        }
        for (name, asn) in entries {
            let asns = self.asns.entry(name.to_owned()).or_default();
            if let Err(place) = asns.binary_search(&asn) {
                asns.insert(place, asn);
            }
            self.owners.entry(asn).or_insert_with(|| name.to_owned());
        }
        Ok(())
    }

    /// The AS numbers of an organisation, ascending.
    #[must_use]
    pub fn asns(&self, name: &str) -> Option<&[u32]> {
        self.asns.get(name).map(Vec::as_slice)
    }

    /// The organisation that owns an AS.
    #[must_use]
    pub fn of(&self, asn: u32) -> Option<&str> {
        self.owners.get(&asn).map(String::as_str)
    }

    /// All names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.asns.keys().map(String::as_str)
    }

    /// The name that somebody who wrote this may have meant.
    #[must_use]
    pub fn suggest(&self, text: &str) -> Option<&str> {
        let text = text.trim().to_lowercase().replace([' ', '_'], "-");
        self.names()
            .map(|name| (strsim::jaro_winkler(name, &text), name))
            .filter(|(likeness, _)| *likeness > 0.8)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, name)| name)
    }
}

fn parse(line: &str) -> Result<(&str, u32), String> {
    let mut columns = line.split('\t');
    let (Some(name), Some(asn), Some(title), None) =
        (columns.next(), columns.next(), columns.next(), columns.next())
    else {
        return Err(format!(
            "{} columns instead of 3: organisation, AS number and name of the AS, with tabs between",
            line.split('\t').count()
        ));
    };
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || !name.bytes().all(allowed) {
        return Err(format!(
            "`{name}` is no name of an organisation, which is lower-case letters, digits and hyphens"
        ));
    }
    let asn = parse_asn(asn).map_err(|problem| format!("`{asn}`: {problem}"))?;
    if title.trim().is_empty() {
        return Err("the name of the AS is missing".to_owned());
    }
    Ok((name, asn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::source::Disk;

    fn parsed(text: &str) -> Result<Organisations, Error> {
        let mut organisations = Organisations::default();
        organisations.extend("mine.tsv", text).map(|()| organisations)
    }

    #[test]
    fn the_embedded_ones() {
        let embedded = Organisations::embedded().unwrap();
        assert_eq!(embedded.of(55967), Some("baidu"));
        assert!(embedded.asns("alibaba").unwrap().contains(&37963));
        assert_eq!(embedded.of(64512), None);
        assert_eq!(embedded.asns("nobody"), None);
        for name in embedded.names() {
            let asns = embedded.asns(name).unwrap();
            assert!(asns.is_sorted());
            assert!(asns.iter().all(|asn| embedded.of(*asn) == Some(name)), "{name}");
        }
    }

    #[test]
    fn a_file_adds_to_what_is_known() {
        let mut organisations = Organisations::embedded().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# mine\n\nbaidu\tAS64512\tA lab\nclouds\t37963\tAlibaba\n")
            .unwrap();
        organisations.extend_from(file.path(), &Disk).unwrap();
        assert_eq!(organisations.of(64512), Some("baidu"));
        assert!(organisations.asns("baidu").unwrap().contains(&55967));
        assert_eq!(organisations.asns("clouds"), Some(&[37963][..]));
        assert_eq!(organisations.of(37963), Some("alibaba"));
    }

    #[test]
    fn all_wrong_lines_are_named() {
        let text =
            "good\tAS1\tOne\nBaidu\tAS1\tOne\nx\tAS0\tNone\nx\tASx\tNone\nx\tAS1\nx\tAS1\t\n";
        let Err(Error::Organisations(bad)) = parsed(text) else { panic!("accepted") };
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        insta::assert_snapshot!(Error::Organisations(bad), @r"
        mine.tsv:2: `Baidu` is no name of an organisation, which is lower-case letters, digits and hyphens
        mine.tsv:3: `AS0`: AS 0 belongs to nobody
        mine.tsv:4: `ASx`: not an AS number, which is `AS` and a number up to 4294967295, as in AS4837
        mine.tsv:5: 2 columns instead of 3: organisation, AS number and name of the AS, with tabs between
        mine.tsv:6: the name of the AS is missing
        ");
    }

    #[test]
    fn suggestions() {
        let embedded = Organisations::embedded().unwrap();
        assert_eq!(embedded.suggest("Baidu"), Some("baidu"));
        assert_eq!(embedded.suggest("byte dance"), Some("bytedance"));
        assert_eq!(embedded.suggest("huawei"), Some("huawei-cloud"));
        assert_eq!(embedded.suggest("zzz"), None);
    }
}
