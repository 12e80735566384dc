//! Every refusal of a frame by small cases, both sides of every bound, and frames broken at random.

use std::collections::BTreeSet;

use proptest::prelude::*;
use waypost_schemas::{
    client_id::ClientId,
    event::MessageSent,
    frame::{Begin, Down, Fix, Up},
    id::{ConversationId, DeviceId, DeviceName, UserId},
    time::Micros,
};

use super::*;

/// 2026-07-01T12:00:00Z, which is now in these tests.
const NOW: Micros = Micros(1_782_907_200_000_000);

fn frame_of(text: &str) -> Result<Frame, FrameRefusal> {
    let device = DeviceId::new("bob/phone").unwrap();
    frame(text, Sender { device: &device, operator: false }, &Limits::default(), NOW)
}

fn message_of(text: &str) -> Result<MessageSent, Refusal> {
    let device = DeviceId::new("bob/phone").unwrap();
    message(text.as_bytes(), Sender { device: &device, operator: true }, &Limits::default(), NOW)
}

/// The id of some time after now, by its random bits.
fn id(after_us: i64, random: u128) -> ClientId {
    ClientId::new(Micros(NOW.0 + after_us), random)
}

/// A send with further members, under an id of now.
fn send(members: &str) -> String {
    format!(r#"{{"type":"send","id":"{}",{members}}}"#, id(0, 7))
}

fn send_of(id: &str) -> String {
    format!(r#"{{"type":"send","id":"{id}","to":"alice","body":"x"}}"#)
}

fn body_of(bytes: usize) -> String {
    send(&format!(r#""to":"alice","body":"{}""#, "x".repeat(bytes)))
}

fn typed(content_type: &str) -> String {
    send(&format!(r#""to":"alice","content_type":"{content_type}","body":"x""#))
}

/// Frames, each with the code that it is refused with and what the detail must name.
fn bad_frames() -> Vec<(String, Code, &'static str)> {
    let deep = "[".repeat(100_000);
    let settled = |settled: &str| send(&format!(r#""settled":"{settled}","to":"alice","body":"x""#));
    let of = |text: &str| text.to_owned();
    let long = "a".repeat(65);
    vec![
        (String::new(), Code::BadJson, "line 1"),
        (of("{"), Code::BadJson, "line 1"),
        (of(r#"{"type":"ping"}{"#), Code::BadJson, "line 1"),
        (of(r#"{"type":"ack","upto":NaN}"#), Code::BadJson, "line 1"),
        (of(r#"{"type":"ack","upto":01}"#), Code::BadJson, "line 1"),
        (of(r#"{"type":"report","id":"1","fixes":[{"lat":NaN,"lon":0}]}"#), Code::BadJson, ""),
        (of("{\"type\":\"ping\",\"x\":\"\u{1}\"}"), Code::BadJson, ""),
        (send(r#""to":"alice","body":"\ud800""#), Code::BadJson, ""),
        (format!(r#"{{"type":"ping","x":{deep}"#), Code::BadJson, ""),
        (deep.clone(), Code::BadField, "a frame"),
        (of("[]"), Code::BadField, "a frame"),
        (of(r#"["ping"]"#), Code::BadField, "a frame"),
        (of("null"), Code::BadField, "a frame"),
        (of("{}"), Code::BadField, "type"),
        (of(r#"{"upto":1}"#), Code::BadField, "type"),
        (of(r#"{"type":null}"#), Code::BadField, "type"),
        (of(r#"{"type":["ping"]}"#), Code::BadField, "type"),
        (of(r#"{"type":"ping","type":"ping"}"#), Code::BadField, "type"),
        (of(r#"{"type":"ping","x":1}"#), Code::BadField, "x"),
        (of(r#"{"type":""}"#), Code::UnknownFrame, "\"\""),
        (of(r#"{"type":"shout"}"#), Code::UnknownFrame, "shout"),
        (of(r#"{"type":"welcome"}"#), Code::UnknownFrame, "welcome"),
        (of(r#"{"type":"Ping"}"#), Code::UnknownFrame, "Ping"),
        (format!(r#"{{"type":"{}"}}"#, "é".repeat(1_000)), Code::UnknownFrame, "é"),
        (format!("{}{{}}", " ".repeat(512 << 10)), Code::FrameTooLarge, "524288"),
        (of(r#"{"type":"hello","from":"end"}"#), Code::BadField, "end"),
        (of(r#"{"type":"hello","offset":"7"}"#), Code::BadField, "7"),
        (of(r#"{"type":"hello","offset":-1}"#), Code::BadOffset, "offset"),
        (format!(r#"{{"type":"hello","log":"{}"}}"#, "x".repeat(129)), Code::BadField, "log"),
        (of(r#"{"type":"ack"}"#), Code::BadField, "upto"),
        (of(r#"{"type":"ack","upto":null}"#), Code::BadField, "null"),
        (of(r#"{"type":"ack","upto":1.5}"#), Code::BadField, "1.5"),
        (of(r#"{"type":"ack","upto":1,"upto":1}"#), Code::BadField, "upto"),
        (of(r#"{"type":"ack","upto":9223372036854775808}"#), Code::BadField, "9223372036854775808"),
        (of(r#"{"type":"ack","upto":-1}"#), Code::BadOffset, "upto is -1"),
        (of(r#"{"type":"read","upto":-9223372036854775808}"#), Code::BadOffset, "upto"),
        (of(r#"{"type":"read","upto":1,"id":"x"}"#), Code::BadField, "id"),
        (
            of(r#"{"type":"report","fixes":[{"lat":1,"lon":1,"at":"2026-07-01T11:59:00Z"}]}"#),
            Code::BadField,
            "id",
        ),
        (of(r#"{"type":"report","id":"r","fixes":[]}"#), Code::NoFixes, "fixes"),
        (
            of(r#"{"type":"report","id":"r","fixes":[{"lat":91,"lon":1,"at":"2026-07-01T11:59:00Z"}]}"#),
            Code::BadLatitude,
            "fixes[0].lat",
        ),
        (of(r#"{"type":"report","id":"r","device":"alice","fixes":[]}"#), Code::ForeignDevice, "device"),
        (of(r#"{"type":"send","to":"alice","body":"x"}"#), Code::BadField, "id"),
        (send(r#""to":"alice""#), Code::BadField, "body"),
        (send(r#""to":"alice","body":7"#), Code::BadField, "7"),
        (send(r#""to":"alice","body":"x","body":"y""#), Code::BadField, "body"),
        (send(r#""to":"alice","body":"x","sender":"carol""#), Code::BadField, "sender"),
        (send(r#""to":"alice","body":"x","reply_to":-1"#), Code::BadOffset, "reply_to"),
        (send_of(""), Code::BadClientId, "id is not a UUIDv7"),
        (send_of("1"), Code::BadClientId, "id"),
        (send_of(&id(0, 7).to_string().to_uppercase()), Code::BadClientId, "id"),
        (send_of("017f22e2-79b0-4cc3-98c4-dc0c0c07398f"), Code::BadClientId, "id"),
        (send_of(&id(-6 * 24 * Micros::HOUR - 1, 0).to_string()), Code::Clock, "2026-07-01T12:00:00Z"),
        (send_of(&id(5 * Micros::MINUTE + 1_000, 0).to_string()), Code::Clock, "2026-07-01T12:00:00Z"),
        (send_of("ffffffff-ffff-7fff-bfff-ffffffffffff"), Code::Clock, "id"),
        (settled("1"), Code::BadSettled, "settled"),
        (settled(&id(0, 7).to_string()), Code::BadSettled, "settled"),
        (settled(&id(0, 8).to_string()), Code::BadSettled, "settled"),
        (send(r#""body":"x""#), Code::BadRecipient, "neither"),
        (send(r#""to":"alice","conversation":"alice~bob","body":"x""#), Code::BadRecipient, "both"),
        (send(r#""to":"a b","body":"x""#), Code::BadId, "to"),
        (send(r#""to":"","body":"x""#), Code::BadId, "to"),
        (send(&format!(r#""to":"{long}","body":"x""#)), Code::BadId, "to"),
        (send(r#""conversation":"alice","body":"x""#), Code::BadId, "conversation"),
        (send(r#""conversation":"bob~alice","body":"x""#), Code::BadId, "conversation"),
        (send(r#""conversation":"alice~carol","body":"x""#), Code::NotAMember, "bob"),
        (send(r#""conversation":"alice~bobby","body":"x""#), Code::NotAMember, "bob"),
        (typed(""), Code::BadMediaType, "content_type"),
        (typed("text"), Code::BadMediaType, "content_type"),
        (typed(&format!("a/{}", "b".repeat(127))), Code::BadMediaType, "129"),
        (send(r#""to":"alice","body":"""#), Code::EmptyBody, "body"),
        (body_of((64 << 10) + 1), Code::MessageTooLarge, "65536"),
    ]
}

/// The codes that frames are refused with.
pub(super) fn refusals() -> BTreeSet<Code> {
    let mut reached = BTreeSet::new();
    for (text, code, names) in bad_frames() {
        let shown: String = text.chars().take(120).collect();
        let refusal = frame_of(&text).err().unwrap_or_else(|| panic!("{shown} was let in")).refusal;
        assert_eq!(refusal.code, code, "{shown}: {refusal}");
        assert!(
            refusal.detail.contains(names) && refusal.detail.len() <= DETAIL_BYTES_MAX,
            "{shown}: {refusal}"
        );
        assert_eq!(refusal.time, (code == Code::Clock).then_some(NOW), "{shown}");
        reached.insert(code);
    }
    reached
}

#[test]
fn a_refusal_is_told_under_the_frames_own_id_where_it_has_one() {
    let check = |text: &str, id: Option<&str>| {
        assert_eq!(frame_of(text).unwrap_err().id.as_deref(), id, "{text}");
    };
    check(r#"{"type":"shout","id":"7"}"#, Some("7"));
    check(r#"{"id":"\u0037","type":"send"}"#, Some("7"));
    check(r#"{"id":"7"}"#, Some("7"));
    check(r#"{"type":"report","id":"r","fixes":[]}"#, Some("r"));
    check(r#"{"type":"send","id":7}"#, None);
    check(r#"{"type":"send","id":null}"#, None);
    check(r#"{"type":"send","id":"7""#, None);
    check(&format!(r#"{{"type":"send","id":"{}"}}"#, "x".repeat(129)), None);
    let refused = frame_of(&send_of(&id(Micros::HOUR, 0).to_string())).unwrap_err();
    let told = serde_json::to_value(Down::from(refused)).unwrap();
    assert_eq!((&told["type"], &told["code"]), (&"refused".into(), &"clock".into()));
    assert_eq!(
        (&told["id"], &told["time"]),
        (&id(Micros::HOUR, 0).to_string().into(), &"2026-07-01T12:00:00Z".into())
    );
}

#[test]
fn what_is_within_every_bound_is_taken() {
    let taken =
        |text: &str| frame_of(text).unwrap_or_else(|refused| panic!("{text:.200}: {}", refused.refusal));
    for (at_us, random) in [(-6 * 24 * Micros::HOUR, 0), (0, u128::MAX), (5 * Micros::MINUTE, u128::MAX)] {
        taken(&send_of(&id(at_us, random).to_string()));
    }
    taken(&send(&format!(r#""settled":"{}","to":"alice","body":"x""#, id(0, 6))));
    taken(&send(&format!(r#""to":"{}","body":"x""#, "a".repeat(64))));
    taken(&body_of(64 << 10));
    // Each byte of the largest body, escaped.
    taken(&send(&format!(r#""to":"alice","body":"{}""#, r"\u0001".repeat(64 << 10))));
    taken(&format!("{}{}", r#"{"type":"ping"}"#, " ".repeat((512 << 10) - 15)));
    taken(&typed(&format!("a/{}", "b".repeat(126))));
    taken(&send(r#""conversation":"bob~carol","body":"x""#));
    taken(&send(r#""to":"bob","body":"x""#));
    for offset in [0, i64::MAX] {
        assert_eq!(taken(&format!(r#"{{"type":"ack","upto":{offset}}}"#)), Frame::Ack { upto: offset });
        assert_eq!(taken(&format!(r#"{{"upto":{offset},"type":"read"}}"#)), Frame::Read { upto: offset });
    }
    assert_eq!(taken("\n {\"type\" : \"ping\"} "), Frame::Ping);
    let log = "x".repeat(128);
    let hello = Frame::Hello { from: Some(Begin::Resume), offset: Some(0), log: Some(log.clone()) };
    assert_eq!(taken(&format!(r#"{{"type":"hello","from":"resume","offset":0,"log":"{log}"}}"#)), hello);
    let hello = Frame::Hello { from: None, offset: None, log: None };
    assert_eq!(taken(r#"{"type":"hello","from":null}"#), hello);
}

#[test]
fn a_message_is_of_its_senders_device_and_a_post_is_its_frame_without_a_type() {
    let text = send(r#""to":"alice","content_type":"text/x;a=b","body":"h\u00e4\u0000\"","reply_to":0"#);
    let said = MessageSent {
        conversation: ConversationId::new("alice~bob").unwrap(),
        sender: UserId::new("bob").unwrap(),
        device: DeviceName::new("phone").unwrap(),
        client_id: id(0, 7).to_string(),
        settled: None,
        content_type: "text/x;a=b".into(),
        body: "hä\0\"".into(),
        reply_to: Some(0),
        registry: -1,
    };
    assert_eq!(frame_of(&text), Ok(Frame::Send(said.clone())));
    assert_eq!(message_of(&text.replace(r#""type":"send","#, "")), Ok(said));
    assert_eq!(message_of(&text).unwrap_err().code, Code::BadField);
    let plain = message_of(&send(r#""conversation":"bob~bob","body":"x""#).replace(r#""type":"send","#, ""));
    assert_eq!(plain.unwrap().content_type, "text/plain");
    let report = r#"{"type":"report","id":"r","fixes":[{"lat":1,"lon":1,"at":"2026-07-01T11:59:00Z"}]}"#;
    let device = DeviceId::new("bob/phone").unwrap();
    let sender = Sender { device: &device, operator: false };
    let posted =
        super::report(report.replace(r#""type":"report","#, "").as_bytes(), sender, &Limits::default(), NOW);
    assert_eq!(frame_of(report), Ok(Frame::Report { id: "r".into(), report: posted.unwrap() }));
    let typed = super::report(report.as_bytes(), sender, &Limits::default(), NOW);
    assert_eq!(typed.unwrap_err().code, Code::BadField);
}

/// Frames as a client's library writes them.
fn written() -> impl Strategy<Value = Up> {
    let hello = (any::<Option<i64>>(), any::<Option<String>>()).prop_map(|(offset, log)| Up::Hello {
        from: Some(Begin::Resume),
        offset,
        log,
    });
    let send = (any::<i32>(), any::<u128>(), "[a-z~ ]{0,4}", ".{0,40}", any::<Option<i64>>()).prop_map(
        |(after_s, random, to, body, reply_to)| Up::Send {
            id: id(i64::from(after_s) * 1_000, random).to_string(),
            settled: Some(id(0, random).to_string()),
            to: UserId::new(to.as_str()).ok(),
            conversation: ConversationId::new(to).ok(),
            content_type: None,
            body,
            reply_to,
        },
    );
    let report = (any::<f64>(), any::<i64>(), any::<Option<f32>>()).prop_map(|(lat, at, accuracy_m)| {
        let (at, attributes) = (Micros(at % NOW.0), [("a".to_owned(), "b".to_owned())].into());
        let fix = Fix {
            lat,
            lon: lat,
            at,
            accuracy_m,
            speed_mps: None,
            heading_deg: None,
            altitude_m: None,
            attributes,
        };
        Up::Report { id: "r".into(), fixes: vec![fix] }
    });
    let upto = any::<i64>().prop_map(|upto| if upto % 2 == 0 { Up::Ack { upto } } else { Up::Read { upto } });
    prop_oneof![hello, send, report, upto, Just(Up::Ping)]
}

/// Whatever a frame is taken as stands within the bounds that readers of the log rely on.
fn within_bounds(text: &str) -> Result<(), TestCaseError> {
    match frame_of(text) {
        Ok(Frame::Send(said)) => {
            let id: ClientId = said.client_id.parse().map_err(|_| TestCaseError::fail("client id"))?;
            prop_assert!((id.at().0 - NOW.0).abs() <= 6 * 24 * Micros::HOUR);
            prop_assert!(said.settled.is_none_or(|s| s.parse::<ClientId>().is_ok_and(|s| s < id)));
            prop_assert!((1..=64 << 10).contains(&said.body.len()));
            let (a, b) = said.conversation.members();
            prop_assert!([a, b].contains(&said.sender));
            prop_assert_eq!((said.sender.as_str(), said.device.as_str()), ("bob", "phone"));
        }
        Ok(Frame::Report { report, .. }) => prop_assert_eq!(report.device.as_str(), "bob/phone"),
        Ok(Frame::Ack { upto } | Frame::Read { upto }) => prop_assert!(upto >= 0),
        Ok(Frame::Hello { offset, .. }) => prop_assert!(offset.is_none_or(|offset| offset >= 0)),
        Ok(Frame::Ping) => {}
        Err(refused) => prop_assert!(refused.refusal.detail.len() <= DETAIL_BYTES_MAX),
    }
    Ok(())
}

proptest! {
    #[test]
    fn frames_that_are_written_are_read_or_refused_within_bounds(frame in written()) {
        within_bounds(&serde_json::to_string(&frame).unwrap())?;
    }

    #[test]
    fn frames_that_are_broken_are_refused_or_mean_something_else(
        frame in written(),
        at in any::<prop::sample::Index>(),
        cut in 0_usize..4,
        put in "[\"\\\\{}\\[\\]:,0-9a-z\u{0}é]{0,4}",
    ) {
        let chars: Vec<char> = serde_json::to_string(&frame).unwrap().chars().collect();
        let at = at.index(chars.len());
        let rest = (at + cut).min(chars.len());
        let broken: String = chars[..at].iter().copied().chain(put.chars()).chain(chars[rest..].iter().copied()).collect();
        within_bounds(&broken)?;
    }

    #[test]
    fn no_text_makes_admission_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), text in ".{0,300}") {
        within_bounds(&String::from_utf8_lossy(&bytes))?;
        within_bounds(&text)?;
        let _ = message_of(&text);
    }
}
