//! The laws of the repository: the arrows between crates, and which file may name which library.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in the workspace").to_owned()
}

/// Every Rust file below the crates, as a path from the root, with its text.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> =
        ["schemas", "infra", "ingest", "delivery", "processor", "tests"].map(|d| root().join(d)).into();
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    left.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(found.len() > 50, "the sources were found");
    found
}

/// Lines of code, without comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split("//").next().unwrap_or_default())
}

#[test]
fn a_library_is_named_only_where_it_belongs() {
    let this = "tests/tests/tidy.rs";
    for (library, places) in [
        ("rdkafka::", &["infra/runtime/src/broker/kafka/"][..]),
        ("apache_avro::", &["schemas/src/codec.rs"]),
        (
            "tokio_postgres::",
            &[
                "delivery/src/catchup/",
                "infra/runtime/src/postgres/",
                "processor/src/projector/",
                "processor/src/reads/",
                "processor/src/snapshots/",
            ],
        ),
        ("rstar::", &["processor/src/spatial/", "processor/src/bench/"]),
        ("geo::", &["processor/src/spatial/", "processor/src/bench/"]),
    ] {
        let strays: Vec<_> = sources()
            .into_iter()
            .filter(|(name, _)| name != this && !places.iter().any(|p| name.starts_with(p)))
            // A crate's tests and examples may look behind the seam.
            .filter(|(name, _)| {
                !name.contains("/tests/") && !name.contains("/examples/") && !name.contains("/benches/")
            })
            .filter(|(_, text)| {
                code(text).any(|line| {
                    line.match_indices(library).any(|(at, _)| {
                        !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                    })
                })
            })
            .map(|(name, _)| name)
            .collect();
        assert!(strays.is_empty(), "{library} is named in {strays:?}");
    }
}

#[test]
fn crates_point_only_along_the_arrows() {
    for (manifest, allowed) in [
        ("schemas", &[][..]),
        ("infra/runtime", &["schemas"]),
        ("ingest", &["schemas", "runtime"]),
        ("delivery", &["schemas", "runtime", "ingest"]),
        ("processor", &["schemas", "runtime"]),
        ("infra/stack", &["schemas", "runtime", "ingest", "delivery", "processor"]),
    ] {
        let text = fs::read_to_string(root().join(manifest).join("Cargo.toml")).unwrap();
        for line in text.lines().filter(|l| l.starts_with("waypost-")) {
            let name = line.trim_start_matches("waypost-").split(['.', ' ', '=']).next().unwrap();
            assert!(allowed.contains(&name), "{manifest} depends on {name}");
        }
    }
}

#[test]
fn every_file_of_a_crate_root_says_what_it_is() {
    for (name, text) in sources() {
        if name.ends_with("src/lib.rs") || name.ends_with("src/main.rs") {
            assert!(text.starts_with("//!"), "{name} begins with no crate doc");
        }
    }
}

/// A `select!` that is not biased draws its branch at random, and a seed of the simulation would be two runs.
#[test]
fn what_is_simulated_draws_no_branch_at_random() {
    for (name, text) in sources() {
        let simulated = ["infra/runtime/src/", "ingest/src/", "delivery/src/", "processor/src/"];
        if !simulated.iter().any(|dir| name.starts_with(dir)) || name.contains("/tests") {
            continue;
        }
        let lines: Vec<&str> = code(&text).map(str::trim).filter(|line| !line.is_empty()).collect();
        for pair in lines.windows(2) {
            let random = pair[0].ends_with("tokio::select! {") && pair[1] != "biased;";
            assert!(!random, "{name}: a select! begins with {:?}, and not with `biased;`", pair[1]);
        }
    }
}
