//! What is asked of every record that a machine is about to fold, whichever of its inputs it comes from: does it belong
//! there, was it taken before, and what have operators said of it?

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use waypost_runtime::{
    broker::Incoming,
    facts,
    intake::{Admitted, Hole, Intake},
};
use waypost_schemas::{cause::Position, topic::TopicPartition};

use super::{Error, Shared, task::facts_of};
use crate::machine::Machine;

/// Looks at the next record of an input; `None` where an operator took it out of what is folded. Passes a hole that an
/// operator has accepted; any other stops the machine.
pub(super) async fn admit<M: Machine>(
    shared: &Shared,
    source: TopicPartition,
    intake: &mut Intake,
    skipped: &BTreeSet<i64>,
    record: &Incoming,
) -> Result<Option<Admitted>, Error> {
    let skips = skipped.contains(&record.offset);
    loop {
        let admitted = if skips {
            intake.skip(record).map(|()| None)
        } else {
            guarded::<M, _>(source, record, || intake.admit(record))?.map(Some)
        };
        match admitted {
            Ok(None) => {
                let (machine, offset) = (M::NAME, record.offset);
                tracing::info!(machine, partition = %source, offset, "the record is skipped, as an operator has said");
                return Ok(None);
            }
            Ok(admitted) => return Ok(admitted),
            Err(hole) => pass::<M>(shared, intake, hole).await?,
        }
    }
}

async fn pass<M: Machine>(shared: &Shared, intake: &mut Intake, hole: Hole) -> Result<(), Error> {
    if !shared.registry.facts().await.map_err(facts_of::<M>)?.accepts(&hole) {
        return Err(Error::Hole { machine: M::NAME, source: hole });
    }
    facts::warn_of_hole(&hole);
    intake.pass(&hole);
    Ok(())
}

/// Does something that a record may make panic; what it was done to must not be folded on after that.
pub(super) fn guarded<M: Machine, T>(
    source: TopicPartition,
    record: &Incoming,
    work: impl FnOnce() -> T,
) -> Result<T, Error> {
    let TopicPartition { topic, partition } = source;
    let position = Position { topic, partition, offset: record.offset };
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Error::Panicked { machine: M::NAME, position })
}
