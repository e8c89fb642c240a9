//! Why a verdict was reached: the deciding rule, the facts it rests on, and who else had something
//! to say.
//!
//! The decision comes from the compiled generation, as in the kernel. The evidence is found by
//! asking the matchers of the rule one by one.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use firewall_common::{
    evaluate::Named,
    flow::{Address, Destination},
    verdict::{Reason, Verdict},
};
use serde::Serialize;

use super::{
    Action, AppFacts, Destinations, Mode, Policy, Ports, Rule,
    compile::{Decision, Generation, Ground},
    domains::Scope,
    evidence::{Data, Evidence, by_name},
    selector::selects_every,
};
use crate::intel::{Error, Intel, asn::Origin, geo::Located};

/// What is known of an address. The keys are those of a verdict event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Geo {
    /// ISO 3166-1 alpha-2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<&'static str>,
    /// Origin AS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// Owner by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    /// Name of the AS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_name: Option<String>,
}

impl Geo {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One verdict, with what it rests on. The keys are those of a verdict event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Finding {
    /// `allow`, `audit` or `deny`.
    pub verdict: &'static str,
    /// `enforce` or `observe`: of the policy that decided.
    pub mode: &'static str,
    /// See [`Reason`].
    pub reason: &'static str,
    /// What the rule asks for; absent where nothing was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<&'static str>,
    /// Name of the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Name of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The matchers of the rule that hold, each with the fact it holds by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// What data these facts stand in.
    #[serde(skip_serializing_if = "Data::is_empty")]
    pub data: Data,
}

/// A rule that matches but did not decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunnerUp {
    /// Name of the policy.
    pub policy: String,
    /// Name of the rule.
    pub rule: String,
    /// What it asks for.
    pub action: &'static str,
    /// Mode of the policy.
    pub mode: &'static str,
    /// As of [`Finding::evidence`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// It is tried before what decided, and decides nothing: its policy only observes, or the question
    /// is left to the connection.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
}

/// Answers questions about one generation.
#[derive(Clone, Copy, Debug)]
pub struct Explainer<'a> {
    /// What is in force.
    pub generation: &'a Generation,
    /// What is known of addresses.
    pub intel: &'a Intel,
}

/// What is known of an address; of one that carries an IPv4 address, of that.
pub fn geo(intel: &Intel, address: Address) -> Result<Geo, Error> {
    let ip = inner(address);
    let origin = intel.asn()?.lookup(ip);
    let asn = origin.map(|origin| origin.asn);
    let owner = |asn| Ok::<_, Error>(intel.organisations()?.of(asn).map(str::to_owned));
    Ok(Geo {
        country: intel.geo()?.lookup(ip).map(|located| located.country.code()),
        asn,
        organisation: asn.map(owner).transpose()?.flatten(),
        as_name: match asn {
            Some(asn) => intel.asn()?.name(asn).map(str::to_owned),
            None => None,
        },
    })
}

