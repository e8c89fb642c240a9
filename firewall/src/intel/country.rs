//! Countries by their ISO 3166-1 alpha-2 code.

/// An ISO 3166-1 alpha-2 code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

/// Code, alpha-3 code and short name.
const COUNTRIES: &[(&str, &str, &str)] = &[
    ("CN", "CHN", "china"),
    ("HK", "HKG", "hong kong"),
    ("RU", "RUS", "russia"),
    ("SG", "SGP", "singapore"),
    ("US", "USA", "united states"),
    ("FR", "FRA", "france"),
    ("DE", "DEU", "germany"),
];

impl Country {
    /// The country of an exact upper-case code.
    pub fn from_code(code: &str) -> Option<Country> {
        let (code, _, _) = COUNTRIES.iter().find(|(known, _, _)| *known == code)?;
        let bytes = code.as_bytes();
        Some(Country([bytes[0], bytes[1]]))
    }

    /// What somebody who wrote `text` most likely meant.
    pub fn suggest(text: &str) -> Option<Country> {
        let upper = text.to_ascii_uppercase();
        let (code, _, _) = COUNTRIES.iter().find(|(code, long, name)| {
            *code == upper || *long == upper || name.eq_ignore_ascii_case(text)
        })?;
        Country::from_code(code)
    }

    /// The upper-case code.
    pub fn code(self) -> &'static str {
        let known = COUNTRIES.iter().find(|(code, _, _)| code.as_bytes() == self.0);
        known.map_or("??", |(code, _, _)| code)
    }
}
