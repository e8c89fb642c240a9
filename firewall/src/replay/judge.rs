//! What the policies say of a flow, by the same matcher as the kernel, step by step as its programs ask
//! it: by address and the names it is known by, by the name that the payload shows, by a question.

use std::sync::Arc;

use firewall_common::{
    evaluate::{self, Fault, Named, Outcome, Service, weigh},
    flow::{Address, Destination},
    name::Text,
    parse::payload::flags as shown,
    verdict::{Confidence, Hook, Reason, Verdict, Via},
};

use super::names::{self, Names};
use crate::{
    events::{Host, enrich::Reached},
    explanation,
    intel::{Error, Intel},
    policy::{
        AppFacts,
        compile::Generation,
        explain::{Explainer, Finding},
    },
};

/// Who can support an allow by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whoever a client of the capture asks.
    Everyone,
    /// The resolvers of the settings.
    Resolvers,
}

/// Judges flows of a capture.
pub struct Judge<'a> {
    explainer: Explainer<'a>,
    app: AppFacts,
    class: u32,
    trust: Trust,
    /// What clients were told.
    pub names: Names,
}

/// What a flow gets, and what its destination is known by.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// What happens.
    pub reached: Reached,
    /// Where.
    pub hook: &'static str,
    /// By what the destination is known.
    pub known: Option<Known>,
}

/// What a destination is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The name, and what it is an alias of.
    pub names: Arc<[String]>,
    /// How it was learned.
    pub via: Via,
    /// How sure it is.
    pub confidence: Confidence,
    /// It is an outer name.
    pub encrypted_hello: bool,
}

impl From<&Known> for Option<Host> {
    fn from(known: &Known) -> Self {
        let (name, chain) = known.names.split_first()?;
        Some(Host {
            name: name.clone(),
            via: Some(known.via.word()),
            confidence: Some(known.confidence.word()),
            encrypted_hello: known.encrypted_hello,
            chain: chain.to_vec(),
        })
    }
}

/// A name that a payload shows.
pub struct Shown<'n> {
    /// The name.
    pub name: &'n Text,
    /// Of [`shown`].
    pub flags: u32,
}

impl Shown<'_> {
    /// Where it is shown.
    pub const fn hook(flags: u32) -> (Via, Hook) {
        match flags & (shown::TLS | shown::QUIC) {
            0 => (Via::Http, Hook::Http),
            shown::TLS => (Via::Tls, Hook::Tls),
            _ => (Via::Quic, Hook::Quic),
        }
    }

    fn known(&self, names: Option<Arc<[String]>>) -> Known {
        let only = || std::iter::once(names::text(self.name)).collect();
        Known {
            names: names.unwrap_or_else(only),
            via: Self::hook(self.flags).0,
            confidence: Confidence::Confirmed,
            encrypted_hello: self.flags & shown::ECH != 0,
        }
    }
}

/// What a message with questions comes to.
pub enum Question {
    /// Nothing in it is to be judged.
    Nothing,
    /// It cannot be read.
    Malformed,
    /// The question that decides, and what it gets.
    Asks(String, Reached),
}

impl<'a> Judge<'a> {
    /// By these policies, for this app.
    pub fn new(explainer: Explainer<'a>, app: AppFacts, trust: Trust) -> Self {
        let class = explainer.generation.class_of_app(&app);
        Self { explainer, app, class, trust, names: Names::default() }
    }

