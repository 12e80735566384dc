//! What delivery itself says no by, and why a connection ends; what admission refuses stands in ingest's table.

use std::time::Duration;

use waypost_schemas::frame::Down;

macro_rules! codes {
    ($($name:ident = $text:literal, $meaning:literal;)+) => {
        /// A stable code of a `refused` frame; a code that was released never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = $meaning] $name,)+
        }

        impl Code {
            /// Every code with its meaning, for the documentation.
            pub const TABLE: &[(&str, &str)] = &[$(($text, $meaning)),+];

            /// The code as it is told.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

codes! {
    AckBackwards = "ack_backwards", "An acknowledgement names an offset below the last one that was acknowledged.";
    ForeignEntry = "foreign_entry", "A read names an offset at which there is no message of this user.";
    HelloFirst = "hello_first", "The first frame of a connection is `hello`.";
    HelloAgain = "hello_again", "A connection says `hello` once.";
    BinaryFrame = "binary_frame", "Frames are JSON texts.";
    OtherLog = "other_log", "The offset in `hello` is of another log, and was ignored.";
}

impl Code {
    /// The frame that tells a device so.
    pub fn frame(self, detail: impl Into<String>) -> Down {
        Down::Refused {
            id: None,
            code: self.as_str().to_owned(),
            detail: detail.into(),
            retry_after: None,
            time: None,
        }
    }
}

macro_rules! goodbyes {
    ($($name:ident = $text:literal, $close:literal, $meaning:literal;)+) => {
        /// Why a connection ends. Its code never changes its meaning once it was released.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Goodbye {
            $(#[doc = $meaning] $name,)+
        }

        impl Goodbye {
            /// Every code with its WebSocket close code (RFC 6455, 7.4.1) and its meaning, for the documentation.
            pub const TABLE: &[(&str, u16, &str)] = &[$(($text, $close, $meaning)),+];

            /// The code as it is told.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// The WebSocket close code.
            pub fn close(self) -> u16 {
                match self { $(Self::$name => $close),+ }
            }
        }
    };
}

goodbyes! {
    Replaced = "replaced", 1008, "The device has a newer connection.";
    AckTimeout = "ack_timeout", 1008, "The device was offered entries, and acknowledged none of them in time.";
    SlowConsumer = "slow_consumer", 1008, "The device does not read what is written.";
    HelloTimeout = "hello_timeout", 1008, "The connection did not say `hello` in time.";
    Unavailable = "unavailable", 1013, "What the device lacks cannot be read now; its entries wait.";
    Stopping = "stopping", 1001, "This node stops; another, or the same one later, goes on.";
    FrameTooLarge = "frame_too_large", 1009, "A frame is larger than is taken.";
    BadUtf8 = "bad_utf8", 1007, "A text frame is not UTF-8.";
    BadWebsocket = "bad_websocket", 1002, "What came breaks the WebSocket protocol.";
}

impl Goodbye {
    /// The frame that tells a device so. Devices that should come again are told when, each in a second of its own
    /// within `spread`, so that they do not come all at once; `salt` tells devices apart.
    pub fn frame(self, spread: Duration, salt: u64) -> Down {
        let retry_after = match self {
            Self::Unavailable | Self::Stopping => Some(1 + salt % spread.as_secs().max(1)),
            _ => None,
        };
        Down::Goodbye { code: self.as_str().to_owned(), retry_after }
    }
}
