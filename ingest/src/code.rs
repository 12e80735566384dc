//! Every way in which ingest itself says no, in one table; what any route can say stands in [`http::codes`].

use std::fmt::Write as _;

use axum::http::StatusCode;
use waypost_runtime::http;

macro_rules! codes {
    ($($name:ident = $text:literal, $status:ident, $meaning:literal;)+) => {
        /// A stable code of a refusal; a code that was released never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $meaning] $name,)+
        }

        impl Code {
            /// Every code, in the table's order.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The code with its HTTP status and its meaning.
            pub fn row(self) -> &'static http::Code {
                match self {
                    $(Self::$name => {
                        static ROW: http::Code =
                            http::Code { code: $text, status: StatusCode::$status, title: $meaning };
                        &ROW
                    })+
                }
            }
        }
    };
}

codes! {
    BadJson = "bad_json", BAD_REQUEST, "The body, or the frame, is not the JSON that is taken here.";
    BadField = "bad_field", BAD_REQUEST, "A field is missing, unknown, there twice, or of the wrong type.";
    BadId = "bad_id", BAD_REQUEST, "The id of a user, device, conversation, zone or rule breaks the rule for ids.";
    BadClientId = "bad_client_id", UNPROCESSABLE_ENTITY, "A request's own id is empty or too long, or a message's is no UUID of version 7 in lower case.";
    ForeignDevice = "foreign_device", FORBIDDEN, "Only an operator may report for another device.";
    UnknownFrame = "unknown_frame", BAD_REQUEST, "There is no frame of that type.";
    FrameTooLarge = "frame_too_large", PAYLOAD_TOO_LARGE, "A frame is larger than is taken.";
    Clock = "clock", UNPROCESSABLE_ENTITY, "A message's id is older than six days or more than five minutes ahead; `time` is the server's.";
    BadSettled = "bad_settled", UNPROCESSABLE_ENTITY, "What a message settles is no UUID of version 7 in lower case, or not below the message's own id.";
    BadRecipient = "bad_recipient", UNPROCESSABLE_ENTITY, "A message names neither or both of a user and a conversation.";
    NotAMember = "not_a_member", FORBIDDEN, "The conversation does not have this user as a member.";
    BadMediaType = "bad_media_type", UNPROCESSABLE_ENTITY, "A message's content type is no media type.";
    EmptyBody = "empty_body", UNPROCESSABLE_ENTITY, "A message's body is empty.";
    MessageTooLarge = "message_too_large", PAYLOAD_TOO_LARGE, "A message's body is larger than is taken.";
    BadOffset = "bad_offset", UNPROCESSABLE_ENTITY, "An offset or a message's number is below 0.";
    AckBeyondEnd = "ack_beyond_end", UNPROCESSABLE_ENTITY, "An acknowledgement names an offset that the inbox does not have yet.";
    NoFixes = "no_fixes", UNPROCESSABLE_ENTITY, "The request carries no fix.";
    TooManyFixes = "too_many_fixes", UNPROCESSABLE_ENTITY, "The request carries more fixes than one request may.";
    BadLatitude = "bad_latitude", UNPROCESSABLE_ENTITY, "A latitude is not a number of degrees from -90 to 90.";
    BadLongitude = "bad_longitude", UNPROCESSABLE_ENTITY, "A longitude is not a number of degrees from -180 to 180.";
    BadTime = "bad_time", UNPROCESSABLE_ENTITY, "A time is not RFC 3339 with an offset.";
    TimeTooOld = "time_too_old", UNPROCESSABLE_ENTITY, "A fix is older than any that is taken.";
    TimeTooNew = "time_too_new", UNPROCESSABLE_ENTITY, "A fix lies too far in the future.";
    BadAccuracy = "bad_accuracy", UNPROCESSABLE_ENTITY, "An accuracy is negative or larger than the earth.";
    BadSpeed = "bad_speed", UNPROCESSABLE_ENTITY, "A speed is negative or faster than anything that reports its fixes.";
    BadHeading = "bad_heading", UNPROCESSABLE_ENTITY, "A heading is not a number of degrees from 0 to 360.";
    BadAltitude = "bad_altitude", UNPROCESSABLE_ENTITY, "An altitude lies below the sea floor or above the atmosphere.";
    BadAttributes = "bad_attributes", UNPROCESSABLE_ENTITY, "A fix's attributes are too many, too long, or not texts, numbers or booleans.";
    BadGeojson = "bad_geojson", UNPROCESSABLE_ENTITY, "The zone's body is not a GeoJSON geometry or a Feature of one.";
    UnsupportedGeometry = "unsupported_geometry", UNPROCESSABLE_ENTITY, "The geometry is no Polygon, no MultiPolygon, and no Point with a radius.";
    EmptyGeometry = "empty_geometry", UNPROCESSABLE_ENTITY, "The geometry, or a polygon in it, has no rings.";
    TooManyVertices = "too_many_vertices", UNPROCESSABLE_ENTITY, "The geometry has more vertices than a zone may.";
    TooFewPlaces = "too_few_places", UNPROCESSABLE_ENTITY, "A ring has fewer than four places.";
    UnclosedRing = "unclosed_ring", UNPROCESSABLE_ENTITY, "A ring's last place differs from its first.";
    ZeroAreaRing = "zero_area_ring", UNPROCESSABLE_ENTITY, "A ring's places lie on one line, or are one place.";
    CrossingRings = "crossing_rings", UNPROCESSABLE_ENTITY, "A ring crosses, or runs along, itself or another ring of its polygon.";
    MisplacedHole = "misplaced_hole", UNPROCESSABLE_ENTITY, "A hole lies outside its polygon, or inside another hole.";
    GeometryTooComplex = "geometry_too_complex", UNPROCESSABLE_ENTITY, "Checking the geometry takes more work than is spent on one.";
    BadRadius = "bad_radius", UNPROCESSABLE_ENTITY, "A circle's radius is not a number of metres within bounds.";
    BadTriggers = "bad_triggers", UNPROCESSABLE_ENTITY, "A rule names no trigger, or one that does not exist.";
    EmptyList = "empty_list", UNPROCESSABLE_ENTITY, "A rule's list of zones or subjects is empty: it would never fire.";
    TooManyNames = "too_many_names", UNPROCESSABLE_ENTITY, "A rule's list names more than it may.";
    BadPosition = "bad_position", UNPROCESSABLE_ENTITY, "A position is not topic/partition/offset, or of a topic that can have no such fact.";
    UnknownMachine = "unknown_machine", UNPROCESSABLE_ENTITY, "There is no machine of that name.";
    UnknownBehaviour = "unknown_behaviour", UNPROCESSABLE_ENTITY, "This version does not have that behaviour of the machine.";
    NotInTheLog = "not_in_the_log", CONFLICT, "The log has no record there.";
    MachineRuns = "machine_runs", CONFLICT, "Processes still run the machine; stop them first.";
    AlreadyFolded = "already_folded", CONFLICT, "The machine has folded the record, and what followed from it is in the log.";
    RecordTooLarge = "record_too_large", PAYLOAD_TOO_LARGE, "The record would be larger than its topic takes.";
    RegistryBehind = "registry_behind", SERVICE_UNAVAILABLE, "The registry has not been read to its end yet; try again later.";
    LogUnavailable = "log_unavailable", SERVICE_UNAVAILABLE, "The log did not acknowledge in time; the records may still land. Send them again.";
}

impl Code {
    /// The code as it is written: `bad_latitude`.
    pub fn as_str(self) -> &'static str {
        self.row().code
    }
}

/// The page `REFUSALS.md`: the table, with what any route can say.
pub fn page() -> String {
    let mut text = String::from(
        "# Refusals\n\n\
        Made from the tables in the code; `cargo test -p waypost-ingest` compares it,\n\
        `UPDATE_REFUSALS=1 cargo test -p waypost-ingest --test refusals` writes it anew.\n\n\
        Every refusal is an RFC 9457 problem (`application/problem+json`) with a stable `code`, on a socket a frame \
        `refused`;\nits `detail` names the place in the request. With `retry_after`, send the same again; without it, mend it \
        first.\n\n\
        | code | status | meaning |\n| --- | --- | --- |\n",
    );
    let own = Code::ALL.iter().map(|code| code.row());
    let shared = http::PROBLEMS.iter().copied().filter(|p| Code::ALL.iter().all(|c| c.as_str() != p.code));
    for http::Code { code, status, title } in own.chain(shared) {
        let _ = writeln!(text, "| `{code}` | {} | {title} |", status.as_u16());
    }
    text
}
