//! Which apps a policy or a rule holds for.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, OnceLock},
};

use firewall_common::app::Kind;
use globset::GlobBuilder;
use regex_automata::{
    Anchored, Input, MatchKind,
    dfa::{Automaton, StartKind, dense},
    nfa::thompson,
    util::{primitives::StateID, syntax},
};

/// The apps of a policy or a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Apps {
    /// An app is meant that one of these selects; empty is every app.
    pub only: Vec<Selector>,
    /// Taken out again.
    pub except: Vec<Selector>,
}

impl Apps {
    /// Whether `*` is written.
    pub(super) fn names_every(&self) -> bool {
        self.only.iter().any(|selector| selector.means == Means::Every)
    }

    /// Whether every app is meant.
    pub fn is_every(&self) -> bool {
        self.except.is_empty() && selects_every(&self.only)
    }
}

/// Whether a list of `apps` means every app.
pub(super) fn selects_every(only: &[Selector]) -> bool {
    only.is_empty() || only.iter().any(|selector| selector.means == Means::Every)
}

/// One entry of `apps` or `except-apps`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    /// As evidence calls it: as it was written, with the real path of what is behind links.
    pub text: String,
    /// What it selects.
    pub means: Means,
}

/// What a selector selects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Means {
    /// `*`
    Every,
    /// The kernel. It has no other facet.
    Kernel,
    /// A process whose executable nobody knows.
    Unknown,
    /// Executables by their path.
    Exe(Paths),
    /// Scripts by their path.
    Script(Paths),
    /// Cgroups by their path, those below them included.
    Cgroup(Paths),
    /// A user by number.
    User(u32),
    /// A group by number.
    Group(u32),
}

/// Paths by globs: `*` and `?` stay in a component, `**` goes over any number of them. There is no
/// escape: a star as such is `[*]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Paths {
    globs: Vec<String>,
    whole: Whole,
    matcher: Matcher,
}

/// An automaton for one selector, made when it is first asked.
#[derive(Clone, Default)]
struct Matcher(Arc<OnceLock<Option<Machine>>>);

/// An automaton and its start.
type Machine = (dense::DFA<Vec<u32>>, StateID);

/// It says nothing that the globs do not say.
impl PartialEq for Matcher {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Matcher {}

impl Hash for Matcher {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Matcher")
    }
}

/// How a glob stands for paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whole {
    /// It matches the whole path.
    Path,
    /// It matches a folder, of which all that is below is meant too.
    Below,
    /// It matches the name of a unit, of which all that is below is meant too: below slices and users'
    /// service managers. What a unit makes in itself is its own, and no unit to us.
    Unit,
}

/// What is above a unit; `firewall run` makes cgroups too.
const ABOVE: &str = r"(?:/(?:[^/]*\.slice|user@[^/]*\.service|firewall-run-[^/]*))*/";

impl Paths {
    /// The paths that any of `globs` matches.
    ///
    /// # Errors
    /// What is wrong with one of them, in words of the library.
    pub fn new(globs: Vec<String>, whole: Whole) -> Result<Self, String> {
        for glob in &globs {
            build(glob).map_err(|error| error.kind().to_string())?;
            if let Some(why) = misleading(glob) {
                return Err(why.to_owned());
            }
        }
        Ok(Self { globs, whole, matcher: Matcher::default() })
    }

    /// A regular expression for them, from the first byte to the last.
    pub(super) fn regex(&self) -> String {
        let bodies: Vec<String> = self.globs.iter().filter_map(|glob| regex(glob)).collect();
        let bodies = bodies.join("|");
        match self.whole {
            Whole::Path => bodies,
            Whole::Below => format!("(?:{bodies})(?:/.*)?"),
            Whole::Unit => format!("{ABOVE}(?:{bodies})(?:/.*)?"),
        }
    }

    /// A path that is meant, if no globs were written.
    fn sample(&self) -> Option<String> {
        // A star that is there stands for what a service manager puts in.
        let first = self.globs.first()?.replace('*', "0");
        Some(if self.whole == Whole::Unit { format!("/{first}") } else { first })
    }

    /// Whether one of them matches a path.
    pub fn matches(&self, path: &[u8]) -> bool {
        if self.whole == Whole::Path
            && let Some(literal) = self.literal()
        {
            return path == literal.as_bytes();
        }
        let Some((dfa, start)) = self.matcher.0.get_or_init(|| dfa(&[self.regex()])) else {
            return false;
        };
        let end = path.iter().fold(*start, |state, byte| dfa.next_state(state, *byte));
        dfa.is_match_state(dfa.next_eoi_state(end))
    }

