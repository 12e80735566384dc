use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};
use waypost_runtime::{
    auth::{Claims, Operator, Role},
    http::{self, Problem, codes},
};
use waypost_schemas::id::{DeviceName, UserId};

use super::Gateway;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    user: UserId,
    device: Option<DeviceName>,
    #[serde(default = "device")]
    role: Role,
}

fn device() -> Role {
    Role::Device
}

/// `{"user", "device"?, "role"?}` gives `{"token", "expires"}`.
pub(super) async fn mint(
    State(gateway): State<Gateway>,
    Operator(operator): Operator,
    http::Json(asked): http::Json<Asked>,
) -> Result<Json<Value>, Problem> {
    let Asked { user, device, role } = asked;
    let for_operator = role == Role::Operator;
    let minted = gateway.auth.keys.mint(&Claims { user, device, role }, gateway.auth.clock.now());
    let minted = minted.map_err(|error| {
        tracing::error!(%error, "a token cannot be signed");
        Problem::new(&codes::INTERNAL)
    })?;
    tracing::info!(by = %operator.user, for_operator, "a token is minted");
    Ok(Json(json!({"token": minted.token, "expires": minted.expires})))
}
