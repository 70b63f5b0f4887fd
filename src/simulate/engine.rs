//! From input to report: the same planner as in the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;

use super::expand::{self, Expanded};
use super::input::Input;
use super::pools;
use super::report::{
    AdmissionReport, Cost, FamilyReport, NodeReport, PodCounts, RelaxedReport, Report,
    UnschedulableReport, meant,
};
use crate::cloud::catalog::{CatalogError, SpotPrices};
use crate::model::instance::InstanceType;
use crate::model::labels;
use crate::model::pod::PodShape;
use crate::model::requirement::Requirements;
use crate::model::resources::Resources;
use crate::model::wire::requests::ResourcesWire;
use crate::policy;
use crate::schedule::{
    self, Demand, NodeSlot, Options, PoolSlot, Preference, Problem, Solution, relief,
};
use crate::usage::{Estimates, Namespace};

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
    /// Pod or workload, as `namespace/name`, for which the nearest change is looked for when it fits
    /// nowhere. It takes many solves, so it is done for one name only.
    pub explain: Option<String>,
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

/// Plans nodes for the input.
///
/// # Errors
/// When the catalog cannot be used, or the plan fails its check.
pub fn simulate(mut input: Input, settings: &Settings) -> Result<Report, SimulateError> {
    let mut report = Report::default();
    let policies = policies(&input, &BTreeSet::new(), &mut report);
    report.warnings.append(&mut input.warnings);
    pools::complete(&mut input, settings, &mut report);
    let mut of_pools = Report::default();
    let pools = pools::slots(&input, settings, &mut of_pools)?;
    let now = settings.now;
    let daemons = expand::daemons(&input, &policies, now);
    let policies = policies.with_rooms(schedule::rooms(pools.clone(), daemons.clone()).into());
    let pods = expand::pods(&mut input, &mut expand::Door { policies, now });
    findings(&input, &pods, &mut report);
    report.warnings.append(&mut of_pools.warnings);
    let (problem, waiting) = problem(&input, &pods, pools, daemons);
    let solution = schedule::solve(&problem);
    let violations = schedule::check::check(&problem, &solution);
    if !violations.is_empty() {
        let text = violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(SimulateError::Check(text));
    }
    fill(&mut report, &problem, &solution, &waiting, settings.explain.as_deref());
    Ok(report)
}

