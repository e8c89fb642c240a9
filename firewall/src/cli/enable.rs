//! `firewall policy enable` and `disable`: which policies this machine has.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{
    CANNOT, USAGE, ask,
    ask::Socket,
    check::{POLICIES, print_findings},
    reload,
};
use crate::{
    api::{
        client,
        dto::{Change, Status},
    },
    config::{Config, STATE},
    policy::{
        self,
        diagnostic::{Diagnostics, printable},
        source::{Content, Disk, LARGEST, Origin, Source},
    },
    regular,
    remote::Store,
    set::organisations,
};

/// Where policies are, and who reads them.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The folder of this machine's policies
    #[arg(long = "policies", value_name = "DIR", default_value = POLICIES)]
    pub folder: PathBuf,
    #[command(flatten)]
    socket: Socket,
}

/// What is put behind the name of a policy's file that is disabled.
const DISABLED: &str = "disabled";

/// Puts a policy into the folder.
pub fn enable(name: &str, place: &Place) -> ExitCode {
    let source = match Source::find(name).map(|mut found| (found.pop(), found.is_empty())) {
        Ok((Some(source), true)) => source,
        Ok(_) => {
            eprintln!("error: {} is a folder\n\nhint: name one policy", printable(name));
            return ExitCode::from(USAGE);
        }
        // Of one that was disabled the file is still there.
        Err(_) if !name.contains('/') && disabled(&place.folder.join(file_name(name))).exists() => {
            Source {
                origin: Origin::File(PathBuf::from(name)),
                content: Content::Bytes(Vec::new()),
            }
        }
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let path = place.folder.join(match &source.origin {
        Origin::Shipped(name) => file_name(name),
        Origin::File(path) => file_name(&path.file_name().unwrap_or_default().to_string_lossy()),
    });
    if is_hidden(&path) {
        eprintln!(
            "error: {} is hidden, and hidden files are not read\n\n\
             hint: give it a name that does not begin with a dot",
            printable(name)
        );
        return ExitCode::from(USAGE);
    }
    let text = match &source.content {
        Content::Text(text) => text.as_bytes(),
        Content::Bytes(bytes) => bytes,
        Content::Unreadable { why, hint } => {
            eprintln!("error: cannot read {}: {why}\n\nhint: {hint}", printable(name));
            return ExitCode::from(USAGE);
        }
    };
    let shown = printable(&path.display().to_string());
    let was_disabled = disabled(&path);
    let put = match regular::read(&path, LARGEST) {
        Ok(there) if there == text => {
            println!("already enabled: {shown}");
            return ExitCode::SUCCESS;
        }
        Ok(_) => {
            eprintln!(
                "error: {shown} is there, and is another one\n\nhint: `firewall policy disable {}` \
                 moves it out of the way",
                printable(&stem(&path))
            );
            return ExitCode::FAILURE;
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        // What was disabled may have been changed before.
        Err(_) if was_disabled.exists() => Move::new(was_disabled, path.clone()).done(),
        Err(_) => {
            let new = path.with_file_name(format!(".{}.new", stem(&path)));
            write(&new, text).and_then(|()| Move::new(new, path.clone()).done())
        }
    };
    let put = match put {
        Ok(put) => put,
        Err(error) => return cannot("put", &path, &error),
    };
    let back = |why: &str| match put.undo() {
        Ok(()) => eprintln!("\nerror: {why}, so the policy is not enabled: {shown} is gone again"),
        Err(error) => eprintln!("\nerror: {why}, and {shown} cannot be taken away: {error}"),
    };
    settle(place, "enabled", &shown, &back)
}

/// Takes a policy out of the folder.
///
/// # Errors
/// The settings are not valid, or the folder cannot be read, so no policy is found by its name.
pub fn disable(name: &str, place: &Place) -> anyhow::Result<ExitCode> {
    let Some(path) = find(name, &place.folder)? else {
        let folder = printable(&place.folder.display().to_string());
        eprintln!("error: no policy `{}` is enabled in {folder}", printable(name));
        eprintln!("\nhint: `firewall policy list` shows those that are");
        return Ok(ExitCode::FAILURE);
    };
    let shown = printable(&path.display().to_string());
    let to = disabled(&path);
    let moved = match Move::new(path.clone(), to.clone()).done() {
        Ok(moved) => moved,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let to = printable(&to.display().to_string());
            eprintln!("error: {to} is there already\n\nhint: remove it, or give it another name");
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Ok(cannot("move", &path, &error)),
    };
    let back = |why: &str| match moved.undo() {
        Ok(()) => eprintln!("\nerror: {why}, so {shown} stays enabled"),
        Err(error) => eprintln!("\nerror: {why}, and {shown} cannot be put back: {error}"),
    };
    Ok(settle(place, "disabled", &printable(&to.display().to_string()), &back))
}

/// Lets what is in the folder hold, or has it put back as it was.
pub fn settle(place: &Place, done: &str, shown: &str, back: &dyn Fn(&str)) -> ExitCode {
    match take(place) {
        Ok(said) => {
            println!("{done}: {shown}");
            eprintln!("{said}");
            ExitCode::SUCCESS
        }
        Err(Refused { why, status }) => {
            back(why);
            status
        }
    }
}

/// Why what is in the folder does not hold. The rest of it is told already.
struct Refused {
    why: &'static str,
    status: ExitCode,
}

impl From<client::Error> for Refused {
    fn from(error: client::Error) -> Self {
        Self { status: ask::failed(&error), why: "the daemon does not take it" }
    }
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        eprintln!("error: {error:#}");
        Self { why: "the policies cannot be checked", status: ExitCode::FAILURE }
    }
}

/// Has the daemon take what is in the folder, or else looks at it here. What came of it, for people.
fn take(place: &Place) -> Result<String, Refused> {
    let client = place.socket.client().map_err(anyhow::Error::from)?;
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let why = match client.get::<Status>("/v1/status") {
        Ok(status) if real(Path::new(&status.folder)) == real(&place.folder) => {
            let change = client.post::<Change>("/v1/reload")?;
            if !change.warnings.is_empty() {
                eprintln!("{}", change.warnings.trim_end());
            }
            return Ok(format!("in force: {}", reload::summary(&change)));
        }
        Ok(_) => "the daemon has another folder",
        Err(client::Error::NoDaemon { .. }) => "no daemon runs",
        Err(error) => return Err(error.into()),
    };
    // Nobody takes it now, so it is looked at here whether the next daemon will.
    let findings = check(&place.folder)?;
    // Whether somebody reads them does not matter.
    let _ = print_findings(&findings);
    match findings.has_errors() {
        true => Err(Refused { why: "the policies are not valid", status: ExitCode::FAILURE }),
        false => Ok(format!("note: {why}, so nothing in force has changed")),
    }
}

fn check(folder: &Path) -> anyhow::Result<Diagnostics> {
    let organisations = organisations(&Config::load(None)?, &Disk)?;
    let (_, findings) =
        policy::load(&Source::at(folder)?, &organisations, &Store::new(Path::new(STATE)));
    Ok(findings)
}

/// Says what cannot be done to a file, and returns the exit status.
pub fn cannot(what: &str, path: &Path, error: &io::Error) -> ExitCode {
    eprintln!("error: cannot {what} {}: {error}", printable(&path.display().to_string()));
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            eprintln!("\nhint: use sudo");
            ExitCode::from(CANNOT)
        }
        _ => ExitCode::FAILURE,
    }
}

