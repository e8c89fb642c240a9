//! Countries by their ISO 3166-1 alpha-2 code.
//!
//! A country here is what an address can be registered to: the 249 codes of ISO 3166-1, `EU`
//! (reserved by ISO; the registries' data has a few old blocks of it, and they match `EU` alone, no
//! member state), and `XK` (in no registry's data, but in databases a user may bring). Other codes
//! that such data has now and then (`AP`, `ZZ`, `A1`, …) name no country, and are not accepted.

mod table;

use std::fmt;

use table::{ALIASES, TABLE};

/// A country: an index into the table, in the order of the codes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country(u8);

impl Country {
    /// All of them, in the order of their codes.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        const { assert!(TABLE.len() < 255, "the index and `none` fit a byte") };
        (0..TABLE.len() as u8).map(Self)
    }

    /// The country with this code, which has to be exact: two upper-case letters.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        let index = TABLE.binary_search_by_key(&code, |(alpha2, ..)| alpha2).ok()?;
        u8::try_from(index).ok().map(Self)
    }

    /// Its alpha-2 code.
    #[must_use]
    pub fn code(self) -> &'static str {
        TABLE[usize::from(self.0)].0
    }

    /// A short name in English.
    #[must_use]
    pub fn name(self) -> &'static str {
        TABLE[usize::from(self.0)].2
    }

    /// What somebody who wrote this may have meant: a code in lower case, an alpha-3 code, a name, or
    /// nearly a name. For hints in messages; never take it for what was written.
    #[must_use]
    pub fn suggest(text: &str) -> Option<Self> {
        let text = text.trim().to_lowercase();
        let code = text.to_uppercase();
        let exact = Self::from_code(&code)
            .or_else(|| {
                let has_alpha3 = |c: &Self| !c.alpha3().is_empty() && c.alpha3() == code;
                Self::all().find(has_alpha3)
            })
            .or_else(|| Self::named().find(|(name, _)| *name == text).map(|(_, c)| c));
        // Of two or three letters, nearly every other code is one letter away.
        if exact.is_some() || text.len() < 4 {
            return exact;
        }
        Self::named()
            .map(|(name, country)| (strsim::jaro_winkler(&name, &text), country))
            .filter(|(likeness, _)| *likeness > 0.85)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, country)| country)
    }

    /// Itself as a number above 0, which a range table can hold.
    pub(super) fn to_value(self) -> u8 {
        self.0 + 1
    }

    /// Back from [`Self::to_value`].
    pub(super) fn from_value(value: u8) -> Option<Self> {
        value.checked_sub(1).filter(|index| usize::from(*index) < TABLE.len()).map(Self)
    }

    fn alpha3(self) -> &'static str {
        TABLE[usize::from(self.0)].1
    }

    /// All names in lower case, more than one for some countries.
    fn named() -> impl Iterator<Item = (String, Self)> {
        let aliases = ALIASES
            .iter()
            .filter_map(|(name, code)| Some(((*name).to_owned(), Self::from_code(code)?)));
        Self::all().map(|country| (country.name().to_lowercase(), country)).chain(aliases)
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Country({})", self.code())
    }
}

/// As its code.
impl serde::Serialize for Country {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_unique() {
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let mut alpha3: Vec<_> = Country::all().map(Country::alpha3).collect();
        alpha3.sort_unstable();
        alpha3.dedup();
        assert_eq!(alpha3.len(), TABLE.len());
    }

    #[test]
    fn every_code_finds_its_country() {
        for country in Country::all() {
            assert_eq!(Country::from_code(country.code()), Some(country));
            assert_eq!(Country::from_value(country.to_value()), Some(country));
        }
        assert_eq!(Country::from_value(0), None);
        assert_eq!(Country::from_value(255), None);
    }

    #[test]
    fn only_exact_codes_are_taken() {
        for wrong in ["", "cn", "Cn", "CHN", "C", "ZZ", "AP", "A1", "China", " CN"] {
            assert_eq!(Country::from_code(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn suggestions() {
        for (text, code) in [
            ("cn", "CN"),
            ("CHN", "CN"),
            ("china", "CN"),
            ("Chnia", "CN"),
            ("PRC", "CN"),
            ("UK", "GB"),
            ("germny", "DE"),
            ("Rusia", "RU"),
            ("usa", "US"),
            ("Untied States", "US"),
            ("hong kong", "HK"),
            ("Turkey", "TR"),
        ] {
            assert_eq!(Country::suggest(text).map(Country::code), Some(code), "{text}");
        }
        for text in ["", "qq", "xqzzy", "1234567"] {
            assert_eq!(Country::suggest(text), None, "{text}");
        }
    }

    #[test]
    fn aliases_name_countries() {
        assert!(ALIASES.iter().all(|(_, code)| Country::from_code(code).is_some()));
        assert!(ALIASES.iter().all(|(name, _)| *name == name.to_lowercase()));
    }
}
