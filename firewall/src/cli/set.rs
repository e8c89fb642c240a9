//! The options that say which policies hold, and the way from them to a generation.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use firewall_common::name_table::Keys;

use crate::{
    config::{self, Config, STATE},
    intel::{self, Intel, ahead, organisations::Organisations},
    policy::{
        self, Action, Apps, DeniedNames, Destinations, Mode, Policy, Rule,
        compile::{self, Facts, Generation, Settings},
        diagnostic::{Diagnostic, Diagnostics, Severity},
        explain::Explainer,
        source::Source,
    },
    remote::Store,
};

use super::{check, progress::Busy};

/// Name of the policy that `--allow`, `--deny` and `--default` make.
pub const COMMAND_LINE: &str = "command-line";

/// What stands in place of the machine's policies where it has none.
const WITHOUT_POLICIES: &str = "watch-everything";

/// Which policies hold.
#[derive(Debug, clap::Args)]
pub struct PolicySet {
    /// Hold this policy: a path, or the name of a shipped one (`firewall policy list`). May be
    /// repeated [default: those of /etc/firewall/policies.d, or watch-everything]
    #[arg(long = "policy", value_name = "P")]
    policies: Vec<String>,
    /// Allow what this matches, before everything else: country:CN, org:baidu, as:37963,
    /// net:10.0.0.0/8, domain:hm.baidu.com or list:FILE. May be repeated
    #[arg(long, value_name = "SPEC")]
    allow: Vec<String>,
    /// Deny what this matches, before the policies and after every --allow. May be repeated
    #[arg(long, value_name = "SPEC")]
    deny: Vec<String>,
    /// What happens to what no rule matches
    #[arg(long, value_enum, value_name = "allow|drop", hide_possible_values = true)]
    default: Option<Passage>,
    /// Record what would be denied, and let it pass
    #[arg(long)]
    observe: bool,
    /// Settings [default: /etc/firewall/firewall.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Take countries from this database
    #[arg(long, value_name = "FILE.mmdb")]
    geo: Option<PathBuf>,
    /// Take owners from this database
    #[arg(long, value_name = "FILE.mmdb")]
    asn: Option<PathBuf>,
    #[command(flatten)]
    state: State,
}

/// Where what is kept between runs is.
#[derive(Debug, clap::Args)]
pub struct State {
    /// Where the copies of lists by URL are
    #[arg(long, value_name = "DIR", default_value = STATE)]
    pub state: PathBuf,
}

impl State {
    /// The copies of lists there.
    pub fn store(&self) -> Store {
        Store::new(&self.state)
    }
}

/// What happens to what no rule decides.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Passage {
    Allow,
    Drop,
}

/// What holds.
pub struct Set {
    /// What `firewall.toml` says.
    pub config: Config,
    /// What is known of addresses.
    pub intel: Intel,
    /// Names that are to be known ahead: those that policies deny, if they are to be looked up.
    pub ahead: DeniedNames,
    /// What was compiled.
    pub generation: Generation,
}

/// Why nothing holds.
#[derive(Debug)]
pub enum Failure {
    /// The command line names what is not there or makes no sense.
    Usage(String),
    /// Policies or settings are wrong: what is wrong stands in the findings.
    Invalid(Box<Diagnostics>),
    /// Something else.
    Other(anyhow::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) => write!(f, "error: {message}"),
            Self::Invalid(findings) => write!(
                f,
                "{}error: the policies or settings are not valid, so nothing is in force",
                findings.render(false)
            ),
            Self::Other(error) => write!(f, "error: {error:#}"),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

impl PolicySet {
    /// Reads, checks and compiles. Warnings are printed.
    pub fn load(&self) -> Result<Set, Failure> {
        let mut config = Config::load(self.config.as_deref()).map_err(|error| match error {
            config::Error::Read { .. } => Failure::Usage(error.to_string()),
            config::Error::Invalid { findings, .. } => Failure::Invalid(findings),
        })?;
        let organisations =
            organisations(&config).map_err(|error| Failure::Usage(error.to_string()))?;
        let command_line = self.command_line(&organisations)?;
        let store = self.state.store();
        let busy = Busy::new("reading policies and lists");
        let (mut policies, mut findings) = policy::load(&self.sources()?, &organisations, &store);
        if findings.has_errors() {
            return Err(Failure::Invalid(Box::new(findings)));
        }
        compile::order(&mut policies);
        policies.splice(0..0, command_line);
        if policies.iter().skip(1).any(|policy| policy.name == COMMAND_LINE) {
            return Err(Failure::Usage(format!(
                "`{COMMAND_LINE}` is the name of what --allow, --deny and --default make\n\n\
                 hint: give your policy another name"
            )));
        }
        let intel = Intel::new(
            self.geo.clone().or(config.geo.clone()),
            self.asn.clone().or(config.asn.clone()),
        )
        .with_organisations(organisations);
        let mut settings = config.settings(name_keys()?, config::system_resolvers());
        settings.observe = self.observe;
        let ahead = match config.ahead {
            Some(true) => policy::denied_names(&policies, ahead::MOST_NAMES),
            _ => DeniedNames::default(),
        };
        let generation = compile(policies, &intel, settings)?;
        warn_of_unreachable(&generation, &intel, &mut findings)?;
        warn_of_unsupported(&generation, &mut config);
        drop(busy);
        check::print_findings(&config.findings)?;
        check::print_findings(&findings)?;
        Ok(Set { config, intel, ahead, generation })
    }

