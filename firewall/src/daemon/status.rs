//! The daemon in a glance, as the API says it.

use std::{fs, process};

use firewall_common::layout::{ABI_VERSION, Counter};
use jiff::{SignedDuration, Timestamp};

use super::{Options, engine::Engine, refresh::Refresh, sinks::Sinks, worker::Losses};
use crate::{
    api::dto::{self, Status},
    datapath::{attach, backstop, pins},
    events::reader::{self, Counters},
    policy::{
        ListSource, Moment,
        source::{Disk, Files as _},
    },
    sink::Counts,
};

/// What happened to the daemon.
pub struct Told {
    /// When it was started.
    pub started: Timestamp,
    /// What is not as it should be.
    pub degraded: Vec<String>,
    /// How the last reload went.
    pub last_reload: Option<dto::Reload>,
}

/// How it is.
pub fn of(
    options: &Options,
    engine: &Engine<'_>,
    told: &Told,
    sinks: &Sinks<'_>,
    counters: &Counters,
    losses: &Losses,
    refresh: &Refresh,
) -> Result<Status, reader::Error> {
    let hooks = hooks(options, engine.now.config.backstop == Some(true));
    let lists = refresh.shown(&engine.now.lists);
    let mut degraded = told.degraded.clone();
    if let Some(reload) = told.last_reload.as_ref().filter(|reload| !reload.done) {
        degraded.push(format!("the last reload failed: {}", first_line(&reload.message)));
    }
    degraded.extend(sinks.missing(engine));
    degraded.extend(
        hooks
            .iter()
            .filter(|hook| !hook.attached)
            .map(|hook| format!("the program `{}` is not attached", hook.program)),
    );
    for list in &engine.now.lists {
        let ListSource::Url(found) = &list.list.source else { continue };
        let name = format!("list `{}` of policy `{}`", list.list.name, list.policy);
        match &found.copy {
            Ok(None) => degraded.push(format!("{name} was never fetched, so it is empty")),
            Err(why) => degraded.push(format!("the copy of {name} is not used: {why}")),
            Ok(Some(_)) if found.stale => degraded.push(format!("the copy of {name} is too old")),
            Ok(Some(_)) => {}
        }
    }
    let mut sums = std::collections::BTreeMap::new();
    for counter in Counter::ALL {
        sums.insert(counter.word().to_owned(), counters.sum(*counter)?);
    }
    Ok(Status {
        schema: dto::SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        abi: ABI_VERSION,
        pid: process::id(),
        started: told.started,
        state: if degraded.is_empty() { dto::State::Enforcing } else { dto::State::Degraded },
        degraded,
        generation: engine.shown(),
        last_reload: told.last_reload.clone(),
        cgroup: options.cgroup.as_ref().map_or("/".to_owned(), |path| path.display().to_string()),
        pins: options.pin.display().to_string(),
        folder: options.policies.display().to_string(),
        policies: policies(engine, sinks),
        hits_default: sinks.hits.default,
        hooks,
        counters: sums,
        losses: dto::Losses {
            events: losses.events,
            unread: losses.unread,
            unwritten: sinks.unwritten(),
            // The API knows.
            streams: 0,
        },
        sinks: sinks
            .counts()
            .map(|(name, Counts { queued, dropped, failed })| dto::Sink {
                name: name.to_owned(),
                queued,
                dropped,
                failed,
            })
            .collect(),
        lists,
        memory_bytes: memory(),
    })
}

/// What a reload or a rollback did.
pub fn change(engine: &Engine<'_>, sinks: &Sinks<'_>) -> dto::Change {
    let outdated = sinks.outdated(engine).map(|text| format!("warning: {text}\n"));
    let policies = &engine.now.generation.policies;
    dto::Change {
        schema: dto::SCHEMA,
        generation: engine.shown(),
        policies: policies.len() as u64,
        rules: policies.iter().map(|policy| policy.rules.len() as u64).sum(),
        warnings: engine.now.warnings.clone() + &outdated.unwrap_or_default(),
    }
}

fn policies(engine: &Engine<'_>, sinks: &Sinks<'_>) -> Vec<dto::Policy> {
    let policies = engine.now.generation.policies.iter();
    policies
        .map(|policy| dto::Policy {
            name: policy.name.clone(),
            mode: policy.mode.word().to_owned(),
            source: engine.now.sources.get(&policy.name).cloned().unwrap_or_default(),
            priority: policy.priority,
            rules: policy
                .rules
                .iter()
                .map(|rule| dto::Rule {
                    name: rule.name.clone(),
                    action: rule.action.word().to_owned(),
                    hits: sinks.hits.of_rule(&policy.name, &rule.name),
                    until: rule.until.as_ref().and_then(time_of),
                })
                .collect(),
            default: policy.default.map(|default| default.word().to_owned()),
            hits_default: sinks.hits.of_default(&policy.name),
        })
        .collect()
}

/// When a moment of this start of the machine is.
fn time_of(moment: &Moment) -> Option<Timestamp> {
    let now = Disk.moment()?;
    let left = moment.second.checked_sub(now.second)?.cast_signed();
    Timestamp::now().checked_add(SignedDuration::from_secs(left)).ok()
}

fn hooks(options: &Options, with_backstop: bool) -> Vec<dto::Hook> {
    let links = pins::links(&options.pin);
    let hook = |program, attached| dto::Hook { program, attached };
    let own =
        attach::attached(&links).into_iter().map(|(program, is)| hook(program.to_owned(), is));
    let interfaces = match with_backstop.then(|| backstop::attached(&links)) {
        None => Vec::new(),
        Some(Ok(interfaces)) => interfaces,
        // Without knowing them it cannot be said of any.
        Some(Err(_)) => vec![("every interface".to_owned(), false)],
    };
    let backstop =
        interfaces.into_iter().map(|(interface, is)| hook(format!("backstop {interface}"), is));
    own.chain(backstop).collect()
}

fn first_line(text: &str) -> &str {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default()
}

/// What both processes have of the machine's memory, in bytes: the binary, which they share, once.
fn memory() -> u64 {
    // proc_pid_statm(5): the whole, what is resident, and what of that is of files.
    let pages = |pid: u32| -> Option<[u64; 2]> {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let mut pages = statm.split(' ').skip(1).map_while(|field| field.parse().ok());
        Some([pages.next()?, pages.next()?])
    };
    let [own, _] = pages(process::id()).unwrap_or_default();
    let [keeper, shared] = pages(std::os::unix::process::parent_id()).unwrap_or_default();
    (own + keeper.saturating_sub(shared)) * rustix::param::page_size() as u64
}
