//! Where a test can make a process die: between any two steps of a partition's task.

use super::Error;

/// A place between two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The state is restored and 0 is committed where it must be; nothing is read yet.
    Begun,
    /// The topic that is looked at is folded on; what asks for it is not.
    Looked,
    /// A slice is folded; its effects are not sent.
    Folded,
    /// Its effects are sent; nothing is known of them.
    Sent,
    /// A snapshot is written.
    Written,
    /// An offset is committed.
    Committed,
}

/// A crash that a test has planted.
#[derive(Debug, Default)]
pub(super) struct Faults {
    #[cfg(test)]
    pub(super) planted: std::sync::Mutex<Option<(Step, u32)>>,
}

impl Faults {
    /// Fails where a crash is planted here and it is its time.
    #[cfg(test)]
    pub(super) fn at(&self, step: Step) -> Result<(), Error> {
        let mut planted = self.planted.lock().expect("no test panics here");
        match &mut *planted {
            Some((at, 0)) if *at == step => {
                *planted = None;
                Err(Error::Planted)
            }
            Some((at, more)) if *at == step => {
                *more -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Nothing is planted outside of tests.
    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "the shape that tests need")]
    pub(super) fn at(&self, _: Step) -> Result<(), Error> {
        Ok(())
    }
}
