//! From API objects to the planner's words.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::common::{NillableDuration, NodeClassRef, RequirementSpec, TaintSpec};
use super::conditions;
use super::nodeclaim::NodeClaim;
use super::nodepool::{ConsolidationPolicySpec, NodePool, NodeTemplate};
use crate::model::claim::{Claim, ClaimStage};
use crate::model::digest::hex;
use crate::model::labels::{self, Labels};
use crate::model::pool::{ClassRef, ConsolidationPolicy, Pool};
use crate::model::quantity::Quantity;
use crate::model::requirement::{Requirement, Requirements};
use crate::model::resources::Resources;
use kube::ResourceExt;

/// Key of the label that names the class: group and lower-case kind.
pub fn class_label(class: &ClassRef) -> String {
    format!("{}/{}", class.group, class.kind.to_lowercase())
}

/// The pool of an object. `ready` is left to the caller's judgement of validity and class.
pub fn pool(object: &NodePool, ready: bool) -> Pool {
    let name = object.name_any();
    let template = &object.spec.template;
    let class = class_ref(&template.spec.node_class_ref);
    let mut labels: Labels = template
        .metadata
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect();
    labels.insert(labels::NODEPOOL.to_owned(), name.clone());
    labels.insert(class_label(&class), class.name.to_string());
    let expressions: Vec<_> =
        template.spec.requirements.iter().map(RequirementSpec::expression).collect();
    let mut requirements = Requirements::from_expressions(&expressions);
    for (key, value) in &labels {
        requirements.insert(key, Requirement::one_of([&**value]));
    }
    // A requirement with a single value is a label of every node.
    for (key, requirement) in requirements.iter() {
        if let Some(value) = requirement.single()
            && !labels::is_well_known(key)
        {
            labels.entry(key.to_string()).or_insert_with(|| value.to_string());
        }
    }
    let disruption = &object.spec.disruption;
    Pool {
        name: name.into(),
        uid: object.uid().unwrap_or_default().into(),
        weight: object.spec.weight.unwrap_or(0),
        requirements,
        labels,
        annotations: template.metadata.annotations.clone(),
        taints: template.spec.taints.iter().map(TaintSpec::taint).collect(),
        startup_taints: template.spec.startup_taints.iter().map(TaintSpec::taint).collect(),
        limits: object
            .spec
            .limits
            .iter()
            .map(|(name, quantity)| (Arc::from(&**name), Resources::amount(name, *quantity)))
            .collect(),
        class,
        expire_after: template.spec.expire_after.seconds(),
        termination_grace: template.spec.termination_grace_period.as_deref().and_then(seconds),
        consolidate_after: disruption.consolidate_after.seconds(),
        consolidation: match disruption.consolidation_policy {
            ConsolidationPolicySpec::WhenEmpty => ConsolidationPolicy::WhenEmpty,
            ConsolidationPolicySpec::WhenEmptyOrUnderutilized => {
                ConsolidationPolicy::WhenEmptyOrUnderutilized
            }
            ConsolidationPolicySpec::Balanced => ConsolidationPolicy::Balanced,
        },
        fixed: object.spec.replicas.is_some(),
        hash: template_hash(template).into(),
        ready: ready && object.metadata.deletion_timestamp.is_none(),
    }
}

