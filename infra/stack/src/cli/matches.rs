//! `waypost matches`: the rules that fired, in the order of their fixes.

use std::{collections::BTreeSet, process::ExitCode, time::Duration};

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
    let rule = args.rule.as_deref();
    let mut matches = Matches { client: &client, rule, window: vec![None], printed: BTreeSet::new() };
    args.format.head()?;
    if !args.follow {
        matches.read(args.format).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let stop = Lifecycle::new();
    lifecycle::signals(&stop)?;
    tokio::select! {
        followed = matches.follow(args.format) => followed?,
        () = stop.soft_stopped() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads page by page, and again from the page before the last: a match may come whose fix is older than one that
/// was printed.
struct Matches<'a> {
    client: &'a Client,
    rule: Option<&'a str>,
    /// Where the last two pages begin.
    window: Vec<Option<String>>,
    /// What was printed of them, by position.
    printed: BTreeSet<String>,
}

impl Matches<'_> {
    /// Prints to the end what was not printed yet; `false` where nobody reads any more. After an error it can be
    /// called again.
    async fn read(&mut self, out: Format) -> anyhow::Result<bool> {
        let mut seen = BTreeSet::new();
        let mut window: Vec<Option<String>> = vec![self.window.first().cloned().flatten()];
        loop {
            let page = self.page(window.last().and_then(Option::as_deref)).await?;
            for found in page.matches {
                let position = found["position"].as_str().unwrap_or_default().to_owned();
                seen.insert(position.clone());
                if self.printed.insert(position) && !out.write(&found)? {
                    return Ok(false);
                }
            }
            let Some(next) = page.next else { break };
            window.push(Some(next));
            if window.len() > 2 {
                window.remove(0);
            }
        }
        (self.window, self.printed) = (window, seen);
        Ok(true)
    }

    /// Prints what comes, until nobody reads any more; waits while the stack is away.
    async fn follow(&mut self, out: Format) -> anyhow::Result<()> {
        loop {
            match self.read(out).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => match error.downcast_ref::<client::Error>().and_then(client::Error::retry_after) {
                    Some(least) => tokio::time::sleep(least).await,
                    None => return Err(error),
                },
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
        let mut matches = Matches { client: &client, rule: None, window: vec![None], printed: BTreeSet::new() };
        let check = async {
            matches.read(Format::Json).await.unwrap();
            assert_eq!(matches.window, [Some("5998".to_owned()), Some("7998".to_owned())]);
            assert_eq!(matches.printed.len(), 1_500, "only the last two pages are remembered");
            stored.lock().unwrap().extend([7_001, 9_001]);
            matches.read(Format::Json).await.unwrap();
            assert!(matches.printed.contains("m/0/7001") && matches.printed.contains("m/0/9001"));
            assert_eq!(matches.printed.len(), 1_502);
        };
        tokio::select! {
            _ = axum::serve(listener, router(Arc::clone(&stored))) => unreachable!(),
            () = check => {}
        }
    }
}
