//! Random clusters as Kubernetes objects, and the problem that they are to the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use harbinger::model::instance::{CapacityType, InstanceType, Offering};
use harbinger::model::labels::{self, Labels};
use harbinger::model::money::MicroDollarsPerHour;
use harbinger::model::pod::PodShape;
use harbinger::model::pool::Pool;
use harbinger::model::requirement::{Requirement, Requirements};
use harbinger::model::resources::Resources;
use harbinger::model::taints::{Taint, TaintEffect, untolerated};
use harbinger::model::wire::pod::PodWire;
use harbinger::schedule::{Demand, NewNode, NodeSlot, Options, PoolSlot, Problem, solve};
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::{Value, json};

use super::pods;

/// Namespaces with the label `team`.
pub(super) const NAMESPACES: [(&str, &str); 3] = [("da", "x"), ("db", "y"), ("system", "z")];
const DEVICE: &str = "example.com/device";

/// A cluster with pods that wait.
pub(super) struct Cluster {
    /// Nodes that exist, as objects.
    pub(super) nodes: Vec<Value>,
    /// Pods that are bound to them.
    pub(super) bound: Vec<Value>,
    /// Pods that wait, one of each kind; a kind is a demand of the problem.
    pub(super) waiting: Vec<Value>,
    /// One pod of each DaemonSet.
    pub(super) daemons: Vec<Value>,
    pub(super) problem: Problem,
}

/// What scheduling sees of a pod object.
fn shape(pod: &Value) -> Arc<PodShape> {
    let wire: PodWire = serde_json::from_value(pod.clone()).unwrap();
    Arc::new(wire.shape())
}

/// From this seed on clusters are wide: they have more kinds of rules and resources than those that
/// were compared first, which stay what they were.
pub(super) const WIDE: u64 = 1_000;

