//! From selectors to app classes.
//!
//! A *term* is one list of selectors, and whether more passes where it selects an app. What is known
//! of each facet of an app satisfies some terms; what two facets satisfy together is a table of both,
//! that and the next facet one more, and at the end stands which rules and defaults hold. Apps for
//! which the same hold are of one class.

use std::collections::{BTreeMap, HashMap};

use firewall_common::{
    app::{self, Facets, Join},
    evaluate::{Cell, Tables},
    layout::Header,
};

use super::{Error, append, automaton, limited, trie::Forest};
use crate::policy::{
    Action, Default, Policy,
    selector::{AppFacts, Apps, Means, Paths, Selector, selects_every},
};

/// App classes: the kernel has 20 bits for the number of one.
const MAX_CLASSES: u32 = 1 << 20;
/// Words of the table that two facets join by.
const MAX_JOIN: u32 = 1 << 22;

/// What holds for which apps. Rules have numbers in the order in which they are tried, over all
/// policies; the defaults of policies come after them.
#[derive(Clone, Debug)]
pub struct AppClasses {
    /// By class, the rules and defaults that hold, ascending, out of those that do not always hold.
    /// Class 0 is that of an app which no selector names.
    all: Vec<Vec<u32>>,
    /// By rule or default, whether it holds for every app.
    always: Vec<bool>,
    rules: usize,
    /// For the [`Header`].
    tables: app::Apps,
}

impl AppClasses {
    /// Adds what finds the facets of an app to `forest`.
    pub fn new(policies: &[Policy], forest: &mut Forest) -> Result<Self, Error> {
        let mut terms = Terms::default();
        let mut conditions: Vec<Condition> = policies
            .iter()
            .flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)))
            .map(|(policy, rule)| {
                terms.condition(&[&policy.apps, &rule.apps], rule.action != Action::Drop)
            })
            .collect();
        let rules = conditions.len();
        conditions.extend(policies.iter().map(|policy| {
            terms.condition(&[&policy.apps], policy.default == Some(Default::Allow))
        }));
        let always = conditions.iter().map(|one| *one == Condition::default()).collect();
        let nowhere = Cell::leaf(1).0;
        let tables = app::Apps {
            classes: 1,
            paths: 1,
            exe: nowhere,
            script: nowhere,
            cgroup: nowhere,
            user: nowhere,
            group: nowhere,
            ..app::Apps::default()
        };
        let mut classes = Self { all: vec![Vec::new()], always, rules, tables };
        if !terms.all.is_empty() {
            let held = Held::new(&conditions);
            classes.all[0] = held.of(&Set::new());
            classes.find(&terms, &held, forest)?;
        }
        Ok(classes)
    }

    fn find(&mut self, terms: &Terms<'_>, held: &Held, forest: &mut Forest) -> Result<(), Error> {
        let facets = Satisfied::new(terms);
        let (exe, paths) = facets.exe.insert(forest)?;
        let (script, scripts) = facets.script.insert(forest)?;
        let (cgroup, cgroups) = facets.cgroup.insert(forest)?;
        let (user, users) = numbers(&facets.users, forest);
        let (group, groups) = numbers(&facets.groups, forest);
        self.tables = app::Apps {
            paths: limited(paths.len(), MAX_CLASSES, "kinds of executables")?,
            exe: exe.0,
            script: script.0,
            cgroup: cgroup.0,
            user: user.0,
            group: group.0,
            ..self.tables
        };
        let untrusted = paths.iter().map(|satisfied| terms.without_word(satisfied));
        // As `app::Apps::executable` numbers them.
        let mut states: Vec<Set> = untrusted.collect();
        states.extend(paths.iter().cloned());
        states.push(terms.of_kernel());
        states.push(facets.unknown.clone());
        let mut joined: Vec<(usize, Vec<u32>)> = Vec::new();
        for (place, other) in [scripts, cgroups, users, groups].into_iter().enumerate() {
            if other.len() > 1 {
                let (table, all) = join(&states, &other)?;
                self.tables.joins[place] = Join { first: 0, width: other.len() as u32 };
                joined.push((place, table));
                states = all;
            }
        }
        let mut holding = Sets::starting(self.all[0].clone());
        let classes: Vec<u32> = states.iter().map(|state| holding.number(held.of(state))).collect();
        self.all = holding.all;
        self.tables.classes = limited(self.all.len(), MAX_CLASSES, "classes of apps")?;
        match joined.last_mut() {
            Some((_, last)) => {
                last.iter_mut().for_each(|state| *state = classes[*state as usize]);
            }
            // Only executables are asked for. What is not told apart by them is put together by the
            // table of a facet of which there is one number.
            None => {
                self.tables.joins[3].width = 2;
                joined.push((3, classes.iter().flat_map(|class| [*class, *class]).collect()));
            }
        }
        for (place, table) in joined {
            self.tables.joins[place].first = append(&mut forest.blocks, table.into_iter());
        }
        Ok(())
    }

    /// Says in `header` how to find the class of an app.
    pub fn tell(&self, header: &mut Header) {
        header.apps = self.tables;
    }

    /// The numbers of all classes.
    pub fn all(&self) -> std::ops::Range<usize> {
        0..self.all.len()
    }

    /// Whether a rule holds for a class.
    pub fn holds(&self, class: usize, rule: u32) -> bool {
        self.always(rule) || self.all[class].binary_search(&rule).is_ok()
    }

    /// Whether a rule holds for all apps.
    pub fn always(&self, rule: u32) -> bool {
        self.always[rule as usize]
    }

    /// Whether a policy's default holds for a class.
    pub fn default_holds(&self, class: usize, policy: usize) -> bool {
        self.holds(class, (self.rules + policy) as u32)
    }

    /// The class of an app.
    pub fn class(&self, tables: &impl Tables, header: &Header, facts: &AppFacts) -> u32 {
        let apps = &header.apps;
        let known = |root: u32, number: Option<u32>| match number {
            Some(number) => app::id(tables, root, number),
            None => 0,
        };
        let facets = Facets {
            exe: apps.executable(facts.kind, app::path(tables, apps.exe, &facts.exe)),
            script: app::path(tables, apps.script, &facts.script),
            cgroup: app::path(tables, apps.cgroup, &facts.cgroup),
            user: known(apps.user, facts.uid),
            group: known(apps.group, facts.gid),
        };
        app::class(tables, header, &facets)
    }
}

