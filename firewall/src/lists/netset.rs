//! `netset`: an address, a CIDR or a range a line, as of FireHOL's `.netset` and `.ipset`.

use super::collect::{Collector, without_comment};

/// What stands behind a `;` is a comment too.
pub fn parse<'t>(text: &'t str, out: &mut Collector<'t>) {
    out.each_line(text, |out, line| {
        let entry = line.split(';').next().unwrap_or_default();
        match without_comment(entry) {
            "" => out.comment(),
            network => out.network(network),
        }
    });
}
