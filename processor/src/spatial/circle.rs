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

#[cfg(test)]
mod tests {
    use geo::{Destination, Distance, Geodesic, Point};
    use proptest::prelude::*;

    use super::*;
    use crate::spatial::envelope::sides;

    fn cap(lon: f64, lat: f64, radius_m: f64) -> Cap {
        Cap::new(&Circle { centre: Place { lon, lat }, radius_m })
    }

    fn holds(envelopes: &[Envelope], place: Place) -> bool {
        let within = |e: &Envelope, p: Envelope| {
            e.min.lon <= p.max.lon
                && p.min.lon <= e.max.lon
                && e.min.lat <= p.max.lat
                && p.min.lat <= e.max.lat
        };
        sides(place).any(|side| envelopes.iter().any(|e| within(e, Envelope::to_search(side))))
    }

    fn check(cap: &Cap, inside: &[(f64, f64)], outside: &[(f64, f64)]) {
        for (lon, lat) in inside {
            let place = Place { lon: *lon, lat: *lat };
            assert!(cap.contains(place), "({lon}, {lat}) is inside {cap:?}");
            assert!(holds(cap.envelopes(), place), "({lon}, {lat}) is indexed by {cap:?}");
        }
        for (lon, lat) in outside {
            assert!(!cap.contains(Place { lon: *lon, lat: *lat }), "({lon}, {lat}) is outside {cap:?}");
        }
    }

    #[test]
    fn circles_reach_over_poles_and_the_antimeridian() {
        // A degree of latitude at the pole is 111,694 m.
        check(
            &cap(20.0, 90.0, 112_000.0),
            &[(20.0, 89.0), (-160.0, 89.0), (180.0, 89.0), (-77.0, 90.0)],
            &[(0.0, 88.99)],
        );
        check(
            &cap(20.0, -89.5, 112_000.0),
            &[(20.0, -88.51), (-160.0, -89.51), (1.0, -90.0)],
            &[(-160.0, -89.49)],
        );
        check(
            &cap(180.0, 0.0, 112_000.0),
            &[(179.0, 0.0), (-179.0, 0.0), (180.0, 0.0), (-180.0, 0.0)],
            &[(178.99, 0.0), (-178.99, 0.0), (0.0, 0.0)],
        );
        check(
            &cap(-179.5, 60.0, 60_000.0),
            &[(179.5, 60.0), (-180.0, 60.0), (-178.5, 60.0)],
            &[(179.4, 60.0)],
        );
    }

    #[test]
    fn the_ellipsoid_decides_at_the_edge() {
        // A degree of longitude at the equator is 111,319.491 m; on the mean sphere it would be 111,195 m.
        check(&cap(0.0, 0.0, 111_320.0), &[(1.0, 0.0), (-1.0, 0.0)], &[(1.000_01, 0.0)]);
        check(&cap(0.0, 0.0, 111_319.0), &[(0.999, 0.0)], &[(1.0, 0.0), (-1.0, 0.0)]);
        // A degree of latitude there is 110,574.4 m.
        check(&cap(0.0, 0.0, 110_575.0), &[(0.0, 1.0)], &[(0.0, 1.000_01)]);
    }

    #[test]
    fn circles_of_any_size_are_circles() {
        check(&cap(8.0, 48.0, 0.0), &[(8.0, 48.0)], &[(8.000_000_1, 48.0)]);
        check(&cap(8.0, 48.0, 1.0), &[(8.000_013, 48.0)], &[(8.000_014, 48.0)]);
        check(&cap(0.0, 0.0, 20_100_000.0), &[(180.0, 0.0), (-180.0, 0.0), (0.0, 90.0), (120.0, -45.0)], &[]);
        check(&cap(0.0, 0.0, 1e300), &[(180.0, 0.0)], &[]);
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            check(&cap(0.0, 0.0, bad), &[], &[(0.0, 0.0)]);
        }
        check(&cap(f64::NAN, 0.0, 10.0), &[], &[(0.0, 0.0)]);
        check(&cap(0.0, 91.0, 1e6), &[], &[(0.0, 90.0)]);
    }

    proptest! {
        #[test]
        fn inside_is_at_most_the_radius_away_and_is_indexed(
            lon in -180.0..=180.0, lat in -90.0..=90.0, log_radius in 0.0..7.2, bearing in 0.0..360.0, part in 0.9..1.1,
        ) {
            let radius_m = libm::pow(10.0, log_radius);
            let cap = cap(lon, lat, radius_m);
            let to = Geodesic.destination(Point::new(lon, lat), bearing, radius_m * part);
            let place = Place { lon: to.x().clamp(-180.0, 180.0), lat: to.y().clamp(-90.0, 90.0) };
            let metres = Geodesic.distance(Point::new(lon, lat), Point::new(place.lon, place.lat));
            if (metres - radius_m).abs() > 0.001 {
                prop_assert_eq!(cap.contains(place), metres <= radius_m, "{} m of {} m", metres, radius_m);
            }
            if cap.contains(place) {
                prop_assert!(holds(cap.envelopes(), place));
            }
        }
    }
}
