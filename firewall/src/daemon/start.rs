//! What is put in force first: the policies, what ran last, or the boot policy.

use std::sync::Arc;

use firewall_common::name_table::Keys;

use super::{
    Options,
    engine::{Begun, Built, Engine, build, build_boot, rebuild_now},
    errands::Errands,
    inputs,
    worker::{Error, INVALID, system},
};
use crate::{
    api::dto::Origin, cache::Cache, datapath::apply, memory::give_memory_back, set::name_keys,
};

/// How it goes on.
pub enum Start<'e> {
    /// As a daemon.
    Serve(Box<Started<'e>>),
    /// Not at all; the exit status.
    End(u8),
}

/// What the daemon goes on with.
pub struct Started<'e> {
    /// What is in force.
    pub engine: Engine<'e>,
    /// What is not as it should be.
    pub degraded: Vec<String>,
}

/// What was chosen.
enum Choice {
    Put { built: Box<Built>, origin: Origin, then: Then },
    Nothing(u8),
}

/// What comes when it is in force.
enum Then {
    Serve { degraded: Vec<String> },
    End(u8),
}

/// Puts in force what is to be, and has the programs attached.
pub fn begin<'e>(
    options: &Options,
    errands: &'e Errands,
    say: &mut dyn FnMut(&str),
) -> Result<Start<'e>, Error> {
    let found = errands.find()?;
    // Whoever was killed while the maps were made had put nothing in force.
    let running = match found.fd(apply::ACTIVE) {
        Ok(_) => apply::running(&found)?,
        Err(_) => None,
    };
    let keys = match &running {
        Some(header) => header.name_keys,
        None => name_keys().map_err(system("no random numbers"))?,
    };
    let cache = Arc::default();
    let choice = match options.boot {
        true => choose_to_boot(options, keys, &cache, running.is_some(), say)?,
        false => choose(options, keys, &cache, running.is_some(), say)?,
    };
    let (mut built, origin, then) = match choice {
        Choice::Put { built, origin, then } => (built, origin, then),
        Choice::Nothing(status) => return Ok(Start::End(status)),
    };
    built.said.drain(..).for_each(|text| say(&text));
    let loaded = errands.load()?;
    let Begun { engine, taken, said } =
        Engine::begin(errands, loaded, options, *built, origin, cache)?;
    said.iter().for_each(|text| say(text));
    for program in &taken.replaced {
        say(&format!("the link pinned for `{program}` was another one; it is replaced"));
    }
    if taken.removed > 0 {
        say(&format!("took over from another version: {} links of it are gone", taken.removed));
    }
    give_memory_back();
    let how = match engine.now.origin {
        Origin::Adopted => "goes on",
        _ => "is in force",
    };
    say(&format!("generation {} {how}", engine.now.number));
    Ok(match then {
        Then::Serve { degraded } => Start::Serve(Box::new(Started { engine, degraded })),
        Then::End(status) => Start::End(status),
    })
}

/// Before the network is there: what ran last, or else the boot policy.
fn choose_to_boot(
    options: &Options,
    keys: Keys,
    cache: &Cache,
    running: bool,
    say: &mut dyn FnMut(&str),
) -> Result<Choice, Error> {
    if running {
        say("something is in force already");
        return Ok(Choice::Nothing(0));
    }
    let then = Then::End(0);
    let last = options.state.join(inputs::GENERATION);
    let error = match rebuild_now(&last, keys, cache) {
        Ok(built) => return Ok(Choice::Put { built: built.into(), origin: Origin::Last, then }),
        Err(error) => error,
    };
    if let Some(built) = build_boot(options, keys, cache)? {
        return Ok(Choice::Put { built: built.into(), origin: Origin::Boot, then });
    }
    Ok(Choice::Nothing(if last.exists() {
        say(&format!("there is nothing to put in force: {error}; and no boot policy"));
        INVALID
    } else {
        say("there is nothing to put in force yet, and no boot policy");
        0
    }))
}

/// The policies, or if they are not valid, what ran last, or else the boot policy.
fn choose(
    options: &Options,
    keys: Keys,
    cache: &Cache,
    running: bool,
    say: &mut dyn FnMut(&str),
) -> Result<Choice, Error> {
    let error = match build(options, keys, cache) {
        Ok(built) => {
            let then = Then::Serve { degraded: Vec::new() };
            return Ok(Choice::Put { built: built.into(), origin: Origin::Policies, then });
        }
        Err(error) if error.is_invalid() => error,
        Err(error) => return Err(error.into()),
    };
    say(&format!("error: {error}"));
    match rebuild_now(&options.state.join(inputs::GENERATION), keys, cache) {
        Ok(built) => {
            say("the last generation stays in force: correct the policies and reload");
            let degraded = vec![error.line()];
            return Ok(Choice::Put {
                built: built.into(),
                origin: Origin::Last,
                then: Then::Serve { degraded },
            });
        }
        Err(unknown) if running => {
            say(&format!("what the kernel has stays in force; no daemon runs: {unknown}"));
            return Ok(Choice::Nothing(INVALID));
        }
        Err(_) => {}
    }
    Ok(match build_boot(options, keys, cache)? {
        Some(built) => {
            say("the boot policy is put in force; no daemon runs");
            Choice::Put { built: built.into(), origin: Origin::Boot, then: Then::End(INVALID) }
        }
        None => {
            say("nothing is in force");
            Choice::Nothing(INVALID)
        }
    })
}
