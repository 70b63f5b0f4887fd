//! The engine on the field's published mix: time, and beside it nodes, price and price over bound.
//!
//! Run with `cargo bench --no-default-features --bench schedule`. A table of all cases comes first
//! (the least time of a few solves, each of a fresh solver, and the most memory that one holds beside
//! its problem); criterion's figures of the cases that
//! are worth watching follow. `HARBINGER_BENCH_CASES=/path` adds inputs of pods and instance types as files.
//!
//! The mix: 400 instance types, type i with i vCPU, 2i GiB and 10i pods at a price linear in its
//! size; pods in equal fifths of plain, zone spread, host-name spread, zone affinity to their own
//! kind, and host-name anti-affinity; requests and labels drawn from short lists.

#![expect(clippy::print_stdout, reason = "the table is the result")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use harbinger::model::instance::{CapacityType, InstanceType, Offering};
use harbinger::model::labels;
use harbinger::model::money::MicroDollarsPerHour;
use harbinger::model::pod::PodShape;
use harbinger::model::pool::Pool;
use harbinger::model::requirement::{Requirement, Requirements};
use harbinger::model::resources::Resources;
use harbinger::model::wire::pod::PodWire;
use harbinger::schedule::{self, Demand, Options, PoolSlot, Problem, Solution};
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::{Value, json};

const CPU: [&str; 5] = ["100m", "250m", "500m", "1", "1500m"];
const MEMORY: [&str; 6] = ["100Mi", "256Mi", "512Mi", "1Gi", "2Gi", "4Gi"];
const LABELS: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
const ZONE: &str = labels::ZONE;
const HOST: &str = labels::HOSTNAME;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Generic,
    ZoneSpread,
    HostSpread,
    Affinity,
    AntiAffinity,
    /// Away from its own kind, near a zone, even over zones: all of it if it can be had.
    Preferences,
}

const MIX: [Kind; 5] =
    [Kind::Generic, Kind::ZoneSpread, Kind::HostSpread, Kind::Affinity, Kind::AntiAffinity];

/// Type `size` has that many cores; zones 1 and 2 have spot as well, at the same price.
fn fake(size: i64) -> Arc<InstanceType> {
    let name = format!("fake-it-{}", size - 1);
    let mut requirements = Requirements::new();
    for (key, value) in [(labels::INSTANCE_TYPE, &*name), (labels::ARCH, "amd64")] {
        requirements.insert(key, Requirement::one_of([value]));
    }
    requirements.insert(labels::OS, Requirement::one_of(["linux"]));
    let mut capacity = Resources::new(size * 1000, size << 31);
    capacity.pods = size * 10;
    let offer = |zone: &str, capacity_type| Offering {
        zone: zone.into(),
        capacity_type,
        // 10 cents per core and per 10^9 bytes.
        price: MicroDollarsPerHour(size * 314_748),
        available: true,
        reserved: None,
    };
    let (spot, on_demand) = (CapacityType::Spot, CapacityType::OnDemand);
    Arc::new(InstanceType {
        name: name.into(),
        requirements,
        capacity,
        overhead: Resources::new(100, 10 << 20),
        attach_limits: Vec::new(),
        offerings: vec![
            offer("test-zone-1", spot),
            offer("test-zone-2", spot),
            offer("test-zone-1", on_demand),
            offer("test-zone-2", on_demand),
            offer("test-zone-3", on_demand),
        ],
    })
}

fn pick<'a>(rng: &mut impl Rng, from: &[&'a str]) -> &'a str {
    from[rng.random_range(0..from.len())]
}

