use waypost_runtime::config;
use waypost_schemas::time::Micros;

/// What admission takes at most; every number's unit is last in its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The most fixes of one request.
    pub fixes_max: usize,
    /// The longest id that a client gives its request, in bytes.
    pub client_id_bytes_max: usize,
    /// The largest frame of a device, in bytes.
    pub frame_bytes_max: usize,
    /// The largest body of a message, in bytes.
    pub message_bytes_max: usize,
    /// The longest media type of a message, in bytes.
    pub media_type_bytes_max: usize,
    /// How far a message's id may lie behind now, in microseconds: a device may be offline for days, and what is older
    /// may be settled already.
    pub client_id_behind_us_max: i64,
    /// How far a message's id may lie ahead of now, in microseconds: clients mint ids from the server's time.
    pub client_id_ahead_us_max: i64,
    /// The oldest device time. Before GPS was open to all there is little to import, and a tracker without a clock
    /// says 1970 or 1980.
    pub fix_time_min: Micros,
    /// How far a device's time may lie ahead of now, in microseconds. What is more than five minutes ahead of its
    /// append is history only, which the machines decide; only absurd times are refused.
    pub fix_ahead_us_max: i64,
    /// The most attributes of one fix.
    pub attributes_max: usize,
    /// The longest attribute name, in bytes.
    pub attribute_name_bytes_max: usize,
    /// The longest attribute value, in bytes.
    pub attribute_value_bytes_max: usize,
    /// The most vertices of one zone, counting each ring's closing place.
    pub vertices_max: usize,
    /// The most steps spent on finding crossings in one zone: more than twenty times what the largest country takes.
    pub geometry_steps_max: u64,
    /// The largest radius of a circle, in metres.
    pub radius_m_max: f64,
    /// The most names in one list of a rule, so that its record stays below 1 MiB.
    pub rule_names_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fixes_max: 1_000,
            client_id_bytes_max: 128,
            frame_bytes_max: 512 << 10,
            message_bytes_max: 64 << 10,
            media_type_bytes_max: 128,
            client_id_behind_us_max: 6 * 24 * Micros::HOUR,
            client_id_ahead_us_max: 5 * Micros::MINUTE,
            fix_time_min: Micros(946_684_800 * Micros::SECOND), // 2000-01-01T00:00:00Z
            fix_ahead_us_max: 24 * Micros::HOUR,
            attributes_max: 16,
            attribute_name_bytes_max: 64,
            attribute_value_bytes_max: 256,
            vertices_max: 100_000,
            geometry_steps_max: 20_000_000,
            radius_m_max: 1_000_000.0,
            rule_names_max: 1_000,
        }
    }
}

impl From<&config::Ingest> for Limits {
    fn from(settings: &config::Ingest) -> Self {
        Self {
            fixes_max: settings.fixes_max,
            frame_bytes_max: settings.frame_bytes_max,
            message_bytes_max: settings.message_bytes_max,
            fix_time_min: settings.fix_at_min,
            fix_ahead_us_max: i64::try_from(settings.fix_ahead_max.as_micros()).unwrap_or(i64::MAX),
            vertices_max: settings.zone_vertices_max,
            ..Self::default()
        }
    }
}
