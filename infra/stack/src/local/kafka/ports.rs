//! The ports of a data directory's broker: chosen once and kept, so that clients find it again.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use waypost_runtime::datadir::write_private;

/// Below the ephemeral ports, which begin at 32768: a client that tries an ephemeral port at which nobody listens
/// can be given the same port as its own, is then connected to itself, and keeps the broker from coming back.
const RANGE: Range<u16> = 20_000..32_000;

/// Where broker and controller listen on loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) broker: u16,
    pub(super) controller: u16,
}

/// The ports of a broker's directory: those that it had where they are free, otherwise new ones.
pub(super) fn of(dir: &Path) -> anyhow::Result<Ports> {
    let path = path(dir);
    let had = kept(&path);
    let ports = next(dir)?;
    match had {
        Some(had) if had == ports => return Ok(ports),
        Some(had) => tracing::warn!(
            had = had.broker,
            now = ports.broker,
            "the local kafka's port is taken by another program: it moves, and processes that joined must be started again"
        ),
        None => {}
    }
    write_private(&path, &serde_json::to_vec(&ports)?)?;
    Ok(ports)
}

/// The ports that a broker would get now; nothing is kept.
pub(super) fn next(dir: &Path) -> anyhow::Result<Ports> {
    let seed = dir
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    choose(kept(&path(dir)), seed, is_free).context("no two free ports from 20000 to 31999 are left")
}

fn path(dir: &Path) -> PathBuf {
    dir.join("ports.json")
}

fn kept(path: &Path) -> Option<Ports> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The ports that were, or the first two free ones from a place in the range that the seed chooses.
fn choose(had: Option<Ports>, seed: u32, is_free: impl Fn(u16) -> bool) -> Option<Ports> {
    if let Some(had) = had.filter(|had| is_free(had.broker) && is_free(had.controller)) {
        return Some(had);
    }
    let first = seed as usize % RANGE.len();
    let mut free = RANGE.skip(first).chain(RANGE.take(first)).filter(|port| is_free(*port));
    Some(Ports { broker: free.next()?, controller: free.next()? })
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_kept_while_they_are_free_and_chosen_by_the_seed_otherwise() {
        let had = Some(Ports { broker: 25_000, controller: 25_001 });
        let check = |had: Option<Ports>, seed: u32, taken: &[u16], expected: Option<(u16, u16)>| {
            let chosen = choose(had, seed, |port| !taken.contains(&port));
            assert_eq!(chosen.map(|ports| (ports.broker, ports.controller)), expected, "{seed} {taken:?}");
        };
        check(had, 7, &[], Some((25_000, 25_001)));
        check(had, 7, &[25_001], Some((20_007, 20_008)));
        check(None, 12_001, &[20_002], Some((20_001, 20_003)));
        check(None, 11_999, &[], Some((31_999, 20_000)));
        check(None, 0, &RANGE.collect::<Vec<_>>(), None);
    }

    #[test]
    fn a_directory_has_the_same_ports_at_its_next_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = of(dir.path()).expect("chosen");
        assert_eq!(of(dir.path()).expect("kept"), first);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first.broker)).expect("free until now");
        assert_ne!(of(dir.path()).expect("moved").broker, first.broker);
    }
}
