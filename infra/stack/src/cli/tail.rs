//! `waypost tail`: a device that prints its user's inbox.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use waypost_runtime::{
    clock::Clock,
    config::environment,
    lifecycle::{self, Lifecycle},
};
use waypost_schemas::{
    frame::Begin,
    id::{DeviceName, UserId},
};

use super::{
    duration,
    memory::{self, Memory},
    output, shown, token,
};
use crate::{
    client::{self, Client},
    device::{self, Device, Entry, Event, Mark},
};

/// How long the last word may take to be heard.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);
/// How long a token that was refused must have lasted for another to be worth a try.
const TOKEN_AGE_MIN: Duration = Duration::from_mins(1);
/// The exit code where fewer entries came than were asked for.
const EXIT_TOO_FEW: u8 = 3;

/// Receive a user's inbox as one of the user's devices
///
/// Prints each entry and acknowledges it.
/// What was acknowledged does not come again: another run goes on where this one has stopped, and what came meanwhile
/// comes first. A lost connection is made again. A message's sender learns by `delivered` that this device has it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 told to stop, or all that --count asks for came; 3 --for is over and
fewer came; 1 another connection of this device has taken its place, or the stack
refuses this one.

Example:
  waypost tail --user bob
  waypost tail --user warden --device phone --count 277 --for 1m --json")]
