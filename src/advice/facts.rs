//! What stands beside workloads, as far as advice reads it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::companions::{Budget, Priority, Scaler};
use crate::model::labels::Labels;

/// Namespace and name.
type Key = (Arc<str>, Arc<str>);

/// An immutable view of the objects beside workloads. Cloning costs three reference counts. A kind
/// that was never listed is empty, and nothing is said about it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Disruption budgets.
    pub budgets: Arc<BTreeMap<Key, Arc<Budget>>>,
    /// Autoscalers.
    pub scalers: Arc<BTreeMap<Key, Arc<Scaler>>>,
    /// Priority classes by name.
    pub priorities: Arc<BTreeMap<Arc<str>, Arc<Priority>>>,
}

impl Facts {
    /// The budgets of pods with these labels.
    pub(super) fn budgets_of(&self, namespace: &str, labels: &Labels) -> Vec<&Budget> {
        let here = of(&self.budgets, namespace).map(|(_, budget)| budget);
        here.take_while(|budget| *budget.namespace == *namespace)
            .filter(|budget| budget.selects(namespace, labels))
            .map(|budget| &**budget)
            .collect()
    }

    /// The autoscaler of a workload.
    pub(super) fn scaler_of(&self, namespace: &str, kind: &str, name: &str) -> Option<&Scaler> {
        let here = of(&self.scalers, namespace).map(|(_, scaler)| scaler);
        here.take_while(|scaler| *scaler.namespace == *namespace)
            .find(|scaler| scaler.scales(namespace, kind, name))
            .map(|scaler| &**scaler)
    }

    /// The least and the most pods that a workload may have, which itself asks for `desired`: its
    /// autoscaler's to say, except where somebody scaled it to nothing.
    pub fn replicas(&self, namespace: &str, kind: &str, name: &str, desired: i64) -> (i64, i64) {
        let scaler = self.scaler_of(namespace, kind, name).filter(|_| desired > 0);
        scaler.map_or((desired, desired), |scaler| scaler.replicas)
    }

    /// Pods to count of a workload that asks for `desired`: its autoscaler keeps them within its bounds.
    pub fn held(&self, namespace: &str, kind: &str, name: &str, desired: u32) -> u32 {
        let (least, most) = self.replicas(namespace, kind, name, desired.into());
        let held = i64::from(desired).min(most).max(least);
        u32::try_from(held).unwrap_or(desired)
    }
}

/// The objects from the first of a namespace on.
fn of<'a, T>(
    all: &'a BTreeMap<Key, T>,
    namespace: &str,
) -> std::collections::btree_map::Range<'a, Key, T> {
    let from: Key = (namespace.into(), "".into());
    all.range(from..)
}
