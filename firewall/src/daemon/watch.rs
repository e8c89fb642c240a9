//! The folder of the policies, watched: when nothing has changed for a moment after something has, it is
//! read anew.

use std::{future::pending, io, mem::MaybeUninit, os::fd::OwnedFd, path::Path, time::Duration};

use rustix::fs::inotify;
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, timeout_at},
};

/// How long nothing has to change.
const QUIET: Duration = Duration::from_millis(500);

/// Watches, or not.
pub struct Watch {
    folder: Option<io::Result<AsyncFd<OwnedFd>>>,
    /// Until when nothing more has to change.
    quiet: Option<Instant>,
}

impl Watch {
    /// Of a folder, if that is asked for. To be called in a runtime.
    pub fn new(asked: bool, folder: &Path) -> Self {
        Self { folder: asked.then(|| begin(folder)), quiet: None }
    }

    /// Why it does not watch, though it was asked to.
    pub fn trouble(&self) -> Option<String> {
        let error = self.folder.as_ref()?.as_ref().err()?;
        Some(format!("the folder of the policies cannot be watched: {error}"))
    }

    /// Waits for a change, and then until no more come. Can be given up and taken up again.
    pub async fn changed(&mut self) {
        let Some(Ok(fd)) = &self.folder else { return pending().await };
        loop {
            let changed = match self.quiet {
                None => next(fd).await,
                Some(quiet) => match timeout_at(quiet, next(fd)).await {
                    Ok(changed) => changed,
                    Err(_) => break,
                },
            };
            if changed.is_err() {
                self.folder = None;
                return pending().await;
            }
            self.quiet = Some(Instant::now() + QUIET);
        }
        self.quiet = None;
    }
}

fn begin(folder: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let what = inotify::WatchFlags::CLOSE_WRITE
        | inotify::WatchFlags::MOVE
        | inotify::WatchFlags::DELETE
        | inotify::WatchFlags::ONLYDIR;
    inotify::add_watch(&fd, folder, what)?;
    // SAFETY: the descriptor is owned, and open as long as what is registered.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Takes the changes that there are, once there are some.
async fn next(fd: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    loop {
        let mut ready = fd.readable().await?;
        let read = ready.try_io(|fd| {
            let (read, _) = rustix::io::read(fd.get_ref(), &mut buffer)?;
            Ok(read.len())
        });
        if let Ok(read) = read {
            return read.map(|_| ());
        }
    }
}
