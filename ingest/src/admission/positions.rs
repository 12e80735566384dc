use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use waypost_schemas::{event::FixReported, id::DeviceId, time::Micros};

use super::{Limits, Refusal, ensure, object::Object};
use crate::code::Code;

/// The lowest altitude, in metres: below the deepest sea floor.
const ALTITUDE_M_MIN: f64 = -12_000.0;
/// The highest altitude, in metres: where space begins.
const ALTITUDE_M_MAX: f64 = 100_000.0;
/// The largest accuracy, in metres: once around the earth, which says "anywhere".
const ACCURACY_M_MAX: f64 = 40_075_017.0;
/// The highest speed, in metres a second: what leaves the earth.
const SPEED_MPS_MAX: f64 = 11_186.0;

/// Who reports, as the token says.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The token's own device.
    pub device: &'a DeviceId,
    /// Whether the sender may report for other devices.
    pub operator: bool,
}

/// Fixes that may enter the log, in the order of the request; their stamp is still -1.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The client's own id of the request.
    pub id: Option<String>,
    /// The device that all of them are of.
    pub device: DeviceId,
    /// The fixes; at least one.
    pub fixes: Vec<FixReported>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body<'a> {
    #[serde(rename = "type")]
    kind: Option<IgnoredAny>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    device: Option<Cow<'a, str>>,
    #[serde(borrow)]
    fixes: Vec<Object<FixBody<'a>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FixBody<'a> {
    lat: f64,
    lon: f64,
    #[serde(borrow)]
    at: Cow<'a, str>,
    accuracy_m: Option<f64>,
    speed_mps: Option<f64>,
    heading_deg: Option<f64>,
    altitude_m: Option<f64>,
    #[serde(default)]
    attributes: Option<Attributes>,
}

/// Reads the body of a report and checks all of it: one bad fix refuses the request, and the detail names it.
///
/// `{"id"?, "device"?, "fixes": [{"lat", "lon", "at", "accuracy_m"?, "speed_mps"?, "heading_deg"?, "altitude_m"?,
/// "attributes"?}]}`; degrees, metres, RFC 3339. An equal fix twice in a request is allowed.
pub fn report(body: &[u8], sender: Sender<'_>, limits: &Limits, now: Micros) -> Result<Report, Refusal> {
    let body = read(body)?;
    ensure(body.kind.is_none(), Code::BadField, || "type is for frames only".into())?;
    admit(body, sender, limits, now)
}

/// Reads a report, which in a frame has a `type` too.
pub(super) fn read(body: &[u8]) -> Result<Body<'_>, Refusal> {
    let read = serde_json::from_slice::<Object<Body<'_>>>(body);
    read.map(|Object(body)| body).map_err(|error| explain(body, &error))
}

/// Checks all of a report that could be read.
pub(super) fn admit(
    body: Body<'_>,
    sender: Sender<'_>,
    limits: &Limits,
    now: Micros,
) -> Result<Report, Refusal> {
    if let Some(id) = &body.id {
        ensure((1..=limits.client_id_bytes_max).contains(&id.len()), Code::BadClientId, || {
            format!("id has {} bytes; 1 to {} are taken", id.len(), limits.client_id_bytes_max)
        })?;
    }
    let device = reporter(body.device.as_deref(), sender)?;
    ensure(!body.fixes.is_empty(), Code::NoFixes, || "fixes is empty".into())?;
    ensure(body.fixes.len() <= limits.fixes_max, Code::TooManyFixes, || {
        format!("fixes has {} members; {} are taken at once", body.fixes.len(), limits.fixes_max)
    })?;
    let fixes = body.fixes.into_iter().enumerate();
    let fixes = fixes.map(|(i, Object(fix))| fix.admit(i, &device, limits, now)).collect::<Result<_, _>>()?;
    Ok(Report { id: body.id.map(Cow::into_owned), device, fixes })
}

/// The device that a report is stored under: the token's, or the one that an operator names.
fn reporter(named: Option<&str>, sender: Sender<'_>) -> Result<DeviceId, Refusal> {
    match named {
        None => Ok(sender.device.clone()),
        Some(text) if sender.device.as_str() == text => Ok(sender.device.clone()),
        Some(_) if !sender.operator => {
            Err(Refusal::new(Code::ForeignDevice, "device names another device than the token's"))
        }
        Some(text) => {
            DeviceId::new(text).map_err(|e| Refusal::new(Code::BadId, format!("device is refused: {e}")))
        }
    }
}

impl FixBody<'_> {
    fn admit(
        self,
        i: usize,
        device: &DeviceId,
        limits: &Limits,
        now: Micros,
    ) -> Result<FixReported, Refusal> {
        within(i, "lat", self.lat, -90.0, 90.0, Code::BadLatitude)?;
        within(i, "lon", self.lon, -180.0, 180.0, Code::BadLongitude)?;
        let at = Micros::parse(&self.at)
            .map_err(|e| Refusal::new(Code::BadTime, format!("fixes[{i}].at is {e}")))?;
        ensure(at >= limits.fix_time_min, Code::TimeTooOld, || {
            format!("fixes[{i}].at is {at}; the oldest that is taken is {}", limits.fix_time_min)
        })?;
        let newest = Micros(now.0.saturating_add(limits.fix_ahead_us_max));
        ensure(at <= newest, Code::TimeTooNew, || {
            format!("fixes[{i}].at is {at}; here it is {now}, and the newest that is taken is {newest}")
        })?;
        let optional = |name, value: Option<f64>, min, max, code| {
            value
                .map_or(Ok(None), |value| within(i, name, value, min, max, code).map(|()| Some(value as f32)))
        };
        Ok(FixReported {
            device: device.clone(),
            lat: self.lat,
            lon: self.lon,
            at_us: at,
            accuracy_m: optional("accuracy_m", self.accuracy_m, 0.0, ACCURACY_M_MAX, Code::BadAccuracy)?,
            speed_mps: optional("speed_mps", self.speed_mps, 0.0, SPEED_MPS_MAX, Code::BadSpeed)?,
            heading_deg: optional("heading_deg", self.heading_deg, 0.0, 360.0, Code::BadHeading)?,
            altitude_m: optional(
                "altitude_m",
                self.altitude_m,
                ALTITUDE_M_MIN,
                ALTITUDE_M_MAX,
                Code::BadAltitude,
            )?,
            attributes: self.attributes.map_or(Ok(BTreeMap::new()), |a| a.admit(i, limits))?,
            registry: -1,
        })
    }
}

