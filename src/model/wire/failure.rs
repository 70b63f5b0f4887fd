//! What a pod's status says of its end, read for the guard against eviction loops.
//!
//! The kubelet writes the use of each container beyond its request into the message of an eviction.
//! A pod whose containers all stayed within their requests is a victim of its node, not of its own
//! requests, and no failure here. The kernel tells no use: a container that was killed at its limit
//! used at least that, and of one without a limit only the request is known.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::pod::{ContainerStatusWire, PodWire};
use super::requests::ResourcesWire;
use crate::model::failure::{Failure, FailureKind, Owner, Shortage};
use crate::model::pod::PodPhase;
use crate::model::quantity::Quantity;
use crate::model::resources::{EPHEMERAL_STORAGE, MEMORY, Resources};
use crate::model::workload::root_owner;

/// Reason of the phase of a pod that the kubelet evicted.
const EVICTED: &str = "Evicted";
/// Reason of a container that the kernel killed for memory.
const OOM_KILLED: &str = "OOMKilled";
/// Containers of one failure that are read; pods have a few.
const MOST: usize = 16;

/// What is read of a container's state.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStateWire {
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminated: Option<TerminatedWire>,
}

/// What is read of a container's end.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TerminatedWire {
    /// Reason, such as `OOMKilled`.
    pub reason: Option<String>,
    /// When.
    pub finished_at: Option<Timestamp>,
}

impl PodWire {
    /// How the pod, or containers of it, ended last for want of what they had not asked for. None for
    /// pods that no workload makes.
    pub fn failure(&self) -> Option<Failure> {
        let evicted =
            self.status.phase == PodPhase::Failed && self.status.reason.as_deref() == Some(EVICTED);
        let (kind, at, shortages) = if evicted { self.eviction() } else { self.kills()? };
        if shortages.is_empty() {
            return None;
        }
        let controller = self.metadata.controller().filter(|owner| &*owner.kind != "Node")?;
        let labels = &self.metadata.labels;
        let (owner_kind, owner) = root_owner(&controller.kind, &controller.name, labels);
        Some(Failure {
            owner: Owner::new(self.metadata.namespace(), owner_kind, owner),
            pod: self.metadata.name().into(),
            uid: self.metadata.uid.as_deref().unwrap_or_default().into(),
            kind,
            at,
            shortages,
        })
    }

    fn eviction(&self) -> (FailureKind, i64, Vec<Shortage>) {
        let message = self.status.message.as_deref().unwrap_or_default();
        // Conditions change when a pod fails; without any its creation is the careful guess.
        let changed = self.status.conditions.iter().filter_map(|c| c.last_transition_time);
        let at = changed.map(Timestamp::as_second).max();
        let at = at.unwrap_or_else(|| self.metadata.created_at());
        (FailureKind::Evicted, at, overuse(message).take(MOST).collect())
    }

    fn kills(&self) -> Option<(FailureKind, i64, Vec<Shortage>)> {
        let statuses = self.status.init_container_statuses.iter();
        let killed = statuses
            .chain(&self.status.container_statuses)
            .filter_map(|status| Some((status, oom_killed_at(status)?)));
        let mut last = None;
        let mut shortages = Vec::new();
        for (status, at) in killed.take(MOST) {
            shortages.extend(self.shortage(&status.name));
            last = last.max(Some(at));
        }
        Some((FailureKind::OomKilled, last?, shortages))
    }

    /// What a killed container had asked for and may have used.
    fn shortage(&self, name: &str) -> Option<Shortage> {
        let mut containers = self.spec.init_containers.iter().chain(&self.spec.containers);
        let container = containers.find(|container| container.name == name)?;
        let ResourcesWire { requests, limits } = &container.resources;
        let read = |quantity: &Quantity| Resources::amount(MEMORY, *quantity);
        let limit = limits.get(MEMORY).map(read);
        let request = requests.get(MEMORY).map(read).or(limit).unwrap_or(0);
        let used = limit.unwrap_or(request).max(request);
        Some(Shortage { container: name.into(), resource: MEMORY, request, used })
    }
}

fn oom_killed_at(status: &ContainerStatusWire) -> Option<i64> {
    let killed = |state: &ContainerStateWire| {
        let end = state.terminated.as_ref()?;
        (end.reason.as_deref() == Some(OOM_KILLED))
            .then(|| end.finished_at.map_or(0, Timestamp::as_second))
    };
    killed(&status.state).or_else(|| killed(&status.last_state))
}

