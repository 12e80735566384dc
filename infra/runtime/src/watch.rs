//! One value that some set and others watch, each seeing the newest.
//!
//! It does what `tokio::sync::watch` does, whose watchers wake in an order that the runtime draws at random. Here they
//! wake in the order in which they began to wait: one input is one run, and a simulation replays.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Nobody is left who could set the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody is left who could set the value")]
pub struct Closed;

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    moved: Notify,
}

#[derive(Debug)]
struct State<T> {
    value: T,
    /// How often the value was set.
    version: u64,
    senders: usize,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A panic while a value was changed is told where it happened; what it left is still a value.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value, locked: not to be kept, and not across an `await`.
pub struct Ref<'a, T>(MutexGuard<'a, State<T>>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(f)
    }
}

/// A value, and one who watches it from now on.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

/// One who sets the value; a cheap clone.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// A value that nobody watches yet.
    pub fn new(value: T) -> Self {
        let state = Mutex::new(State { value, version: 0, senders: 1 });
        Self(Arc::new(Shared { state, moved: Notify::new() }))
    }

    /// Sets the value, and gives what it was.
    pub fn send_replace(&self, value: T) -> T {
        let mut was = value;
        self.send_modify(|value| std::mem::swap(value, &mut was));
        was
    }

    /// Changes the value where it stands.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Changes the value where it stands; watchers learn of it only where `change` says that it did. Gives that.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let mut state = self.0.lock();
        let changed = change(&mut state.value);
        state.version += u64::from(changed);
        drop(state);
        if changed {
            self.0.moved.notify_waiters();
        }
        changed
    }

    /// The value as it stands.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.lock())
    }

    /// One who watches from now on: the value as it stands is no change to it.
    pub fn subscribe(&self) -> Receiver<T> {
        let seen = self.0.lock().version;
        Receiver { shared: self.0.clone(), seen }
    }
}

impl<T: Default> Default for Sender<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        let last = state.senders == 0;
        drop(state);
        if last {
            self.0.moved.notify_waiters();
        }
    }
}

/// One who watches the value.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Receiver<T> {
    /// The value as it stands.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.lock())
    }

    /// The value as it stands, which is no change any more.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let state = self.shared.lock();
        self.seen = state.version;
        Ref(state)
    }

    /// Resolves when the value has been set since it was last seen here; cancel-safe.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        let seen = self.seen;
        self.when(|state| state.version != seen).await.map(drop)
    }

    /// Resolves to the value as soon as it is wanted; cancel-safe.
    pub async fn wait_for(&mut self, mut is_wanted: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        self.when(|state| is_wanted(&state.value)).await
    }

    async fn when(&mut self, mut is_so: impl FnMut(&State<T>) -> bool) -> Result<Ref<'_, T>, Closed> {
        let Self { shared, seen } = self;
        loop {
            // From here on nothing is missed: it wakes also for what moves before it is awaited.
            let moved = shared.moved.notified();
            {
                let state = shared.lock();
                if is_so(&state) {
                    *seen = state.version;
                    return Ok(Ref(state));
                }
                if state.senders == 0 {
                    return Err(Closed);
                }
            }
            moved.await;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt;
    use tokio::task::JoinSet;

    use super::*;

    #[test]
    fn a_watcher_sees_the_newest_value_once() {
        let (sender, mut receiver) = channel(1);
        assert_eq!(receiver.changed().now_or_never(), None);
        sender.send_replace(2);
        assert_eq!(sender.send_replace(3), 2);
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert_eq!(*receiver.borrow(), 3);
        assert_eq!(receiver.changed().now_or_never(), None);
        assert!(!sender.send_if_modified(|_| false));
        assert_eq!(receiver.changed().now_or_never(), None);
        sender.send_modify(|n| *n += 1);
        assert_eq!(*receiver.borrow_and_update(), 4);
        assert_eq!(receiver.changed().now_or_never(), None);
    }

    #[test]
    fn a_value_that_stands_already_is_not_waited_for() {
        let (sender, mut receiver) = channel(5);
        assert_eq!(*receiver.wait_for(|n| *n == 5).now_or_never().unwrap().unwrap(), 5);
        drop(sender);
        assert_eq!(*receiver.wait_for(|n| *n == 5).now_or_never().unwrap().unwrap(), 5);
        assert_eq!(receiver.wait_for(|n| *n == 6).now_or_never().unwrap().map(|_| ()), Err(Closed));
    }

    #[tokio::test]
    async fn whoever_waits_learns_that_nobody_is_left_to_set_it() {
        let (sender, mut receiver) = channel(());
        let other = sender.clone();
        drop(sender);
        assert_eq!(receiver.changed().now_or_never(), None, "one is left");
        let ((), closed) = tokio::join!(async { drop(other) }, receiver.changed());
        assert_eq!(closed, Err(Closed));
    }

    #[tokio::test]
    async fn watchers_wake_in_the_order_in_which_they_began_to_wait() {
        let sender = Sender::new(false);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut watchers = JoinSet::new();
        for n in 0..50 {
            let (mut receiver, woken) = (sender.subscribe(), woken.clone());
            watchers.spawn(async move {
                receiver.wait_for(|is| *is).await.map(drop).unwrap();
                woken.lock().unwrap().push(n);
            });
        }
        tokio::task::yield_now().await;
        sender.send_replace(true);
        watchers.join_all().await;
        assert_eq!(*woken.lock().unwrap(), (0..50).collect::<Vec<_>>());
    }
}