/// The claim of an object.
pub fn claim(object: &NodeClaim) -> Claim {
    let status = object.status.clone().unwrap_or_default();
    let stages = [
        (ClaimStage::Initialized, conditions::INITIALIZED),
        (ClaimStage::Registered, conditions::REGISTERED),
        (ClaimStage::Launched, conditions::LAUNCHED),
    ];
    let reached =
        stages.into_iter().find(|(_, name)| conditions::is_true(&status.conditions, name));
    let created_at = object.creation_timestamp().map_or(0, |time| time.0.as_second());
    let stage_at = reached
        .and_then(|(_, name)| conditions::get(&status.conditions, name))
        .and_then(|condition| condition.last_transition_time.parse::<jiff::Timestamp>().ok())
        .map_or(created_at, jiff::Timestamp::as_second);
    let expressions: Vec<_> =
        object.spec.requirements.iter().map(RequirementSpec::expression).collect();
    Claim {
        name: object.name_any().into(),
        uid: object.uid().unwrap_or_default().into(),
        pool: object
            .labels()
            .get(labels::NODEPOOL)
            .map_or_else(|| "".into(), |name| (&**name).into()),
        class: class_ref(&object.spec.node_class_ref),
        labels: object.labels().clone(),
        annotations: object.annotations().clone(),
        requirements: Requirements::from_expressions(&expressions),
        requests: resources(&object.spec.resources.requests),
        taints: object.spec.taints.iter().map(TaintSpec::taint).collect(),
        startup_taints: object.spec.startup_taints.iter().map(TaintSpec::taint).collect(),
        stage: reached.map_or(ClaimStage::Pending, |(stage, _)| stage),
        provider_id: status.provider_id.into(),
        node_name: status.node_name.into(),
        capacity: resources(&status.capacity),
        allocatable: resources(&status.allocatable),
        created_at,
        stage_at,
        deleted_at: object.metadata.deletion_timestamp.as_ref().map(|time| time.0.as_second()),
        last_pod_event_at: status
            .last_pod_event_time
            .and_then(|time| time.parse::<jiff::Timestamp>().ok())
            .map(jiff::Timestamp::as_second),
        expire_after: object.spec.expire_after.and_then(NillableDuration::seconds),
        termination_grace: object.spec.termination_grace_period.as_deref().and_then(seconds),
        finalizers: object.finalizers().iter().map(|name| (&**name).into()).collect(),
    }
}

fn class_ref(reference: &NodeClassRef) -> ClassRef {
    ClassRef {
        group: (&*reference.group).into(),
        kind: (&*reference.kind).into(),
        name: (&*reference.name).into(),
    }
}

fn resources(list: &BTreeMap<String, Quantity>) -> Resources {
    Resources::from_quantities(list.iter().map(|(name, quantity)| (&**name, *quantity)))
}

fn seconds(text: &str) -> Option<i64> {
    serde_json::from_value::<NillableDuration>(text.into()).ok()?.seconds()
}

/// Digest of all that makes a node differ when it changes: the template without its requirements,
/// which are compared by what they allow. Durations count by their value.
pub fn template_hash(template: &NodeTemplate) -> String {
    let mut template = template.clone();
    template.spec.requirements.clear();
    template.spec.taints.sort_by(|a, b| a.key.cmp(&b.key));
    template.spec.startup_taints.sort_by(|a, b| a.key.cmp(&b.key));
    let text = serde_json::to_string(&template).unwrap_or_default();
    hex(text, 8)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pool_in_the_planners_words() {
        let object: NodePool = serde_json::from_value(json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "web"},
            "spec": {
                "template": {
                    "metadata": {"labels": {"team": "shop"}},
                    "spec": {
                        "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "std"},
                        "requirements": [{"key": "tier", "operator": "In", "values": ["front"]}],
                        "expireAfter": "720h0m"
                    }
                },
                "limits": {"cpu": 10, "nodes": "3"}
            }
        }))
        .unwrap();
        let pool = pool(&object, true);
        assert_eq!(pool.labels["karpenter.k8s.aws/ec2nodeclass"], "std");
        assert_eq!(pool.labels["tier"], "front");
        assert_eq!(pool.limits["cpu"], 10_000);
        assert_eq!(pool.limits["nodes"], 3);
        assert_eq!(pool.expire_after, Some(2_592_000));
        assert_eq!(pool.consolidate_after, Some(0));
        let mut same = object.clone();
        same.spec.template.spec.expire_after = NillableDuration::Seconds(2_592_000);
        same.spec.template.spec.requirements.clear();
        assert_eq!(template_hash(&same.spec.template), template_hash(&object.spec.template));
        same.spec.template.metadata.annotations.insert("a".into(), "b".into());
        assert_ne!(template_hash(&same.spec.template), template_hash(&object.spec.template));
    }
}
