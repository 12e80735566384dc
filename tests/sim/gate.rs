//! A process's gate: everything that it asks of the world passes here, late or never.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{dice::Dice, digest::Steps};

/// One life of a process, as far as the world decides it; a cheap clone.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Mutex<State>>);

struct State {
    dice: Dice,
    /// How slow the world is at most, in milliseconds.
    slow_ms_max: u64,
    /// After so many passages it dies.
    fatal: Option<u64>,
    dead: bool,
    steps: Steps,
}

impl Gate {
    pub(crate) fn new(dice: Dice, slow_ms_max: u64, steps: Steps) -> Self {
        Self(Arc::new(Mutex::new(State { dice, slow_ms_max, fatal: None, dead: false, steps })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plants a death so many passages from now: between any two steps of anything.
    pub(crate) fn die_after(&self, passages: u64) {
        self.lock().fatal.get_or_insert(passages);
    }

    /// Ends the process now.
    pub(crate) fn kill(&self) {
        self.lock().dead = true;
    }

    /// Whether the process has died.
    pub(crate) fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Nothing is slow any more, and nobody dies.
    pub(crate) fn calm(&self) {
        let mut state = self.lock();
        (state.slow_ms_max, state.fatal) = (0, None);
    }

    /// True once in so many times.
    pub(crate) fn once_in(&self, times: u64) -> bool {
        let mut state = self.lock();
        state.slow_ms_max > 0 && state.dice.once_in(times)
    }

    /// Passes after a while; a dead process never does. Before every step and after it, so that it may have happened
    /// though nobody heard of it.
    pub(crate) async fn pass(&self) {
        let Some(wait) = self.step() else { return std::future::pending().await };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
            if self.is_dead() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn step(&self) -> Option<Duration> {
        let mut state = self.lock();
        state.steps.one();
        match &mut state.fatal {
            Some(0) => state.dead = true,
            Some(more) => *more -= 1,
            None => {}
        }
        if state.dead {
            return None;
        }
        let slow = state.slow_ms_max;
        let ms = if slow > 0 && state.dice.once_in(3) { state.dice.within(1..=slow) } else { 0 };
        Some(Duration::from_millis(ms))
    }
}
