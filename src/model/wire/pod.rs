//! Pods on the wire.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use serde::{Deserialize, Serialize};

use super::failure::ContainerStateWire;
use super::gang::SchedulingGroupWire;
use super::requests::{ResourceList, ResourcesWire, pod_requests};
use super::volume::ClaimTemplateWire;
use super::{MetaWire, or_default};
use crate::model::labels::{DO_NOT_DISRUPT, LabelSelector, Labels};
use crate::model::pod::{
    DEFAULT_GRACE, HostPort, Images, NodeTerm, Pod, PodAffinityTerm, PodPhase, PodShape,
    Protection, SpreadConstraint,
};
use crate::model::requirement::{Expression, Operator, Requirement, Requirements};
use crate::model::taints::Toleration;
use crate::model::volume::MountedClaim;

/// A pod as read from the API server, a review or a file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodWire {
    /// Metadata.
    pub metadata: MetaWire,
    /// Spec.
    pub spec: PodSpecWire,
    /// Status.
    pub status: PodStatusWire,
}

/// What is read of a pod's spec.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpecWire {
    /// Containers.
    #[serde(deserialize_with = "or_default")]
    pub containers: Vec<ContainerWire>,
    /// Init containers and sidecars.
    #[serde(deserialize_with = "or_default")]
    pub init_containers: Vec<ContainerWire>,
    /// Pod-level resources.
    pub resources: Option<ResourcesWire>,
    /// Overhead of the runtime class.
    #[serde(deserialize_with = "or_default")]
    pub overhead: ResourceList,
    /// Node selector.
    #[serde(deserialize_with = "or_default")]
    pub node_selector: BTreeMap<String, String>,
    /// Affinity.
    pub affinity: Option<core::Affinity>,
    /// Tolerations.
    #[serde(deserialize_with = "or_default")]
    pub tolerations: Vec<Toleration>,
    /// Spread constraints.
    #[serde(deserialize_with = "or_default")]
    pub topology_spread_constraints: Vec<core::TopologySpreadConstraint>,
    /// Priority, filled by the API server from the class.
    pub priority: Option<i32>,
    /// Priority class.
    pub priority_class_name: Option<String>,
    /// Preemption policy.
    pub preemption_policy: Option<String>,
    /// Scheduling gates.
    #[serde(deserialize_with = "or_default")]
    pub scheduling_gates: Vec<core::PodSchedulingGate>,
    /// Scheduler.
    pub scheduler_name: Option<String>,
    /// Runtime class.
    pub runtime_class_name: Option<String>,
    /// Node it is bound to.
    pub node_name: Option<String>,
    /// Whether it uses the host's network, where container ports are host ports.
    pub host_network: Option<bool>,
    /// Volumes.
    #[serde(deserialize_with = "or_default")]
    pub volumes: Vec<VolumeWire>,
    /// Devices by dynamic resource allocation.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub resource_claims: Vec<core::PodResourceClaim>,
    /// Grace period, seconds.
    pub termination_grace_period_seconds: Option<i64>,
    /// Service account.
    pub service_account_name: Option<String>,
    /// The group that the pod is placed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduling_group: Option<SchedulingGroupWire>,
}

/// What is read of a container.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerWire {
    /// Name.
    pub name: String,
    /// Image.
    pub image: Option<String>,
    /// Resources.
    #[serde(deserialize_with = "or_default")]
    pub resources: ResourcesWire,
    /// Ports.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<core::ContainerPort>,
    /// `Always` makes an init container a sidecar.
    pub restart_policy: Option<String>,
    /// Hooks at its start and end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<LifecycleWire>,
}

/// What is read of a container's hooks.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LifecycleWire {
    /// What runs before the container is told to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_stop: Option<serde_json::Map<String, serde_json::Value>>,
}

impl ContainerWire {
    /// Whether an init container keeps running beside the others.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

/// What is read of a volume.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeWire {
    /// Name.
    pub name: String,
    /// Claim that it mounts.
    pub persistent_volume_claim: Option<core::PersistentVolumeClaimVolumeSource>,
    /// Claim that is made with the pod, named `pod-volume`.
    pub ephemeral: Option<EphemeralWire>,
}

/// What is read of a volume that lives as long as its pod.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EphemeralWire {
    /// Template of the claim.
    #[serde(deserialize_with = "or_default")]
    pub volume_claim_template: ClaimTemplateWire,
}

