//! Every refusal by small cases, rings by properties.

use std::{collections::BTreeSet, f64::consts::TAU};

use proptest::prelude::*;
use waypost_schemas::{
    event::{Crossing, Geometry, RuleDefined, ZoneDefined},
    id::{DeviceId, UserId},
    time::Micros,
};

use super::*;

/// 2026-07-01T12:00:00Z, which is now in these tests.
const NOW: Micros = Micros(1_782_907_200_000_000);

fn user() -> UserId {
    UserId::new("warden").unwrap()
}

fn report_of(body: &str, operator: bool) -> Result<Report, Refusal> {
    let device = DeviceId::new("depot/van-7").unwrap();
    report(body.as_bytes(), Sender { device: &device, operator }, &Limits::default(), NOW)
}

fn zone_of(body: &str) -> Result<ZoneDefined, Refusal> {
    // A twentieth of the work that a zone may cost: real borders take less, and tests are not optimized.
    let steps = Limits::default().geometry_steps_max / 20;
    let limits = Limits { geometry_steps_max: steps, ..Limits::default() };
    zone(zone_id("A").unwrap(), body.as_bytes(), &user(), &limits)
}

fn rule_of(body: &str) -> Result<RuleDefined, Refusal> {
    rule(rule_id("r").unwrap(), body.as_bytes(), &user(), &Limits::default())
}

