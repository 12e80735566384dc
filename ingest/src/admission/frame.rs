use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use waypost_schemas::{
    event::MessageSent,
    frame::{Begin, Down},
    time::Micros,
};

use super::{Limits, Refusal, Report, Sender, ensure, message, object::Object, positions};
use crate::code::Code;

/// What a device said on its connection, with everything checked that it and its token alone can show.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// The device is here.
    Hello {
        /// Where it wants to begin.
        from: Option<Begin>,
        /// The offset of the last entry that it has; 0 or more.
        offset: Option<i64>,
        /// The log that the offset is of.
        log: Option<String>,
    },
    /// A message; its stamp is still -1.
    Send(MessageSent),
    /// Fixes, with the device's own id of them.
    Report {
        /// The device's own id of the report.
        id: String,
        /// The fixes.
        report: Report,
    },
    /// The device has all entries up to an offset; 0 or more.
    Ack {
        /// The offset of an entry.
        upto: i64,
    },
    /// The user has read the conversation of an entry up to it; 0 or more.
    Read {
        /// The offset of an entry.
        upto: i64,
    },
    /// Is anybody there?
    Ping,
}

/// A refusal of a frame, with the device's own id of it where it had one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameRefusal {
    /// The device's own id of what is refused.
    pub id: Option<String>,
    /// Why.
    pub refusal: Refusal,
}

impl From<FrameRefusal> for Down {
    fn from(FrameRefusal { id, refusal }: FrameRefusal) -> Self {
        let Refusal { code, detail, time } = refusal;
        Self::Refused { id, code: code.as_str().to_owned(), detail, retry_after: None, time }
    }
}

/// Reads a JSON text frame of a device and checks all of it.
///
/// Every frame is one object with a `type`; see [`waypost_schemas::frame::Up`]. A report is admitted as the body of
/// `POST /v1/positions` is, and a send as that of `POST /v1/messages`.
pub fn frame(text: &str, sender: Sender<'_>, limits: &Limits, now: Micros) -> Result<Frame, FrameRefusal> {
    let refused = |refusal| FrameRefusal { id: None, refusal };
    ensure(text.len() <= limits.frame_bytes_max, Code::FrameTooLarge, || {
        format!("the frame has {} bytes; {} are taken", text.len(), limits.frame_bytes_max)
    })
    .map_err(refused)?;
    let head: Head<'_> = serde_json::from_str(text).map_err(|e| refused(Refusal::unreadable(&e)))?;
    body(&head, text, sender, limits, now).map_err(|refusal| FrameRefusal { id: head.id(limits), refusal })
}

fn body(
    head: &Head<'_>,
    text: &str,
    sender: Sender<'_>,
    limits: &Limits,
    now: Micros,
) -> Result<Frame, Refusal> {
    Ok(match &*head.kind()? {
        "hello" => hello(text, limits)?,
        "send" => Frame::Send(message::admit(message::read(text.as_bytes())?, sender, limits, now)?),
        "report" => {
            let report = positions::admit(positions::read(text.as_bytes())?, sender, limits, now)?;
            let id = report.id.clone().ok_or_else(|| Refusal::new(Code::BadField, "id is missing"))?;
            Frame::Report { id, report }
        }
        "ack" => Frame::Ack { upto: upto(text)? },
        "read" => Frame::Read { upto: upto(text)? },
        "ping" => {
            parse::<Ping>(text)?;
            Frame::Ping
        }
        kind => return Err(Refusal::new(Code::UnknownFrame, format!("there is no frame of type {kind:?}"))),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hello<'a> {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    from: Option<Begin>,
    offset: Option<i64>,
    #[serde(borrow)]
    log: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Upto {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    upto: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ping {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
}

fn hello(text: &str, limits: &Limits) -> Result<Frame, Refusal> {
    let Hello { from, offset, log, .. } = parse(text)?;
    if let Some(offset) = offset {
        not_negative("offset", offset)?;
    }
    let log = log.map(Cow::into_owned);
    if let Some(log) = &log {
        ensure(log.len() <= limits.client_id_bytes_max, Code::BadField, || {
            format!("log has {} bytes; {} are taken", log.len(), limits.client_id_bytes_max)
        })?;
    }
    Ok(Frame::Hello { from, offset, log })
}

fn upto(text: &str) -> Result<i64, Refusal> {
    let Upto { upto, .. } = parse(text)?;
    not_negative("upto", upto)?;
    Ok(upto)
}

fn not_negative(name: &str, offset: i64) -> Result<(), Refusal> {
    ensure(offset >= 0, Code::BadOffset, || format!("{name} is {offset}; an offset is 0 or more"))
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Refusal> {
    let read = serde_json::from_str::<Object<T>>(text);
    read.map(|Object(value)| value).map_err(|error| Refusal::unreadable(&error))
}

/// What is read of a frame before its type is known; the rest is looked at when it is.
struct Head<'a> {
    kind: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
}

impl<'a> Head<'a> {
    fn kind(&self) -> Result<Cow<'a, str>, Refusal> {
        let raw = self.kind.ok_or_else(|| Refusal::new(Code::BadField, "type is missing"))?;
        text(raw).ok_or_else(|| Refusal::new(Code::BadField, "type is not a text"))
    }

    /// The id that a refusal is told under: any text that is not too long to be told back.
    fn id(&self, limits: &Limits) -> Option<String> {
        let id = self.id.and_then(text)?;
        (id.len() <= limits.client_id_bytes_max).then(|| id.into_owned())
    }
}

fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    /// Derived readers borrow a text only where they are told to.
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(raw.get()).map(|Text(text)| text).ok()
}

impl<'de: 'a, 'a> Deserialize<'de> for Head<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Head<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a frame, which is an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head<'de>, A::Error> {
                let mut head = Head { kind: None, id: None };
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    // A member that is there twice is refused when the rest is read.
                    match &*name {
                        "type" => head.kind = Some(map.next_value()?),
                        "id" => head.id = Some(map.next_value()?),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(head)
            }
        }
        deserializer.deserialize_map(Members)
    }
}
