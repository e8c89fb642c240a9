//! Reads the origin-AS data of the `@ip-location-db/asn` package: rows of first address, last
//! address, AS number, name, as CSV with addresses as decimal numbers, in ascending order.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::format::{Address, Transitions};

/// Origin AS of addresses; a value is an AS number.
pub struct Origins {
    pub v4: Transitions<u32>,
    pub v6: Transitions<u128>,
    /// By AS number.
    pub names: BTreeMap<u32, String>,
    /// Rows that overlap the one before.
    pub overlaps: usize,
}

struct Row<A> {
    start: A,
    end: A,
    asn: u32,
}

pub fn read(package: &Path) -> Result<Origins> {
    let mut names = BTreeMap::new();
    let mut overlaps = 0;
    let v4 = read_family::<u32>(&package.join("asn-ipv4-num.csv"), &mut names, &mut overlaps)?;
    let v6 = read_family::<u128>(&package.join("asn-ipv6-num.csv"), &mut names, &mut overlaps)?;
    Ok(Origins { v4, v6, names, overlaps })
}

fn read_family<A: Address>(
    path: &Path,
    names: &mut BTreeMap<u32, String>,
    overlaps: &mut usize,
) -> Result<Transitions<A>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut rows: Vec<Row<A>> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let (row, name) =
            row(line).with_context(|| format!("{}:{number}: {line}", path.display()))?;
        names.entry(row.asn).or_insert(name);
        if let Some(last) = rows.last_mut().filter(|last| last.end >= row.start) {
            // Both rows claim the overlap; the later one, which begins inside the other, is the
            // more specific announcement. One that ends inside the other would split it.
            ensure!(
                last.start < row.start && last.end <= row.end,
                "{}:{number}: a row inside another",
                path.display()
            );
            last.end = A::narrow(row.start.wide() - 1);
            *overlaps += 1;
        }
        rows.push(row);
    }
    let mut transitions = Transitions::default();
    for row in rows {
        transitions.push(row.start, row.end, row.asn)?;
    }
    transitions.finish();
    Ok(transitions)
}

fn row<A: Address>(line: &str) -> Result<(Row<A>, String)> {
    let mut fields = line.splitn(4, ',');
    let mut field = || fields.next().context("too few fields");
    let address = |text: &str| -> Result<A> {
        let number: u128 = text.parse()?;
        ensure!(number <= A::MAX.wide(), "no such address");
        Ok(A::narrow(number))
    };
    let (start, end) = (address(field()?)?, address(field()?)?);
    let asn = field()?.parse()?;
    ensure!(asn != 0, "AS 0 is nobody");
    Ok((Row { start, end, asn }, name(field()?)?))
}

/// The name without its CSV quotes, and without what a terminal would not show as it is.
fn name(field: &str) -> Result<String> {
    let field = match field.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"').context("an open quote")?.replace("\"\"", "\""),
        None => field.to_owned(),
    };
    // Some names were written in another encoding: what became a soft hyphen was a dash.
    let readable: String = field
        .chars()
        .map(|c| if c == '\u{ad}' { '-' } else { c })
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    Ok(readable.split_whitespace().collect::<Vec<_>>().join(" "))
}
