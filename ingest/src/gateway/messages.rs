use axum::{
    Json,
    extract::{Request, State},
};
use waypost_runtime::{
    auth::Identity,
    http::{self, Problem},
};

use super::{Gateway, positions::Accepted};
use crate::admission::{self, Sender};

/// A message of the token's own device; nobody writes as another.
pub(super) async fn send(
    State(gateway): State<Gateway>,
    identity: Identity,
    request: Request,
) -> Result<Json<Accepted>, Problem> {
    let _place = gateway.appender.enter()?;
    let body = http::json_bytes(request).await?;
    let device = identity.device_id();
    let sender = Sender { device: &device, operator: identity.is_operator() };
    let message = admission::message(&body, sender, &gateway.limits, gateway.auth.clock.now())?;
    drop(body);
    let id = message.client_id.clone();
    let positions = gateway.appender.append_message(message).await?;
    Ok(Json(Accepted::new(Some(id), positions)))
}
