//! Gangs on the wire: annotations of pods, so that templates of any workload can carry them, and the
//! `PodGroup` of `scheduling.k8s.io`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::scheduling::v1beta1 as scheduling;
use serde::{Deserialize, Serialize};

use crate::model::gang::{GANG, Gang, PodGroup};
use crate::model::labels::normalize_key;
use crate::model::pod::PodShape;

/// How many pods the gang has at least; while fewer are known nothing is bought for it.
pub const GANG_SIZE: &str = "harbinger.sh/gang-size";
/// Label of nodes that must have one value for the whole gang, such as `topology.kubernetes.io/zone`.
pub const GANG_TOPOLOGY: &str = "harbinger.sh/gang-topology";

/// What is read of a pod's `schedulingGroup`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SchedulingGroupWire {
    /// Name of a `PodGroup` in the pod's namespace.
    pub pod_group_name: Option<String>,
}

/// Joins the pod to its `PodGroup`, which the kube-scheduler minds, or else to the gang that its
/// annotations name.
pub(super) fn join(
    shape: &mut PodShape,
    annotations: &BTreeMap<String, String>,
    group: Option<&SchedulingGroupWire>,
) {
    let group = group.and_then(|group| group.pod_group_name.as_deref());
    if let Some(name) = group.filter(|name| !name.is_empty()) {
        let gang = Gang { name: name.into(), size: 0, by_group: true };
        shape.labels.insert(gang.label().to_owned(), name.to_owned());
        shape.gang = Some(Arc::new(gang));
        return;
    }
    let text = |key: &str| annotations.get(key).map(|value| value.trim()).filter(|v| !v.is_empty());
    let Some(name) = text(GANG) else { return };
    let size = text(GANG_SIZE).and_then(|size| size.parse().ok()).unwrap_or(0);
    let gang = Gang { name: name.into(), size, by_group: false };
    if let Some(key) = text(GANG_TOPOLOGY) {
        shape.labels.insert(gang.label().to_owned(), name.to_owned());
        shape.together.push(gang.together(normalize_key(key)));
    }
    shape.gang = Some(Arc::new(gang));
}

impl From<scheduling::PodGroup> for PodGroup {
    fn from(object: scheduling::PodGroup) -> Self {
        let constraints = object.spec.scheduling_constraints;
        let topology = constraints.and_then(|constraints| constraints.topology).unwrap_or_default();
        let gang = object.spec.scheduling_policy.gang;
        Self {
            namespace: object.metadata.namespace.as_deref().unwrap_or("default").into(),
            name: object.metadata.name.unwrap_or_default().into(),
            min_count: gang.map(|gang| u32::try_from(gang.min_count).unwrap_or(0)),
            topology: topology.iter().map(|one| normalize_key(&one.key).into()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::wire::pod::PodWire;

    fn shape(pod: serde_json::Value) -> PodShape {
        serde_json::from_value::<PodWire>(pod).unwrap().shape()
    }

    fn annotated(annotations: &serde_json::Value) -> PodShape {
        shape(serde_json::json!({ "metadata": { "annotations": annotations } }))
    }

    #[test]
    fn annotations_make_a_gang() {
        let plain = annotated(&serde_json::json!({ "harbinger.sh/gang-size": "3" }));
        assert!(plain.gang.is_none());
        let gang = annotated(&serde_json::json!({ "harbinger.sh/gang": "mpi" }));
        assert_eq!(gang.gang.as_ref().map(|gang| (&*gang.name, gang.size)), Some(("mpi", 0)));
        assert!(gang.together.is_empty());
        let close = annotated(&serde_json::json!({
            "harbinger.sh/gang": "mpi", "harbinger.sh/gang-size": "8",
            "harbinger.sh/gang-topology": "topology.kubernetes.io/zone",
        }));
        assert_eq!(close.gang.as_ref().map(|gang| gang.size), Some(8));
        let term = &close.together[0];
        assert_eq!(&*term.topology_key, "topology.kubernetes.io/zone");
        assert!(term.selector.as_ref().unwrap().matches(&close.labels));
    }

    #[test]
    fn a_pod_group_comes_before_annotations() {
        let member = shape(serde_json::json!({
            "metadata": { "annotations": { "harbinger.sh/gang": "mpi" } },
            "spec": { "schedulingGroup": { "podGroupName": "train" } },
        }));
        let gang = member.gang.as_ref().unwrap();
        assert_eq!((&*gang.name, gang.by_group), ("train", true));
        let term = gang.together("topology.kubernetes.io/zone");
        assert!(term.selector.unwrap().matches(&member.labels));
    }

    #[test]
    fn what_a_group_asks_is_read() {
        let read = |spec: serde_json::Value| {
            let object = serde_json::json!({ "apiVersion": "scheduling.k8s.io/v1beta1",
                "kind": "PodGroup", "metadata": { "name": "train", "namespace": "n" }, "spec": spec });
            PodGroup::from(serde_json::from_value::<scheduling::PodGroup>(object).unwrap())
        };
        let basic = read(serde_json::json!({ "schedulingPolicy": { "basic": {} } }));
        assert_eq!((&*basic.namespace, &*basic.name, basic.min_count), ("n", "train", None));
        let gang = read(serde_json::json!({ "schedulingPolicy": { "gang": { "minCount": 3 } },
            "schedulingConstraints": { "topology": [{ "key": "rack" }] } }));
        assert_eq!((gang.min_count, &*gang.topology), (Some(3), &["rack".into()][..]));
    }
}
