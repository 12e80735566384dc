//! How long a device that lost its connection waits before the next.

use std::time::Duration;

/// The wait after the first loss; each further one doubles it.
const FIRST: Duration = Duration::from_millis(250);
/// The longest wait, unless the server asks for a longer one.
const LONGEST: Duration = Duration::from_secs(15);
/// The longest wait that a server may ask for.
const ASKED_MAX: Duration = Duration::from_hours(1);

/// Doubling waits with jitter, so that devices that were lost together do not come back together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    losses: u32,
}

impl Backoff {
    /// The next wait: half of it is fixed and half random, and it is not shorter than the server asked for.
    pub(super) fn next(&mut self, asked: Option<Duration>, random: u64) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.losses.min(16)).min(LONGEST);
        self.losses = self.losses.saturating_add(1);
        let asked = asked.unwrap_or_default().min(ASKED_MAX);
        let share = random as f64 / u64::MAX as f64;
        // What was asked for is jittered by the server already; this only spreads its whole seconds.
        (doubled / 2 + (doubled / 2).mul_f64(share)).max(asked + (asked / 4).mul_f64(share))
    }

    /// The connection was worth something: the next loss is a first one.
    pub(super) fn reset(&mut self) {
        self.losses = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_are_never_shorter_than_asked() {
        let mut backoff = Backoff::default();
        let mut check = |asked, random, millis| {
            assert_eq!(backoff.next(asked, random), Duration::from_millis(millis));
        };
        check(None, 0, 125);
        check(None, u64::MAX, 500);
        check(None, 0, 500);
        check(Some(Duration::from_secs(4)), 0, 4_000);
        check(Some(Duration::from_secs(4)), u64::MAX, 5_000);
        check(None, u64::MAX, 8_000);
        check(None, u64::MAX, 15_000);
        check(None, 0, 7_500);
        check(Some(Duration::MAX), 0, 3_600_000);
        backoff.reset();
        assert_eq!(backoff.next(None, u64::MAX), Duration::from_millis(250));
    }
}
