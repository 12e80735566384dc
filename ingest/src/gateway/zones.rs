use axum::{
    Json,
    extract::{Request, State},
};
use serde_json::{Value, json};
use waypost_runtime::{
    auth::Operator,
    http::{self, Path, Problem, codes},
};
use waypost_schemas::event::ZoneRemoved;

use super::{Gateway, feature, refusal};
use crate::{admission, appender::Error, registry::Change};

pub(super) async fn define(
    State(gateway): State<Gateway>,
    Operator(identity): Operator,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let zone_id = admission::zone_id(&id)?;
    let _place = gateway.zones.clone().try_acquire_owned().map_err(|_| Error::Overloaded)?;
    let body = http::json_bytes(request).await?;
    let limits = gateway.limits;
    let zone = off_async(move || admission::zone(zone_id, &body, &identity.user, &limits)).await??;
    refusal::written("zone", &id, gateway.writer.write(&Change::Zone(zone)).await?)
}

pub(super) async fn remove(
    State(gateway): State<Gateway>,
    Operator(identity): Operator,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let _place = gateway.appender.enter()?;
    let removed = ZoneRemoved { zone: admission::zone_id(&id)?, by: identity.user };
    refusal::written("zone", &id, gateway.writer.write(&Change::NoZone(removed)).await?)
}

pub(super) async fn show(
    State(gateway): State<Gateway>,
    _: Operator,
    Path(id): Path<String>,
) -> Result<feature::Body, Problem> {
    let zone = admission::zone_id(&id)?;
    let zone = gateway.view()?.zones.get(&zone).cloned().ok_or_else(|| refusal::absent("zone", &id))?;
    off_async(move || feature::body(&zone)).await
}

pub(super) async fn list(State(gateway): State<Gateway>, _: Operator) -> Result<Json<Value>, Problem> {
    let view = gateway.view()?;
    let zones = view.zones.values().map(|zone| {
        json!({
            "id": zone.defined.zone,
            "version": zone.version,
            "type": feature::kind(&zone.defined.geometry),
            "vertices": zone.vertices,
            "bbox": zone.bounds,
        })
    });
    Ok(Json(json!({"zones": zones.collect::<Vec<_>>()})))
}

/// Runs what may take milliseconds off the async threads; [`super::ZONES_IN_FLIGHT_MAX`] bounds the writes.
async fn off_async<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Problem::new(&codes::INTERNAL))
}
