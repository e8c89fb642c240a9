//! `cargo xtask data`: writes the embedded tables of `firewall/data/` from pinned packages.
//!
//! The same sources give the same bytes: nothing of the clock, the machine or the order of a hash
//! map gets in. A new version of a source means new constants here and a run of this command.

mod delegated;
mod origin;

#[path = "../../firewall/src/intel/format.rs"]
#[expect(dead_code, reason = "the half that reads names is used by the library alone")]
mod format;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use format::Source;

/// Writes the embedded country, AS and AS name tables.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write nothing; fail if what is there differs from what the sources give.
    #[arg(long)]
    check: bool,
}

/// A package of a public registry that tables are made of.
struct Package {
    name: &'static str,
    version: &'static str,
    /// Of the archive as the registry serves it.
    sha256: &'static str,
    /// The day its data was made, or else published.
    date: &'static str,
    licence: &'static str,
    credit: &'static str,
    /// File name of the archive.
    archive: &'static str,
    /// The folder inside the archive that holds everything.
    root: &'static str,
    fetch: fn(&Package, &Path) -> Result<()>,
}

const COUNTRY: Package = Package {
    name: "iptocc",
    version: "1.4.175",
    sha256: "7cccf3372a028e502acf17004f033eb063747c848d82b858d868e4e172b9299a",
    date: "2026-11-01",
    licence: "MIT OR Apache-2.0",
    credit: "delegated statistics of AFRINIC, APNIC, ARIN, LACNIC and the RIPE NCC (NRO)",
    archive: "iptocc-1.4.175.crate",
    root: "iptocc-1.4.175",
    fetch: fetch_crate,
};

const ORIGIN: Package = Package {
    name: "@ip-location-db/asn",
    version: "2.3.2026061719",
    sha256: "b9425daf2f011c28f8586685d4f89166e77627e2c15fd93c6262c3e2dead6153",
    date: "2026-06-17",
    licence: "CC-BY-4.0",
    credit: "RouteViews (routeviews.org), DB-IP (db-ip.com), NRO (nro.net)",
    archive: "ip-location-db-asn-2.3.2026061719.tgz",
    root: "package",
    fetch: fetch_npm,
};

/// A table as it was written.
struct Written {
    file: &'static str,
    package: &'static Package,
    bytes: Vec<u8>,
    /// What it holds, counted.
    counts: Vec<(&'static str, usize)>,
}

/// Runs `cargo xtask data`.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let cache = workspace.join("target/data-sources");
    let folder = workspace.join("firewall/data");
    fs::create_dir_all(&cache)?;

    let countries = delegated::read(&unpack(&COUNTRY, &cache)?)?;
    let origins = origin::read(&unpack(&ORIGIN, &cache)?)?;
    let names: Vec<(u32, &str)> = origins.names.iter().map(|(n, s)| (*n, s.as_str())).collect();
    let tables = [
        Written {
            file: "country.table",
            package: &COUNTRY,
            bytes: format::encode_table(&source(&COUNTRY), &countries.v4, &countries.v6)?,
            counts: vec![
                ("ranges_v4", countries.v4.values.iter().filter(|v| **v != 0).count()),
                ("ranges_v6", countries.v6.values.iter().filter(|v| **v != 0).count()),
            ],
        },
        Written {
            file: "as.table",
            package: &ORIGIN,
            bytes: format::encode_table(&source(&ORIGIN), &origins.v4, &origins.v6)?,
            counts: vec![
                ("ranges_v4", origins.v4.values.iter().filter(|v| **v != 0).count()),
                ("ranges_v6", origins.v6.values.iter().filter(|v| **v != 0).count()),
                ("overlaps_resolved", origins.overlaps),
            ],
        },
        Written {
            file: "as.names",
            package: &ORIGIN,
            bytes: format::encode_names(&source(&ORIGIN), &names)?,
            counts: vec![("names", names.len())],
        },
    ];
    for table in &tables[..2] {
        format::decode_table(&table.bytes).with_context(|| table.file)?;
    }

    for table in &tables {
        put(&folder.join(table.file), &table.bytes, args.check)?;
    }
    put(&folder.join("provenance.toml"), provenance(&tables)?.as_bytes(), args.check)
}

fn source(package: &Package) -> Source {
    Source {
        name: package.name.to_owned(),
        version: package.version.to_owned(),
        date: package.date.to_owned(),
        licence: format!("{}; {}", package.licence, package.credit),
        unusable: 0,
    }
}

fn provenance(tables: &[Written]) -> Result<String> {
    let mut text = String::from(
        "# Written by `cargo xtask data`. What each table is made of, and who is to be credited.\n",
    );
    for table in tables {
        let package = table.package;
        writeln!(text, "\n[\"{}\"]", table.file)?;
        for (key, value) in [
            ("source", package.name),
            ("version", package.version),
            ("date", package.date),
            ("licence", package.licence),
            ("credit", package.credit),
            ("source_sha256", package.sha256),
            ("sha256", &hex_sha256(&table.bytes)),
        ] {
            writeln!(text, "{key} = {value:?}")?;
        }
        writeln!(text, "bytes = {}", table.bytes.len())?;
        for (key, count) in &table.counts {
            writeln!(text, "{key} = {count}")?;
        }
    }
    Ok(text)
}

fn put(path: &Path, bytes: &[u8], check: bool) -> Result<()> {
    let unchanged = fs::read(path).is_ok_and(|present| present == bytes);
    ensure!(unchanged || !check, "{} differs; run `cargo xtask data`", path.display());
    if !unchanged {
        fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    eprintln!(
        "{} {} ({} bytes)",
        if unchanged { "unchanged" } else { "written" },
        path.display(),
        bytes.len()
    );
    Ok(())
}

/// The folder of a package's files, fetched if the cache does not hold it, and checked.
fn unpack(package: &Package, cache: &Path) -> Result<PathBuf> {
    let archive = cache.join(package.archive);
    if !archive.exists() {
        eprintln!("fetching {} {}", package.name, package.version);
        (package.fetch)(package, cache)?;
    }
    let sum = hex_sha256(&fs::read(&archive)?);
    ensure!(
        sum == package.sha256,
        "{} has the SHA-256 {sum}, expected {}; remove it to fetch it again",
        archive.display(),
        package.sha256
    );
    succeed(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(cache))?;
    Ok(cache.join(package.root))
}

/// Lets cargo fetch the crate, so that its registry settings hold, and takes the archive it keeps.
fn fetch_crate(package: &Package, cache: &Path) -> Result<()> {
    let project = tempfile::tempdir()?;
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(std::env::home_dir()?.join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    fs::create_dir(project.path().join("src"))?;
    fs::write(project.path().join("src/lib.rs"), "")?;
    fs::write(
        project.path().join("Cargo.toml"),
        format!(
            "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
             [dependencies]\n{} = \"={}\"\n",
            package.name, package.version
        ),
    )?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    succeed(Command::new(cargo).arg("fetch").current_dir(&project))?;
    for registry in fs::read_dir(home.join("registry/cache"))? {
        let archive = registry?.path().join(package.archive);
        if archive.exists() {
            fs::copy(archive, cache.join(package.archive))?;
            return Ok(());
        }
    }
    bail!("cargo fetched {}, but keeps no {}", package.name, package.archive)
}

fn fetch_npm(package: &Package, cache: &Path) -> Result<()> {
    let spec = format!("{}@{}", package.name, package.version);
    succeed(Command::new("npm").args(["pack", "--silent", &spec]).current_dir(cache))
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
