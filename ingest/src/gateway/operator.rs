//! What operators say of the log itself: facts that machines and readers obey whatever a record is stamped with, so that
//! each is checked against the log as it stands before it is written.

use axum::{
    Json,
    extract::{Request, State},
};
use serde_json::{Value, json};
use waypost_runtime::{
    auth::Operator,
    broker,
    http::{self, Problem},
};
use waypost_schemas::{
    cause::Position,
    machine,
    topic::{Topic, TopicPartition},
};

use super::{Gateway, refusal};
use crate::{
    admission::{self, Refusal},
    appender::{Error, bounded},
    code::Code,
    registry::{Change, Said},
};

/// After how many seconds a machine whose processes were just stopped has lost its members: a session.
const SESSION_S: u32 = 6;

pub(super) async fn accept(
    State(gateway): State<Gateway>,
    Operator(identity): Operator,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let _place = gateway.appender.enter()?;
    let hole = admission::hole(&http::json_bytes(request).await?, &identity.user)?;
    let id = hole.position();
    gateway.in_the_log(id).await?;
    refusal::written("hole", &id.to_string(), gateway.writer.write(&Change::Hole(hole)).await?)
}

pub(super) async fn skip(
    State(gateway): State<Gateway>,
    Operator(identity): Operator,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let _place = gateway.appender.enter()?;
    let skip = admission::skip(&http::json_bytes(request).await?, &identity.user)?;
    let id = skip.position();
    gateway.in_the_log(id).await?;
    if let Some(spec) = machine::of(&skip.machine) {
        gateway.unfolded(spec, id).await?;
    }
    refusal::written("skip", &id.to_string(), gateway.writer.write(&Change::Skip(skip)).await?)
}

pub(super) async fn set(
    State(gateway): State<Gateway>,
    Operator(identity): Operator,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let _place = gateway.appender.enter()?;
    let set = admission::behaviour(&http::json_bytes(request).await?, &identity.user)?;
    let id = set.machine.clone();
    refusal::written("machine", &id, gateway.writer.write(&Change::Behaviour(set)).await?)
}

pub(super) async fn holes(State(gateway): State<Gateway>, _: Operator) -> Result<Json<Value>, Problem> {
    let view = gateway.view()?;
    let shown = |(position, said): (&Position, &Said)| json!({"position": position.to_string(), "version": said.version, "by": said.by});
    Ok(Json(json!({"holes": view.holes.iter().map(shown).collect::<Vec<_>>()})))
}

pub(super) async fn skips(State(gateway): State<Gateway>, _: Operator) -> Result<Json<Value>, Problem> {
    let view = gateway.view()?;
    let shown = |((machine, position), said): (&(Box<str>, Position), &Said)| {
        json!({
            "machine": machine,
            "position": position.to_string(),
            "version": said.version,
            "by": said.by,
        })
    };
    Ok(Json(json!({"skips": view.skips.iter().map(shown).collect::<Vec<_>>()})))
}

/// Every machine with the behaviour that holds for new records, and those that this version has; `version` and `by`
/// are null where none was set.
pub(super) async fn behaviours(State(gateway): State<Gateway>, _: Operator) -> Result<Json<Value>, Problem> {
    let view = gateway.view()?;
    let shown = machine::ALL.iter().map(|spec| {
        let set = view.behaviours.get(spec.name);
        json!({
            "machine": spec.name,
            "number": set.map_or(machine::BEHAVIOUR_FIRST, |(number, _)| *number),
            "known": spec.behaviours.clone().collect::<Vec<_>>(),
            "version": set.map(|(_, said)| said.version),
            "by": set.map(|(_, said)| &said.by),
        })
    });
    Ok(Json(json!({"behaviours": shown.collect::<Vec<_>>()})))
}

impl Gateway {
    /// Refuses a place that the log does not have.
    async fn in_the_log(&self, at: Position) -> Result<(), Problem> {
        let Position { topic, partition, offset } = at;
        let bounds = self.asked(self.writer.broker.bounds(vec![topic])).await?;
        let not = |detail| Err(Refusal::new(Code::NotInTheLog, detail).into());
        match bounds.get(&TopicPartition::new(topic, partition)) {
            None => not(format!("{topic} has {} partitions, and none of number {partition}", bounds.len())),
            Some(bounds) if !(bounds.low..bounds.high).contains(&offset) => not(format!(
                "{topic}/{partition} holds the offsets from {} to below {}",
                bounds.low, bounds.high
            )),
            Some(_) => Ok(()),
        }
    }

    /// Refuses a record of a machine that runs, or that the machine has folded for good.
    async fn unfolded(&self, spec: &machine::Spec, at: Position) -> Result<(), Problem> {
        let (group, name) = (spec.group(), spec.name);
        let members = self.asked(self.writer.broker.members(group.clone())).await?;
        if members > 0 {
            let detail = format!(
                "the group {group} still has members ({members}): stop every process that runs {name}; one that was stopped or \
                 killed a moment ago counts for {SESSION_S} seconds still"
            );
            return Err(Problem::from(Refusal::new(Code::MachineRuns, detail)).retry_after_s(SESSION_S));
        }
        let of: Vec<Topic> = spec.inputs().collect();
        let committed = self.asked(self.writer.broker.committed(group, of)).await?;
        let next = committed.get(&TopicPartition::new(at.topic, at.partition)).copied().unwrap_or(0);
        if at.offset < next {
            let detail = format!("{name} has folded {}/{} up to offset {next}", at.topic, at.partition);
            return Err(Refusal::new(Code::AlreadyFolded, detail).into());
        }
        Ok(())
    }

    /// An answer of the broker, as long as a request waits for one.
    async fn asked<T>(&self, answer: impl Future<Output = Result<T, broker::Error>>) -> Result<T, Error> {
        bounded(self.writer.timeout, async { answer.await.map_err(|error| self.writer.fatal.tell(error)) })
            .await
    }
}