fn file_name(name: &str) -> String {
    format!("{}.toml", name.strip_suffix(".toml").unwrap_or(name))
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether nobody takes it for a policy.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn disabled(path: &Path) -> PathBuf {
    path.with_added_extension(DISABLED)
}

/// The enabled file of a policy: by the name of the file, else by that of the policy.
fn find(name: &str, folder: &Path) -> anyhow::Result<Option<PathBuf>> {
    let path = folder.join(file_name(name));
    if !name.contains('/') && path.exists() {
        return Ok(Some(path));
    }
    if !folder.exists() {
        return Ok(None);
    }
    let organisations = organisations(&Config::load(None)?, &Disk)?;
    let store = Store::new(Path::new(STATE));
    for source in Source::at(folder)? {
        let (policies, _) = policy::load(std::slice::from_ref(&source), &organisations, &store);
        if let Origin::File(path) = source.origin
            && policies.iter().any(|policy| policy.name == name)
        {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Writes a file that nobody takes for a policy yet.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = regular::create(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// A file that gets another name, and nothing is in its way.
struct Move {
    from: PathBuf,
    to: PathBuf,
    /// What goes back is of no use to anybody.
    is_new: bool,
}

impl Move {
    fn new(from: PathBuf, to: PathBuf) -> Self {
        let is_new = is_hidden(&from);
        Self { from, to, is_new }
    }

    fn done(self) -> io::Result<Self> {
        match renameat_with(CWD, &self.from, CWD, &self.to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(self),
            Err(error) => {
                if self.is_new {
                    let _ = fs::remove_file(&self.from);
                }
                Err(error.into())
            }
        }
    }

    fn undo(&self) -> io::Result<()> {
        match self.is_new {
            true => fs::remove_file(&self.to),
            false => fs::rename(&self.to, &self.from),
        }
    }
}
