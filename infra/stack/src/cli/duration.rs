//! Durations as arguments: `30s`, `10m`, `1h 30m`, `500ms`.

use std::time::Duration;

/// Reads a duration that is longer than nothing.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
    parsed.filter(|d| !d.is_zero()).ok_or_else(|| "a duration looks like 30s, 10m or 500ms".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_name_their_units() {
        for (text, expected) in [
            ("30s", Some(Duration::from_secs(30))),
            ("10m", Some(Duration::from_mins(10))),
            ("500ms", Some(Duration::from_millis(500))),
            ("1h 30m", Some(Duration::from_mins(90))),
            ("30", None),
            ("0s", None),
            ("-3s", None),
            ("soon", None),
        ] {
            assert_eq!(parse(text).ok(), expected, "{text}");
        }
    }
}
