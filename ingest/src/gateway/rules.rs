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
    refusal::written(&id, gateway.writer.write(&Change::Rule(rule)).await?)
}

pub(super) async fn remove(
    State(gateway): State<Gateway>,
    Operator(identity): Operator,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let _place = gateway.appender.enter()?;
    let removed = RuleRemoved { rule: admission::rule_id(&id)?, by: identity.user };
    refusal::written(&id, gateway.writer.write(&Change::NoRule(removed)).await?)
}

pub(super) async fn show(
    State(gateway): State<Gateway>,
    _: Operator,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let id = admission::rule_id(&id)?;
    let view = gateway.view()?;
    view.rules.get(&id).map(|rule| Json(shown(rule))).ok_or_else(refusal::absent)
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