pub(super) struct Args {
    /// Whose inbox
    #[arg(long, value_name = "U")]
    user: UserId,
    /// Which of the user's devices this is; the newest connection of a device ends the others
    #[arg(long, value_name = "D", default_value = "cli")]
    device: DeviceName,
    /// Where to begin; default: `resume` a device that has been here, and otherwise the `start`
    #[arg(long, value_enum)]
    from: Option<From>,
    /// Say that each message that was received is read
    #[arg(long)]
    read: bool,
    /// Stop after so many entries
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// When to stop; default: at Ctrl-C
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
    duration: Option<Duration>,
    /// Write each entry as an object on a line of its own
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: client::Options,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum From {
    /// Where the device has stopped, or, where it is new, with the first entry of all
    Start,
    /// With what comes from now on; what waits is left out
    New,
    /// Where the device has stopped, or, where it is new, with the newest hundred entries
    Resume,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let stop = Lifecycle::new();
    lifecycle::signals(&stop)?;
    let file = Memory::open(&args.stack, &environment())?.file("tail", &args.user, &args.device);
    let operator = Client::new(&args.stack)?;
    let token = token::of_device(&operator, &args.user, &args.device).await?;
    let mark: Option<Mark> = memory::read(&file).filter(|_| args.from != Some(From::New));
    let from = match args.from {
        Some(From::New) => Begin::New,
        Some(From::Resume) => Begin::Resume,
        None if mark.is_some() => Begin::Resume,
        Some(From::Start) | None => Begin::Start,
    };
    let clock = Clock::system();
    let options = device::Options { url: args.stack.url.clone(), token, from: Some(from), mark };
    let mut device = Device::new(options, clock.clone())?;
    let mut print = |entry: &Entry| {
        if args.json {
            output::line(&serde_json::to_string(entry)?)
        } else {
            output::line(&shown::entry(entry))
        }
    };
    let mut tail = Tail { args: &args, operator: &operator, clock, file, received: 0 };
    let over = async {
        match args.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let received = tokio::select! {
        received = tail.receive(&mut device, &mut print) => received,
        () = over => Ok(()),
        () = stop.soft_stopped() => Ok(()),
    };
    let (count, interrupted) = (tail.received, stop.is_stopping());
    tokio::select! {
        () = device.close(CLOSE_WITHIN) => {}
        () = stop.hard_stopped() => {}
    }
    received?;
    let too_few = args.count.is_some_and(|wanted| count < wanted) && !interrupted;
    Ok(if too_few { ExitCode::from(EXIT_TOO_FEW) } else { ExitCode::SUCCESS })
}

/// Prints an entry; `false` where nobody reads any more.
type Print<'a> = &'a mut dyn FnMut(&Entry) -> anyhow::Result<bool>;

struct Tail<'a> {
    args: &'a Args,
    operator: &'a Client,
    clock: Clock,
    file: PathBuf,
    received: u64,
}

impl Tail<'_> {
    /// Receives until enough has come or nobody reads; cancel-safe, and what was printed is acknowledged.
    async fn receive(&mut self, device: &mut Device, print: Print<'_>) -> anyhow::Result<()> {
        let mut token_since = self.clock.monotonic();
        let mut away = false;
        while self.args.count.is_none_or(|count| self.received < count) {
            match device.next().await {
                Ok(Event::Entry(entry)) => {
                    if !print(&entry)? {
                        return Ok(());
                    }
                    self.printed(device, &entry)?;
                }
                Ok(Event::Connected { other_log, .. }) => {
                    if other_log {
                        eprintln!("waypost: the stack has another log now: this device is new to it");
                    } else if away {
                        eprintln!("waypost: connected again");
                    }
                    away = false;
                }
                Ok(Event::Disconnected { why, again_in }) => {
                    away = true;
                    eprintln!("waypost: {why}; trying again in {:.1} s", again_in.as_secs_f64());
                }
                Ok(Event::Refused { code, detail, .. }) => eprintln!("waypost: refused: {code}: {detail}"),
                Ok(Event::CaughtUp { .. } | Event::Accepted { .. }) => {}
                Err(device::Error::Denied(problem))
                    if problem.status == 401 && self.clock.elapsed(token_since) >= TOKEN_AGE_MIN =>
                {
                    // A token lasts a day.
                    let token = token::of_device(self.operator, &self.args.user, &self.args.device).await?;
                    device.set_token(&token)?;
                    token_since = self.clock.monotonic();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// An entry is on its way to whoever reads: it is remembered, and only then acknowledged.
    fn printed(&mut self, device: &mut Device, entry: &Entry) -> anyhow::Result<()> {
        self.received += 1;
        device.acknowledge(entry.offset);
        if let Some(mark) = device.mark() {
            memory::write(&self.file, &mark)?;
        }
        if self.args.read && entry.kind == "message" && entry.text("sender") != Some(self.args.user.as_str())
        {
            device.read(entry);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use waypost_schemas::frame::Up;

    use super::*;
    use crate::device::server::Server;

    #[derive(clap::Parser)]
    struct Door {
        #[command(flatten)]
        args: Args,
    }

    /// Runs a tail against a server that does as it is told; the bodies that were printed.
    async fn tail(server: &Server, file: &std::path::Path, flags: &[&str], test: impl Future) -> Vec<String> {
        let args = Door::parse_from([&["tail", "--user", "bob"], flags].concat()).args;
        let token = "t".parse().unwrap();
        let operator = Client::with_token(&server.url, &token).unwrap();
        let clock = Clock::system();
        let options = device::Options {
            url: server.url.clone(),
            token,
            from: Some(Begin::Start),
            mark: memory::read(file),
        };
        let mut device = Device::new(options, clock.clone()).unwrap();
        let mut tail = Tail { args: &args, operator: &operator, clock, file: file.to_owned(), received: 0 };
        let mut printed = Vec::new();
        let mut print = |entry: &Entry| {
            printed.push(entry.text("body").unwrap().to_owned());
            Ok(true)
        };
        let receive = async {
            tail.receive(&mut device, &mut print).await.unwrap();
            device.close(CLOSE_WITHIN).await;
        };
        tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(receive, test) }).await.unwrap();
        printed
    }

    #[tokio::test]
    async fn what_was_printed_is_acknowledged_and_remembered_and_not_printed_by_the_next_run() {
        let server = Server::start().await;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tail~bob~cli.json");
        let first = async {
            let mut connection = server.accept().await;
            let hello = connection.welcome("l", None).await;
            assert_eq!(hello, Up::Hello { from: Some(Begin::Start), offset: None, log: None });
            for (offset, body) in [(2, "a"), (3, "b"), (7, "never seen")] {
                connection.offer(offset, body).await;
            }
            assert_eq!(connection.hear().await, Some(Up::Ack { upto: 3 }));
            assert_eq!(connection.hear().await, Some(Up::Read { upto: 3 }));
        };
        assert_eq!(tail(&server, &file, &["--read", "--count", "2"], first).await, ["a", "b"]);
        let second = async {
            let mut connection = server.accept().await;
            let resume = Up::Hello { from: Some(Begin::Resume), offset: Some(3), log: Some("l".into()) };
            assert_eq!(connection.welcome("l", Some(1)).await, resume);
            for (offset, body) in [(2, "a"), (3, "b"), (7, "c")] {
                connection.offer(offset, body).await;
            }
            while connection.hear().await.is_some() {}
        };
        assert_eq!(tail(&server, &file, &["--count", "1"], second).await, ["c"]);
        assert_eq!(memory::read(&file), Some(Mark { log: "l".into(), offset: 7 }));
    }
}
