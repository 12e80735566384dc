//! The page about the socket.

use std::{fs, path::Path};

use waypost_delivery::{
    PROBLEMS,
    code::{Code, Goodbye},
};
use waypost_schemas::frame::Up;

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("SOCKET.md")).unwrap()
}

#[test]
fn the_page_about_the_socket_has_every_code_as_the_code_has_it_and_no_other() {
    let page = page();
    let refusals = Code::TABLE.iter().map(|(code, meaning)| format!("| `{code}` | {meaning} |"));
    let problems = PROBLEMS
        .iter()
        .map(|problem| format!("| `{}` | {} | {} |", problem.code, problem.status.as_u16(), problem.title));
    let goodbyes =
        Goodbye::TABLE.iter().map(|(code, close, meaning)| format!("| `{code}` | {close} | {meaning} |"));
    let expected: Vec<String> = refusals.chain(problems).chain(goodbyes).collect();
    let rows: Vec<&str> = page.lines().filter(|l| l.starts_with("| `") && !l.starts_with("| `{")).collect();
    assert_eq!(rows, expected, "SOCKET.md is not what the code says");
}

#[test]
fn each_frame_that_the_page_has_a_device_say_is_one() {
    let page = page();
    let section = page.split("## ").find(|part| part.starts_with("What a device says")).unwrap();
    let frames: Vec<&str> = section
        .lines()
        .filter_map(|l| l.strip_prefix("| `")?.split_once('`').map(|(frame, _)| frame))
        .collect();
    assert_eq!(frames.len(), 6);
    for frame in frames {
        assert!(serde_json::from_str::<Up>(frame).is_ok(), "{frame}");
    }
}
