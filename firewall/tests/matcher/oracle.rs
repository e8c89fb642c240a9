//! What the rules say, found by trying them one by one. Slow, plain, and of no code that it judges.

use std::{
    cmp::Reverse,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use firewall::policy::{
    Action, AppFacts, Apps, Default, Destinations, Mode, Policy, Ports, Rule, Scope, Selector,
};
use firewall_common::{app::Kind, verdict::Verdict};
use ipnet::IpNet;

use super::generate::{Boundaries, Case, Known, Target, organisation};

/// What decides or would have decided. Ordered as such things are tried: rules before defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Rule(usize, usize),
    Default(usize),
    Settings,
    Question,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Decided {
    action: Action,
    by: Place,
    observed: Vec<Place>,
}

/// What happens to a flow, with names in place of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Decided {
        verdict: Verdict,
        ground: String,
        observed: Vec<String>,
    },
    /// It depends on a port that is not shown.
    PortHidden,
}

pub struct Oracle<'a> {
    case: &'a Case,
    policies: Vec<&'a Policy>,
    app: &'a AppFacts,
}

impl<'a> Oracle<'a> {
    /// What the rules say for an app.
    pub fn new(case: &'a Case, app: &'a AppFacts) -> Self {
        let mut policies: Vec<&Policy> = case.policies.iter().collect();
        policies.sort_by_key(|policy| (policy.priority, policy.name.clone()));
        Self { case, policies, app }
    }

    /// What a destination gets of which no name is known.
    pub fn ask(&self, target: Target) -> Answer {
        self.ask_known(target, &Known { names: Vec::new(), trusted: false }, 0)
    }

    /// As [`Self::ask`], of a destination that is known by names.
    ///
    /// Of several names that take something out of what is matched by address, one counts: that
    /// number `which` of [`Self::taking`].
    pub fn ask_known(&self, target: Target, known: &Known, which: usize) -> Answer {
        let faces = faces(target.ip);
        let taking = self.taking(known);
        let asked = Asked { known, taking: taking.get(which).copied() };
        let mut decided: Vec<Option<Decided>> =
            faces.iter().map(|ip| self.face(*ip, target, asked)).collect();
        // An address inside that nobody routes can be a reason to deny, but not to allow.
        let drops = |one: &Decided| one.action == Action::Drop && !self.case.settings.observe;
        if let [_, inside] = &decided[..]
            && !inside.as_ref().is_none_or(drops)
            && !is_routed(faces[1])
        {
            decided.truncate(1);
        }
        // A port that is not shown matters to one of two, unless the other denies for certain.
        if decided.contains(&None) {
            decided.retain(|one| one.as_ref().is_some_and(drops));
        }
        let Some(first) = decided
            .into_iter()
            .flatten()
            .min_by_key(|one| (one.by, Reverse(one.observed.len()), one.observed.clone()))
        else {
            return Answer::PortHidden;
        };
        self.answer(first)
    }

    /// What an app gets that asks for a name.
    pub fn question(&self, name: &str) -> Answer {
        let mut observed = Vec::new();
        for (p, policy) in self.policies.iter().enumerate() {
            let first = self.rules_of(policy).find(|(_, rule)| {
                let except = rule.to.as_ref().and_then(|to| to.except.as_deref());
                let some = !rule.ports.is_empty() || except.is_some_and(has_addresses);
                self.means(rule, name, true) && !(rule.action == Action::Drop && some)
            });
            let Some((r, rule)) = first else { continue };
            let by = Place::Rule(p, r);
            match (policy.mode, rule.action) {
                (Mode::Enforce, action) => {
                    return self.answer(Decided { action, by, observed });
                }
                (Mode::Observe, Action::Drop) => observed.push(by),
                (Mode::Observe, Action::Allow | Action::Log) => {}
            }
        }
        let mut defaults = self.policies.iter().enumerate();
        let (default, place) = defaults
            .find_map(|(p, policy)| match (policy.mode, self.default_of(policy)) {
                (Mode::Enforce, Some(default)) => Some((default, Place::Default(p))),
                _ => None,
            })
            .unwrap_or((self.case.settings.default, Place::Settings));
        let reaches = self.reaches();
        let action = if reaches { Action::Allow } else { Action::Drop };
        let by = if reaches == (default == Default::Allow) { place } else { Place::Question };
        self.answer(Decided { action, by, observed })
    }

