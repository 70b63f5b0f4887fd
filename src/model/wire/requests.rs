//! The effective request of a pod: what the scheduler adds up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::or_default;
use super::pod::{ContainerWire, PodConditionWire, PodSpecWire, PodStatusWire};
use crate::model::quantity::Quantity;
use crate::model::resources::{CPU, MEMORY, Resources};

/// A resource list as objects spell it.
pub type ResourceList = BTreeMap<String, Quantity>;

/// `resources` of a container or a pod.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ResourcesWire {
    /// Requests.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: ResourceList,
    /// Limits.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: ResourceList,
}

impl ResourcesWire {
    /// Requests with limits in place of requests that are missing, as the API server defaults
    /// them.
    pub fn effective(&self) -> Resources {
        let mut resources = read(&self.limits);
        for (name, quantity) in &self.requests {
            resources.set(name, Resources::amount(name, *quantity));
        }
        resources
    }
}

fn read(list: &ResourceList) -> Resources {
    Resources::from_quantities(list.iter().map(|(name, quantity)| (&**name, *quantity)))
}

/// Whether pod-level resources may set `name`.
fn pod_level(name: &str) -> bool {
    name == CPU || name == MEMORY || name.starts_with("hugepages-")
}

/// The effective request of the pod, with one pod slot.
///
/// Containers and sidecars add up; each init container runs beside the sidecars started before it,
/// and the largest moment counts; pod-level requests replace the sum; overhead comes on top. While
/// a resize is in progress a container counts with the larger of what it asks and what it holds.
pub fn pod_requests(spec: &PodSpecWire, status: &PodStatusWire) -> Resources {
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&container_requests(container, status));
    }
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for container in &spec.init_containers {
        let own = container_requests(container, status);
        if container.is_sidecar() {
            total.add(&own);
            sidecars.add(&own);
            peak.raise_to(&sidecars);
        } else {
            peak.raise_to(&sidecars.plus(&own));
        }
    }
    total.raise_to(&peak);
    if let Some(resources) = &spec.resources {
        for (name, quantity) in &resources.requests {
            if pod_level(name) {
                total.set(name, Resources::amount(name, *quantity));
            }
        }
        // The API server fills a missing pod-level request from the sum of the containers, or from
        // the limit when no container asks for the resource.
        for (name, quantity) in &resources.limits {
            if pod_level(name) && !resources.requests.contains_key(name) && total.get(name) == 0 {
                total.set(name, Resources::amount(name, *quantity));
            }
        }
    }
    total.add(&read(&spec.overhead));
    total.pods = 1;
    total
}

fn container_requests(container: &ContainerWire, status: &PodStatusWire) -> Resources {
    let mut own = container.resources.effective();
    let held = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .find(|held| held.name == container.name);
    if let Some(held) = held {
        let mut there = read(&held.allocated_resources);
        if let Some(actual) = &held.resources {
            there.raise_to(&read(&actual.requests));
        }
        // What a node can never give is not counted, as the kube-scheduler has it.
        let impossible = |condition: &PodConditionWire| {
            condition.r#type == "PodResizePending"
                && condition.status == "True"
                && condition.reason.as_deref() == Some("Infeasible")
        };
        if !there.is_zero() && status.conditions.iter().any(impossible) {
            return there;
        }
        own.raise_to(&there);
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(spec: &str) -> String {
        let spec: PodSpecWire = serde_json::from_str(spec).unwrap();
        pod_requests(&spec, &PodStatusWire::default()).to_string()
    }

    #[test]
    fn sidecars_add_up_and_init_containers_peak() {
        let spec = r#"{
            "containers":[{"name":"a","resources":{"requests":{"cpu":"1","memory":"1Gi"}}}],
            "initContainers":[
                {"name":"s","restartPolicy":"Always","resources":{"requests":{"cpu":"500m"}}},
                {"name":"i","resources":{"requests":{"cpu":"2","memory":"512Mi"}}}
            ],
            "overhead":{"cpu":"100m"}
        }"#;
        assert_eq!(requests(spec), "cpu 2600m, memory 1Gi, pods 1");
    }

    #[test]
    fn a_resize_that_no_node_can_do_counts_as_what_is_there() {
        let of = |reason: &str| {
            let pod = serde_json::json!({
                "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "64"}}}]},
                "status": {
                    "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                    "containerStatuses": [{
                        "name": "a", "allocatedResources": {"cpu": "1"},
                        "resources": {"requests": {"cpu": "2"}},
                    }],
                },
            });
            let pod: super::super::pod::PodWire = serde_json::from_value(pod).unwrap();
            pod_requests(&pod.spec, &pod.status).cpu
        };
        assert_eq!(of("Deferred"), 64_000);
        assert_eq!(of("Infeasible"), 2_000);
    }

    #[test]
    fn limits_stand_in_and_pod_level_wins() {
        let spec = r#"{
            "containers":[{"name":"a","resources":{"limits":{"cpu":"1","memory":"1Gi"}}}],
            "resources":{"requests":{"memory":"4Gi"}}
        }"#;
        assert_eq!(requests(spec), "cpu 1, memory 4Gi, pods 1");
        assert_eq!(requests(r#"{"containers":[{"name":"a"}]}"#), "pods 1");
    }

    #[test]
    fn a_resize_in_progress_counts_the_larger_side() {
        let spec: PodSpecWire = serde_json::from_str(
            r#"{"containers":[{"name":"a","resources":{"requests":{"cpu":"1"}}}]}"#,
        )
        .unwrap();
        let status: PodStatusWire = serde_json::from_str(
            r#"{"containerStatuses":[{"name":"a","allocatedResources":{"cpu":"3"}}]}"#,
        )
        .unwrap();
        assert_eq!(pod_requests(&spec, &status).cpu, 3000);
    }
}
