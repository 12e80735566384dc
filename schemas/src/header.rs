//! The headers of records: CloudEvents 1.0 in Kafka's binary mode, W3C trace context, and the seq.
//!
//! Sources: CloudEvents Kafka Protocol Binding 1.0.2, section 3.2; W3C Trace Context, section 3.2. `positions`
//! carries none of them: they would outweigh a 60-byte fix.

use crate::{
    cause::{Cause, Seq},
    event::Event,
    time::Micros,
};

/// CloudEvents' id; for a derived record its cause.
pub const ID: &str = "ce_id";
/// CloudEvents' type, `waypost.RuleMatched`.
pub const TYPE: &str = "ce_type";
/// CloudEvents' source, `/waypost/spatial`.
pub const SOURCE: &str = "ce_source";
/// CloudEvents' version of itself.
pub const SPEC_VERSION: &str = "ce_specversion";
/// CloudEvents' time; for a derived record the append time of its cause.
pub const TIME: &str = "ce_time";
/// The media type of the value.
pub const CONTENT_TYPE: &str = "content-type";
/// W3C trace context.
pub const TRACE_PARENT: &str = "traceparent";
/// Which record this is of its machine and input partition: see [`Seq`].
pub const SEQ: &str = "seq";

/// Names and values of headers, in the order that they are written.
pub type List = Vec<(&'static str, String)>;

/// The headers of a record that `machine` derives; all of it follows from the cause, so that effects stay
/// byte-equal. `parent` is the cause's own `traceparent`, where it carries one.
pub fn derived(event: &Event, cause: Cause, seq: &Seq, append: Micros, parent: Option<&str>) -> List {
    let mut headers = common(event, &seq.machine, cause.to_string(), append);
    headers.push((TRACE_PARENT, trace_parent(cause, parent)));
    headers.push((SEQ, seq.to_string()));
    headers
}

/// The headers of a record that `writer` appends on somebody's behalf, under an id that the writer gives.
pub fn original(event: &Event, writer: &str, id: String, at: Micros) -> List {
    common(event, writer, id, at)
}

fn common(event: &Event, writer: &str, id: String, at: Micros) -> List {
    vec![
        (SPEC_VERSION, "1.0".into()),
        (ID, id),
        (TYPE, format!("waypost.{}", event.name())),
        (SOURCE, format!("/waypost/{writer}")),
        (TIME, at.to_string()),
        (CONTENT_TYPE, "application/avro".into()),
    ]
}

/// `00-TRACE-SPAN-01`: the parent's trace, or one made of the cause; the span is made of the cause.
fn trace_parent(cause: Cause, parent: Option<&str>) -> String {
    let span = fnv1a(cause.to_string().as_bytes(), 0xcbf2_9ce4_8422_2325);
    if let Some(trace) = parent.and_then(trace_of) {
        return format!("00-{trace}-{span:016x}-01");
    }
    // All outputs of one record share a trace.
    let position = cause.position.to_string();
    let high = fnv1a(position.as_bytes(), 0xcbf2_9ce4_8422_2325);
    let low = fnv1a(position.as_bytes(), high);
    format!("00-{high:016x}{low:016x}-{span:016x}-01")
}

/// The trace id of a well-formed `traceparent` of version 00.
fn trace_of(parent: &str) -> Option<&str> {
    let mut parts = parent.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let hex = trace.len() == 32 && trace.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (version == "00" && hex && trace.bytes().any(|b| b != b'0')).then_some(trace)
}

/// 64-bit FNV-1a from a given basis. Source: draft-eastlake-fnv, section 2.
fn fnv1a(bytes: &[u8], basis: u64) -> u64 {
    bytes.iter().fold(basis, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cause::Position,
        event::LogFounded,
        topic::Topic::{Matches, Positions},
    };

    #[test]
    fn a_derived_record_says_where_it_comes_from_the_same_each_time() {
        let event = Event::from(LogFounded { log: "x".into() });
        let cause =
            |topic, ordinal| Cause { position: Position { topic, partition: 3, offset: 1288 }, ordinal };
        let seq = Seq { machine: "spatial".into(), partition: 3, number: 7 };
        let at = Micros(1_532_916_023_000_000);
        let first = derived(&event, cause(Positions, 0), &seq, at, None);
        assert_eq!(first, derived(&event, cause(Positions, 0), &seq, at, None));
        let get = |list: &List, name| list.iter().find(|(n, _)| *n == name).unwrap().1.clone();
        assert_eq!(get(&first, ID), "positions/3/1288/0");
        assert_eq!(get(&first, SEQ), "spatial/3/7");
        assert_eq!(get(&first, TIME), "2018-07-30T02:00:23Z");
        assert_eq!(get(&first, TYPE), "waypost.LogFounded");
        let parent = get(&first, TRACE_PARENT);
        assert_eq!(parent.len(), 55);
        let second = derived(&event, cause(Positions, 1), &seq, at, None);
        let trace = |p: &str| p[3..35].to_owned();
        assert_eq!(
            trace(&get(&second, TRACE_PARENT)),
            trace(&parent),
            "outputs of one record share its trace"
        );
        assert_ne!(get(&second, TRACE_PARENT), parent);
        let follows = derived(&event, cause(Matches, 0), &seq, at, Some(&parent));
        assert_eq!(trace(&get(&follows, TRACE_PARENT)), trace(&parent), "a cause's trace goes on");
        let broken = derived(&event, cause(Matches, 0), &seq, at, Some("00-zz-1-01"));
        assert_ne!(trace(&get(&broken, TRACE_PARENT)), trace(&parent));
    }
}
