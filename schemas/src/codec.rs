//! Records as bytes: Avro in Confluent's wire format, so that any registry-aware tool reads them.
//!
//! The wire format is 0x00, four bytes of schema id (big-endian), then the Avro datum. Schema files stand in
//! `avro/`, their ids in `avro/ids.lock`; both are compiled in. Values go straight between Rust types and bytes:
//! writers and readers are built once, with the writer's own schema.

use std::sync::LazyLock;

use apache_avro::{
    Schema, reader::datum::GenericDatumReader, util::max_allocation_bytes, writer::datum::GenericDatumWriter,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::event::Event;

pub mod bytes;

/// The most that a length inside a datum may ask to be set aside, in bytes: above the largest record of all.
const ALLOCATION_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes before the datum: the magic byte and the id.
const PREFIX_BYTES: usize = 5;

/// Why bytes are not a record of Waypost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no value.
    #[error("the record has no value")]
    Empty,
    /// The first byte is not 0, or fewer than five bytes are there: not Confluent's wire format.
    #[error("the value is not in Confluent's wire format")]
    Foreign,
    /// No schema of that id is known.
    #[error("schema id {0} is unknown")]
    UnknownSchema(i32),
    /// The datum does not fit its schema, ends early or goes on too long.
    #[error("the datum of a {schema} is broken: {detail}")]
    Broken {
        /// The schema's name.
        schema: &'static str,
        /// What is wrong with it; never a value of it.
        detail: &'static str,
    },
}

impl Error {
    /// The stable code of a dead letter: `empty`, `foreign_record`, `unknown_schema` or `broken_datum`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Foreign => "foreign_record",
            Self::UnknownSchema(_) => "unknown_schema",
            Self::Broken { .. } => "broken_datum",
        }
    }
}

/// A schema file, its id and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaFile {
    /// The id on the wire.
    pub id: i32,
    /// The record's name.
    pub name: &'static str,
    /// The file's text.
    pub text: &'static str,
}

/// One schema with what is built once for it.
struct Compiled {
    file: SchemaFile,
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
}

impl Compiled {
    fn new(file: SchemaFile) -> Self {
        let schema = Schema::parse_str(file.text).expect("a schema file of the crate parses: see its tests");
        // The schema lives as long as the process: once per schema, a dozen in all.
        let schema: &'static Schema = Box::leak(Box::new(schema));
        Self {
            file,
            writer: GenericDatumWriter::builder(schema).human_readable(false).build().expect("it resolves"),
            reader: GenericDatumReader::builder(schema).human_readable(false).build().expect("it resolves"),
        }
    }

    fn write<T: Serialize>(&self, record: &T) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.push(0);
        out.extend_from_slice(&self.file.id.to_be_bytes());
        self.writer.write_ser(&mut out, record).expect("a record fits its own schema: see the examples");
        out
    }

    fn read<T: DeserializeOwned>(&self, mut datum: &[u8]) -> Result<T, Error> {
        let broken = |detail| Error::Broken { schema: self.file.name, detail };
        let record = self.reader.read_deser(&mut datum).map_err(|_| broken("it does not fit its schema"))?;
        if datum.is_empty() { Ok(record) } else { Err(broken("it goes on after its end")) }
    }
}

macro_rules! schemas {
    ($($id:literal $name:ident $file:literal),+ $(,)?) => {
        /// Every schema file that this build reads, by id.
        pub const SCHEMAS: &[SchemaFile] = &[$(SchemaFile {
            id: $id, name: stringify!($name), text: include_str!(concat!("../avro/", $file)),
        }),+];

        /// By id; the ids begin at 1 and leave none out.
        static COMPILED: LazyLock<Vec<Compiled>> = LazyLock::new(|| {
            max_allocation_bytes(ALLOCATION_BYTES_MAX);
            SCHEMAS.iter().copied().map(Compiled::new).collect()
        });

        /// A record's bytes: 0x00, four bytes of schema id, the datum.
        pub fn encode(event: &Event) -> Vec<u8> {
            match event { $(Event::$name(e) => COMPILED[$id - 1].write(e)),+ }
        }

        fn read(id: i32, datum: &[u8]) -> Result<Event, Error> {
            match id {
                $($id => COMPILED[$id - 1].read(datum).map(Event::$name),)+
                _ => Err(Error::UnknownSchema(id)),
            }
        }
    };
}

schemas! {
    1 LogFounded "LogFounded.1.avsc",
    2 ZoneDefined "ZoneDefined.1.avsc",
    3 ZoneRemoved "ZoneRemoved.1.avsc",
    4 RuleDefined "RuleDefined.1.avsc",
    5 RuleRemoved "RuleRemoved.1.avsc",
    6 FixReported "FixReported.1.avsc",
    7 RuleMatched "RuleMatched.1.avsc",
    8 EntryAdded "EntryAdded.1.avsc",
    9 MessageSent "MessageSent.1.avsc",
    10 EntriesAcknowledged "EntriesAcknowledged.1.avsc",
    11 HoleAccepted "HoleAccepted.1.avsc",
    12 RecordSkipped "RecordSkipped.1.avsc",
    13 BehaviourSet "BehaviourSet.1.avsc",
}

/// The record of some bytes.
pub fn decode(value: &[u8]) -> Result<Event, Error> {
    if value.is_empty() {
        return Err(Error::Empty);
    }
    let (0, Some((id, datum))) = (value[0], value[1..].split_at_checked(PREFIX_BYTES - 1)) else {
        return Err(Error::Foreign);
    };
    read(i32::from_be_bytes(id.try_into().expect("four bytes")), datum)
}
