//! What fleets cost and how a solve grows.
//!
//! Run with `cargo bench --no-default-features --bench fleets [part]`, where a part is `prices`,
//! `large`, `growth` or `cheaper`. Prices are those of the built-in catalog: on-demand, categories c, m
//! and r, generations above 2, three zones. `bound` is the assignment bound of the engine, below
//! which no fleet can be had; a ratio is price over bound.
//!
//! These are tables rather than criterion's figures, since price and memory are half of the answer.

#![expect(clippy::print_stdout, reason = "the tables are the result")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harbinger::cloud::catalog::{Catalog, SpotPrices};
use harbinger::cloud::settings::ClassSettings;
use harbinger::model::instance::InstanceType;
use harbinger::model::labels::{self, Labels};
use harbinger::model::money::MicroDollarsPerHour;
use harbinger::model::pod::PodShape;
use harbinger::model::pool::Pool;
use harbinger::model::requirement::{Expression, Operator, Requirement, Requirements};
use harbinger::model::resources::Resources;
use harbinger::model::taints::{Taint, TaintEffect};
use harbinger::model::wire::pod::PodWire;
use harbinger::schedule::removal::Removals;
use harbinger::schedule::{self, Demand, Hurry, NodeSlot, Options, PoolSlot, Problem, Solution};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::{Value, json};

type Types = Arc<[Arc<InstanceType>]>;

/// A mix of workloads: names of cpu, of memory per cpu, and how many services share the pods.
struct Mix {
    name: &'static str,
    services: usize,
    /// Millicores.
    cpu: &'static [i64],
    /// MiB per core.
    memory: &'static [i64],
    /// Share of services that spread over zones, per cent.
    spread: u32,
    daemons: bool,
}

/// Round sizes and awkward ones, with cores and memory in and out of proportion.
const MIXES: [Mix; 5] = [
    Mix {
        name: "web",
        services: 24,
        cpu: &[50, 100, 200, 250, 500, 1000, 2000],
        memory: &[1024, 2048, 2560, 4096],
        spread: 50,
        daemons: false,
    },
    Mix {
        name: "memory",
        services: 16,
        cpu: &[250, 500, 1000, 2000, 4000],
        memory: &[4096, 8192, 12_288, 16_384],
        spread: 20,
        daemons: false,
    },
    Mix {
        name: "compute",
        services: 12,
        cpu: &[1000, 2000, 4000, 8000, 16_000],
        memory: &[512, 1024, 1536, 2048],
        spread: 0,
        daemons: false,
    },
    Mix {
        name: "mixed",
        services: 30,
        cpu: &[100, 250, 500, 1000, 2000, 4000],
        memory: &[1024, 2048, 4096, 8192],
        spread: 30,
        daemons: true,
    },
    Mix {
        name: "awkward",
        services: 20,
        cpu: &[1100, 1700, 2300, 3100, 4300, 5900],
        memory: &[1300, 2900, 3700, 6100],
        spread: 0,
        daemons: false,
    },
];

fn shape(spec: &Value, app: &str) -> PodShape {
    let pod = json!({
        "metadata": {"name": "p", "namespace": "default", "labels": {"app": app}}, "spec": spec,
    });
    serde_json::from_value::<PodWire>(pod).expect("a pod").shape()
}

fn requests(cpu: i64, memory_mib: i64) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests":
        {"cpu": format!("{cpu}m"), "memory": format!("{memory_mib}Mi")}}}]})
}

