//! What a set of rules comes to, by protocol and port.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use firewall_common::{
    evaluate::{Cell, Outcome},
    verdict::Verdict,
};

use super::{Decision, Ground, Rules, Settings, apps::AppClasses};
use crate::policy::{Action, Default, Mode, Policy, Ports};

/// One decision, or one for each range of (protocol, port): it holds from its start, which is
/// `protocol << 16 | port`, up to the next. Decisions by their place in [`Numbered::cells`].
pub enum Row {
    One(usize),
    ByPort(Vec<(u128, usize)>),
}

/// The place of no decision: no rule matches, and what else is known of the flow decides.
pub const NOTHING: usize = 0;

/// Which of the rules that match a row decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// By all of them, and the defaults if none decides.
    Whole,
    /// By those that are carried out: a row beside a whole one, which says what else there is to
    /// record.
    Beside,
}

/// The decisions in the order of what they rest on.
pub struct Numbered {
    /// By number; number 0 is unused.
    pub decisions: Vec<Decision>,
    /// By the place that [`Row`] names, the leaf of the outcome; the leaf 0 at [`NOTHING`].
    pub cells: Vec<Cell>,
}

/// A decision, and where the search for it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Found {
    decision: Decision,
    /// The ground of the decision, had nobody asked only to observe.
    ended: Ground,
    /// Whether the flow is dropped then.
    drops: bool,
}

/// An app class, and what rows need to know of it.
pub struct App<'a> {
    apps: &'a AppClasses,
    class: usize,
    /// Of [`Rows::defaults`].
    defaults: usize,
}

impl App<'_> {
    /// Which of these rules hold for it.
    pub fn holding(&self, mut rules: Vec<u32>) -> Vec<u32> {
        rules.retain(|rule| self.apps.holds(self.class, *rule));
        rules
    }
}

/// Collects rows and their decisions.
pub struct Rows<'a> {
    policies: &'a [Policy],
    pub rules: &'a Rules<'a>,
    settings: &'a Settings,
    /// Each row once.
    pub all: Vec<Row>,
    numbers: HashMap<(Vec<u32>, Kind, usize), usize>,
    /// Policies whose defaults are gone through for some apps, up to the first that decides.
    defaults: Vec<Vec<usize>>,
    /// What is at place 1, 2 and so on.
    found: Vec<Found>,
    places: HashMap<Found, usize>,
    reached: Vec<bool>,
}

impl<'a> Rows<'a> {
    pub fn new(policies: &'a [Policy], rules: &'a Rules<'a>, settings: &'a Settings) -> Self {
        Self {
            policies,
            rules,
            settings,
            all: Vec::new(),
            numbers: HashMap::new(),
            defaults: Vec::new(),
            found: Vec::new(),
            places: HashMap::new(),
            reached: vec![false; rules.all.len()],
        }
    }

    /// Which rules matched somewhere.
    pub fn reached(&self) -> &[bool] {
        &self.reached
    }

