//! The options that say which policies hold, and the way from them to a generation.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    config::{self, Config, STATE},
    intel::organisations::Organisations,
    policy::{
        self, Action, Apps, Destinations, Mode, Policy, Rule, diagnostic::Diagnostics,
        source::Source,
    },
    remote::Store,
    set::{self, COMMAND_LINE, Parts, Set},
};

use super::{check, progress::Busy};

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

impl Failure {
    /// Says it, and returns the exit status.
    pub fn tell(&self) -> ExitCode {
        eprintln!("{self}");
        ExitCode::from(match self {
            Self::Usage(_) => super::USAGE,
            Self::Invalid(_) | Self::Other(_) => 1,
        })
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

impl PolicySet {
    /// Those of a folder, or of this machine, without which everything is watched; none of them stops
    /// anything.
    pub fn observing(folder: Option<&str>, config: Option<PathBuf>, state: PathBuf) -> Self {
        Self {
            // With a `/` it is no name of a shipped one.
            policies: folder.map(|folder| format!("{folder}/")).into_iter().collect(),
            allow: Vec::new(),
            deny: Vec::new(),
            default: None,
            observe: true,
            config,
            geo: None,
            asn: None,
            state: State { state },
        }
    }

    /// Reads, checks and compiles. Warnings are printed.
    pub fn load(&self) -> Result<Set, Failure> {
        self.load_with(&self.state.store())
    }

    /// As [`Self::load`], without rules for a time: for who does not end them.
    pub fn load_without_time(&self) -> Result<Set, Failure> {
        self.load_with(&self.state.store().without_time())
    }

    fn load_with(&self, store: &Store) -> Result<Set, Failure> {
        let mut config = config(self.config.as_deref())?;
        config.geo = self.geo.clone().or(config.geo);
        config.asn = self.asn.clone().or(config.asn);
        let organisations = set::organisations(&config, store)
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let first = self.command_line(&organisations)?;
        let mut settings = config.settings(set::name_keys()?, config::system_resolvers());
        settings.observe = self.observe;
        let busy = Busy::new("reading policies and lists");
        let sources = self.sources()?;
        let parts =
            Parts { config, settings, organisations, first, sources: &sources, files: store };
        let set = Set::compile(parts).map_err(|error| match error {
            set::Error::Invalid(invalid) => Failure::Invalid(Box::new(invalid.policies)),
            set::Error::Reserved => Failure::Usage(error.to_string()),
            set::Error::Intel(_) | set::Error::Compile(_) => Failure::Other(error.into()),
        })?;
        drop(busy);
        check::print_findings(&set.config.findings)?;
        check::print_findings(&set.findings)?;
        Ok(set)
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
                until: None,
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

/// The settings of a file, or of this machine.
pub fn config(path: Option<&Path>) -> Result<Config, Failure> {
    Config::load(path).map_err(|error| match error {
        config::Error::Read { .. } => Failure::Usage(error.to_string()),
        config::Error::Invalid { findings, .. } => Failure::Invalid(findings),
    })
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
