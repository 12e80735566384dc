//! A circle in metres on the WGS84 ellipsoid.

use waypost_schemas::{event::Circle, place::Place};

use super::{
    ellipsoid::{self, LEAST_RADIUS_M, MEAN_RADIUS_M},
    envelope::Envelope,
};

/// How far the haversine on the mean sphere is trusted: its error is 0.56% at most.
const TRUSTED_TO: f64 = 0.01;
/// Widens envelopes beyond what rounding in their making can take off, in radians (6 mm).
const SLACK_RAD: f64 = 1e-9;

/// The places within a distance of a centre; those at the distance exactly are inside.
#[derive(Debug)]
pub(super) struct Cap {
    centre: Place,
    radius_m: f64,
    cos_lat: f64,
    /// Haversines of the angle below which all is inside, and above which all is outside.
    surely_in: f64,
    surely_out: f64,
    envelopes: Vec<Envelope>,
}

impl Cap {
    /// Prepares a circle; one that is not on the globe, or whose radius is no length, contains no place.
    pub(super) fn new(circle: &Circle) -> Self {
        let (centre, radius_m) = (circle.centre, circle.radius_m);
        let valid = Place::new(centre.lon, centre.lat).is_ok() && radius_m.is_finite() && radius_m >= 0.0;
        Self {
            centre,
            radius_m,
            cos_lat: libm::cos(centre.lat.to_radians()),
            surely_in: haversine_of_arc(radius_m * (1.0 - TRUSTED_TO)),
            surely_out: haversine_of_arc(radius_m * (1.0 + TRUSTED_TO)),
            envelopes: if valid { envelopes(centre, radius_m) } else { Vec::new() },
        }
    }

    /// The rectangles that together hold the circle: none, one, or two where it crosses the antimeridian.
    pub(super) fn envelopes(&self) -> &[Envelope] {
        &self.envelopes
    }

    /// Whether a place is at most the radius away. The haversine decides but near the edge, where the ellipsoid
    /// does; so near the antipode that the ellipsoidal formula does not converge, the haversine again.
    pub(super) fn contains(&self, place: Place) -> bool {
        if self.envelopes.is_empty() {
            return false;
        }
        let h = ellipsoid::haversine(self.centre, self.cos_lat, place);
        if h < self.surely_in {
            return true;
        }
        if h > self.surely_out {
            return false;
        }
        let metres = ellipsoid::metres(self.centre, place)
            .unwrap_or_else(|| 2.0 * MEAN_RADIUS_M * libm::asin(h.min(1.0).sqrt()));
        metres <= self.radius_m
    }
}

/// sin² of half the angle that an arc spans on the mean sphere; beyond half the globe it is more than any angle's.
fn haversine_of_arc(metres: f64) -> f64 {
    let half = metres / (2.0 * MEAN_RADIUS_M);
    if half > std::f64::consts::FRAC_PI_2 {
        return 2.0;
    }
    let sin = libm::sin(half);
    sin * sin
}

/// An arc on the ellipsoid is never shorter than [`LEAST_RADIUS_M`] times its arc on the unit sphere of the same
/// latitudes and longitudes, so a spherical cap of that angle holds the circle. Its box is that of J. P. Matuschek,
/// "Finding points within a distance of a latitude/longitude using bounding coordinates", 3.3.
fn envelopes(centre: Place, radius_m: f64) -> Vec<Envelope> {
    let angle = radius_m / LEAST_RADIUS_M + SLACK_RAD;
    let (lat, lon) = (centre.lat.to_radians(), centre.lon);
    let (south, north) = ((lat - angle).to_degrees(), (lat + angle).to_degrees());
    let between = |west: f64, east: f64| Envelope {
        min: Place { lon: west, lat: south.max(-90.0) },
        max: Place { lon: east, lat: north.min(90.0) },
    };
    if south <= -90.0 || north >= 90.0 {
        return vec![between(-180.0, 180.0)];
    }
    let half = (libm::asin((libm::sin(angle) / libm::cos(lat)).min(1.0)) + SLACK_RAD).to_degrees();
    match (lon - half, lon + half) {
        _ if half >= 180.0 => vec![between(-180.0, 180.0)],
        (west, east) if west < -180.0 => vec![between(-180.0, east), between(west + 360.0, 180.0)],
        (west, east) if east > 180.0 => vec![between(west, 180.0), between(-180.0, east - 360.0)],
        (west, east) => vec![between(west, east)],
    }
}
