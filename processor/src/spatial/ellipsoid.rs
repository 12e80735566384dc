//! Distances on the WGS84 ellipsoid. Trigonometry is `libm`'s, so that every machine computes the same bits.

use std::f64::consts::PI;

use waypost_schemas::place::Place;

/// WGS84's equatorial radius, in metres.
const A: f64 = 6_378_137.0;
/// WGS84's flattening.
const F: f64 = 1.0 / 298.257_223_563;
/// WGS84's polar radius, in metres.
const B: f64 = A * (1.0 - F);
/// WGS84's mean radius (2a + b) / 3, in metres.
pub(super) const MEAN_RADIUS_M: f64 = (2.0 * A + B) / 3.0;
/// The least radius of curvature, that of the meridian at the equator, b² / a, in metres.
pub(super) const LEAST_RADIUS_M: f64 = B * B / A;

/// Change of longitude below which Vincenty's iteration has converged, in radians (0.006 mm).
const CONVERGED: f64 = 1e-12;
const ITERATIONS_MAX: usize = 100;

/// sin² of half the angle between two places on a sphere; `cos_lat` is that of the first.
pub(super) fn haversine(from: Place, cos_lat: f64, to: Place) -> f64 {
    let sin_lat = libm::sin((to.lat - from.lat).to_radians() / 2.0);
    let sin_lon = libm::sin((to.lon - from.lon).to_radians() / 2.0);
    sin_lat * sin_lat + cos_lat * libm::cos(to.lat.to_radians()) * sin_lon * sin_lon
}

/// The length of the geodesic between two places, in metres, within 0.5 mm; `None` for places so near to being
/// antipodal that the iteration does not converge.
///
/// Source: T. Vincenty, "Direct and inverse solutions of geodesics on the ellipsoid with application of nested
/// equations", Survey Review 23 (176), 1975, the inverse method; its names are kept.
pub(super) fn metres(from: Place, to: Place) -> Option<f64> {
    let (sin_u1, cos_u1) = reduced(from.lat);
    let (sin_u2, cos_u2) = reduced(to.lat);
    let l = difference(from.lon, to.lon);
    let mut lambda = l;
    for _ in 0..ITERATIONS_MAX {
        let (sin_lambda, cos_lambda) = libm::sincos(lambda);
        let (x, y) = (cos_u2 * sin_lambda, cos_u1 * sin_u2 - sin_u1 * cos_u2 * cos_lambda);
        let sin_sigma = (x * x + y * y).sqrt();
        let cos_sigma = sin_u1 * sin_u2 + cos_u1 * cos_u2 * cos_lambda;
        if sin_sigma == 0.0 {
            return (cos_sigma > 0.0).then_some(0.0);
        }
        let sigma = libm::atan2(sin_sigma, cos_sigma);
        let sin_alpha = cos_u1 * cos_u2 * sin_lambda / sin_sigma;
        let cos2_alpha = (1.0 - sin_alpha * sin_alpha).max(0.0);
        // On the equator cos² α is 0, and so is the term that it would divide.
        let cos_2m = if cos2_alpha > 0.0 { cos_sigma - 2.0 * sin_u1 * sin_u2 / cos2_alpha } else { 0.0 };
        let c = F / 16.0 * cos2_alpha * (4.0 + F * (4.0 - 3.0 * cos2_alpha));
        let term = cos_2m + c * cos_sigma * (2.0 * cos_2m * cos_2m - 1.0);
        let next = l + (1.0 - c) * F * sin_alpha * (sigma + c * sin_sigma * term);
        if next.abs() > PI {
            return None;
        }
        if (next - lambda).abs() < CONVERGED {
            return Some(arc(cos2_alpha, sigma, sin_sigma, cos_sigma, cos_2m));
        }
        lambda = next;
    }
    None
}

