//! What policies that are not enabled would have stopped: each is compiled alone and asked about each
//! distinct flow.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use serde::Serialize;

use super::{EXAMPLES, Flow, Sums};
use crate::{
    config::Config,
    events::protocol_number,
    explanation::destination,
    intel::Intel,
    policy::{
        self, AppFacts, Mode, Policy,
        compile::{Generation, Ground, Settings},
        diagnostic::Diagnostics,
        source::{Files, Source},
    },
    set,
};
use firewall_common::verdict::Verdict;

/// Where a policy is that is not enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// In the binary.
    Shipped,
    /// Among the policies of the machine, and observes.
    Observed,
}

/// What passed and would have been stopped by a rule of a policy that is not enabled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Would {
    /// The policy.
    pub policy: String,
    /// The rule; absent if the policy's default would have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Where the policy is.
    pub place: Place,
    /// How many passed.
    pub flows: u64,
    /// What they have sent, in bytes.
    pub bytes_out: u64,
    /// What they have received, in bytes.
    pub bytes_in: u64,
    /// Some of the names that they went to.
    pub names: Vec<String>,
}

/// Policies that are not enabled.
pub struct Judge {
    alone: Vec<(Place, Policy)>,
    intel: Intel,
    settings: Settings,
}

impl Judge {
    /// Shipped policies that are not among those of the machine that enforce, and those of the machine
    /// that observe. What is wrong with the machine's is told, and they are not asked.
    ///
    /// # Errors
    ///
    /// Tables cannot be read.
    pub fn new(
        config: &Config,
        machine: &[Source],
        files: &dyn Files,
    ) -> anyhow::Result<(Self, Diagnostics)> {
        let organisations = set::organisations(config, files)?;
        let (own, findings) = policy::load(machine, &organisations, files);
        let (shipped, _) = policy::load(&Source::all_shipped(), &organisations, files);
        let named = |policies: &[Policy], mode| -> HashSet<String> {
            let some = policies.iter().filter(|policy| policy.mode == mode);
            some.map(|policy| policy.name.clone()).collect()
        };
        let enforced = named(&own, Mode::Enforce);
        let observed = named(&own, Mode::Observe);
        // One that is made to observe would stop nothing.
        let never = named(&shipped, Mode::Observe);
        let shipped = shipped
            .into_iter()
            .filter(|policy| !enforced.contains(&policy.name) && !observed.contains(&policy.name));
        let own = own.into_iter().filter(|policy| policy.mode == Mode::Observe);
        let all = own
            .map(|policy| (Place::Observed, policy))
            .chain(shipped.map(|policy| (Place::Shipped, policy)))
            .filter(|(_, policy)| !never.contains(&policy.name));
        let intel = Intel::new(config.geo.clone(), config.asn.clone());
        let intel = intel.with_organisations(organisations);
        let settings = Settings {
            default: policy::Default::Allow,
            ..config.settings(set::name_keys()?, crate::config::system_resolvers())
        };
        let alone = all.map(|(place, policy)| (place, Policy { mode: Mode::Enforce, ..policy }));
        Ok((Self { alone: alone.collect(), intel, settings }, findings))
    }

    /// Asks no policy.
    #[cfg(test)]
    pub(super) fn nobody() -> Self {
        Self { alone: Vec::new(), intel: Intel::new(None, None), settings: Settings::default() }
    }

    /// The names of the policies.
    pub fn names(&self) -> Vec<String> {
        self.alone.iter().map(|(_, policy)| policy.name.clone()).collect()
    }

    /// What would have been stopped, of each app.
    pub(super) fn judge(
        &self,
        apps: usize,
        facts: &HashMap<AppFacts, usize>,
        flows: &HashMap<Flow, Sums>,
    ) -> anyhow::Result<Vec<Vec<Would>>> {
        let mut all = vec![Vec::new(); apps];
        for (place, policy) in &self.alone {
            let generation =
                &set::generation(vec![policy.clone()], &self.intel, self.settings.clone())?;
            let mut classes = vec![0; facts.len()];
            for (facts, number) in facts {
                classes[*number] = generation.class_of_app(facts);
            }
            let mut stopped: HashMap<(usize, Ground), (Sums, Vec<String>)> = HashMap::new();
            for (flow, sums) in flows {
                if sums.passed() == 0 && sums.bytes() == 0 {
                    continue;
                }
                let Some(ground) = stops(generation, classes[flow.facts], flow)? else { continue };
                let (all, names) = stopped.entry((flow.app, ground)).or_default();
                all.add(sums);
                // The first in their order, whatever the order of the flows.
                let name = flow.names.first().cloned().unwrap_or_else(|| flow.ip.to_string());
                if let Err(place) = names.binary_search(&name) {
                    names.insert(place, name);
                    names.truncate(EXAMPLES);
                }
            }
            for ((app, ground), (sums, names)) in stopped {
                let rule = generation.rule(ground).map(|(_, rule)| rule.name.clone());
                all[app].push(Would {
                    policy: policy.name.clone(),
                    rule,
                    place: *place,
                    flows: sums.passed(),
                    bytes_out: sums.bytes_out,
                    bytes_in: sums.bytes_in,
                    names,
                });
            }
        }
        for would in &mut all {
            would.sort_by(|one, other| {
                let key = |of: &Would| (Reverse(of.flows), of.policy.clone(), of.rule.clone());
                key(one).cmp(&key(other))
            });
        }
        Ok(all)
    }
}

impl Sums {
    /// Verdicts that let it pass.
    const fn passed(&self) -> u64 {
        self.flows.allow.saturating_add(self.flows.audit)
    }
}

