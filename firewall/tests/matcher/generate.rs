//! Random policies and tables, and destinations where such tables go wrong: at the first and the
//! last address and port of everything that is named, and one to either side.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use firewall::{
    intel::country::Country,
    policy::{
        self, Action, AppFacts, Apps, Default, Destinations, Domain, List, Mode, Policy, Ports,
        Rule, Scope, Selector,
        compile::{self, Facts, Inbound, OnDeny, Ranges, Settings},
        source::Disk,
    },
};
use firewall_common::{
    app::Kind,
    flow::{Address, Destination, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE, has_ports},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::{option, prelude::*, sample::Index, sample::select};

/// Everything that a generation depends on, and where to ask it.
#[derive(Clone, Debug)]
pub struct Case {
    /// In no order.
    pub policies: Vec<Policy>,
    pub countries: Table<Country>,
    pub asns: Table<u32>,
    pub settings: Settings,
    pub targets: Vec<Target>,
    /// By what each target is known.
    pub known: Vec<Known>,
    /// Who goes there.
    pub apps: Vec<AppFacts>,
}

/// The names of a destination, the one asked for before its aliases.
#[derive(Clone, Debug)]
pub struct Known {
    pub names: Vec<String>,
    pub trusted: bool,
}

impl Case {
    /// The same for every app.
    pub fn without_apps(mut self) -> Self {
        for policy in &mut self.policies {
            policy.apps = Apps::default();
            policy.rules.iter_mut().for_each(|rule| rule.apps = Apps::default());
        }
        self
    }

    /// The policies in the order in which the product tries them, compiled.
    pub fn compile(&self) -> compile::Generation {
        let mut policies = self.policies.clone();
        compile::order(&mut policies);
        let facts = Facts {
            countries: Some(&self.countries),
            asns: Some(&self.asns),
            organisation: &organisation,
        };
        compile::compile(policies, facts, self.settings.clone()).unwrap()
    }
}

/// Where a packet goes. An IPv4-mapped address stays one, as in an IPv6 packet.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub ip: IpAddr,
    pub protocol: u8,
    /// 0 for protocols without ports and where it is hidden.
    pub port: u16,
    /// A fragment other than the first.
    pub hidden: bool,
}

impl Target {
    pub fn destination(self) -> Destination {
        Destination {
            address: Address::from(self.ip),
            port: self.port,
            protocol: self.protocol,
            port_hidden: self.hidden.into(),
        }
    }
}

/// AS numbers of the organisations that rules name; one owns nothing.
pub fn organisation(name: &str) -> Vec<u32> {
    match name {
        "one" => vec![1],
        "several" => vec![2, 3, 4],
        _ => vec![],
    }
}

/// Ranges of addresses, ascending and not overlapping.
#[derive(Clone, Debug)]
pub struct Table<V> {
    pub v4: Vec<(u32, u32, V)>,
    pub v6: Vec<(u128, u128, V)>,
}

impl<V: Copy + Sync> Ranges<V> for Table<V> {
    fn v4(&self) -> Box<dyn Iterator<Item = (u32, u32, V)> + '_> {
        Box::new(self.v4.iter().copied())
    }

    fn v6(&self) -> Box<dyn Iterator<Item = (u128, u128, V)> + '_> {
        Box::new(self.v6.iter().copied())
    }
}

/// Few addresses, so that what is named overlaps and touches.
const V4: [u32; 12] = [
    0,
    1,
    0x0a00_0000,
    0x0a00_00ff,
    0x0a00_0100,
    0x0aff_ffff,
    0x6ef2_4442,
    0x7f00_0001,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    u32::MAX,
];

const V6: [u128; 8] = [
    0,
    1,
    0x2001_0db8 << 96,
    0x2001_0db8_0000_0001 << 64,
    0x2400_3200 << 96 | 1,
    1 << 127,
    u128::MAX - 1,
    u128::MAX,
];

const PORTS: [u16; 12] = [0, 1, 53, 80, 255, 256, 443, 1024, 8000, 8999, 65534, 65535];

const ASNS: [u32; 5] = [1, 2, 3, 4, 5];

fn v4() -> impl Strategy<Value = u32> {
    prop_oneof![4 => select(&V4[..]), 1 => any::<u32>()]
}

/// How an IPv6 address can carry an IPv4 address.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    Mapped,
    Nat64,
    SixToFour,
    Teredo,
    /// Looks like one of them and carries nothing.
    Compatible,
}

const FORMS: [Form; 5] =
    [Form::Mapped, Form::Nat64, Form::SixToFour, Form::Teredo, Form::Compatible];

