//! Questions for names and their answers: what of a flow is judged question by question.

use firewall_common::{
    answers::{DNS, MULTICAST},
    flow::{Destination, TCP, UDP},
    name::Text,
    verdict::{Confidence, Hook, Via},
};

use super::{Context, Flow, Told};
use crate::{
    events::enrich::Reached,
    replay::{
        answer::{Asks, Malformed, Read},
        found::Source,
        judge::{Judge, Judgement, Known, Question},
        names::{self, Asked},
        tally::Note,
    },
};

/// Questions of one flow that are told.
const MAX_QUESTIONS: usize = 1024;

/// What asks for names.
#[derive(Clone, Copy)]
pub(super) struct Dns {
    pub multicast: bool,
    pub trusted: bool,
    /// What holds for the server itself was told.
    pub by_server: bool,
}

impl Dns {
    /// Of a destination, if it is one for questions.
    pub fn of(judge: &Judge<'_>, to: &Destination) -> Option<Self> {
        let multicast = match judge.generation().header.service(to.port) {
            DNS => false,
            MULTICAST if to.protocol == UDP => true,
            _ => return None,
        };
        let trusted = !multicast && judge.trusts(to);
        Some(Self { multicast, trusted, by_server: false })
    }
}

impl Flow {
    /// Takes a message that a client sends.
    pub(super) fn asked(&mut self, message: &[u8], dns: &mut Dns, context: &mut Context<'_, '_>) {
        let read = Read::new(message);
        let asks = match read.questions() {
            Ok(Some(asks)) => asks,
            Ok(None) if dns.multicast => return,
            Ok(None) if read.is_cookie() => {
                let reached = context.shared.judge.unnamed_question();
                return self.question(None, reached, dns, context);
            }
            Ok(None) | Err(Malformed) => return self.unreadable_question(dns, context),
        };
        let Asks { id, names, malformed } = asks;
        for name in &names {
            context.find(&names::text(name), Source::DnsQuestion, [], false);
        }
        let question = context.shared.judge.questions(&names, malformed, dns.multicast);
        let denied = match &question {
            Question::Asks(_, reached) => !reached.verdict.passes(),
            _ => false,
        };
        if !dns.multicast {
            self.wait(id, &names, dns.trusted, denied, context);
        }
        match question {
            Question::Nothing => {}
            Question::Malformed => self.unreadable_question(dns, context),
            Question::Asks(name, reached) => self.question(Some(name), reached, dns, context),
        }
    }

    fn wait(
        &self,
        id: u16,
        names: &[Text],
        trusted: bool,
        denied: bool,
        context: &mut Context<'_, '_>,
    ) {
        for name in names {
            let asked = self.asking(id);
            if !context.shared.judge.names.ask(asked, name, context.time, trusted, denied) {
                context.note(Note::Names);
            }
        }
    }

    fn asking(&self, id: u16) -> Asked {
        let server = (self.to.address, self.to.port);
        Asked { client: self.client, server, protocol: self.to.protocol, id }
    }

    pub(super) fn unreadable_question(&mut self, dns: &mut Dns, context: &mut Context<'_, '_>) {
        context.note(Note::MalformedDns);
        // In the middle of a connection nobody knows where a message begins.
        let middle = self.middle && self.to.protocol == TCP;
        if dns.multicast || middle || !context.shared.judge.minds_names() {
            return;
        }
        let reached = context.shared.judge.unparsable(Hook::Dns).reached;
        self.question(None, reached, dns, context);
    }

    /// Takes what came of a question: of that and of what its server gets, the one whose rule comes
    /// first.
    fn question(
        &mut self,
        name: Option<String>,
        reached: Reached,
        dns: &mut Dns,
        context: &mut Context<'_, '_>,
    ) {
        if self.is_denied() {
            dns.by_server = true;
            return;
        }
        if reached.verdict.passes() && !dns.trusted {
            let server = &self.judgement.reached;
            if self.differ || server.decision < reached.decision {
                dns.by_server = true;
                return;
            }
        }
        let known = name.map(|name| Known {
            names: [name].into(),
            via: Via::Dns,
            confidence: Confidence::Confirmed,
            encrypted_hello: false,
        });
        let same =
            |told: &&mut Told| told.judgement.reached == reached && told.judgement.known == known;
        if let Some(told) = self.questions.iter_mut().find(same) {
            told.count = told.count.saturating_add(1);
            return;
        }
        if self.questions.len() >= MAX_QUESTIONS {
            return context.note(Note::Questions);
        }
        let judgement = Judgement { reached, hook: Hook::Dns.word(), known };
        let (time, count) = (context.time, 1);
        self.questions.push(Told { judgement, shown: None, asks: true, time, count });
    }

    /// Takes a message that a server sends.
    pub(super) fn answered(&mut self, message: &[u8], dns: &Dns, context: &mut Context<'_, '_>) {
        if dns.multicast {
            return;
        }
        let told = match Read::new(message).told() {
            Ok(Some(told)) => told,
            Ok(None) => return,
            Err(Malformed) => return context.note(Note::MalformedDns),
        };
        if told.malformed {
            context.note(Note::MalformedDns);
        }
        let asked = self.asking(told.id);
        let generation = context.shared.judge.generation();
        match context.shared.judge.names.answer(generation, asked, &told, context.time) {
            None => return context.note(Note::Unasked),
            Some(lost) => context.shared.notes.add_many(Note::Names, lost, context.number),
        }
        let addresses = || told.addresses.iter().map(|(address, _)| *address);
        context.find(&names::text(&told.name), Source::DnsAnswer, addresses(), false);
        for (alias, _) in &told.aliases {
            context.find(&names::text(alias), Source::DnsAlias, addresses(), false);
        }
    }
}
