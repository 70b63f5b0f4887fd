//! From input to report: the same planner as in the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;

use super::expand::{self, Expanded};
use super::input::Input;
use super::report::{AdmissionReport, Cost, NodeReport, PodCounts, Report, UnschedulableReport};
use crate::api::nodepool::NodePool;
use crate::api::project;
use crate::cloud::catalog::{Catalog, CatalogError, SpotPrices};
use crate::cloud::settings::ClassSettings;
use crate::model::instance::InstanceType;
use crate::model::labels;
use crate::model::node::is_ephemeral;
use crate::model::pod::PodShape;
use crate::model::resources::Resources;
use crate::model::wire::requests::ResourcesWire;
use crate::model::workload::WorkloadKind;
use crate::policy;
use crate::schedule::{self, Demand, NodeSlot, Options, PoolSlot, Problem, Solution};

/// Improvement attempts after the first packing; enough for the last per cent of small plans.
const IMPROVE: u32 = 500;

/// How to simulate.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Region of the built-in catalog.
    pub region: String,
    /// Spot prices.
    pub spot: SpotPrices,
    /// A foreign catalog in place of the built-in one.
    pub catalog: Option<Vec<Arc<InstanceType>>>,
    /// The moment, for policies that begin on a date.
    pub now: Timestamp,
}

/// Why there is no report.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SimulateError {
    /// The catalog cannot be used.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The plan failed its independent check, which is our fault.
    #[error("internal error, please report: the plan failed its check: {0}")]
    Check(String),
}

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

/// Plans nodes for the input.
///
/// # Errors
/// When the catalog cannot be used, or the plan fails its check.
pub fn simulate(mut input: Input, settings: &Settings) -> Result<Report, SimulateError> {
    let mut report = Report::default();
    let policies = policies(&input, &mut report);
    let door = expand::Door { policies: &policies, now: settings.now };
    let pods = expand::pods(&mut input, &door);
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
    findings(&input, &pods, &mut report);
    let pools = pools(&input, settings, &mut report)?;
    let (problem, waiting) = problem(&input, &pods, pools);
    let solution = schedule::solve(&problem);
    let violations = schedule::check::check(&problem, &solution);
    if !violations.is_empty() {
        let text = violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(SimulateError::Check(text));
    }
    fill(&mut report, &problem, &solution, &waiting);
    Ok(report)
}

fn findings(input: &Input, pods: &[Expanded], report: &mut Report) {
    for (kind, count) in &input.skipped {
        report
            .warnings
            .push(format!("{count} {kind} objects say nothing about nodes and were skipped"));
    }
    let mut volumes = 0;
    for pod in pods.iter().filter(|pod| pod.pod.active()) {
        volumes += usize::from(!pod.pod.shape.volume_claims.is_empty());
        let mut tell = |action: &str, message: String| {
            let (pod, action) = (pod.key.clone(), action.to_owned());
            report.admission.push(AdmissionReport { pod, action, message });
        };
        for (action, message) in pod.preview.lines() {
            tell(verb(action), message);
        }
        if pod.preview.refusal.is_some() {
            continue;
        }
        let spec = &pod.preview.spec;
        let covered = spec.resources.as_ref().map(ResourcesWire::effective).unwrap_or_default();
        for container in &spec.containers {
            let asked = container.resources.effective();
            let missing: Vec<&str> = ["cpu", "memory"]
                .into_iter()
                .filter(|name| asked.get(name) == 0 && covered.get(name) == 0)
                .filter(|name| !pod.preview.covers(&container.name, name))
                .collect();
            if !missing.is_empty() {
                tell(
                    "Warn",
                    format!(
                        "container {} has no {} request: it counts as 0, so the node may be too \
                         small for it; set resources.requests",
                        container.name,
                        missing.join(" and no ")
                    ),
                );
            }
        }
    }
    if volumes > 0 {
        report.warnings.push(format!(
            "{volumes} pods mount persistent volume claims, whose zones are not looked at"
        ));
    }
}

