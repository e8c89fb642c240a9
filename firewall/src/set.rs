//! From settings and policies to what holds: read, checked, compiled.
//!
//! The one way to a generation, whoever asks for it: a command, the daemon, or a start from what was
//! recorded when the same was compiled before. All files are read through a [`Files`].

use firewall_common::name_table::Keys;

use crate::{
    cache::{Cache, Known, Worked},
    config::Config,
    intel::{self, Intel, ahead, organisations::Organisations},
    policy::{
        self, Action, DeniedNames, Destinations, Mode, Policy, Rule,
        compile::{self, Facts, Generation, Left, Settings},
        diagnostic::{Diagnostic, Diagnostics, Severity},
        explain::Explainer,
        source::{Files, Source},
    },
};

/// Name of the policy that `--allow`, `--deny` and `--default` make.
pub const COMMAND_LINE: &str = "command-line";

/// What is to hold.
pub struct Parts<'a> {
    /// What `firewall.toml` says.
    pub config: Config,
    /// What of it and of this machine goes into the generation.
    pub settings: Settings,
    /// The organisations that policies can name.
    pub organisations: Organisations,
    /// A policy before all others.
    pub first: Option<Policy>,
    /// The policies.
    pub sources: &'a [Source],
    /// What they name is read from here.
    pub files: &'a dyn Files,
}

/// What holds.
pub struct Set {
    /// What `firewall.toml` says, and what was found about it.
    pub config: Config,
    /// What was found about the policies: warnings.
    pub findings: Diagnostics,
    /// What is known of addresses.
    pub intel: Intel,
    /// Names that are to be known ahead: those that policies deny, if they are to be looked up.
    pub ahead: DeniedNames,
    /// What was compiled.
    pub generation: Generation,
}

