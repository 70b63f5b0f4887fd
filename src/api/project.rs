//! From API objects to the planner's words.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

use super::common::{
    Effect, NodeClassRef, Operator, Requirement as RequirementSpec, ResourceList,
    Taint as TaintSpec,
};
use super::conditions::{self, ConditionStatus};
use super::duration::{GoDuration, NillableDuration};
use super::ec2nodeclass::EC2NodeClass;
use super::nodeclaim::NodeClaim;
use super::nodeoverlay::NodeOverlay;
use super::nodepool::{
    ConsolidationPolicy as ConsolidationPolicySpec, NodeClaimTemplate, NodePool,
};
use super::validate::{validate_nodeoverlay, validate_nodepool};
use crate::model::claim::{Claim, ClaimStage};
use crate::model::digest::hex;
use crate::model::labels::{self, Labels};
use crate::model::overlay::{Overlay, PriceChange};
use crate::model::pool::{ClassFacts, ClassFindings, ClassRef, ConsolidationPolicy, Pool};
use crate::model::quantity::Quantity;
use crate::model::requirement::{self, Expression, Requirement, Requirements};
use crate::model::resources::Resources;
use crate::model::taints::{Taint, TaintEffect};
use kube::ResourceExt;

/// Key of the label that names the class: group and lower-case kind.
pub fn class_label(class: &ClassRef) -> String {
    format!("{}/{}", class.group, class.kind.to_lowercase())
}

/// The pool of an object. It is ready when it is valid and is not being deleted; whether its class is
/// ready is left to the caller.
pub fn pool(object: &NodePool) -> Pool {
    let name = object.name_any();
    let template = &object.spec.template;
    let class = class_ref(&template.spec.node_class_ref);
    let mut labels: Labels = template.metadata.labels.clone();
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
    let wrong: Vec<String> = validate_nodepool(object).iter().map(ToString::to_string).collect();
    let refusal = (!wrong.is_empty()).then(|| wrong.join("; ").into());
    Pool {
        name: name.into(),
        uid: object.uid().unwrap_or_default().into(),
        weight: object.spec.weight.unwrap_or(0),
        requirements,
        labels,
        annotations: template.metadata.annotations.clone(),
        taints: template.spec.taints.iter().map(TaintSpec::taint).collect(),
        startup_taints: template.spec.startup_taints.iter().map(TaintSpec::taint).collect(),
        limits: amounts(&object.spec.limits)
            .map(|(name, quantity)| (Arc::from(name), Resources::amount(name, quantity)))
            .collect(),
        class,
        expire_after: nillable(&template.spec.expire_after),
        termination_grace: template.spec.termination_grace_period.as_ref().map(seconds),
        consolidate_after: nillable(&disruption.consolidate_after),
        consolidation: match disruption.consolidation_policy {
            ConsolidationPolicySpec::WhenEmpty => ConsolidationPolicy::WhenEmpty,
            ConsolidationPolicySpec::WhenEmptyOrUnderutilized => {
                ConsolidationPolicy::WhenEmptyOrUnderutilized
            }
            ConsolidationPolicySpec::Balanced => ConsolidationPolicy::Balanced,
        },
        replicas: object.spec.replicas.map(|count| u32::try_from(count).unwrap_or(0)),
        hash: template_hash(template).into(),
        ready: object.metadata.deletion_timestamp.is_none() && refusal.is_none(),
        refusal,
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
        .map_or(created_at, |condition| condition.last_transition_time.0.as_second());
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
        provider_id: status.provider_id.unwrap_or_default().into(),
        image: status.image_id.unwrap_or_default().into(),
        node_name: status.node_name.unwrap_or_default().into(),
        capacity: resources(&status.capacity),
        allocatable: resources(&status.allocatable),
        created_at,
        stage_at,
        deleted_at: object.metadata.deletion_timestamp.as_ref().map(|time| time.0.as_second()),
        last_pod_event_at: status.last_pod_event_time.map(|time| time.0.as_second()),
        consolidatable: conditions::is_true(&status.conditions, conditions::CONSOLIDATABLE),
        consistent: conditions::get(&status.conditions, conditions::CONSISTENT_STATE_FOUND)
            .map(|condition| condition.status == ConditionStatus::True),
        drifted: conditions::get(&status.conditions, conditions::DRIFTED)
            .filter(|condition| condition.status == ConditionStatus::True)
            .map(|condition| (&*condition.reason).into()),
        expire_after: nillable(&object.spec.expire_after),
        termination_grace: object.spec.termination_grace_period.as_ref().map(seconds),
        finalizers: object.finalizers().iter().map(|name| (&**name).into()).collect(),
    }
}

