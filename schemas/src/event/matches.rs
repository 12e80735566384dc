use serde::{Deserialize, Serialize};

use crate::{
    event::Fix,
    id::{DeviceId, RuleId, UserId, ZoneId},
};

/// A way to cross a zone's border.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crossing {
    /// From inside to outside.
    Exit,
    /// From outside to inside, or the first fix of all inside.
    Enter,
}

impl Crossing {
    /// `exit` or `enter`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Enter => "enter",
        }
    }
}

/// A rule fired; on `matches`, keyed by device. A large audience is cut into numbered parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleMatched {
    /// The rule.
    pub rule: RuleId,
    /// The registry offset of the rule's definition.
    pub rule_version: i64,
    /// The zone, for rules that watch zones.
    pub zone: Option<ZoneId>,
    /// What happened at the zone's border.
    pub event: Crossing,
    /// Whether this was the device's first fix since the zone was defined.
    pub initial: bool,
    /// The device.
    pub device: DeviceId,
    /// The fix that fired the rule.
    pub fix: Fix,
    /// The fix before it.
    pub previous: Option<Fix>,
    /// The users who are told, in this part.
    pub audience: Vec<UserId>,
    /// Which part this is, from 0.
    pub part: i32,
    /// How many parts the match has.
    pub parts: i32,
    /// The highest registry offset that the cause's partition had been stamped with.
    pub registry: i64,
}