/// Checks a number against its range; what is not a number is in none.
fn within(i: usize, name: &str, value: f64, min: f64, max: f64, code: Code) -> Result<(), Refusal> {
    ensure((min..=max).contains(&value), code, || {
        format!("fixes[{i}].{name} is {value}; {min} to {max} is taken, and what is unknown is left out")
    })
}

/// What else a device measured: texts, and numbers and booleans as their text.
struct Attributes(Vec<(String, String)>);

impl Attributes {
    fn admit(self, i: usize, limits: &Limits) -> Result<BTreeMap<String, String>, Refusal> {
        let refuse =
            |detail| Err(Refusal::new(Code::BadAttributes, format!("fixes[{i}].attributes {detail}")));
        if self.0.len() > limits.attributes_max {
            return refuse(format!("has {} members; {} are taken", self.0.len(), limits.attributes_max));
        }
        let mut attributes = BTreeMap::new();
        for (at, (name, value)) in self.0.into_iter().enumerate() {
            if !(1..=limits.attribute_name_bytes_max).contains(&name.len()) {
                let max = limits.attribute_name_bytes_max;
                return refuse(format!("has a name of {} bytes at {at}; 1 to {max} are taken", name.len()));
            }
            if value.len() > limits.attribute_value_bytes_max {
                let max = limits.attribute_value_bytes_max;
                return refuse(format!("has a value of {} bytes at {at}; {max} are taken", value.len()));
            }
            if attributes.insert(name, value).is_some() {
                return refuse(format!("has a name twice, again at {at}"));
            }
        }
        Ok(attributes)
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Attributes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts, numbers and booleans")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attributes, A::Error> {
                let mut members = Vec::new();
                while let Some((name, Scalar(value))) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Attributes(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A JSON text, number or boolean, as text.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number or a boolean")
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Scalar, E> {
                Ok(Scalar(v.to_owned()))
            }
            fn visit_bool<E: de::Error>(self, v: bool) -> Result<Scalar, E> {
                Ok(Scalar(v.to_string()))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Scalar, E> {
                Ok(Scalar(v.to_string()))
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Scalar, E> {
                Ok(Scalar(v.to_string()))
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Scalar, E> {
                Ok(Scalar(v.to_string()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A JSON object's members, unread.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// Says where in a body that could not be read the fault lies; only faulty bodies pay for the second reading.
fn explain(body: &[u8], error: &serde_json::Error) -> Refusal {
    let Ok(members) = serde_json::from_slice::<Members<'_>>(body) else {
        let code = if error.is_data() { Code::BadField } else { Code::BadJson };
        return Refusal::new(code, format!("the body cannot be read: {error}"));
    };
    let culprit = members.get("fixes").and_then(|raw| {
        let fixes: Vec<&RawValue> = serde_json::from_str(raw.get()).ok()?;
        fixes.iter().enumerate().find_map(|(i, raw)| {
            let error = serde_json::from_str::<Object<FixBody<'_>>>(raw.get()).err()?;
            Some(explain_fix(i, raw, &error))
        })
    });
    culprit.unwrap_or_else(|| Refusal::new(Code::BadField, format!("the body cannot be read: {error}")))
}

fn explain_fix(i: usize, raw: &RawValue, error: &serde_json::Error) -> Refusal {
    let Ok(members) = serde_json::from_str::<Members<'_>>(raw.get()) else {
        return Refusal::new(Code::BadField, format!("fixes[{i}] is not an object"));
    };
    for (name, code) in [
        ("lat", Code::BadLatitude),
        ("lon", Code::BadLongitude),
        ("accuracy_m", Code::BadAccuracy),
        ("speed_mps", Code::BadSpeed),
        ("heading_deg", Code::BadHeading),
        ("altitude_m", Code::BadAltitude),
    ] {
        let Some(text) = members.get(name).map(|raw| raw.get()) else { continue };
        if serde_json::from_str::<Option<f64>>(text).is_err() {
            // A JSON number that no double can hold, 1e999, is out of range; anything else is no number.
            let is_number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
            return if is_number {
                Refusal::new(code, format!("fixes[{i}].{name} is too large to be a number"))
            } else {
                Refusal::new(Code::BadField, format!("fixes[{i}].{name} is not a number"))
            };
        }
    }
    if let Some(raw) = members.get("attributes")
        && let Err(error) = serde_json::from_str::<Option<Attributes>>(raw.get())
    {
        return Refusal::new(Code::BadAttributes, format!("fixes[{i}].attributes cannot be read: {error}"));
    }
    Refusal::new(Code::BadField, format!("fixes[{i}] cannot be read: {error}"))
}