    /// The one path that is meant, if no glob is in it.
    pub fn literal(&self) -> Option<&str> {
        let first = self.globs.first().filter(|_| self.whole != Whole::Unit);
        first.filter(|first| !is_glob(first)).map(String::as_str)
    }
}

/// Whether a text has characters of a glob.
pub(super) fn is_glob(text: &str) -> bool {
    text.contains(META)
}

/// Characters that have a meaning in globs.
pub(super) const META: [char; 6] = ['*', '?', '[', ']', '{', '}'];

/// A text in which no character has a meaning in globs any more.
pub(crate) fn escaped(text: &str) -> String {
    let mut glob = String::new();
    for c in text.chars() {
        match META.contains(&c) {
            true => glob.extend(['[', c, ']']),
            false => glob.push(c),
        }
    }
    glob
}

/// What a glob means that is none but for characters that stand in brackets; `None` if it is more.
fn without_brackets(glob: &str) -> Option<String> {
    let mut plain = String::new();
    let mut rest = glob.chars();
    while let Some(c) = rest.next() {
        match c {
            '[' => {
                plain.push(rest.next()?);
                rest.next().filter(|c| *c == ']')?;
            }
            c if META.contains(&c) => return None,
            c => plain.push(c),
        }
    }
    Some(plain)
}

/// Why a glob would not mean what it looks like: paths are bytes to the automaton.
fn misleading(glob: &str) -> Option<&'static str> {
    let mut rest = glob.chars().peekable();
    let mut braces = 0;
    while let Some(c) = rest.next() {
        match c {
            '[' => {
                rest.next_if(|c| matches!(c, '!' | '^'));
                let mut class = vec![rest.next()?];
                class.extend(std::iter::from_fn(|| rest.next_if(|c| *c != ']')));
                if !class.iter().all(char::is_ascii) {
                    return Some("only ASCII can stand in brackets");
                }
                let range = |w: &[char]| w[1] == '-' && (w[0]..=w[2]).contains(&'/');
                if class.contains(&'/') || class.windows(3).any(range) {
                    return Some(
                        "what stands in brackets is one character of a name, and never `/`",
                    );
                }
            }
            '{' | ',' if c == '{' || braces > 0 => {
                braces += i32::from(c == '{');
                if matches!(rest.peek(), Some(',' | '}')) {
                    return Some("an alternative in braces is empty");
                }
            }
            '}' => braces -= 1,
            _ => {}
        }
    }
    None
}

fn build(glob: &str) -> Result<globset::Glob, globset::Error> {
    // systemd writes `\x2d` in names of units: a backslash is itself.
    GlobBuilder::new(glob).literal_separator(true).backslash_escape(false).build()
}

/// Bytes of an automaton, and half of those to make it.
const MAX_BYTES: usize = 1 << 26;

/// The regular expression of a glob, without what ties it to the ends.
fn regex(glob: &str) -> Option<String> {
    let built = build(glob).ok()?;
    let body = built.regex().strip_prefix("(?-u)^")?.strip_suffix('$')?;
    // What is not in a class can still be a `/` for the library.
    Some(body.replace("[^", "[^/"))
}

/// An automaton for paths, of which a match says which of `regexes` match all of it, and its start;
/// `None` if it would be too large.
pub(super) fn dfa(regexes: &[String]) -> Option<Machine> {
    let regexes: Vec<String> = regexes.iter().map(|one| format!("^(?:{one})$")).collect();
    let config = dense::Config::new()
        .match_kind(MatchKind::All)
        .start_kind(StartKind::Anchored)
        .dfa_size_limit(Some(MAX_BYTES))
        .determinize_size_limit(Some(2 * MAX_BYTES));
    let thompson = thompson::Config::new()
        .which_captures(thompson::WhichCaptures::None)
        .nfa_size_limit(Some(MAX_BYTES));
    let syntax = syntax::Config::new().unicode(false).utf8(false).dot_matches_new_line(true);
    let mut builder = dense::Builder::new();
    let dfa = builder.configure(config).thompson(thompson).syntax(syntax).build_many(&regexes);
    let dfa = dfa.ok()?;
    let start = dfa.start_state_forward(&Input::new("").anchored(Anchored::Yes)).ok()?;
    Some((dfa, start))
}

/// What is known of an app.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppFacts {
    /// What kind it is, and whether the path of its executable is trusted.
    pub kind: Kind,
    /// The path of its executable; empty if there is none.
    pub exe: Vec<u8>,
    /// The path of its script; empty if there is none.
    pub script: Vec<u8>,
    /// The path of its cgroup; empty if there is none.
    pub cgroup: Vec<u8>,
    /// Its user.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: Option<u32>,
}