impl Explainer<'_> {
    /// The findings that stand behind a decision: first what observing policies would have done,
    /// then what happened. An allow that only says that nothing happened is left out behind
    /// others.
    ///
    /// `names` are those that the destination is known by, the name asked for before its aliases. A
    /// question has no destination yet. `app` is what is known of the app: the decision is one for it.
    pub fn findings<T: AsRef<str>>(
        &self,
        decision: &Decision,
        destination: Option<&Destination>,
        names: &[T],
        app: &AppFacts,
    ) -> Result<Vec<Finding>, Error> {
        let subject = &Subject::new(destination, names, app);
        let mut findings = Vec::new();
        for ground in &decision.observed {
            findings.push(self.finding(*ground, Verdict::Audit, subject)?);
        }
        let last = match self.generation.rule(decision.ground) {
            Some((_, rule)) => action_verdict(rule.action),
            None if decision.verdict == Verdict::Deny => Verdict::Deny,
            None => Verdict::Allow,
        };
        if findings.is_empty() || last != Verdict::Allow {
            findings.push(self.finding(decision.ground, last, subject)?);
        }
        Ok(findings)
    }

    fn mode(&self, policy: usize) -> &'static str {
        if self.generation.settings.observe {
            return Mode::Observe.word();
        }
        self.generation.policies.get(policy).map_or(Mode::Enforce, |policy| policy.mode).word()
    }

    fn finding(
        &self,
        ground: Ground,
        verdict: Verdict,
        subject: &Subject<'_>,
    ) -> Result<Finding, Error> {
        let policy = |index: usize| self.generation.policies.get(index);
        Ok(match ground {
            Ground::Rule { policy: index, .. } => {
                let found = self.generation.rule(ground);
                let rule = found.map(|(_, rule)| rule);
                let mut evidence = Evidence::default();
                if let Some((policy, rule)) = found {
                    evidence = self.all_evidence(rule, subject)?;
                    evidence.facts.extend(by_app(policy, rule, subject.app));
                }
                Finding {
                    verdict: verdict.word(),
                    mode: self.mode(index),
                    reason: Reason::Rule.word(),
                    action: rule.map(|rule| rule.action.word()),
                    policy: policy(index).map(|policy| policy.name.clone()),
                    rule: rule.map(|rule| rule.name.clone()),
                    evidence: evidence.facts,
                    data: evidence.data,
                }
            }
            Ground::PolicyDefault { policy: index } => Finding {
                verdict: verdict.word(),
                mode: self.mode(index),
                reason: Reason::Default.word(),
                action: policy(index).and_then(|policy| policy.default).map(super::Default::word),
                policy: policy(index).map(|policy| policy.name.clone()),
                rule: None,
                evidence: Vec::new(),
                data: Data::default(),
            },
            Ground::Default => Finding {
                verdict: verdict.word(),
                mode: if self.generation.settings.observe { Mode::Observe } else { Mode::Enforce }
                    .word(),
                reason: Reason::Default.word(),
                action: Some(self.generation.settings.default.word()),
                policy: None,
                rule: None,
                evidence: Vec::new(),
                data: Data::default(),
            },
            // No default says it in so many words.
            Ground::Question => Finding {
                verdict: verdict.word(),
                mode: if self.generation.settings.observe { Mode::Observe } else { Mode::Enforce }
                    .word(),
                reason: Reason::Default.word(),
                action: None,
                policy: None,
                rule: None,
                evidence: Vec::new(),
                data: Data::default(),
            },
        })
    }

    /// The rules that match too, in the order in which they are tried.
    pub fn runners_up<T: AsRef<str>>(
        &self,
        decision: &Decision,
        destination: Option<&Destination>,
        names: &[T],
        app: &AppFacts,
    ) -> Result<Vec<RunnerUp>, Error> {
        let subject = &Subject::new(destination, names, app);
        let class = self.generation.class_of_app(app);
        let mut runners_up = Vec::new();
        for (policy_index, policy) in self.generation.policies.iter().enumerate() {
            for (rule_index, rule) in policy.rules.iter().enumerate() {
                let ground = Ground::Rule { policy: policy_index, rule: rule_index };
                if decision.ground == ground || decision.observed.contains(&ground) {
                    continue;
                }
                let holds = self.generation.holds(class, policy_index, rule_index);
                if holds && self.matches(rule, subject)? {
                    // A default comes behind every rule.
                    let skipped = match decision.ground {
                        Ground::Rule { policy, rule } => {
                            (policy_index, rule_index) < (policy, rule)
                        }
                        _ => true,
                    };
                    runners_up.push(RunnerUp {
                        skipped,
                        policy: policy.name.clone(),
                        rule: rule.name.clone(),
                        action: rule.action.word(),
                        mode: policy.mode.word(),
                        evidence: self
                            .evidence(rule, subject)?
                            .facts
                            .into_iter()
                            .chain(by_app(policy, rule, app))
                            .collect(),
                    });
                }
            }
        }
        Ok(runners_up)
    }

    /// A rule that comes before `rule` of `policy` and decides one of the destinations it means, for
    /// one of the apps it means.
    pub fn shadowed_by(
        &self,
        policy: usize,
        rule: usize,
    ) -> Result<Option<(&Policy, &Rule)>, Error> {
        let Some(shadowed) = self.generation.policies.get(policy).and_then(|p| p.rules.get(rule))
        else {
            return Ok(None);
        };
        let Some(app) = self.generation.some_app(policy, rule) else { return Ok(None) };
        let (address, named) = match self.sample(shadowed.to.as_ref())? {
            Some(address) => (address, Named::default()),
            None => match shadowed.to.as_ref().and_then(sample_name) {
                Some(name) => (ANYWHERE, self.generation.named(&[name], true)),
                None => return Ok(None),
            },
        };
        let (protocol, port) =
            shadowed.ports.first().map_or((firewall_common::flow::TCP, 443), |ports| {
                (ports.protocol, *ports.ports.start())
            });
        let destination = Destination { address, port, protocol, port_hidden: 0 };
        let Ok(outcome) = self.generation.evaluate(app, &destination, &named) else {
            return Ok(None);
        };
        Ok(self
            .generation
            .decision(outcome.decision)
            .and_then(|decision| self.generation.rule(decision.ground)))
    }

    /// Some address that `to` matches.
    fn sample(&self, to: Option<&Destinations>) -> Result<Option<Address>, Error> {
        let Some(to) = to else { return Ok(Some(ANYWHERE)) };
        let listed = to.lists.iter().flat_map(|list| &list.networks);
        let mut candidates: Vec<Address> =
            to.networks.iter().chain(listed).map(|net| net.network().into()).collect();
        if !to.jurisdictions.is_empty() {
            let geo = self.intel.geo()?;
            candidates.extend(
                geo.ranges_v4()
                    .filter(|(_, country)| to.jurisdictions.contains(country))
                    .map(|(range, _)| Address::v4(*range.start())),
            );
        }
        let asns = self.asns(to)?;
        if !asns.is_empty() {
            let table = self.intel.asn()?;
            candidates.extend(
                table
                    .ranges_v4()
                    .filter(|(_, asn)| asns.contains(asn))
                    .map(|(range, _)| Address::v4(*range.start())),
            );
        }
        for candidate in candidates {
            let excepted = match &to.except {
                Some(except) => !self.by_address(except, candidate)?.is_empty(),
                None => false,
            };
            if !excepted && !self.by_address(to, candidate)?.is_empty() {
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }

    fn asns(&self, to: &Destinations) -> Result<Vec<u32>, Error> {
        let mut asns = to.asns.clone();
        for name in &to.organisations {
            asns.extend(self.intel.organisations()?.asns(name).unwrap_or_default());
        }
        Ok(asns)
    }

    fn matches(&self, rule: &Rule, subject: &Subject<'_>) -> Result<bool, Error> {
        match (&rule.to, subject.destination) {
            // What a question is about is not all that a rule matches.
            (None, None) => Ok(false),
            (_, Some(destination)) if !ports_match(&rule.ports, destination) => Ok(false),
            (None, Some(_)) => Ok(true),
            (Some(_), _) => Ok(!self.evidence(rule, subject)?.is_empty()),
        }
    }

    /// As [`Self::evidence`], of a rule that is known to match. A name that an untrusted resolver
    /// told takes nothing out of what is dropped.
    fn all_evidence(&self, rule: &Rule, subject: &Subject<'_>) -> Result<Evidence, Error> {
        let evidence = self.evidence(rule, subject)?;
        let Some(to) = &rule.to else { return Ok(evidence) };
        if evidence.is_empty() { self.why(to, None, subject) } else { Ok(evidence) }
    }

    /// Which matchers of a rule hold, and by which fact.
    fn evidence(&self, rule: &Rule, subject: &Subject<'_>) -> Result<Evidence, Error> {
        match &rule.to {
            Some(to) => self.why(to, to.except.as_deref(), subject),
            None => Ok(Evidence::default()),
        }
    }

    /// Which matchers of `to` hold for what `except` does not take out: an address counts if neither
    /// it nor a name of it is taken out, and a name if neither it nor the address is.
    fn why(
        &self,
        to: &Destinations,
        except: Option<&Destinations>,
        subject: &Subject<'_>,
    ) -> Result<Evidence, Error> {
        let outer = subject.destination.map(|destination| destination.address);
        let inner = outer.and_then(Address::embedded_v4).map(Address::v4);
        let none_excepted = except
            .is_none_or(|except| subject.names.iter().all(|name| by_name(except, name).is_empty()));
        let mut evidence = Evidence::default();
        let mut addresses = 0;
        for address in [outer, inner].into_iter().flatten() {
            if let Some(except) = except
                && !self.by_address(except, address)?.is_empty()
            {
                continue;
            }
            addresses += 1;
            if none_excepted {
                evidence.extend(self.by_address(to, address)?);
            }
        }
        if subject.destination.is_some() && addresses == 0 {
            return Ok(evidence);
        }
        for name in &subject.names {
            if except.is_none_or(|except| by_name(except, name).is_empty()) {
                evidence.extend(by_name(to, name));
            }
        }
        Ok(evidence)
    }

    /// Which matchers of `to` itself hold for one address as it stands.
    fn by_address(&self, to: &Destinations, address: Address) -> Result<Evidence, Error> {
        let Destinations {
            jurisdictions,
            organisations,
            asns,
            networks,
            lists,
            domains: _,
            except: _,
        } = to;
        let ip = IpAddr::from(address);
        let mut evidence = Evidence::default();
        let Evidence { facts, data } = &mut evidence;
        if !jurisdictions.is_empty()
            && let table = self.intel.geo()?
            && let Some(Located { country, network }) = table.lookup(ip)
            && jurisdictions.contains(&country)
        {
            facts.push(format!("country:{country}={network}"));
            data.country = Some(Arc::clone(table.source()));
        }
        if !(organisations.is_empty() && asns.is_empty())
            && let table = self.intel.asn()?
            && let Some(Origin { asn, network }) = table.lookup(ip)
        {
            let before = facts.len();
            for name in organisations {
                if self.intel.organisations()?.asns(name).is_some_and(|asns| asns.contains(&asn)) {
                    facts.push(format!("org:{name}=AS{asn}"));
                }
            }
            if asns.contains(&asn) {
                facts.push(format!("as:AS{asn}={network}"));
            }
            data.asn = (facts.len() > before).then(|| Arc::clone(table.source()));
        }
        for network in networks {
            if network.contains(&ip) {
                facts.push(format!("net:{network}"));
            }
        }
        for list in lists {
            for network in list.networks.iter().filter(|network| network.contains(&ip)) {
                evidence.add(list, network);
            }
        }
        Ok(evidence)
    }
}

/// What an address is that nothing is said about.
const ANYWHERE: Address = Address::v4(0x0808_0808);

/// What is asked about.
struct Subject<'a> {
    /// `None` for a question.
    destination: Option<&'a Destination>,
    names: Vec<&'a str>,
    app: &'a AppFacts,
}

