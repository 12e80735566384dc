//! `waypost token`: mints a token for a user or a device.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use waypost_schemas::id::{DeviceName, UserId};

use super::output;
use crate::client::{self, Client, Secret};

/// Mint a token
///
/// The token alone goes to standard output. It is good for a day. In a browser, paste it into the page that the stack
/// serves at its own address: an operator's to see where everything is, or a device's to read and write as its user.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost token --user depot --device van-7
  WAYPOST_TOKEN=$(waypost token --user ops --role operator) waypost status
  waypost token --user alice --device browser   # for the page at http://127.0.0.1:7400/")]
pub(super) struct Args {
    /// The user that it speaks for
    #[arg(long, value_name = "U")]
    user: String,
    /// The device that it speaks for; default: the user's name
    #[arg(long, value_name = "D")]
    device: Option<String>,
    /// What it allows
    #[arg(long, value_enum, default_value_t = Role::Device)]
    role: Role,
    /// Write the stack's own document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: client::Options,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Role {
    /// To report and read as the device
    Device,
    /// To do all that can be done
    Operator,
}

#[derive(Serialize)]
struct Wanted<'a> {
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    role: Role,
}

#[derive(Deserialize)]
struct Minted {
    token: String,
}

/// Mints a token for a device, as the operator.
pub(super) async fn of_device(
    operator: &Client,
    user: &UserId,
    device: &DeviceName,
) -> Result<Secret, client::Error> {
    let wanted = Wanted { user: user.as_str(), device: Some(device.as_str()), role: Role::Device };
    let minted: Minted = operator.post(&["v1", "tokens"], &wanted).await?;
    let Ok(token) = minted.token.parse();
    Ok(token)
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.stack)?;
    let wanted = Wanted { user: &args.user, device: args.device.as_deref(), role: args.role };
    let document: Value = client.post(&["v1", "tokens"], &wanted).await?;
    if args.json {
        output::json(&document)?;
    } else {
        let minted = Minted::deserialize(&document)
            .map_err(|source| client::Error::Foreign { url: client.address().to_owned(), source })?;
        output::line(&minted.token)?;
    }
    Ok(ExitCode::SUCCESS)
}
