//! The machines of this version: what drives each, and which behaviours it knows.
//!
//! What a machine derives changes by a fact in the registry (`BehaviourSet`), not by a deploy: a version of Waypost knows
//! a behaviour and the one before it, so that the fact can be written when every process knows the new one.

use std::ops::RangeInclusive;

use crate::topic::Topic;

/// The behaviour that a machine has before any was set.
pub const BEHAVIOUR_FIRST: i32 = 1;

/// A machine, as everybody knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name, which is part of its seqs and of its group.
    pub name: &'static str,
    /// The topic whose records cause its effects.
    pub drives: Topic,
    /// The topic that it looks at beside that one, whose records cause nothing.
    pub looks_at: Option<Topic>,
    /// The numbers of the behaviours that this version has.
    pub behaviours: RangeInclusive<i32>,
}

/// Every machine, in the order of the way of the data.
pub const ALL: &[Spec] = &[
    Spec { name: "conversations", drives: Topic::Messages, looks_at: None, behaviours: 1..=1 },
    Spec { name: "spatial", drives: Topic::Positions, looks_at: None, behaviours: 1..=1 },
    Spec { name: "alerts", drives: Topic::Matches, looks_at: None, behaviours: 1..=1 },
    Spec { name: "inboxes", drives: Topic::Acks, looks_at: Some(Topic::Inboxes), behaviours: 1..=1 },
];

/// The machine of a name.
pub fn of(name: &str) -> Option<&'static Spec> {
    ALL.iter().find(|spec| spec.name == name)
}

impl Spec {
    /// The topics that it folds: the one that drives it, then the one that it looks at.
    pub fn inputs(&self) -> impl Iterator<Item = Topic> {
        std::iter::once(self.drives).chain(self.looks_at)
    }

    /// The group by which its processes share its partitions.
    pub fn group(&self) -> String {
        format!("waypost.{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_reads_what_drives_it_and_writes_some_topic() {
        for spec in ALL {
            assert_eq!(of(spec.name), Some(spec));
            let reads = |topic: Topic| topic.spec().readers.contains(&spec.name);
            assert!(spec.inputs().all(reads), "{}", spec.name);
            assert!(Topic::ALL.iter().any(|t| t.is_derived() && t.spec().writers.contains(&spec.name)));
            assert!(spec.behaviours.clone().count() <= 2, "a version knows a behaviour and the one before");
        }
    }
}
