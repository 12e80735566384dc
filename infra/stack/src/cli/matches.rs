//! `waypost matches`: the rules that fired, in the order of their fixes.

use std::{cell::Cell, collections::BTreeSet, process::ExitCode, time::Duration};

use serde::Deserialize;
use serde_json::Value;
use waypost_runtime::lifecycle::{self, Lifecycle};

use super::output;
use crate::client::{self, Client};

/// How many matches are asked for at a time.
const PAGE_MATCHES: usize = 1_000;
/// How often `--follow` asks for more.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// Print the matches, ordered by the time of their fix
#[derive(Debug, clap::Args)]
#[command(after_help = "\
As CSV the columns are device, timestamp, zone and event; as JSON each match is an object on a line of its own.

Example:
  waypost matches --format csv --rule borders > borders.csv
  waypost matches --format json --follow")]
pub(super) struct Args {
    /// How they are written
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    /// Only those of a rule
    #[arg(long, value_name = "R")]
    rule: Option<String>,
    /// Go on to print matches as they come, until Ctrl-C; one whose fix is older than the newest thousand matches is
    /// not printed
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    stack: client::Options,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// RFC 4180, with a head
    Csv,
    /// One object a line
    Json,
}

#[derive(Debug, Deserialize)]
struct Page {
    matches: Vec<Value>,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Row {
    device: String,
    at: String,
    zone: Option<String>,
    event: String,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.stack)?;
    let mut matches = Matches::new(&client, args.rule.as_deref());
    // Not before the stack has answered: a head alone would say that there are no matches.
    let headed = Cell::new(false);
    let head = || if headed.replace(true) { Ok(true) } else { args.format.head() };
    let print = |found: &Value| Ok(head()? && args.format.write(found)?);
    if !args.follow {
        if matches.read(&print).await? {
            head()?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let stop = Lifecycle::new();
    lifecycle::signals(&stop)?;
    tokio::select! {
        followed = matches.follow(&print) => followed?,
        () = stop.soft_stopped() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes a match; `false` where no more are wanted.
type Print<'a> = &'a dyn Fn(&Value) -> anyhow::Result<bool>;

/// Reads page by page, and again from the page before the last: a match may come whose fix is older than one that
/// was printed.
struct Matches<'a> {
    client: &'a Client,
    rule: Option<&'a str>,
    /// Where the page before the last begins.
    from: Option<String>,
    /// The positions of what was printed from there on.
    printed: BTreeSet<String>,
}

impl<'a> Matches<'a> {
    fn new(client: &'a Client, rule: Option<&'a str>) -> Self {
        Self { client, rule, from: None, printed: BTreeSet::new() }
    }

    /// Prints to the end what was not printed yet; `false` where no more is wanted. After an error it can be called
    /// again, and goes on.
    async fn read(&mut self, print: Print<'_>) -> anyhow::Result<bool> {
        let mut before: Option<BTreeSet<String>> = None;
        let mut after = self.from.clone();
        loop {
            let page = self.page(after.as_deref()).await?;
            let mut seen = BTreeSet::new();
            for found in page.matches {
                let position = found["position"].as_str().unwrap_or_default().to_owned();
                if self.printed.insert(position.clone()) && !print(&found)? {
                    return Ok(false);
                }
                seen.insert(position);
            }
            let Some(next) = page.next else { return Ok(true) };
            // From here on only this page and the next are read again.
            if let Some(gone) = before.replace(seen) {
                self.printed.retain(|position| !gone.contains(position));
                self.from.clone_from(&after);
            }
            after = Some(next);
        }
    }

    /// Prints what comes, until no more is wanted; waits while the stack is away.
    async fn follow(&mut self, print: Print<'_>) -> anyhow::Result<()> {
        loop {
            match self.read(print).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => {
                    match error.downcast_ref::<client::Error>().and_then(client::Error::retry_after) {
                        Some(least) => tokio::time::sleep(least).await,
                        None => return Err(error),
                    }
                }
            }
            tokio::time::sleep(FOLLOW_EVERY).await;
        }
    }

    async fn page(&self, after: Option<&str>) -> Result<Page, client::Error> {
        let limit = PAGE_MATCHES.to_string();
        let mut query = vec![("limit", &*limit)];
        query.extend(self.rule.map(|rule| ("rule", rule)));
        query.extend(after.map(|after| ("after", after)));
        self.client.get(&["v1", "matches"], &query).await
    }
}

impl Format {
    fn head(self) -> anyhow::Result<bool> {
        match self {
            Self::Csv => record(&["device", "timestamp", "zone", "event"]),
            Self::Json => Ok(true),
        }
    }

    fn write(self, found: &Value) -> anyhow::Result<bool> {
        match self {
            Self::Csv => {
                let row = Row::deserialize(found)?;
                record(&[&row.device, &row.at, row.zone.as_deref().unwrap_or_default(), &row.event])
            }
            Self::Json => output::line(&found.to_string()),
        }
    }
}

fn record(fields: &[&str]) -> anyhow::Result<bool> {
    let mut writer = csv::Writer::from_writer(vec![]);
    writer.write_record(fields)?;
    output::write(&writer.into_inner()?)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{Json, Router, extract::Query, routing::get};
    use serde_json::json;

    use super::*;

    /// Serves matches by their number in pages of `limit`, whose cursor is the last number.
    fn router(stored: Arc<Mutex<Vec<u64>>>) -> Router {
        Router::new().route(
            "/v1/matches",
            get(move |Query(query): Query<std::collections::BTreeMap<String, String>>| async move {
                let limit: usize = query["limit"].parse().unwrap();
                let after: Option<u64> = query.get("after").map(|after| after.parse().unwrap());
                let mut all = stored.lock().unwrap().clone();
                all.sort_unstable();
                all.retain(|n| after.is_none_or(|after| *n > after));
                let next = (all.len() > limit).then(|| all[limit - 1].to_string());
                let row = |n: &u64| {
                    json!({"position": format!("m/0/{n}"), "device": "x", "at": "t", "zone": "z", "event": "enter"})
                };
                let matches: Vec<Value> = all.iter().take(limit).map(row).collect();
                Json(json!({"matches": matches, "next": next}))
            }),
        )
    }

    #[tokio::test]
    async fn every_match_is_read_once_also_one_that_comes_late() {
        let stored = Arc::new(Mutex::new((0..4_500).map(|n| n * 2).collect::<Vec<u64>>()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let options = client::Options { url, token: Some("t".parse().unwrap()), data_dir: ".".into() };
        let client = Client::new(&options).unwrap();
        let mut matches = Matches::new(&client, None);
        let printed = Mutex::new(vec![]);
        let print = |found: &Value| {
            printed.lock().unwrap().push(found["position"].as_str().unwrap().to_owned());
            Ok(true)
        };
        let check = async {
            matches.read(&print).await.unwrap();
            assert_eq!(printed.lock().unwrap().len(), 4_500);
            assert_eq!(matches.from.as_deref(), Some("5998"), "where the last full page begins");
            assert_eq!(matches.printed.len(), 1_500, "only the last two pages are remembered");
            stored.lock().unwrap().extend([7_001, 9_001]);
            matches.read(&print).await.unwrap();
            assert_eq!(printed.lock().unwrap()[4_500..], ["m/0/7001", "m/0/9001"]);
            matches.read(&print).await.unwrap();
            assert_eq!(printed.lock().unwrap().len(), 4_502);
        };
        tokio::select! {
            _ = axum::serve(listener, router(Arc::clone(&stored))) => unreachable!(),
            () = check => {}
        }
    }
}
