//! What each destination class gets, by protocol and port.

use std::{cmp::Reverse, collections::HashMap};

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
    pub fn of_class(&mut self, signature: &[u32]) -> Row {
        let ports = |index: &u32| &self.rules.all[*index as usize].rule.ports;
        let mut starts: Vec<u32> = signature
            .iter()
            .flat_map(|index| ports(index).iter().flat_map(|ports| [first(ports), last(ports) + 1]))
            .chain([0])
            .filter(|start| *start < 1 << 24)
            .collect();
        starts.sort_unstable();
        starts.dedup();
        let mut steps: Vec<(u128, usize)> = Vec::with_capacity(starts.len());
        for start in starts {
            let decision = self.decide(signature, start);
            if steps.last().is_none_or(|(_, last)| *last != decision) {
                steps.push((start.into(), decision));
            }
        }
        match steps[..] {
            [(_, decision)] => Row::One(decision),
            _ => Row::ByPort(steps),
        }
    }

    /// Tries the rules in order.
    fn decide(&mut self, signature: &[u32], key: u32) -> usize {
        let mut observed = Vec::new();
        // A policy that only observes would have been done with the flow at its first match.
        let mut done = Vec::new();
        let mut ground = None;
        for &index in signature {
            let placed = self.rules.all[index as usize];
            let ports = &placed.rule.ports;
            if !ports.is_empty() && !ports.iter().any(|one| (first(one)..=last(one)).contains(&key))
            {
                continue;
            }
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
        let (ground, action) = ground.unwrap_or_else(|| self.default(&done, &mut observed));
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
