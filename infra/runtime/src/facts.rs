//! What operators have said about the log itself: holes that are accepted, records that are skipped, behaviours that are
//! set.
//!
//! Unlike zones and rules these hold whatever a record's registry stamp says, for live runs and replays alike: who asks
//! reads the registry up to its end as it stands now. A reader that meets a hole asks [`hole_accepted`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use waypost_schemas::{
    cause::Position,
    codec,
    event::Event,
    machine::BEHAVIOUR_FIRST,
    topic::{Topic, TopicPartition},
};

use crate::{
    broker::{Broker, Error, Incoming},
    intake::Hole,
    lifecycle::blocking,
};

/// The registry's one partition.
const REGISTRY: TopicPartition = TopicPartition { topic: Topic::Registry, partition: 0 };

/// How long a broker that did not answer is left alone.
const RETRY: Duration = Duration::from_millis(200);

/// The facts of the registry up to some offset: a fold of its records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    holes: BTreeSet<Position>,
    skipped: BTreeSet<(Box<str>, Position)>,
    /// By machine, the number that was set at each offset.
    behaviours: BTreeMap<Box<str>, BTreeMap<i64, i32>>,
}

impl Facts {
    /// Folds what the registry says at an offset; what is no fact changes nothing.
    pub fn apply(&mut self, offset: i64, event: &Event) {
        match event {
            Event::HoleAccepted(hole) => {
                self.holes.insert(hole.position());
            }
            Event::RecordSkipped(skipped) => {
                self.skipped.insert((skipped.machine.as_str().into(), skipped.position()));
            }
            Event::BehaviourSet(set) => {
                let of = self.behaviours.entry(set.machine.as_str().into()).or_default();
                of.insert(offset, set.number);
            }
            _ => {}
        }
    }

    /// Whether exactly this hole was accepted.
    pub fn accepts(&self, hole: &Hole) -> bool {
        self.holes.contains(&hole.position())
    }

    /// The offsets of the records of a partition that a machine skips.
    pub fn skipped(&self, machine: &str, of: TopicPartition) -> BTreeSet<i64> {
        let theirs = self
            .skipped
            .iter()
            .filter(|(name, at)| &**name == machine && (at.topic, at.partition) == (of.topic, of.partition));
        theirs.map(|(_, at)| at.offset).collect()
    }

    /// The behaviours that a machine needs to go on from where its view of the registry ends: the one that holds there,
    /// and every later one.
    pub fn behaviours_from(&self, machine: &str, view: i64) -> BTreeSet<i32> {
        let Some(set) = self.behaviours.get(machine) else { return BTreeSet::from([BEHAVIOUR_FIRST]) };
        let held = set.range(..=view).next_back().map_or(BEHAVIOUR_FIRST, |(_, number)| *number);
        set.range(view.saturating_add(1)..).map(|(_, number)| *number).chain([held]).collect()
    }

    /// Reads the registry from its beginning up to its end as it stands now; waits while the broker is away.
    pub async fn read(broker: &dyn Broker) -> Result<Self, Error> {
        let mut facts = Self::default();
        let end = end(broker).await?;
        if end == 0 {
            return Ok(facts);
        }
        let reader = broker.reader()?;
        let mut feed = reader.open(REGISTRY, 0)?;
        let mut next = 0;
        while next < end {
            let batch = feed.next().await?;
            next = batch.next;
            // A country takes milliseconds to decode: not on an async thread.
            facts = blocking(move || {
                batch.records.iter().for_each(|record| facts.fold(record));
                facts
            })
            .await;
        }
        Ok(facts)
    }

    /// Folds a record as it was read; what is no record of Waypost is no fact.
    pub fn fold(&mut self, record: &Incoming) {
        if let Ok(event) = codec::decode(record.value.as_deref().unwrap_or_default()) {
            self.apply(record.offset, &event);
        }
    }
}

/// The registry's end, asked of the broker now, until it answers.
async fn end(broker: &dyn Broker) -> Result<i64, Error> {
    loop {
        match broker.bounds(vec![Topic::Registry]).await {
            Err(Error::Unavailable { .. }) => tokio::time::sleep(RETRY).await,
            bounds => return Ok(bounds?.get(&REGISTRY).map_or(0, |bounds| bounds.high)),
        }
    }
}