/// What a class says of its nodes.
pub fn class(class: &EC2NodeClass) -> ClassFacts {
    let mut spec = class.spec.clone();
    // What these find is compared, not how they find it; of the family counts what it is.
    spec.ami_family = spec.resolved_family();
    spec.subnet_selector_terms.clear();
    spec.security_group_selector_terms.clear();
    spec.ami_selector_terms.clear();
    spec.capacity_reservation_selector_terms.clear();
    // Not in the field's digest.
    spec.ip_prefix_count = None;
    let text = serde_json::to_string(&spec).unwrap_or_default();
    let status = class.status.as_ref();
    let status = status.filter(|s| conditions::is_true(&s.conditions, conditions::READY));
    let found = status.map(|status| ClassFindings {
        images: status.amis.iter().map(|image| image.id.clone()).collect(),
        reservations: status.capacity_reservations.iter().map(|of| of.id.clone()).collect(),
    });
    ClassFacts { hash: hex(text, 8).into(), found }
}

/// The overlay of an object, with what is wrong with it.
pub fn overlay(object: &NodeOverlay) -> Overlay {
    let spec = &object.spec;
    let expressions: Vec<_> =
        spec.requirements.iter().map(|one| RequirementSpec::from(one).expression()).collect();
    let price = spec.price.as_deref().and_then(PriceChange::to);
    let adjustment = spec.price_adjustment.as_deref().and_then(PriceChange::by);
    let errors = validate_nodeoverlay(object);
    let fault = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Overlay {
        name: object.name_any().into(),
        weight: spec.weight.unwrap_or(0),
        requirements: Requirements::from_expressions(&expressions),
        price: price.or(adjustment),
        capacity: amounts(&spec.capacity)
            .map(|(name, quantity)| (Arc::from(name), Resources::amount(name, quantity)))
            .collect(),
        fault: (!fault.is_empty()).then(|| fault.into()),
    }
}

pub(super) fn class_ref(reference: &NodeClassRef) -> ClassRef {
    ClassRef {
        group: (&*reference.group).into(),
        kind: (&*reference.kind).into(),
        name: (&*reference.name).into(),
    }
}

/// Amounts by name, read. What the schema would refuse counts as absent.
fn amounts(list: &ResourceList) -> impl Iterator<Item = (&str, Quantity)> {
    list.iter().filter_map(|(name, text)| Some((&**name, text.0.parse().ok()?)))
}

/// A list of amounts in the planner's words.
pub fn resources(list: &ResourceList) -> Resources {
    Resources::from_quantities(amounts(list))
}

/// Amounts as an object carries them.
pub fn resource_list(resources: &Resources) -> ResourceList {
    resources.to_quantities().into_iter().map(|(name, text)| (name, WireQuantity(text))).collect()
}

fn nillable(duration: &NillableDuration) -> Option<i64> {
    match duration {
        NillableDuration::After(duration) => Some(seconds(duration)),
        NillableDuration::Never => None,
    }
}

fn seconds(duration: &GoDuration) -> i64 {
    i64::try_from(duration.seconds()).unwrap_or(i64::MAX)
}

impl RequirementSpec {
    /// The requirement in the planner's words.
    pub fn expression(&self) -> Expression {
        Expression {
            key: (&*self.key).into(),
            operator: self.operator.into(),
            values: self.values.iter().map(|value| (&**value).into()).collect(),
            min_values: self.min_values.and_then(|least| u32::try_from(least).ok()),
        }
    }
}

impl From<Expression> for RequirementSpec {
    fn from(expression: Expression) -> Self {
        Self {
            key: expression.key,
            operator: expression.operator.into(),
            values: expression.values.iter().map(ToString::to_string).collect(),
            min_values: expression.min_values.and_then(|least| i32::try_from(least).ok()),
        }
    }
}