    /// The policies.
    pub fn generation(&self) -> &'a Generation {
        self.explainer.generation
    }

    /// What is known of addresses.
    pub fn intel(&self) -> &'a Intel {
        self.explainer.intel
    }

    /// Whether verdicts can depend on names.
    pub fn minds_names(&self) -> bool {
        self.generation().header.name_lines != 0
    }

    /// Whether a setting of [`firewall_common::layout::flags`] is on.
    pub fn is_set(&self, flag: u32) -> bool {
        self.generation().header.flags & flag != 0
    }

    /// Whether the answers of a server can support an allow.
    pub fn trusts(&self, server: &Destination) -> bool {
        self.trust == Trust::Everyone || self.generation().header.is_trusted(server)
    }

    /// By address and the names it is known by, and whether these get different verdicts.
    pub fn judge(&self, client: Address, to: &Destination, time: u64) -> (Judgement, bool) {
        let hook = explanation::hook(to.protocol);
        let Some(meant) = self.names.of(client, to.address, time, None) else {
            let reached = self.reached(self.evaluate(to, &Named::default()));
            return (Judgement { reached, hook, known: None }, false);
        };
        let weighed = self.weigh(to, &meant);
        let place = weighed.which as usize;
        let unique = meant.own && weighed.names == 1 && !meant.more && !meant.is_several(place);
        let known = Known {
            names: meant.names(place),
            via: Via::Dns,
            confidence: if unique { Confidence::Unique } else { Confidence::Ambiguous },
            encrypted_hello: false,
        };
        let reached = self.reached(weighed.outcome());
        let differ = weighed.differ != 0 || meant.more;
        (Judgement { reached, hook, known: Some(known) }, differ)
    }

    /// By address and the name that the payload shows.
    pub fn judge_shown(
        &self,
        client: Address,
        to: &Destination,
        time: u64,
        shown: &Shown<'_>,
    ) -> Judgement {
        let (hash, class) = self.generation().hash_and_class(shown.name);
        let hook = Shown::hook(shown.flags).1.word();
        match self.names.of(client, to.address, time, Some((hash, class))) {
            Some(meant) => {
                let weighed = self.weigh(to, &meant);
                let told = meant.names(weighed.which as usize);
                let name = names::text(shown.name);
                let same = told.first().is_some_and(|first| *first == name);
                Judgement {
                    reached: self.reached(weighed.outcome()),
                    hook,
                    known: Some(shown.known(same.then_some(told))),
                }
            }
            None => {
                let named = Named { classes: [class, 0, 0, 0], trusted: 0 };
                let reached = self.reached(self.evaluate(to, &named));
                Judgement { reached, hook, known: Some(shown.known(None)) }
            }
        }
    }

    /// What a payload shows, where it is only told.
    pub fn known(&self, shown: &Shown<'_>) -> Known {
        shown.known(None)
    }

    /// For what is known by names that get different verdicts, and has shown none. `denied` is the
    /// judgement of one that is denied; nothing was `sent` if it was closed before.
    pub fn no_name(&self, denied: Judgement, sent: bool) -> Judgement {
        let verdict = if sent { self.generation().header.no_name() } else { Verdict::Allow };
        let reached = Reached { verdict, reason: Some(Reason::Ambiguous), ..denied.reached };
        Judgement { reached, hook: Hook::Packet.word(), ..denied }
    }

    /// For what cannot be read far enough to be judged.
    pub fn unparsable(&self, hook: Hook) -> Judgement {
        Judgement { reached: self.not_parsed(), hook: hook.word(), known: None }
    }

    /// For QUIC where none passes.
    pub fn blocked_quic(&self) -> Judgement {
        let reached = Reached { verdict: Verdict::Deny, reason: Some(Reason::Quic), decision: 0 };
        Judgement { reached, hook: Hook::Quic.word(), known: None }
    }

    /// For what a trusted resolver is sent: it is judged question by question.
    pub fn resolver(&self) -> Judgement {
        let reached =
            Reached { verdict: Verdict::Allow, reason: Some(Reason::Default), decision: 0 };
        Judgement { reached, hook: Hook::Dns.word(), known: None }
    }

    /// What questions for names get; of several the one that stands before the others.
    /// `multicast`: only where a rule speaks of the name.
    pub fn questions(&self, names: &[Text], malformed: bool, multicast: bool) -> Question {
        let mut stands: Option<(String, Reached)> = None;
        for name in names {
            let class = self.generation().hash_and_class(name).1;
            if multicast && class == 0 {
                continue;
            }
            let reached = self.question(class);
            let first = stands.as_ref().is_none_or(|(_, there)| {
                !reached.verdict.passes() || reached.decision < there.decision
            });
            if first {
                stands = Some((names::text(name), reached));
            }
            if !reached.verdict.passes() {
                break;
            }
        }
        match stands {
            Some((name, reached)) if !malformed || !reached.verdict.passes() => {
                Question::Asks(name, reached)
            }
            _ if malformed => Question::Malformed,
            _ => Question::Nothing,
        }
    }

    /// What a question for a name of no class gets.
    pub fn unnamed_question(&self) -> Reached {
        self.question(0)
    }

    /// What stands behind a judgement, what happened last. `to` is absent for a question.
    pub fn findings(
        &self,
        judgement: &Judgement,
        to: Option<&Destination>,
    ) -> Result<Vec<Finding>, Error> {
        let names = judgement.known.as_ref().map(|known| Arc::clone(&known.names));
        let names = names.unwrap_or_default();
        judgement.reached.findings(self.explainer, to, &names, &self.app)
    }

    fn question(&self, class: u32) -> Reached {
        let leaf =
            evaluate::question(self.generation(), &self.generation().header, self.class, class);
        self.reached(Outcome::from_leaf(leaf))
    }

    fn evaluate(&self, to: &Destination, named: &Named) -> Result<Outcome, Fault> {
        self.generation().evaluate(self.class, to, named)
    }

    fn weigh(&self, to: &Destination, meant: &names::Meant<'_>) -> evaluate::Weighed {
        let generation = self.generation();
        let place = evaluate::place(generation, &generation.header, to.address);
        weigh(generation, &generation.header, self.class, place, Service::of(to), |index| {
            meant.named(index)
        })
    }

    fn reached(&self, outcome: Result<Outcome, Fault>) -> Reached {
        match outcome {
            Ok(Outcome { verdict, decision }) => Reached { verdict, reason: None, decision },
            Err(Fault::PortHidden) => self.not_parsed(),
            Err(Fault::Damaged) => {
                Reached { verdict: Verdict::Deny, reason: Some(Reason::NoPolicy), decision: 0 }
            }
        }
    }

    fn not_parsed(&self) -> Reached {
        let verdict = self.generation().header.unparsable();
        Reached { verdict, reason: Some(Reason::ParseError), decision: 0 }
    }
}
