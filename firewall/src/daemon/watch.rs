//! The folder of the policies, watched: when nothing has changed for a moment after something has, it is
//! read anew.

use std::{io, mem::MaybeUninit, os::fd::OwnedFd, path::Path, time::Duration};

use rustix::fs::inotify;
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::timeout,
};

/// How long nothing has to change.
const QUIET: Duration = Duration::from_millis(500);

/// Watches, or not.
pub struct Watch(Option<io::Result<AsyncFd<OwnedFd>>>);

impl Watch {
    /// Of a folder, if that is asked for. To be called in a runtime.
    pub fn new(asked: bool, folder: &Path) -> Self {
        Self(asked.then(|| begin(folder)))
    }

    /// Why it does not watch, though it was asked to.
    pub fn trouble(&self) -> Option<String> {
        let error = self.0.as_ref()?.as_ref().err()?;
        Some(format!("the folder of the policies cannot be watched: {error}"))
    }

    /// Waits for a change, and then until no more come.
    pub async fn changed(&mut self) {
        let Some(Ok(fd)) = &self.0 else { return std::future::pending().await };
        if next(fd).await.is_err() {
            self.0 = None;
            return std::future::pending().await;
        }
        while let Ok(Ok(())) = timeout(QUIET, next(fd)).await {}
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
