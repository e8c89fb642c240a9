//! `firewall policy enable` and `disable`: which policies this machine has.

use std::{
    fs::{self, File},
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
        diagnostic::printable,
        source::{Content, Disk, Origin, Source},
    },
    remote::Store,
    set::organisations,
};

/// Where policies are, and who reads them.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The folder of this machine's policies
    #[arg(long = "policies", value_name = "DIR", default_value = POLICIES)]
    folder: PathBuf,
    #[command(flatten)]
    socket: Socket,
}

/// What is put behind the name of a policy's file that is disabled.
const DISABLED: &str = "disabled";

/// Puts a policy into the folder.
///
/// # Errors
/// The system has no means to ask the daemon.
pub fn enable(name: &str, place: &Place) -> anyhow::Result<ExitCode> {
    let source = match Source::find(name).map(|mut found| (found.pop(), found.is_empty())) {
        Ok((Some(source), true)) => source,
        Ok(_) => {
            eprintln!("error: {} is a folder\n\nhint: name one policy", printable(name));
            return Ok(ExitCode::from(USAGE));
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
            return Ok(ExitCode::from(USAGE));
        }
    };
    let path = place.folder.join(match &source.origin {
        Origin::Shipped(name) => file_name(name),
        Origin::File(path) => file_name(&path.file_name().unwrap_or_default().to_string_lossy()),
    });
    let text = match &source.content {
        Content::Text(text) => text.as_bytes(),
        Content::Bytes(bytes) => bytes,
        Content::Unreadable { why, .. } => {
            eprintln!("error: cannot read {}: {why}", printable(name));
            return Ok(ExitCode::from(USAGE));
        }
    };
    let shown = printable(&path.display().to_string());
    let was_disabled = disabled(&path);
    let put = match fs::read(&path) {
        Ok(there) if there == text => {
            println!("already enabled: {shown}");
            return Ok(ExitCode::SUCCESS);
        }
        Ok(_) => {
            eprintln!(
                "error: {shown} is there, and is another one\n\nhint: `firewall policy disable {}` \
                 moves it out of the way",
                printable(&stem(&path))
            );
            return Ok(ExitCode::FAILURE);
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
        Err(error) => return Ok(cannot("put", &path, &error)),
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
/// The system has no means to ask the daemon.
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
    settle(place, "disabled", &printable(&to.display().to_string()), &back)
}

/// Lets what is in the folder hold, or has it put back as it was.
fn settle(place: &Place, done: &str, shown: &str, back: &dyn Fn(&str)) -> anyhow::Result<ExitCode> {
    let client = place.socket.client()?;
    let status: Status = match client.get("/v1/status") {
        Ok(status) => status,
        Err(client::Error::NoDaemon { .. }) => {
            return without_daemon(place, "no daemon runs", done, shown, back);
        }
        Err(error) => {
            let status = ask::failed(&error);
            back("the daemon does not take it");
            return Ok(status);
        }
    };
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if real(Path::new(&status.folder)) != real(&place.folder) {
        return without_daemon(place, "the daemon has another folder", done, shown, back);
    }
    match client.post::<Change>("/v1/reload") {
        Ok(change) => {
            if !change.warnings.is_empty() {
                eprintln!("{}", change.warnings.trim_end());
            }
            println!("{done}: {shown}");
            eprintln!("in force: {}", reload::summary(&change));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let status = ask::failed(&error);
            back("the daemon does not take it");
            Ok(status)
        }
    }
}

/// Nobody takes it now, so it is looked at here whether the next daemon will.
fn without_daemon(
    place: &Place,
    why: &str,
    done: &str,
    shown: &str,
    back: &dyn Fn(&str),
) -> anyhow::Result<ExitCode> {
    let organisations = organisations(&Config::load(None)?, &Disk)?;
    let sources = Source::at(&place.folder)?;
    let (_, findings) = policy::load(&sources, &organisations, &Store::new(Path::new(STATE)));
    print_findings(&findings)?;
    if findings.has_errors() {
        back("the policies are not valid");
        return Ok(ExitCode::FAILURE);
    }
    println!("{done}: {shown}");
    eprintln!("note: {why}, so nothing in force has changed");
    Ok(ExitCode::SUCCESS)
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> ExitCode {
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
    let mut file = File::create(path)?;
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
        let is_new = from.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
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