impl Form {
    fn wrap(self, inner: u32, rest: u32) -> u128 {
        let (inner, rest) = (u128::from(inner), u128::from(rest));
        match self {
            Self::Mapped => 0xffff << 32 | inner,
            Self::Nat64 => 0x0064_ff9b << 96 | inner,
            Self::SixToFour => 0x2002 << 112 | inner << 80 | rest,
            Self::Teredo => 0x2001_0000 << 96 | rest << 64 | (inner ^ 0xffff_ffff),
            Self::Compatible => inner,
        }
    }
}

fn v6() -> impl Strategy<Value = u128> {
    prop_oneof![
        3 => select(&V6[..]),
        3 => (select(&FORMS[..]), v4(), select(&[0, 1, u32::MAX][..]))
            .prop_map(|(form, inner, rest)| form.wrap(inner, rest)),
        1 => any::<u128>(),
    ]
}

fn network() -> impl Strategy<Value = IpNet> {
    let len_v4 = prop_oneof![select(&[0u8, 8, 16, 24, 31, 32][..]), 0..=32u8];
    let len_v6 = prop_oneof![select(&[0u8, 16, 32, 64, 80, 95, 96, 104, 127, 128][..]), 0..=128u8];
    prop_oneof![
        (v4(), len_v4).prop_map(|(bits, len)| {
            IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(bits), len).unwrap())
        }),
        (v6(), len_v6).prop_map(|(bits, len)| {
            IpNet::V6(Ipv6Net::new(Ipv6Addr::from_bits(bits), len).unwrap())
        }),
    ]
}

fn countries() -> Vec<Country> {
    ["CN", "HK", "RU", "US"].into_iter().filter_map(Country::from_code).collect()
}

/// Few names, so that entries stand below and beside each other.
const NAMES: [&str; 10] = [
    "com",
    "b.com",
    "a.b.com",
    "x.a.b.com",
    "c.com",
    "evilb.com",
    "b-com",
    "b.com.org",
    "org",
    "z.y.x.w.v.u.org",
];

fn domain() -> impl Strategy<Value = Domain> {
    let scope = select(&[Scope::Exact, Scope::Below, Scope::Tree, Scope::Tree][..]);
    (select(&NAMES[..]), scope).prop_map(|(name, scope)| Domain { name: name.to_owned(), scope })
}

fn list() -> impl Strategy<Value = Arc<List>> {
    let domains = |most| prop::collection::vec(domain(), 0..=most);
    (domains(5), domains(2), prop::collection::vec(network(), 0..=1)).prop_map(
        |(domains, exceptions, networks)| {
            Arc::new(List {
                domains: domains.into_iter().collect(),
                exceptions: exceptions.into_iter().collect(),
                networks,
                ..List::empty("list")
            })
        },
    )
}

/// A name that entries speak of, one below it, or one that looks like it.
fn known() -> impl Strategy<Value = Known> {
    let name = (select(&NAMES[..]), select(&["", "", "", "y.", "b.", "evil", "a.b."][..]))
        .prop_map(|(name, before)| format!("{before}{name}"));
    let trusted = prop::bool::weighted(0.7);
    let names = prop_oneof![
        2 => prop::collection::vec(name.clone(), 0..=1),
        1 => prop::collection::vec(name, 2..=4),
    ];
    (names, trusted).prop_map(|(names, trusted)| Known { names, trusted })
}

fn destinations(lists: Vec<Arc<List>>) -> impl Strategy<Value = Destinations> {
    let names = prop_oneof![
        1 => (Just(Vec::new()), Just(Vec::new())),
        1 => (
            prop::collection::vec(domain(), 0..=3),
            prop::collection::vec(select(lists), 0..=1),
        ),
    ];
    (by_address(), names, prop::bool::weighted(0.3)).prop_map(
        |(to, (domains, lists), names_alone)| {
            let to = if names_alone { Destinations::default() } else { to };
            Destinations { domains, lists, ..to }
        },
    )
}

fn by_address() -> impl Strategy<Value = Destinations> {
    (
        prop::collection::vec(select(countries()), 0..=2),
        prop::collection::vec(select(&["one", "several", "none"][..]), 0..=1),
        prop::collection::vec(select(&ASNS[..]), 0..=2),
        prop::collection::vec(network(), 0..=3),
    )
        .prop_map(|(jurisdictions, organisations, asns, networks)| Destinations {
            jurisdictions,
            organisations: organisations.into_iter().map(str::to_owned).collect(),
            asns,
            networks,
            ..Destinations::default()
        })
}