/// Numbers of terms, or of rules and defaults, ascending. [`KERNEL`] stands at the end.
type Set = Vec<u32>;

/// In place of a term: nothing else is known of the app, whatever its other facets are.
const KERNEL: u32 = u32::MAX;

/// What must be satisfied for a rule or default to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Condition {
    all: Vec<u32>,
    none: Vec<u32>,
}

/// Lists of selectors.
#[derive(Default)]
struct Terms<'a> {
    /// Each once, with whether more passes where it selects an app.
    all: Vec<(&'a [Selector], bool)>,
    numbers: HashMap<(Vec<&'a Means>, bool), u32>,
}

impl<'a> Terms<'a> {
    /// What must be satisfied for something that holds for the apps of all of `of`, and whether more
    /// passes where it holds.
    fn condition(&mut self, of: &[&'a Apps], widens: bool) -> Condition {
        let mut condition = Condition::default();
        for Apps { only, except } in of {
            if !selects_every(only) {
                condition.all.push(self.of(only, widens));
            }
            if except.iter().any(|selector| selector.means == Means::Every) {
                // Nothing satisfies an empty list.
                condition.all.push(self.of(&[], widens));
            } else if !except.is_empty() {
                condition.none.push(self.of(except, !widens));
            }
        }
        condition
    }

    fn of(&mut self, list: &'a [Selector], widens: bool) -> u32 {
        let forged = |one: &Selector| matches!(one.means, Means::Exe(_) | Means::Script(_));
        let widens = widens && list.iter().any(forged);
        let means = list.iter().map(|selector| &selector.means).collect();
        *self.numbers.entry((means, widens)).or_insert_with(|| {
            self.all.push((list, widens));
            self.all.len() as u32 - 1
        })
    }

    fn widens(&self, term: u32) -> bool {
        self.all[term as usize].1
    }

    /// What is left of `satisfied` for an app that could have made up what satisfies it.
    fn without_word(&self, satisfied: &Set) -> Set {
        satisfied.iter().copied().filter(|term| !self.widens(*term)).collect()
    }

    fn of_kernel(&self) -> Set {
        let names = |means: &Means| matches!(means, Means::Kernel | Means::Every);
        let lists = self.all.iter().zip(0..);
        let named = lists.filter(|((list, _), _)| list.iter().any(|one| names(&one.means)));
        named.map(|(_, term)| term).chain([KERNEL]).collect()
    }
}

/// Paths, each with the terms that one of them satisfies.
#[derive(Default)]
struct Named<'a>(HashMap<&'a Paths, Set>);

impl<'a> Named<'a> {
    fn add(&mut self, paths: &'a Paths, term: u32) {
        insert(self.0.entry(paths).or_default(), term);
    }

    /// Where paths start in `forest`, and what each number of a path satisfies.
    fn insert(&self, forest: &mut Forest) -> Result<(Cell, Vec<Set>), Error> {
        if self.0.is_empty() {
            return Ok((Cell::leaf(1), vec![Set::new()]));
        }
        let mut sets = Sets::new();
        // What satisfies the same is told apart by nothing: the automaton is smaller for it.
        let mut alike: BTreeMap<&Set, Vec<String>> = BTreeMap::new();
        for (paths, terms) in &self.0 {
            alike.entry(terms).or_default().push(paths.regex());
        }
        let (terms, regexes): (Vec<&Set>, Vec<String>) = alike
            .into_iter()
            .map(|(terms, mut regexes)| {
                regexes.sort_unstable();
                (terms, regexes.join("|"))
            })
            .unzip();
        let root = automaton::insert(forest, &regexes, |matched| {
            let mut satisfied: Set = matched.iter().flat_map(|one| terms[*one]).copied().collect();
            satisfied.sort_unstable();
            satisfied.dedup();
            sets.number(satisfied)
        })?;
        Ok((root, sets.all))
    }
}

/// What is satisfied by each facet.
#[derive(Default)]
struct Satisfied<'a> {
    exe: Named<'a>,
    script: Named<'a>,
    cgroup: Named<'a>,
    users: BTreeMap<u32, Set>,
    groups: BTreeMap<u32, Set>,
    unknown: Set,
}

