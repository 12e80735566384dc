use axum::{
    Json,
    extract::{Request, State},
};
use serde::{Serialize, Serializer, ser::SerializeSeq};
use waypost_runtime::{
    auth::Identity,
    http::{self, Problem},
};
use waypost_schemas::cause::Position;

use super::Gateway;
use crate::admission::{self, Sender};

/// The answer to what is in the log.
#[derive(Serialize)]
pub(super) struct Accepted {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(serialize_with = "as_texts")]
    positions: Vec<Position>,
}

impl Accepted {
    pub(super) fn new(id: Option<String>, positions: Vec<Position>) -> Self {
        Self { kind: "accepted", id, positions }
    }
}

pub(super) async fn report(
    State(gateway): State<Gateway>,
    identity: Identity,
    request: Request,
) -> Result<Json<Accepted>, Problem> {
    let _place = gateway.appender.enter()?;
    let body = http::json_bytes(request).await?;
    let device = identity.device_id();
    let sender = Sender { device: &device, operator: identity.is_operator() };
    let mut report = admission::report(&body, sender, &gateway.limits, gateway.auth.clock.now())?;
    drop(body);
    let id = report.id.take();
    let positions = gateway.appender.append(report).await?;
    Ok(Json(Accepted::new(id, positions)))
}

fn as_texts<S: Serializer>(positions: &[Position], serializer: S) -> Result<S::Ok, S::Error> {
    let mut texts = serializer.serialize_seq(Some(positions.len()))?;
    for position in positions {
        texts.serialize_element(&format_args!("{position}"))?;
    }
    texts.end()
}
