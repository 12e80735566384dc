//! The only place that reads clocks: the wall clock in [`Micros`], and a monotonic one for how long things take.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use waypost_schemas::time::Micros;

/// A moment of a clock that never goes back; only its distance to another of the same clock means anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// How long after `earlier` this is; nothing where it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Tells the time; a cheap clone, and all clones of a manual clock are set together.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { base: Instant },
    Manual(Arc<Hands>),
    Tokio { start: Micros, base: tokio::time::Instant },
}

#[derive(Debug)]
struct Hands {
    now_us: AtomicI64,
    elapsed_us: AtomicU64,
}

impl Clock {
    /// The machine's own clocks.
    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn system() -> Self {
        Self(Source::System { base: Instant::now() })
    }

    /// A clock that stands at `now` until it is told otherwise, for tests.
    pub fn manual(now: Micros) -> Self {
        Self(Source::Manual(Arc::new(Hands { now_us: AtomicI64::new(now.0), elapsed_us: AtomicU64::new(0) })))
    }

    /// A clock that shows `now` and moves with tokio's own time, which a simulation pauses and so decides.
    pub fn tokio(now: Micros) -> Self {
        Self(Source::Tokio { start: now, base: tokio::time::Instant::now() })
    }

    /// The wall clock's time; it may jump.
    pub fn now(&self) -> Micros {
        match &self.0 {
            Source::System { .. } => system_now(),
            Source::Manual(hands) => Micros(hands.now_us.load(Ordering::SeqCst)),
            Source::Tokio { start, base } => {
                Micros(start.0.saturating_add(base.elapsed().as_micros() as i64))
            }
        }
    }

    /// The monotonic clock's moment.
    pub fn monotonic(&self) -> Monotonic {
        match &self.0 {
            Source::System { base } => Monotonic(base.elapsed()),
            Source::Manual(hands) => {
                Monotonic(Duration::from_micros(hands.elapsed_us.load(Ordering::SeqCst)))
            }
            Source::Tokio { base, .. } => Monotonic(base.elapsed()),
        }
    }

    /// How long ago a monotonic moment was.
    pub fn elapsed(&self, since: Monotonic) -> Duration {
        self.monotonic().since(since)
    }

    /// Moves a manual clock on, wall clock and monotonic clock alike; others move by themselves.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(hands) = &self.0 {
            let by = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
            hands.now_us.fetch_add(by as i64, Ordering::SeqCst);
            hands.elapsed_us.fetch_add(by, Ordering::SeqCst);
        }
    }

    /// Sets a manual clock's wall clock, as an operator or NTP does; its monotonic clock is left alone.
    pub fn set(&self, now: Micros) {
        if let Source::Manual(hands) = &self.0 {
            hands.now_us.store(now.0, Ordering::SeqCst);
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the clock")]
fn system_now() -> Micros {
    let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
    };
    Micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told_and_with_all_its_clones() {
        let clock = Clock::manual(Micros(1_000));
        let (other, start) = (clock.clone(), clock.monotonic());
        assert_eq!(clock.now(), Micros(1_000));
        other.advance(Duration::from_micros(5));
        assert_eq!((clock.now(), clock.elapsed(start)), (Micros(1_005), Duration::from_micros(5)));
        other.set(Micros(7));
        assert_eq!((clock.now(), clock.elapsed(start)), (Micros(7), Duration::from_micros(5)));
    }

    #[tokio::test]
    async fn a_clock_of_tokio_stands_and_moves_with_it() {
        tokio::time::pause();
        let clock = Clock::tokio(Micros(1_000));
        let start = clock.monotonic();
        tokio::time::advance(Duration::from_millis(2)).await;
        assert_eq!((clock.now(), clock.elapsed(start)), (Micros(3_000), Duration::from_millis(2)));
    }

    #[test]
    fn a_monotonic_distance_is_never_negative() {
        let clock = Clock::system();
        let (first, second) = (clock.monotonic(), clock.monotonic());
        assert_eq!(first.since(Monotonic(first.0 + Duration::from_secs(1))), Duration::ZERO);
        assert!(second >= first);
    }

    #[test]
    fn the_system_clock_tells_a_time_after_this_was_written() {
        assert!(Clock::system().now() > Micros::parse("2026-01-01T00:00:00Z").unwrap());
    }
}
