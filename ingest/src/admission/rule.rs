use serde::Deserialize;
use waypost_schemas::{
    event::{Crossing, RuleDefined},
    id::{self, DeviceId, RuleId, UserId, ZoneId},
};

use super::{Limits, Refusal, ensure, object::Object};
use crate::code::Code;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    on: Vec<String>,
    zones: Choice,
    subjects: Choice,
    #[serde(default)]
    notify: Vec<String>,
}

/// `"all"`, or a list of ids.
#[derive(Deserialize)]
#[serde(untagged)]
enum Choice {
    All(All),
    Only(Vec<String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum All {
    All,
}

/// Reads a rule id from a path.
pub fn rule_id(text: &str) -> Result<RuleId, Refusal> {
    RuleId::new(text).map_err(|e| Refusal::new(Code::BadId, e.to_string()))
}

/// Reads a rule's body: `{"on": ["enter", "exit"], "zones": "all"|[..], "subjects": "all"|[..], "notify"?: [..]}`.
///
/// Lists are sorted, and what stands in them twice is taken once, so that equal rules are equal records. A rule may
/// name zones, devices and users that do not exist yet: it waits for them, in whatever order they come. A rule that
/// notifies nobody still makes matches.
pub fn rule(id: RuleId, body: &[u8], by: &UserId, limits: &Limits) -> Result<RuleDefined, Refusal> {
    let Object(body) = serde_json::from_slice::<Object<Body>>(body).map_err(|error| {
        let code = if error.is_data() { Code::BadField } else { Code::BadJson };
        Refusal::new(code, format!("the rule cannot be read: {error}"))
    })?;
    Ok(RuleDefined {
        rule: id,
        on: triggers(&body.on)?,
        zones: chosen("zones", body.zones, ZoneId::new, limits)?,
        subjects: chosen("subjects", body.subjects, DeviceId::new, limits)?,
        notify: names("notify", body.notify, UserId::new, limits)?,
        by: by.clone(),
    })
}

fn triggers(on: &[String]) -> Result<Vec<Crossing>, Refusal> {
    ensure(!on.is_empty(), Code::BadTriggers, || "on is empty: name enter, exit or both".into())?;
    let mut triggers = Vec::with_capacity(2);
    for (i, text) in on.iter().enumerate() {
        let known = [Crossing::Exit, Crossing::Enter].into_iter().find(|c| c.as_str() == text);
        let known = known.ok_or_else(|| {
            Refusal::new(Code::BadTriggers, format!("on[{i}] is no trigger: enter and exit are"))
        })?;
        if !triggers.contains(&known) {
            triggers.push(known);
        }
    }
    triggers.sort_unstable();
    Ok(triggers)
}

fn chosen<T: Ord>(
    field: &str,
    choice: Choice,
    read: impl Fn(String) -> Result<T, id::Error>,
    limits: &Limits,
) -> Result<Option<Vec<T>>, Refusal> {
    match choice {
        Choice::All(All::All) => Ok(None),
        Choice::Only(list) => {
            ensure(!list.is_empty(), Code::EmptyList, || {
                format!("{field} is empty: name some, or say \"all\"")
            })?;
            names(field, list, read, limits).map(Some)
        }
    }
}

fn names<T: Ord>(
    field: &str,
    list: Vec<String>,
    read: impl Fn(String) -> Result<T, id::Error>,
    limits: &Limits,
) -> Result<Vec<T>, Refusal> {
    ensure(list.len() <= limits.rule_names_max, Code::TooManyNames, || {
        format!("{field} has {} members; {} are taken", list.len(), limits.rule_names_max)
    })?;
    let mut ids = Vec::with_capacity(list.len());
    for (i, text) in list.into_iter().enumerate() {
        ids.push(read(text).map_err(|e| Refusal::new(Code::BadId, format!("{field}[{i}] is refused: {e}")))?);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