    /// Whether some address can be reached, of which no name is known: what starts or ends nowhere
    /// is no different from what is before it.
    fn reaches(&self) -> bool {
        let boundaries = Boundaries::of(self.case);
        let nobody = Known { names: Vec::new(), trusted: false };
        let asked = Asked { known: &nobody, taking: None };
        let v4 = boundaries.v4.iter().flat_map(|bits| [*bits, bits.wrapping_add(1)]);
        let v6 = boundaries.v6.iter().flat_map(|bits| [*bits, bits.wrapping_add(1)]);
        let mut ips: Vec<IpAddr> = v4.map(|bits| Ipv4Addr::from_bits(bits).into()).collect();
        ips.extend(v6.map(|bits| faces(IpAddr::V6(Ipv6Addr::from_bits(bits)))[0]));
        let others = boundaries
            .ports
            .iter()
            .flat_map(|(protocol, _)| [(*protocol, 0), (protocol.wrapping_add(1), 0)]);
        let mut ports: Vec<(u8, u16)> = boundaries
            .ports
            .iter()
            .flat_map(|(protocol, port)| [(*protocol, *port), (*protocol, port.wrapping_add(1))])
            .chain(others)
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ips.iter().any(|ip| {
            ports.iter().any(|(protocol, port)| {
                self.walk(*ip, *protocol, *port, asked).action != Action::Drop
            })
        })
    }

    fn answer(&self, Decided { action, by, observed }: Decided) -> Answer {
        let (mut action, mut ground, mut observed) = (action, by, observed);
        if self.case.settings.observe && action == Action::Drop {
            observed.push(ground);
            (action, ground) = (Action::Allow, Place::Settings);
        }
        Answer::Decided {
            verdict: match action {
                Action::Drop => Verdict::Deny,
                Action::Log => Verdict::Audit,
                Action::Allow if observed.is_empty() => Verdict::Allow,
                Action::Allow => Verdict::Audit,
            },
            ground: self.name(ground),
            observed: observed.iter().map(|place| self.name(*place)).collect(),
        }
    }

