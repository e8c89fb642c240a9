//! The report as a page.
use super::Report;
use jiff::{Timestamp, tz::TimeZone};
/// The page.
pub fn render(_report: &Report, _now: Timestamp, _zone: &TimeZone) -> String {
    String::new()
}
