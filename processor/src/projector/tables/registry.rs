//! The registry as it stands: zones and rules.

use serde_json::{Value, json};
use tokio_postgres::types::ToSql;
use waypost_runtime::postgres::Transaction;
use waypost_schemas::{
    event::{Crossing, Event, Geometry, Polygon, RuleDefined, ZoneDefined},
    id::{DeviceId, RuleId, UserId, ZoneId},
    place::Place,
};

use super::{Record, not_projected};
use crate::machine::Unfit;

const DEFINE_ZONE: &str = "INSERT INTO waypost.zones AS z (zone, version, geometry, radius_m, by_user) \
    VALUES ($1, $2, $3::text::jsonb, $4, $5) ON CONFLICT (zone) DO UPDATE SET version = EXCLUDED.version, \
    geometry = EXCLUDED.geometry, radius_m = EXCLUDED.radius_m, by_user = EXCLUDED.by_user \
    WHERE EXCLUDED.version > z.version";
const REMOVE_ZONE: &str = "DELETE FROM waypost.zones WHERE zone = $1 AND version < $2";
const DEFINE_RULE: &str = "INSERT INTO waypost.rules AS r (rule, version, on_event, zones, subjects, notify, by_user) \
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (rule) DO UPDATE SET version = EXCLUDED.version, \
    on_event = EXCLUDED.on_event, zones = EXCLUDED.zones, subjects = EXCLUDED.subjects, notify = EXCLUDED.notify, \
    by_user = EXCLUDED.by_user WHERE EXCLUDED.version > r.version";
const REMOVE_RULE: &str = "DELETE FROM waypost.rules WHERE rule = $1 AND version < $2";

/// Changes of the registry, in log order.
#[derive(Debug, Default)]
pub(crate) struct Rows(Vec<(i64, Change)>);

#[derive(Debug)]
enum Change {
    Zone(ZoneDefined),
    NoZone(ZoneId),
    Rule(RuleDefined),
    NoRule(RuleId),
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn add(&mut self, record: Record) -> Result<(), Unfit> {
        let change = match record.event {
            Event::LogFounded(_)
            | Event::HoleAccepted(_)
            | Event::RecordSkipped(_)
            | Event::BehaviourSet(_) => return Ok(()),
            Event::ZoneDefined(zone) => Change::Zone(zone),
            Event::ZoneRemoved(removed) => Change::NoZone(removed.zone),
            Event::RuleDefined(rule) => Change::Rule(rule),
            Event::RuleRemoved(removed) => Change::NoRule(removed.rule),
            event => return Err(not_projected(&event)),
        };
        self.0.push((record.offset, change));
        Ok(())
    }

    /// One statement a change, in order: a zone may be defined and removed in one batch.
    pub(super) async fn write(&self, tx: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
        for (version, change) in &self.0 {
            match change {
                Change::Zone(zone) => define_zone(tx, *version, zone).await?,
                Change::NoZone(zone) => execute(tx, REMOVE_ZONE, &[&zone.as_str(), version]).await?,
                Change::Rule(rule) => define_rule(tx, *version, rule).await?,
                Change::NoRule(rule) => execute(tx, REMOVE_RULE, &[&rule.as_str(), version]).await?,
            }
        }
        Ok(())
    }
}

async fn execute(
    tx: &Transaction<'_>,
    statement: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<(), tokio_postgres::Error> {
    tx.execute(&tx.prepare_cached(statement).await?, parameters).await.map(|_| ())
}

async fn define_zone(
    tx: &Transaction<'_>,
    version: i64,
    zone: &ZoneDefined,
) -> Result<(), tokio_postgres::Error> {
    let radius_m = match &zone.geometry {
        Geometry::Circle(circle) => Some(circle.radius_m),
        Geometry::Polygon(_) | Geometry::MultiPolygon(_) => None,
    };
    let geometry = geojson(&zone.geometry).to_string();
    execute(tx, DEFINE_ZONE, &[&zone.zone.as_str(), &version, &geometry, &radius_m, &zone.by.as_str()]).await
}

async fn define_rule(
    tx: &Transaction<'_>,
    version: i64,
    rule: &RuleDefined,
) -> Result<(), tokio_postgres::Error> {
    let on: Vec<&str> = rule.on.iter().map(|crossing: &Crossing| crossing.as_str()).collect();
    let zones: Option<Vec<&str>> = rule.zones.as_ref().map(|all| all.iter().map(ZoneId::as_str).collect());
    let subjects: Option<Vec<&str>> =
        rule.subjects.as_ref().map(|all| all.iter().map(DeviceId::as_str).collect());
    let notify: Vec<&str> = rule.notify.iter().map(UserId::as_str).collect();
    let by = rule.by.as_str();
    execute(tx, DEFINE_RULE, &[&rule.rule.as_str(), &version, &on, &zones, &subjects, &notify, &by]).await
}

/// A geometry by RFC 7946; of a circle the Point of its centre. Numbers that JSON has not become null.
fn geojson(geometry: &Geometry) -> Value {
    let place = |p: &Place| json!([p.lon, p.lat]);
    let polygon = |p: &Polygon| -> Value {
        p.rings.iter().map(|ring| ring.iter().map(place).collect::<Value>()).collect()
    };
    match geometry {
        Geometry::Circle(circle) => json!({"type": "Point", "coordinates": place(&circle.centre)}),
        Geometry::Polygon(p) => json!({"type": "Polygon", "coordinates": polygon(p)}),
        Geometry::MultiPolygon(m) => {
            json!({"type": "MultiPolygon", "coordinates": m.polygons.iter().map(polygon).collect::<Value>()})
        }
    }
}

#[cfg(test)]
mod tests {
    use waypost_schemas::event::Circle;

    use super::*;

    #[test]
    fn geometries_are_geojson() {
        let at = |lon, lat| Place { lon, lat };
        let square = Polygon { rings: vec![vec![at(0., 0.), at(1., 0.), at(1., 1.), at(0., 0.)]] };
        let ring = "[[[0.0,0.0],[1.0,0.0],[1.0,1.0],[0.0,0.0]]]";
        for (geometry, text) in [
            (
                Geometry::Circle(Circle { centre: at(10.5, 50.), radius_m: 5. }),
                r#"{"coordinates":[10.5,50.0],"type":"Point"}"#.to_owned(),
            ),
            (Geometry::Polygon(square.clone()), format!(r#"{{"coordinates":{ring},"type":"Polygon"}}"#)),
            (
                Geometry::MultiPolygon(waypost_schemas::event::MultiPolygon { polygons: vec![square] }),
                format!(r#"{{"coordinates":[{ring}],"type":"MultiPolygon"}}"#),
            ),
        ] {
            assert_eq!(geojson(&geometry).to_string(), text);
        }
    }
}
