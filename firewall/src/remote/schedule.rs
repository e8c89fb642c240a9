//! When to look for a new copy of a list. Pure: the time and the jitter are arguments.

use std::time::Duration;

use jiff::Timestamp;

use super::Attempts;

/// How long to wait after a first failure. Each further one doubles it, up to the list's own interval.
const RETRY: Duration = Duration::from_secs(60);

/// When a list is due that is to be looked for every `refresh`.
///
/// `jitter`, from 0 to 1, brings that forward by up to a tenth, so that a server does not see all at
/// once those who began at the same moment.
pub fn due(refresh: Duration, attempts: &Attempts, jitter: f64, now: Timestamp) -> Timestamp {
    let Some(tried) = attempts.tried else { return now };
    let wait = match attempts.failures {
        0 => refresh,
        failures => RETRY.saturating_mul(1 << (failures - 1).min(20)).min(refresh),
    };
    let wait = wait - (wait / 10).mul_f64(jitter.clamp(0.0, 1.0));
    // A clock that was set back must not put it off.
    tried.min(now).saturating_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn tried(failures: u32) -> Attempts {
        Attempts { tried: Some(at(0)), failures, ..Attempts::default() }
    }

    #[test]
    fn at_once_then_every_interval_a_little_early() {
        assert_eq!(due(DAY, &Attempts::default(), 0.5, at(7)), at(7));
        assert_eq!(due(DAY, &tried(0), 0.0, at(7)), at(86_400));
        assert_eq!(due(DAY, &tried(0), 1.0, at(7)), at(77_760));
        assert_eq!(due(Duration::MAX, &tried(0), 0.0, at(7)), Timestamp::MAX);
    }

    #[test]
    fn failures_double_the_wait_up_to_the_interval() {
        let waits = [(1, 60), (2, 120), (3, 240), (10, 30_720), (12, 86_400), (u32::MAX, 86_400)];
        for (failures, wait) in waits {
            assert_eq!(due(DAY, &tried(failures), 0.0, at(7)), at(wait), "{failures}");
        }
        assert_eq!(due(Duration::from_secs(30), &tried(1), 0.0, at(7)), at(30));
    }

    #[test]
    fn a_clock_that_was_set_back_puts_nothing_off() {
        assert_eq!(due(DAY, &tried(0), 0.0, at(-1_000_000)), at(-1_000_000 + 86_400));
    }
}
