//! Rectangles in longitude and latitude, and the several ways to write one place.

use waypost_schemas::place::Place;

/// A closed rectangle in degrees; it does not cross the antimeridian.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Envelope {
    pub(super) min: Place,
    pub(super) max: Place,
}

impl Envelope {
    /// The smallest envelope of some places; `None` of none.
    pub(super) fn of(places: impl IntoIterator<Item = Place>) -> Option<Self> {
        places.into_iter().fold(None, |envelope, p| {
            let Self { min, max } = envelope.unwrap_or(Self { min: p, max: p });
            Some(Self {
                min: Place { lon: min.lon.min(p.lon), lat: min.lat.min(p.lat) },
                max: Place { lon: max.lon.max(p.lon), lat: max.lat.max(p.lat) },
            })
        })
    }

    /// The envelope in which an index looks for a place: a point, and at a pole all longitudes.
    pub(super) fn to_search(place: Place) -> Self {
        if is_pole(place.lat) {
            let at = |lon| Place { lon, lat: place.lat };
            Self { min: at(-180.0), max: at(180.0) }
        } else {
            Self { min: place, max: place }
        }
    }
}

/// Whether all longitudes at this latitude are one place.
pub(super) fn is_pole(lat: f64) -> bool {
    lat.abs() >= 90.0
}

/// A place as it is written, and on the antimeridian as it can also be written.
pub(super) fn sides(place: Place) -> impl Iterator<Item = Place> {
    let other = (place.lon.abs() >= 180.0).then_some(Place { lon: -place.lon, lat: place.lat });
    std::iter::once(place).chain(other)
}
