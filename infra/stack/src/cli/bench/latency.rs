//! How long things took, as the few numbers that say it.

use std::time::Duration;

use serde::Serialize;

/// Percentiles by nearest rank, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[allow(clippy::struct_field_names, reason = "figures for scripts carry their unit")]
pub(super) struct Latency {
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
}

/// Of each percentile, how many times another's it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Ratio {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
}

impl Latency {
    /// Of some durations; `None` of none.
    pub(super) fn of(mut took: Vec<Duration>) -> Option<Self> {
        took.sort_unstable();
        let percentile = |percent: usize| {
            let rank = (took.len() * percent).div_ceil(100).max(1);
            took.get(rank - 1).map(|took| took.as_secs_f64() * 1e3)
        };
        Some(Self { p50_ms: percentile(50)?, p90_ms: percentile(90)?, p99_ms: percentile(99)? })
    }

    pub(super) fn over(self, floor: Self) -> Ratio {
        Ratio {
            p50: self.p50_ms / floor.p50_ms,
            p90: self.p90_ms / floor.p90_ms,
            p99: self.p99_ms / floor.p99_ms,
        }
    }

    /// A row of a table of p50, p90 and p99.
    pub(super) fn row(self, name: &str) -> [String; 4] {
        let ms = |ms: f64| format!("{ms:.2} ms");
        [name.to_owned(), ms(self.p50_ms), ms(self.p90_ms), ms(self.p99_ms)]
    }
}

impl Ratio {
    /// A row of the same table.
    pub(super) fn row(self, name: &str) -> [String; 4] {
        let times = |times: f64| format!("{times:.2}");
        [name.to_owned(), times(self.p50), times(self.p90), times(self.p99)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(millis: impl Iterator<Item = u64>, expected: Option<[f64; 3]>) {
        let expected = expected.map(|[p50_ms, p90_ms, p99_ms]| Latency { p50_ms, p90_ms, p99_ms });
        assert_eq!(Latency::of(millis.map(Duration::from_millis).collect()), expected);
    }

    #[test]
    fn a_percentile_is_the_smallest_that_so_many_do_not_exceed() {
        check(std::iter::empty(), None);
        check([7].into_iter(), Some([7.0, 7.0, 7.0]));
        check([2, 1].into_iter(), Some([1.0, 2.0, 2.0]));
        check((1..=10).rev(), Some([5.0, 9.0, 10.0]));
        check(1..=100, Some([50.0, 90.0, 99.0]));
        check(1..=1_000, Some([500.0, 900.0, 990.0]));
    }

    #[test]
    fn a_ratio_is_of_each_percentile() {
        let latency = |p50_ms, p90_ms, p99_ms| Latency { p50_ms, p90_ms, p99_ms };
        let ratio = latency(4.0, 9.0, 10.0).over(latency(2.0, 3.0, 10.0));
        assert_eq!(ratio, Ratio { p50: 2.0, p90: 3.0, p99: 1.0 });
    }
}
