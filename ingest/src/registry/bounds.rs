use waypost_schemas::{
    event::{Circle, Geometry},
    place::Place,
};

/// Metres in a degree of latitude where it is shortest, at the equator (WGS84); so that bounds are never too small.
const METRES_PER_DEGREE_MIN: f64 = 110_574.0;

/// What a geometry lies within, in degrees, as RFC 7946 section 5 orders them: west, south, east, north. A circle
/// over the antimeridian or a pole spans all longitudes.
pub type Bounds = [f64; 4];

/// The bounds of a geometry.
pub(super) fn of(geometry: &Geometry) -> Bounds {
    match geometry {
        Geometry::Circle(circle) => of_circle(circle),
        Geometry::Polygon(polygon) => of_places(polygon.rings.iter().flatten()),
        Geometry::MultiPolygon(many) => {
            of_places(many.polygons.iter().flat_map(|p| p.rings.iter().flatten()))
        }
    }
}

fn of_places<'a>(places: impl Iterator<Item = &'a Place>) -> Bounds {
    let nothing = [f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY];
    places.fold(nothing, |[w, s, e, n], p| [w.min(p.lon), s.min(p.lat), e.max(p.lon), n.max(p.lat)])
}

fn of_circle(Circle { centre, radius_m }: &Circle) -> Bounds {
    let reach = radius_m / METRES_PER_DEGREE_MIN;
    let (south, north) = (centre.lat - reach, centre.lat + reach);
    // The widest parallel is the one nearest to a pole.
    let across = reach / south.abs().max(north.abs()).to_radians().cos();
    let (west, east) = (centre.lon - across, centre.lon + across);
    if south <= -90.0 || north >= 90.0 || west < -180.0 || east > 180.0 {
        [-180.0, south.max(-90.0), 180.0, north.min(90.0)]
    } else {
        [west, south, east, north]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_lies_within_its_bounds() {
        for (lon, lat, radius_m, whole) in [
            (7.0, 46.0, 1_000.0, false),
            (0.0, 0.0, 500_000.0, false),
            (179.99, 46.0, 2_000.0, true),
            (7.0, 89.99, 2_000.0, true),
            (7.0, -60.0, 900_000.0, false),
        ] {
            let [west, south, east, north] =
                of(&Geometry::Circle(Circle { centre: Place { lon, lat }, radius_m }));
            assert!(-180.0 <= west && west < lon && lon < east && east <= 180.0);
            assert!(-90.0 <= south && south < lat && lat < north && north <= 90.0);
            assert_eq!((west, east) == (-180.0, 180.0), whole, "{lon} {lat} {radius_m}");
        }
    }
}
