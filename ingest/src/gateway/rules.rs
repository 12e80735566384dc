use axum::{
    Json,
    extract::{Request, State},
};
use serde_json::{Value, json};
use waypost_runtime::{
    auth::Operator,
    http::{self, Path, Problem},
};
use waypost_schemas::event::{RuleDefined, RuleRemoved};

use super::{Gateway, refusal};
use crate::{
    admission,
    registry::{Change, Rule},
};

pub(super) async fn define(
    State(gateway): State<Gateway>,
    Operator(identity): Operator,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let rule_id = admission::rule_id(&id)?;
    let _place = gateway.appender.enter()?;
    let body = http::json_bytes(request).await?;
    let rule = admission::rule(rule_id, &body, &identity.user, &gateway.limits)?;
    let zones = rule.zones.clone().unwrap_or_default();
    let mut answer = refusal::written("rule", &id, gateway.writer.write(&Change::Rule(rule)).await?)?;
    // A rule may wait for its zones; more often a name is misspelt.
    let view = gateway.view()?;
    let unknown: Vec<_> = zones.into_iter().filter(|zone| !view.zones.contains_key(zone)).collect();
    answer["unknown_zones"] = json!(unknown);
    Ok(answer)
}

pub(super) async fn remove(
    State(gateway): State<Gateway>,
    Operator(identity): Operator,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let _place = gateway.appender.enter()?;
    let removed = RuleRemoved { rule: admission::rule_id(&id)?, by: identity.user };
    refusal::written("rule", &id, gateway.writer.write(&Change::NoRule(removed)).await?)
}

pub(super) async fn show(
    State(gateway): State<Gateway>,
    _: Operator,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let rule = admission::rule_id(&id)?;
    let view = gateway.view()?;
    view.rules.get(&rule).map(|rule| Json(shown(rule))).ok_or_else(|| refusal::absent("rule", &id))
}

pub(super) async fn list(State(gateway): State<Gateway>, _: Operator) -> Result<Json<Value>, Problem> {
    let rules: Vec<Value> = gateway.view()?.rules.values().map(|rule| shown(rule)).collect();
    Ok(Json(json!({"rules": rules})))
}

fn shown(Rule { version, defined }: &Rule) -> Value {
    let RuleDefined { rule, on, zones, subjects, notify, by } = defined;
    let or_all = |list: Option<Value>| list.unwrap_or_else(|| "all".into());
    json!({
        "id": rule,
        "version": version,
        "on": on,
        "zones": or_all(zones.as_ref().map(|z| json!(z))),
        "subjects": or_all(subjects.as_ref().map(|s| json!(s))),
        "notify": notify,
        "by": by,
    })
}
