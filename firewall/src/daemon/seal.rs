//! Signing the audit store: the keeper has the key, the worker asks.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::wire::{Channel, Seal, Sealed};
use crate::store::{
    chain::Head,
    key::{self, Key},
    writer::Signer,
};

/// How often the last head is noted at most: it takes the disk.
const NOTED: Duration = Duration::from_secs(5);

/// The keeper's side.
pub struct Sealer {
    key: Result<Key, String>,
    stored: Option<Head>,
    noted: Option<Instant>,
}

impl Sealer {
    /// With the key of a state folder, which is made if there is none.
    pub fn new(state: &Path) -> Self {
        let folder = key::folder(state);
        let key = Key::open(&folder).map_err(|error| format!("{}: {error}", folder.display()));
        Self { key, stored: None, noted: None }
    }

    /// Answers one question.
    pub fn answer(&mut self, channel: &Channel) -> io::Result<()> {
        let Some((asked, _)) = channel.receive()? else { return Ok(()) };
        let key = match &self.key {
            Ok(key) => key,
            Err(_) if matches!(asked, Seal::Stored(_)) => return Ok(()),
            Err(why) => return channel.send(&Sealed::Failed(why.clone()), &[]),
        };
        let answer = match asked {
            Seal::Sign(head) => Sealed::Signed(key.sign(&head)),
            Seal::Last => Sealed::Last(key.noted().map_or(0, |head| head.last)),
            Seal::Stored(head) => {
                self.stored = Some(head);
                if self.noted.is_none_or(|noted| noted.elapsed() >= NOTED) {
                    self.note();
                }
                return Ok(());
            }
        };
        channel.send(&answer, &[])
    }

    /// Notes the last head.
    pub fn note(&mut self) {
        if let (Ok(key), Some(head)) = (&self.key, self.stored.take()) {
            // What it protects from is rare; that the store is signed is not lost with it.
            let _ = key.note(&head);
            self.noted = Some(Instant::now());
        }
    }
}

/// The worker's side.
#[derive(Clone)]
pub struct Asks(Arc<Channel>);

impl Asks {
    /// Through a channel to the keeper.
    pub fn new(channel: Channel) -> Self {
        Self(Arc::new(channel))
    }

    fn ask(&self, ask: &Seal) -> io::Result<Sealed> {
        self.0.send(ask, &[])?;
        match self.0.receive()? {
            Some((Sealed::Failed(why), _)) => Err(io::Error::other(why)),
            Some((answer, _)) => Ok(answer),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Signer for Asks {
    fn sign(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        match self.ask(&Seal::Sign(*head))? {
            Sealed::Signed(signature) => Ok(signature),
            _ => Err(io::Error::other("the keeper says something else")),
        }
    }

    fn stored(&mut self, head: &Head) {
        // Without the keeper the worker ends.
        let _ = self.0.send(&Seal::Stored(*head), &[]);
    }

    fn last(&mut self) -> i64 {
        match self.ask(&Seal::Last) {
            Ok(Sealed::Last(last)) => last,
            _ => 0,
        }
    }
}
