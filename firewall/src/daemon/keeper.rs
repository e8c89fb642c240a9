//! The process that may: it has the programs loaded, attached and pinned, and does for the worker what
//! that may not. It reads nothing but what the worker asks.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    os::unix::fs::MetadataExt as _,
};

use nix::{
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    rights,
    seal::Sealer,
    wire::{Ask, Channel, Told},
};
use crate::{
    datapath::{
        self,
        apply::{self, new_blocks},
        attach,
        backstop::{self, Backstop},
        bytes,
        destroy::Destroyer,
        iterate,
        load::{self, Loaded},
        pins::Pins,
        sockets, tell,
    },
    events::messages::Messages,
    memory::give_memory_back,
};

/// Signals that the worker is told of.
const PASSED_ON: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Blocks the signals that are read from a descriptor; to be called before the worker is made.
pub fn block_signals() -> nix::Result<SigSet> {
    let mut signals = SigSet::from_iter(PASSED_ON);
    signals.add(Signal::SIGCHLD);
    signals.thread_block()?;
    Ok(signals)
}

/// Interfaces without a backstop of which it is said why: a machine can have thousands, and a message holds
/// so much.
const TOLD: usize = 8;

/// What is kept.
pub struct Keeper {
    pins: Pins,
    cgroup: File,
    channel: Channel,
    seals: Channel,
    sealer: Sealer,
    worker: Pid,
    loaded: Option<Loaded>,
    messages: Option<Messages>,
    destroyer: Destroyer,
    backstop: Option<Backstop>,
}

impl Keeper {
    /// Of a worker that was just made.
    pub fn new(
        pins: Pins,
        cgroup: File,
        [channel, seals]: [Channel; 2],
        sealer: Sealer,
        worker: Pid,
    ) -> Self {
        Self {
            pins,
            cgroup,
            channel,
            seals,
            sealer,
            worker,
            loaded: None,
            messages: None,
            destroyer: Destroyer::default(),
            backstop: None,
        }
    }