fn ports() -> impl Strategy<Value = Ports> {
    let protocol = prop_oneof![
        6 => select(&[TCP, UDP][..]),
        3 => select(&[ICMP, ICMPV6, SCTP, UDPLITE, 0, 47, 255][..]),
        1 => any::<u8>(),
    ];
    let port = || prop_oneof![4 => select(&PORTS[..]), 1 => any::<u16>()];
    (protocol, port(), port(), any::<bool>()).prop_map(|(protocol, a, b, single)| {
        let ports = match (has_ports(protocol), single) {
            (false, _) => 0..=u16::MAX,
            (true, true) => a..=a,
            (true, false) => a.min(b)..=a.max(b),
        };
        Ports { protocol, ports }
    })
}

/// Few of each kind, so that they overlap. None is behind a link of this machine.
const SELECTORS: [&str; 26] = [
    "*",
    "kernel",
    "unknown",
    "exe:/x/bin/a",
    "exe:/x/bin/a",
    "exe:/x/bin/ab",
    "exe:/x/bin/*",
    "exe:/x/**",
    "exe:**/a",
    "exe:/x/**/a",
    "exe:/y/?",
    "exe:/y/[!a-c]x",
    "exe:/x/{bin,lib}/b*",
    "script:/x/s.py",
    "script:**/*.py",
    "cgroup:/s.slice",
    "cgroup:/*.slice/a",
    "unit:a.service",
    "unit:app-*.scope",
    "flatpak:org.x.a-b",
    "snap:a",
    "container:0123456789ab",
    "user:0",
    "user:1000",
    "group:0",
    "group:4294967294",
];

const EXECUTABLES: [&str; 14] = [
    "",
    "/",
    "/a",
    "/x/bin/a",
    "/x/bin/a/a",
    "/x/bin/ab",
    "/x/bin/abc",
    "/x/bin/b\n",
    "/x/lib/b",
    "/x/lib/bc/b",
    "/y/a",
    "/y/dx",
    "/y/ax",
    "/x/bin/",
];

const SCRIPTS: [&str; 5] = ["", "/x/s.py", "/x/s.pyc", "/x/.py", "/s.py/a"];

const CGROUPS: [&str; 16] = [
    "",
    "/",
    "/s.slice",
    "/s.slicer",
    "/s.slice/a",
    "/s.slice/a.service",
    "/a.service/b",
    "/x.service/a.service",
    "/s.slice/user@1.service/a.service",
    "/u.slice/a/b",
    "/u.slice/app-b-1.scope",
    "/u.slice/app-flatpak-org.x.a\\x2db-77.scope",
    "/u.slice/snap.a.a-1.scope/x",
    "/u.slice/snap.ab.a.service",
    "/docker/0123456789abcdef",
    "/m.slice/libpod-0123456789ab.scope/container",
];

/// The selectors of a case: few, as each that is independent doubles the app classes.
fn selectors() -> impl Strategy<Value = Vec<Selector>> {
    let selector = select(&SELECTORS[..]).prop_map(|text| {
        let selector = policy::parse_selector(text, &Disk).unwrap();
        assert_eq!(selector.text, text);
        selector
    });
    prop::collection::vec(selector, 1..=4)
}

fn apps(selectors: Vec<Selector>) -> impl Strategy<Value = Apps> {
    let some = move |most| prop::collection::vec(select(selectors.clone()), 0..=most);
    prop_oneof![
        2 => Just(Apps::default()),
        1 => (some(3), some(1)).prop_map(|(only, except)| Apps { only, except }),
    ]
}

fn app() -> impl Strategy<Value = AppFacts> {
    let kind =
        select(&[Kind::Trusted, Kind::Trusted, Kind::Untrusted, Kind::Kernel, Kind::Unknown]);
    let number = || option::of(select(&[0, 1, 999, 1000, 1001, u32::MAX - 1, u32::MAX][..]));
    let path = |from: &'static [&'static str]| select(from).prop_map(|path| path.into());
    let exe = prop_oneof![9 => path(&EXECUTABLES), 1 => Just(b"/x/bin/\xff".to_vec())];
    (kind, exe, path(&SCRIPTS), path(&CGROUPS), number(), number()).prop_map(
        |(kind, exe, script, cgroup, uid, gid)| AppFacts { kind, exe, script, cgroup, uid, gid },
    )
}

fn rule(lists: Vec<Arc<List>>, selectors: Vec<Selector>) -> impl Strategy<Value = Rule> {
    let to = (destinations(lists.clone()), option::weighted(0.4, destinations(lists)))
        .prop_map(|(to, except)| Destinations { except: except.map(Box::new), ..to });
    (
        select(&[Action::Allow, Action::Log, Action::Drop, Action::Drop][..]),
        option::weighted(0.85, to),
        prop_oneof![Just(vec![]), prop::collection::vec(ports(), 1..=3)],
        apps(selectors),
    )
        .prop_map(|(action, to, ports, apps)| Rule {
            name: String::new(),
            action,
            to,
            ports,
            apps,
            until: None,
        })
}