fn pick<T: Copy>(rng: &mut Pcg64Mcg, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

impl Mix {
    fn problem(&self, pods: u32, types: &Types, most_cpu: Option<i64>) -> Problem {
        let mut rng = Pcg64Mcg::seed_from_u64(7);
        let weights: Vec<f64> = (0..self.services).map(|_| rng.random_range(0.2..3.0)).collect();
        let sum: f64 = weights.iter().sum();
        let mut demands = Vec::new();
        for (at, weight) in weights.iter().enumerate() {
            let app = format!("{}-{at}", self.name);
            let cpu = pick(&mut rng, self.cpu);
            let memory = cpu * pick(&mut rng, self.memory) / 1000;
            let mut spec = requests(cpu, memory);
            if rng.random_range(0..100) < self.spread {
                spec["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": labels::ZONE,
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": {"app": app}}}]);
            }
            if rng.random_bool(0.3) {
                spec["nodeSelector"] = json!({labels::ARCH: "amd64"});
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let count = (f64::from(pods) * weight / sum).round().max(1.0) as u32;
            demands.push(Demand { shape: Arc::new(shape(&spec, &app)), count, gang: None });
        }
        let mut entries = vec![
            entry("karpenter.k8s.aws/instance-category", Operator::In, &["c", "m", "r"]),
            entry("karpenter.k8s.aws/instance-generation", Operator::Gt, &["2"]),
            entry(labels::CAPACITY_TYPE, Operator::In, &["on-demand"]),
        ];
        if let Some(most) = most_cpu {
            let most = (most + 1).to_string();
            entries.push(entry("karpenter.k8s.aws/instance-cpu", Operator::Lt, &[&most]));
        }
        let daemons = if self.daemons {
            [(100, 128), (200, 512), (50, 64), (150, 256)]
                .map(|(cpu, memory)| Arc::new(shape(&requests(cpu, memory), "daemon")))
                .into()
        } else {
            Vec::new()
        };
        let options = Options { bound: true, ..Options::default() };
        let pools = vec![slot("default", 0, &entries, types)];
        Problem { demands, pools, daemons, options, ..Problem::default() }
    }
}

fn entry(key: &str, operator: Operator, values: &[&str]) -> Expression {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Expression { key: key.to_owned(), operator, values, min_values: None }
}

fn slot(name: &str, weight: i32, entries: &[Expression], types: &Types) -> PoolSlot {
    let mut requirements = Requirements::from_expressions(entries);
    requirements.insert(labels::NODEPOOL, Requirement::one_of([name]));
    let pool = Pool { name: name.into(), weight, requirements, ready: true, ..Pool::default() };
    PoolSlot {
        pool: Arc::new(pool),
        types: Arc::clone(types),
        remaining: BTreeMap::new(),
        // 20 GiB of gp3 at $0.08 per GiB and month of 730 hours.
        volume_price: MicroDollarsPerHour(2_192),
    }
}

fn real_types() -> Types {
    let catalog = Catalog::built_in().expect("the catalog in the binary");
    let prices = SpotPrices::Discount(600);
    let settings = ClassSettings::default();
    catalog.instance_types("us-east-1", &settings, &prices).expect("a region").into()
}

/// The least time of a few solves, and what the last one found.
fn best_of(runs: u32, problem: &Problem) -> (f64, Solution) {
    let mut best = Duration::MAX;
    let mut solution = Solution::default();
    for _ in 0..runs {
        let start = Instant::now();
        solution = schedule::solve(problem);
        best = best.min(start.elapsed());
    }
    (best.as_secs_f64() * 1e3, solution)
}

/// How long improvement may go on.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Budget {
    Attempts(u32),
    Milliseconds(u64),
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Attempts(count) => f.pad(&count.to_string()),
            Self::Milliseconds(ms) => f.pad(&format!("in {ms} ms")),
        }
    }
}

/// Time of a solve without the bound, and what it found.
fn timed(problem: &Problem, budget: Budget) -> (f64, Solution) {
    let mut fast = problem.clone();
    fast.options = Options::default();
    let (ms, solution) = match budget {
        Budget::Attempts(improve) => {
            fast.options.improve = improve;
            best_of(if improve == 0 { 3 } else { 1 }, &fast)
        }
        Budget::Milliseconds(ms) => {
            let hurry = Hurry::when_asked();
            fast.options.improve = u32::MAX;
            fast.options.hurry = hurry.clone();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(ms));
                    hurry.ask();
                });
                best_of(1, &fast)
            })
        }
    };
    let violations = schedule::check::check(&fast, &solution);
    assert!(violations.is_empty(), "{violations:?}");
    (ms, solution)
}

/// The bound, and the time of a solve with it.
fn bound(problem: &Problem) -> (f64, f64) {
    let (ms, solution) = best_of(1, problem);
    (ms, solution.lower_bound.map_or(0.0, MicroDollarsPerHour::dollars))
}

/// Budgets that are shown.
const BUDGETS: [Budget; 6] = [
    Budget::Attempts(0),
    Budget::Attempts(50),
    Budget::Attempts(500),
    Budget::Attempts(5_000),
    Budget::Milliseconds(100),
    Budget::Milliseconds(1_000),
];

