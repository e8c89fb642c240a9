//! Owners of addresses: names for sets of AS numbers.

use std::collections::BTreeMap;

/// Owners by name.
#[derive(Clone, Debug)]
pub struct Organisations {
    by_name: BTreeMap<String, Vec<u32>>,
}

impl Organisations {
    /// Those that come with the program.
    pub fn embedded() -> Result<Self, std::fmt::Error> {
        let by_name = [
            ("baidu", 38365),
            ("bytedance", 396986),
            ("alibaba", 37963),
            ("tencent", 45090),
            ("huawei-cloud", 55990),
        ];
        Ok(Self { by_name: by_name.iter().map(|(n, a)| ((*n).to_owned(), vec![*a])).collect() })
    }

    /// The AS numbers of an organisation.
    pub fn asns(&self, name: &str) -> Option<&[u32]> {
        self.by_name.get(name).map(Vec::as_slice)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The name that `text` most likely meant.
    pub fn suggest(&self, text: &str) -> Option<&str> {
        let text = text.to_lowercase();
        self.names().find(|name| strsim::damerau_levenshtein(name, &text) <= 2)
    }
}