    /// The names that take something out of what rules match by address.
    pub fn taking<'k>(&self, known: &'k Known) -> Vec<&'k str> {
        let takes =
            |name: &&str| self.rules().any(|rule| self.takes_out(rule, name, known.trusted));
        known.names.iter().map(String::as_str).filter(takes).collect()
    }

    /// The names that rules speak of.
    pub fn spoken_of<'k>(&self, known: &'k Known) -> Vec<&'k str> {
        let speaks = |name: &&str| {
            let rules = self.policies.iter().flat_map(|policy| &policy.rules);
            rules.filter_map(|rule| rule.to.as_ref()).any(|to| {
                means_name(to, name) || to.except.as_ref().is_some_and(|to| means_name(to, name))
            })
        };
        known.names.iter().map(String::as_str).filter(speaks).collect()
    }

    /// The rules that hold for the app.
    fn rules(&self) -> impl Iterator<Item = &'a Rule> {
        self.policies.iter().flat_map(|policy| self.rules_of(policy)).map(|(_, rule)| rule)
    }

    fn rules_of(&self, policy: &'a Policy) -> impl Iterator<Item = (usize, &'a Rule)> {
        let holds = |rule: &Rule| {
            let passes = rule.action != Action::Drop;
            self.are_meant(&policy.apps, passes) && self.are_meant(&rule.apps, passes)
        };
        policy.rules.iter().enumerate().filter(move |(_, rule)| holds(rule))
    }

    fn default_of(&self, policy: &Policy) -> Option<Default> {
        policy.default.filter(|default| self.are_meant(&policy.apps, *default == Default::Allow))
    }

    /// Whether an app is meant by a place that lets pass or does not. What an app could have made up
    /// never lets more pass.
    fn are_meant(&self, Apps { only, except }: &Apps, passes: bool) -> bool {
        let some = |list: &[Selector], more: bool| {
            list.iter().any(|one| is_selected(&one.text, self.app, more))
        };
        (only.is_empty() || some(only, passes)) && !some(except, !passes)
    }

    /// Whether a name takes a rule out of those that match by address. What nobody trusted told
    /// takes nothing out of what is dropped.
    fn takes_out(&self, rule: &Rule, name: &str, trusted: bool) -> bool {
        let Some(to) = &rule.to else { return false };
        (trusted || rule.action != Action::Drop)
            && has_addresses(to)
            && to.except.as_ref().is_some_and(|except| means_name(except, name))
    }

    /// Whether a rule matches by a name. What nobody trusted told is a reason to drop and no other.
    fn means(&self, rule: &Rule, name: &str, trusted: bool) -> bool {
        let Some(to) = &rule.to else { return false };
        let excepted = to.except.as_ref().is_some_and(|except| means_name(except, name));
        means_name(to, name) && if trusted { !excepted } else { rule.action == Action::Drop }
    }

    fn name(&self, place: Place) -> String {
        match place {
            Place::Rule(policy, rule) => {
                let policy = self.policies[policy];
                format!("{}/{}", policy.name, policy.rules[rule].name)
            }
            Place::Default(policy) => format!("{}/default", self.policies[policy].name),
            Place::Settings => "default".to_owned(),
            Place::Question => "question".to_owned(),
        }
    }

    /// The decision on one address; `None` if it is not the same for all ports it could be.
    fn face(&self, ip: IpAddr, target: Target, asked: Asked<'_>) -> Option<Decided> {
        if !target.hidden {
            return Some(self.walk(ip, target.protocol, target.port, asked));
        }
        let rules = self.rules();
        let named = rules.flat_map(|rule| &rule.ports).map(|one| &one.ports);
        // Between two of these ports nothing can change.
        let ports = named
            .flat_map(|ports| [*ports.start(), ports.end().saturating_add(1)])
            .chain([0, u16::MAX]);
        let mut answers = ports.map(|port| self.walk(ip, target.protocol, port, asked));
        let first = answers.next()?;
        answers.all(|other| other == first).then_some(first)
    }

    fn walk(&self, ip: IpAddr, protocol: u8, port: u16, asked: Asked<'_>) -> Decided {
        let mut observed = Vec::new();
        let mut silent = Vec::new();
        for (p, policy) in self.policies.iter().enumerate() {
            let mut rules = self.rules_of(policy);
            let Some((r, rule)) =
                rules.find(|(_, rule)| self.matches(rule, ip, protocol, port, asked))
            else {
                silent.push(p);
                continue;
            };
            let by = Place::Rule(p, r);
            match (policy.mode, rule.action) {
                (Mode::Enforce, action) => return Decided { action, by, observed },
                (Mode::Observe, Action::Drop) => observed.push(by),
                (Mode::Observe, Action::Allow | Action::Log) => {}
            }
        }
        for p in 0..self.policies.len() {
            let (by, policy) = (Place::Default(p), self.policies[p]);
            match (policy.mode, self.default_of(policy)) {
                (_, None) => {}
                (Mode::Enforce, Some(default)) => {
                    return Decided { action: action(default), by, observed };
                }
                (Mode::Observe, Some(Default::Drop)) if silent.contains(&p) => observed.push(by),
                (Mode::Observe, Some(_)) => {}
            }
        }
        Decided { action: action(self.case.settings.default), by: Place::Settings, observed }
    }

    fn matches(
        &self,
        rule: &Rule,
        ip: IpAddr,
        protocol: u8,
        port: u16,
        Asked { known, taking }: Asked<'_>,
    ) -> bool {
        let by_port = |one: &Ports| {
            one.protocol == protocol && *one.ports.start() <= port && port <= *one.ports.end()
        };
        let to = |to: &Destinations| {
            let taken = taking.is_some_and(|name| self.takes_out(rule, name, known.trusted));
            let by_name = known.names.iter().any(|name| self.means(rule, name, known.trusted));
            !to.except.as_ref().is_some_and(|except| self.names(except, ip))
                && (self.names(to, ip) && !taken || by_name)
        };
        (rule.ports.is_empty() || rule.ports.iter().any(by_port)) && rule.to.as_ref().is_none_or(to)
    }

    fn names(&self, to: &Destinations, ip: IpAddr) -> bool {
        let country = find(&self.case.countries.v4, &self.case.countries.v6, ip);
        let asn = find(&self.case.asns.v4, &self.case.asns.v6, ip);
        country.is_some_and(|country| to.jurisdictions.contains(&country))
            || asn.is_some_and(|asn| {
                to.asns.contains(&asn)
                    || to.organisations.iter().any(|name| organisation(name).contains(&asn))
            })
            || to.networks.iter().any(|network| contains(network, ip))
            || to.lists.iter().flat_map(|list| &list.networks).any(|network| contains(network, ip))
    }
}

