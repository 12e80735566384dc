//! What the spatial machine remembers of devices, and its bytes in a snapshot.

use waypost_schemas::{event::Fix, id::DeviceId, place::Place, time::Micros};

use super::Generation;
use crate::shards::{Bytes, Kept, Shards};

/// The devices of a partition.
pub(super) type Devices = Shards<DeviceId, Device>;

/// What is remembered of a device. It is about 190 bytes with its id: a million devices must fit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Device {
    /// The newest fix by device time.
    pub(super) newest: Fix,
    /// The partition's registry offset at that fix.
    pub(super) registry: i64,
    /// The zones that fix was inside, in order.
    pub(super) inside: Box<[Generation]>,
}

/// Latitude and longitude (f64), time (i64), which of accuracy, speed, heading and altitude are there (the low four
/// bits of a u8) and those (f32), registry offset (i64), the number of zones (u32) and their generations (i64) in
/// order. Numbers are little-endian.
impl Kept for Device {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { newest, registry, inside } = self;
        out.extend(newest.lat.to_le_bytes());
        out.extend(newest.lon.to_le_bytes());
        out.extend(newest.at_us.0.to_le_bytes());
        let optional = [newest.accuracy_m, newest.speed_mps, newest.heading_deg, newest.altitude_m];
        out.push((0..).zip(optional).map(|(bit, value)| u8::from(value.is_some()) << bit).sum());
        out.extend(optional.into_iter().flatten().flat_map(f32::to_le_bytes));
        out.extend(registry.to_le_bytes());
        out.extend((inside.len() as u32).to_le_bytes());
        out.extend(inside.iter().flat_map(|generation| generation.to_le_bytes()));
    }

    fn read(from: &mut Bytes<'_>) -> Option<Self> {
        let (lat, lon) = (from.f64()?, from.f64()?);
        Place::new(lon, lat).ok()?;
        let at_us = Micros(from.i64()?);
        let [flags] = from.array()?;
        if flags >= 1 << 4 {
            return None;
        }
        let mut optional = [None; 4];
        for (bit, value) in optional.iter_mut().enumerate() {
            if flags & (1 << bit) != 0 {
                *value = Some(f32::from_le_bytes(from.array()?));
            }
        }
        let [accuracy_m, speed_mps, heading_deg, altitude_m] = optional;
        let newest = Fix { lat, lon, at_us, accuracy_m, speed_mps, heading_deg, altitude_m };
        let registry = from.i64()?;
        let zones = from.u32()? as usize;
        let bytes = from.take(zones.checked_mul(size_of::<Generation>())?)?;
        let (numbers, _) = bytes.as_chunks();
        let inside: Box<[Generation]> = numbers.iter().map(|n| Generation::from_le_bytes(*n)).collect();
        let ordered = inside.is_sorted_by(|a, b| a < b);
        ordered.then_some(Self { newest, registry, inside })
    }
}
