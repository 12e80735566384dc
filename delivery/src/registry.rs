//! The connections of this node: one a device, and the newest wins.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use tokio::sync::Notify;
use waypost_schemas::id::DeviceId;

use crate::code::Goodbye;

/// One connection, as those see it who have news for it. It costs a few words: most connections are idle.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) device: DeviceId,
    /// The session's name. Of two sessions of a device the newer has the higher name.
    pub(crate) session: Box<str>,
    bell: Notify,
    /// Why it is told to end; 0 while it is not.
    ends: AtomicU8,
}

const REPLACED: u8 = 1;
const STOPPING: u8 = 2;

impl Connection {
    pub(crate) fn new(device: DeviceId, session: Box<str>) -> Self {
        Self { device, session, bell: Notify::new(), ends: AtomicU8::new(0) }
    }

    /// Says that there may be something new.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Resolves after [`Connection::ring`], also where that was before; cancel-safe.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Why it is told to end, where it is.
    pub(crate) fn ends(&self) -> Option<Goodbye> {
        match self.ends.load(Ordering::Acquire) {
            REPLACED => Some(Goodbye::Replaced),
            STOPPING => Some(Goodbye::Stopping),
            _ => None,
        }
    }

    /// Tells it that its device has a newer connection.
    pub(crate) fn replace(&self) {
        self.end(REPLACED);
    }

    fn end(&self, why: u8) {
        // The first reason stands.
        let _ = self.ends.compare_exchange(0, why, Ordering::AcqRel, Ordering::Acquire);
        self.ring();
    }
}

/// Why there is no further connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// There are as many as there may be.
    #[error("there are as many connections as there may be")]
    Sessions,
    /// The node stops.
    #[error("the node stops")]
    Stopping,
}

/// The connections of this node.
#[derive(Debug)]
pub(crate) struct Registry {
    sessions_max: usize,
    devices: Mutex<HashMap<DeviceId, Arc<Connection>>>,
    /// Those that were replaced and are not gone yet, and those that are no device's yet.
    open: Mutex<usize>,
    stopping: AtomicBool,
}

impl Registry {
    pub(crate) fn new(sessions_max: usize) -> Self {
        let (devices, open) = (Mutex::default(), Mutex::default());
        Self { sessions_max, devices, open, stopping: AtomicBool::new(false) }
    }

    /// Takes a place for a connection.
    pub(crate) fn place(self: &Arc<Self>) -> Result<Place, Full> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Full::Stopping);
        }
        let mut open = lock(&self.open);
        if *open >= self.sessions_max {
            return Err(Full::Sessions);
        }
        *open += 1;
        metrics::gauge!("waypost_delivery_sessions").set(*open as f64);
        Ok(Place { registry: self.clone(), connection: None })
    }

    /// Tells all connections that the node stops; later ones find no place.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // Told in the order of names, not of hashes, which is as good as any.
        let mut all: Vec<_> = lock(&self.devices).values().cloned().collect();
        all.sort_by(|a, b| a.session.cmp(&b.session));
        all.iter().for_each(|connection| connection.end(STOPPING));
    }
}

/// A connection's place; dropped, it is free.
#[derive(Debug)]
pub(crate) struct Place {
    registry: Arc<Registry>,
    connection: Option<Arc<Connection>>,
}

impl Place {
    /// Makes a connection its device's; the older one is told that it is replaced.
    pub(crate) fn take(&mut self, connection: &Arc<Connection>) {
        self.connection = Some(connection.clone());
        let device = connection.device.clone();
        if let Some(older) = lock(&self.registry.devices).insert(device, connection.clone()) {
            older.replace();
        }
        // A stop between the place and now has not seen it.
        if self.registry.stopping.load(Ordering::Acquire) {
            connection.end(STOPPING);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let mut devices = lock(&self.registry.devices);
            if devices.get(&connection.device).is_some_and(|newest| Arc::ptr_eq(newest, &connection)) {
                devices.remove(&connection.device);
            }
        }
        let mut open = lock(&self.registry.open);
        *open -= 1;
        metrics::gauge!("waypost_delivery_sessions").set(*open as f64);
    }
}

/// A lock whose holders never leave its value half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(session: &str) -> Arc<Connection> {
        Arc::new(Connection::new(DeviceId::new("bob/phone").unwrap(), session.into()))
    }

    #[test]
    fn the_newest_connection_of_a_device_wins() {
        let registry = Arc::new(Registry::new(10));
        let (first, second) = (connection("1"), connection("2"));
        let (mut one, mut two) = (registry.place().unwrap(), registry.place().unwrap());
        one.take(&first);
        two.take(&second);
        assert_eq!((first.ends(), second.ends()), (Some(Goodbye::Replaced), None));
        drop(one);
        assert!(
            lock(&registry.devices).contains_key("bob/phone"),
            "the older one's end is not the newer one's"
        );
        drop(two);
        assert!(lock(&registry.devices).is_empty());
    }

    #[test]
    fn places_are_counted_and_none_is_left_once_the_node_stops() {
        let registry = Arc::new(Registry::new(2));
        let mut one = registry.place().unwrap();
        let mut two = registry.place().unwrap();
        assert_eq!(registry.place().err(), Some(Full::Sessions));
        let (before, after) = (connection("1"), connection("2"));
        one.take(&before);
        registry.stop();
        assert_eq!(before.ends(), Some(Goodbye::Stopping));
        two.take(&after);
        assert_eq!((before.ends(), after.ends()), (Some(Goodbye::Stopping), Some(Goodbye::Stopping)));
        drop((one, two));
        assert_eq!(registry.place().err(), Some(Full::Stopping));
    }

    #[tokio::test]
    async fn a_bell_that_was_rung_before_is_heard() {
        let connection = connection("1");
        connection.ring();
        connection.ring();
        connection.rung().await;
    }
}