impl From<Operator> for requirement::Operator {
    fn from(operator: Operator) -> Self {
        match operator {
            Operator::In => Self::In,
            Operator::NotIn => Self::NotIn,
            Operator::Exists => Self::Exists,
            Operator::DoesNotExist => Self::DoesNotExist,
            Operator::Gt => Self::Gt,
            Operator::Lt => Self::Lt,
            Operator::Gte => Self::Gte,
            Operator::Lte => Self::Lte,
        }
    }
}

impl From<requirement::Operator> for Operator {
    fn from(operator: requirement::Operator) -> Self {
        match operator {
            requirement::Operator::In => Self::In,
            requirement::Operator::NotIn => Self::NotIn,
            requirement::Operator::Exists => Self::Exists,
            requirement::Operator::DoesNotExist => Self::DoesNotExist,
            requirement::Operator::Gt => Self::Gt,
            requirement::Operator::Lt => Self::Lt,
            requirement::Operator::Gte => Self::Gte,
            requirement::Operator::Lte => Self::Lte,
        }
    }
}

impl TaintSpec {
    /// The taint in the planner's words.
    pub fn taint(&self) -> Taint {
        Taint {
            key: (&*self.key).into(),
            value: self.value.as_deref().unwrap_or_default().into(),
            effect: match self.effect {
                Effect::NoSchedule => TaintEffect::NoSchedule,
                Effect::PreferNoSchedule => TaintEffect::PreferNoSchedule,
                Effect::NoExecute => TaintEffect::NoExecute,
            },
        }
    }
}

impl From<&Taint> for TaintSpec {
    fn from(taint: &Taint) -> Self {
        Self {
            key: taint.key.clone(),
            value: (!taint.value.is_empty()).then(|| taint.value.clone()),
            effect: match taint.effect {
                TaintEffect::NoSchedule => Effect::NoSchedule,
                TaintEffect::PreferNoSchedule => Effect::PreferNoSchedule,
                TaintEffect::NoExecute => Effect::NoExecute,
            },
            time_added: None,
        }
    }
}

/// Digest of all that makes a node differ when it changes: the template without its requirements,
/// which are compared by what they allow. Durations count by their value.
pub fn template_hash(template: &NodeClaimTemplate) -> String {
    let mut template = template.clone();
    template.spec.requirements.clear();
    if let NillableDuration::After(after) = &mut template.spec.expire_after {
        *after = GoDuration::from_secs(after.seconds());
    }
    if let Some(grace) = &mut template.spec.termination_grace_period {
        *grace = GoDuration::from_secs(grace.seconds());
    }
    template.spec.taints.sort_by(|a, b| (&a.key, a.effect).cmp(&(&b.key, b.effect)));
    template.spec.startup_taints.sort_by(|a, b| (&a.key, a.effect).cmp(&(&b.key, b.effect)));
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
        let pool = pool(&object);
        assert!(pool.ready);
        assert_eq!(pool.labels["karpenter.k8s.aws/ec2nodeclass"], "std");
        assert_eq!(pool.labels["tier"], "front");
        assert_eq!(pool.limits["cpu"], 10_000);
        assert_eq!(pool.limits["nodes"], 3);
        assert_eq!(pool.expire_after, Some(2_592_000));
        assert_eq!(pool.consolidate_after, Some(0));
        let mut same = object.clone();
        same.spec.template.spec.expire_after = NillableDuration::from_secs(2_592_000);
        same.spec.template.spec.requirements.clear();
        assert_eq!(template_hash(&same.spec.template), template_hash(&object.spec.template));
        same.spec.template.metadata.annotations.insert("a".into(), "b".into());
        assert_ne!(template_hash(&same.spec.template), template_hash(&object.spec.template));
        same.spec.template.metadata.labels.insert("tier".into(), "back".into());
        assert!(super::pool(&same).ready, "it asks for no tier");
        same.spec.template.spec.requirements = object.spec.template.spec.requirements;
        let refused = super::pool(&same);
        assert!(!refused.ready, "labels and requirements contradict each other");
        let refusal = refused.refusal.unwrap();
        assert!(refusal.contains("spec.template"), "{refusal}");
    }
}