impl<'a> Satisfied<'a> {
    fn new(terms: &Terms<'a>) -> Self {
        let mut facets = Self::default();
        for ((list, widens), term) in terms.all.iter().zip(0..) {
            for selector in *list {
                match &selector.means {
                    Means::Exe(paths) => facets.exe.add(paths, term),
                    Means::Script(_) if *widens => {}
                    Means::Script(paths) => facets.script.add(paths, term),
                    Means::Cgroup(paths) => facets.cgroup.add(paths, term),
                    Means::User(number) => insert(facets.users.entry(*number).or_default(), term),
                    Means::Group(number) => insert(facets.groups.entry(*number).or_default(), term),
                    Means::Unknown => insert(&mut facets.unknown, term),
                    // Of the kernel see [`Terms::of_kernel`].
                    Means::Kernel | Means::Every => {}
                }
            }
        }
        facets
    }
}

/// Terms come in order.
fn insert(set: &mut Set, term: u32) {
    if set.last() != Some(&term) {
        set.push(term);
    }
}

/// Sets of terms, or of what holds by them, each once.
struct Sets {
    all: Vec<Set>,
    numbers: HashMap<Set, u32>,
}

impl Sets {
    /// With the empty set as number 0.
    fn new() -> Self {
        Self::starting(Set::new())
    }

    fn starting(zero: Set) -> Self {
        Self { all: vec![zero.clone()], numbers: HashMap::from([(zero, 0)]) }
    }

    fn number(&mut self, set: Set) -> u32 {
        *self.numbers.entry(set).or_insert_with_key(|set| {
            self.all.push(set.clone());
            self.all.len() as u32 - 1
        })
    }
}

