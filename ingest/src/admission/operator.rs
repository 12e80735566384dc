use serde::{Deserialize, de::DeserializeOwned};
use waypost_schemas::{
    cause::Position,
    event::{BehaviourSet, HoleAccepted, RecordSkipped},
    id::UserId,
    machine,
    topic::Topic,
};

use super::{Refusal, ensure, object::Object};
use crate::code::Code;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hole {
    position: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Skip {
    machine: String,
    position: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Behaviour {
    machine: String,
    number: i32,
}

/// Reads `{"position": "inboxes/3/1288"}`: a place in a topic whose records carry numbers.
pub fn hole(body: &[u8], by: &UserId) -> Result<HoleAccepted, Refusal> {
    let body: Hole = read(body)?;
    let Position { topic, partition, offset } = position(&body.position)?;
    ensure(topic.is_derived(), Code::BadPosition, || {
        format!("position is of {topic}, whose records carry no numbers, so that none can be missing")
    })?;
    Ok(HoleAccepted { topic, partition, offset, by: by.clone() })
}

/// Reads `{"machine": "spatial", "position": "positions/3/1288"}`: a place in a topic that the machine folds.
pub fn skip(body: &[u8], by: &UserId) -> Result<RecordSkipped, Refusal> {
    let body: Skip = read(body)?;
    let spec = spec(&body.machine)?;
    let Position { topic, partition, offset } = position(&body.position)?;
    ensure(spec.inputs().any(|input| input == topic), Code::BadPosition, || {
        let folds: Vec<&str> = spec.inputs().map(Topic::name).collect();
        format!("position is of {topic}, and {} folds {}", spec.name, folds.join(" and "))
    })?;
    Ok(RecordSkipped { machine: body.machine, topic, partition, offset, by: by.clone() })
}

/// Reads `{"machine": "spatial", "number": 1}`: a behaviour that this version has.
pub fn behaviour(body: &[u8], by: &UserId) -> Result<BehaviourSet, Refusal> {
    let Behaviour { machine, number } = read(body)?;
    let spec = spec(&machine)?;
    ensure(spec.behaviours.contains(&number), Code::UnknownBehaviour, || {
        let (first, last) = (spec.behaviours.start(), spec.behaviours.end());
        format!("number is {number}, and this version has the behaviours {first} to {last} of {machine}")
    })?;
    Ok(BehaviourSet { machine, number, by: by.clone() })
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let read = serde_json::from_slice::<Object<T>>(body);
    read.map(|Object(body)| body).map_err(|error| Refusal::unreadable(&error))
}

fn position(text: &str) -> Result<Position, Refusal> {
    text.parse().map_err(|error| Refusal::new(Code::BadPosition, format!("position is refused: {error}")))
}

fn spec(name: &str) -> Result<&'static machine::Spec, Refusal> {
    machine::of(name).ok_or_else(|| {
        let all: Vec<&str> = machine::ALL.iter().map(|spec| spec.name).collect();
        Refusal::new(Code::UnknownMachine, format!("machine is none of {}", all.join(", ")))
    })
}
