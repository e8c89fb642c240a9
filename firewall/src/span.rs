//! Spans of time as people write them: `5m`, `24h`.

/// The seconds of a number with one of these units behind it: of `s`, `m`, `h`, `d` and `w`. Up to `u32::MAX`
/// of the unit, without a sign.
pub fn seconds(text: &str, units: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let length = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    // The standard parser would take a `+` as well.
    if !units.contains(unit) || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u32 = number.parse().ok()?;
    Some(u64::from(number) * length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit() {
        for (text, units, found) in [
            ("1s", "smhd", Some(1)),
            ("007m", "mhd", Some(420)),
            ("24h", "mhdw", Some(86_400)),
            ("0d", "mhd", Some(0)),
            ("4294967295w", "w", Some(4_294_967_295 * 604_800)),
            ("4294967296s", "s", None),
            ("5w", "smhd", None),
            ("5s", "mhdw", None),
            ("5y", "mhdwy", None),
            ("+5m", "m", None),
            ("-5m", "m", None),
            (" 5m", "m", None),
            ("5 m", "m", None),
            ("m", "m", None),
            ("5", "m", None),
            ("", "m", None),
            ("5\u{20ac}", "m", None),
            ("\u{665}m", "m", None),
        ] {
            assert_eq!(seconds(text, units), found, "{text:?}");
        }
    }
}
