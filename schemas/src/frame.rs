//! What a device and Waypost say to each other on the device's one connection: JSON text frames, each one object with
//! a `type`, under the subprotocol [`SUBPROTOCOL`]. The body of a POST is the same object without it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    id::{ConversationId, DeviceId, UserId},
    time::Micros,
};

/// The WebSocket subprotocol of these frames.
pub const SUBPROTOCOL: &str = "waypost.v1";

/// What a device says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Up {
    /// The device is here, and may name where it stopped.
    Hello {
        /// Where a device wants to begin.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<Begin>,
        /// The offset of the last entry that it has.
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<i64>,
        /// The log that the offset is of; an offset of another log is ignored.
        #[serde(skip_serializing_if = "Option::is_none")]
        log: Option<String>,
    },
    /// A message to a user or a conversation: exactly one of `to` and `conversation` is there.
    Send {
        /// The device's own id of it, a `UUIDv7`.
        id: String,
        /// This id and all lower ones are accepted, refused or given up.
        #[serde(skip_serializing_if = "Option::is_none")]
        settled: Option<String>,
        /// The user it is to.
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<UserId>,
        /// The conversation it is to.
        #[serde(skip_serializing_if = "Option::is_none")]
        conversation: Option<ConversationId>,
        /// The body's media type; `text/plain` where it is missing.
        #[serde(skip_serializing_if = "Option::is_none")]
        content_type: Option<String>,
        /// The body.
        body: String,
        /// The number of the message that this one answers.
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<i64>,
    },
    /// Fixes of the device.
    Report {
        /// The device's own id of the report.
        id: String,
        /// The fixes, oldest first.
        fixes: Vec<Fix>,
    },
    /// The device has all entries up to an offset.
    Ack {
        /// The offset of an entry.
        upto: i64,
    },
    /// The user has read the conversation of an entry up to it.
    Read {
        /// The offset of an entry.
        upto: i64,
    },
    /// Is anybody there?
    Ping,
}

/// Where a device wants to begin in its user's inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Begin {
    /// At the first entry of all.
    Start,
    /// At what comes from now on.
    New,
    /// Where it stopped.
    Resume,
}

/// A fix as a device reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fix {
    /// Latitude in degrees.
    pub lat: f64,
    /// Longitude in degrees.
    pub lon: f64,
    /// The device's time, RFC 3339, up to microseconds.
    pub at: Micros,
    /// Radius of the 68% error circle, in metres.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_m: Option<f32>,
    /// Speed over ground, in metres a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed_mps: Option<f32>,
    /// Direction of travel, in degrees clockwise from north.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heading_deg: Option<f32>,
    /// Height above the WGS84 ellipsoid, in metres.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub altitude_m: Option<f32>,
    /// What else the device measured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// What Waypost says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Down {
    /// The answer to `hello`.
    Welcome {
        /// The device, in its written form.
        device: DeviceId,
        /// The session, which acknowledgements carry.
        session: String,
        /// The log that offsets are of.
        log: String,
        /// Up to where the device has acknowledged; nothing where it never has.
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<i64>,
        /// The server's time, from which clients mint ids.
        time: Micros,
    },
    /// What was sent or reported is in the log.
    Accepted {
        /// The device's own id of it.
        id: String,
        /// `topic/partition/offset`, one per record; none where the broker had the record already.
        positions: Vec<String>,
    },
    /// What was said is not taken.
    Refused {
        /// The device's own id of it, where it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// A stable code.
        code: String,
        /// A sentence for people.
        detail: String,
        /// When to try again, in seconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
        /// The server's time, where the code is `clock`: ids are minted from it.
        #[serde(skip_serializing_if = "Option::is_none")]
        time: Option<Micros>,
    },
    /// An entry of the inbox.
    Entry {
        /// Its offset, which an acknowledgement names.
        offset: i64,
        /// Its cause, which is the same each time that it is offered.
        id: String,
        /// The append time of its cause.
        at: Micros,
        /// `message`, `delivered`, `read`, `match` or `system`.
        kind: String,
        /// What the kind has to say.
        #[serde(flatten)]
        content: BTreeMap<String, Value>,
    },
    /// The device has been offered all there was when it came.
    CaughtUp {
        /// The offset of the last entry.
        offset: i64,
    },
    /// The connection ends.
    Goodbye {
        /// A stable code: `replaced`, `ack_timeout`, `slow_consumer`.
        code: String,
        /// When to come again, in seconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
    /// The answer to `ping`.
    Pong,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_up(text: &str) {
        let frame: Up = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&frame).unwrap(), text);
    }

    fn check_down(text: &str) {
        let frame: Down = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&frame).unwrap(), text);
    }

    #[test]
    fn what_a_device_says_has_one_text() {
        check_up(r#"{"type":"hello"}"#);
        check_up(
            r#"{"type":"hello","from":"resume","offset":41,"log":"019b7600-0000-7000-8000-000000000001"}"#,
        );
        check_up(
            r#"{"type":"send","id":"1","settled":"0","to":"bob","content_type":"text/plain","body":"hallo"}"#,
        );
        check_up(r#"{"type":"send","id":"2","conversation":"alice~bob","body":"","reply_to":7}"#);
        check_up(
            r#"{"type":"report","id":"3","fixes":[{"lat":52.5,"lon":13.375,"at":"2026-01-01T00:00:00Z","accuracy_m":4.5}]}"#,
        );
        check_up(r#"{"type":"ack","upto":41}"#);
        check_up(r#"{"type":"read","upto":41}"#);
        check_up(r#"{"type":"ping"}"#);
    }

    #[test]
    fn what_waypost_says_has_one_text() {
        check_down(
            r#"{"type":"welcome","device":"alice/phone","session":"s","log":"l","cursor":41,"time":"2026-01-01T00:00:00Z"}"#,
        );
        check_down(r#"{"type":"accepted","id":"1","positions":["messages/3/1288"]}"#);
        check_down(
            r#"{"type":"refused","code":"overloaded","detail":"too much waits here","retry_after":1}"#,
        );
        check_down(
            r#"{"type":"refused","id":"1","code":"clock","detail":"the id is of the future","time":"2026-01-01T00:00:00Z"}"#,
        );
        check_down(
            r#"{"type":"entry","offset":42,"id":"matches/3/17/0","at":"2026-01-01T00:00:00Z","kind":"match","zone":"depot"}"#,
        );
        check_down(r#"{"type":"caught_up","offset":42}"#);
        check_down(r#"{"type":"goodbye","code":"replaced"}"#);
        check_down(r#"{"type":"pong"}"#);
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"type":"shout"}"#,
            r#"{"type":"ack"}"#,
            r#"{"type":"ack","upto":1.5}"#,
            r#"{"type":"ack","upto":1,"more":2}"#,
            r#"{"type":"send","id":"1","to":"a b","body":"x"}"#,
            r#"{"type":"report","id":"1","fixes":[{"lat":NaN,"lon":0,"at":"2026-01-01T00:00:00Z"}]}"#,
            r#"{"type":"report","id":"1","fixes":[{"lat":1,"lon":0,"at":"yesterday"}]}"#,
        ] {
            assert!(serde_json::from_str::<Up>(bad).is_err(), "{bad}");
        }
    }
}
