//! `waypost simulate`: vans that drive to and fro, for a demonstration or a first look.

use std::{process::ExitCode, time::Duration};

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
    /// How many vans there are
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    vans: u16,
    /// The user whose devices they are
    #[arg(long, value_name = "U", default_value = "fleet")]
    user: UserId,
    /// One end of the way
    #[arg(long, value_name = "LON,LAT", default_value = "7.43,46.95", allow_hyphen_values = true, value_parser = place)]
    between: Place,
    /// The other end
    #[arg(long, value_name = "LON,LAT", default_value = "7.47,46.95", allow_hyphen_values = true, value_parser = place)]
    and: Place,
    /// How long a van takes there and back
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration::parse)]
    lap: Duration,
    /// How often each van reports
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration::parse)]
    every: Duration,
    /// When to end; default: at Ctrl-C
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
    duration: Option<Duration>,
    #[command(flatten)]
    stack: client::Options,
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
    let vans: Vec<DeviceId> = (1..=args.vans)
        .map(|n| Ok(DeviceId::of(&args.user, &DeviceName::new(format!("van-{n}"))?)))
        .collect::<anyhow::Result<_>>()?;
    let begun = clock.monotonic();
    let mut tick = tokio::time::interval(args.every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = 0;
    while args.duration.is_none_or(|duration| clock.elapsed(begun) < duration) {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.soft_stopped() => break,
        }
        let (at, driven) = (clock.now(), clock.elapsed(begun).as_secs_f64() / args.lap.as_secs_f64());
        let reports = vans.iter().enumerate().map(|(i, device)| {
            let Place { lon, lat } = on_the_way(&args, driven + i as f64 / f64::from(args.vans));
            report(&client, Report { device, fixes: [Fix { lat, lon, at }] })
        });
        for reported in join_all(reports).await {
            sent += u64::from(reported.context("a van could not report")?);
        }
    }
    output::line(&format!("{sent} fixes of {} vans sent", args.vans))?;
    Ok(ExitCode::SUCCESS)
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
fn on_the_way(args: &Args, laps: f64) -> Place {
    let share = 1.0 - (2.0 * laps.fract() - 1.0).abs();
    let (from, to) = (args.between, args.and);
    Place { lon: from.lon + (to.lon - from.lon) * share, lat: from.lat + (to.lat - from.lat) * share }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Door {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_lap_goes_there_and_back() {
        let args = Door::parse_from(["waypost", "--between", "-10,0", "--and", "10,40"]).args;
        for (laps, lon, lat) in [(0.0, -10.0, 0.0), (0.25, 0.0, 20.0), (0.5, 10.0, 40.0), (3.75, 0.0, 20.0)] {
            assert_eq!(on_the_way(&args, laps), Place { lon, lat }, "{laps}");
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
