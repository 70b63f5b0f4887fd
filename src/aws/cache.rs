//! A small map whose entries age by the callers' clock.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

/// Values that count for a fixed time. Readers copy values out; no lock is held across a call.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    ttl: SignedDuration,
    entries: Mutex<BTreeMap<K, (Timestamp, V)>>,
}

impl<K: Ord, V: Clone> Cache<K, V> {
    /// An empty cache whose values count for `ttl`.
    pub(super) fn new(ttl: SignedDuration) -> Self {
        Self { ttl, entries: Mutex::default() }
    }

    /// The value, unless it is too old.
    pub(super) fn get(&self, key: &K, now: Timestamp) -> Option<V> {
        let entries = self.entries.lock();
        let (at, value) = entries.get(key)?;
        (now.duration_since(*at) < self.ttl).then(|| value.clone())
    }

    /// Keeps a value from now on, and drops what is too old.
    pub(super) fn put(&self, key: K, value: V, now: Timestamp) {
        let mut entries = self.entries.lock();
        entries.retain(|_, (at, _)| now.duration_since(*at) < self.ttl);
        entries.insert(key, (now, value));
    }

    /// Drops a value.
    pub(super) fn remove(&self, key: &K) {
        self.entries.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_age() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let cache = Cache::new(SignedDuration::from_secs(60));
        cache.put("a", 1, at(0));
        assert_eq!(cache.get(&"a", at(59)), Some(1));
        assert_eq!(cache.get(&"a", at(60)), None);
        cache.put("b", 2, at(60));
        assert_eq!(cache.entries.lock().len(), 1);
        cache.remove(&"b");
        assert_eq!(cache.get(&"b", at(60)), None);
    }
}
