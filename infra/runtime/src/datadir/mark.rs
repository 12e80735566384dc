//! Which process a pid meant: pids come round again, a pid with its start time does not.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{Error, write_private};

/// A process, told apart from a later one of the same pid by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its pid.
    pub pid: i32,
    /// When it started, in clock ticks since the machine's start: field 22 of `/proc/PID/stat`, see proc(5).
    pub started: u64,
}

impl Mark {
    /// The mark of a running process; `None` where there is none.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, started: started(&stat)? })
    }

    /// The mark of this process.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id() as i32)
    }

    /// Whether that very process still runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Reads a mark that [`Mark::write`] left; `None` where there is none that can be read.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Writes the mark to a file.
    pub fn write(self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec(&self).map_err(|e| Error::io(path)(io::Error::other(e)))?;
        write_private(path, &text)
    }
}

/// The start time in a line of `/proc/PID/stat`; `None` for a process that has ended and waits to be reaped.
fn started(stat: &str) -> Option<u64> {
    // The second field is the program's name in parentheses and may hold anything, `) R 1` included.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_field_22_whatever_the_program_is_called() {
        let check = |name: &str, state: &str, expected: Option<u64>| {
            let line =
                format!("42 ({name}) {state} 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 1\n");
            assert_eq!(started(&line), expected, "{line}");
        };
        check("java", "S", Some(987_654));
        check("a) R 1 (b", "R", Some(987_654));
        check("java", "Z", None);
        assert_eq!(started("42 (java) S 1 42"), None);
        assert_eq!(started(""), None);
    }

    #[test]
    fn only_the_same_pid_with_the_same_start_is_alive() {
        let own = Mark::own().expect("this process runs");
        assert!(own.is_alive());
        assert!(!Mark { started: own.started + 1, ..own }.is_alive());
        assert!(!Mark { pid: i32::MAX, ..own }.is_alive());
    }

    #[test]
    fn a_mark_comes_back_as_it_was_written_and_rubbish_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("process.json");
        assert_eq!(Mark::read(&path), None);
        let mark = Mark { pid: 3, started: 4 };
        mark.write(&path).expect("written");
        assert_eq!(Mark::read(&path), Some(mark));
        fs::write(&path, "{}").expect("written");
        assert_eq!(Mark::read(&path), None);
    }
}