fn prices(types: &Types) {
    println!("\nprice ÷ bound (ms) by attempts of improvement, or by the time for all");
    print!("{:<10} {:>5} {:>5} {:>18}", "mix", "pods", "cpus", "bound $/h (ms)");
    for budget in BUDGETS {
        print!(" {budget:>15}");
    }
    println!();
    let mut logs: BTreeMap<(bool, Budget), (f64, u32)> = BTreeMap::new();
    for most in [None, Some(32)] {
        for mix in &MIXES {
            for pods in [200, 1_000, 5_000] {
                let problem = mix.problem(pods, types, most);
                let (ms, bound) = bound(&problem);
                let cap = most.map_or_else(|| "any".to_owned(), |most| format!("≤{most}"));
                print!("{:<10} {pods:>5} {cap:>5} {bound:>10.4} ({ms:>5.0})", mix.name);
                for budget in BUDGETS {
                    let (ms, solution) = timed(&problem, budget);
                    assert!(solution.unplaced.is_empty(), "{:?}", solution.unplaced);
                    let ratio = solution.cost.dollars() / bound;
                    let log = logs.entry((most.is_some(), budget)).or_default();
                    *log = (log.0 + ratio.ln(), log.1 + 1);
                    print!(" {ratio:>6.4} ({ms:>5.0})");
                }
                println!();
            }
        }
    }
    for ((capped, budget), (log, n)) in logs {
        let cap = if capped { "≤32" } else { "any" };
        let mean = (log / f64::from(n)).exp();
        println!("geometric mean of {n}, {cap} cpus, budget {budget}: {mean:.4}");
    }
}

fn row(name: &str, problem: &Problem) {
    let mut found = (0.0, Solution::default());
    let info = allocation_counter::measure(|| {
        let start = Instant::now();
        let solution = schedule::solve(problem);
        found = (start.elapsed().as_secs_f64() * 1e3, solution);
    });
    let (_, solution) = &found;
    let violations = schedule::check::check(problem, solution);
    let pods: u64 = problem.demands.iter().map(|demand| u64::from(demand.count)).sum();
    let left: u64 = solution.unplaced.iter().map(|unplaced| u64::from(unplaced.count)).sum();
    #[expect(clippy::cast_precision_loss, reason = "mebibytes")]
    let mib = info.bytes_max as f64 / f64::from(1 << 20);
    println!(
        "{name:<28} {pods:>8} {:>7} {:>6} {:>9.1} {mib:>8.1} {:>9} {:>6} {left:>6} {:>10.2}{}",
        problem.demands.len(),
        problem.nodes.len(),
        found.0,
        info.count_total,
        solution.new_nodes.len(),
        solution.cost.dollars(),
        violations.first().map(|violation| format!("  {violation}")).unwrap_or_default(),
    );
}

fn head() {
    println!(
        "\n{:<28} {:>8} {:>7} {:>6} {:>9} {:>8} {:>9} {:>6} {:>6} {:>10}",
        "case", "pods", "shapes", "nodes", "ms", "MiB", "allocs", "new", "left", "$/h"
    );
}

/// Nodes of 8 cores with some of them taken.
fn existing(count: usize) -> Vec<NodeSlot> {
    let mut rng = Pcg64Mcg::seed_from_u64(11);
    let zones = ["us-east-1a", "us-east-1b", "us-east-1c"];
    (0..count)
        .map(|at| {
            let name = format!("node-{at}");
            let zone = pick(&mut rng, &zones);
            let arch = pick(&mut rng, &["amd64", "arm64"]);
            let mut own = Labels::new();
            for (key, value) in [
                (labels::HOSTNAME, &*name),
                (labels::ZONE, zone),
                (labels::ARCH, arch),
                (labels::CAPACITY_TYPE, "on-demand"),
            ] {
                own.insert(key.to_owned(), value.to_owned());
            }
            let free = rng.random_range(0..4) * 500;
            NodeSlot {
                name: name.into(),
                labels: own,
                free: Resources { pods: 20, ..Resources::new(free, free << 21) },
                initialized: true,
                ..NodeSlot::default()
            }
        })
        .collect()
}

/// Pools that differ in weight, taints and what they may buy.
fn pools(count: usize, types: &Types) -> Vec<PoolSlot> {
    let categories: [&[&str]; 3] = [&["c", "m"], &["m", "r"], &["c", "m", "r"]];
    (0..count)
        .map(|at| {
            let entries = [
                entry("karpenter.k8s.aws/instance-category", Operator::In, categories[at % 3]),
                entry("karpenter.k8s.aws/instance-generation", Operator::Gt, &["4"]),
                entry(labels::CAPACITY_TYPE, Operator::In, &["on-demand"]),
            ];
            let weight = if at % 5 == 4 { 10 } else { 0 };
            let mut slot = slot(&format!("pool-{at}"), weight, &entries, types);
            if at % 2 == 1 {
                let mut pool = (*slot.pool).clone();
                let team = format!("team-{at}");
                pool.taints =
                    vec![Taint { value: team, ..Taint::new("team", TaintEffect::NoSchedule) }];
                slot.pool = Arc::new(pool);
            }
            slot
        })
        .collect()
}

