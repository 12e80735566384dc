//! Who a request is from: `EdDSA` tokens, and the axum extractors that check them.
//!
//! Identity comes from the token alone. Tokens are never logged.

mod extract;
mod keys;
#[cfg(test)]
mod tests;

pub use extract::{Auth, Operator};
pub use keys::{Claims, Error, Keys, Minted, Refusal};
use serde::{Deserialize, Serialize};
use waypost_schemas::id::{DeviceId, DeviceName, UserId};

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// To report and read what is the user's own.
    Device,
    /// To write the registry, report for any device and read everything.
    Operator,
}

/// Who a request is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The device of that user; named as the user where the token names none.
    pub device: DeviceName,
    /// What it allows.
    pub role: Role,
}

impl Identity {
    /// The device in its written form, `user/name` or `x`.
    pub fn device_id(&self) -> DeviceId {
        DeviceId::of(&self.user, &self.device)
    }

    /// Whether the token is an operator's.
    pub fn is_operator(&self) -> bool {
        self.role == Role::Operator
    }
}
