//! `firewall replay`: a packet capture judged offline.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use jiff::tz::TimeZone;

use super::{colour, pager::Pager, set::PolicySet, table::Table, verdict};
use crate::{
    events::{App, Endpoint},
    explanation,
    policy::{diagnostic::printable, explain::Explainer},
    replay::{Counted, Flow, Name, Replay, Trust},
    set::Set,
};

/// Judges a packet capture: what would have been denied, by which rule, and every name in it.
///
/// Needs no privileges and no daemon: the policies are compiled as for the kernel and asked here, and
/// packets are read by the same parsers. Reads pcap and pcapng with Ethernet, Linux cooked, loopback
/// and raw IP frames. Exits with 0 if the capture was read, also if it is cut or broken somewhere,
/// which is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    set: PolicySet,
    /// Print a JSON object a line, with the keys of a verdict event
    #[arg(long)]
    json: bool,
    /// Print every name that is in the capture and where it was found, in place of verdicts
    #[arg(long)]
    names: bool,
    /// Judge for this app: exe:/usr/bin/firefox, unit:docker.service, user:ada, kernel, … May be
    /// repeated to say more of it [default: an app that no policy names]
    #[arg(long = "app", value_name = "SEL")]
    apps: Vec<String>,
    /// The capture, as `tcpdump -w` or Wireshark writes it
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs `firewall replay`.
///
/// # Errors
/// The capture or the tables cannot be read, or standard output cannot be written to.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let app = match explanation::app(&args.apps) {
        Ok(app) => app,
        Err(message) => {
            eprintln!("error: {message}");
            return Ok(ExitCode::from(super::USAGE));
        }
    };
    let set = match args.set.load() {
        Ok(set) => set,
        Err(failure) => return Ok(failure.tell()),
    };
    let shown = printable(&args.file.display().to_string());
    let file = File::open(&args.file).with_context(|| format!("{shown} cannot be read"))?;
    let explainer = Explainer { generation: &set.generation, intel: &set.intel };
    let replay = Replay::new(explainer, app, trust(&set));
    let on_terminal = !args.json && io::stdout().is_terminal();
    let out = if on_terminal { Pager::start() } else { Pager::Plain(io::stdout().lock()) };
    let mut shows = Shows::new(args, out, on_terminal);
    let read = shows.all(replay, file);
    shows.out.finish();
    let counted = match read {
        Ok(counted) => counted,
        // Whoever looked has seen enough.
        Err(error) if super::is_broken_pipe(&error) => return Ok(ExitCode::SUCCESS),
        Err(error) => return Err(error.context(format!("{shown} cannot be judged"))),
    };
    tell(&counted);
    Ok(ExitCode::SUCCESS)
}

/// Whose answers support an allow: the resolvers of this machine need not be those of the capture.
fn trust(set: &Set) -> Trust {
    match &set.config.resolvers {
        Some(_) => Trust::Resolvers,
        None => Trust::Everyone,
    }
}

/// Shows what is told.
struct Shows {
    out: Pager,
    json: bool,
    names: bool,
    table: Option<Table>,
    zone: TimeZone,
    number: u64,
}

impl Shows {
    fn new(args: &Args, out: Pager, on_terminal: bool) -> Self {
        let zone = TimeZone::system();
        let colour = colour(&io::stdout());
        let table = on_terminal.then(|| Table::of_terminal(zone.clone(), colour).of_sources());
        Self { out, json: args.json, names: args.names, table, zone, number: 0 }
    }

    fn all(&mut self, replay: Replay<'_>, file: File) -> anyhow::Result<Counted> {
        let mut begun = false;
        let (counted, names) = replay.run(file, &mut |flow| {
            if self.names {
                return Ok(());
            }
            if let Some(table) = self.table.as_ref().filter(|_| !begun) {
                begun = true;
                writeln!(self.out, "{}", table.head())?;
            }
            self.flow(flow)
        })?;
        let shown = if self.names { &names[..] } else { &[] };
        for name in shown {
            self.name(name)?;
        }
        self.out.flush()?;
        Ok(counted)
    }

    fn flow(&mut self, flow: &Flow) -> anyhow::Result<()> {
        self.number += 1;
        if self.json {
            return Ok(writeln!(self.out, "{}", serde_json::to_string(flow)?)?);
        }
        let app = App { name: place(&flow.src), ..App::default() };
        let view = flow.view(&app);
        let line = match &self.table {
            Some(table) => table.line(self.number, &view),
            None => {
                let time = view.time.unwrap_or_default().to_zoned(self.zone.clone());
                let time = time.strftime("%Y-%m-%dT%H:%M:%S%:z");
                let (out, into) = (flow.bytes_out, flow.bytes_in);
                let tail = if view.count > 1 { verdict::tail(&view) } else { String::new() };
                format!("{time} {}{tail} ({out} bytes out, {into} in)", verdict::line(&view, false))
            }
        };
        Ok(writeln!(self.out, "{line}")?)
    }

    fn name(&mut self, name: &Name) -> anyhow::Result<()> {
        if self.json {
            return Ok(writeln!(self.out, "{}", serde_json::to_string(name)?)?);
        }
        let mut line = format!("{} {}", name.name, name.source.word());
        if name.count > 1 {
            line += &format!(" ({} times)", name.count);
        }
        if name.encrypted_hello {
            line += " (outer name)";
        }
        for address in &name.addresses {
            line += &format!(" {address}");
        }
        Ok(writeln!(self.out, "{}", printable(&line))?)
    }
}

fn place(endpoint: &Endpoint) -> String {
    match endpoint.port {
        Some(port) => SocketAddr::new(endpoint.ip, port).to_string(),
        None => endpoint.ip.to_string(),
    }
}

/// What was read, and what was not.
fn tell(counted: &Counted) {
    let Counted { packets, verdicts: [allow, audit, deny], causes, notes, stop } = counted;
    eprintln!("{packets} packets: {deny} flows denied, {audit} audited, {allow} allowed");
    match causes.total() {
        0 => {}
        total => eprintln!("{total} packets not understood:"),
    }
    for (cause, times, first) in causes.iter() {
        eprintln!("  {times} {cause} (the first: packet {first})");
    }
    for (note, times, first) in notes.iter() {
        eprintln!("note: {times} {note} (the first: packet {first})");
    }
    if let Some(stop) = stop {
        eprintln!("warning: {stop}: what comes before was judged");
    }
}
