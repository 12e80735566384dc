use std::time::Duration;

use waypost_runtime::{
    broker::{self, Broker},
    clock::{Clock, Monotonic},
    health::Reporter,
};
use waypost_schemas::topic::Topic;

use super::{PARTITION, Registry};

/// How often the registry's end is asked for.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often it is asked for until it was reached once, as nothing is accepted before.
const INTERVAL_AT_START: Duration = Duration::from_millis(50);

/// How long an answer about the registry's end is waited for, so that a broker that hangs is seen.
const ANSWER: Duration = Duration::from_secs(2);

/// Watches how far the follower lags behind the registry's end, and whether the log answers at all.
pub(crate) struct Lag {
    /// The check `registry`.
    pub registry: Reporter,
    /// The check `log`.
    pub log: Reporter,
    /// Up to which lag this node is ready.
    pub ready_within: Duration,
}

/// Everything before this moment has been read.
#[derive(Default)]
struct Confirmed {
    at: Option<Monotonic>,
    /// When an end was asked for that has not been reached since.
    pending: Option<(Monotonic, i64)>,
}

impl Confirmed {
    fn look(&mut self, read: i64) {
        if let Some((asked, high)) = self.pending
            && read + 1 >= high
        {
            self.at = Some(asked);
            self.pending = None;
        }
    }
}

impl Lag {
    /// Watches for ever.
    pub(crate) async fn watch(&self, registry: &Registry, broker: &dyn Broker, clock: &Clock) {
        let mut confirmed = Confirmed::default();
        loop {
            let asked = clock.monotonic();
            match tokio::time::timeout(ANSWER, end(broker)).await {
                Ok(Ok(high)) => {
                    self.log.ready();
                    confirmed.pending.get_or_insert((asked, high));
                }
                Ok(Err(error)) => self.log.not_ready(error.to_string()),
                Err(_) => self.log.not_ready("the broker does not answer"),
            }
            confirmed.look(registry.stamp());
            self.tell(registry, &confirmed, clock);
            let interval = if registry.is_caught_up() { INTERVAL } else { INTERVAL_AT_START };
            tokio::time::sleep(interval).await;
        }
    }

    fn tell(&self, registry: &Registry, confirmed: &Confirmed, clock: &Clock) {
        let Some(at) = confirmed.at else {
            return self.registry.not_ready("the registry has not been read to its end yet");
        };
        registry.set_caught_up();
        let lag = clock.elapsed(at);
        metrics::gauge!("waypost_ingest_registry_lag_seconds").set(lag.as_secs_f64());
        if lag > self.ready_within {
            let seconds = lag.as_secs();
            self.registry.not_ready(format!("the registry was last read to its end {seconds} s ago"));
        } else {
            self.registry.ready();
        }
    }
}

/// The registry's end, asked of the broker now.
pub(super) async fn end(broker: &dyn Broker) -> Result<i64, broker::Error> {
    let bounds = broker.bounds(vec![Topic::Registry]).await?;
    bounds.get(&PARTITION).map(|b| b.high).ok_or_else(|| broker::Error::Fatal {
        what: format!("{PARTITION} does not exist; create it with waypost topics apply"),
    })
}