/// By what a destination is known, and which of its names takes something out of what is matched by
/// address.
#[derive(Clone, Copy)]
struct Asked<'k> {
    known: &'k Known,
    taking: Option<&'k str>,
}

/// Whether a selector selects an app, where by that more passes or less.
fn is_selected(selector: &str, app: &AppFacts, more: bool) -> bool {
    let (kind, value) = selector.split_once(':').unwrap_or((selector, ""));
    if app.kind == Kind::Kernel {
        return matches!(kind, "*" | "kernel");
    }
    let value = value.as_bytes();
    // Below slices and users' managers; what a unit makes in itself is no unit.
    let units = |glob: String| {
        let Some(mut rest) = app.cgroup.strip_prefix(b"/") else { return false };
        loop {
            let ends = (1..=rest.len()).filter(|end| rest.get(*end).is_none_or(|b| *b == b'/'));
            if ends.into_iter().any(|end| fits(glob.as_bytes(), &rest[..end])) {
                return true;
            }
            let len = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
            let name = &rest[..len];
            if !name.ends_with(b".slice") && !fits(b"user@*.service", name) || len == rest.len() {
                return false;
            }
            rest = &rest[len + 1..];
        }
    };
    let text = String::from_utf8_lossy(value);
    match kind {
        "*" => true,
        "kernel" => false,
        "unknown" => app.kind == Kind::Unknown,
        "exe" => {
            let made_up = app.kind == Kind::Untrusted && more;
            app.kind != Kind::Unknown && !made_up && fits(value, &app.exe)
        }
        "script" => !more && fits(value, &app.script),
        "cgroup" => {
            let ends = (1..=app.cgroup.len())
                .filter(|end| app.cgroup.get(*end).is_none_or(|byte| *byte == b'/'));
            ends.into_iter().any(|end| fits(value, &app.cgroup[..end]))
        }
        "unit" => units(text.into_owned()),
        "flatpak" => units(format!("app-flatpak-{}-*.scope", text.replace('-', "\\x2d"))),
        "snap" => units(format!("snap.{text}.*")),
        "container" => units(format!("libpod-{text}*.scope")) || units(format!("docker/{text}*")),
        "user" => app.uid == Some(text.parse().unwrap()),
        "group" => app.gid == Some(text.parse().unwrap()),
        _ => panic!("{selector}"),
    }
}

/// Whether a glob means a path, found by trying.
fn fits(glob: &[u8], path: &[u8]) -> bool {
    if let Some(rest) = glob.strip_prefix(b"**/") {
        let starts = (0..=path.len()).filter(|at| *at == 0 || path[at - 1] == b'/');
        return starts.into_iter().any(|at| fits(rest, &path[at..]));
    }
    match glob.first() {
        None => path.is_empty(),
        // Only ever the last, as all of a folder.
        Some(b'*') if glob == b"**" => true,
        Some(b'*') => (0..=path.len())
            .take_while(|at| *at == 0 || path[at - 1] != b'/')
            .any(|at| fits(&glob[1..], &path[at..])),
        Some(b'?') => path.first().is_some_and(|b| *b != b'/') && fits(&glob[1..], &path[1..]),
        Some(b'[') => {
            let (class, rest) = split(&glob[1..], b']');
            let [b'!', first, b'-', last] = class else { panic!("no such class here") };
            path.first().is_some_and(|b| *b != b'/' && !(first..=last).contains(&b))
                && fits(rest, &path[1..])
        }
        Some(b'{') => {
            let (words, rest) = split(&glob[1..], b'}');
            words.split(|b| *b == b',').any(|word| fits(&[word, rest].concat(), path))
        }
        Some(byte) => path.first() == Some(byte) && fits(&glob[1..], &path[1..]),
    }
}

