//! What a CSV file becomes.

use std::io::Write as _;

use super::*;

/// Reads a whole text: the fixes as `line device json`, the bad lines as `line why`, and how it ended.
fn read(file: &[u8]) -> (Vec<String>, Vec<String>, Result<(), String>) {
    let source = Source::of_bytes(file.to_vec());
    let (to, mut from) = mpsc::channel(1_000);
    super::read(source, &to);
    drop(to);
    let (mut good, mut bad, mut ended) = (vec![], vec![], Ok(()));
    while let Ok(chunk) = from.try_recv() {
        match chunk {
            Ok(chunk) => {
                for row in &chunk.rows {
                    let fix = std::str::from_utf8(chunk.fix(row)).unwrap();
                    serde_json::from_str::<serde_json::Value>(fix).unwrap();
                    good.push(format!("{} {} {fix}", row.line, chunk.device(row)));
                }
                bad.extend(chunk.bad.iter().map(|b| format!("{} {}", b.line, b.why)));
            }
            Err(error) => ended = Err(format!("{error:#}")),
        }
    }
    (good, bad, ended)
}

fn check(file: &str, good: &[&str], bad: &[&str]) {
    let read = read(file.as_bytes());
    let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    assert_eq!(read, (owned(good), owned(bad), Ok(())), "{file:?}");
}

#[test]
fn columns_stand_in_any_order_and_unknown_ones_are_passed_over() {
    let fix = r#"2 van {"lat":1.50,"lon":-2,"at":"2020-01-01T00:00:00Z"}"#;
    check("device,timestamp,lat,lon\nvan,2020-01-01T00:00:00Z,1.50,-2\n", &[fix], &[]);
    check(
        "\u{feff}Lon, LAT ,note,device,timestamp\r\n-2,1.50,\"a, b\",van,2020-01-01T00:00:00Z",
        &[fix],
        &[],
    );
    check(
        "device,timestamp,lat,lon,accuracy,altitude_m,speed\nx/y,2020-01-01 01:00:00+01:00,0,0,5,,1e1\n",
        &[r#"2 x/y {"lat":0,"lon":0,"at":"2020-01-01T00:00:00Z","accuracy_m":5,"speed_mps":1e1}"#],
        &[],
    );
}

#[test]
fn times_are_rfc_3339_or_utc() {
    for (text, at) in [
        ("2018-07-30T02:00:23Z", "2018-07-30T02:00:23Z"),
        ("2018-07-30T04:00:23.25+02:00", "2018-07-30T02:00:23.25Z"),
        ("2018-07-30 02:00:23.000", "2018-07-30T02:00:23Z"),
        ("2018-07-30T02:00:23", "2018-07-30T02:00:23Z"),
    ] {
        let fix = format!(r#"2 x {{"lat":0,"lon":0,"at":"{at}"}}"#);
        check(&format!("device,timestamp,lat,lon\nx,{text},0,0"), &[&fix], &[]);
    }
}

#[test]
fn a_bad_line_is_named_and_the_rest_goes_on() {
    let long = "x".repeat(LINE_BYTES_MAX + 1);
    for (line, why) in [
        ("van,2020-01-01T00:00:00Z,91,0", "latitude is a number of degrees from -90 to 90"),
        ("van,2020-01-01T00:00:00Z,0,180.5", "longitude is a number of degrees from -180 to 180"),
        ("van,2020-01-01T00:00:00Z,NaN,0", "lat is not a number"),
        ("van,2020-01-01T00:00:00Z,0,east", "lon is not a number"),
        ("van,2020-01-01,0,0", "timestamp is not a time such as 2018-07-30T02:00:23Z"),
        ("van,2020-13-01T00:00:00Z,0,0", "timestamp is not a time such as 2018-07-30T02:00:23Z"),
        (
            "a van,2020-01-01T00:00:00Z,0,0",
            "a device id (user/name, or x where both are x) is 1 to 64 characters of A-Z a-z 0-9 . _ @ -",
        ),
        (",2020-01-01T00:00:00Z,0,0", "device is missing"),
        ("van,2020-01-01T00:00:00Z,0", "lon is missing"),
        ("\"van,2020-01-01T00:00:00Z,0,0", "a quote is not closed"),
        ("van,2020-01-01T00:00:00Z,0,0,fast", "speed is not a number"),
        (&*long, "the line is longer than 65536 bytes"),
    ] {
        let file = format!("device,timestamp,lat,lon,speed\n\n{line}\nvan,2020-01-01T00:00:00Z,0,0\n");
        let good = r#"4 van {"lat":0,"lon":0,"at":"2020-01-01T00:00:00Z"}"#;
        check(&file, &[good], &[&format!("3 {why}")]);
    }
    let (good, bad, _) =
        read(b"device,timestamp,lat,lon\nvan,2020-01-01T00:00:00Z,0,\xff\nvan,2020-01-01T00:00:00Z,0,0");
    assert_eq!((good.len(), bad), (1, vec!["2 the line is not UTF-8".to_owned()]));
}

#[test]
fn a_file_without_the_needed_columns_is_refused() {
    for (file, why) in [
        ("", "the file is empty"),
        ("device,time,lat,lon\n", "timestamp is not among them"),
        ("van,2020-01-01T00:00:00Z,0,0\n", "device, timestamp, lat, lon are not among them"),
        ("device,timestamp,lat,lon,lat\n", "names the column lat twice"),
    ] {
        let (good, bad, ended) = read(file.as_bytes());
        assert!(good.is_empty() && bad.is_empty());
        let error = ended.unwrap_err();
        assert!(error.contains(why), "{file:?}: {error}");
    }
}

#[test]
fn numbers_go_through_as_text_where_json_takes_them() {
    for (text, json) in [
        ("48.079379", "48.079379"),
        ("48.10", "48.10"),
        ("-0", "-0"),
        ("1e-3", "1e-3"),
        ("+7.5", "7.5"),
        (".5", "0.5"),
        ("7.", "7"),
        ("007", "7"),
        ("1.00000000000000000000000000000000000", "1"),
    ] {
        let fix = format!(r#"2 x {{"lat":{json},"lon":0,"at":"2020-01-01T00:00:00Z"}}"#);
        check(&format!("device,timestamp,lat,lon\nx,2020-01-01T00:00:00Z,{text},0"), &[&fix], &[]);
    }
}

#[test]
fn gzip_is_known_by_its_first_bytes_and_a_broken_one_ends_with_an_error() {
    let mut text = b"device,timestamp,lat,lon\n".to_vec();
    for i in 0..20_000 {
        writeln!(text, "van,2020-01-01T00:00:00Z,{}.{i},0", i % 90).unwrap();
    }
    let pack = |text: &[u8]| {
        let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        gz.write_all(text).unwrap();
        gz.finish().unwrap()
    };
    let (head, tail) = text.split_at(1_000);
    let mut members = pack(head);
    members.extend(pack(tail));
    for packed in [pack(&text), members] {
        let (good, bad, ended) = read(&packed);
        assert_eq!((good.len(), bad.len(), ended), (20_000, 0, Ok(())));
        let (good, _, ended) = read(&packed[..packed.len() - 100]);
        assert!((1..20_000).contains(&good.len()), "what could be unpacked was kept");
        assert!(ended.unwrap_err().starts_with("after line "));
    }
}