/// Vincenty's series for the length of the arc `sigma`.
fn arc(cos2_alpha: f64, sigma: f64, sin_sigma: f64, cos_sigma: f64, cos_2m: f64) -> f64 {
    let u2 = cos2_alpha * (A * A - B * B) / (B * B);
    let big_a = 1.0 + u2 / 16_384.0 * (4_096.0 + u2 * (-768.0 + u2 * (320.0 - 175.0 * u2)));
    let big_b = u2 / 1_024.0 * (256.0 + u2 * (-128.0 + u2 * (74.0 - 47.0 * u2)));
    let squared = cos_2m * cos_2m;
    let third = big_b / 6.0 * cos_2m * (4.0 * sin_sigma * sin_sigma - 3.0) * (4.0 * squared - 3.0);
    let delta = big_b * sin_sigma * (cos_2m + big_b / 4.0 * (cos_sigma * (2.0 * squared - 1.0) - third));
    B * big_a * (sigma - delta)
}

/// Sine and cosine of the reduced latitude, on the auxiliary sphere.
fn reduced(lat: f64) -> (f64, f64) {
    let (sin, cos) = libm::sincos(lat.to_radians());
    let (sin, cos) = ((1.0 - F) * sin, cos);
    let length = (sin * sin + cos * cos).sqrt();
    (sin / length, cos / length)
}

/// The difference of two longitudes the short way round, in radians.
fn difference(from: f64, to: f64) -> f64 {
    let degrees = to - from;
    let turned = if degrees > 180.0 {
        degrees - 360.0
    } else if degrees < -180.0 {
        degrees + 360.0
    } else {
        degrees
    };
    turned.to_radians()
}

#[cfg(test)]
mod tests {
    use geo::{Distance, Geodesic, Point};
    use proptest::prelude::*;

    use super::*;

    fn at(lat: f64, lon: f64) -> Place {
        Place { lon, lat }
    }

    #[test]
    fn distances_are_those_that_are_published() {
        let quarter = 10_001_965.729;
        let dms = |d: f64, m: f64, s: f64| d + m / 60.0 + s / 3_600.0;
        for (from, to, expected) in [
            // GeographicLib's manual: New York to London.
            (at(40.6, -73.8), at(51.6, -0.5), 5_551_759.400),
            // Geoscience Australia's test line: Flinders Peak to Buninyong.
            (
                at(-dms(37.0, 57.0, 3.720_3), dms(144.0, 25.0, 29.524_4)),
                at(-dms(37.0, 39.0, 10.156_1), dms(143.0, 55.0, 35.383_9)),
                54_972.271,
            ),
            (at(0.0, 0.0), at(0.0, 1.0), 111_319.491),
            (at(0.0, 179.5), at(0.0, -179.5), 111_319.491),
            (at(0.0, 17.0), at(90.0, -120.0), quarter),
            (at(-90.0, 3.0), at(90.0, 50.0), 2.0 * quarter),
            (at(90.0, 3.0), at(90.0, 50.0), 0.0),
            (at(48.0, 180.0), at(48.0, -180.0), 0.0),
            (at(48.0, 8.0), at(48.0, 8.0), 0.0),
        ] {
            let metres = metres(from, to).unwrap();
            assert!((metres - expected).abs() < 0.001, "{from:?} to {to:?}: {metres} m, not {expected} m");
        }
        assert_eq!(metres(at(0.0, 0.0), at(0.5, 179.7)), None, "nearly antipodal");
    }

    proptest! {
        #[test]
        fn distances_are_those_of_karneys_method(
            lat in -90.0..90.0, lon in -180.0..180.0, other_lat in -90.0..90.0, other_lon in -180.0..180.0,
        ) {
            let (from, to) = (at(lat, lon), at(other_lat, other_lon));
            let expected = Geodesic.distance(Point::new(lon, lat), Point::new(other_lon, other_lat));
            match metres(from, to) {
                Some(metres) => prop_assert!((metres - expected).abs() < 0.001, "{} m, not {} m", metres, expected),
                None => prop_assert!(expected > 19_800_000.0, "{} m apart is not nearly antipodal", expected),
            }
            let mean = 2.0 * MEAN_RADIUS_M * libm::asin(haversine(from, libm::cos(lat.to_radians()), to).sqrt());
            prop_assert!((mean - expected).abs() <= expected * 0.0057, "{} m on the sphere, {} m", mean, expected);
        }
    }
}