    /// Serves the worker to its end, and returns its exit status.
    pub fn serve(mut self, signals: &SigSet, say: &mut dyn FnMut(&str)) -> io::Result<u8> {
        let signals =
            SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        loop {
            let [asked, seals, signalled, interfaces] = self.wait(&signals)?;
            while signalled && let Some(signal) = signals.read_signal()? {
                match Signal::try_from(signal.ssi_signo.cast_signed())? {
                    Signal::SIGCHLD => {
                        if let Some(status) = self.ended(say)? {
                            self.sealer.note();
                            return Ok(status);
                        }
                    }
                    // It may have ended just now.
                    signal => drop(kill(self.worker, signal)),
                }
            }
            if asked && let Some((ask, _)) = self.channel.receive()? {
                self.answer(&ask)?;
            }
            if seals {
                match self.sealer.answer(&self.seals) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                    other => other?,
                }
            }
            if interfaces {
                self.follow().iter().for_each(|error| say(error));
            }
            for message in self.messages.iter_mut().flat_map(Messages::take) {
                say(&message);
            }
        }
    }

    /// Whether there is something from the worker, from the audit store, a signal, and news of interfaces.
    fn wait(&self, signals: &SignalFd) -> io::Result<[bool; 4]> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.channel.fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.seals.fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        let news = self.backstop.iter().map(Backstop::fd);
        fds.extend(news.map(|news| PollFd::from_borrowed_fd(news, PollFlags::IN)));
        // The kernel programs' own messages are looked for now and then.
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        let waited = self.messages.is_some().then_some(&second);
        match poll(&mut fds, waited) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // At its end only its exit status is of interest.
        let came = |place: usize, flags| {
            fds.get(place).is_some_and(|fd: &PollFd<'_>| fd.revents().intersects(flags))
        };
        // A socket that has too much to tell says so as an error.
        let news = came(3, PollFlags::IN | PollFlags::ERR);
        Ok([came(0, PollFlags::IN), came(1, PollFlags::IN), came(2, PollFlags::IN), news])
    }

    fn ended(&self, say: &mut dyn FnMut(&str)) -> io::Result<Option<u8>> {
        Ok(match waitpid(self.worker, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::Exited(_, status) => Some(u8::try_from(status).unwrap_or(u8::MAX)),
            WaitStatus::Signaled(_, signal, _) => {
                say(&format!("the worker was ended by {signal}; what was in force stays in force"));
                Some(128 + signal as u8)
            }
            _ => None,
        })
    }

    fn answer(&mut self, ask: &Ask) -> io::Result<()> {
        let done = match *ask {
            Ask::Find => self.find(),
            Ask::Load => self.load(),
            Ask::Tables => self.tables(),
            Ask::Blocks(count) => blocks(count).map(|map| (Told::Blocks, vec![map])),
            Ask::Attach => self.attach(),
            Ask::Backstop(wanted) => self.stand_behind(wanted),
            Ask::Sockets => self.sockets(),
            Ask::Bytes => self.bytes(),
            // Nobody waits for it.
            Ask::End { cookie, pid, protocol } => {
                self.destroyer.end(cookie, pid, protocol);
                return Ok(());
            }
            Ask::Remove => self.remove(),
        };
        let (told, held) = done.unwrap_or_else(|why| (Told::Failed(why), Vec::new()));
        let held: Vec<BorrowedFd<'_>> = held.iter().map(OwnedFd::as_fd).collect();
        match self.channel.send(&told, &held) {
            // It has ended meanwhile, of which a signal tells.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    fn find(&self) -> Result<(Told, Vec<OwnedFd>), String> {
        self.pins.check(datapath::OBJECT).map_err(text)?;
        let (names, held) = self.pins.held().map_err(text)?.into_iter().unzip();
        Ok((Told::Found(names), held))
    }

    fn load(&mut self) -> Result<(Told, Vec<OwnedFd>), String> {
        let cgroup = self.cgroup.metadata().map_err(text)?.ino();
        let mut loaded = load::load_pinned(datapath::OBJECT, cgroup, &self.pins).map_err(text)?;
        let maps = loaded.maps().map_err(text)?;
        let notes = self.pins.notes_fd().map_err(text)?;
        let mut held = vec![tell::program(&loaded).map_err(text)?, notes];
        let mut names = Vec::new();
        for (name, map) in maps.all() {
            names.push(name.to_owned());
            held.push(map.try_clone_to_owned().map_err(text)?);
        }
        self.messages = Messages::new(&mut loaded.ebpf);
        // The programs that are run by hand are loaded as long as that is allowed.
        iterate::load(&mut loaded).map_err(text)?;
        self.loaded = Some(loaded);
        Ok((Told::Loaded(names), held))
    }

    fn loaded(&mut self) -> Result<&mut Loaded, String> {
        self.loaded.as_mut().ok_or_else(|| "nothing is loaded yet".to_owned())
    }

    fn attach(&mut self) -> Result<(Told, Vec<OwnedFd>), String> {
        let links = self.pins.links();
        let loaded = self.loaded.as_ref().ok_or("nothing is loaded yet")?;
        let mut taken = attach::take_over(loaded, self.cgroup.as_fd(), &links).map_err(text)?;
        // New before old.
        taken.removed = self.pins.remove_others().map_err(text)?.links;
        rights::of_keeper().map_err(|error| format!("cannot give up capabilities: {error}"))?;
        // What the object and the kernel's types took.
        give_memory_back();
        Ok((Told::Attached(taken), Vec::new()))
    }

    fn stand_behind(&mut self, wanted: bool) -> Result<(Told, Vec<OwnedFd>), String> {
        let links = self.pins.links();
        if !wanted {
            self.backstop = None;
            backstop::remove_all(&links);
        } else if self.backstop.is_none() {
            self.backstop = Some(Backstop::new(links).map_err(text)?);
        }
        Ok((Told::Backstop(self.follow()), Vec::new()))
    }

    /// Gives interfaces that are new their program. Returns why some have none.
    fn follow(&mut self) -> Vec<String> {
        let (Some(backstop), Some(loaded)) = (&mut self.backstop, &mut self.loaded) else {
            return Vec::new();
        };
        let mut failed = backstop.follow(loaded).into_iter();
        let mut said: Vec<String> =
            failed.by_ref().take(TOLD).map(|error| error.to_string()).collect();
        match failed.count() {
            0 => {}
            more => said.push(format!("there is no backstop at {more} further interfaces")),
        }
        said
    }

    fn tables(&mut self) -> Result<(Told, Vec<OwnedFd>), String> {
        let maps = self.loaded()?.maps().map_err(text)?;
        let tables = apply::tables(&maps).map_err(text)?;
        Ok((Told::Tables, vec![tables.fd().as_fd().try_clone_to_owned().map_err(text)?]))
    }

    fn sockets(&mut self) -> Result<(Told, Vec<OwnedFd>), String> {
        let way = sockets::visit(self.loaded()?).map_err(text)?;
        Ok((Told::Sockets, vec![way.into()]))
    }

    fn bytes(&mut self) -> Result<(Told, Vec<OwnedFd>), String> {
        let way = bytes::visit(self.loaded()?).map_err(text)?;
        Ok((Told::Bytes, vec![way.into()]))
    }

    fn remove(&mut self) -> Result<(Told, Vec<OwnedFd>), String> {
        let removed = self.pins.remove().map_err(text)?;
        Ok((Told::Removed(removed.links), Vec::new()))
    }
}

fn blocks(count: usize) -> Result<OwnedFd, String> {
    let map = new_blocks(count).map_err(text)?;
    map.fd().as_fd().try_clone_to_owned().map_err(text)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn text(error: impl ToString) -> String {
    error.to_string()
}