fn pod(kind: Kind, rng: &mut impl Rng) -> PodShape {
    let mut spec = json!({"containers": [{"name": "c", "resources": {"requests":
        {"cpu": pick(rng, &CPU), "memory": pick(rng, &MEMORY)}}}]});
    let mut label = json!({"my-label": pick(rng, &LABELS)});
    let term = |key: &str, labels: &Value| {
        json!({"requiredDuringSchedulingIgnoredDuringExecution":
            [{"topologyKey": key, "labelSelector": {"matchLabels": labels}}]})
    };
    match kind {
        Kind::Generic => {}
        Kind::ZoneSpread | Kind::HostSpread => {
            let key = if kind == Kind::ZoneSpread { ZONE } else { HOST };
            spec["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": key,
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"my-label": pick(rng, &LABELS)}}}]);
        }
        Kind::Affinity => {
            label = json!({"my-affinity": pick(rng, &LABELS)});
            spec["affinity"] = json!({"podAffinity": term(ZONE, &label)});
        }
        Kind::AntiAffinity => {
            label = json!({"app": "nginx"});
            spec["affinity"] = json!({"podAntiAffinity": term(HOST, &label)});
        }
        Kind::Preferences => {
            let select = json!({"matchLabels": label});
            spec["affinity"] = json!({
                "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10,
                    "podAffinityTerm": {"topologyKey": HOST, "labelSelector": select}}]},
                "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 5,
                    "preference": {"matchExpressions": [{"key": ZONE, "operator": "In",
                        "values": [pick(rng, &["test-zone-1", "test-zone-2", "test-zone-9"])]}]}}]},
            });
            spec["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": ZONE,
                "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": select}]);
        }
    }
    let pod = json!({"metadata": {"name": "p", "namespace": "default", "labels": label},
        "spec": spec});
    serde_json::from_value::<PodWire>(pod).expect("a pod").shape()
}

fn pool() -> Pool {
    Pool {
        name: "bench".into(),
        requirements: Requirements::from_labels(&labels::Labels::from([(
            labels::NODEPOOL.to_owned(),
            "bench".to_owned(),
        )])),
        ready: true,
        ..Pool::default()
    }
}

fn problem(shapes: impl Iterator<Item = PodShape>, types: Arc<[Arc<InstanceType>]>) -> Problem {
    let mut counts: BTreeMap<PodShape, u32> = BTreeMap::new();
    for shape in shapes {
        *counts.entry(shape).or_insert(0) += 1;
    }
    let demands = counts
        .into_iter()
        .map(|(shape, count)| Demand { shape: Arc::new(shape), count, gang: None })
        .collect();
    // 10 M cores, as in the field's benchmark: a limit that never binds.
    let remaining = BTreeMap::from([(Arc::from("cpu"), 10_000_000_000)]);
    let slot = PoolSlot {
        pool: Arc::new(pool()),
        types,
        remaining,
        volume_price: MicroDollarsPerHour::ZERO,
    };
    Problem { demands, pools: vec![slot], ..Problem::default() }
}

fn mix(kinds: &[Kind], pods: usize) -> Problem {
    let mut rng = Pcg64Mcg::seed_from_u64(42);
    let each = pods.div_ceil(kinds.len());
    let shapes: Vec<PodShape> = (0..pods).map(|i| pod(kinds[i / each], &mut rng)).collect();
    problem(shapes.into_iter(), (1..=400).map(fake).collect())
}

/// What the demand costs if resources could be bought by the drop: the highest total of
/// `w·cpu + (1-w)·memory` at the price at which every type is worth at most what it costs.
#[expect(clippy::cast_precision_loss, reason = "amounts of a benchmark")]
fn plain_bound(problem: &Problem) -> f64 {
    let mut cpu = 0.0;
    let mut memory = 0.0;
    for demand in &problem.demands {
        cpu += demand.shape.requests.cpu as f64 * f64::from(demand.count);
        memory += demand.shape.requests.memory as f64 * f64::from(demand.count);
    }
    let mut best = 0.0_f64;
    for step in 0..=200 {
        let w = f64::from(step) / 200.0;
        let worth = |c: f64, m: f64| w * c / 1000.0 + (1.0 - w) * m / f64::from(1 << 30);
        let types = problem.pools[0].types.iter();
        let unit = types
            .filter_map(|t| {
                let room = t.allocatable();
                Some(t.cheapest()?.dollars() / worth(room.cpu as f64, room.memory as f64))
            })
            .fold(f64::INFINITY, f64::min);
        best = best.max(unit * worth(cpu, memory));
    }
    best
}

