//! The catalogue on a broker: what is missing, what differs, and creating it.

use std::{collections::BTreeMap, fmt};

use waypost_schemas::topic::Topic;

use super::{Broker, Error, TopicState};

/// The settings that the catalogue gives a topic, by Kafka's names.
pub fn settings(topic: Topic) -> BTreeMap<String, String> {
    let spec = topic.spec();
    let retention = spec.retention.map_or_else(|| "-1".to_owned(), |kept| kept.as_millis().to_string());
    [
        ("cleanup.policy", "delete".to_owned()),
        ("max.message.bytes", spec.message_bytes_max.to_string()),
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        ("retention.bytes", "-1".to_owned()),
        ("retention.ms", retention),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// A setting of a topic that is not as the catalogue says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The topic.
    pub topic: Topic,
    /// The setting, by Kafka's name.
    pub setting: String,
    /// What the broker has, if anything.
    pub is: Option<String>,
    /// What the catalogue says.
    pub ought: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, setting, is, ought } = self;
        write!(f, "{topic}: {setting} is {}, the catalogue says {ought}", is.as_deref().unwrap_or("not set"))
    }
}

/// What stands between a broker and the catalogue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Topics to be created, in the order of the catalogue.
    pub create: Vec<Topic>,
    /// Settings that somebody should look at; they are named, not changed.
    pub differences: Vec<Difference>,
}

/// A topic with another number of partitions than it must have, which cannot be mended in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{topic} has {is} partitions and must have {ought}: the number is for life, because keys would move; \
     set topics.partitions to what the broker has, or use an empty cluster"
)]
pub struct Miscounted {
    /// The topic.
    pub topic: Topic,
    /// How many it has.
    pub is: i32,
    /// How many the catalogue and `topics.partitions` ask for.
    pub ought: i32,
}

/// Compares what exists with the catalogue, where keyed topics have `keyed` partitions.
pub fn plan(existing: &[TopicState], keyed: i32) -> Result<Plan, Miscounted> {
    let mut plan = Plan::default();
    for topic in Topic::ALL {
        let Some(state) = existing.iter().find(|s| s.topic == topic) else {
            plan.create.push(topic);
            continue;
        };
        let ought = topic.partitions(keyed);
        if state.partitions != ought {
            return Err(Miscounted { topic, is: state.partitions, ought });
        }
        for (setting, ought) in settings(topic) {
            let is = state.settings.get(&setting).cloned();
            if is.as_ref() != Some(&ought) {
                plan.differences.push(Difference { topic, setting, is, ought });
            }
        }
    }
    Ok(plan)
}

/// Creates what is missing; returns what was created and what differs.
pub async fn apply(broker: &dyn Broker, keyed: i32) -> Result<Plan, Error> {
    let plan = check(broker, keyed).await?;
    if !plan.create.is_empty() {
        broker.create(plan.create.clone(), keyed).await?;
    }
    Ok(plan)
}

/// Compares the broker with the catalogue and changes nothing; another number of partitions is [`Error::Fatal`].
pub async fn check(broker: &dyn Broker, keyed: i32) -> Result<Plan, Error> {
    let existing = broker.topics().await?;
    plan(&existing, keyed).map_err(|miscounted| Error::Fatal { what: miscounted.to_string() })
}

/// The error of a topic that is not there.
pub(super) fn missing(topic: Topic) -> Error {
    Error::Fatal { what: format!("the topic {topic} does not exist; create it with waypost topics apply") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn existing(keyed: i32) -> Vec<TopicState> {
        let state = |topic: Topic| TopicState {
            topic,
            partitions: topic.partitions(keyed),
            settings: settings(topic),
        };
        Topic::ALL.into_iter().map(state).collect()
    }

    #[test]
    fn what_is_missing_is_created_and_what_is_there_is_left() {
        assert_eq!(plan(&[], 16).unwrap().create, Topic::ALL);
        assert_eq!(plan(&existing(16), 16).unwrap(), Plan::default());
        assert_eq!(plan(&existing(16)[..5], 16).unwrap().create, Topic::ALL[5..]);
    }

    #[test]
    fn a_setting_that_differs_is_named() {
        let mut topics = existing(16);
        topics[3].settings.insert("retention.ms".to_owned(), "604800000".to_owned());
        topics[4].settings.remove("cleanup.policy");
        let named: Vec<_> = plan(&topics, 16).unwrap().differences.iter().map(ToString::to_string).collect();
        assert_eq!(
            named,
            [
                "registry: retention.ms is 604800000, the catalogue says -1",
                "matches: cleanup.policy is not set, the catalogue says delete",
            ]
        );
    }

    #[test]
    fn another_number_of_partitions_is_refused() {
        let refused = plan(&existing(16), 64).unwrap_err();
        assert_eq!(refused, Miscounted { topic: Topic::Messages, is: 16, ought: 64 });
        assert!(refused.to_string().contains("topics.partitions"));
    }
}