fn findings(input: &Input, pods: &[Expanded], report: &mut Report) {
    for (kind, count) in &input.skipped {
        report
            .warnings
            .push(format!("{count} {kind} objects say nothing about nodes and were skipped"));
    }
    for pod in pods.iter().filter(|pod| pod.pod.active()) {
        let mut tell = |action: &str, message: String| {
            let (pod, action) = (pod.key.clone(), action.to_owned());
            report.admission.push(AdmissionReport { pod, action, message });
        };
        for (action, message) in pod.preview.lines() {
            tell(action.api_name(), message);
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
}

/// The policies of the input. One that cannot be compiled has been reported with its fields.
pub(super) fn policies(
    input: &Input,
    exempt: &BTreeSet<String>,
    report: &mut Report,
) -> policy::Snapshot {
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
    let namespaces: BTreeMap<_, _> = namespaces.collect();
    policy::Snapshot::new("simulate", compiled, Arc::new(namespaces), exempt.clone())
        .with_bounds(input.bounds())
        .with_estimates(Arc::new(estimates(input, report)))
}

/// What the input's profiles say of containers.
fn estimates(input: &Input, report: &mut Report) -> Estimates {
    let mut parts: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for profile in &input.profiles {
        let namespace = profile.namespace().unwrap_or_else(|| "default".to_owned());
        parts.entry(namespace).or_default().push(profile.spec.bytes());
    }
    let mut estimates = Estimates::default();
    for (name, parts) in parts {
        let (namespace, bad) = Namespace::read(parts.iter().map(Vec::as_slice));
        for error in bad {
            report
                .warnings
                .push(format!("a DemandProfile of namespace {name} is read in part: {error}"));
        }
        estimates.set(&name, Some(Arc::new(namespace)));
    }
    estimates
}

/// The problem, and the keys of the pods of each demand.
pub(super) fn problem(
    input: &Input,
    pods: &[Expanded],
    pools: Vec<PoolSlot>,
    daemons: Vec<Arc<PodShape>>,
) -> (Problem, Vec<Vec<String>>) {
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
    let mut problem = Problem {
        demands,
        nodes,
        pools,
        daemons,
        namespaces: input.namespaces.clone(),
        volumes: input.volumes.clone(),
        options,
        ..Problem::default()
    };
    let bound = pods.iter().map(|pod| &pod.pod);
    let bound = bound.filter(|pod| pod.active() && pod.node_name.is_some());
    problem.join_gangs(&input.pod_groups, bound.map(|pod| (&pod.shape, 1)));
    (problem, waiting)
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
        *there.entry(pod.pod.shape_there()).or_insert(0) += 1;
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
    // A node of a pool that is not marked initialized is on its way; of others, taints are believed.
    let initialized = pool.is_none() || node.initialized();
    NodeSlot {
        name: Arc::clone(&node.name),
        taints: node.lasting_taints(initialized),
        free,
        pods: there.into_iter().collect(),
        host_ports,
        pool: pools.iter().position(|slot| Some(&*slot.pool.name) == pool),
        initialized,
        labels: node.labels,
    }
}

/// A preference in words.
fn preference(pod: &PodShape, preference: Preference) -> String {
    let apart = |kind: &str, at: usize| {
        let key = pod.preferred_pod_terms.get(at).map_or("", |(_, term)| &term.topology_key);
        format!("preferred pod {kind} over {key}")
    };
    match preference {
        Preference::PodAffinity(at) => apart("affinity", at),
        Preference::PodAntiAffinity(at) => apart("anti-affinity", at),
        Preference::NodeAffinity(at) => {
            let term = pod.preferred_node_terms.get(at).map(|(_, term)| &term.requirements);
            let wishes = term.into_iter().flat_map(Requirements::iter);
            let wishes: Vec<String> = wishes.map(|(key, wish)| format!("{key} {wish}")).collect();
            format!("preferred node affinity {}", wishes.join(" and "))
        }
        Preference::Spread(at) => {
            let key = pod.spread.get(at).map_or("", |spread| &spread.topology_key);
            format!("spread over {key} (ScheduleAnyway)")
        }
        Preference::Taints => "keeping off taints of effect PreferNoSchedule".to_owned(),
    }
}

fn families(problem: &Problem, demand: usize) -> Vec<FamilyReport> {
    let all = schedule::families(problem, &problem.demands[demand].shape).into_iter();
    let report = |of: schedule::Family| FamilyReport {
        node_pool: of.pool.to_string(),
        family: of.name,
        types: of.types,
        reason: of.reason,
    };
    all.map(report).collect()
}

fn fill(
    report: &mut Report,
    problem: &Problem,
    solution: &Solution,
    waiting: &[Vec<String>],
    explain: Option<&str>,
) {
    for relaxed in &solution.relaxed {
        let of = &problem.demands[relaxed.demand].shape;
        report.relaxed.push(RelaxedReport {
            pod: waiting[relaxed.demand].first().cloned().unwrap_or_default(),
            count: relaxed.count,
            preference: preference(of, relaxed.preference),
        });
    }
    let mut placed: Vec<u32> = problem.demands.iter().map(|demand| demand.count).collect();
    for unplaced in &solution.unplaced {
        placed[unplaced.demand] -= unplaced.count.min(placed[unplaced.demand]);
    }
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
        let pods = take(unplaced.demand, unplaced.count);
        let asked = explain.is_some_and(|name| pods.iter().any(|pod| meant(pod, name)));
        let changes = asked.then(|| relief::nearest(problem, &placed, unplaced.demand)).flatten();
        let fits_if: Vec<String> = changes.iter().flatten().map(ToString::to_string).collect();
        let families = if asked { families(problem, unplaced.demand) } else { Vec::new() };
        for pod in pods {
            counts.unschedulable += 1;
            report.unschedulable.push(UnschedulableReport {
                pod,
                reasons: reasons.clone(),
                fits_if: fits_if.clone(),
                families: families.clone(),
            });
        }
    }
    report.unschedulable.sort_by(|a, b| a.pod.cmp(&b.pod));
    report.pods = counts;
    report.cost = Cost {
        per_hour: solution.cost.dollars(),
        lower_bound_per_hour: solution.lower_bound.unwrap_or_default().dollars(),
    };
}
