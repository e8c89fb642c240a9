//! Verdicts over time, in as many steps as can be drawn.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::events::seen::Flows;

/// Steps at most.
const STEPS: i64 = 96;
/// Seconds of a step: each is a multiple of the one before, so that steps can be joined.
const WIDTHS: [i64; 10] = [1, 10, 60, 600, 3_600, 21_600, 86_400, 604_800, 6_048_000, 60_480_000];

/// Verdicts over time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Index of the width.
    width: usize,
    steps: BTreeMap<i64, Flows>,
}

/// A step in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// When it begins.
    pub time: Timestamp,
    /// The verdicts in it.
    pub flows: Flows,
}

impl Serialize for Times {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Told {
            seconds: i64,
            steps: Vec<Bucket>,
        }
        Told { seconds: self.seconds(), steps: self.buckets() }.serialize(to)
    }
}

impl Times {
    /// Takes verdicts in.
    pub(super) fn add(&mut self, time: Timestamp, flows: Flows) {
        *self.steps.entry(time.as_second().div_euclid(self.seconds())).or_default() += flows;
        while self.number() > STEPS && self.width + 1 < WIDTHS.len() {
            self.widen();
        }
    }

    /// Seconds of a step.
    pub fn seconds(&self) -> i64 {
        WIDTHS[self.width]
    }

    /// From the first step to the last one.
    fn number(&self) -> i64 {
        match (self.steps.first_key_value(), self.steps.last_key_value()) {
            (Some((first, _)), Some((last, _))) => last - first + 1,
            _ => 0,
        }
    }

    fn widen(&mut self) {
        let before = self.seconds();
        self.width += 1;
        let times = self.seconds() / before;
        let mut steps = BTreeMap::new();
        for (step, flows) in &self.steps {
            *steps.entry(step.div_euclid(times)).or_insert_with(Flows::default) += *flows;
        }
        self.steps = steps;
    }

    /// Every step from the first to the last, also those in which nothing was.
    pub fn buckets(&self) -> Vec<Bucket> {
        let Some((first, _)) = self.steps.first_key_value() else { return Vec::new() };
        // A record with a time that is centuries off makes no more than are drawn.
        let steps = (0..self.number().min(STEPS)).filter_map(|step| {
            let step = first + step;
            let time = Timestamp::from_second(step * self.seconds()).ok()?;
            Some(Bucket { time, flows: self.steps.get(&step).copied().unwrap_or_default() })
        });
        steps.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::record::Verdict;

    fn times(seconds: impl IntoIterator<Item = i64>) -> Times {
        let mut times = Times::default();
        for second in seconds {
            times.add(Timestamp::from_second(second).unwrap(), Flows::of(Verdict::Deny, 2));
        }
        times
    }

    #[test]
    fn steps_are_joined_and_none_is_lost() {
        let all = times(0..1000);
        assert_eq!(all.seconds(), 60, "17 steps");
        assert_eq!(all.buckets().len(), 17);
        let sum: u64 = all.buckets().iter().map(|one| one.flows.deny).sum();
        assert_eq!(sum, 2000);
        assert_eq!(all.buckets()[0].flows.deny, 120);
        // The order does not matter, and what lies between is there too.
        let apart = times([86_400 * 30, 0]);
        assert_eq!((apart.seconds(), apart.buckets().len()), (86_400, 31));
        assert!(times([]).buckets().is_empty());
    }

    #[test]
    fn times_that_are_far_off_do_not_make_it_grow() {
        let all = times([-377_705_000_000, 0, 253_402_000_000]);
        assert!(all.buckets().len() as i64 <= STEPS);
    }
}
