//! The licences of the libraries that the binary contains: most of them ask to go along with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::PathBuf,
};

use anyhow::{Context as _, Result};

use super::output;
use crate::command::cargo;

/// What licences and notices are called.
const NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];

#[derive(serde::Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(serde::Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    manifest_path: PathBuf,
    source: Option<String>,
}

/// Each library with its licence, then each text once, with the libraries that it comes with.
pub fn of_libraries() -> Result<String> {
    let metadata = output(cargo().args(["metadata", "--format-version=1", "--locked"]))?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("cargo metadata")?;
    let contained = contained()?;
    let mut page =
        String::from("Libraries that the binary `firewall` contains, and their licences.\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut packages = metadata.packages;
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    for package in packages.iter().filter(|package| package.source.is_some()) {
        let name = format!("{} {}", package.name, package.version);
        if !contained.contains(&name) {
            continue;
        }
        writeln!(page, "{name}: {}", package.license.as_deref().unwrap_or("see below"))?;
        let folder = package.manifest_path.parent().context("a manifest in a folder")?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().to_uppercase();
            if NAMES.iter().any(|begin| file.starts_with(begin)) && entry.file_type()?.is_file() {
                let text = String::from_utf8_lossy(&fs::read(entry.path())?).trim().to_owned();
                texts.entry(text).or_default().push(name.clone());
            }
        }
    }
    for (text, names) in texts {
        let names: BTreeSet<String> = names.into_iter().collect();
        let names: Vec<String> = names.into_iter().collect();
        write!(page, "\n{}\n\n{}:\n\n{text}\n", "-".repeat(72), names.join(", "))?;
    }
    Ok(page)
}

/// `name version` of each library in the binary and in the kernel programs that it embeds.
fn contained() -> Result<BTreeSet<String>> {
    let tree = output(
        cargo()
            .args(["tree", "--locked", "--edges=normal", "--prefix=none", "--format={p}"])
            .args(["--package=firewall", "--package=firewall-ebpf"]),
    )?;
    let package = |line: &str| {
        let mut words = line.split_whitespace();
        Some(format!("{} {}", words.next()?, words.next()?.strip_prefix('v')?))
    };
    Ok(tree.lines().filter_map(package).collect())
}