impl Cluster {
    pub(super) fn random(seed: u64) -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let wide = seed >= WIDE;
        let daemons: Vec<Value> =
            (0..rng.random_range(0..3)).map(|at| pods::daemon(&mut rng, at)).collect();
        let shapes: Vec<Arc<PodShape>> = daemons.iter().map(shape).collect();
        let namespaces = NAMESPACES.map(|(name, team)| {
            let own = ("kubernetes.io/metadata.name".to_owned(), name.to_owned());
            (Arc::from(name), Labels::from([("team".to_owned(), team.to_owned()), own]))
        });
        let mut cluster = Self {
            nodes: Vec::new(),
            bound: Vec::new(),
            waiting: Vec::new(),
            daemons,
            problem: Problem {
                pools: pools(&mut rng, wide),
                daemons: shapes,
                namespaces: namespaces.into(),
                options: Options { improve: 50, ..Options::default() },
                ..Problem::default()
            },
        };
        // A set that spreads over host names and alone needs nodes.
        let alone = wide && rng.random_bool(0.3);
        for at in 0..rng.random_range(0..if alone { 2 } else { 5 }) {
            cluster.add_node(&mut rng, at);
        }
        for _ in 0..if alone { 1 } else { rng.random_range(1..6) } {
            let mut pod = if alone { pods::spread_out(&mut rng) } else { pods::random(&mut rng) };
            let count = rng.random_range(1..if alone { 30 } else { 9 });
            if wide && !alone {
                pods::widen(&mut rng, &mut pod);
            }
            cluster.problem.demands.push(Demand { shape: shape(&pod), count, gang: None });
            cluster.waiting.push(pod);
        }
        cluster
    }

    /// All that matters of the cluster and its plan, for people.
    pub(super) fn story(&self) -> String {
        let mut lines = Vec::new();
        let name = |shape: &PodShape| format!("{}/{:?}", shape.namespace, shape.labels);
        for node in &self.problem.nodes {
            let pods: Vec<String> =
                node.pods.iter().map(|(pod, n)| format!("{n} {}", name(pod))).collect();
            lines.push(format!(
                "  {} {:?} {}: {}",
                node.name,
                node.labels,
                node.free,
                pods.join(", ")
            ));
        }
        for slot in &self.problem.pools {
            lines.push(format!(
                "  pool {} {:?}",
                slot.pool.name,
                slot.pool
                    .requirements
                    .to_expressions()
                    .iter()
                    .map(|e| format!("{} {:?} {:?}", e.key, e.operator, e.values))
                    .collect::<Vec<_>>()
            ));
        }
        let solution = solve(&self.problem);
        for (at, demand) in self.problem.demands.iter().enumerate() {
            lines.push(format!(
                "  demand {at}: {} {}\n    {}",
                demand.count,
                name(&demand.shape),
                self.waiting[at]["spec"]
            ));
        }
        for placement in &solution.placements {
            lines.push(format!("  {placement:?}"));
        }
        for (at, new) in solution.new_nodes.iter().enumerate() {
            let (_, labels, _) = self.new_node(at, new);
            lines.push(format!("  new-{at} {labels:?}: {:?}", new.pods));
        }
        for unplaced in &solution.unplaced {
            lines.push(format!(
                "  left {} of {}: {}",
                unplaced.count, unplaced.demand, unplaced.reasons
            ));
        }
        lines.join("\n")
    }

    fn add_node(&mut self, rng: &mut Pcg64Mcg, at: usize) {
        let name = format!("old-{at}");
        let zone = *["a", "b", "c", "d"].choose(rng).unwrap();
        let kind = if rng.random_bool(0.7) { "on-demand" } else { "spot" };
        let arch = if rng.random_bool(0.7) { "amd64" } else { "arm64" };
        let mut own = Labels::new();
        for (key, value) in [
            (labels::HOSTNAME, &*name),
            (labels::ZONE, zone),
            (labels::ARCH, arch),
            (labels::OS, "linux"),
            (labels::CAPACITY_TYPE, kind),
            (labels::NODEPOOL, "main"),
        ] {
            own.insert(key.to_owned(), value.to_owned());
        }
        if rng.random_bool(0.1) {
            own.remove(labels::ZONE);
        }
        if rng.random_bool(0.5) {
            own.insert("team".to_owned(), (*["x", "y"].choose(rng).unwrap()).to_owned());
        }
        let taints = if rng.random_bool(0.2) { vec![dedicated()] } else { Vec::new() };
        let mut allocatable =
            Resources::new(rng.random_range(1..8) * 1000, rng.random_range(2..24) << 30);
        allocatable.pods = rng.random_range(6..20);
        allocatable.ephemeral_storage = 20 << 30;
        if rng.random_bool(0.2) {
            allocatable.set(DEVICE, 2);
        }
        let mut slot = NodeSlot {
            name: Arc::from(&*name),
            labels: own,
            taints,
            free: allocatable.clone(),
            pool: Some(0),
            initialized: true,
            ..NodeSlot::default()
        };
        self.nodes.push(node(&name, &slot.labels, &slot.taints, &allocatable));
        let mut there = self.daemons_of(&slot.labels, &slot.taints);
        // A small node is soon overcommitted by pods that nobody scheduled; that is allowed.
        there.extend((0..rng.random_range(0..4)).map(|_| pods::bound(rng)));
        let mut shapes: BTreeMap<Arc<PodShape>, u32> = BTreeMap::new();
        for mut pod in there {
            let shape = shape(&pod);
            slot.free.sub(&shape.requests);
            slot.host_ports.extend(shape.host_ports.iter().cloned());
            *shapes.entry(shape).or_insert(0) += 1;
            pod["spec"]["nodeName"] = name.clone().into();
            self.bound.push(pod);
        }
        slot.pods = shapes.into_iter().collect();
        self.problem.nodes.push(slot);
    }

    /// DaemonSet pods of a node with these labels and taints.
    pub(super) fn daemons_of(&self, labels: &Labels, taints: &[Taint]) -> Vec<Value> {
        let runs = |shape: &PodShape| {
            untolerated(taints, &shape.tolerations).is_none()
                && shape.node_alternatives().iter().any(|wanted| wanted.met_by(labels))
        };
        let daemons = self.daemons.iter().zip(&self.problem.daemons);
        daemons.filter(|(_, shape)| runs(shape)).map(|(pod, _)| pod.clone()).collect()
    }

    /// Name, labels and object of a node of the plan.
    pub(super) fn new_node(&self, at: usize, new: &NewNode) -> (String, Labels, Value) {
        let slot = &self.problem.pools[new.pool];
        let instance = &slot.types[new.choice.type_index];
        let offering = &instance.offerings[new.choice.offering_index];
        Self::node_of(&format!("new-{at}"), slot, instance, offering, &new.requirements)
    }

    /// An empty node of everything that any pool offers.
    pub(super) fn one_of_each(&self) -> Vec<(String, Labels, Value)> {
        let mut all = Vec::new();
        for slot in &self.problem.pools {
            let allowed = |key: &str, value: &str| {
                slot.pool.requirements.get(key).is_none_or(|wanted| wanted.allows(value))
            };
            for instance in slot.types.iter() {
                if slot.pool.requirements.conflict(&instance.requirements).is_some() {
                    continue;
                }
                for offering in &instance.offerings {
                    if !allowed(labels::ZONE, &offering.zone)
                        || !allowed(labels::CAPACITY_TYPE, offering.capacity_type.label())
                    {
                        continue;
                    }
                    let teams = slot.pool.requirements.get("team");
                    let teams = teams.and_then(Requirement::finite_values).unwrap_or_default();
                    for team in teams
                        .iter()
                        .map(|team| Some(&**team))
                        .chain(teams.is_empty().then_some(None))
                    {
                        let mut requirements = Requirements::new();
                        if let Some(team) = team {
                            requirements.insert("team", Requirement::one_of([team]));
                        }
                        let name = format!("each-{}", all.len());
                        all.push(Self::node_of(&name, slot, instance, offering, &requirements));
                    }
                }
            }
        }
        all
    }

    fn node_of(
        name: &str,
        slot: &PoolSlot,
        instance: &InstanceType,
        offering: &Offering,
        requirements: &Requirements,
    ) -> (String, Labels, Value) {
        let mut own = slot.pool.labels.clone();
        // Of several values the node gets one; what it is as a machine is certain.
        let wished = slot.pool.requirements.iter().chain(requirements.iter());
        for (key, requirement) in wished.chain(instance.requirements.iter()) {
            let value = requirement.finite_values().and_then(<[_]>::first);
            own.extend(value.map(|value| (key.to_string(), value.to_string())));
        }
        for (key, value) in [
            (labels::HOSTNAME, name),
            (labels::ZONE, &*offering.zone),
            (labels::CAPACITY_TYPE, offering.capacity_type.label()),
        ] {
            own.insert(key.to_owned(), value.to_owned());
        }
        let object = node(name, &own, &slot.pool.taints, &instance.allocatable());
        (name.to_owned(), own, object)
    }
}