/// Why a policy alone would have stopped a flow, if it would.
fn stops(generation: &Generation, class: u32, flow: &Flow) -> anyhow::Result<Option<Ground>> {
    let outcome = match (flow.question, flow.names.first()) {
        (true, Some(name)) => generation.question(class, name),
        // It could not be read, and no policy speaks of it.
        (true, None) => return Ok(None),
        (false, _) => {
            let Some(protocol) = protocol_number(&flow.proto) else { return Ok(None) };
            let to = destination(flow.ip, flow.port, protocol);
            let names = generation.named(&flow.names, true);
            generation.evaluate(class, &to, &names)
        }
    };
    let outcome = outcome
        .map_err(|fault| anyhow::anyhow!("the compiled policies have no answer: {fault:?}"))?;
    let decision = generation
        .decision(outcome.decision)
        .ok_or_else(|| anyhow::anyhow!("there is no decision {}", outcome.decision))?;
    Ok((decision.verdict == Verdict::Deny).then_some(decision.ground))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, path::PathBuf};

    use super::*;
    use crate::{
        policy::source::{Content, Disk, Origin},
        report::{
            Known, Report, Tally,
            tests::{record, records},
        },
    };
    use serde_json::json;

    fn source(name: &str, text: &str) -> Source {
        let origin = Origin::File(PathBuf::from(format!("{name}.toml")));
        let content = Content::Text(format!("[policy]\nname = \"{name}\"\n{text}").into());
        Source { origin, content }
    }

    fn judge(machine: &[Source]) -> Judge {
        let (judge, findings) = Judge::new(&Config::default(), machine, &Disk).unwrap();
        assert!(!findings.has_errors(), "{}", findings.render(false));
        judge
    }

    fn report(judge: &Judge, all: Vec<serde_json::Value>) -> Report {
        let mut tally = Tally::default();
        records(all).iter().for_each(|record| tally.add(record));
        tally.finish(judge, &mut Known::default()).unwrap()
    }

    /// Of the first app, by policy and rule.
    fn would(report: &Report) -> HashMap<(&str, Option<&str>), (u64, u64, Place)> {
        let all = report.apps[0].would.iter();
        all.map(|one| {
            ((one.policy.as_str(), one.rule.as_deref()), (one.flows, one.bytes_out, one.place))
        })
        .collect()
    }

    #[test]
    fn who_is_asked() {
        let shipped = judge(&[]).names();
        assert!(shipped.iter().any(|name| name == "baidu-tongji"));
        assert!(!shipped.iter().any(|name| name == "watch-everything"), "it stops nothing");
        let rule = "[[rule]]\nname = \"r\"\naction = \"drop\"\nports = [\"tcp/444\"]\n";
        let observes = format!("mode = \"observe\"\n{rule}");
        let own = judge(&[
            source("own", &observes),
            source("off", rule),
            source("baidu-tongji", rule),
            source("baidu", &observes),
        ]);
        let names = own.names();
        assert_eq!(names.iter().filter(|name| *name == "baidu").count(), 1, "the machine's");
        assert!(names.contains(&"own".to_owned()));
        assert!(!names.contains(&"off".to_owned()) && !names.contains(&"baidu-tongji".to_owned()));
        let broken = [source("broken", "mode = \"maybe\"\n")];
        let (judge, findings) = Judge::new(&Config::default(), &broken, &Disk).unwrap();
        assert!(findings.has_errors());
        assert_eq!(judge.names(), shipped);
    }

    #[test]
    fn what_passed_and_would_not_have() {
        let judge = judge(&[source(
            "own",
            "mode = \"observe\"\n\
             [[rule]]\nname = \"port\"\naction = \"drop\"\nports = [\"tcp/444\"]\napps = [\"exe:/usr/bin/curl\"]\n\
             [[rule]]\nname = \"other-app\"\naction = \"drop\"\nports = [\"tcp/445\"]\napps = [\"exe:/usr/bin/wget\"]\n",
        )]);
        let to = |port: u16, host: &str, verdict: &str| {
            record(
                1,
                json!({"verdict": verdict, "dst": {"ip": "192.0.2.7", "port": port},
                       "host": {"name": host}, "count": 3}),
            )
        };
        let alias = record(
            2,
            json!({"dst": {"ip": "192.0.2.8", "port": 443}, "count": 1,
                   "host": {"name": "x.example", "chain": ["hm.baidu.com"]}}),
        );
        let question = record(
            3,
            json!({"hook": "dns", "proto": "udp", "dst": {"ip": "192.168.0.1", "port": 53},
                   "host": {"name": "hm.baidu.com"}, "count": 5}),
        );
        let closed = record(
            4,
            json!({"hook": "close", "dst": {"ip": "192.0.2.7", "port": 444}, "count": 0,
                   "host": {"name": "a.example"}, "bytes_out": 70}),
        );
        let all = vec![
            to(444, "a.example", "allow"),
            to(444, "a.example", "audit"),
            to(445, "a.example", "allow"),
            to(444, "stopped.example", "deny"),
            to(443, "hm.baidu.com", "allow"),
            alias,
            question,
            closed,
        ];
        let report = report(&judge, all);
        let would = would(&report);
        assert_eq!(would[&("own", Some("port"))], (6, 70, Place::Observed));
        assert!(!would.contains_key(&("own", Some("other-app"))));
        // The name itself, its alias and the question.
        assert_eq!(would[&("baidu-tongji", Some("tongji"))], (9, 0, Place::Shipped));
        let local = would.iter().find(|((policy, _), _)| *policy == "local-only").unwrap();
        assert_eq!(local.0.1, None, "by its default");
        assert!(!would.contains_key(&("cn-jurisdiction", Some("home-jurisdiction"))));
        let own = report.apps[0].would.iter().find(|one| one.policy == "own").unwrap();
        assert_eq!(own.names, ["a.example"], "what was stopped did not pass");
    }
}
