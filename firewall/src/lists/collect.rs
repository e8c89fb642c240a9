//! What the formats share: going through lines, and keeping the account of each item.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Subnets};

use super::Parsed;
use super::report::{Example, Format, Reason, Report, Skipped};
use crate::policy::domains::{DomainSetBuilder, NotAName, normalise};
use crate::policy::{Domain, DomainSet, Scope};

/// How many examples of what is skipped are kept.
const EXAMPLES: usize = 3;
/// How much of an example is kept, in characters.
const LONGEST_EXAMPLE: usize = 80;
/// A range of addresses that needs more networks than this is not one that a list has.
const MOST_NETWORKS: usize = 256;

/// A list on its way from lines to sets.
pub struct Collector<'t> {
    domains: DomainSetBuilder,
    exceptions: Vec<(Domain, Example)>,
    /// Entries that no exception takes out.
    important: Vec<Domain>,
    /// Whether an entry under an exception's name takes precedence over it.
    nearest_decides: bool,
    networks: Vec<IpNet>,
    skipped: BTreeMap<Reason, Skipped>,
    lines: usize,
    comments: usize,
    /// Where the current item stands.
    line: usize,
    shown: &'t str,
    /// Whether the current line came to something.
    accounted: bool,
}

impl<'t> Collector<'t> {
    pub fn new() -> Self {
        Self {
            domains: DomainSetBuilder::default(),
            exceptions: Vec::new(),
            important: Vec::new(),
            nearest_decides: false,
            networks: Vec::new(),
            skipped: BTreeMap::new(),
            lines: 0,
            comments: 0,
            line: 0,
            shown: "",
            accounted: false,
        }
    }

    /// An entry under an exception's name is meant all the same: so DNS servers read their files.
    pub fn nearest_decides(&mut self) {
        self.nearest_decides = true;
    }

    /// Hands every line that is not empty to `take`, without the white space behind it.
    pub fn each_line(&mut self, text: &'t str, mut take: impl FnMut(&mut Self, &'t str)) {
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_ascii_end();
            if line.is_empty() {
                continue;
            }
            self.lines += 1;
            self.at(index + 1, line.trim_ascii_start());
            self.accounted = false;
            take(self, line);
            if !self.accounted {
                self.skip(Reason::Malformed);
            }
        }
    }

    /// Where the next item stands, for formats that are not lines.
    pub fn at(&mut self, line: usize, shown: &'t str) {
        (self.line, self.shown) = (line, shown);
    }

    /// How many lines that are not empty a text has that is not gone through line by line.
    pub fn count_lines(&mut self, text: &str) {
        self.lines = text.lines().filter(|line| !line.trim_ascii_end().is_empty()).count();
    }

    /// The line is a comment, or belongs to the form of the file.
    pub fn comment(&mut self) {
        if !self.accounted {
            self.comments += 1;
        }
        self.accounted = true;
    }

    /// The current item is not used.
    pub fn skip(&mut self, reason: Reason) {
        let example = self.example();
        self.skip_at(reason, example);
    }

    fn skip_at(&mut self, reason: Reason, example: Example) {
        self.accounted = true;
        let skipped = self.skipped.entry(reason).or_insert_with(|| Skipped {
            reason,
            count: 0,
            examples: Vec::new(),
        });
        skipped.count += 1;
        if skipped.examples.len() < EXAMPLES {
            skipped.examples.push(example);
        }
    }

    fn example(&self) -> Example {
        let mut text: String = self.shown.chars().take(LONGEST_EXAMPLE).collect();
        if text.len() < self.shown.len() {
            text.push('…');
        }
        Example { line: self.line, text }
    }

    /// A name that is meant.
    pub fn domain(&mut self, name: &str, scope: Scope) {
        match self.domains.push_text(name, scope) {
            Ok(()) => self.accounted = true,
            Err(_) => self.skip(Reason::Malformed),
        }
    }

    /// A name that is meant, or an address.
    pub fn domain_or_address(&mut self, name: &str, scope: Scope) {
        match self.domains.push_text(name, scope) {
            Ok(()) => self.accounted = true,
            Err(NotAName::Address) => self.network(name),
            Err(_) => self.skip(Reason::Malformed),
        }
    }

    /// A name that is meant whatever the exceptions.
    pub fn important(&mut self, name: &str, scope: Scope) {
        let mut form = String::new();
        if normalise(name, &mut form).is_ok() {
            self.important.push(Domain { name: form, scope });
        }
        self.domain(name, scope);
    }

    /// A name that is taken out again.
    pub fn exception(&mut self, name: &str, scope: Scope) {
        let mut form = String::new();
        match normalise(name, &mut form) {
            Ok(()) => {
                let example = self.example();
                self.exceptions.push((Domain { name: form, scope }, example));
                self.accounted = true;
            }
            Err(_) => self.skip(Reason::Malformed),
        }
    }

    /// An address, a CIDR or a range of addresses.
    pub fn network(&mut self, text: &str) {
        match networks(text) {
            Ok(networks) => {
                self.networks.extend(networks);
                self.accounted = true;
            }
            Err(reason) => self.skip(reason),
        }
    }

    /// The sets, and the account.
    pub fn finish(mut self, format: Format) -> Parsed {
        let networks_in = self.networks.len();
        let mut networks = std::mem::take(&mut self.networks);
        networks.sort_unstable();
        networks.dedup();
        let (domains, mut duplicates) = std::mem::take(&mut self.domains).finish();
        duplicates += networks_in - networks.len();
        let important = match self.nearest_decides {
            true => None,
            false => Some(std::mem::take(&mut self.important).into_iter().collect()),
        };
        let mut exceptions = DomainSetBuilder::default();
        for (exception, example) in contradicted(
            std::mem::take(&mut self.exceptions),
            important.as_ref().unwrap_or(&domains),
            self.nearest_decides,
        ) {
            match example {
                Some(example) => self.skip_at(Reason::Contradicted, example),
                None => exceptions.push(&exception),
            }
        }
        let (exceptions, again) = exceptions.finish();
        let mut skipped: Vec<Skipped> = self.skipped.into_values().collect();
        skipped.sort_by_key(|skipped| std::cmp::Reverse(skipped.count));
        let report = Report {
            format: Some(format),
            lines: self.lines,
            comments: self.comments,
            entries: domains.len() + exceptions.len() + networks.len(),
            duplicates: duplicates + again,
            skipped,
        };
        Parsed { domains, exceptions, networks, report }
    }
}