    /// What rows need to know of an app class.
    pub fn app<'p>(&mut self, apps: &'p AppClasses, class: usize) -> App<'p> {
        let mut defaults = Vec::new();
        for (index, policy) in self.policies.iter().enumerate() {
            if policy.default.is_some() && apps.default_holds(class, index) {
                defaults.push(index);
                if policy.mode == Mode::Enforce {
                    break;
                }
            }
        }
        let known = self.defaults.iter().position(|known| *known == defaults);
        let defaults = known.unwrap_or_else(|| {
            self.defaults.push(defaults);
            self.defaults.len() - 1
        });
        App { apps, class, defaults }
    }

    /// The number of the row of the rules in `signature`, which ascend and hold for `app`.
    pub fn of(&mut self, signature: Vec<u32>, kind: Kind, app: &App<'_>) -> usize {
        let defaults = if kind == Kind::Whole { app.defaults } else { 0 };
        let key = (signature, kind, defaults);
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let row = self.row(&key.0, kind, defaults);
        self.all.push(row);
        self.numbers.insert(key, self.all.len() - 1);
        self.all.len() - 1
    }

    /// As with addresses, the ports are swept once: between two boundaries the same rules match.
    fn row(&mut self, signature: &[u32], kind: Kind, defaults: usize) -> Row {
        let mut active = BTreeSet::new();
        let mut events: Vec<(u32, u32, bool)> = Vec::new();
        for index in signature {
            let ports = &self.rules.all[*index as usize].rule.ports;
            if ports.is_empty() {
                active.insert(*index);
            }
            for ports in ports {
                events.push((first(ports), *index, true));
                events.push((last(ports) + 1, *index, false));
            }
        }
        events.sort_unstable();
        // A rule can name a port twice.
        let mut matched: HashMap<u32, u32> = HashMap::new();
        let mut steps: Vec<(u128, usize)> = Vec::new();
        if events.first().is_none_or(|(start, ..)| *start > 0) {
            steps.push((0, self.decide(&active, kind, defaults)));
        }
        for group in events.chunk_by(|a, b| a.0 == b.0) {
            for (_, index, starts) in group {
                let count = matched.entry(*index).or_default();
                *count = if *starts { *count + 1 } else { *count - 1 };
                if *count > 0 {
                    active.insert(*index);
                } else {
                    active.remove(index);
                }
            }
            let start = group[0].0;
            if start >= 1 << 24 {
                break;
            }
            let decision = self.decide(&active, kind, defaults);
            if steps.last().is_none_or(|(_, last)| *last != decision) {
                steps.push((start.into(), decision));
            }
        }
        match steps[..] {
            [(_, decision)] => Row::One(decision),
            _ => Row::ByPort(steps),
        }
    }

    /// Tries the rules that match, in order.
    fn decide(&mut self, matching: &BTreeSet<u32>, kind: Kind, defaults: usize) -> usize {
        let mut observed = Vec::new();
        // A policy that only observes would have been done with the flow at its first match.
        let mut done = Vec::new();
        for &index in matching {
            let placed = self.rules.all[index as usize];
            match placed.mode {
                Mode::Enforce => {
                    self.reached[index as usize] = true;
                    return self.place(self.rules.ground(index), placed.rule.action, observed);
                }
                Mode::Observe if kind == Kind::Beside || done.contains(&placed.policy) => {}
                Mode::Observe => {
                    self.reached[index as usize] = true;
                    done.push(placed.policy);
                    if placed.drops() {
                        observed.push(self.rules.ground(index));
                    }
                }
            }
        }
        if kind == Kind::Beside {
            return NOTHING;
        }
        let (ground, action) = self.default(&done, &mut observed, defaults);
        self.place(ground, action, observed)
    }

    /// The place of the decision about a question of `app` for a name that the rules in `matched`
    /// match by name, in order.
    ///
    /// What ports or addresses could make another of is left to the flow that comes after. Without a
    /// rule it passes if some address could be reached.
    pub fn question(&mut self, matched: &[u32], reaches: bool, app: &App<'_>) -> usize {
        let mut observed = Vec::new();
        let mut done = Vec::new();
        for &index in matched {
            let placed = self.rules.all[index as usize];
            if done.contains(&placed.policy)
                || placed.drops() && (!placed.rule.ports.is_empty() || placed.excepts_addresses)
            {
                continue;
            }
            self.reached[index as usize] = true;
            match placed.mode {
                Mode::Enforce => {
                    return self.place(self.rules.ground(index), placed.rule.action, observed);
                }
                Mode::Observe => {
                    done.push(placed.policy);
                    if placed.drops() {
                        observed.push(self.rules.ground(index));
                    }
                }
            }
        }
        // What defaults that are only observed would do is not asked: it takes all of the rules.
        let (ground, action) = self.default(&done, &mut Vec::new(), app.defaults);
        match (action == Action::Drop, reaches) {
            (true, false) | (false, true) => self.place(ground, action, observed),
            (true, true) => self.place(Ground::Question, Action::Allow, observed),
            (false, false) => self.place(Ground::Question, Action::Drop, observed),
        }
    }

    /// Whether something in one of these rows passes.
    pub fn passes(&self, mut rows: impl Iterator<Item = usize>) -> bool {
        let passes = |place: usize| !self.found[place - 1].drops;
        rows.any(|row| match &self.all[row] {
            Row::One(place) => passes(*place),
            Row::ByPort(steps) => steps.iter().any(|(_, place)| passes(*place)),
        })
    }

    fn place(&mut self, ended: Ground, action: Action, mut observed: Vec<Ground>) -> usize {
        let drops = action == Action::Drop;
        let (mut ground, mut action) = (ended, action);
        if self.settings.observe && drops {
            observed.push(ground);
            (ground, action) = (Ground::Default, Action::Allow);
        }
        let verdict = match action {
            Action::Drop => Verdict::Deny,
            Action::Log => Verdict::Audit,
            Action::Allow if observed.is_empty() => Verdict::Allow,
            Action::Allow => Verdict::Audit,
        };
        let found = Found { decision: Decision { verdict, ground, observed }, ended, drops };
        if let Some(place) = self.places.get(&found) {
            return *place;
        }
        self.found.push(found.clone());
        self.places.insert(found, self.found.len());
        self.found.len()
    }

    fn default(
        &self,
        done: &[usize],
        observed: &mut Vec<Ground>,
        defaults: usize,
    ) -> (Ground, Action) {
        let action = |default| match default {
            Default::Allow => Action::Allow,
            Default::Drop => Action::Drop,
        };
        for index in self.defaults[defaults].iter().copied() {
            let policy = &self.policies[index];
            let Some(default) = policy.default else { continue };
            let ground = Ground::PolicyDefault { policy: index };
            match policy.mode {
                Mode::Enforce => return (ground, action(default)),
                Mode::Observe if default == Default::Drop && !done.contains(&index) => {
                    observed.push(ground);
                }
                Mode::Observe => {}
            }
        }
        (Ground::Default, action(self.settings.default))
    }

    /// Numbers the decisions so that of two, the one whose search ended first has the lower
    /// number, and of those that ended at the same the one that has more to record.
    pub fn number(&self) -> Numbered {
        let mut order: Vec<usize> = (0..self.found.len()).collect();
        order.sort_by_key(|index| {
            let Found { decision: Decision { observed, .. }, ended, .. } = &self.found[*index];
            (*ended, Reverse(observed.len()), observed)
        });
        let unused =
            Decision { verdict: Verdict::Deny, ground: Ground::Default, observed: Vec::new() };
        let mut decisions = vec![unused];
        let mut cells = vec![Cell::leaf(0); self.found.len() + 1];
        for index in order {
            let decision = self.found[index].decision.clone();
            let outcome = Outcome { decision: decisions.len() as u32, verdict: decision.verdict };
            cells[index + 1] = outcome.cell();
            decisions.push(decision);
        }
        Numbered { decisions, cells }
    }
}

fn first(ports: &Ports) -> u32 {
    u32::from(ports.protocol) << 16 | u32::from(*ports.ports.start())
}

fn last(ports: &Ports) -> u32 {
    u32::from(ports.protocol) << 16 | u32::from(*ports.ports.end())
}
