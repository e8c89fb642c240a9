//! `firewall watch`: verdicts as they are reached.

mod live;

use std::{
    io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _},
    process::ExitCode,
};

use super::{USAGE, apps, ask, ask::Socket, verdict};
use crate::{
    events::{
        filter::Asked,
        record::{self, Line},
    },
    policy::diagnostic::printable,
};

/// Shows verdicts as they are reached, until the daemon stops.
///
/// On a terminal it is a table, above a line that says how many there were; elsewhere each is a line.
/// Exits with 0 when the daemon has stopped, 3 if none answers or this user may not ask.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object a verdict, as in the log
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    socket: Socket,
}

/// Runs `firewall watch`.
///
/// # Errors
/// When standard output cannot be written to.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if apps::filter(&args.asked).is_none() {
        return Ok(ExitCode::from(USAGE));
    }
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("follow", "true")
        .extend_pairs(args.asked.pairs())
        .finish();
    let lines = match args.socket.client()?.lines(&format!("/v1/verdicts?{query}")) {
        Ok(lines) => lines,
        Err(error) => return Ok(ask::failed(&error)),
    };
    let mut lines = BufReader::new(lines);
    if !args.json && io::stdout().is_terminal() {
        return live::run(lines, &args.socket.socket);
    }
    let mut out = io::stdout().lock();
    let mut text = Vec::new();
    loop {
        text.clear();
        match lines.read_until(b'\n', &mut text) {
            // A daemon that was killed says no good-bye.
            Ok(0) | Err(_) => break,
            Ok(_) if args.json => out.write_all(&text)?,
            Ok(_) => match record::read(text.trim_ascii()) {
                Ok(Line::Verdict(record)) => {
                    let view = (&*record).into();
                    writeln!(out, "{}{}", verdict::line(&view, false), verdict::tail(&view))?;
                }
                Ok(Line::Lost(count)) => eprintln!("note: {count} verdicts are not shown: lost"),
                Err(why) => eprintln!(
                    "note: a line that is not understood: {}",
                    printable(&why.to_string())
                ),
            },
        }
    }
    eprintln!("note: the daemon has stopped");
    Ok(ExitCode::SUCCESS)
}