/// The policies of the input. One that cannot be compiled has been reported with its fields.
fn policies(input: &Input, report: &mut Report) -> policy::Snapshot {
    let mut compiled = Vec::new();
    for object in &input.policies {
        let name = object.name_any();
        match policy::compile(&name, &object.spec) {
            Ok(policy) => compiled.push(policy),
            Err(error) => {
                report.warnings.push(format!("RequestPolicy {name} is not applied: {error}"));
            }
        }
    }
    let namespaces = input.namespaces.iter().map(|(name, l)| (name.to_string(), l.clone()));
    policy::Snapshot::new("simulate", compiled, namespaces.collect(), BTreeSet::new())
}

fn verb(action: policy::Action) -> &'static str {
    match action {
        policy::Action::Off => "Off",
        policy::Action::Shadow => "Shadow",
        policy::Action::Warn => "Warn",
        policy::Action::Default => "Default",
        policy::Action::Deny => "Deny",
    }
}

/// Types and settings of one class.
type OfClass = (Arc<[Arc<InstanceType>]>, ClassSettings);

/// Pools with the types of their classes.
fn pools(
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
        let pool = project::pool(object, true);
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
        unknown_types(object, types, report);
        let volume_price = if settings.catalog.is_some() {
            crate::model::money::MicroDollarsPerHour::ZERO
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
    Ok(slots)
}

/// Warns of instance types that a pool names and the catalog does not have.
fn unknown_types(pool: &NodePool, types: &[Arc<InstanceType>], report: &mut Report) {
    let known: BTreeSet<&str> = types.iter().map(|instance| &*instance.name).collect();
    for requirement in &pool.spec.template.spec.requirements {
        let operator = requirement.operator;
        if requirement.key != labels::INSTANCE_TYPE || operator != crate::api::Operator::In {
            continue;
        }
        for value in requirement.values.iter().filter(|value| !known.contains(&***value)) {
            let near = crate::api::labels::nearest(value, known.iter().copied());
            let hint = near.map(|name| format!(", did you mean {name}?")).unwrap_or_default();
            report.warnings.push(format!(
                "NodePool {}: instance type {value} is not offered{hint}",
                pool.name_any()
            ));
        }
    }
}

/// The problem, and the keys of the pods of each demand.
fn problem(input: &Input, pods: &[Expanded], pools: Vec<PoolSlot>) -> (Problem, Vec<Vec<String>>) {
    let daemons: Vec<Arc<PodShape>> = input
        .workloads
        .iter()
        .filter(|(kind, _)| *kind == WorkloadKind::DaemonSet)
        .map(|(_, workload)| Arc::new(workload.template_shape()))
        .collect();
    let mut nodes = Vec::new();
    for node in &input.nodes {
        nodes.push(node_slot(node, pods, &daemons, &pools));
    }
    let mut by_shape: BTreeMap<Arc<PodShape>, Vec<String>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.waits()) {
        by_shape.entry(Arc::clone(&pod.pod.shape)).or_default().push(pod.key.clone());
    }
    let mut demands = Vec::new();
    let mut waiting = Vec::new();
    for (shape, keys) in by_shape {
        demands.push(Demand {
            shape,
            count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
            gang: None,
        });
        waiting.push(keys);
    }
    let options = Options { improve: IMPROVE, bound: true, ..Options::default() };
    let namespaces = input.namespaces.clone();
    (Problem { demands, nodes, pools, daemons, namespaces, options }, waiting)
}