/// What is read of a pod's status.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatusWire {
    /// Phase.
    #[serde(deserialize_with = "or_default")]
    pub phase: PodPhase,
    /// Reason of the phase, such as `Evicted`.
    pub reason: Option<String>,
    /// What is said of the phase.
    pub message: Option<String>,
    /// When the node took the pod up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<jiff::Timestamp>,
    /// Conditions.
    #[serde(deserialize_with = "or_default")]
    pub conditions: Vec<PodConditionWire>,
    /// Node the pod is meant for.
    pub nominated_node_name: Option<String>,
    /// Containers.
    #[serde(deserialize_with = "or_default")]
    pub container_statuses: Vec<ContainerStatusWire>,
    /// Init containers.
    #[serde(deserialize_with = "or_default")]
    pub init_container_statuses: Vec<ContainerStatusWire>,
}

/// What is read of a pod's condition.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodConditionWire {
    /// Type.
    pub r#type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Reason.
    pub reason: Option<String>,
    /// When it changed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<jiff::Timestamp>,
}

/// What is read of a container's status.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatusWire {
    /// Name.
    pub name: String,
    /// Resources that the node has set aside.
    #[serde(deserialize_with = "or_default")]
    pub allocated_resources: ResourceList,
    /// Resources in force.
    pub resources: Option<ResourcesWire>,
    /// How it is.
    #[serde(deserialize_with = "or_default")]
    pub state: ContainerStateWire,
    /// How it was before it was started last.
    #[serde(deserialize_with = "or_default")]
    pub last_state: ContainerStateWire,
}

impl PodWire {
    /// The shape of the pod.
    pub fn shape(&self) -> PodShape {
        shape(&self.metadata, &self.spec, &self.status)
    }

    /// The pod; `intern` lets equal shapes share memory.
    pub fn to_pod(&self, intern: impl FnOnce(PodShape) -> Arc<PodShape>) -> Pod {
        let arc = |text: &Option<String>| {
            text.as_deref().filter(|text| !text.is_empty()).map(Arc::<str>::from)
        };
        Pod {
            name: self.metadata.name().into(),
            uid: self.metadata.uid.as_deref().unwrap_or_default().into(),
            shape: intern(self.shape()),
            owner: self.metadata.controller(),
            node_name: arc(&self.spec.node_name),
            nominated_node: arc(&self.status.nominated_node_name),
            phase: self.status.phase,
            created_at: self.metadata.created_at(),
            deleted_at: self.metadata.deleted_at(),
            unschedulable: self.status.conditions.iter().any(|condition| {
                condition.r#type == "PodScheduled"
                    && condition.status == "False"
                    && condition.reason.as_deref() == Some("Unschedulable")
            }),
            gated: !self.spec.scheduling_gates.is_empty(),
            started_at: self.status.start_time.map(jiff::Timestamp::as_second),
            protection: self
                .metadata
                .annotations
                .get(DO_NOT_DISRUPT)
                .and_then(|text| Protection::parse(text)),
            critical: matches!(
                self.spec.priority_class_name.as_deref(),
                Some("system-cluster-critical" | "system-node-critical")
            ),
            grace_seconds: self.spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE),
            mirror: self.metadata.annotations.contains_key("kubernetes.io/config.mirror"),
            images: Arc::new(self.images()),
            failure: self.failure().map(Arc::new),
        }
    }

    fn images(&self) -> Images {
        let sidecars = self.spec.init_containers.iter().filter(|container| container.is_sidecar());
        let image = |container: &ContainerWire| {
            (container.name.as_str().into(), container.image.as_deref().unwrap_or_default().into())
        };
        self.spec.containers.iter().chain(sidecars).map(image).collect()
    }
}

