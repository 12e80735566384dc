//! A place on WGS84, in degrees.

use serde::{Deserialize, Serialize};

/// A point on WGS84: longitude and latitude in degrees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Longitude in degrees east, -180 to 180.
    pub lon: f64,
    /// Latitude in degrees north, -90 to 90.
    pub lat: f64,
}

/// Why two numbers are not a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The latitude is not a number between -90 and 90.
    #[error("latitude is a number of degrees from -90 to 90")]
    Latitude,
    /// The longitude is not a number between -180 and 180.
    #[error("longitude is a number of degrees from -180 to 180")]
    Longitude,
}

impl Place {
    /// Checks that both numbers are finite and in range.
    pub fn new(lon: f64, lat: f64) -> Result<Self, Error> {
        if !(-90.0..=90.0).contains(&lat) {
            return Err(Error::Latitude);
        }
        if !(-180.0..=180.0).contains(&lon) {
            return Err(Error::Longitude);
        }
        Ok(Self { lon, lat })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_on_the_globe() {
        for (lon, lat) in [(0.0, 0.0), (180.0, 90.0), (-180.0, -90.0)] {
            assert!(Place::new(lon, lat).is_ok());
        }
        for bad in [91.0, -90.000_001, f64::NAN, f64::INFINITY] {
            assert_eq!(Place::new(0.0, bad), Err(Error::Latitude));
        }
        for bad in [180.5, f64::NAN, f64::NEG_INFINITY] {
            assert_eq!(Place::new(bad, 0.0), Err(Error::Longitude));
        }
    }
}