fn split(text: &[u8], at: u8) -> (&[u8], &[u8]) {
    let at = text.iter().position(|byte| *byte == at).unwrap();
    (&text[..at], &text[at + 1..])
}

fn has_addresses(to: &Destinations) -> bool {
    !to.jurisdictions.is_empty()
        || !to.organisations.is_empty()
        || !to.asns.is_empty()
        || !to.networks.is_empty()
        || to.lists.iter().any(|list| !list.networks.is_empty())
}

fn means_name(to: &Destinations, name: &str) -> bool {
    to.domains.iter().any(|domain| is_meant(&domain.name, domain.scope, name))
        || to.lists.iter().any(|list| {
            let any = |set: &firewall::policy::DomainSet| {
                set.iter().any(|(entry, scope)| is_meant(entry, scope, name))
            };
            any(&list.domains) && !any(&list.exceptions)
        })
}

/// Compares label by label, from the right.
fn is_meant(entry: &str, scope: Scope, name: &str) -> bool {
    let mut labels = name.split('.').rev();
    entry.split('.').rev().all(|label| labels.next() == Some(label))
        && match (scope, labels.next()) {
            (Scope::Exact, rest) => rest.is_none(),
            (Scope::Below, rest) => rest.is_some(),
            (Scope::Tree, _) => true,
        }
}

fn action(default: Default) -> Action {
    match default {
        Default::Allow => Action::Allow,
        Default::Drop => Action::Drop,
    }
}

fn find<V: Copy>(v4: &[(u32, u32, V)], v6: &[(u128, u128, V)], ip: IpAddr) -> Option<V> {
    match ip {
        IpAddr::V4(ip) => {
            let bits = u32::from(ip);
            v4.iter().find(|(first, last, _)| *first <= bits && bits <= *last).map(|one| one.2)
        }
        IpAddr::V6(ip) => {
            let bits = u128::from(ip);
            v6.iter().find(|(first, last, _)| *first <= bits && bits <= *last).map(|one| one.2)
        }
    }
}

/// Compares bit by bit. An IPv4 address is in an IPv6 network only if all of the network is
/// IPv4-mapped.
fn contains(network: &IpNet, ip: IpAddr) -> bool {
    let len = u32::from(network.prefix_len());
    let (network, ip, bits) = match (network.addr(), ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            (u128::from(u32::from(network)), u128::from(u32::from(ip)), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => (u128::from(network), u128::from(ip), 128),
        (IpAddr::V6(network), IpAddr::V4(ip)) if len >= 96 => {
            (u128::from(network), u128::from(ip.to_ipv6_mapped()), 128)
        }
        _ => return false,
    };
    (0..len).all(|bit| {
        let shift = bits - 1 - bit;
        (network >> shift) & 1 == (ip >> shift) & 1
    })
}

fn is_routed(ip: IpAddr) -> bool {
    const NOT: [&str; 9] = [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
    ];
    !NOT.iter().any(|network| contains(&network.parse().unwrap(), ip))
}

/// The addresses that an address is judged as: itself, and what it carries inside.
pub fn faces(ip: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V6(outer) = ip else { return vec![ip] };
    let o = outer.octets();
    let in_prefix = |prefix: &str| {
        let (network, len) = prefix.split_once('/').unwrap();
        let network: Ipv6Addr = network.parse().unwrap();
        let len = len.parse::<usize>().unwrap() / 8;
        o[..len] == network.octets()[..len]
    };
    if in_prefix("::ffff:0:0/96") {
        return vec![Ipv4Addr::new(o[12], o[13], o[14], o[15]).into()];
    }
    let mut faces = vec![ip];
    if in_prefix("64:ff9b::/96") {
        faces.push(Ipv4Addr::new(o[12], o[13], o[14], o[15]).into());
    } else if in_prefix("2002::/16") {
        faces.push(Ipv4Addr::new(o[2], o[3], o[4], o[5]).into());
    } else if in_prefix("2001::/32") {
        faces.push(Ipv4Addr::new(!o[12], !o[13], !o[14], !o[15]).into());
    }
    faces
}
