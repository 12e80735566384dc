//! The page of refusals.

use std::{collections::BTreeSet, fs, path::Path};

use waypost_ingest::code;

#[test]
fn the_page_about_refusals_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("REFUSALS.md");
    // The one setting of this test: writing instead of comparing.
    if option_env!("UPDATE_REFUSALS").is_some() {
        fs::write(&path, code::page()).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == code::page(),
        "{} is not what the code says: write it anew with UPDATE_REFUSALS=1 cargo test -p waypost-ingest",
        path.display()
    );
}

#[test]
fn no_code_means_two_things() {
    let page = code::page();
    let codes: Vec<_> = page.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
    assert!(codes.len() > code::Code::ALL.len(), "what any route can say is in it");
    assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len());
}