/// The containers that a kubelet's message of an eviction names, each as `Container app was using
/// 1536Mi, request is 0, has larger consumption of memory. `
fn overuse(message: &str) -> impl Iterator<Item = Shortage> {
    message.split("Container ").skip(1).filter_map(|part| {
        let (container, rest) = part.split_once(" was using ")?;
        let (used, rest) = rest.split_once(", request is ")?;
        let (request, rest) = rest.split_once(", has larger consumption of ")?;
        let resource = match rest.split('.').next()?.trim() {
            MEMORY => MEMORY,
            EPHEMERAL_STORAGE => EPHEMERAL_STORAGE,
            _ => return None,
        };
        let read = |text: &str| {
            text.parse::<Quantity>().ok().map(|quantity| Resources::amount(resource, quantity))
        };
        let (used, request) = (read(used)?, read(request)?.max(0));
        let container: Arc<str> = container.into();
        (used > request).then_some(Shortage { container, resource, request, used })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// As kubelet 1.33 writes it.
    const MESSAGE: &str = "The node was low on resource: memory. Threshold quantity: 100Mi, available: \
                           51264Ki. Container app was using 1536Mi, request is 128Mi, has larger \
                           consumption of memory. Container log was using 40Mi, request is 0, has \
                           larger consumption of memory. ";

    fn failure(status: &Value) -> Option<Failure> {
        let pod = json!({
            "metadata": {
                "name": "web-5d9c-x", "namespace": "shop", "uid": "u",
                "labels": {"pod-template-hash": "5d9c"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d9c", "uid": "r", "controller": true}],
                "creationTimestamp": "2026-06-01T12:00:00Z",
            },
            "spec": {"containers": [
                {"name": "app", "resources": {"requests": {"memory": "128Mi"}, "limits": {"memory": "1Gi"}}},
                {"name": "log"},
            ]},
            "status": status,
        });
        serde_json::from_value::<PodWire>(pod).unwrap().failure()
    }

    fn amounts(failure: &Failure) -> Vec<(&str, i64, i64)> {
        failure.shortages.iter().map(|s| (&*s.container, s.request >> 20, s.used >> 20)).collect()
    }

    #[test]
    fn an_eviction_tells_what_was_used() {
        let found = failure(&json!({
            "phase": "Failed", "reason": "Evicted", "message": MESSAGE,
            "conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet",
                "lastTransitionTime": "2026-06-01T12:03:00Z",
            }],
        }));
        let found = found.unwrap();
        assert_eq!(found.owner, Owner::new("shop", "Deployment", "web"));
        assert_eq!(found.kind, FailureKind::Evicted);
        assert_eq!(found.at, "2026-06-01T12:03:00Z".parse::<Timestamp>().unwrap().as_second());
        assert_eq!(amounts(&found), [("app", 128, 1536), ("log", 0, 40)]);
    }

    #[test]
    fn the_runs_of_a_cron_job_are_one_workload() {
        let pod = json!({
            "metadata": {"name": "nightly-29340000-x", "namespace": "shop", "uid": "u",
                "ownerReferences": [{"kind": "Job", "name": "nightly-29340000", "uid": "j",
                    "controller": true}],
                "creationTimestamp": "2026-06-01T12:00:00Z"},
            "status": {"phase": "Failed", "reason": "Evicted", "message": MESSAGE},
        });
        let found = serde_json::from_value::<PodWire>(pod).unwrap().failure().unwrap();
        assert_eq!(found.owner, Owner::new("shop", "Job", "nightly"));
    }

    #[test]
    fn a_victim_within_its_requests_is_no_failure() {
        for message in [
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 9Mi. ",
            "The node had condition: [DiskPressure]. ",
            "Container app was using much, request is 0, has larger consumption of memory. ",
            "Container app was using 5, request is 9, has larger consumption of memory. ",
            "Container app was using 5, request is 0, has larger consumption of inodes. ",
        ] {
            let status = json!({"phase": "Failed", "reason": "Evicted", "message": message});
            assert_eq!(failure(&status), None, "{message}");
        }
        assert_eq!(failure(&json!({"phase": "Failed", "message": MESSAGE})), None);
        assert_eq!(failure(&json!({"phase": "Running"})), None);
    }

    #[test]
    fn a_kill_is_read_from_either_state() {
        let end =
            json!({"terminated": {"reason": "OOMKilled", "finishedAt": "2026-06-01T12:05:00Z"}});
        for field in ["state", "lastState"] {
            let mut status = json!({"name": "app", "restartCount": 2});
            status[field] = end.clone();
            let found =
                failure(&json!({"phase": "Running", "containerStatuses": [status]})).unwrap();
            assert_eq!(found.kind, FailureKind::OomKilled);
            assert_eq!(amounts(&found), [("app", 128, 1024)]);
            assert!(found.key().1.is_some());
        }
        let other = json!({"name": "app", "lastState": {"terminated": {"reason": "Error"}}});
        assert_eq!(failure(&json!({"phase": "Running", "containerStatuses": [other]})), None);
    }
}
