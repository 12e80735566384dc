//! An open loop: what is to be done evenly, at moments that do not depend on how long it takes.

use std::{thread, time::Duration};

use crate::clock::{Clock, Monotonic};

/// A rate at which things fall due. What is late is not put off for it: its own lateness counts, and hides nothing.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    per_second: f64,
}

impl Pace {
    /// So many a second, which is more than none.
    pub fn new(per_second: f64) -> Self {
        Self { per_second }
    }

    /// When a thing is due, by its number from 0, since the first.
    pub fn due(self, number: usize) -> Duration {
        Duration::from_secs_f64(number as f64 / self.per_second)
    }

    /// How many are due within a time.
    pub fn within(self, time: Duration) -> usize {
        (time.as_secs_f64() * self.per_second).round() as usize
    }

    /// Does each of so many when it is due, or at once where that is past; blocks.
    pub fn run<E>(
        self,
        count: usize,
        (clock, begun): (&Clock, Monotonic),
        mut each: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        for number in 0..count {
            if let Some(early) = self.due(number).checked_sub(clock.elapsed(begun)) {
                thread::sleep(early);
            }
            each(number)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_even() {
        let pace = Pace::new(500.0);
        assert_eq!(pace.due(0), Duration::ZERO);
        assert_eq!(pace.due(1), Duration::from_millis(2));
        assert_eq!(pace.due(5_000), Duration::from_secs(10));
        assert_eq!(pace.within(Duration::from_secs(10)), 5_000);
    }

    #[test]
    fn each_is_done_once_in_order_and_the_first_error_ends_it() {
        let clock = Clock::system();
        let (mut done, begun) = (Vec::new(), clock.monotonic());
        let ended = Pace::new(1e9).run(5, (&clock, begun), |number| {
            done.push(number);
            if number == 3 { Err("no more") } else { Ok(()) }
        });
        assert_eq!((done, ended), (vec![0, 1, 2, 3], Err("no more")));
    }

    #[test]
    fn nothing_is_done_before_it_is_due() {
        let clock = Clock::system();
        let (pace, begun) = (Pace::new(1_000.0), clock.monotonic());
        let ended = pace.run(5, (&clock, begun), |number| {
            if clock.elapsed(begun) < pace.due(number) { Err(number) } else { Ok(()) }
        });
        assert_eq!(ended, Ok(()));
    }
}
