//! Standard output by way of a pager, where people look at it.

use std::{
    io::{self, IsTerminal as _, Write},
    process::{Child, Command, Stdio},
};

/// Where text goes.
pub enum Pager {
    /// To a pager.
    Child(Child),
    /// As it is.
    Plain(io::StdoutLock<'static>),
}

impl Pager {
    /// The one that `PAGER` names, or `less`; none where standard output is no terminal, `PAGER` is empty,
    /// or there is no such program.
    pub fn start() -> Self {
        let plain = || Self::Plain(io::stdout().lock());
        let pager = std::env::var("PAGER").unwrap_or_else(|_| "less".to_owned());
        let mut words = pager.split_ascii_whitespace();
        let Some(program) = words.next().filter(|_| io::stdout().is_terminal()) else {
            return plain();
        };
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::piped());
        // Colours, and no pager where it all fits.
        if std::env::var_os("LESS").is_none() {
            command.env("LESS", "FRSX");
        }
        command.spawn().map_or_else(|_| plain(), Self::Child)
    }

    /// Waits until whoever looks has seen enough.
    pub fn finish(self) {
        if let Self::Child(mut child) = self {
            drop(child.stdin.take());
            // It was there a moment ago.
            let _ = child.wait();
        }
    }
}

impl Write for Pager {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Child(child) => match &mut child.stdin {
                Some(stdin) => stdin.write(bytes),
                None => Err(io::ErrorKind::BrokenPipe.into()),
            },
            Self::Plain(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Child(child) => child.stdin.as_mut().map_or(Ok(()), Write::flush),
            Self::Plain(out) => out.flush(),
        }
    }
}
