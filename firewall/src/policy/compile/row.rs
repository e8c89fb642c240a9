//! What each destination class gets, by protocol and port.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use firewall_common::{
    evaluate::{Cell, Outcome},
    verdict::Verdict,
};

use super::{Decision, Ground, Rules, Settings};
use crate::policy::{Action, Default, Mode, Policy, Ports};

/// One decision, or one for each range of (protocol, port): it holds from its start, which is
/// `protocol << 16 | port`, up to the next. Decisions by their place in [`Numbered::cells`].
pub enum Row {
    One(usize),
    ByPort(Vec<(u128, usize)>),
}

/// The decisions in the order of what they rest on.
pub struct Numbered {
    /// By number; number 0 is unused.
    pub decisions: Vec<Decision>,
    /// By the place that [`Row`] names, the leaf of the outcome.
    pub cells: Vec<Cell>,
}

/// Collects the decisions of all classes.
pub struct Rows<'a> {
    policies: &'a [Policy],
    rules: &'a Rules<'a>,
    settings: &'a Settings,
    found: Vec<Decision>,
    places: HashMap<Decision, usize>,
    reached: Vec<bool>,
}

impl<'a> Rows<'a> {
    pub fn new(policies: &'a [Policy], rules: &'a Rules<'a>, settings: &'a Settings) -> Self {
        Self {
            policies,
            rules,
            settings,
            found: Vec::new(),
            places: HashMap::new(),
            reached: vec![false; rules.all.len()],
        }
    }

    /// Which rules matched somewhere.
    pub fn reached(&self) -> &[bool] {
        &self.reached
    }

    /// The row of the class in which the rules of `signature` match by address.
    ///
    /// As with addresses, the ports are swept once: between two boundaries the same rules match.
    pub fn of_class(&mut self, signature: &[u32]) -> Row {
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
            steps.push((0, self.decide(&active)));
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
            let decision = self.decide(&active);
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
    fn decide(&mut self, matching: &BTreeSet<u32>) -> usize {
        let mut observed = Vec::new();
        // A policy that only observes would have been done with the flow at its first match.
        let mut done = Vec::new();
        let mut ground = None;
        for &index in matching {
            let placed = self.rules.all[index as usize];
            match placed.mode {
                Mode::Enforce => {
                    self.reached[index as usize] = true;
                    ground = Some((self.rules.ground(index), placed.rule.action));
                    break;
                }
                Mode::Observe if done.contains(&placed.policy) => {}
                Mode::Observe => {
                    self.reached[index as usize] = true;
                    done.push(placed.policy);
                    if placed.drops() {
                        observed.push(self.rules.ground(index));
                    }
                }
            }
        }
        let (mut ground, mut action) = ground.unwrap_or_else(|| self.default(&done, &mut observed));
        if self.settings.observe && action == Action::Drop {
            observed.push(ground);
            (ground, action) = (Ground::Default, Action::Allow);
        }
        let verdict = match action {
            Action::Drop => Verdict::Deny,
            Action::Log => Verdict::Audit,
            Action::Allow if observed.is_empty() => Verdict::Allow,
            Action::Allow => Verdict::Audit,
        };
        let decision = Decision { verdict, ground, observed };
        if let Some(place) = self.places.get(&decision) {
            return *place;
        }
        let place = self.found.len();
        self.found.push(decision.clone());
        self.places.insert(decision, place);
        place
    }

    fn default(&self, done: &[usize], observed: &mut Vec<Ground>) -> (Ground, Action) {
        let action = |default| match default {
            Default::Allow => Action::Allow,
            Default::Drop => Action::Drop,
        };
        for (index, policy) in self.policies.iter().enumerate() {
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

    /// Numbers the decisions so that of two, the one whose ground comes first has the lower
    /// number, and of the same ground the one that has more to record.
    pub fn number(&self) -> Numbered {
        let mut order: Vec<usize> = (0..self.found.len()).collect();
        order.sort_by_key(|place| {
            let Decision { ground, observed, .. } = &self.found[*place];
            (*ground, Reverse(observed.len()), observed)
        });
        let unused =
            Decision { verdict: Verdict::Deny, ground: Ground::Default, observed: Vec::new() };
        let mut decisions = vec![unused];
        let mut cells = vec![Cell::leaf(0); self.found.len()];
        for place in order {
            let decision = self.found[place].clone();
            let outcome = Outcome { decision: decisions.len() as u32, verdict: decision.verdict };
            cells[place] = outcome.cell();
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
