//! Gangs on the wire: annotations of pods, so that templates of any workload can carry them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::labels::{LabelSelector, normalize_key};
use crate::model::pod::{Gang, PodAffinityTerm, PodShape};

/// Name of the pod's gang, within its namespace. Pods of one gang, of whatever workloads, are planned
/// wholly or not at all.
pub const GANG: &str = "harbinger.sh/gang";
/// How many pods the gang has at least; while fewer are known nothing is bought for it.
pub const GANG_SIZE: &str = "harbinger.sh/gang-size";
/// Label of nodes that must have one value for the whole gang, such as `topology.kubernetes.io/zone`.
pub const GANG_TOPOLOGY: &str = "harbinger.sh/gang-topology";

/// Joins the pod to the gang that its annotations name.
///
/// One placement for all is an affinity to the gang's own pods, which the planner knows how to keep. The kube-scheduler does not see it: that pods go
/// where they were planned is the nomination's work.
pub(super) fn join(shape: &mut PodShape, annotations: &BTreeMap<String, String>) {
    let text = |key: &str| annotations.get(key).map(|value| value.trim()).filter(|v| !v.is_empty());
    let Some(name) = text(GANG) else { return };
    let size = text(GANG_SIZE).and_then(|size| size.parse().ok()).unwrap_or(0);
    if let Some(key) = text(GANG_TOPOLOGY) {
        shape.labels.insert(GANG.to_owned(), name.to_owned());
        shape.pod_affinity.push(PodAffinityTerm {
            selector: Some(LabelSelector {
                match_labels: [(GANG.to_owned(), name.to_owned())].into(),
                match_expressions: Vec::new(),
            }),
            topology_key: normalize_key(key).into(),
            ..PodAffinityTerm::default()
        });
    }
    shape.gang = Some(Arc::new(Gang { name: name.into(), size }));
}

#[cfg(test)]
mod tests {
    use crate::model::wire::pod::PodWire;

    #[test]
    fn annotations_make_a_gang() {
        let shape = |annotations: serde_json::Value| {
            let pod = serde_json::json!({ "metadata": { "annotations": annotations } });
            serde_json::from_value::<PodWire>(pod).unwrap().shape()
        };
        let plain = shape(serde_json::json!({ "harbinger.sh/gang-size": "3" }));
        assert!(plain.gang.is_none());
        let gang = shape(serde_json::json!({ "harbinger.sh/gang": "mpi" }));
        assert_eq!(gang.gang.as_ref().map(|gang| (&*gang.name, gang.size)), Some(("mpi", 0)));
        assert!(gang.pod_affinity.is_empty());
        let close = shape(serde_json::json!({
            "harbinger.sh/gang": "mpi", "harbinger.sh/gang-size": "8",
            "harbinger.sh/gang-topology": "topology.kubernetes.io/zone",
        }));
        assert_eq!(close.gang.as_ref().map(|gang| gang.size), Some(8));
        let term = &close.pod_affinity[0];
        assert_eq!(&*term.topology_key, "topology.kubernetes.io/zone");
        assert!(term.selector.as_ref().unwrap().matches(&close.labels));
    }
}