fn large(types: &Types) {
    head();
    let mixed = &MIXES[3];
    let fast = |mut problem: Problem| {
        problem.options.bound = false;
        problem
    };
    for pods in [1_000, 5_000] {
        let mut problem = fast(mixed.problem(pods, types, None));
        problem.daemons = (0..12)
            .map(|at| Arc::new(shape(&requests(50 + 25 * at, 64 + 32 * at), "daemon")))
            .collect();
        row(&format!("DaemonSet-heavy {pods}"), &problem);
    }
    for pods in [100, 1_000] {
        let mut problem = fast(mixed.problem(pods, types, None));
        problem.pools = vec![slot("gpu", 0, &[], types)];
        for gpus in [1, 1, 2, 4] {
            let mut spec = requests(2000, 8192);
            let amounts = &mut spec["containers"][0]["resources"];
            amounts["limits"] = json!({"nvidia.com/gpu": gpus.to_string()});
            let shape = Arc::new(shape(&spec, "gpu"));
            problem.demands.push(Demand { shape, count: pods / 4, gang: None });
        }
        row(&format!("GPU {pods}"), &problem);
    }
    for pods in [1_000, 5_000] {
        let mut problem = fast(mixed.problem(pods, types, None));
        problem.pools = pools(10, types);
        row(&format!("ten pools {pods}"), &problem);
    }
    let mut problem = fast(mixed.problem(2_170, types, None));
    problem.pools = pools(20, types);
    problem.nodes = existing(1_060);
    row("20 pools, nodes that exist", &problem);
    let mut problem = fast(mixed.problem(5_000, types, None));
    problem.nodes = existing(2_000);
    row("5,000 onto 2,000 nodes", &problem);
}

/// Asks of each of 1,000 nodes whether its pods fit elsewhere, and at what price.
fn removals(types: &Types) {
    let mut rng = Pcg64Mcg::seed_from_u64(5);
    let mut problem = MIXES[3].problem(1_000, types, None);
    problem.options.bound = false;
    problem.nodes = existing(1_000);
    let kinds: Vec<Arc<PodShape>> = problem
        .demands
        .drain(..)
        .map(|demand| demand.shape)
        .filter(|shape| shape.spread.is_empty())
        .collect();
    for node in &mut problem.nodes {
        for _ in 0..6 {
            node.pods.push((Arc::clone(&kinds[rng.random_range(0..kinds.len())]), 1));
        }
    }
    let start = Instant::now();
    let mut asked = Removals::new(problem.clone());
    let (mut fits, mut cost) = (0, MicroDollarsPerHour(0));
    for at in 0..problem.nodes.len() {
        let answer = asked.without(&[at], &problem.nodes[at].pods);
        fits += usize::from(answer.new_nodes.is_empty() && answer.unplaced.is_empty());
        cost += answer.cost;
    }
    let ms = start.elapsed().as_secs_f64() * 1e3;
    let mut one = problem.clone();
    let gone = one.nodes.remove(0);
    let demand = |(shape, count): &(Arc<PodShape>, u32)| Demand {
        shape: Arc::clone(shape),
        count: *count,
        gang: None,
    };
    one.demands = gone.pods.iter().map(demand).collect();
    let (alone, _) = best_of(5, &one);
    println!(
        "\n1,000 removals of 1,000 nodes with 6 pods: {ms:.1} ms together ({fits} fit elsewhere, the \
         others cost {cost} in all); one fresh solve takes {alone:.2} ms"
    );
}

/// Pods of a count of distinct shapes.
fn shapes(pods: u32, shapes: u32, types: &Types) -> Problem {
    let mut rng = Pcg64Mcg::seed_from_u64(3);
    let mut demands = Vec::new();
    for at in 0..shapes {
        let cpu = 50 + 10 * rng.random_range(0..400);
        let spec = requests(cpu, 64 + 16 * rng.random_range(0..800));
        let shape = Arc::new(shape(&spec, &format!("app-{at}")));
        demands.push(Demand { shape, count: pods / shapes, gang: None });
    }
    let entries = [
        entry("karpenter.k8s.aws/instance-category", Operator::In, &["c", "m", "r"]),
        entry("karpenter.k8s.aws/instance-generation", Operator::Gt, &["2"]),
        entry(labels::CAPACITY_TYPE, Operator::In, &["on-demand"]),
    ];
    Problem { demands, pools: vec![slot("default", 0, &entries, types)], ..Problem::default() }
}