impl Default for AppFacts {
    /// An app that no selector names but `*`.
    fn default() -> Self {
        Self {
            kind: Kind::Trusted,
            exe: Vec::new(),
            script: Vec::new(),
            cgroup: Vec::new(),
            uid: None,
            gid: None,
        }
    }
}

impl AppFacts {
    /// An app that each of `selectors` selects, and of which nothing else is known.
    ///
    /// # Errors
    /// When that is no one app, with what to write instead.
    pub fn of(selectors: &[Selector]) -> Result<Self, String> {
        let mut facts = Self::default();
        let nobody = Self::default();
        for Selector { text, means } in selectors {
            let path = |paths: &Paths| match paths.sample().zip(without_brackets(text)) {
                Some((path, _)) => Ok(without_brackets(&path).unwrap_or(path).into()),
                None => {
                    let hint = "write it out, and what is no glob in brackets: `[*]`";
                    Err(format!("`{text}` is a glob, and one app is judged\n\nhint: {hint}"))
                }
            };
            let fresh = match means {
                Means::Every => {
                    let hint = "without --app, an app is judged that no selector names";
                    return Err(format!("`*` is every app, and one is judged\n\nhint: {hint}"));
                }
                Means::Kernel | Means::Unknown | Means::Exe(_) => {
                    facts.kind == nobody.kind && facts.exe.is_empty()
                }
                Means::Script(_) => facts.script.is_empty(),
                Means::Cgroup(_) => facts.cgroup.is_empty(),
                Means::User(_) => facts.uid.is_none(),
                Means::Group(_) => facts.gid.is_none(),
            };
            if !fresh {
                return Err(format!(
                    "`{text}` says again what another --app says\n\n\
                     hint: one executable, script, cgroup, user and group make an app"
                ));
            }
            match means {
                Means::Every => {}
                Means::Kernel => facts.kind = Kind::Kernel,
                Means::Unknown => facts.kind = Kind::Unknown,
                Means::Exe(paths) => facts.exe = path(paths)?,
                Means::Script(paths) => facts.script = path(paths)?,
                Means::Cgroup(paths) => facts.cgroup = path(paths)?,
                Means::User(number) => facts.uid = Some(*number),
                Means::Group(number) => facts.gid = Some(*number),
            }
        }
        Ok(facts)
    }

    /// The path of the executable, if one is known.
    fn exe(&self) -> Option<&[u8]> {
        matches!(self.kind, Kind::Trusted | Kind::Untrusted).then_some(&self.exe)
    }
}

impl Selector {
    /// Whether it selects an app, as far as its word is taken.
    pub fn selects(&self, app: &AppFacts) -> bool {
        let process = app.kind != Kind::Kernel;
        match &self.means {
            Means::Every => true,
            Means::Kernel => !process,
            Means::Unknown => app.kind == Kind::Unknown,
            Means::Exe(paths) => app.exe().is_some_and(|path| paths.matches(path)),
            Means::Script(paths) => process && paths.matches(&app.script),
            Means::Cgroup(paths) => process && paths.matches(&app.cgroup),
            Means::User(number) => process && app.uid == Some(*number),
            Means::Group(number) => process && app.gid == Some(*number),
        }
    }

    /// Whether no app is selected by both, as far as that can be known.
    pub(super) fn is_apart_from(&self, other: &Self) -> bool {
        use Means::{Cgroup, Every, Exe, Group, Kernel, Script, Unknown, User};
        let apart = |one: &Paths, other: &Paths| {
            one.literal().is_some_and(|path| !other.matches(path.as_bytes()))
                || other.literal().is_some_and(|path| !one.matches(path.as_bytes()))
        };
        match (&self.means, &other.means) {
            (Every, _) | (_, Every) => false,
            (Kernel, other) | (other, Kernel) => *other != Kernel,
            (Unknown, Exe(_)) | (Exe(_), Unknown) => true,
            (Exe(one), Exe(other)) | (Script(one), Script(other)) => apart(one, other),
            // One can be below the other.
            (Cgroup(one), Cgroup(other)) => match (one.literal(), other.literal()) {
                (Some(path), Some(there)) => {
                    !other.matches(path.as_bytes()) && !one.matches(there.as_bytes())
                }
                _ => false,
            },
            (User(one), User(other)) | (Group(one), Group(other)) => one != other,
            _ => false,
        }
    }

    /// Whether every app that it selects is selected by `other` too, as far as that can be known.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        use Means::{Cgroup, Every, Exe, Script};
        match (&self.means, &other.means) {
            (_, Every) => true,
            (Exe(one), Exe(other))
            | (Script(one), Script(other))
            | (Cgroup(one), Cgroup(other)) => {
                one == other || one.literal().is_some_and(|path| other.matches(path.as_bytes()))
            }
            (one, other) => one == other,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
