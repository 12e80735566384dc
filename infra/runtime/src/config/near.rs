//! Which known names are near to one that is not known.

/// How many edits make two names near, for each four bytes of the name.
const BYTES_PER_EDIT: usize = 4;
/// How many near names are told.
const NEAR_MAX: usize = 3;

/// The known names nearest to `name`, best first; none where none is near.
pub(super) fn near(name: &str, known: impl Iterator<Item = String>) -> Vec<String> {
    let edits_max = (name.len() / BYTES_PER_EDIT).max(2);
    let mut found: Vec<(usize, String)> = known
        .map(|candidate| (distance(name, &candidate), candidate))
        .filter(|(edits, candidate)| *edits <= edits_max || is_part(name, candidate))
        .collect();
    found.sort();
    found.truncate(NEAR_MAX);
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

/// Whether the candidate ends with the name: `accept_timeout_ms` for `ingest.accept_timeout_ms`.
fn is_part(name: &str, candidate: &str) -> bool {
    candidate.strip_suffix(name).is_some_and(|rest| rest.ends_with(['.', '_']))
}

/// How many insertions, deletions and replacements of bytes turn one text into the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_those_that_a_slip_of_the_hand_makes() {
        let known = ["listen", "http.headers_max", "http.header_bytes_max", "ingest.accept_timeout_ms"];
        let check = |name: &str, expected: &[&str]| {
            assert_eq!(near(name, known.iter().map(ToString::to_string)), expected, "{name}");
        };
        check("lisen", &["listen"]);
        check("http.header_max", &["http.headers_max"]);
        check("accept_timeout_ms", &["ingest.accept_timeout_ms"]);
        check("ingest.accept_timeout", &["ingest.accept_timeout_ms"]);
        check("colour", &[]);
    }
}
