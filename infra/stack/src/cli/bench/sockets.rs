//! The devices of a bench.

use anyhow::Context as _;
use waypost_runtime::clock::Clock;
use waypost_schemas::{
    frame::Begin,
    id::{DeviceName, UserId},
};

use super::scratch::Scratch;
use crate::{
    cli::token,
    device::{self, Device, Event},
};

const DEVICE: &str = "bench";

/// Connects a device of a user that begins where it is told, and waits until it is welcome.
pub(super) async fn connect(
    scratch: &Scratch,
    user: &UserId,
    from: Begin,
    clock: &Clock,
) -> anyhow::Result<Device> {
    let token = token::of_device(&scratch.client, user, &DeviceName::new(DEVICE)?).await?;
    let url = scratch.client.address().to_owned();
    let options = device::Options { url, token, from: Some(from), mark: None };
    let mut device = Device::new(options, clock.clone())?;
    loop {
        match device.next().await.with_context(|| format!("{user} cannot connect"))? {
            Event::Connected { .. } => return Ok(device),
            Event::Disconnected { why, .. } => eprintln!("{user} comes again: {why}"),
            _ => {}
        }
    }
}
