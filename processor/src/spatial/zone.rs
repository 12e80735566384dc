//! A zone, prepared for point queries.

use waypost_schemas::{event::ZoneDefined, id::ZoneId};

/// A zone's definition; what point queries need is prepared at the first of them.
#[derive(Debug)]
pub struct Zone {
    /// Its id.
    pub id: ZoneId,
    /// The registry offset of its definition.
    pub version: i64,
    /// Its definition.
    pub defined: ZoneDefined,
}
