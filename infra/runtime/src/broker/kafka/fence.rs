//! Whether a member that the broker has fenced may join again.
//!
//! A broker fences a static member when its instance id joins again under another member id. That is another process,
//! or an echo of this one: while a broker comes back, connections break while it asks to join; the coordinator
//! has taken it and given a new member id, nobody hears of it, and librdkafka repeats the request with the old one.
//! From outside they look the same. What tells them apart is whether the client has just lost a connection.

use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;

use crate::clock::Monotonic;

/// How long after a connection was lost a fence may be an echo: a group waits at most for a session and for the
/// slowest of its members, 6 and 15 seconds, and librdkafka repeats what timed out.
const ECHO_MAX: Duration = Duration::from_mins(1);

/// What a client has seen of its connections; each client of a member begins with nothing seen.
///
/// So a member joins again once per connection that it loses. Two processes of one instance put each other out no
/// longer than their connections break: the first that is fenced on one that holds is told.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Connections {
    lost: Option<Monotonic>,
}

impl Connections {
    /// A connection was lost, or could not be made.
    pub(super) fn lose(&mut self, now: Monotonic) {
        self.lost = Some(now);
    }

    /// Whether a fence of now may be this member's own echo.
    pub(super) fn may_echo(&self, now: Monotonic) -> bool {
        self.lost.is_some_and(|lost| now.since(lost) <= ECHO_MAX)
    }
}

/// Whether an error of a client says that a connection was lost.
pub(super) fn is_loss(code: Code) -> bool {
    matches!(
        code,
        Code::AllBrokersDown | Code::BrokerTransportFailure | Code::OperationTimedOut | Code::Resolve
    )
}

/// Whether a log line of librdkafka says that a connection was lost. One that breaks and is made again at once is
/// told by this line only; one that the broker closed for being idle is not told.
pub(super) fn is_loss_line(facility: &str) -> bool {
    facility == "FAIL"
}

#[cfg(test)]
mod tests {
    use waypost_schemas::time::Micros;

    use super::*;
    use crate::clock::Clock;

    /// Loses connections at some seconds, is fenced at another.
    fn check(lost_at_s: &[u64], fenced_at_s: u64, echo: bool) {
        let mut connections = Connections::default();
        let clock = Clock::manual(Micros(0));
        for second in 0..=fenced_at_s {
            if lost_at_s.contains(&second) {
                connections.lose(clock.monotonic());
            }
            if second == fenced_at_s {
                let got = connections.may_echo(clock.monotonic());
                assert_eq!(got, echo, "lost at {lost_at_s:?}, fenced at {fenced_at_s}");
            }
            clock.advance(Duration::from_secs(1));
        }
    }

    #[test]
    fn a_fence_soon_after_a_lost_connection_may_be_an_echo_and_no_other() {
        check(&[], 0, false);
        check(&[], 1_000, false);
        check(&[0], 0, true);
        check(&[5], 65, true);
        check(&[5], 66, false);
        check(&[5, 10, 15], 66, true);
        check(&[70], 66, false);
    }
}