    fn sources(&self) -> Result<Vec<Source>, Failure> {
        let mut sources = sources(&self.policies)?;
        if sources.is_empty() {
            sources = Source::find(WITHOUT_POLICIES)?;
        }
        Ok(sources)
    }

    fn command_line(&self, organisations: &Organisations) -> Result<Option<Policy>, Failure> {
        if self.allow.is_empty() && self.deny.is_empty() && self.default.is_none() {
            return Ok(None);
        }
        let parse = |option: &str, action: Action, spec: &String| {
            let to: Destinations = policy::parse_spec(spec, organisations)
                .map_err(|error| Failure::Usage(format!("{option} {spec}: {error}")))?;
            Ok(Rule {
                name: format!("{option} {spec}"),
                action,
                to: Some(to),
                ports: Vec::new(),
                apps: Apps::default(),
            })
        };
        let allow = self.allow.iter().map(|spec| parse("--allow", Action::Allow, spec));
        let deny = self.deny.iter().map(|spec| parse("--deny", Action::Drop, spec));
        let rules = allow.chain(deny).collect::<Result<_, Failure>>()?;
        Ok(Some(Policy {
            name: COMMAND_LINE.to_owned(),
            description: String::new(),
            mode: Mode::Enforce,
            priority: 0,
            default: self.default.map(|passage| match passage {
                Passage::Allow => policy::Default::Allow,
                Passage::Drop => policy::Default::Drop,
            }),
            apps: Apps::default(),
            rules,
        }))
    }
}

/// The policies of these names and paths; without any, those of this machine, if it has some.
pub fn sources(policies: &[String]) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for name in policies {
        sources.extend(Source::find(name).map_err(|error| Failure::Usage(error.to_string()))?);
    }
    if policies.is_empty() && Path::new(check::POLICIES).is_dir() {
        sources = Source::at(Path::new(check::POLICIES))?;
    }
    Ok(sources)
}

/// Secrets that nobody else knows.
fn name_keys() -> std::io::Result<Keys> {
    let mut bytes = [0; 16];
    // Reads of up to 256 bytes are never short (random(7)).
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let both = u128::from_ne_bytes(bytes);
    Ok(Keys { seed: both as u64, factor: (both >> 64) as u64 | 1 })
}

/// The organisations in the binary and those of the configuration.
pub fn organisations(config: &Config) -> Result<Organisations, intel::Error> {
    let mut organisations = Organisations::embedded()?;
    if let Some(path) = &config.organisations {
        organisations.extend_from(path)?;
    }
    Ok(organisations)
}

/// Compiles with the tables that the policies need, and loads no others.
pub fn compile(
    policies: Vec<Policy>,
    intel: &Intel,
    settings: Settings,
) -> anyhow::Result<Generation> {
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
    Ok(compile::compile(policies, facts, settings)?)
}

/// Puts what can never match among the findings.
pub fn warn_of_unreachable(
    generation: &Generation,
    intel: &Intel,
    findings: &mut Diagnostics,
) -> anyhow::Result<()> {
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
pub fn warn_of_unsupported(generation: &Generation, config: &mut Config) {
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