fn dedicated() -> Taint {
    Taint { value: "x".to_owned(), ..Taint::new("dedicated", TaintEffect::NoSchedule) }
}

fn node(name: &str, labels: &Labels, taints: &[Taint], allocatable: &Resources) -> Value {
    let amounts = allocatable.to_quantities();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints},
        "status": {
            "capacity": amounts, "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    })
}

fn pools(rng: &mut Pcg64Mcg, wide: bool) -> Vec<PoolSlot> {
    let types = types(wide);
    let pool = |name: &str, weight, entries: Vec<(&str, Requirement)>, taints| {
        let mut requirements = Requirements::new();
        requirements.insert(labels::NODEPOOL, Requirement::one_of([name]));
        for (key, requirement) in entries {
            requirements.insert(key, requirement);
        }
        let own = Labels::from([(labels::NODEPOOL.to_owned(), name.to_owned())]);
        let pool = Pool {
            name: name.into(),
            weight,
            requirements,
            taints,
            labels: own,
            ready: true,
            ..Pool::default()
        };
        PoolSlot {
            pool: Arc::new(pool),
            types: Arc::clone(&types),
            remaining: BTreeMap::new(),
            volume_price: MicroDollarsPerHour(0),
        }
    };
    let mut main = Vec::new();
    if rng.random_bool(0.5) {
        main.push((labels::CAPACITY_TYPE, Requirement::one_of(["on-demand"])));
    }
    if rng.random_bool(0.4) {
        main.push(("team", Requirement::one_of(["x", "y"])));
    }
    let soft = Taint::new("old", TaintEffect::PreferNoSchedule);
    let soft = if rng.random_bool(0.1) { vec![soft] } else { Vec::new() };
    let mut all = vec![pool("main", 0, main, soft)];
    if rng.random_bool(0.5) {
        let arm = vec![
            (labels::ARCH, Requirement::one_of(["arm64"])),
            ("team", Requirement::one_of(["z"])),
        ];
        all.push(pool("special", 10, arm, vec![dedicated()]));
    }
    all
}

fn types(wide: bool) -> Arc<[Arc<InstanceType>]> {
    let mut all = Vec::new();
    for (family, arch, gib, devices) in
        [("c", "amd64", 2, 0), ("r", "arm64", 8, 0), ("g", "amd64", 4, 1)]
    {
        for (size, cores) in [("large", 2), ("xlarge", 4), ("2xlarge", 8)] {
            all.push(instance(
                &format!("{family}1.{size}"),
                arch,
                cores,
                gib * cores,
                devices * cores / 2,
                wide,
            ));
        }
    }
    all.into()
}

fn instance(
    name: &str,
    arch: &str,
    cores: i64,
    gib: i64,
    devices: i64,
    wide: bool,
) -> Arc<InstanceType> {
    let mut requirements = Requirements::new();
    for (key, value) in [(labels::INSTANCE_TYPE, name), (labels::ARCH, arch), (labels::OS, "linux")]
    {
        requirements.insert(key, Requirement::one_of([value]));
    }
    let cpu = cores.to_string();
    requirements.insert("karpenter.k8s.aws/instance-cpu", Requirement::one_of([&*cpu]));
    let mut capacity = Resources::new(cores * 1000, gib << 30);
    capacity.pods = 3 * cores;
    capacity.ephemeral_storage = 20 << 30;
    capacity.set(DEVICE, devices);
    if wide {
        capacity.set(pods::HUGE_PAGES, cores << 25);
    }
    let price = cores * 30_000 + gib * 4_000 + devices * 200_000;
    let offer = |zone: &str, capacity_type, price| Offering {
        zone: zone.into(),
        capacity_type,
        price: MicroDollarsPerHour(price),
        available: true,
        reserved: None,
    };
    let mut offerings: Vec<Offering> =
        ["a", "b", "c"].map(|zone| offer(zone, CapacityType::OnDemand, price)).into();
    offerings.extend(["a", "b"].map(|zone| offer(zone, CapacityType::Spot, price * 2 / 5)));
    Arc::new(InstanceType {
        name: name.into(),
        requirements,
        capacity,
        overhead: Resources::new(70, 200 << 20),
        attach_limits: Vec::new(),
        offerings,
    })
}