fn policy(lists: Vec<Arc<List>>, selectors: Vec<Selector>) -> impl Strategy<Value = Policy> {
    (
        select(&[Mode::Enforce, Mode::Enforce, Mode::Observe][..]),
        0..=2u32,
        option::weighted(0.3, drop_or_allow()),
        prop_oneof![2 => Just(Apps::default()), 1 => apps(selectors.clone())],
        prop::collection::vec(rule(lists, selectors), 0..=4),
    )
        .prop_map(|(mode, priority, default, apps, mut rules)| {
            for (place, rule) in rules.iter_mut().enumerate() {
                rule.name = format!("r{place}");
            }
            Policy {
                name: String::new(),
                description: String::new(),
                mode,
                priority,
                default,
                apps,
                rules,
            }
        })
}

fn drop_or_allow() -> impl Strategy<Value = Default> {
    select(&[Default::Allow, Default::Drop][..])
}

fn policies(lists: Vec<Arc<List>>, selectors: Vec<Selector>) -> impl Strategy<Value = Vec<Policy>> {
    let names = Just(["a", "b", "c", "ab"]).prop_shuffle();
    (prop::collection::vec(policy(lists, selectors), 0..=4), names).prop_map(
        |(mut policies, names)| {
            for (policy, name) in policies.iter_mut().zip(names) {
                policy.name = name.to_owned();
            }
            policies
        },
    )
}

/// Cuts the address space and gives each piece a value or none.
fn table<V: Copy + std::fmt::Debug + 'static>(values: Vec<V>) -> impl Strategy<Value = Table<V>> {
    const CUTS: usize = 7;
    let values =
        move || prop::collection::vec(option::weighted(0.6, select(values.clone())), CUTS + 1);
    (
        prop::collection::btree_set(v4(), 0..=CUTS),
        values(),
        prop::collection::btree_set(v6(), 0..=CUTS),
        values(),
    )
        .prop_map(|(cuts_v4, values_v4, cuts_v6, values_v6)| {
            let cuts_v4 = cuts_v4.into_iter().map(u128::from).collect();
            let narrow = |(first, last, value)| (first as u32, last as u32, value);
            let v4 = pieces(cuts_v4, u32::MAX.into(), values_v4);
            // What is IPv4-mapped is in no table of IPv6.
            let is_mapped = |cut: &u128| *cut >> 32 == 0xffff;
            let cuts_v6 = cuts_v6.into_iter().filter(|cut| !is_mapped(cut)).collect();
            let v6 = pieces(cuts_v6, u128::MAX, values_v6);
            Table { v4: v4.into_iter().map(narrow).collect(), v6 }
        })
}

fn pieces<V>(cuts: Vec<u128>, max: u128, values: Vec<Option<V>>) -> Vec<(u128, u128, V)> {
    let mut starts = cuts;
    if starts.first() != Some(&0) {
        starts.insert(0, 0);
    }
    let lasts: Vec<u128> = starts[1..].iter().map(|start| start - 1).chain([max]).collect();
    let ranges = starts.into_iter().zip(lasts).zip(values);
    ranges.filter_map(|((first, last), value)| Some((first, last, value?))).collect()
}

fn settings() -> impl Strategy<Value = Settings> {
    let observe = prop::bool::weighted(0.2);
    (drop_or_allow(), drop_or_allow(), prop::bool::weighted(0.8), observe).prop_map(
        |(default, unparsable, record_allow, observe)| Settings {
            observe,
            default,
            on_deny: OnDeny::Refuse,
            inbound: Inbound::Allow,
            unparsable,
            record_allow,
            ..Settings::default()
        },
    )
}

/// A choice among the boundaries of a case, whatever they are.
#[derive(Clone, Debug)]
struct Pick {
    address: Index,
    step: i8,
    family: Family,
    rest: u32,
    port: Index,
    port_step: i8,
    hidden: bool,
}

#[derive(Clone, Copy, Debug)]
enum Family {
    V4,
    V6,
    /// A boundary of IPv4 in an IPv6 address.
    Inside(Form),
    Random(u128),
}