struct Case {
    name: String,
    problem: Problem,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, kinds: &[Kind], sizes: &[usize]| {
        for pods in sizes {
            cases.push(Case { name: format!("{name}-{pods}"), problem: mix(kinds, *pods) });
        }
    };
    let sizes = [1, 10, 100, 500, 1_000, 5_000, 20_000];
    add("diverse", &MIX, &sizes);
    add("generic", &[Kind::Generic], &sizes);
    add("zone-spread", &[Kind::ZoneSpread], &sizes);
    add("host-spread", &[Kind::HostSpread], &sizes);
    add("affinity", &[Kind::Affinity], &sizes);
    // One node each.
    add("anti-affinity", &[Kind::AntiAffinity], &sizes);
    add("preferences", &[Kind::Preferences], &[100, 1_000, 4_000]);
    if let Some(folder) = std::env::var_os("HARBINGER_BENCH_CASES") {
        let folder = std::path::Path::new(&folder);
        for name in ["diverse-500", "generic-500"] {
            let pods = read(&folder.join(format!("{name}.pods.json.gz")));
            let types = read(&folder.join("instance-types.json.gz"));
            cases.push(Case { name: format!("file {name}"), problem: from_files(&pods, &types) });
        }
    }
    let only = std::env::var("HARBINGER_BENCH_ONLY").unwrap_or_default();
    cases.retain(|case| case.name.contains(&only));
    cases
}

fn read(path: &std::path::Path) -> Value {
    let file = std::fs::File::open(path).expect("a readable file");
    serde_json::from_reader(flate2::read::GzDecoder::new(file)).expect("JSON")
}

fn from_files(pods: &Value, types: &Value) -> Problem {
    let text = types.to_string();
    let types = harbinger::cloud::catalog::from_json(&text).expect("a catalog");
    let items = pods["items"].as_array().expect("a list").clone();
    let shapes =
        items.into_iter().map(|pod| serde_json::from_value::<PodWire>(pod).expect("a pod").shape());
    problem(shapes, types.into())
}

fn best_of(runs: u32, problem: &Problem) -> (Duration, Solution) {
    let mut best = Duration::MAX;
    let mut solution = Solution::default();
    for _ in 0..runs {
        let start = Instant::now();
        solution = schedule::solve(black_box(problem));
        best = best.min(start.elapsed());
    }
    (best, solution)
}

fn table(cases: &[Case]) {
    println!(
        "{:<20} {:>7} {:>9} {:>8} {:>6} {:>6} {:>10} {:>10} {:>6} {:>9} {:>9}",
        "case",
        "demands",
        "ms",
        "MiB",
        "nodes",
        "left",
        "$/h",
        "plain",
        "ratio",
        "ms +200",
        "$/h +200"
    );
    for case in cases {
        let (time, solution) = best_of(5, &case.problem);
        let held = allocation_counter::measure(|| {
            black_box(schedule::solve(&case.problem));
        });
        #[expect(clippy::cast_precision_loss, reason = "mebibytes")]
        let mib = held.bytes_max as f64 / f64::from(1 << 20);
        let violations = schedule::check::check(&case.problem, &solution);
        let mut longer = case.problem.clone();
        longer.options = Options { improve: 200, ..Options::default() };
        let (more, improved) = best_of(1, &longer);
        let bound = plain_bound(&case.problem);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{:<20} {:>7} {:>9.2} {mib:>8.1} {:>6} {:>6} {:>10.4} {:>10.4} {:>6.3} {:>9.2} {:>9.4}{}",
            case.name,
            case.problem.demands.len(),
            ms(time),
            solution.new_nodes.len(),
            solution.unplaced.iter().map(|u| u.count).sum::<u32>(),
            solution.cost.dollars(),
            bound,
            solution.cost.dollars() / bound,
            ms(more),
            improved.cost.dollars(),
            if violations.is_empty() { String::new() } else { format!("  {:?}", violations[0]) }
        );
    }
}

fn bench(criterion: &mut Criterion) {
    let cases = cases();
    table(&cases);
    let mut group = criterion.benchmark_group("solve");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    for name in ["diverse-1000", "diverse-5000", "generic-5000"] {
        let Some(case) = cases.iter().find(|case| case.name == name) else { continue };
        group.bench_with_input(BenchmarkId::from_parameter(name), &case.problem, |b, problem| {
            b.iter(|| schedule::solve(black_box(problem)));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
