use waypost_schemas::{event::AckKind, frame::Begin};

/// What a device says when it comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Where it wants to begin.
    pub from: Option<Begin>,
    /// The offset of the last entry that it has.
    pub offset: Option<i64>,
    /// The log that the offset is of; this one where it names none.
    pub log: Option<String>,
}

/// Up to where a device has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Up to an offset; -1 is before the first.
    At(i64),
    /// It never has: it is new.
    Never,
    /// That cannot be told while the store is away; perhaps up to an offset at least.
    Unknown(Option<i64>),
}

/// What is known when a device comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<'a> {
    /// The log's name.
    pub log: &'a str,
    /// The device's cursor.
    pub cursor: Cursor,
    /// The next offset to be written to its user's inbox.
    pub end: i64,
}

/// Where a device begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// After an offset. What is named here is appended to `acks` before the first offer.
    After {
        /// The offset.
        cursor: i64,
        /// What is appended, up to the same offset.
        append: Option<AckKind>,
    },
    /// At the newest entries, which is a start.
    Newest,
    /// Not now: nobody can tell what it has.
    Later,
}

/// Says where a device begins: at the highest of what it has acknowledged and the offset that it names, which thereby
/// is an acknowledgement. A new device that names none begins where it wants to, or at the newest entries. A device
/// that is known goes on behind its cursor whatever it wants, but for `new`, which leaves out what waits for it.
pub fn begin(hello: &Hello, known: &Known<'_>) -> Beginning {
    let start = |cursor| Beginning::After { cursor, append: Some(AckKind::Start) };
    let last = known.end - 1;
    match (known.cursor, offset(hello, known.log), hello.from) {
        (Cursor::At(cursor) | Cursor::Unknown(Some(cursor)), Some(offset), _) if offset <= cursor => {
            Beginning::After { cursor, append: None }
        }
        (_, Some(offset), _) => Beginning::After { cursor: offset, append: Some(AckKind::Delivered) },
        (Cursor::At(cursor), None, Some(Begin::New)) if cursor < last => start(last),
        (Cursor::At(cursor), None, _) => Beginning::After { cursor, append: None },
        (_, None, Some(Begin::New)) => start(last),
        (Cursor::Never, None, Some(Begin::Start)) => start(-1),
        (Cursor::Never, None, _) => Beginning::Newest,
        (Cursor::Unknown(_), None, _) => Beginning::Later,
    }
}

/// The offset that a device names, where it is of this log.
fn offset(hello: &Hello, log: &str) -> Option<i64> {
    hello.offset.filter(|_| !hello.is_of_another(log))
}

impl Hello {
    /// Whether it names an offset of another log, which is ignored.
    pub fn is_of_another(&self, log: &str) -> bool {
        self.offset.is_some() && self.log.as_deref().is_some_and(|named| named != log)
    }
}