fn pick() -> impl Strategy<Value = Pick> {
    let family = prop_oneof![
        4 => Just(Family::V4),
        3 => Just(Family::V6),
        4 => select(&FORMS[..]).prop_map(Family::Inside),
        1 => any::<u128>().prop_map(Family::Random),
    ];
    let step = || select(&[0i8, 0, -1, 1][..]);
    (
        any::<Index>(),
        step(),
        family,
        select(&[0, 1, u32::MAX][..]),
        any::<Index>(),
        step(),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(address, step, family, rest, port, port_step, hidden)| Pick {
            address,
            step,
            family,
            rest,
            port,
            port_step,
            hidden,
        })
}

/// Where something starts or ends, in each family and over protocols and ports.
pub struct Boundaries {
    pub v4: Vec<u32>,
    pub v6: Vec<u128>,
    pub ports: Vec<(u8, u16)>,
}

impl Boundaries {
    pub fn of(case: &Case) -> Self {
        let mut all = Self {
            v4: vec![0, u32::MAX, 0x0a00_0001],
            v6: vec![0, u128::MAX, 0x2001_0db8 << 96],
            ports: vec![(TCP, 443), (UDP, 53), (ICMP, 0), (ICMPV6, 0), (47, 0), (SCTP, 1)],
        };
        for rule in case.policies.iter().flat_map(|policy| &policy.rules) {
            let to = rule.to.iter().chain(rule.to.iter().filter_map(|to| to.except.as_deref()));
            for to in to {
                for network in to.networks.iter().chain(to.lists.iter().flat_map(|l| &l.networks)) {
                    all.add_network(network);
                }
            }
            for Ports { protocol, ports } in &rule.ports {
                all.ports.extend([(*protocol, *ports.start()), (*protocol, *ports.end())]);
            }
        }
        let ranges_v4 = case.countries.v4.iter().map(|(first, last, _)| (first, last));
        let ranges_v4 = ranges_v4.chain(case.asns.v4.iter().map(|(first, last, _)| (first, last)));
        all.v4.extend(ranges_v4.flat_map(|(first, last)| [*first, *last]));
        let ranges_v6 = case.countries.v6.iter().map(|(first, last, _)| (first, last));
        let ranges_v6 = ranges_v6.chain(case.asns.v6.iter().map(|(first, last, _)| (first, last)));
        all.v6.extend(ranges_v6.flat_map(|(first, last)| [*first, *last]));
        all
    }

    fn add_network(&mut self, network: &IpNet) {
        match network {
            IpNet::V4(net) => {
                self.v4.extend([net.network(), net.broadcast()].map(Ipv4Addr::to_bits));
            }
            IpNet::V6(net) => {
                let ends = [net.network(), net.broadcast()];
                self.v6.extend(ends.map(Ipv6Addr::to_bits));
                self.v4.extend(
                    ends.iter().filter_map(Ipv6Addr::to_ipv4_mapped).map(Ipv4Addr::to_bits),
                );
            }
        }
    }

    fn target(&self, pick: &Pick) -> Target {
        let v4 = || {
            let boundary = self.v4[pick.address.index(self.v4.len())];
            boundary.wrapping_add_signed(pick.step.into())
        };
        let v6 = |bits| IpAddr::V6(Ipv6Addr::from_bits(bits));
        let ip = match pick.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(v4())),
            Family::V6 => {
                let boundary = self.v6[pick.address.index(self.v6.len())];
                v6(boundary.wrapping_add_signed(pick.step.into()))
            }
            Family::Inside(form) => v6(form.wrap(v4(), pick.rest)),
            Family::Random(bits) => v6(bits),
        };
        let (protocol, port) = self.ports[pick.port.index(self.ports.len())];
        let ported = has_ports(protocol);
        let hidden = pick.hidden && ported;
        let port =
            if ported && !hidden { port.wrapping_add_signed(pick.port_step.into()) } else { 0 };
        Target { ip, protocol, port, hidden }
    }
}

/// A random case that asks for `targets` destinations.
pub fn case(targets: usize) -> impl Strategy<Value = Case> {
    let policies = (prop::collection::vec(list(), 1..=3), selectors())
        .prop_flat_map(|(lists, selectors)| policies(lists, selectors));
    (
        policies,
        table(countries()),
        table(ASNS.to_vec()),
        settings(),
        prop::collection::vec(pick(), targets),
        prop::collection::vec(known(), targets),
        prop::collection::vec(app(), targets),
    )
        .prop_map(|(policies, countries, asns, settings, picks, known, apps)| {
            let targets = Vec::new();
            let mut case = Case { policies, countries, asns, settings, targets, known, apps };
            let boundaries = Boundaries::of(&case);
            case.targets = picks.iter().map(|pick| boundaries.target(pick)).collect();
            case
        })
}
