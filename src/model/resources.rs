//! Amounts of node resources.
//!
//! The four resources that every pod and node has are plain fields; everything else (GPUs,
//! hugepages, ENIs…) is a short sorted list, since most pods name none.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use super::quantity::Quantity;

/// The `cpu` resource name.
pub const CPU: &str = "cpu";
/// The `memory` resource name.
pub const MEMORY: &str = "memory";
/// The `ephemeral-storage` resource name.
pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
/// The `pods` resource name.
pub const PODS: &str = "pods";

/// A vector of resource amounts: requests, capacity, allocatable or free room.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Resources {
    /// CPU in millicores.
    pub cpu: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Local ephemeral storage in bytes.
    pub ephemeral_storage: i64,
    /// Pod slots.
    pub pods: i64,
    /// Other resources by name, sorted, in whole units (bytes for hugepages). No zero entries.
    pub extended: SmallVec<[(Arc<str>, i64); 1]>,
}

impl Resources {
    /// Only cpu (millicores) and memory (bytes).
    pub fn new(cpu: i64, memory: i64) -> Self {
        Self { cpu, memory, ..Self::default() }
    }

    /// Reads a Kubernetes resource list.
    pub fn from_quantities<'a>(list: impl IntoIterator<Item = (&'a str, Quantity)>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list {
            resources.set(name, Self::amount(name, quantity));
        }
        resources
    }

    /// The integer amount of `quantity` in the unit of resource `name`: millicores for cpu, whole
    /// units for everything else, rounded up.
    pub fn amount(name: &str, quantity: Quantity) -> i64 {
        if name == CPU { quantity.milli() } else { quantity.units() }
    }

    /// The same, rounded down: for limits and other amounts that must not be exceeded.
    pub fn amount_floor(name: &str, quantity: Quantity) -> i64 {
        if name == CPU { quantity.milli_floor() } else { quantity.units_floor() }
    }

    /// The amount of resource `name`, 0 when absent.
    pub fn get(&self, name: &str) -> i64 {
        match name {
            CPU => self.cpu,
            MEMORY => self.memory,
            EPHEMERAL_STORAGE => self.ephemeral_storage,
            PODS => self.pods,
            _ => match self.extended.binary_search_by(|(key, _)| (**key).cmp(name)) {
                Ok(index) => self.extended[index].1,
                Err(_) => 0,
            },
        }
    }

    /// Sets the amount of resource `name`.
    pub fn set(&mut self, name: &str, amount: i64) {
        match name {
            CPU => self.cpu = amount,
            MEMORY => self.memory = amount,
            EPHEMERAL_STORAGE => self.ephemeral_storage = amount,
            PODS => self.pods = amount,
            _ => match self.extended.binary_search_by(|(key, _)| (**key).cmp(name)) {
                Ok(index) if amount == 0 => {
                    self.extended.remove(index);
                }
                Ok(index) => self.extended[index].1 = amount,
                Err(_) if amount == 0 => {}
                Err(index) => self.extended.insert(index, (Arc::from(name), amount)),
            },
        }
    }

    /// All non-zero amounts, cpu first, then memory, ephemeral storage, pods and the rest by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        [
            (CPU, self.cpu),
            (MEMORY, self.memory),
            (EPHEMERAL_STORAGE, self.ephemeral_storage),
            (PODS, self.pods),
        ]
        .into_iter()
        .filter(|(_, amount)| *amount != 0)
        .chain(self.extended.iter().map(|(name, amount)| (&**name, *amount)))
    }

    /// Whether every amount is at most that of `room`.
    pub fn fits(&self, room: &Self) -> bool {
        self.shortage(room).is_none()
    }

    /// The first resource of which `room` has less than is asked, in the order of [`Self::iter`].
    /// A resource of which nothing is asked is never short, even where `room` is overcommitted.
    pub fn shortage<'a>(&'a self, room: &Self) -> Option<&'a str> {
        self.iter()
            .find(|(name, amount)| *amount > 0 && *amount > room.get(name))
            .map(|(name, _)| name)
    }

    /// Adds `other` to each amount.
    pub fn add(&mut self, other: &Self) {
        self.merge(other, i64::saturating_add);
    }

    /// Subtracts `other` from each amount; amounts may become negative (overcommitted).
    pub fn sub(&mut self, other: &Self) {
        self.merge(other, i64::saturating_sub);
    }

    /// Raises each amount to at least that of `other`.
    pub fn raise_to(&mut self, other: &Self) {
        self.merge(other, i64::max);
    }

    /// Raises negative amounts to zero.
    pub fn clamp_to_zero(&mut self) {
        for amount in [&mut self.cpu, &mut self.memory, &mut self.ephemeral_storage, &mut self.pods]
        {
            *amount = (*amount).max(0);
        }
        self.extended.retain(|(_, amount)| *amount > 0);
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        sum.add(other);
        sum
    }

    /// The difference of both; amounts may be negative.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut difference = self.clone();
        difference.sub(other);
        difference
    }

    /// Each amount times `count`.
    #[must_use]
    pub fn times(&self, count: i64) -> Self {
        let mut product = self.clone();
        for amount in [
            &mut product.cpu,
            &mut product.memory,
            &mut product.ephemeral_storage,
            &mut product.pods,
        ] {
            *amount = amount.saturating_mul(count);
        }
        for (_, amount) in &mut product.extended {
            *amount = amount.saturating_mul(count);
        }
        product.extended.retain(|(_, amount)| *amount != 0);
        product
    }

    /// Whether every amount is zero.
    pub fn is_zero(&self) -> bool {
        self.iter().next().is_none()
    }

    fn merge(&mut self, other: &Self, op: fn(i64, i64) -> i64) {
        self.cpu = op(self.cpu, other.cpu);
        self.memory = op(self.memory, other.memory);
        self.ephemeral_storage = op(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = op(self.pods, other.pods);
        for (name, amount) in &other.extended {
            let value = op(self.get(name), *amount);
            self.set(name, value);
        }
    }

    /// Prints the amount of resource `name` as a Kubernetes quantity (`500m`, `2Gi`, `3`).
    pub fn format_amount(name: &str, amount: i64) -> String {
        match name {
            CPU => Quantity::format_milli(amount),
            MEMORY | EPHEMERAL_STORAGE => Quantity::format_bytes(amount),
            _ if name.starts_with("hugepages-") => Quantity::format_bytes(amount),
            _ => amount.to_string(),
        }
    }

    /// The Kubernetes resource list, for objects that are written to the API server.
    pub fn to_quantities(&self) -> std::collections::BTreeMap<String, String> {
        self.iter()
            .map(|(name, amount)| (name.to_owned(), Self::format_amount(name, amount)))
            .collect()
    }
}

