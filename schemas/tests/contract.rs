//! The contract holds: examples round-trip, their bytes are golden, schema files are those of the lock, and the
//! page about topics is current.

use std::{collections::BTreeSet, fs, path::PathBuf};

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use waypost_schemas::{
    codec::{self, Error, SCHEMAS},
    example, header,
    topic::Topic,
    topics_page,
};

fn here(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

#[test]
fn every_record_type_has_an_example() {
    let shown: BTreeSet<_> = example::all().iter().map(|(_, e)| e.name()).collect();
    let catalogued: BTreeSet<_> = Topic::ALL.iter().flat_map(|t| t.spec().records).copied().collect();
    let schemas: BTreeSet<_> = SCHEMAS.iter().map(|s| s.name).collect();
    assert_eq!(shown, catalogued);
    assert_eq!(shown, schemas);
}

#[test]
fn every_example_survives_its_bytes() {
    for (name, event) in example::all() {
        assert_eq!(codec::decode(&codec::encode(&event)), Ok(event), "{name}");
    }
}

/// The lines of `tests/golden/v1.txt` (name, bytes) are stone: new examples are added below, none is changed.
#[test]
fn old_bytes_stay_what_they_are() {
    let golden = fs::read_to_string(here("tests/golden/v1.txt")).unwrap();
    let golden: Vec<_> = golden.lines().map(|l| l.split_once(' ').unwrap()).collect();
    let missing: String = example::all()
        .iter()
        .map(|(name, event)| (*name, hex(&codec::encode(event))))
        .filter(|(name, bytes)| !golden.contains(&(name, bytes)))
        .map(|(name, bytes)| format!("{name} {bytes}\n"))
        .collect();
    assert!(missing.is_empty(), "these lines are not in the golden file:\n{missing}");
    for (name, bytes) in golden {
        assert!(codec::decode(&unhex(bytes)).is_ok(), "{name} is no longer readable");
    }
}

#[test]
fn schema_files_are_those_of_the_lock() {
    let lock = fs::read_to_string(here("avro/ids.lock")).unwrap();
    let mut listed = BTreeSet::new();
    for line in lock.lines().filter(|l| !l.starts_with('#')) {
        let [id, name, file, sum] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("bad line: {line}")
        };
        let text = fs::read_to_string(here("avro").join(file)).unwrap();
        assert_eq!(hex(&Sha256::digest(&text)), sum, "{file} was edited after its release");
        let compiled = SCHEMAS.iter().find(|s| s.id.to_string() == id).expect(file);
        assert_eq!((compiled.name, compiled.text), (name, &*text));
        listed.insert(file.to_owned());
    }
    let files: BTreeSet<_> = fs::read_dir(here("avro"))
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .filter(|f| f != "ids.lock")
        .collect();
    assert_eq!(listed, files);
    assert!(SCHEMAS.iter().zip(1..).all(|(s, id)| s.id == id), "ids begin at 1 and leave none out");
}

#[test]
fn what_is_no_record_is_an_error_with_a_code() {
    let fix = codec::encode(&example::all().iter().find(|(n, _)| *n == "fix-full").unwrap().1);
    let check =
        |bytes: &[u8], code: &str| assert_eq!(codec::decode(bytes).unwrap_err().code(), code, "{bytes:?}");
    check(&[], "empty");
    check(&[0], "foreign_record");
    check(&[0, 0, 0, 0], "foreign_record");
    check(b"{\"lat\":1}", "foreign_record");
    check(&[0, 0, 0, 0, 0], "unknown_schema");
    check(&[0, 0xff, 0xff, 0xff, 0xff, 1], "unknown_schema");
    for cut in 5..fix.len() {
        check(&fix[..cut], "broken_datum");
    }
    let mut long = fix.clone();
    long.push(0);
    check(&long, "broken_datum");
    // A length of 2^62 bytes for the device's name sets nothing aside.
    check(&[0, 0, 0, 0, 6, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], "broken_datum");
    // A device id that breaks the rule for names.
    let mut bad_name = fix;
    bad_name[6] = b' ';
    check(&bad_name, "broken_datum");
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        id in 0i32..16, datum in proptest::collection::vec(any::<u8>(), 0..200), flip in any::<(usize, u8)>(), which in any::<usize>()
    ) {
        let mut bytes = vec![0];
        bytes.extend(id.to_be_bytes());
        bytes.extend(datum);
        let _ = codec::decode(&bytes);
        let examples = example::all();
        let mut bytes = codec::encode(&examples[which % examples.len()].1);
        let at = flip.0 % bytes.len();
        bytes[at] ^= flip.1;
        if let Ok(event) = codec::decode(&bytes) {
            prop_assert!(codec::decode(&codec::encode(&event)).is_ok(), "what was read can be written");
        }
    }
}

#[test]
fn an_unknown_schema_names_its_id() {
    assert_eq!(codec::decode(&[0, 0, 0, 1, 0, 7]), Err(Error::UnknownSchema(256)));
}

#[test]
fn headers_of_cloud_events_are_complete() {
    let (_, event) = &example::all()[0];
    let names: Vec<_> = header::original(event, "ingest", "x".into(), waypost_schemas::time::Micros(0))
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    for name in [header::ID, header::SOURCE, header::SPEC_VERSION, header::TYPE, header::CONTENT_TYPE] {
        assert!(names.contains(&name), "{name}");
    }
}

#[test]
fn the_page_about_topics_is_current() {
    let path = here("TOPICS.md");
    // The one setting of this test: writing instead of comparing.
    if option_env!("UPDATE_TOPICS").is_some() {
        fs::write(&path, topics_page::text()).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == topics_page::text(),
        "{} is not what the catalogue says: write it anew with UPDATE_TOPICS=1 cargo test -p waypost-schemas",
        path.display()
    );
}
