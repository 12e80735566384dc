//! Pages of long lists: how many items one holds, and where the next begins.

use std::str::FromStr;

use waypost_runtime::http::{Problem, codes};

/// How many items a page holds where nothing is said, and at most.
const ITEMS: (u32, u32) = (1_000, 10_000);

/// How many items a page holds.
pub(super) fn limit(asked: Option<u32>) -> Result<usize, Problem> {
    limit_of(asked, ITEMS)
}

/// How many items a page holds, where it is so many when nothing is said, and so many at most.
pub(super) fn limit_of(asked: Option<u32>, (usual, max): (u32, u32)) -> Result<usize, Problem> {
    match asked.unwrap_or(usual) {
        items if (1..=max).contains(&items) => Ok(items as usize),
        _ => Err(Problem::new(&codes::BAD_REQUEST).detail(format!("limit is 1 to {max}"))),
    }
}

/// The parts of what a page gave as `next`; clients give it back as `after`, and know nothing of what is in it.
pub(super) fn parts<const N: usize>(after: &str) -> Result<[&str; N], Problem> {
    let parts: Vec<&str> = after.split('~').collect();
    parts.try_into().map_err(|_| not_ours())
}

/// One part as the number that it should be.
pub(super) fn number<T: FromStr>(part: &str) -> Result<T, Problem> {
    part.parse().map_err(|_| not_ours())
}

pub(super) fn not_ours() -> Problem {
    Problem::new(&codes::BAD_REQUEST).detail("after is what a page gave as next, unchanged")
}

/// Cuts the item that was read only to learn whether there are more; `true` where there are.
pub(super) fn cut<T>(items: &mut Vec<T>, limit: usize) -> bool {
    let more = items.len() > limit;
    items.truncate(limit);
    more
}