impl fmt::Display for Resources {
    /// `cpu 500m, memory 2Gi`, or `nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (name, amount) in self.iter() {
            let comma = if first { "" } else { ", " };
            write!(f, "{comma}{name} {}", Self::format_amount(name, amount))?;
            first = false;
        }
        if first { f.write_str("nothing") } else { Ok(()) }
    }
}

impl Serialize for Resources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_quantities().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Resources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = std::collections::BTreeMap::<String, Quantity>::deserialize(deserializer)?;
        Ok(Self::from_quantities(list.iter().map(|(name, quantity)| (&**name, *quantity))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Resources {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn adds_and_compares_extended_resources() {
        let mut room = of(r#"{"cpu":"4","memory":"8Gi","nvidia.com/gpu":"2","pods":10}"#);
        let ask = of(r#"{"cpu":"1500m","nvidia.com/gpu":1,"pods":1}"#);
        assert!(ask.fits(&room));
        room.sub(&ask);
        room.sub(&ask);
        assert_eq!(room.get("nvidia.com/gpu"), 0);
        assert_eq!(ask.shortage(&room), Some(CPU));
        assert_eq!(of(r#"{"x/y":1}"#).shortage(&room), Some("x/y"));
        assert_eq!(room.to_string(), "cpu 1, memory 8Gi, pods 8");
    }

    #[test]
    fn nothing_asked_fits_overcommitted_room() {
        let room = Resources::new(-100, 1 << 30);
        assert!(Resources::new(0, 1 << 20).fits(&room));
        assert!(!Resources::new(1, 0).fits(&room));
    }
}