/// The exceptions, each that an entry of `stronger` contradicts with its example.
///
/// With `nearest_decides` only what means less than the exception contradicts it; otherwise
/// whatever shares a name with it.
fn contradicted(
    exceptions: Vec<(Domain, Example)>,
    stronger: &DomainSet,
    nearest_decides: bool,
) -> impl Iterator<Item = (Domain, Option<Example>)> {
    let mut hit: HashSet<Domain> = HashSet::new();
    if !exceptions.is_empty() && !stronger.is_empty() {
        let all: DomainSet = exceptions.iter().map(|(domain, _)| domain.clone()).collect();
        for (name, scope) in stronger.iter() {
            for parent in parents(name) {
                for wide in [Scope::Below, Scope::Tree] {
                    if all.contains(parent, wide) {
                        hit.insert(Domain { name: parent.to_owned(), scope: wide });
                    }
                }
            }
            let narrower: &[Scope] = match (nearest_decides, scope) {
                (true, Scope::Tree) => &[],
                (true, _) => &[Scope::Tree],
                (false, Scope::Tree) => &[Scope::Exact, Scope::Below, Scope::Tree],
                (false, Scope::Exact) => &[Scope::Exact, Scope::Tree],
                (false, Scope::Below) => &[Scope::Below, Scope::Tree],
            };
            for same in narrower {
                if all.contains(name, *same) {
                    hit.insert(Domain { name: name.to_owned(), scope: *same });
                }
            }
        }
        if !nearest_decides {
            for (exception, _) in &exceptions {
                let inside = |parent| {
                    stronger.contains(parent, Scope::Below)
                        || stronger.contains(parent, Scope::Tree)
                };
                if parents(&exception.name).any(inside) {
                    hit.insert(exception.clone());
                }
            }
        }
    }
    exceptions.into_iter().map(move |(domain, example)| {
        let example = hit.contains(&domain).then_some(example);
        (domain, example)
    })
}

/// The names above a name, the nearest first.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    let above = |name: &str| name.find('.').map(|dot| dot + 1);
    std::iter::successors(Some(name), move |name| above(name).map(|from| &name[from..])).skip(1)
}

/// The networks of an address, a CIDR or a range `first-last`.
pub fn networks(text: &str) -> Result<Vec<IpNet>, Reason> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(vec![unmapped(address.into())]);
    }
    if let Ok(net) = text.parse::<IpNet>() {
        return match net.trunc() == net {
            true => Ok(vec![unmapped(net)]),
            false => Err(Reason::BitsBehindPrefix),
        };
    }
    let (first, last) = text.split_once('-').ok_or(Reason::Malformed)?;
    let nets: Vec<IpNet> = match (first.trim().parse(), last.trim().parse()) {
        (Ok(IpAddr::V4(first)), Ok(IpAddr::V4(last))) if first <= last => {
            Ipv4Subnets::new(first, last, 0).take(MOST_NETWORKS + 1).map(IpNet::V4).collect()
        }
        (Ok(IpAddr::V6(first)), Ok(IpAddr::V6(last))) if first <= last => {
            Ipv6Subnets::new(first, last, 0).take(MOST_NETWORKS + 1).map(IpNet::V6).collect()
        }
        _ => return Err(Reason::Malformed),
    };
    Ok(nets.into_iter().map(unmapped).collect())
}

/// An IPv4-mapped network as the IPv4 network that it is.
fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(mapped) = net else { return net };
    let inner = mapped.addr().to_ipv4_mapped();
    let inner = inner.zip(mapped.prefix_len().checked_sub(96));
    inner.and_then(|(inner, length)| Ipv4Net::new(inner, length).ok()).map_or(net, IpNet::V4)
}

/// Whether an address is one that blocklists point names at: nothing answers there.
pub fn is_sink(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4 == Ipv4Addr::UNSPECIFIED || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_loopback(),
    }
}

/// The text before a `#` that begins it or stands behind white space.
pub fn without_comment(line: &str) -> &str {
    let mut from = 0;
    while let Some(found) = line[from..].find('#') {
        let at = from + found;
        if line[..at].is_empty() || line[..at].ends_with([' ', '\t']) {
            return line[..at].trim_ascii();
        }
        from = at + 1;
    }
    line.trim_ascii()
}
