//! Sends one request, for as long as it takes: waits while the stack is away, and takes out what it refuses.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use waypost_runtime::lifecycle::Lifecycle;

use super::{
    lanes::{Batch, Request},
    rows::Bad,
};
use crate::{
    cli::progress::Progress,
    client::{Client, Error, Problem},
};

/// The wait after the first failure; it doubles with each.
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait between two tries.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// The longest wait that the stack may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// What became of a request.
pub(super) struct Answer {
    /// Whose it was.
    pub(super) device: Box<str>,
    /// How many of its fixes the stack has.
    pub(super) taken: u64,
    /// The lines that the stack refused.
    pub(super) refused: Vec<Bad>,
    /// Why the import cannot go on.
    pub(super) fatal: Option<Error>,
}

/// What all requests of an import share.
pub(super) struct Poster<'a> {
    client: &'a Client,
    stop: &'a Lifecycle,
    progress: &'a Progress,
    away: AtomicBool,
    /// How many requests were sent.
    pub(super) requests: AtomicU64,
    /// How many of them were sent again.
    pub(super) retries: AtomicU64,
}

impl<'a> Poster<'a> {
    pub(super) fn new(client: &'a Client, stop: &'a Lifecycle, progress: &'a Progress) -> Self {
        let [requests, retries] = [AtomicU64::new(0), AtomicU64::new(0)];
        Self { client, stop, progress, away: AtomicBool::new(false), requests, retries }
    }

    /// Sends a request until it is answered for good, or the import is told to stop.
    pub(super) async fn post(&self, request: Request) -> Answer {
        let Request { device, mut batch } = request;
        let mut answer = Answer { device, taken: 0, refused: vec![], fatal: None };
        let mut failures = 0;
        while batch.len() > 0 {
            self.requests.fetch_add(1, Ordering::Relaxed);
            let body = body(&answer.device, &batch);
            let Err(error) = self.client.post_text(&["v1", "positions"], body.into()).await else {
                self.is_back();
                answer.taken = batch.len() as u64;
                break;
            };
            if let Some(least) = error.retry_after() {
                self.is_away(&error);
                let wait = back_off(&answer.device, failures).max(least.min(RETRY_AFTER_MAX));
                failures += 1;
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.stop.soft_stopped() => break,
                }
                self.retries.fetch_add(1, Ordering::Relaxed);
            } else {
                self.is_back();
                match error {
                    Error::Refused(problem) if !matches!(problem.status, 401 | 403 | 404) => {
                        refuse(&mut batch, &problem, &mut answer.refused);
                    }
                    fatal => {
                        answer.fatal = Some(fatal);
                        break;
                    }
                }
            }
        }
        answer
    }

    fn is_away(&self, error: &Error) {
        if !self.away.swap(true, Ordering::Relaxed) {
            let url = self.client.address();
            self.progress.say(&format!("waiting for the stack at {url}: {}", innermost(error)));
        }
    }

    fn is_back(&self) {
        if self.away.swap(false, Ordering::Relaxed) {
            self.progress.say("the stack answers again");
        }
    }
}

fn body(device: &str, batch: &Batch) -> Vec<u8> {
    let elements = batch.elements();
    let mut body = Vec::with_capacity(elements.len() + device.len() + 32);
    for part in [&b"{\"device\":\""[..], device.as_bytes(), b"\",\"fixes\":[", elements, b"]}"] {
        body.extend_from_slice(part);
    }
    body
}

/// Takes out of a batch the fix that was refused, or all of them where the refusal names none.
fn refuse(batch: &mut Batch, problem: &Problem, refused: &mut Vec<Bad>) {
    let why = problem.to_string();
    if let Some(line) = problem.fix().and_then(|index| batch.remove(index)) {
        refused.push(Bad { line, why });
    } else {
        refused.extend(batch.lines().map(|line| Bad { line, why: why.clone() }));
        *batch = Batch::default();
    }
}

/// Doubles with each failure; between half of that and all of it, so that lanes do not come back together.
fn back_off(device: &str, failures: u32) -> Duration {
    let whole = BACK_OFF_FIRST.saturating_mul(1 << failures.min(10)).min(BACK_OFF_MAX);
    let mut hasher = DefaultHasher::new();
    (device, failures).hash(&mut hasher);
    whole.mul_f64(0.5 + (hasher.finish() % 1_000) as f64 / 2_000.0)
}

/// The end of an error's chain, which names what really happened.
fn innermost(error: &Error) -> String {
    let mut source: &dyn std::error::Error = error;
    while let Some(next) = source.source() {
        source = next;
    }
    source.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_to_its_bound_and_differs_between_lanes() {
        for failures in 0..40 {
            let wait = back_off("van", failures);
            assert!(wait >= BACK_OFF_FIRST / 2 && wait <= BACK_OFF_MAX, "{failures}: {wait:?}");
        }
        assert!(back_off("van", 20) >= BACK_OFF_MAX / 2);
        assert!((0..10).any(|i| back_off(&format!("van-{i}"), 3) != back_off("van", 3)));
    }
}