/// As [`Named::insert`], of users or groups by their numbers.
fn numbers(satisfied: &BTreeMap<u32, Set>, forest: &mut Forest) -> (Cell, Vec<Set>) {
    let mut sets = Sets::new();
    let mut steps = vec![(0, Cell::leaf(1))];
    for (number, set) in satisfied {
        let cell = Cell::leaf(sets.number(set.clone()) + 1);
        let number = u128::from(*number);
        steps.retain(|(at, _)| *at != number);
        steps.push((number, cell));
        if number < u128::from(u32::MAX) {
            steps.push((number + 1, Cell::leaf(1)));
        }
    }
    (forest.insert(&steps, 4), sets.all)
}

/// What each of `one` and each of `other` satisfy together: the table, by number, and the sets.
fn join(one: &[Set], other: &[Set]) -> Result<(Vec<u32>, Vec<Set>), Error> {
    limited(one.len().saturating_mul(other.len()), MAX_JOIN, "ways for selectors of apps to meet")?;
    let mut sets = Sets::new();
    let mut table = Vec::with_capacity(one.len() * other.len());
    for one in one {
        for other in other {
            let mut both = one.clone();
            if one.last() != Some(&KERNEL) && !other.is_empty() {
                both.extend(other);
                both.sort_unstable();
                both.dedup();
            }
            table.push(sets.number(both));
        }
    }
    Ok((table, sets.all))
}

/// Finds what holds where terms are satisfied.
struct Held<'a> {
    conditions: &'a [Condition],
    /// By term: what it is the first condition of.
    first: HashMap<u32, Vec<u32>>,
    /// What must only not be taken out.
    unless: Vec<u32>,
}

impl<'a> Held<'a> {
    fn new(conditions: &'a [Condition]) -> Self {
        let mut first: HashMap<u32, Vec<u32>> = HashMap::new();
        let mut unless = Vec::new();
        for (condition, holder) in conditions.iter().zip(0..) {
            match condition.all.first() {
                Some(term) => first.entry(*term).or_default().push(holder),
                None if condition.none.is_empty() => {}
                None => unless.push(holder),
            }
        }
        Self { conditions, first, unless }
    }

