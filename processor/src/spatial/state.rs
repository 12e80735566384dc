//! What the spatial machine remembers of devices, and its bytes in a snapshot.

use std::collections::HashMap;

use waypost_schemas::{event::Fix, id::DeviceId, place::Place, time::Micros};

use super::Generation;
use crate::machine::{Chunk, Unreadable};

/// How many chunks the state is cut into, by a hash of the device id. It is part of the format.
const CHUNKS: usize = 64;

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

/// The devices of a partition.
#[derive(Debug)]
pub(super) struct Devices(Vec<Group>);

/// The devices of one chunk.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) devices: HashMap<DeviceId, Device>,
    /// Whether one changed since the chunk was last written.
    pub(super) changed: bool,
}

impl Default for Devices {
    fn default() -> Self {
        Self((0..CHUNKS).map(|_| Group { devices: HashMap::new(), changed: true }).collect())
    }
}

impl Devices {
    /// The devices among which a device is.
    pub(super) fn group_of(&mut self, id: &DeviceId) -> &mut Group {
        &mut self.0[chunk_of(id)]
    }

    /// The chunks that changed since the last call.
    pub(super) fn take_changed(&mut self) -> Vec<Chunk> {
        let written = |(number, group): (u16, &mut Group)| {
            let changed = std::mem::take(&mut group.changed);
            changed.then(|| Chunk { number, bytes: write(&group.devices) })
        };
        (0..).zip(&mut self.0).filter_map(written).collect()
    }

    /// The devices of a whole snapshot.
    pub(super) fn read(chunks: &[Chunk]) -> Result<Self, Unreadable> {
        let Self(mut groups) = Self::default();
        for (number, group) in (0..).zip(&mut groups) {
            let chunk = chunks.get(usize::from(number)).filter(|chunk| chunk.number == number);
            let missing = || Unreadable { number, detail: "it is missing".into() };
            group.devices = read(chunk.ok_or_else(missing)?)?;
        }
        if let Some(chunk) = chunks.get(CHUNKS) {
            return Err(Unreadable { number: chunk.number, detail: format!("there are only {CHUNKS}") });
        }
        Ok(Self(groups))
    }
}

/// FNV-1a in 64 bits, folded: fixed for ever by the format, and unlike the hash that chose the partition.
fn chunk_of(id: &DeviceId) -> usize {
    let hash = id.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    ((hash >> 32) ^ hash) as usize % CHUNKS
}

/// A chunk: the number of devices (u32), then each in order of its id. A device: the length of its id (u8) and the
/// id, latitude and longitude (f64), time (i64), which of accuracy, speed, heading and altitude are there (the low
/// four bits of a u8) and those (f32), registry offset (i64), the number of zones (u32) and their generations (i64)
/// in order. Numbers are little-endian.
fn write(devices: &HashMap<DeviceId, Device>) -> Vec<u8> {
    let mut sorted: Vec<_> = devices.iter().collect();
    sorted.sort_unstable_by_key(|(id, _)| *id);
    let mut out = Vec::with_capacity(4 + sorted.len() * 96);
    out.extend((sorted.len() as u32).to_le_bytes());
    for (id, Device { newest, registry, inside }) in sorted {
        out.push(id.as_str().len() as u8);
        out.extend(id.as_str().bytes());
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
    out
}

fn read(chunk: &Chunk) -> Result<HashMap<DeviceId, Device>, Unreadable> {
    let unreadable = |detail: &str| Unreadable { number: chunk.number, detail: detail.into() };
    let mut from = Cursor(&chunk.bytes);
    let count = from.u32().ok_or_else(|| unreadable("it has no number of devices"))?;
    let mut devices = HashMap::new();
    let mut last: Option<DeviceId> = None;
    for _ in 0..count {
        let (id, device) = from.device().ok_or_else(|| unreadable("a device is cut short or no device"))?;
        if chunk_of(&id) != usize::from(chunk.number) || last.as_ref().is_some_and(|last| *last >= id) {
            return Err(unreadable("a device is not in its place"));
        }
        last = Some(id.clone());
        devices.insert(id, device);
    }
    if !from.0.is_empty() {
        return Err(unreadable("it goes on after its last device"));
    }
    Ok(devices)
}

/// The bytes of a chunk that are still to be read. Nothing is allocated but for bytes that are there.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn device(&mut self) -> Option<(DeviceId, Device)> {
        let length = self.array::<1>()?[0];
        let id = std::str::from_utf8(self.take(usize::from(length))?).ok()?;
        let id = DeviceId::new(id).ok()?;
        let (lat, lon) = (self.f64()?, self.f64()?);
        Place::new(lon, lat).ok()?;
        let at_us = Micros(self.i64()?);
        let flags = self.array::<1>()?[0];
        if flags >= 1 << 4 {
            return None;
        }
        let mut optional = [None; 4];
        for (bit, value) in optional.iter_mut().enumerate() {
            if flags & (1 << bit) != 0 {
                *value = Some(f32::from_le_bytes(self.array()?));
            }
        }
        let [accuracy_m, speed_mps, heading_deg, altitude_m] = optional;
        let newest = Fix { lat, lon, at_us, accuracy_m, speed_mps, heading_deg, altitude_m };
        let registry = self.i64()?;
        let zones = self.u32()? as usize;
        let bytes = self.take(zones.checked_mul(size_of::<Generation>())?)?;
        let (numbers, _) = bytes.as_chunks();
        let inside: Box<[Generation]> = numbers.iter().map(|n| Generation::from_le_bytes(*n)).collect();
        let ordered = inside.is_sorted_by(|a, b| a < b);
        ordered.then_some((id, Device { newest, registry, inside }))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }
    fn f64(&mut self) -> Option<f64> {
        self.array().map(f64::from_le_bytes)
    }
}
