//! `waypost send`: says something to a user.

use std::{
    io::{BufRead as _, Read as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use waypost_runtime::{clock::Clock, config::environment};
use waypost_schemas::{
    client_id::ClientId,
    id::{DeviceName, UserId},
    time::Micros,
};

use super::{
    duration,
    memory::{Held, Memory},
    output, token,
};
use crate::{
    client::{self, Client},
    device,
};

/// The shortest wait before a message is sent again.
const RETRY_MIN: Duration = Duration::from_millis(250);
/// More of standard input than any stack takes as one message.
const INPUT_BYTES_MAX: u64 = 1 << 20;

/// Send a message from one user to another, and wait until it is in the log
///
/// Prints the message's position in the log. A message that is not acknowledged in time is sent again under the same
/// id, so that it arrives once; while the stack is away, that goes on until --timeout.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 accepted; 1 refused, with the refusal's code on standard error, or not
accepted in time.

Example:
  waypost send --from alice --to bob 'on my way'
  waypost send --from alice --to bob --lines - < messages.txt")]
pub(super) struct Args {
    /// Who says it
    #[arg(long, value_name = "A")]
    from: UserId,
    /// On which of the sender's devices
    #[arg(long, value_name = "D", default_value = "cli")]
    device: DeviceName,
    /// To whom
    #[arg(long, value_name = "B")]
    to: UserId,
    /// What; `-` is all of standard input, without the last line's end
    #[arg(value_name = "TEXT")]
    text: String,
    /// With `-`: every line is a message of its own, and empty ones are none
    #[arg(long)]
    lines: bool,
    /// How long to wait for the stack, and for each message to be accepted
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    timeout: Duration,
    /// Write the stack's own answers, one a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: client::Options,
}

/// What is remembered of a sending device: the last id that it used, which is settled when its file is free.
#[derive(Debug, Serialize, Deserialize)]
struct Last {
    id: String,
}

#[derive(Debug, Serialize)]
struct Message<'a> {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled: Option<String>,
    to: &'a UserId,
    body: &'a str,
}

#[derive(Debug, Serialize, Deserialize)]
struct Accepted {
    #[serde(rename = "type")]
    kind: String,
    id: String,
    positions: Vec<String>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(!args.lines || args.text == "-", "--lines goes with `-`, which is standard input");
    let memory = Memory::open(&args.stack, &environment())?;
    let operator = Client::new(&args.stack)?;
    let patience = Patience { clock: Clock::system(), timeout: args.timeout };
    let token = patience.with(async || token::of_device(&operator, &args.from, &args.device).await).await?;
    let client = Client::with_token(&args.stack.url, &token)?;
    let file = memory.file("send", &args.from, &args.device);
    let sender = Sender { client, patience, args: &args, file };
    if args.lines {
        for line in std::io::stdin().lock().lines() {
            let line = line.context("standard input")?;
            if !line.is_empty() && !sender.send(&line).await? {
                break;
            }
        }
    } else if args.text == "-" {
        let mut text = String::new();
        let mut input = std::io::stdin().lock().take(INPUT_BYTES_MAX);
        input.read_to_string(&mut text).context("standard input")?;
        sender.send(text.strip_suffix('\n').unwrap_or(&text)).await?;
    } else {
        sender.send(&args.text).await?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Sender<'a> {
    client: Client,
    patience: Patience,
    args: &'a Args,
    file: std::path::PathBuf,
}

impl Sender<'_> {
    /// Sends a message and prints the answer; `false` where nobody reads it any more.
    async fn send(&self, body: &str) -> anyhow::Result<bool> {
        // One message of a device at a time, whichever process sends it: so the last id is settled.
        let mut held = Held::wait(self.file.clone()).await?;
        let last = held.read().and_then(|Last { id }| id.parse().ok());
        let accepted = match self.attempt(&mut held, last, self.patience.clock.now(), body).await {
            Err(error) => match error.problem().and_then(|problem| problem.time) {
                // This machine's clock is wrong; the stack says what time it is.
                Some(time) => self.attempt(&mut held, last, time, body).await,
                None => Err(error),
            },
            accepted => accepted,
        };
        let accepted = accepted?;
        if self.args.json {
            output::line(&serde_json::to_string(&accepted)?)
        } else if accepted.positions.is_empty() {
            output::line("accepted before")
        } else {
            output::line(&accepted.positions.join(" "))
        }
    }

    async fn attempt(
        &self,
        held: &mut Held,
        last: Option<ClientId>,
        now: Micros,
        body: &str,
    ) -> Result<Accepted, client::Error> {
        let id = next(last, now, device::random());
        let settled = last.map(|id| id.to_string());
        let message = Message { id: id.to_string(), settled, to: &self.args.to, body };
        if let Err(error) = held.write(&Last { id: id.to_string() }) {
            eprintln!("waypost: {error:#}; the next message will not say what is settled");
        }
        self.patience.with(async || self.client.post(&["v1", "messages"], &message).await).await
    }
}

/// Asks the stack again while it is away or busy, for as long as the user waits.
struct Patience {
    clock: Clock,
    timeout: Duration,
}

impl Patience {
    async fn with<T>(&self, ask: impl AsyncFn() -> Result<T, client::Error>) -> Result<T, client::Error> {
        let begun = self.clock.monotonic();
        let mut told = false;
        loop {
            let error = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let Some(wait) = error.retry_after() else { return Err(error) };
            let wait = wait.max(RETRY_MIN);
            if self.clock.elapsed(begun) + wait >= self.timeout {
                return Err(error);
            }
            if !std::mem::replace(&mut told, true) {
                eprintln!("waypost: waiting for the stack: {error}");
            }
            tokio::time::sleep(wait).await;
        }
    }
}

/// An id of this time, above the last.
fn next(last: Option<ClientId>, now: Micros, random: u64) -> ClientId {
    let after = last.map_or(Micros(0), |last| Micros(last.at().0 + 1_000));
    ClientId::new(now.max(after), random.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_increase_though_the_clock_stands_or_goes_back() {
        let now = Micros(1_800_000_000_000_000);
        let first = next(None, now, u64::MAX);
        let second = next(Some(first), now, 0);
        let third = next(Some(second), Micros(now.0 - Micros::HOUR), 0);
        assert!(first < second && second < third);
        assert_eq!((first.at(), third.at()), (now, Micros(now.0 + 2_000)));
    }
}