/// The shape of a pod with this metadata (of the pod or of a template) and spec.
pub fn shape(meta: &MetaWire, spec: &PodSpecWire, status: &PodStatusWire) -> PodShape {
    let labels = &meta.labels;
    let affinity = spec.affinity.clone().unwrap_or_default();
    let node_affinity = affinity.node_affinity.unwrap_or_default();
    let pod_affinity = affinity.pod_affinity.unwrap_or_default();
    let anti_affinity = affinity.pod_anti_affinity.unwrap_or_default();
    let terms = |terms: &Option<Vec<core::PodAffinityTerm>>| {
        terms.iter().flatten().map(|term| pod_term(term, labels)).collect::<Vec<_>>()
    };
    let weighted = |terms: Option<Vec<core::WeightedPodAffinityTerm>>, sign: i32| {
        terms
            .unwrap_or_default()
            .into_iter()
            .map(move |term| (term.weight * sign, pod_term(&term.pod_affinity_term, labels)))
            .collect::<Vec<_>>()
    };
    let mut preferred_pod_terms =
        weighted(pod_affinity.preferred_during_scheduling_ignored_during_execution, 1);
    preferred_pod_terms
        .extend(weighted(anti_affinity.preferred_during_scheduling_ignored_during_execution, -1));
    let mut shape = PodShape {
        leaving: false,
        devices: !spec.resource_claims.is_empty(),
        namespace: meta.namespace().into(),
        labels: labels.clone(),
        requests: pod_requests(spec, status),
        node_selector: Requirements::from_labels(&spec.node_selector),
        required_node_terms: node_affinity
            .required_during_scheduling_ignored_during_execution
            .map(|selector| selector.node_selector_terms.iter().map(node_term).collect())
            .unwrap_or_default(),
        preferred_node_terms: node_affinity
            .preferred_during_scheduling_ignored_during_execution
            .unwrap_or_default()
            .iter()
            .map(|term| (term.weight, node_term(&term.preference)))
            .collect(),
        tolerations: spec.tolerations.clone(),
        pod_affinity: terms(&pod_affinity.required_during_scheduling_ignored_during_execution),
        pod_anti_affinity: terms(
            &anti_affinity.required_during_scheduling_ignored_during_execution,
        ),
        together: Vec::new(),
        preferred_pod_terms,
        spread: spec.topology_spread_constraints.iter().map(|c| spread(c, labels)).collect(),
        host_ports: host_ports(spec),
        claims: claims(meta, spec),
        priority: spec.priority.unwrap_or(0),
        may_preempt: spec.preemption_policy.as_deref() != Some("Never"),
        scheduler: match spec.scheduler_name.as_deref() {
            None | Some("default-scheduler") => "".into(),
            Some(name) => name.into(),
        },
        gang: None,
    };
    super::gang::join(&mut shape, &meta.annotations, spec.scheduling_group.as_ref());
    shape
}

pub(super) fn node_term(term: &core::NodeSelectorTerm) -> NodeTerm {
    let compile = |requirement: &core::NodeSelectorRequirement| Expression {
        key: requirement.key.clone(),
        // An operator that is unknown today must not be read as "anything goes".
        operator: Operator::parse(&requirement.operator).unwrap_or(Operator::In),
        values: requirement.values.clone().unwrap_or_default(),
        min_values: None,
    };
    let expressions: Vec<Expression> =
        term.match_expressions.iter().flatten().map(compile).collect();
    let node_name = term
        .match_fields
        .iter()
        .flatten()
        .filter(|field| field.key == "metadata.name")
        .map(|field| Requirement::from_expression(&compile(field)))
        .reduce(|a, b| a.intersect(&b));
    NodeTerm { requirements: Requirements::from_expressions(&expressions), node_name }
}

/// A label selector as the vocabulary has it.
pub(crate) fn selector(
    selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
) -> Option<LabelSelector> {
    let selector = selector?;
    Some(LabelSelector {
        match_labels: selector.match_labels.clone().unwrap_or_default(),
        match_expressions: selector
            .match_expressions
            .iter()
            .flatten()
            .map(|expression| Expression {
                key: expression.key.clone(),
                operator: Operator::parse(&expression.operator).unwrap_or(Operator::In),
                values: expression.values.clone().unwrap_or_default(),
                min_values: None,
            })
            .collect(),
    })
}

/// Adds `key In [own value]` (or `NotIn`) for each key that the pod carries. The API server merges
/// affinity keys into the selector itself, so an equal entry may already be there.
fn with_keys(
    mut selector: Option<LabelSelector>,
    keys: Option<&[String]>,
    operator: Operator,
    labels: &Labels,
) -> Option<LabelSelector> {
    if let Some(selector) = &mut selector {
        for key in keys.unwrap_or_default() {
            let Some(value) = labels.get(key) else { continue };
            let entry = Expression {
                key: key.clone(),
                operator,
                values: vec![value.clone()],
                min_values: None,
            };
            if !selector.match_expressions.contains(&entry) {
                selector.match_expressions.push(entry);
            }
        }
    }
    selector
}