    /// The rules and defaults that hold, ascending, out of those that do not always hold.
    fn of(&self, satisfied: &Set) -> Vec<u32> {
        let is = |term: &u32| satisfied.binary_search(term).is_ok();
        let holds = |holder: &&u32| {
            let Condition { all, none } = &self.conditions[**holder as usize];
            all.iter().all(is) && !none.iter().any(is)
        };
        let first = satisfied.iter().filter_map(|term| self.first.get(term)).flatten();
        let mut holding: Vec<u32> = first.chain(&self.unless).filter(holds).copied().collect();
        holding.sort_unstable();
        holding
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use firewall_common::app::Kind;

    use super::*;
    use crate::policy::{
        self, Destinations, Mode, Rule,
        compile::{Facts, Generation, Settings, compile},
        source::Disk,
    };

    fn only(texts: &[&str]) -> Apps {
        let of = |text: &&str| policy::parse_selector(text, &Disk).unwrap();
        Apps { only: texts.iter().map(of).collect(), except: Vec::new() }
    }

    fn rule(action: Action, apps: Apps) -> Rule {
        let to = Some(Destinations {
            networks: vec!["192.0.2.0/24".parse().unwrap()],
            ..Destinations::default()
        });
        Rule { name: "r".to_owned(), action, to, ports: Vec::new(), apps, until: None }
    }

    fn generation(rules: Vec<Rule>) -> Result<Generation, Error> {
        let policy = Policy {
            name: "p".to_owned(),
            description: String::new(),
            mode: Mode::Enforce,
            priority: 100,
            default: None,
            apps: Apps::default(),
            rules,
        };
        let facts = Facts { countries: None, asns: None, organisation: &|_| vec![] };
        compile(vec![policy], facts, Settings::default())
    }

    fn class(generation: &Generation, kind: Kind, exe: &str) -> u32 {
        generation.class_of_app(&AppFacts { kind, exe: exe.into(), ..AppFacts::default() })
    }

    /// Paths as they are on a machine: many in few folders.
    fn path(number: u32) -> String {
        let mixed = number.wrapping_mul(2_654_435_761);
        match number % 4 {
            0 => format!("/usr/bin/tool-{mixed:x}"),
            1 => format!("/usr/lib/app-{number}/helper"),
            2 => format!("/opt/vendor{}/bin/app{mixed:x}", number % 50),
            _ => format!("/home/ada/.local/share/thing/{mixed:x}/run"),
        }
    }

    fn selectors(count: u32) -> Vec<String> {
        (0..count).map(|number| format!("exe:{}", path(number))).collect()
    }

    #[test]
    fn without_selectors_nothing_is_looked_up() {
        let all = [Apps::default(), only(&["*"]), only(&["exe:/a", "*"])];
        let all = generation(all.map(|apps| rule(Action::Drop, apps)).into()).unwrap();
        assert_eq!(all.header.apps.classes, 1);
        assert_eq!(class(&all, Kind::Trusted, "/a"), 0);
    }

    #[test]
    fn a_thousand_selectors_of_one_rule_are_two_classes() {
        let texts = selectors(1000);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let start = Instant::now();
        let generation = generation(vec![rule(Action::Allow, only(&texts))]).unwrap();
        eprintln!("one rule: {:?}, {} blocks", start.elapsed(), generation.blocks.len());
        assert_eq!(generation.header.apps.classes, 2);
        assert!(generation.blocks.len() < 1000, "{}", generation.blocks.len());
        for number in 0..1000 {
            assert_eq!(class(&generation, Kind::Trusted, &path(number)), 1);
            // The word of one that could have made it up does not let it pass.
            assert_eq!(class(&generation, Kind::Untrusted, &path(number)), 0);
        }
        assert_eq!(class(&generation, Kind::Trusted, &path(1000)), 0);
    }

    #[test]
    fn a_thousand_rules_for_an_app_each_are_a_class_each() {
        let rules = selectors(1000).iter().map(|one| rule(Action::Drop, only(&[one]))).collect();
        let start = Instant::now();
        let generation = generation(rules).unwrap();
        eprintln!("1,000 rules: {:?}, {} blocks", start.elapsed(), generation.blocks.len());
        assert_eq!(generation.header.apps.classes, 1001);
        assert!(generation.blocks.len() < 4000, "{}", generation.blocks.len());
        assert_eq!(generation.unreachable, []);
        let of = |number| class(&generation, Kind::Untrusted, &path(number));
        let classes: std::collections::BTreeSet<u32> = (0..1000).map(of).collect();
        assert_eq!(classes.len(), 1000);
        assert!(!classes.contains(&0));
    }

    #[test]
    fn what_is_too_complex_is_an_error_and_no_end_of_memory() {
        let start = Instant::now();
        let one = format!("exe:/x/*a{}", "?".repeat(30));
        let error = generation(vec![rule(Action::Drop, only(&[&one]))]).unwrap_err();
        eprintln!("refused in {:?}", start.elapsed());
        assert_eq!(error, Error::TooComplex);
        // So are facets that do not fit together: each user with each group.
        let numbers = |kind: &str, skip: u32| -> Vec<Rule> {
            let of = |n: u32| rule(Action::Drop, only(&[&format!("{kind}:{}", n * skip)]));
            (0..3000).map(of).collect()
        };
        let error = generation([numbers("user", 1), numbers("group", 2)].concat()).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    }

    #[test]
    fn a_rule_for_some_apps_hides_none_for_others() {
        let rules = vec![
            rule(Action::Allow, only(&["exe:/a"])),
            rule(Action::Drop, only(&["exe:/a"])),
            rule(Action::Drop, only(&["exe:/b"])),
            rule(Action::Drop, Apps::default()),
            rule(Action::Drop, only(&["user:0"])),
        ];
        let generation = generation(rules).unwrap();
        // The second is hidden for those whose path is trusted, and reached by the others.
        let rules: Vec<usize> = generation.unreachable.iter().map(|one| one.rule).collect();
        assert_eq!(rules, [4]);
    }
}
