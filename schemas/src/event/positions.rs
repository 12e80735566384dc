use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{id::DeviceId, place::Place, time::Micros};

/// A device reported where it was; on `positions`, keyed by device. Identified by (device, device time).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FixReported {
    /// The device.
    pub device: DeviceId,
    /// Latitude in degrees.
    pub lat: f64,
    /// Longitude in degrees.
    pub lon: f64,
    /// The device's own time, in microseconds.
    pub at_us: Micros,
    /// Radius of the 68% error circle, in metres.
    pub accuracy_m: Option<f32>,
    /// Speed over ground, in metres a second.
    pub speed_mps: Option<f32>,
    /// Direction of travel, in degrees clockwise from north.
    pub heading_deg: Option<f32>,
    /// Height above the WGS84 ellipsoid, in metres.
    pub altitude_m: Option<f32>,
    /// What else the device measured; telemetry, never a device's attribute.
    pub attributes: BTreeMap<String, String>,
    /// The registry offset up to which ingest had read.
    pub registry: i64,
}

/// A fix without its device, inside other records.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fix {
    /// Latitude in degrees.
    pub lat: f64,
    /// Longitude in degrees.
    pub lon: f64,
    /// The device's own time, in microseconds.
    pub at_us: Micros,
    /// Radius of the 68% error circle, in metres.
    pub accuracy_m: Option<f32>,
    /// Speed over ground, in metres a second.
    pub speed_mps: Option<f32>,
    /// Direction of travel, in degrees clockwise from north.
    pub heading_deg: Option<f32>,
    /// Height above the WGS84 ellipsoid, in metres.
    pub altitude_m: Option<f32>,
}

impl FixReported {
    /// Where and when, without the device.
    pub fn fix(&self) -> Fix {
        Fix {
            lat: self.lat,
            lon: self.lon,
            at_us: self.at_us,
            accuracy_m: self.accuracy_m,
            speed_mps: self.speed_mps,
            heading_deg: self.heading_deg,
            altitude_m: self.altitude_m,
        }
    }
}

impl Fix {
    /// The place of the fix, unchecked: a record on the log may say anything.
    pub fn place(&self) -> Place {
        Place { lon: self.lon, lat: self.lat }
    }
}