fn pod_term(term: &core::PodAffinityTerm, labels: &Labels) -> PodAffinityTerm {
    let own = selector(term.label_selector.as_ref());
    let own = with_keys(own, term.match_label_keys.as_deref(), Operator::In, labels);
    let own = with_keys(own, term.mismatch_label_keys.as_deref(), Operator::NotIn, labels);
    PodAffinityTerm {
        selector: own,
        namespaces: term.namespaces.iter().flatten().map(|name| Arc::from(&**name)).collect(),
        namespace_selector: selector(term.namespace_selector.as_ref()),
        topology_key: crate::model::labels::normalize_key(&term.topology_key).into(),
    }
}

fn spread(constraint: &core::TopologySpreadConstraint, labels: &Labels) -> SpreadConstraint {
    SpreadConstraint {
        max_skew: constraint.max_skew,
        topology_key: crate::model::labels::normalize_key(&constraint.topology_key).into(),
        required: constraint.when_unsatisfiable != "ScheduleAnyway",
        selector: with_keys(
            selector(constraint.label_selector.as_ref()),
            constraint.match_label_keys.as_deref(),
            Operator::In,
            labels,
        ),
        min_domains: constraint.min_domains,
        honor_node_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        honor_node_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
    }
}

fn host_ports(spec: &PodSpecWire) -> Vec<HostPort> {
    let on_host = spec.host_network == Some(true);
    let mut ports: Vec<HostPort> = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().filter(|container| container.is_sidecar()))
        .flat_map(|container| &container.ports)
        .filter_map(|port| {
            let number = port.host_port.or(on_host.then_some(port.container_port))?;
            Some(HostPort {
                ip: port.host_ip.as_deref().unwrap_or_default().into(),
                protocol: port.protocol.as_deref().unwrap_or("TCP").into(),
                port: u16::try_from(number).ok().filter(|number| *number > 0)?,
            })
        })
        .collect();
    ports.sort();
    ports.dedup();
    ports
}

fn claims(meta: &MetaWire, spec: &PodSpecWire) -> Vec<MountedClaim> {
    let mut claims: Vec<MountedClaim> = spec
        .volumes
        .iter()
        .filter_map(|volume| {
            if let Some(source) = &volume.persistent_volume_claim {
                return Some(MountedClaim::of(&source.claim_name));
            }
            let template = volume.ephemeral.as_ref()?.volume_claim_template.spec.to_spec();
            let claim = match meta.name() {
                "" => "".into(),
                pod => format!("{pod}-{}", volume.name).into(),
            };
            Some(MountedClaim { claim, open: false, template: Some(Arc::new(template)) })
        })
        .collect();
    claims.sort();
    // One claim may be mounted twice; those without a name are claims of their own.
    claims.dedup_by(|a, b| !a.claim.is_empty() && a.claim == b.claim);
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_scheduling_needs() {
        let pod: PodWire = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "namespace": "shop", "labels": {"app": "web"}},
            "spec": {
                "containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}]}],
                "nodeSelector": {"beta.kubernetes.io/arch": "arm64"},
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
                        {},
                        {"matchExpressions": [{"key": "b", "operator": "Gt", "values": ["3"]}]}
                    ]}}},
                "topologySpreadConstraints": [{
                    "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": {"app": "web"}},
                    "matchLabelKeys": ["app"]
                }],
                "volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": "fast"}}}}],
                "somethingNew": {"x": 1}
            },
            "status": {"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            ]}
        }))
        .unwrap();
        let pod = pod.to_pod(Arc::new);
        assert!(pod.waiting() && pod.unschedulable);
        let alternatives = pod.shape.node_alternatives();
        assert_eq!(alternatives.len(), 2);
        assert!(alternatives.iter().all(|r| r.get("kubernetes.io/arch").is_some()));
        assert_eq!(pod.shape.host_ports[0].port, 8080);
        assert_eq!(&*pod.shape.claims[0].claim, "a-v");
        let template = pod.shape.claims[0].template.as_ref().unwrap();
        assert_eq!(template.class.as_deref(), Some("fast"));
        let spread = pod.shape.spread[0].selector.as_ref().unwrap();
        assert_eq!(spread.match_expressions.len(), 1);
    }

    #[test]
    fn nulls_are_defaults() {
        let pod: PodWire = serde_json::from_str(
            r#"{"metadata":{"labels":null},"spec":{"containers":null,"tolerations":null,"nodeSelector":null},"status":{"conditions":null}}"#,
        )
        .unwrap();
        assert_eq!(pod.shape().requests.pods, 1);
    }
}