fn growth(types: &Types) {
    head();
    for pods in [1_000, 10_000, 100_000, 1_000_000] {
        row("pods, 50 shapes", &shapes(pods, 50, types));
    }
    row("100,000 pods, 200 shapes", &shapes(100_000, 200, types));
    for kinds in [10, 50, 200, 1_000] {
        row("shapes", &shapes(10_000, kinds, types));
    }
    for nodes in [100, 1_000, 10_000] {
        let mut problem = shapes(1_000, 50, types);
        problem.nodes = existing(nodes);
        row("nodes that exist", &problem);
    }
    for part in [8, 4, 2, 1] {
        let some: Types = types.iter().step_by(part).cloned().collect();
        row(&format!("{} types", some.len()), &shapes(10_000, 50, &some));
    }
}

/// Random small plans, and the same with one offering at a lower price.
const CASES: u32 = 10_000;

/// A few services over a few types; every third with on-demand and spot.
fn random_problem(rng: &mut Pcg64Mcg, types: &Types, improve: u32) -> Problem {
    let some: Types = (0..rng.random_range(2..24))
        .map(|_| Arc::clone(&types[rng.random_range(0..types.len())]))
        .collect();
    let demands = (0..rng.random_range(1..8))
        .map(|at| {
            let app = format!("app-{at}");
            let cpu = rng.random_range(1..40) * 100;
            let mut spec = requests(cpu, rng.random_range(1..40) * 200);
            match rng.random_range(0..4) {
                0 => spec["nodeSelector"] = json!({labels::ZONE: "us-east-1b"}),
                1 => {
                    spec["topologySpreadConstraints"] = json!([{"maxSkew": 1,
                        "topologyKey": labels::ZONE, "whenUnsatisfiable": "DoNotSchedule",
                        "labelSelector": {"matchLabels": {"app": app}}}]);
                }
                _ => {}
            }
            Demand {
                shape: Arc::new(shape(&spec, &app)),
                count: rng.random_range(1..30),
                gang: None,
            }
        })
        .collect();
    let kinds: &[&str] =
        if rng.random_bool(0.33) { &["on-demand", "spot"] } else { &["on-demand"] };
    let entries = [entry(labels::CAPACITY_TYPE, Operator::In, kinds)];
    Problem {
        demands,
        pools: vec![slot("default", 0, &entries, &some)],
        options: Options { improve, ..Options::default() },
        ..Problem::default()
    }
}

/// Makes one available offering of the first pool cheaper, by up to two thirds.
fn discount(rng: &mut Pcg64Mcg, problem: &mut Problem) {
    let pool = &mut problem.pools[0];
    let mut types: Vec<Arc<InstanceType>> = pool.types.to_vec();
    let at = rng.random_range(0..types.len());
    let mut instance = (*types[at]).clone();
    let offering = rng.random_range(0..instance.offerings.len());
    let mut better = instance.offerings[offering].clone();
    better.available = true;
    better.price = MicroDollarsPerHour(better.price.0 * rng.random_range(33..100) / 100);
    instance.offerings.push(better);
    types[at] = Arc::new(instance);
    pool.types = types.into();
}

fn cheaper(types: &Types) {
    println!("\nan offering more at a lower price, {CASES} random plans: how much the bill rose");
    println!(
        "{:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "attempts", "ms each", "lower", "higher", "> 1 %", "worst"
    );
    for improve in [0, 50, 500] {
        let start = Instant::now();
        let (mut lower, mut higher, mut beyond, mut worst) = (0, 0, 0, 0.0_f64);
        for seed in 0..CASES {
            let mut rng = Pcg64Mcg::seed_from_u64(seed.into());
            let mut problem = random_problem(&mut rng, types, improve);
            let before = schedule::solve(&problem);
            discount(&mut rng, &mut problem);
            let after = schedule::solve(&problem);
            if before.unplaced.len() != after.unplaced.len() || before.cost.0 == 0 {
                continue;
            }
            let rise = after.cost.dollars() / before.cost.dollars() - 1.0;
            lower += u32::from(rise < 0.0);
            higher += u32::from(rise > 0.0);
            beyond += u32::from(rise > 0.01);
            worst = worst.max(rise);
        }
        let ms = start.elapsed().as_secs_f64() * 500.0 / f64::from(CASES);
        println!(
            "{improve:>9} {ms:>9.2} {lower:>9} {higher:>9} {beyond:>9} {:>7.2} %",
            worst * 100.0
        );
    }
}

fn main() {
    let types = real_types();
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |part: &str| asked.is_empty() || asked.iter().any(|one| one == part);
    if wanted("prices") {
        prices(&types);
    }
    if wanted("large") {
        large(&types);
        removals(&types);
    }
    if wanted("growth") {
        growth(&types);
    }
    if wanted("cheaper") {
        cheaper(&types);
    }
}
