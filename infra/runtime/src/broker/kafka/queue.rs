//! The bounded queue between a fetching thread and the feed of one partition.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::Limits;
use crate::broker::{Batch, Error, Incoming};

/// The most records of a batch, so that who takes it gives others a turn.
const BATCH_RECORDS_MAX: usize = 1_000;
/// Of its bounds in percent, where the queue asks to be left alone, and where it asks for more.
const PAUSE_PERCENT: usize = 80;
const RESUME_PERCENT: usize = 30;

/// Records on their way from the thread that fetches to the task that reads.
pub(super) struct Queue {
    records_max: usize,
    bytes_max: usize,
    state: Mutex<State>,
    filled: Notify,
}

struct State {
    records: VecDeque<Incoming>,
    bytes: usize,
    /// The next offset after what was taken.
    next: i64,
    end: End,
    paused: bool,
    failed: Option<Error>,
    /// The error was told, and nothing comes any more.
    over: bool,
}

/// Whether the log ends after the last record here.
#[derive(PartialEq)]
enum End {
    Unknown,
    Reached,
    Told,
}

/// What [`Queue::take`] found.
pub(super) struct Taken {
    pub(super) batch: Result<Batch, Error>,
    /// There is room again, and the fetching thread must hear of it.
    pub(super) resume: bool,
}

impl Queue {
    pub(super) fn new(limits: Limits, offset: i64) -> Self {
        let state = State {
            records: VecDeque::new(),
            bytes: 0,
            next: offset,
            end: End::Unknown,
            paused: false,
            failed: None,
            over: false,
        };
        Self {
            records_max: limits.feed_records_max,
            bytes_max: limits.feed_bytes_max,
            state: Mutex::new(state),
            filled: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn over(&self, state: &State, percent: usize) -> bool {
        state.records.len() * 100 > self.records_max * percent || state.bytes * 100 > self.bytes_max * percent
    }

    /// Adds records, after which the log ended or did not; returns whether the thread must pause.
    pub(super) fn push(&self, records: &mut Vec<Incoming>, ended: bool) -> bool {
        let mut state = self.lock();
        if !records.is_empty() {
            state.bytes += records.iter().map(Incoming::bytes).sum::<usize>();
            state.records.extend(records.drain(..));
            state.end = End::Unknown;
        }
        if ended {
            state.end = End::Reached;
        }
        let pause = !state.paused && self.over(&state, PAUSE_PERCENT);
        state.paused |= pause;
        drop(state);
        self.filled.notify_one();
        pause
    }

    /// Ends the queue after the records that it holds.
    pub(super) fn fail(&self, error: Error) {
        self.lock().failed.get_or_insert(error);
        self.filled.notify_one();
    }

    /// Waits for a batch, the end, or the error, which comes once.
    pub(super) async fn take(&self) -> Taken {
        loop {
            if let Some(taken) = self.try_take() {
                return taken;
            }
            self.filled.notified().await;
        }
    }

    fn try_take(&self) -> Option<Taken> {
        let mut state = self.lock();
        if state.records.is_empty() {
            if let Some(error) = state.failed.take() {
                state.over = true;
                return Some(Taken { batch: Err(error), resume: false });
            }
            if state.over || state.end != End::Reached {
                return None;
            }
        }
        let count = state.records.len().min(BATCH_RECORDS_MAX);
        let records: Vec<_> = state.records.drain(..count).collect();
        state.bytes -= records.iter().map(Incoming::bytes).sum::<usize>();
        if let Some(last) = records.last() {
            state.next = last.offset + 1;
        }
        let at_end = state.end == End::Reached && state.records.is_empty();
        if at_end {
            state.end = End::Told;
        }
        let resume = state.paused && !self.over(&state, RESUME_PERCENT);
        state.paused &= !resume;
        Some(Taken { batch: Ok(Batch { records, next: state.next, at_end }), resume })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waypost_schemas::time::Micros;

    fn records(offsets: std::ops::Range<i64>) -> Vec<Incoming> {
        let record =
            |offset| Incoming { offset, append: Micros(0), key: None, value: None, headers: Vec::new() };
        offsets.map(record).collect()
    }

    fn queue(records_max: usize) -> Queue {
        Queue::new(Limits { feed_records_max: records_max, ..Limits::default() }, 0)
    }

    #[test]
    fn it_pauses_once_past_four_fifths_and_resumes_once_below_a_third() {
        let queue = queue(5_000);
        assert!(!queue.push(&mut records(0..4_000), false));
        assert!(queue.push(&mut records(4_000..4_500), false));
        assert!(!queue.push(&mut records(4_500..4_600), false));
        let resumes: Vec<_> = std::iter::from_fn(|| queue.try_take()).map(|t| t.resume).collect();
        assert_eq!(resumes, [false, false, false, true, false]);
        assert!(!queue.push(&mut records(4_600..5_000), false));
    }

    #[test]
    fn the_end_is_told_once_with_its_last_record_or_alone() {
        let queue = queue(5_000);
        let took = |queue: &Queue| {
            let batch = queue.try_take()?.batch.unwrap();
            Some((batch.records.len(), batch.next, batch.at_end))
        };
        queue.push(&mut Vec::new(), true);
        assert_eq!(took(&queue), Some((0, 0, true)));
        assert_eq!(took(&queue), None);
        queue.push(&mut records(0..3), false);
        assert_eq!(took(&queue), Some((3, 3, false)));
        queue.push(&mut Vec::new(), true);
        assert_eq!(took(&queue), Some((0, 3, true)));
        queue.push(&mut records(3..5), true);
        assert_eq!(took(&queue), Some((2, 5, true)));
        assert_eq!(took(&queue), None);
    }

    #[test]
    fn an_error_comes_once_after_the_records() {
        let queue = queue(5_000);
        queue.push(&mut records(0..1), true);
        queue.fail(Error::Fatal { what: "over".to_owned() });
        assert!(queue.try_take().unwrap().batch.is_ok());
        assert!(queue.try_take().unwrap().batch.is_err());
        assert!(queue.try_take().is_none());
    }
}
