//! `waypost simulate`: vans that drive to and fro, for a demonstration or a first look.

use std::{cell::Cell, process::ExitCode, time::Duration};

use anyhow::Context as _;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::MissedTickBehavior;
use waypost_runtime::{
    clock::Clock,
    lifecycle::{self, Lifecycle},
};
use waypost_schemas::{
    id::{DeviceId, DeviceName, UserId},
    place::Place,
    time::Micros,
};

use super::{duration, output};
use crate::client::{self, Client};

/// Report the places of vans that drive to and fro between two places
///
/// Their devices are USER/van-1, USER/van-2 and so on. They keep equal distances on the way.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost simulate --vans 5 --between 7.43,46.95 --and 7.47,46.95 --lap 20s --for 1m")]
pub(super) struct Args {
    #[command(flatten)]
    fleet: Fleet,
    /// When to end; default: at Ctrl-C
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
    duration: Option<Duration>,
    #[command(flatten)]
    stack: client::Options,
}

/// Vans, and their way.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Fleet {
    /// How many vans there are
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(super) vans: u16,
    /// The user whose devices they are
    #[arg(long, value_name = "U", default_value = "fleet")]
    pub(super) user: UserId,
    /// One end of the way
    #[arg(long, value_name = "LON,LAT", default_value = "7.43,46.95", allow_hyphen_values = true, value_parser = place)]
    pub(super) between: Place,
    /// The other end
    #[arg(long, value_name = "LON,LAT", default_value = "7.47,46.95", allow_hyphen_values = true, value_parser = place)]
    pub(super) and: Place,
    /// How long a van takes there and back
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration::parse)]
    pub(super) lap: Duration,
    /// How often each van reports
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration::parse)]
    pub(super) every: Duration,
}

fn place(text: &str) -> Result<Place, String> {
    let (lon, lat) = text.split_once(',').ok_or("a place is LON,LAT in degrees, such as 7.43,46.95")?;
    let number =
        |text: &str| text.trim().parse::<f64>().map_err(|_| format!("{text} is not a number of degrees"));
    Place::new(number(lon)?, number(lat)?).map_err(|e| e.to_string())
}

#[derive(Serialize)]
struct Report<'a> {
    device: &'a DeviceId,
    fixes: [Fix; 1],
}

#[derive(Serialize)]
struct Fix {
    lat: f64,
    lon: f64,
    at: Micros,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.stack)?;
    let (clock, stop) = (Clock::system(), Lifecycle::new());
    lifecycle::signals(&stop)?;
    let over = async {
        match args.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let sent = Cell::new(0);
    tokio::select! {
        driven = drive(&client, &args.fleet, &clock, &sent) => driven?,
        () = over => {}
        () = stop.soft_stopped() => {}
    }
    output::line(&format!("{} fixes of {} vans sent", sent.get(), args.fleet.vans))?;
    Ok(ExitCode::SUCCESS)
}

/// Drives until nobody awaits it any more, and counts the fixes that were taken; an error is a refusal.
pub(super) async fn drive(
    client: &Client,
    fleet: &Fleet,
    clock: &Clock,
    sent: &Cell<u64>,
) -> anyhow::Result<()> {
    let vans: Vec<DeviceId> = (1..=fleet.vans)
        .map(|n| Ok(DeviceId::of(&fleet.user, &DeviceName::new(format!("van-{n}"))?)))
        .collect::<anyhow::Result<_>>()?;
    let begun = clock.monotonic();
    let mut tick = tokio::time::interval(fleet.every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let (at, driven) = (clock.now(), clock.elapsed(begun).as_secs_f64() / fleet.lap.as_secs_f64());
        let reports = vans.iter().enumerate().map(|(i, device)| {
            let Place { lon, lat } = on_the_way(fleet, driven + i as f64 / f64::from(fleet.vans));
            report(client, Report { device, fixes: [Fix { lat, lon, at }] })
        });
        for reported in join_all(reports).await {
            sent.set(sent.get() + u64::from(reported.context("a van could not report")?));
        }
    }
}

/// Whether a report was taken; one that comes while the stack is away is lost, and the next is as good.
async fn report(client: &Client, report: Report<'_>) -> Result<bool, client::Error> {
    let body = serde_json::to_vec(&report).expect("a report is plain data");
    match client.post_text(&["v1", "positions"], body.into()).await {
        Ok(()) => Ok(true),
        Err(error) if error.retry_after().is_some() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where a van is after so many laps, of which each goes there and back.
fn on_the_way(fleet: &Fleet, laps: f64) -> Place {
    let share = 1.0 - (2.0 * laps.fract() - 1.0).abs();
    let (from, to) = (fleet.between, fleet.and);
    Place { lon: from.lon + (to.lon - from.lon) * share, lat: from.lat + (to.lat - from.lat) * share }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Door {
        #[command(flatten)]
        fleet: Fleet,
    }

    #[test]
    fn a_lap_goes_there_and_back() {
        let fleet = Door::parse_from(["waypost", "--between", "-10,0", "--and", "10,40"]).fleet;
        for (laps, lon, lat) in [(0.0, -10.0, 0.0), (0.25, 0.0, 20.0), (0.5, 10.0, 40.0), (3.75, 0.0, 20.0)] {
            assert_eq!(on_the_way(&fleet, laps), Place { lon, lat }, "{laps}");
        }
    }

    #[test]
    fn a_place_is_two_numbers_on_the_globe() {
        assert_eq!(place("7.5, -46"), Ok(Place { lon: 7.5, lat: -46.0 }));
        for bad in ["", "7.5", "7,x", "7,91", "NaN,0"] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }
}
