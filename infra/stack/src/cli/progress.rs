//! How far a long command has come, on standard error: a bar on a terminal, a line now and then otherwise.

use std::{
    cell::Cell,
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use waypost_runtime::clock::{Clock, Monotonic};

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The progress of one command.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// How many units of the position there are, where that is known.
    total: Option<u64>,
    /// What is counted: `fixes`.
    what: &'static str,
    clock: Clock,
    begun: Monotonic,
    written: Cell<Monotonic>,
}

impl Progress {
    /// Begins to show progress towards a total (bytes, say), and to count things beside it.
    pub(super) fn begin(total: Option<u64>, what: &'static str, clock: Clock) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let (bar, template) = match total {
                Some(total) => (ProgressBar::new(total), "{bar:32} {percent:>3}% {msg}, {eta} left"),
                None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
            };
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            bar.set_message(format!("0 {what}"));
            bar.with_style(ProgressStyle::with_template(template).expect("the template is right"))
        });
        Self::with(bar, total, what, clock)
    }

    /// Begins to show progress by a line now and then, also on a terminal: beside other lines.
    pub(super) fn lines(total: Option<u64>, what: &'static str, clock: Clock) -> Self {
        Self::with(None, total, what, clock)
    }

    fn with(bar: Option<ProgressBar>, total: Option<u64>, what: &'static str, clock: Clock) -> Self {
        let begun = clock.monotonic();
        Self { bar, total, what, clock, begun, written: Cell::new(begun) }
    }

    /// How long it has taken so far.
    pub(super) fn elapsed(&self) -> Duration {
        self.clock.elapsed(self.begun)
    }

    /// Shows the position, and how many things were done.
    pub(super) fn at(&self, position: u64, done: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(position);
                bar.set_message(self.counted(done));
            }
            None if self.clock.elapsed(self.written.get()) >= LINE_EVERY => {
                self.written.set(self.clock.monotonic());
                tell(&format!("{}{}{}", self.percent(position), self.counted(done), self.left(position)));
            }
            None => {}
        }
    }

    /// Writes a line beside the bar.
    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| tell(line)),
            None => tell(line),
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn counted(&self, done: u64) -> String {
        let rate = done as f64 / self.elapsed().as_secs_f64().max(0.001);
        format!("{} {}, {}/s", HumanCount(done), self.what, HumanCount(rate as u64))
    }

    fn percent(&self, position: u64) -> String {
        match self.total {
            Some(total) if total > 0 => format!("{}%, ", position.saturating_mul(100) / total),
            _ => String::new(),
        }
    }

    fn left(&self, position: u64) -> String {
        match self.total {
            Some(total) if position > 0 => {
                let share = total.saturating_sub(position) as f64 / position as f64;
                let left = Duration::from_secs((self.elapsed().as_secs_f64() * share) as u64);
                format!(", {} left", HumanDuration(left))
            }
            _ => String::new(),
        }
    }
}

/// Writes a line to standard error; that nobody reads it is no reason to stop.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
