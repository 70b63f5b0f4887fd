//! Conformance tables and properties of decisions.

mod bounds;
mod guard;
mod learned;
mod properties;
mod record;
mod selection;
mod sleep;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::*;
use crate::model::labels::Labels;
use crate::model::requirement::Requirements;
use crate::model::resources::Resources;
use crate::model::room::{PoolRooms, Room};

pub(super) fn policy(name: &str, rules: &[(Resource, Action)]) -> Policy {
    let amount = |resource| match resource {
        Resource::Cpu => 250,
        Resource::Memory => 256 << 20,
        Resource::EphemeralStorage => 2 << 30,
    };
    Policy {
        name: name.into(),
        container_kinds: vec![ContainerKind::Main, ContainerKind::Init, ContainerKind::Sidecar],
        rules: rules
            .iter()
            .map(|(resource, action)| Rule {
                resource: *resource,
                action: *action,
                amount: Some(amount(*resource)),
                learned: None,
                enforce_from: None,
            })
            .collect(),
        zero_means_missing: true,
        ..Policy::default()
    }
}

pub(super) fn snapshot(policies: Vec<Policy>) -> Snapshot {
    let namespaces = BTreeMap::from([(
        "shop".to_owned(),
        Labels::from([("team".to_owned(), "web".to_owned())]),
    )]);
    Snapshot::new("v7", policies, Arc::new(namespaces), BTreeSet::from(["kube-system".to_owned()]))
}

/// One pool that takes every pod, with nodes that leave so much.
pub(super) fn rooms(nodes: &[Resources]) -> Arc<[PoolRooms]> {
    let rooms = nodes.iter().map(|left| Room { left: left.clone(), ..Room::default() }).collect();
    Arc::new([PoolRooms::new(Vec::new(), Requirements::new(), rooms)])
}

pub(super) fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

pub(super) fn decide_text(pod: &str, snapshot: &Snapshot) -> Decision {
    let view = PodView::parse(pod).unwrap();
    decide(&view, &meta("shop"), snapshot)
}

pub(super) fn meta(namespace: &str) -> RequestMeta<'_> {
    RequestMeta { namespace, now: now(), user: User::default() }
}

/// Applies the decision's patch as the API server would.
pub(super) fn patched(pod: &str, decision: &Decision) -> String {
    let mut object: Value = serde_json::from_str(pod).unwrap();
    json_patch::patch(&mut object, &decision.patch).unwrap();
    object.to_string()
}