fn node_slot(
    node: &crate::model::wire::node::NodeWire,
    pods: &[Expanded],
    daemons: &[Arc<PodShape>],
    pools: &[PoolSlot],
) -> NodeSlot {
    let node = node.to_node();
    let mut free = node.allocatable.clone();
    let mut there: BTreeMap<Arc<PodShape>, u32> = BTreeMap::new();
    let mut host_ports = Vec::new();
    let on_node = pods
        .iter()
        .filter(|pod| pod.pod.node_name.as_deref() == Some(&*node.name) && !pod.pod.terminal());
    let mut daemon_pods = Resources::default();
    for pod in on_node {
        free.sub(&pod.pod.shape.requests);
        host_ports.extend(pod.pod.shape.host_ports.iter().cloned());
        *there.entry(Arc::clone(&pod.pod.shape)).or_insert(0) += 1;
        if pod.pod.of_daemon_set() {
            daemon_pods.add(&pod.pod.shape.requests);
        }
    }
    // DaemonSet pods that are still to come take their room first.
    let mut to_come = Resources::default();
    for daemon in daemons {
        let fits = crate::model::taints::untolerated(&node.taints, &daemon.tolerations).is_none()
            && daemon.node_alternatives().iter().any(|wanted| wanted.met_by(&node.labels));
        if fits {
            to_come.add(&daemon.requests);
        }
    }
    to_come.sub(&daemon_pods);
    to_come.clamp_to_zero();
    free.sub(&to_come);
    let pool = node.label(labels::NODEPOOL);
    NodeSlot {
        name: Arc::clone(&node.name),
        taints: node.taints.iter().filter(|taint| !is_ephemeral(taint)).cloned().collect(),
        free,
        pods: there.into_iter().collect(),
        host_ports,
        pool: pools.iter().position(|slot| Some(&*slot.pool.name) == pool),
        initialized: node.ready,
        labels: node.labels,
    }
}

fn fill(report: &mut Report, problem: &Problem, solution: &Solution, waiting: &[Vec<String>]) {
    let mut names: Vec<std::slice::Iter<'_, String>> =
        waiting.iter().map(|keys| keys.iter()).collect();
    let mut take = |demand: usize, count: u32| -> Vec<String> {
        names[demand].by_ref().take(usize::try_from(count).unwrap_or(0)).cloned().collect()
    };
    let mut counts =
        PodCounts { total: waiting.iter().map(Vec::len).sum(), ..PodCounts::default() };
    for placement in &solution.placements {
        let pods = take(placement.demand, placement.count);
        counts.placed_on_existing += pods.len();
        let node = problem.nodes[placement.node].name.to_string();
        report.existing.entry(node).or_default().extend(pods);
    }
    for node in &solution.new_nodes {
        let slot = &problem.pools[node.pool];
        let instance = &slot.types[node.choice.type_index];
        let offering = &instance.offerings[node.choice.offering_index];
        let mut pods: Vec<String> = node.pods.iter().flat_map(|(d, n)| take(*d, *n)).collect();
        pods.sort();
        counts.placed_on_new += pods.len();
        report.nodes.push(NodeReport {
            node_pool: slot.pool.name.to_string(),
            instance_type: instance.name.to_string(),
            zone: offering.zone.to_string(),
            capacity_type: offering.capacity_type.label().to_owned(),
            price_per_hour: node.price.dollars(),
            allocatable: instance.allocatable().to_quantities(),
            requested: node.requested.to_quantities(),
            pods,
        });
    }
    for unplaced in &solution.unplaced {
        let reasons: Vec<String> = unplaced
            .reasons
            .pools
            .iter()
            .map(|(pool, reason)| match &**pool {
                "" => reason.to_string(),
                pool => format!("NodePool {pool}: {reason}"),
            })
            .chain(
                unplaced
                    .reasons
                    .nodes
                    .iter()
                    .map(|(n, reason)| format!("{n} existing nodes: {reason}")),
            )
            .collect();
        for pod in take(unplaced.demand, unplaced.count) {
            counts.unschedulable += 1;
            report.unschedulable.push(UnschedulableReport { pod, reasons: reasons.clone() });
        }
    }
    report.unschedulable.sort_by(|a, b| a.pod.cmp(&b.pod));
    report.pods = counts;
    report.cost = Cost {
        per_hour: solution.cost.dollars(),
        lower_bound_per_hour: solution.lower_bound.unwrap_or_default().dollars(),
    };
}
