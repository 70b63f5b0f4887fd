//! Pools with the types that they may buy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::ResourceExt;

use super::engine::{Settings, SimulateError};
use super::input::Input;
use super::report::Report;
use crate::api::nodepool::NodePool;
use crate::api::project;
use crate::cloud::catalog::Catalog;
use crate::cloud::settings::ClassSettings;
use crate::model::instance::InstanceType;
use crate::model::labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::overlay::Overlay;
use crate::plan::overlay;
use crate::schedule::PoolSlot;

/// The pool that is used when the input has none: what Karpenter's guides start with, both
/// architectures, bought as spot or on demand.
const DEFAULT_POOL: &str = r#"{
  "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"},
  "spec": {"template": {"spec": {
    "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
    "requirements": [
      {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
      {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]},
      {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand", "spot"]},
      {"key": "karpenter.k8s.aws/instance-category", "operator": "In", "values": ["c", "m", "r"]},
      {"key": "karpenter.k8s.aws/instance-generation", "operator": "Gt", "values": ["2"]}
    ]}}}
}"#;

/// What a foreign catalog is bought with when the input has no pool: everything it offers.
const OPEN_POOL: &str = r#"{
  "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"},
  "spec": {"template": {"spec": {
    "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
    "requirements": []}}}
}"#;

/// Adds a pool where the input has none.
pub(super) fn complete(input: &mut Input, settings: &Settings, report: &mut Report) {
    if input.pools.is_empty() {
        let text = if settings.catalog.is_some() { OPEN_POOL } else { DEFAULT_POOL };
        input.pools.extend(serde_json::from_str::<NodePool>(text));
        report.warnings.push(match settings.catalog {
            Some(_) => {
                "no NodePool in the input: a default one takes all types of the catalog".to_owned()
            }
            None => "no NodePool in the input: a default one takes c, m and r types after \
                     generation 2, amd64 and arm64, spot and on-demand"
                .to_owned(),
        });
    }
}

/// Types and settings of one class.
type OfClass = (Arc<[Arc<InstanceType>]>, ClassSettings);

/// Pools with the types of their classes.
pub(super) fn slots(
    input: &Input,
    settings: &Settings,
    report: &mut Report,
) -> Result<Vec<PoolSlot>, SimulateError> {
    let built_in = match settings.catalog {
        Some(_) => None,
        None => Some(Catalog::built_in()?),
    };
    let mut by_class: BTreeMap<String, OfClass> = BTreeMap::new();
    let mut slots = Vec::new();
    for object in &input.pools {
        let pool = project::pool(object);
        if pool.replicas.is_some() {
            report.warnings.push(format!(
                "NodePool {} keeps a fixed count of nodes (spec.replicas): it buys none for pods, \
                 and those that it lacks are not in the plan",
                pool.name
            ));
        }
        let class = pool.class.name.to_string();
        if !by_class.contains_key(&class) {
            let found = input.classes.get(&class);
            if found.is_none() && built_in.is_some() {
                report.warnings.push(format!(
                    "NodePool {}: EC2NodeClass {class} is not in the input, its defaults are used",
                    pool.name
                ));
            }
            let class_settings =
                found.map(|class| ClassSettings::of(&class.spec)).unwrap_or_default();
            let types = match (&settings.catalog, &built_in) {
                (Some(types), _) => types.clone(),
                (None, Some(catalog)) => {
                    catalog.instance_types(&settings.region, &class_settings, &settings.spot)?
                }
                (None, None) => Vec::new(),
            };
            by_class.insert(class.clone(), (types.into(), class_settings));
        }
        let Some((types, class_settings)) = by_class.get(&class) else { continue };
        absent_types(object, types, report);
        let volume_price = if settings.catalog.is_some() {
            MicroDollarsPerHour::ZERO
        } else {
            class_settings.volume_price
        };
        let mut remaining = pool.limits.clone();
        for node in &input.nodes {
            let node = node.to_node();
            if node.label(labels::NODEPOOL) == Some(&*pool.name) {
                for (name, left) in &mut remaining {
                    *left -= if &**name == "nodes" { 1 } else { node.capacity.get(name) };
                }
            }
        }
        slots.push(PoolSlot {
            pool: Arc::new(pool),
            types: Arc::clone(types),
            remaining,
            volume_price,
        });
    }
    lay_overlays(input, &mut slots, report);
    Ok(slots)
}

/// Lays the overlays of the input over the types of the pools.
fn lay_overlays(input: &Input, slots: &mut [PoolSlot], report: &mut Report) {
    let overlays: Vec<Overlay> = input.overlays.iter().map(project::overlay).collect();
    let pools: Vec<_> = slots.iter().map(|slot| (&*slot.pool, &slot.types)).collect();
    let overlaid = overlay::lay(&overlays, &pools);
    for (name, refusal) in &overlaid.verdicts {
        if let Some(refusal) = refusal {
            report.warnings.push(format!("NodeOverlay {name} is not applied: {refusal}"));
        }
    }
    for slot in slots {
        if let Some(types) = overlaid.types.get(&slot.pool.name) {
            slot.types = Arc::clone(types);
        }
    }
}

/// Warns of instance types that a pool names and the region does not have. (Those that no region
/// has are errors of the input.)
fn absent_types(pool: &NodePool, types: &[Arc<InstanceType>], report: &mut Report) {
    let known: BTreeSet<&str> = types.iter().map(|instance| &*instance.name).collect();
    for requirement in &pool.spec.template.spec.requirements {
        let operator = requirement.operator;
        if requirement.key != labels::INSTANCE_TYPE || operator != crate::api::Operator::In {
            continue;
        }
        for value in requirement.values.iter().filter(|value| !known.contains(&***value)) {
            report.warnings.push(format!(
                "NodePool {}: instance type {value} is not offered in this region",
                pool.name_any()
            ));
        }
    }
}
