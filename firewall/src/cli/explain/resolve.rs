//! A name with all that it leads to: the question for it, and a connection to each of its addresses.

use anyhow::Context as _;
use firewall_common::verdict::Verdict;
use serde::Serialize;

use super::{human, row};
use crate::{
    config::Config,
    explanation::{Asked, Explanation, Question, destination, explain},
    intel::resolver::{Answer, Failure, Found, Resolver, Upstream},
    policy::{AppFacts, explain::Explainer},
};

/// What would happen to an app that asks for a name and connects to what it gets.
#[derive(Debug, Serialize)]
pub struct Resolved {
    /// The strictest of the others, the first one of these.
    #[serde(flatten)]
    top: Explanation,
    question: Explanation,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<Told>,
    addresses: Vec<Reached>,
    /// Why there are no addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    unresolved: Option<&'static str>,
    /// The same, for people.
    #[serde(skip)]
    pub failure: Option<String>,
}

/// Who told the addresses.
#[derive(Debug, Serialize)]
struct Told {
    server: String,
    /// Whether its answers can support an allow by name.
    trusted: bool,
}

/// What would happen at an address.
#[derive(Debug, Serialize)]
struct Reached {
    #[serde(flatten)]
    explanation: Explanation,
    /// The kind of the record that has it.
    record: &'static str,
    /// Seconds for which it holds.
    ttl: u32,
}

/// Looks a name up and judges what it leads to, as the kernel would after that answer.
pub fn resolve(
    explainer: &Explainer<'_>,
    config: &Config,
    question: &Question,
    app: &AppFacts,
) -> anyhow::Result<Resolved> {
    let Question { name, port, protocol, .. } = question;
    let looked_up = look_up(config, name)?;
    let mut question = explain(explainer, &Asked::Question(question.clone()), app)?;
    let (answer, upstream) = match looked_up {
        Ok(told) => told,
        Err((word, reason)) => {
            return Ok(Resolved {
                top: question.clone(),
                question,
                upstream: None,
                addresses: Vec::new(),
                unresolved: Some(word),
                failure: Some(format!("cannot look up `{name}`: {reason}")),
            });
        }
    };
    for (kind, reason) in &answer.missing {
        eprintln!("note: {kind} records of `{name}` did not come: {reason}\n");
    }
    if let Some(host) = &mut question.host {
        host.chain.clone_from(&answer.chain);
    }
    let trusted = upstream.is_trusted(&explainer.generation.settings.resolvers);
    let mut found = answer.addresses;
    found.sort_by_key(|found| found.ip);
    let addresses = found
        .into_iter()
        .map(|Found { ip, ttl, record, target }| {
            let told =
                std::iter::once(name).chain(&answer.chain).map(|name| (name.clone(), trusted));
            let names = told.chain(target.map(|target| (target, false))).collect();
            let to = destination(ip, *port, *protocol);
            let explanation = explain(explainer, &Asked::Connection(to, names), app)?;
            Ok(Reached { explanation, record, ttl })
        })
        .collect::<anyhow::Result<Vec<Reached>>>()?;
    let all = addresses.iter().map(|reached| &reached.explanation);
    let top =
        all.fold(&question, |top, one| if strictness(one) > strictness(top) { one } else { top });
    Ok(Resolved {
        top: top.clone(),
        question,
        upstream: Some(Told { server: upstream.to_string(), trusted }),
        addresses,
        unresolved: None,
        failure: None,
    })
}

/// What the upstreams say, and which of them did; or a word and words for why none did.
type LookedUp = Result<(Answer, Upstream), (&'static str, String)>;

fn look_up(config: &Config, name: &str) -> anyhow::Result<LookedUp> {
    let resolver = match Resolver::new(config.upstreams()) {
        Ok(resolver) => resolver,
        Err(error) => return Ok(Err((Failure::NoUpstream.word(), error.to_string()))),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    Ok(match runtime.block_on(resolver.resolve(name)) {
        Ok(answer) => {
            let upstream = resolver.upstreams().nth(answer.upstream).cloned();
            Ok((answer, upstream.context("an upstream that was not asked answered")?))
        }
        Err(failure) => {
            let hint = match failure {
                Failure::NoSuchName | Failure::NoAddress => "",
                Failure::NoUpstream | Failure::NoAnswer(_) => {
                    "\n\nhint: `upstreams` in firewall.toml says who is asked (--config FILE)"
                }
            };
            Err((failure.word(), format!("{failure}{hint}")))
        }
    })
}

fn strictness(explanation: &Explanation) -> u8 {
    match explanation.finding.verdict {
        verdict if verdict == Verdict::Deny.word() => 2,
        verdict if verdict == Verdict::Audit.word() => 1,
        _ => 0,
    }
}

impl Resolved {
    /// Whether the question or any address is denied.
    pub fn is_denied(&self) -> bool {
        self.top.finding.verdict == Verdict::Deny.word()
    }

    /// In words: the question, then each address.
    pub fn human(&self) -> String {
        let mut question = self.question.clone();
        let chain =
            question.host.iter_mut().flat_map(|host| host.chain.drain(..)).collect::<Vec<_>>();
        let mut text = human(&question);
        if !chain.is_empty() {
            text += &row("alias of", &chain.join(", "));
        }
        if let Some(Told { server, trusted }) = &self.upstream {
            let note =
                if *trusted { "" } else { ", not one of `resolvers`: allows nothing by name" };
            text += &row("asked", &format!("{server}{note}"));
        }
        for Reached { explanation, record, ttl } in &self.addresses {
            text += &format!("\n{}", human(explanation));
            text += &row("told by", &format!("{record} record, for {ttl} s"));
        }
        text
    }
}