/// One fix with further members, or with other ones.
fn fix(members: &str) -> String {
    format!(r#"{{"fixes":[{{{members}}}]}}"#)
}

fn good_fix_and(members: &str) -> String {
    fix(&format!(r#""lat":46.5,"lon":7.25,"at":"2026-07-01T11:59:00Z",{members}"#))
}

fn polygon(coordinates: &str) -> String {
    format!(r#"{{"type":"Polygon","coordinates":{coordinates}}}"#)
}

fn circle(radius: &str) -> String {
    format!(
        r#"{{"type":"Feature","properties":{{"radius_m":{radius}}},"geometry":{{"type":"Point","coordinates":[7,46]}}}}"#
    )
}

/// Reports, each with the code that it is refused with and what the detail must name.
fn bad_reports() -> Vec<(String, Code, &'static str)> {
    let many = |n: usize| {
        let fixes = vec![r#"{"lat":1,"lon":1,"at":"2026-07-01T11:59:00Z"}"#; n].join(",");
        format!(r#"{{"fixes":[{fixes}]}}"#)
    };
    let attributes = |n: usize| {
        let members: Vec<_> = (0..n).map(|i| format!(r#""a{i}":1"#)).collect();
        format!(r#""attributes":{{{}}}"#, members.join(","))
    };
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let at = |text: &str| fix(&format!(r#""lat":1,"lon":1,"at":"{text}""#));
    let long = "x".repeat(300);
    vec![
        (String::new(), Code::BadJson, "line 1"),
        ("{".into(), Code::BadJson, "line 1"),
        (deep(100_000), Code::BadField, ""),
        (format!(r#"{{"fixes":{}}}"#, deep(100_000)), Code::BadField, "fixes[0]"),
        (good_fix_and(&format!(r#""x":{}"#, deep(100_000))), Code::BadField, "fixes[0]"),
        (
            good_fix_and(&format!(r#""attributes":{{"a":{}}}"#, deep(100_000))),
            Code::BadAttributes,
            "fixes[0]",
        ),
        (many(1) + "x", Code::BadJson, ""),
        ("[]".into(), Code::BadField, ""),
        ("{}".into(), Code::BadField, "fixes"),
        (r#"{"fixes":[],"fixes":[]}"#.into(), Code::BadField, "fixes"),
        (r#"{"fixes":[],"fixies":1}"#.into(), Code::BadField, "fixies"),
        (r#"{"fixes":[7]}"#.into(), Code::BadField, "fixes[0]"),
        ("[null,null,[]]".into(), Code::BadField, "object"),
        (r#"{"fixes":[[46.5,7.25,"2026-07-01T11:59:00Z"]]}"#.into(), Code::BadField, "fixes[0]"),
        (fix(r#""lat":1,"lon":1"#), Code::BadField, "at"),
        (fix(r#""lat":"46.5","lon":1,"at":"2026-07-01T11:59:00Z""#), Code::BadField, "fixes[0].lat"),
        (fix(r#""lat":NaN,"lon":1,"at":"2026-07-01T11:59:00Z""#), Code::BadJson, "line 1"),
        (good_fix_and(r#""accuracy":5"#), Code::BadField, "accuracy"),
        (r#"{"id":"","fixes":[]}"#.into(), Code::BadClientId, "id"),
        (format!(r#"{{"id":"{long}","fixes":[]}}"#), Code::BadClientId, "300"),
        (r#"{"device":"depot/van-8","fixes":[]}"#.into(), Code::ForeignDevice, "device"),
        (r#"{"fixes":[]}"#.into(), Code::NoFixes, "fixes"),
        (many(1_001), Code::TooManyFixes, "1001"),
        (fix(r#""lat":91,"lon":1,"at":"2026-07-01T11:59:00Z""#), Code::BadLatitude, "fixes[0].lat"),
        (fix(r#""lat":1e999,"lon":1,"at":"2026-07-01T11:59:00Z""#), Code::BadLatitude, "fixes[0].lat"),
        (fix(r#""lat":1,"lon":-180.5,"at":"2026-07-01T11:59:00Z""#), Code::BadLongitude, "fixes[0].lon"),
        (fix(r#""lat":1,"lon":-1e999,"at":"2026-07-01T11:59:00Z""#), Code::BadLongitude, "fixes[0].lon"),
        (at("yesterday"), Code::BadTime, "fixes[0].at"),
        (at("2026-07-01T11:59:00"), Code::BadTime, "fixes[0].at"),
        (at("1970-01-01T00:00:00Z"), Code::TimeTooOld, "fixes[0].at"),
        (at("1999-12-31T23:59:59Z"), Code::TimeTooOld, "2000-01-01"),
        (at("2099-01-01T00:00:00Z"), Code::TimeTooNew, "fixes[0].at"),
        (at("2026-07-02T12:00:01Z"), Code::TimeTooNew, "2026-07-02T12:00:00Z"),
        (good_fix_and(r#""accuracy_m":-1"#), Code::BadAccuracy, "fixes[0].accuracy_m"),
        (good_fix_and(r#""accuracy_m":1e999"#), Code::BadAccuracy, "fixes[0].accuracy_m"),
        (good_fix_and(r#""speed_mps":-0.5"#), Code::BadSpeed, "fixes[0].speed_mps"),
        (good_fix_and(r#""heading_deg":361"#), Code::BadHeading, "fixes[0].heading_deg"),
        (good_fix_and(r#""altitude_m":1e6"#), Code::BadAltitude, "fixes[0].altitude_m"),
        (good_fix_and(&attributes(17)), Code::BadAttributes, "17"),
        (good_fix_and(r#""attributes":{"a":1,"a":2}"#), Code::BadAttributes, "twice"),
        (good_fix_and(r#""attributes":{"":1}"#), Code::BadAttributes, "fixes[0].attributes"),
        (good_fix_and(&format!(r#""attributes":{{"a":"{long}"}}"#)), Code::BadAttributes, "300"),
        (good_fix_and(r#""attributes":[]"#), Code::BadAttributes, "fixes[0].attributes"),
        (good_fix_and(r#""attributes":{"a":null}"#), Code::BadAttributes, "fixes[0].attributes"),
    ]
}

/// Zones, each with the code that it is refused with and what the detail must name.
fn bad_zones() -> Vec<(String, Code, &'static str)> {
    let in_square = |hole: &str| polygon(&format!("[[[0,0],[4,0],[4,4],[0,4],[0,0]],{hole}]"));
    let strip = |n: usize| {
        let places: Vec<_> = (0..n).map(|i| format!("[{},{}]", i as f64 / 1e4, i % 2)).collect();
        polygon(&format!("[[{}]]", places.join(",")))
    };
    let diagonal_comb = |teeth: usize| {
        let step = 80.0 / teeth as f64;
        let tooth = |i: usize| {
            let x = i as f64 * step;
            format!("[{x},{}],[{},{}]", -x, x + 80.0, 80.0 - x)
        };
        let places: Vec<_> = (0..teeth).map(tooth).collect();
        polygon(&format!("[[{},[160,-89],[-1,-89],[0,0]]]", places.join(",")))
    };
    vec![
        ("nothing".into(), Code::BadJson, "line 1"),
        ("[]".into(), Code::BadGeojson, ""),
        (r#"{"type":7}"#.into(), Code::BadGeojson, ""),
        (r#"{"type":"Polygon"}"#.into(), Code::BadGeojson, "coordinates"),
        (r#"{"type":"Feature","geometry":null,"properties":null}"#.into(), Code::BadGeojson, "geometry"),
        (polygon("[[7,46]]"), Code::BadGeojson, "coordinates"),
        (polygon("[[[7]]]"), Code::BadGeojson, "coordinates"),
        (polygon(r#"[[["7",46]]]"#), Code::BadGeojson, "coordinates"),
        (polygon("[[[1e999,46]]]"), Code::BadGeojson, "coordinates"),
        (
            polygon(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))),
            Code::BadGeojson,
            "coordinates",
        ),
        (
            r#"{"type":"LineString","coordinates":[[0,0],[1,1]]}"#.into(),
            Code::UnsupportedGeometry,
            "LineString",
        ),
        (r#"{"type":"GeometryCollection","geometries":[]}"#.into(), Code::UnsupportedGeometry, "Geometry"),
        (r#"{"type":"FeatureCollection","features":[]}"#.into(), Code::UnsupportedGeometry, "Feature"),
        (polygon("[]"), Code::EmptyGeometry, "polygon 0"),
        (r#"{"type":"MultiPolygon","coordinates":[]}"#.into(), Code::EmptyGeometry, ""),
        (polygon("[[[0,0],[4,0],[4,91],[0,0]]]"), Code::BadLatitude, "ring 0, place 2"),
        (polygon("[[[170,0],[190,0],[190,4],[170,0]]]"), Code::BadLongitude, "antimeridian"),
        (strip(100_001), Code::TooManyVertices, "100001"),
        (polygon(&format!("[[{}]]", vec!["[0,0]"; 300_000].join(","))), Code::TooManyVertices, "100000"),
        (polygon(&format!("[{}]", vec!["[]"; 300_000].join(","))), Code::TooManyVertices, "100000"),
        (polygon("[[[0,0],[4,0],[0,0]]]"), Code::TooFewPlaces, "ring 0"),
        (polygon("[[]]"), Code::TooFewPlaces, "ring 0"),
        (polygon("[[[0,0],[4,0],[4,4],[0,4]]]"), Code::UnclosedRing, "ring 0"),
        (in_square("[[1,1],[2,1],[2,2],[1,2]]"), Code::UnclosedRing, "ring 1"),
        (polygon("[[[0,0],[1,1],[2,2],[0,0]]]"), Code::ZeroAreaRing, "ring 0"),
        (polygon("[[[1,1],[1,1],[1,1],[1,1]]]"), Code::ZeroAreaRing, "ring 0"),
        // A bow tie; one through a vertex; a spike; an edge there and back; the whole ring twice.
        (polygon("[[[0,0],[1,1],[1,0],[0,1],[0,0]]]"), Code::CrossingRings, "place"),
        (polygon("[[[0,0],[1,1],[2,2],[2,0],[1,1],[0,2],[0,0]]]"), Code::CrossingRings, "place"),
        (polygon("[[[0,0],[2,0],[2,2],[2,3],[2,2],[0,2],[0,0]]]"), Code::CrossingRings, "place"),
        (polygon("[[[0,0],[3,0],[1,0],[1,2],[0,2],[0,0]]]"), Code::CrossingRings, "place"),
        (polygon("[[[0,0],[2,0],[2,2],[0,0],[2,0],[2,2],[0,0]]]"), Code::CrossingRings, "place"),
        // A border that crosses an edge in its own vertex.
        (polygon("[[[0,0],[4,0],[4,1],[2,0],[1,-1],[0,-1],[0,0]]]"), Code::CrossingRings, "place"),
        (in_square("[[3,1],[5,1],[5,2],[3,2],[3,1]]"), Code::CrossingRings, "ring 1"),
        (in_square("[[0,0],[4,0],[4,4],[0,4],[0,0]]"), Code::CrossingRings, "ring 1"),
        (in_square("[[0,1],[2,1],[2,2],[0,2],[0,1]]"), Code::CrossingRings, "ring 1"),
        (in_square("[[5,5],[6,5],[6,6],[5,6],[5,5]]"), Code::MisplacedHole, "ring 1"),
        (
            in_square("[[1,1],[3,1],[3,3],[1,3],[1,1]],[[2,2],[2.5,2],[2.5,2.5],[2,2]]"),
            Code::MisplacedHole,
            "ring 2",
        ),
        (in_square("[[-1,-1],[5,-1],[5,5],[-1,5],[-1,-1]]"), Code::MisplacedHole, "ring 1"),
        (diagonal_comb(40_000), Code::GeometryTooComplex, "polygon 0"),
        (circle("0"), Code::BadRadius, "radius_m"),
        (circle("-5"), Code::BadRadius, "radius_m"),
        (circle("1e7"), Code::BadRadius, "radius_m"),
        (circle("1e999"), Code::BadRadius, "radius_m"),
        (circle(r#""5""#), Code::BadRadius, "radius_m"),
        (r#"{"type":"Point","coordinates":[7,46]}"#.into(), Code::BadRadius, "radius_m"),
        (circle("5").replace("46", "96"), Code::BadLatitude, "Point"),
        (circle("5").replace("[7", "[187"), Code::BadLongitude, "Point"),
    ]
}

/// Rules, each with the code that it is refused with and what the detail must name.
fn bad_rules() -> Vec<(String, Code, &'static str)> {
    let rule = |on: &str, zones: &str, subjects: &str, notify: &str| {
        format!(r#"{{"on":{on},"zones":{zones},"subjects":{subjects},"notify":{notify}}}"#)
    };
    let all = r#""all""#;
    let many = format!("[{}]", vec![r#""A""#; 1_001].join(","));
    vec![
        ("{".into(), Code::BadJson, ""),
        ("{}".into(), Code::BadField, "on"),
        (r#"[["enter"],"all","all",[]]"#.into(), Code::BadField, "object"),
        (rule(r#"["enter"]"#, r#""some""#, all, "[]"), Code::BadField, ""),
        (rule(r#"["enter"]"#, all, all, "[7]"), Code::BadField, ""),
        (rule("[]", all, all, "[]"), Code::BadTriggers, "on"),
        (rule(r#"["enter","leave"]"#, all, all, "[]"), Code::BadTriggers, "on[1]"),
        (rule(r#"["enter"]"#, "[]", all, "[]"), Code::EmptyList, "zones"),
        (rule(r#"["enter"]"#, all, "[]", "[]"), Code::EmptyList, "subjects"),
        (rule(r#"["enter"]"#, r#"[" A"]"#, all, "[]"), Code::BadId, "zones[0]"),
        (rule(r#"["enter"]"#, all, r#"["a","a/b/c"]"#, "[]"), Code::BadId, "subjects[1]"),
        (rule(r#"["enter"]"#, all, all, r#"["a b"]"#), Code::BadId, "notify[0]"),
        (rule(r#"["enter"]"#, &many, all, "[]"), Code::TooManyNames, "zones"),
        (rule(r#"["enter"]"#, all, all, &many), Code::TooManyNames, "notify"),
    ]
}

fn bad_holes() -> Vec<(String, Code, &'static str)> {
    let of = |position: &str| format!(r#"{{"position":"{position}"}}"#);
    vec![
        (of("positions/3/1288"), Code::BadPosition, "positions"),
        (of("dead-letters/3/1288"), Code::BadPosition, "dead-letters"),
        (of("nowhere/3/1288"), Code::BadPosition, "position"),
        (of("inboxes/3"), Code::BadPosition, "position"),
        (of("inboxes/3/1288/0"), Code::BadPosition, "position"),
        (of("inboxes/-3/1"), Code::BadPosition, "position"),
        (of("inboxes/3/+1"), Code::BadPosition, "position"),
        (r#"{"position":7}"#.into(), Code::BadField, "string"),
        (r#"["inboxes/3/1288"]"#.into(), Code::BadField, "object"),
        (r#"{"position":"inboxes/3/1288","by":"me"}"#.into(), Code::BadField, "by"),
        ("{".into(), Code::BadJson, "EOF"),
    ]
}

fn bad_skips() -> Vec<(String, Code, &'static str)> {
    let of = |machine: &str| format!(r#"{{"machine":"{machine}","position":"positions/3/1288"}}"#);
    vec![
        (of("alerts"), Code::BadPosition, "alerts folds matches"),
        (of("inboxes"), Code::BadPosition, "inboxes folds acks and inboxes"),
        (of("projector"), Code::UnknownMachine, "spatial"),
        (of(""), Code::UnknownMachine, "machine"),
        (r#"{"position":"positions/3/1288"}"#.into(), Code::BadField, "machine"),
        (r#"{"machine":"spatial","position":"positions/3/x"}"#.into(), Code::BadPosition, "position"),
    ]
}

fn bad_behaviours() -> Vec<(String, Code, &'static str)> {
    let of = |machine: &str, number: &str| format!(r#"{{"machine":"{machine}","number":{number}}}"#);
    vec![
        (of("spatial", "0"), Code::UnknownBehaviour, "behaviours 1 to 1 of spatial"),
        (of("spatial", "2"), Code::UnknownBehaviour, "number is 2"),
        (of("spatial", "-2147483648"), Code::UnknownBehaviour, "number"),
        (of("spatial", "4294967297"), Code::BadField, "4294967297"),
        (of("spatial", "1.5"), Code::BadField, "1.5"),
        (of("ingest", "1"), Code::UnknownMachine, "machine"),
    ]
}

#[test]
fn what_an_operator_may_say_of_the_log_is_read() {
    let by = user();
    let accepted = hole(br#"{"position":"inboxes/3/1288"}"#, &by).unwrap();
    assert_eq!((accepted.position().to_string().as_str(), &accepted.by), ("inboxes/3/1288", &by));
    let skipped = skip(br#"{"machine":"spatial","position":"positions/3/1288"}"#, &by).unwrap();
    assert_eq!((&*skipped.machine, &*skipped.position().to_string()), ("spatial", "positions/3/1288"));
    let looked_at = skip(br#"{"machine":"inboxes","position":"inboxes/3/1288"}"#, &by).unwrap();
    assert_eq!(looked_at.position().to_string(), "inboxes/3/1288");
    let set = behaviour(br#"{"machine":"alerts","number":1}"#, &by).unwrap();
    assert_eq!((&*set.machine, set.number), ("alerts", 1));
}

/// Codes that admission does not give: they need a log.
const OF_THE_LOG: [Code; 7] = [
    Code::AckBeyondEnd,
    Code::NotInTheLog,
    Code::MachineRuns,
    Code::AlreadyFolded,
    Code::RecordTooLarge,
    Code::RegistryBehind,
    Code::LogUnavailable,
];

fn check<T>(cases: Vec<(String, Code, &str)>, admit: impl Fn(&str) -> Result<T, Refusal>) -> BTreeSet<Code> {
    let mut reached = BTreeSet::new();
    for (body, code, names) in cases {
        let shown: String = body.chars().take(120).collect();
        let refusal = admit(&body).err().unwrap_or_else(|| panic!("{shown} was let in"));
        assert_eq!(refusal.code, code, "{shown}: {refusal}");
        assert!(refusal.detail.contains(names), "{shown}: {refusal}");
        reached.insert(refusal.code);
    }
    reached
}

#[test]
fn every_refusal_has_its_code_and_names_the_place() {
    let mut reached = check(bad_reports(), |body| report_of(body, false));
    reached.extend(check(bad_zones(), zone_of));
    reached.extend(check(bad_rules(), rule_of));
    let by = user();
    reached.extend(check(bad_holes(), |body| hole(body.as_bytes(), &by)));
    reached.extend(check(bad_skips(), |body| skip(body.as_bytes(), &by)));
    reached.extend(check(bad_behaviours(), |body| behaviour(body.as_bytes(), &by)));
    reached.extend(frame_tests::refusals());
    reached.extend(OF_THE_LOG);
    let missing: Vec<_> = Code::ALL.iter().filter(|c| !reached.contains(c)).collect();
    assert!(missing.is_empty(), "no case reaches {missing:?}");
    assert_eq!(zone_id(" A").unwrap_err().code, Code::BadId);
    assert_eq!(rule_id("").unwrap_err().code, Code::BadId);
    assert_eq!(report_of(r#"{"device":"a/b/c","fixes":[]}"#, true).unwrap_err().code, Code::BadId);
}

#[test]
fn a_fix_keeps_what_was_reported_to_the_last_bit() {
    let body = r#"{"id":"7","fixes":[
        {"lat":46.123456789012345,"lon":-180,"at":"2018-07-30T04:00:23.25+02:00","accuracy_m":0,"speed_mps":null,
         "heading_deg":360,"altitude_m":-3.5,"attributes":{"battery":71,"door":true,"t":-2.5,"\u00e9":"\"x\""}},
        {"lat":46.123456789012345,"lon":-180,"at":"2018-07-30T04:00:23.25+02:00"}]}"#;
    let report = report_of(body, false).unwrap();
    assert_eq!(
        (report.id.as_deref(), report.device.as_str(), report.fixes.len()),
        (Some("7"), "depot/van-7", 2)
    );
    let fix = &report.fixes[0];
    assert_eq!(
        (fix.lat.to_bits(), fix.lon),
        ("46.123456789012345".parse::<f64>().unwrap().to_bits(), -180.0)
    );
    assert_eq!(fix.at_us.to_string(), "2018-07-30T02:00:23.25Z");
    assert_eq!((fix.accuracy_m, fix.speed_mps), (Some(0.0), None));
    assert_eq!((fix.heading_deg, fix.altitude_m, fix.registry), (Some(360.0), Some(-3.5), -1));
    let attributes: Vec<_> = fix.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(attributes, [("battery", "71"), ("door", "true"), ("t", "-2.5"), ("é", "\"x\"")]);
}

#[test]
fn only_an_operator_reports_for_another_device() {
    let body = |device: &str| {
        format!(r#"{{"device":"{device}","fixes":[{{"lat":1,"lon":1,"at":"2026-07-01T12:04:00Z"}}]}}"#)
    };
    for (device, operator, stored) in [
        ("depot/van-7", false, Some("depot/van-7")),
        ("depot/van-8", true, Some("depot/van-8")),
        ("depot/van-8", false, None),
    ] {
        let report = report_of(&body(device), operator);
        assert_eq!(report.ok().as_ref().map(|r| r.device.as_str()), stored);
    }
}

#[test]
fn shapes_that_touch_themselves_and_overlap_as_real_borders_do_are_taken() {
    for coordinates in [
        // A square; the other way round; with a third coordinate; with a place twice.
        "[[[0,0],[4,0],[4,4],[0,4],[0,0]]]",
        "[[[0,0],[0,4],[4,4],[4,0],[0,0]]]",
        "[[[0,0,9],[4,0,9,8],[4,4,9],[0,4,9],[0,0,9]]]",
        "[[[0,0],[4,0],[4,0],[4,4],[0,4],[0,0],[0,0]]]",
        // Two halves that meet in a vertex; a vertex that touches an edge.
        "[[[0,0],[1,1],[2,0],[2,2],[1,1],[0,2],[0,0]]]",
        "[[[0,0],[4,0],[4,4],[2,0],[0,4],[0,0]]]",
        // A hole; one that touches the outer ring in a vertex, in an edge; one in all its vertices.
        "[[[0,0],[4,0],[4,4],[0,4],[0,0]],[[1,1],[2,1],[2,2],[1,2],[1,1]]]",
        "[[[0,0],[4,0],[4,4],[0,4],[0,0]],[[0,0],[2,1],[1,2],[0,0]]]",
        "[[[0,0],[4,0],[4,4],[0,4],[0,0]],[[2,0],[3,1],[1,1],[2,0]]]",
        "[[[0,0],[4,0],[4,4],[0,4],[0,0]],[[2,0],[4,2],[2,4],[0,2],[2,0]]]",
        // Two holes that meet in a vertex.
        "[[[0,0],[4,0],[4,4],[0,4],[0,0]],[[1,1],[2,1],[2,2],[1,1]],[[2,2],[3,2],[3,3],[2,2]]]",
        // All of the world.
        "[[[-180,-90],[180,-90],[180,90],[-180,90],[-180,-90]]]",
    ] {
        let zone = zone_of(&polygon(coordinates)).unwrap_or_else(|e| panic!("{coordinates}: {e}"));
        assert!(matches!(zone.geometry, Geometry::Polygon(_)));
    }
    let many = r#"{"type":"Feature","id":7,"bbox":[],"properties":{"a":[[[]]]},"geometry":{
        "coordinates":[[[[0,0],[4,0],[4,4],[0,0]]],[[[1,1],[5,1],[5,5],[1,1]]]],"type":"MultiPolygon"}}"#;
    let Geometry::MultiPolygon(many) = zone_of(many).unwrap().geometry else { panic!("not a multipolygon") };
    assert_eq!(many.polygons.len(), 2);
    let Geometry::Circle(circle) = zone_of(&circle("250.5")).unwrap().geometry else {
        panic!("not a circle")
    };
    assert_eq!((circle.centre.lon, circle.centre.lat, circle.radius_m), (7.0, 46.0, 250.5));
}

#[test]
fn equal_rules_are_equal_records_however_they_are_written() {
    let one = rule_of(r#"{"on":["enter","exit"],"zones":["B","A"],"subjects":"all","notify":["b","a","b"]}"#)
        .unwrap();
    let other = r#"{"subjects":"all","zones":["A","B","A"],"notify":["a","b"],"on":["exit","enter","exit"]}"#;
    assert_eq!(one, rule_of(other).unwrap());
    assert_eq!(one.on, [Crossing::Exit, Crossing::Enter]);
    assert_eq!(one.subjects, None);
    assert_eq!(rule_of(r#"{"on":["exit"],"zones":"all","subjects":["x"]}"#).unwrap().notify, []);
}

/// A star-shaped ring around a centre: never crosses itself.
fn star(centre: (f64, f64), radii: &[f64]) -> Vec<(f64, f64)> {
    let angle = |i: usize| i as f64 / radii.len() as f64 * TAU;
    let place = |(i, r): (usize, &f64)| (centre.0 + r * angle(i).cos(), centre.1 + r * angle(i).sin());
    let mut ring: Vec<_> = radii.iter().enumerate().map(place).collect();
    ring.push(ring[0]);
    ring
}

fn rings_of(rings: &[Vec<(f64, f64)>]) -> String {
    let ring =
        |r: &Vec<(f64, f64)>| r.iter().map(|(x, y)| format!("[{x},{y}]")).collect::<Vec<_>>().join(",");
    polygon(&format!("[{}]", rings.iter().map(|r| format!("[{}]", ring(r))).collect::<Vec<_>>().join(",")))
}

/// Whether any two edges that are no neighbours meet, by trying all of them.
fn meets_itself(ring: &[(f64, f64)]) -> bool {
    let side =
        |a: (f64, f64), b: (f64, f64), c: (f64, f64)| (b.0 - a.0) * (c.1 - a.1) - (b.1 - a.1) * (c.0 - a.0);
    let edges: Vec<_> = ring.windows(2).map(|w| (w[0], w[1])).collect();
    let meet = |(a, b), (c, d)| side(a, b, c) * side(a, b, d) < 0.0 && side(c, d, a) * side(c, d, b) < 0.0;
    (0..edges.len()).any(|i| edges[i + 1..].iter().any(|other| meet(edges[i], *other)))
}

proptest! {
    #[test]
    fn a_star_with_a_star_in_it_is_taken(
        outer in prop::collection::vec(5.0_f64..9.0, 3..60),
        inner in prop::collection::vec(0.1_f64..2.0, 3..60),
        turned in any::<bool>(),
    ) {
        let (outer, mut inner) = (star((10.0, 40.0), &outer), star((10.0, 40.0), &inner));
        if turned {
            inner.reverse();
        }
        prop_assert!(zone_of(&rings_of(&[outer.clone(), inner.clone()])).is_ok());
        let refused = zone_of(&rings_of(&[inner, outer])).unwrap_err();
        prop_assert_eq!(refused.code, Code::MisplacedHole);
    }

    #[test]
    fn a_ring_of_random_places_is_refused_exactly_where_trying_all_pairs_finds_a_crossing(
        places in prop::collection::vec((0_i8..40, 0_i8..40), 3..9),
    ) {
        // Off the grid by a little that differs for each, so that nothing touches without crossing.
        let nudged = places.iter().enumerate().map(|(i, (x, y))| {
            (f64::from(*x) + (i * i) as f64 * 1e-3, f64::from(*y) + i as f64 * 1.7e-3)
        });
        let mut ring: Vec<_> = nudged.collect();
        ring.push(ring[0]);
        match zone_of(&rings_of(std::slice::from_ref(&ring))) {
            Ok(_) => prop_assert!(!meets_itself(&ring)),
            Err(refusal) if refusal.code == Code::CrossingRings => prop_assert!(meets_itself(&ring)),
            Err(refusal) => prop_assert_eq!(refusal.code, Code::ZeroAreaRing),
        }
    }

    #[test]
    fn no_body_makes_admission_panic(body in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
        let device = DeviceId::new("a").unwrap();
        for body in [&body[..], text.as_bytes()] {
            let sender = Sender { device: &device, operator: true };
            let _ = report(body, sender, &Limits::default(), NOW);
            let _ = zone(zone_id("A").unwrap(), body, &user(), &Limits::default());
            let _ = rule(rule_id("A").unwrap(), body, &user(), &Limits::default());
        }
    }
}
