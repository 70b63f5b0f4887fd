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
}

/// The objects from the first of a namespace on.
fn of<'a, T>(
    all: &'a BTreeMap<Key, T>,
    namespace: &str,
) -> std::collections::btree_map::Range<'a, Key, T> {
    let from: Key = (namespace.into(), "".into());
    all.range(from..)
}
