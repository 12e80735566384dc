//! `waypost status`: how far everything has come.

use std::{collections::BTreeMap, process::ExitCode};

use serde::Deserialize;
use serde_json::Value;

use super::output;
use crate::client::{self, Client};

/// How the projector is called in tables and sentences.
const PROJECTOR: &str = "projector";

/// Show how far machines and projector have come
///
/// Partitions are listed where a reader does not stand at the end.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  waypost status\n  waypost status --all\n  waypost status --json | jq .idle"
)]
pub(super) struct Args {
    /// List every partition
    #[arg(long)]
    all: bool,
    /// Write the stack's own document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: client::Options,
}

/// One reading of a stack's state.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Status {
    cluster: String,
    topics: Vec<Ends>,
    machines: Vec<Machine>,
    /// Absent while Postgres is away.
    #[serde(default)]
    projector: Option<Vec<Projection>>,
    #[serde(default)]
    freshness_ms: Option<i64>,
    #[serde(default)]
    connections: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Ends {
    topic: String,
    partition: i32,
    #[serde(default)]
    low: i64,
    high: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Machine {
    #[serde(rename = "machine")]
    name: String,
    topic: String,
    partition: i32,
    committed: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Projection {
    topic: String,
    partition: i32,
    next: i64,
}

/// How far one reader of a partition is.
struct Reach<'a> {
    reader: &'a str,
    topic: &'a str,
    partition: i32,
    next: Option<i64>,
    low: i64,
    end: i64,
}

impl Reach<'_> {
    fn lag(&self) -> i64 {
        (self.end - self.next.unwrap_or(self.low)).max(0)
    }
    /// Whether it stands anywhere but at the end.
    fn differs(&self) -> bool {
        self.next.unwrap_or(self.low) != self.end
    }
}

impl Status {
    /// Asks the stack.
    pub(super) async fn get(client: &Client) -> Result<Self, client::Error> {
        client.get(&["v1", "status"], &[]).await
    }

    /// The end of every partition.
    pub(super) fn ends(&self) -> BTreeMap<(&str, i32), i64> {
        self.topics.iter().map(|t| ((&*t.topic, t.partition), t.high)).collect()
    }

    /// The reader that is furthest from its partition's end, as a sentence; `None` where all stand at their ends.
    pub(super) fn laggard(&self) -> Option<String> {
        if self.projector.is_none() {
            return Some("the projector cannot be asked: Postgres is away".to_owned());
        }
        let worst = self.reaches().into_iter().filter(Reach::differs).max_by_key(Reach::lag)?;
        Some(format!(
            "{} is {} records behind on {}/{} ({} of {})",
            worst.reader,
            worst.lag(),
            worst.topic,
            worst.partition,
            worst.next.map_or_else(|| "not begun".to_owned(), |n| n.to_string()),
            worst.end,
        ))
    }

    /// How many records the projector has still to apply.
    pub(super) fn projector_lag(&self) -> i64 {
        self.reaches().iter().filter(|reach| reach.reader == PROJECTOR).map(Reach::lag).sum()
    }

    fn reaches(&self) -> Vec<Reach<'_>> {
        let bounds: BTreeMap<_, _> =
            self.topics.iter().map(|t| ((&*t.topic, t.partition), (t.low, t.high))).collect();
        let reach = |reader, topic, partition, next| {
            let (low, end) = bounds.get(&(topic, partition)).copied().unwrap_or_default();
            Reach { reader, topic, partition, next, low, end }
        };
        let machines = self.machines.iter().map(|m| reach(&*m.name, &*m.topic, m.partition, m.committed));
        let projector = self.projector.iter().flatten();
        let projector = projector.map(|p| reach(PROJECTOR, &*p.topic, p.partition, Some(p.next)));
        machines.chain(projector).collect()
    }

    fn summary(&self) -> String {
        let freshness =
            self.freshness_ms.map_or_else(|| "not known".to_owned(), |ms| format!("{ms} ms behind"));
        let idle = self.laggard().unwrap_or_else(|| "everything is at its end".to_owned());
        format!(
            "cluster      {}\nprojector    {freshness}\nconnections  {}, with that of this question\nstate        {idle}",
            self.cluster, self.connections,
        )
    }
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.stack)?;
    let document: Value = client.get(&["v1", "status"], &[]).await?;
    if args.json {
        output::json(&document)?;
        return Ok(ExitCode::SUCCESS);
    }
    let status = Status::deserialize(document)
        .map_err(|source| client::Error::Foreign { url: client.address().to_owned(), source })?;
    let rows: Vec<[String; 6]> = status
        .reaches()
        .iter()
        .filter(|reach| args.all || reach.differs())
        .map(|reach| {
            [
                reach.reader.to_owned(),
                reach.topic.to_owned(),
                reach.partition.to_string(),
                reach.next.map_or_else(|| "-".to_owned(), |next| next.to_string()),
                reach.end.to_string(),
                reach.lag().to_string(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        output::table(["READER", "TOPIC", "PARTITION", "NEXT", "END", "LAG"], &rows)?;
        output::line("")?;
    }
    output::line(&status.summary())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(committed: Option<i64>, next: i64, high: i64) -> Status {
        serde_json::from_value(json!({
            "cluster": "c",
            "topics": [{"topic": "positions", "partition": 3, "low": 0, "high": high}],
            "machines": [{"machine": "spatial", "topic": "positions", "partition": 3, "committed": committed, "lag": 0}],
            "projector": [{"topic": "positions", "partition": 3, "next": next, "lag": 0}],
            "freshness_ms": 12,
            "connections": 0,
            "idle": true,
        }))
        .unwrap()
    }

    #[test]
    fn the_reader_that_lags_most_is_named_with_its_partition() {
        for (committed, next, high, expected) in [
            (Some(7), 7, 7, None),
            (None, 0, 0, None),
            (Some(0), 0, 0, None),
            (Some(5), 7, 7, Some("spatial is 2 records behind on positions/3 (5 of 7)")),
            (Some(7), 4, 7, Some("projector is 3 records behind on positions/3 (4 of 7)")),
            (None, 7, 7, Some("spatial is 7 records behind on positions/3 (not begun of 7)")),
            (Some(6), 2, 7, Some("projector is 5 records behind on positions/3 (2 of 7)")),
            (Some(9), 7, 7, Some("spatial is 0 records behind on positions/3 (9 of 7)")),
        ] {
            assert_eq!(status(committed, next, high).laggard().as_deref(), expected);
        }
    }
}