/// Why nothing holds.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The policies are wrong.
    #[error("the policies are not valid\n\n{}", .0.policies.render(false).trim_end())]
    Invalid(Box<Invalid>),
    /// A policy has a name that is taken.
    #[error(
        "`{COMMAND_LINE}` is the name of what --allow, --deny and --default make\n\n\
         hint: give your policy another name"
    )]
    Reserved,
    /// The tables of countries, owners or organisations.
    #[error(transparent)]
    Intel(#[from] intel::Error),
    /// The policies compile to nothing that fits.
    #[error(transparent)]
    Compile(#[from] compile::Error),
}

/// What is wrong with policies, and what else was found.
#[derive(Debug)]
pub struct Invalid {
    /// About `firewall.toml`: warnings.
    pub settings: Diagnostics,
    /// About the policies.
    pub policies: Diagnostics,
}

impl Set {
    /// Reads, checks and compiles. The same parts, files and secrets give the same generation.
    ///
    /// # Errors
    ///
    /// When anything is wrong: then there is none of it.
    pub fn compile(parts: Parts<'_>) -> Result<Self, Error> {
        Self::compile_with(&Cache::default(), parts)
    }

    /// As [`Self::compile`], and the same comes of it; what was worked out before is not worked out again.
    ///
    /// # Errors
    ///
    /// As of [`Self::compile`].
    pub fn compile_with(cache: &Cache, parts: Parts<'_>) -> Result<Self, Error> {
        let Parts { mut config, settings, organisations, first, sources, files } = parts;
        let Worked { lists, left, embedded } = cache.worked();
        let files = Known::new(files, lists);
        let (mut policies, mut findings) = policy::load(sources, &organisations, &files);
        if findings.has_errors() {
            let settings = config.findings;
            return Err(Error::Invalid(Box::new(Invalid { settings, policies: findings })));
        }
        if policies.iter().any(|policy| policy.name == COMMAND_LINE) {
            return Err(Error::Reserved);
        }
        compile::order(&mut policies);
        policies.splice(0..0, first);
        let intel = Intel::new(config.geo.clone(), config.asn.clone());
        let intel = intel.with_organisations(organisations).with_embedded(embedded);
        let ahead = match config.ahead {
            Some(true) => policy::denied_names(&policies, ahead::MOST_NAMES),
            _ => DeniedNames::default(),
        };
        let (generation, left) = generation_after(left, policies, &intel, settings)?;
        warn_of_unreachable(&generation, &intel, &mut findings)?;
        warn_of_unsupported(&generation, &mut config);
        cache.keep(Worked { lists: files.used(), left, embedded: intel.embedded() });
        Ok(Self { config, findings, intel, ahead, generation })
    }
}

/// Secrets for a generation, that nobody else knows.
///
/// # Errors
///
/// When the system has no random numbers.
pub fn name_keys() -> std::io::Result<Keys> {
    let mut bytes = [0; 16];
    // Reads of up to 256 bytes are never short (random(7)).
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let both = u128::from_ne_bytes(bytes);
    Ok(Keys { seed: both as u64, factor: (both >> 64) as u64 | 1 })
}

/// The organisations in the binary and those of the configuration.
///
/// # Errors
///
/// As of [`Organisations::extend_from`].
pub fn organisations(config: &Config, files: &dyn Files) -> Result<Organisations, intel::Error> {
    let mut organisations = Organisations::embedded()?;
    if let Some(path) = &config.organisations {
        organisations.extend_from(path, files)?;
    }
    Ok(organisations)
}

/// Compiles with the tables that the policies need, and loads no others.
///
/// # Errors
///
/// The tables cannot be read, or the policies compile to nothing that fits.
pub fn generation(
    policies: Vec<Policy>,
    intel: &Intel,
    settings: Settings,
) -> Result<Generation, Error> {
    Ok(generation_after(Left::default(), policies, intel, settings)?.0)
}

fn generation_after(
    left: Left,
    policies: Vec<Policy>,
    intel: &Intel,
    settings: Settings,
) -> Result<(Generation, Left), Error> {
    let organisations = intel.organisations()?;
    let to = || {
        policies
            .iter()
            .flat_map(|policy| &policy.rules)
            .filter_map(|rule| rule.to.as_ref())
            .flat_map(|to| std::iter::once(to).chain(to.except.as_deref()))
    };
    let countries = to().any(|to| !to.jurisdictions.is_empty());
    let asns = to().any(|to| !(to.organisations.is_empty() && to.asns.is_empty()));
    let facts = Facts {
        countries: if countries { Some(intel.geo()?) } else { None },
        asns: if asns { Some(intel.asn()?) } else { None },
        organisation: &|name| organisations.asns(name).unwrap_or_default().to_vec(),
    };
    Ok(compile::compile_after(left, policies, facts, settings)?)
}

/// Puts what can never match among the findings.
fn warn_of_unreachable(
    generation: &Generation,
    intel: &Intel,
    findings: &mut Diagnostics,
) -> Result<(), intel::Error> {
    let explainer = Explainer { generation, intel };
    for unreachable in &generation.unreachable {
        let policy = &generation.policies[unreachable.policy];
        let rule = &policy.rules[unreachable.rule];
        let mut lists = rule.to.iter().flat_map(|to| &to.lists);
        let (message, hint) = if unreachable.means_nothing {
            // That a list is empty was said of the list.
            if lists.any(|list| list.report.entries == 0) {
                continue;
            }
            (
                format!(
                    "rule `{}` can never match: it means no name and no known address",
                    rule.name
                ),
                "`firewall geo lookup` shows what the tables know".to_owned(),
            )
        } else if generation.some_app(unreachable.policy, unreachable.rule).is_none() {
            (
                format!("rule `{}` can never match: no app is one that it means", rule.name),
                "`except-apps` and the policy's `apps` leave none of its `apps`".to_owned(),
            )
        } else {
            match explainer.shadowed_by(unreachable.policy, unreachable.rule)? {
                // Shipped policies each allow the loopback: to say so again harms nobody.
                Some((by_policy, by))
                    if by.action == rule.action && by_policy.name != policy.name =>
                {
                    continue;
                }
                Some((by_policy, by)) => (
                    format!("rule `{}` can never match", rule.name),
                    format!(
                        "rule `{}` of policy `{}` comes first and decides; put this one before it \
                         or remove it",
                        by.name, by_policy.name
                    ),
                ),
                None => (
                    format!("rule `{}` can never match", rule.name),
                    "earlier rules decide everything it names; put it before them or remove it"
                        .to_owned(),
                ),
            }
        };
        findings.warn_rule(&policy.name, &rule.name, message, hint);
    }
    Ok(())
}

/// Puts rules among the findings that allow by name where no answer can support it. Told at
/// `resolvers`: only if that says so is no resolver trusted.
fn warn_of_unsupported(generation: &Generation, config: &mut Config) {
    let enforcing = || generation.policies.iter().filter(|policy| policy.mode == Mode::Enforce);
    let default = enforcing().find_map(|policy| policy.default);
    let drops = default.unwrap_or(generation.settings.default) == policy::Default::Drop;
    let Some(place) = config.resolvers_place.clone() else { return };
    if !drops || !generation.settings.resolvers.is_empty() {
        return;
    }
    let allows = |rule: &&Rule| {
        rule.action != Action::Drop && rule.to.as_ref().is_some_and(Destinations::has_names)
    };
    for policy in enforcing() {
        for rule in policy.rules.iter().filter(allows) {
            config.findings.push(Diagnostic {
                severity: Severity::Warning,
                message: format!(
                    "rule `{}` of policy `{}` allows by name, which no answer can support: no \
                     resolver is trusted",
                    rule.name, policy.name
                ),
                place: place.clone(),
                related: None,
                hint: Some(
                    "name the resolvers that the apps ask, or leave `resolvers` out for those of \
                     this machine"
                        .to_owned(),
                ),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, fs, path::Path};

    use super::*;
    use crate::{
        contents::Contents,
        lists::{self, Format, Parsed},
        policy::source::{Content, Disk, Origin},
    };

    /// Apps, groups of names and of addresses, ports, and more names than one thread looks at.
    fn sources() -> Vec<Source> {
        let names: Vec<String> = (0..11_000)
            .flat_map(|number| [format!("n{number}.example"), format!("=a.n{number}.example")])
            .collect();
        let rules: String = (0..9)
            .map(|number| {
                format!(
                    "[[rule]]\nname = \"r{number}\"\naction = \"{}\"\n\
                     apps = [\"{}\"]\n\
                     ports = [\"tcp/{}\", \"udp/53\"]\n\
                     to = {{ lists = [\"names\"], domains = [\"x{number}.example\"], \
                     networks = [\"10.{number}.0.0/16\"], except = {{ domains = [\"y{}.example\"], \
                     networks = [\"10.0.0.0/{}\"] }} }}\n",
                    ["drop", "log", "allow"][number % 3],
                    ["exe:/opt/**/x*", "user:7", "unit:u*.service"][number / 3],
                    443 + number % 4,
                    number % 7,
                    9 + number % 9,
                )
            })
            .collect();
        let text = format!(
            "[policy]\nname = \"own\"\nmode = \"{{}}\"\n{rules}[list.names]\ndomains = {names:?}\n"
        );
        let mut sources = Source::find("cn-jurisdiction").unwrap();
        for mode in ["enforce", "observe"] {
            let text = text.replacen("{}", mode, 1).replacen("own", mode, 1);
            let origin = Origin::File(format!("{mode}.toml").into());
            sources.push(Source { origin, content: Content::Text(text.into()) });
        }
        sources
    }

    /// Each table of a process has an order of its own, and each compilation has tables of its own.
    #[test]
    fn the_same_parts_give_the_same_generation() {
        let sources = sources();
        let compile = || {
            let config = Config::default();
            let keys = Keys { seed: 0x243f_6a88_85a3_08d3, factor: 0x9e37_79b9_7f4a_7c15 };
            let set = Set::compile(Parts {
                settings: config.settings(keys, Vec::new()),
                organisations: organisations(&config, &Disk).unwrap(),
                config,
                first: None,
                sources: &sources,
                files: &Disk,
            });
            set.unwrap().generation
        };
        let first = compile();
        assert!(first.header.apps.classes > 9 && first.header.name_groups > 1);
        assert!(first.header.address_groups > 1 && first.header.name_classes > 9);
        for _ in 0..2 {
            let again = compile();
            assert_eq!(first.header, again.header);
            assert!(first.blocks == again.blocks);
            assert!(first.decisions().eq(again.decisions()));
            assert_eq!(first.unreachable, again.unreachable);
        }
    }

    /// Counts the lists that are parsed.
    #[derive(Default)]
    struct Counting(Cell<u32>);

    impl Files for Counting {
        fn read(&self, path: &Path) -> Result<Contents, String> {
            Disk.read(path)
        }

        fn list(&self, format: Option<Format>, list: &Contents) -> Result<Parsed, lists::Error> {
            self.0.set(self.0.get() + 1);
            Disk.list(format, list)
        }
    }

    const KEYS: Keys = Keys { seed: 0x243f_6a88_85a3_08d3, factor: 0x9e37_79b9_7f4a_7c15 };

    fn compiled(cache: &Cache, sources: &[Source], files: &dyn Files, keys: Keys) -> Generation {
        let config = Config::default();
        let organisations = organisations(&config, files).unwrap();
        let settings = config.settings(keys, Vec::new());
        let parts = Parts { settings, organisations, config, first: None, sources, files };
        Set::compile_with(cache, parts).unwrap().generation
    }

    fn policy(name: &str, text: &str) -> Source {
        let text = format!("[policy]\nname = \"{name}\"\n{text}");
        Source { origin: Origin::File("/x.toml".into()), content: Content::Text(text.into()) }
    }

    fn listed(path: &Path, format: &str, rest: &str) -> Source {
        let list = format!("[list.l]\nfile = {path:?}\nformat = \"{format}\"\n");
        policy(
            "listed",
            &format!(
                "[[rule]]\nname = \"r\"\naction = \"drop\"\nto = {{ lists = [\"l\"] }}\n{rest}{list}"
            ),
        )
    }

    #[test]
    fn what_did_not_change_is_not_worked_out_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("names");
        let write = |text: &str| fs::write(&path, text).unwrap();
        let (cache, files) = (Cache::default(), Counting::default());
        let other = policy(
            "before",
            "[[rule]]\nname = \"r\"\naction = \"drop\"\nto = { networks = [\"192.0.2.0/24\"] }\n",
        );
        let excepted = "[[rule]]\nname = \"s\"\naction = \"allow\"\nto = { lists = [\"l\"] }\nports = [\"tcp\"]\n\
             [[rule]]\nname = \"t\"\naction = \"drop\"\n\
             to = { jurisdictions = [\"CN\"], except = { domains = [\"a.example\"] } }\n";
        // What is done with it, the lists that are parsed by then, and whether the table is the one before.
        let same = |text: &str, sources: &[Source], keys: Keys, parsed: u32, table: bool| {
            write(text);
            let before = cache.worked().left;
            let found = compiled(&cache, sources, &files, keys);
            let fresh = compiled(&Cache::default(), sources, &Disk, keys);
            assert_eq!(found.header, fresh.header);
            assert!(found.blocks == fresh.blocks && found.decisions().eq(fresh.decisions()));
            assert_eq!(found.unreachable, fresh.unreachable);
            assert_eq!(files.0.get(), parsed, "{text}");
            assert_eq!(cache.worked().left.is(&before), table, "{text}");
            assert!(cache.worked().lists.len() <= 1, "no more than the last set has");
        };
        let [one, two] = ["a.example\nb.example\n", "a.example\nc.example\n"];
        let plain = || listed(&path, "domains", "");
        same(one, &[plain()], KEYS, 1, false);
        same(one, &[plain()], KEYS, 1, true);
        same(one, &[other.clone(), plain()], KEYS, 1, true);
        same(two, &[other.clone(), plain()], KEYS, 2, false);
        same(one, &[other.clone(), plain()], KEYS, 3, false);
        // The same names, of which rules say something else.
        same(one, &[other.clone(), listed(&path, "domains", excepted)], KEYS, 3, false);
        same(one, &[plain()], KEYS, 3, false);
        // Read in another format, or hashed with other keys.
        same(one, &[listed(&path, "wildcard", "")], KEYS, 4, false);
        same(one, &[listed(&path, "wildcard", "")], Keys { seed: 8, ..KEYS }, 4, false);
        // An app selector moves the table.
        let app = policy("app", "apps = [\"exe:/opt/**/x*\"]\ndefault = \"drop\"\n");
        same(one, &[listed(&path, "wildcard", "")], KEYS, 4, false);
        same(one, &[listed(&path, "wildcard", ""), app], KEYS, 4, false);
    }

    #[test]
    fn what_fails_leaves_what_there_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("names");
        fs::write(&path, "a.example\n").unwrap();
        let (cache, files) = (Cache::default(), Counting::default());
        compiled(&cache, &[listed(&path, "domains", "")], &files, KEYS);
        let before = cache.worked();
        fs::write(&path, "b.example\n").unwrap();
        let config = Config::default();
        let parts = Parts {
            settings: config.settings(KEYS, Vec::new()),
            organisations: organisations(&config, &Disk).unwrap(),
            config,
            first: None,
            sources: &[listed(&path, "domains", ""), policy("broken", "")],
            files: &files,
        };
        assert!(matches!(Set::compile_with(&cache, parts), Err(Error::Invalid(_))));
        assert_eq!(cache.worked().lists, before.lists);
        assert!(cache.worked().left.is(&before.left));
    }
}