impl<'a> Subject<'a> {
    fn new<T: AsRef<str>>(
        destination: Option<&'a Destination>,
        names: &'a [T],
        app: &'a AppFacts,
    ) -> Self {
        Self { destination, names: names.iter().map(AsRef::as_ref).collect(), app }
    }
}

/// By which selectors a rule holds for an app, where it or its policy names particular apps.
fn by_app(policy: &Policy, rule: &Rule, app: &AppFacts) -> Vec<String> {
    let lists = [&rule.apps.only, &policy.apps.only];
    let particular = lists.into_iter().filter(|list| !selects_every(list)).flatten();
    let mut evidence: Vec<String> = Vec::new();
    for selector in particular.filter(|selector| selector.selects(app)) {
        let one = format!("app:{selector}");
        if !evidence.contains(&one) {
            evidence.push(one);
        }
    }
    evidence
}

/// Some name that `to` matches.
fn sample_name(to: &Destinations) -> Option<String> {
    let listed = to.lists.iter().flat_map(|list| {
        list.domains.iter().filter(|(name, _)| list.exceptions.find(name).is_none())
    });
    let own = to.domains.iter().map(|domain| (domain.name.as_str(), domain.scope));
    let named = own.chain(listed).map(|(name, scope)| match scope {
        Scope::Below => format!("x.{name}"),
        Scope::Exact | Scope::Tree => name.to_owned(),
    });
    let except = to.except.as_deref();
    named.into_iter().find(|name| except.is_none_or(|except| by_name(except, name).is_empty()))
}

fn ports_match(ports: &[Ports], destination: &Destination) -> bool {
    ports.is_empty()
        || ports.iter().any(|one| {
            one.protocol == destination.protocol && one.ports.contains(&destination.port)
        })
}

/// The IPv4 address inside, if there is one.
fn inner(address: Address) -> IpAddr {
    match address.embedded_v4() {
        Some(bits) => Ipv4Addr::from_bits(bits).into(),
        None => address.into(),
    }
}

const fn action_verdict(action: Action) -> Verdict {
    match action {
        Action::Allow => Verdict::Allow,
        Action::Log => Verdict::Audit,
        Action::Drop => Verdict::Deny,
    }
}