/// Whether the registry, read up to its end as it stands now, accepts a hole. A reader then calls
/// [`Intake::pass`](crate::intake::Intake::pass) and admits the record again; otherwise it stops with the hole as its
/// error. Says so in the log where it is accepted. Waits while the broker is away.
pub async fn hole_accepted(broker: &dyn Broker, hole: &Hole) -> Result<bool, Error> {
    let accepted = Facts::read(broker).await?.accepts(hole);
    if accepted {
        warn_of_hole(hole);
    }
    Ok(accepted)
}

/// Says that a hole is passed.
pub fn warn_of_hole(hole: &Hole) {
    let Hole { partition, offset, seq, expected } = hole;
    tracing::warn!(%partition, offset, %seq, expected, "records are missing here, and an operator has accepted it: going on");
}

#[cfg(test)]
mod tests {
    use waypost_schemas::{
        event::{BehaviourSet, HoleAccepted, RecordSkipped},
        id::UserId,
    };

    use super::*;
    use crate::broker::{Outgoing, memory::Cluster};

    fn by() -> UserId {
        UserId::new("operator").unwrap()
    }

    fn behaviour(machine: &str, number: i32) -> Event {
        BehaviourSet { machine: machine.into(), number, by: by() }.into()
    }

    fn hole(offset: i64) -> Hole {
        let partition = TopicPartition::new(Topic::Inboxes, 3);
        Hole { partition, offset, seq: "alerts/0/9".parse().unwrap(), expected: 8 }
    }

    #[test]
    fn a_machine_needs_the_behaviour_of_its_view_and_every_later_one() {
        let mut facts = Facts::default();
        let needs = |facts: &Facts, machine, view| {
            facts.behaviours_from(machine, view).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(needs(&facts, "spatial", -1), [1]);
        facts.apply(4, &behaviour("spatial", 2));
        facts.apply(7, &behaviour("spatial", 3));
        facts.apply(8, &behaviour("alerts", 2));
        for (view, numbers) in
            [(-1, &[1, 2, 3][..]), (3, &[1, 2, 3]), (4, &[2, 3]), (6, &[2, 3]), (7, &[3]), (i64::MAX, &[3])]
        {
            assert_eq!(needs(&facts, "spatial", view), numbers, "at {view}");
        }
        assert_eq!(needs(&facts, "inboxes", 9), [1]);
    }

    #[tokio::test]
    async fn facts_are_read_up_to_the_end_that_stands_and_name_one_place_each() {
        let cluster = Cluster::new(4);
        let broker = cluster.connect("reader");
        assert_eq!(Facts::read(&broker).await.unwrap(), Facts::default());
        let say = |event: Event| {
            let (key, value) = (None, Some(codec::encode(&event).into()));
            cluster.append(Outgoing { to: REGISTRY, key, value, headers: Vec::new() }).unwrap()
        };
        assert!(!hole_accepted(&broker, &hole(7)).await.unwrap());
        say(HoleAccepted { topic: Topic::Inboxes, partition: 3, offset: 7, by: by() }.into());
        cluster
            .append(Outgoing { to: REGISTRY, key: None, value: None, headers: Vec::new() })
            .expect("what is no record is no fact");
        let (machine, topic) = ("spatial".to_owned(), Topic::Positions);
        say(RecordSkipped { machine, topic, partition: 3, offset: 9, by: by() }.into());
        assert!(hole_accepted(&broker, &hole(7)).await.unwrap());
        assert!(!hole_accepted(&broker, &hole(8)).await.unwrap());
        let facts = Facts::read(&broker).await.unwrap();
        let of = |machine, topic, partition| facts.skipped(machine, TopicPartition::new(topic, partition));
        assert_eq!(of("spatial", Topic::Positions, 3), [9].into());
        assert_eq!(of("spatial", Topic::Positions, 2), BTreeSet::new());
        assert_eq!(of("alerts", Topic::Positions, 3), BTreeSet::new());
    }
}
