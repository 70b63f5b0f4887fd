//! Scenarios of the engine as text.

use std::fmt::Write;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

mod daemons;
mod even;
mod gangs;
mod min_values;
mod relief;
mod removal;
mod reserved;
mod rules;
mod volumes;
use crate::model::instance::{CapacityType, InstanceType, Offering};
use crate::model::labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::pod::PodShape;
use crate::model::pool::Pool;
use crate::model::requirement::{Requirement, Requirements};
use crate::model::resources::Resources;
use crate::model::room::Wanted;
use crate::model::wire::pod::PodWire;

/// Settings of a property with `own` cases, or with `PROPTEST_CASES` of them.
fn cases(own: u32) -> ProptestConfig {
    let asked = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return asked;
    }
    ProptestConfig { cases: own, ..asked }
}

/// A type of `cpu` cores and `gib` GiB at `price` micro-dollars, on demand in zones a, b and c and
/// spot at 40 % of the price in a and b.
fn instance(name: &str, arch: &str, cpu: i64, gib: i64, price: i64) -> Arc<InstanceType> {
    let mut requirements = Requirements::new();
    requirements.insert(labels::INSTANCE_TYPE, Requirement::one_of([name]));
    requirements.insert(labels::ARCH, Requirement::one_of([arch]));
    requirements.insert(labels::OS, Requirement::one_of(["linux"]));
    let mut capacity = Resources::new(cpu * 1000, gib << 30);
    capacity.pods = 10 * cpu;
    let offer = |zone: &str, capacity_type, price| Offering {
        zone: zone.into(),
        capacity_type,
        price: MicroDollarsPerHour(price),
        available: true,
        reserved: None,
    };
    Arc::new(InstanceType {
        name: name.into(),
        requirements,
        capacity,
        overhead: Resources::new(100, 256 << 20),
        attach_limits: Vec::new(),
        offerings: vec![
            offer("a", CapacityType::OnDemand, price),
            offer("b", CapacityType::OnDemand, price),
            offer("c", CapacityType::OnDemand, price),
            offer("a", CapacityType::Spot, price * 2 / 5),
            offer("b", CapacityType::Spot, price * 2 / 5),
        ],
    })
}

fn catalog() -> Arc<[Arc<InstanceType>]> {
    let mut types = Vec::new();
    for (size, factor) in [("large", 1), ("xlarge", 2), ("2xlarge", 4), ("4xlarge", 8)] {
        types.push(instance(
            &format!("c.{size}"),
            "amd64",
            2 * factor,
            4 * factor,
            85_000 * factor,
        ));
        types.push(instance(
            &format!("m.{size}"),
            "amd64",
            2 * factor,
            8 * factor,
            96_000 * factor,
        ));
        types.push(instance(
            &format!("r.{size}"),
            "amd64",
            2 * factor,
            16 * factor,
            126_000 * factor,
        ));
        types.push(instance(
            &format!("cg.{size}"),
            "arm64",
            2 * factor,
            4 * factor,
            68_000 * factor,
        ));
    }
    types.into()
}

fn pool(name: &str, weight: i32, pairs: &[(&str, &str)]) -> PoolSlot {
    let mut requirements = Requirements::new();
    for (key, value) in pairs {
        requirements.insert(key, Requirement::one_of([*value]));
    }
    requirements.insert(labels::NODEPOOL, Requirement::one_of([name]));
    PoolSlot {
        pool: Arc::new(Pool {
            name: name.into(),
            weight,
            requirements,
            ready: true,
            ..Pool::default()
        }),
        types: catalog(),
        remaining: std::collections::BTreeMap::new(),
        volume_price: MicroDollarsPerHour(2_200),
    }
}

fn on_demand() -> PoolSlot {
    pool("default", 0, &[(labels::CAPACITY_TYPE, "on-demand"), (labels::ARCH, "amd64")])
}

fn pod(spec: &str, meta: &str) -> Arc<PodShape> {
    let text = format!(r#"{{"metadata":{{"namespace":"n",{meta} "name":"p"}},"spec":{{{spec}}}}}"#);
    Arc::new(serde_json::from_str::<PodWire>(&text).unwrap().shape())
}

fn sized(cpu: &str, memory: &str) -> Arc<PodShape> {
    pod(&requests(cpu, memory), "")
}

fn requests(cpu: &str, memory: &str) -> String {
    format!(
        r#""containers":[{{"name":"c","resources":{{"requests":{{"cpu":"{cpu}","memory":"{memory}"}}}}}}]"#
    )
}

fn problem(demands: &[(u32, Arc<PodShape>)], pools: Vec<PoolSlot>) -> Problem {
    Problem {
        demands: demands
            .iter()
            .map(|(count, shape)| Demand { shape: Arc::clone(shape), count: *count, gang: None })
            .collect(),
        pools,
        options: Options { bound: true, improve: 30, ..Options::default() },
        ..Problem::default()
    }
}

fn solved(problem: &Problem) -> Solution {
    let solution = solve::solve(problem);
    let violations = check::check(problem, &solution);
    assert!(violations.is_empty(), "{violations:#?}\n{}", show(problem, &solution));
    solution
}

/// `2 m.large/a/on-demand[0x1]; ...`, then what is left.
fn show(problem: &Problem, solution: &Solution) -> String {
    let mut lines: std::collections::BTreeMap<String, u32> = std::collections::BTreeMap::new();
    for node in &solution.new_nodes {
        let instance = &problem.pools[node.pool].types[node.choice.type_index];
        let bought = &instance.offerings[node.choice.offering_index];
        let pods: Vec<String> = node.pods.iter().map(|(d, n)| format!("{d}x{n}")).collect();
        let line = format!(
            "{}/{}/{}[{}]",
            instance.name,
            bought.zone,
            bought.capacity_type,
            pods.join(" ")
        );
        *lines.entry(line).or_insert(0) += 1;
    }
    let mut text = String::new();
    for (line, count) in lines {
        write!(text, "{count} {line}; ").unwrap();
    }
    for unplaced in &solution.unplaced {
        write!(text, "left {}x{}: {}", unplaced.demand, unplaced.count, unplaced.reasons).unwrap();
    }
    text.trim_end_matches("; ").to_owned()
}

#[test]
fn buys_the_cheapest_that_fits() {
    let problem = problem(&[(1, sized("1", "1Gi"))], vec![on_demand()]);
    assert_eq!(show(&problem, &solved(&problem)), "1 c.large/a/on-demand[0x1]");
}

#[test]
fn nothing_to_place_buys_nothing() {
    let problem = problem(&[], vec![on_demand()]);
    assert_eq!(solved(&problem).cost, MicroDollarsPerHour::ZERO);
}

#[test]
fn complementary_shapes_share_nodes() {
    // 7 cores + 7 GiB: alone each shape strands the other resource.
    let shapes = [(40, sized("1900m", "1Gi")), (40, sized("200m", "6Gi"))];
    let problem = problem(&shapes, vec![on_demand()]);
    let solution = solved(&problem);
    let bound = solution.lower_bound.unwrap();
    assert!(solution.cost.dollars() <= bound.dollars() * 1.08, "{} {bound}", solution.cost);
}

#[test]
fn spot_is_cheaper_where_the_pool_allows_it() {
    let problem = problem(&[(1, sized("1", "1Gi"))], vec![pool("any", 0, &[])]);
    assert_eq!(show(&problem, &solved(&problem)), "1 cg.large/a/spot[0x1]");
}

#[test]
fn existing_room_comes_first() {
    let mut problem = problem(&[(3, sized("1", "1Gi"))], vec![on_demand()]);
    problem.nodes = vec![NodeSlot {
        name: "n1".into(),
        free: Resources { pods: 10, ..Resources::new(2000, 8 << 30) },
        initialized: true,
        ..NodeSlot::default()
    }];
    let solution = solved(&problem);
    assert_eq!(solution.placements, [Placement { node: 0, demand: 0, count: 2 }]);
    assert_eq!(show(&problem, &solution), "1 c.large/a/on-demand[0x1]");
}

#[test]
fn heavier_pools_come_first() {
    let arm = pool("arm", 10, &[(labels::ARCH, "arm64"), (labels::CAPACITY_TYPE, "on-demand")]);
    let amd = pod(
        &format!(r#"{},"nodeSelector":{{"kubernetes.io/arch":"amd64"}}"#, requests("1", "1Gi")),
        "",
    );
    let problem = problem(&[(1, sized("1", "1Gi")), (1, amd)], vec![on_demand(), arm]);
    assert_eq!(
        show(&problem, &solved(&problem)),
        "1 c.large/a/on-demand[1x1]; 1 cg.large/a/on-demand[0x1]"
    );
}

#[test]
fn limits_are_never_overshot_and_serve_priority_first() {
    let mut slot = on_demand();
    slot.remaining.insert("cpu".into(), 4000);
    let low = sized("1500m", "1Gi");
    let high = pod(&format!(r#"{},"priority":100"#, requests("1500m", "1Gi")), "");
    let problem = problem(&[(4, low), (1, high)], vec![slot]);
    let solution = solved(&problem);
    assert_eq!(solution.unplaced.len(), 1);
    assert_eq!(solution.unplaced[0].demand, 0);
    assert!(solution.unplaced[0].reasons.to_string().contains("limit of cpu"));
}

#[test]
fn a_limit_of_nodes_is_exact() {
    let mut slot = on_demand();
    slot.remaining.insert("nodes".into(), 2);
    let problem = problem(&[(100, sized("3", "1Gi"))], vec![slot]);
    assert_eq!(solved(&problem).new_nodes.len(), 2);
}

#[test]
fn daemon_sets_take_their_room() {
    let mut problem = problem(&[(1, sized("1500m", "1Gi"))], vec![on_demand()]);
    problem.daemons = vec![sized("500m", "1Gi")];
    assert_eq!(show(&problem, &solved(&problem)), "1 c.xlarge/a/on-demand[0x1]");
}

#[test]
fn rooms_are_what_daemon_sets_leave_on_the_types_of_a_pool() {
    let found = |pools: Vec<PoolSlot>, daemons: Vec<Arc<PodShape>>, pod: &PodShape| {
        let wanted = Wanted::of(pod);
        let mut found = Vec::new();
        for pool in rooms(pools, daemons).iter().filter(|pool| pool.lets_in(&wanted)) {
            for room in pool.worth(&wanted).filter(|room| pool.takes(room, &wanted)) {
                found.push(format!("{}m {}Mi", room.left.cpu, room.left.memory >> 20));
            }
        }
        found
    };
    let any = PodShape::default();
    let of_type = |name: &str| pool(name, 0, &[(labels::INSTANCE_TYPE, name)]);
    assert_eq!(found(vec![on_demand()], vec![], &any), ["15900m 130816Mi"]);
    let daemon = sized("500m", "1Gi");
    assert_eq!(found(vec![on_demand()], vec![Arc::clone(&daemon)], &any), ["15400m 129792Mi"]);
    let selector = r#""nodeSelector":{"node.kubernetes.io/instance-type":"c.large"}"#;
    let large = &*pod(selector, "");
    let pools = vec![of_type("r.xlarge"), of_type("c.large"), on_demand()];
    assert_eq!(found(pools, vec![], large), ["1900m 3840Mi", "1900m 3840Mi"]);
    // A DaemonSet counts where it runs.
    let there = pod(&format!("{},{selector}", requests("500m", "1Gi")), "");
    assert_eq!(found(vec![on_demand()], vec![Arc::clone(&there)], &any), ["15900m 130816Mi"]);
    assert_eq!(found(vec![on_demand()], vec![there], large), ["1400m 2816Mi"]);
    assert!(found(vec![], vec![daemon], &any).is_empty());
}

#[test]
fn reasons_name_the_constraint() {
    let selector = |key: &str, value: &str| {
        pod(&format!(r#"{},"nodeSelector":{{"{key}":"{value}"}}"#, requests("1", "1Gi")), "")
    };
    for (shape, expected) in [
        (sized("1", "1000Gi"), "memory 1000Gi is asked, the most is 130816Mi"),
        (selector("topology.kubernetes.io/zone", "z"), "wants topology.kubernetes.io/zone In [z]"),
        (selector("team", "x"), "wants team In [x], which its nodes do not define"),
        (selector("kubernetes.io/arch", "arm64"), "wants kubernetes.io/arch In [arm64]"),
    ] {
        let problem = problem(&[(1, shape)], vec![on_demand()]);
        let text = show(&problem, &solved(&problem));
        assert!(text.contains(expected), "{text}");
    }
    let mut tainted = on_demand();
    let mut with_taint = (*tainted.pool).clone();
    with_taint.taints =
        vec![serde_json::from_str(r#"{"key":"gpu","effect":"NoSchedule"}"#).unwrap()];
    tainted.pool = Arc::new(with_taint);
    let problem = problem(&[(1, sized("1", "1Gi"))], vec![tainted]);
    assert!(
        show(&problem, &solved(&problem)).contains("does not tolerate the taint gpu:NoSchedule")
    );
}

#[test]
fn zone_spread_keeps_the_skew() {
    let spread = r#""topologySpreadConstraints":[{"maxSkew":1,"topologyKey":"topology.kubernetes.io/zone","whenUnsatisfiable":"DoNotSchedule","labelSelector":{"matchLabels":{"app":"w"}}}]"#;
    let shape = pod(&format!("{},{spread}", requests("500m", "512Mi")), r#""labels":{"app":"w"},"#);
    let problem = problem(&[(10, shape)], vec![on_demand()]);
    let solution = solved(&problem);
    let mut zones = std::collections::BTreeMap::new();
    for node in &solution.new_nodes {
        let instance = &problem.pools[0].types[node.choice.type_index];
        let zone = &instance.offerings[node.choice.offering_index].zone;
        *zones.entry(zone.to_string()).or_insert(0) += node.pods[0].1;
    }
    assert_eq!(zones.into_values().collect::<Vec<_>>(), [4, 3, 3]);
}

#[test]
fn anti_affinity_and_host_ports_keep_pods_apart() {
    let anti = r#""affinity":{"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"kubernetes.io/hostname","labelSelector":{"matchLabels":{"app":"w"}}}]}}"#;
    let shape = pod(&format!("{},{anti}", requests("100m", "128Mi")), r#""labels":{"app":"w"},"#);
    let ports = pod(
        r#""containers":[{"name":"c","ports":[{"containerPort":80,"hostPort":80}],"resources":{"requests":{"cpu":"100m","memory":"128Mi"}}}]"#,
        "",
    );
    let problem = problem(&[(3, shape), (2, ports)], vec![on_demand()]);
    assert_eq!(solved(&problem).new_nodes.len(), 3);
}

#[test]
fn custom_labels_that_exclude_each_other_split_nodes() {
    let mut slot = on_demand();
    let mut with_team = (*slot.pool).clone();
    with_team.requirements.insert("team", Requirement::one_of(["x", "y"]));
    slot.pool = Arc::new(with_team);
    let of = |team: &str| {
        pod(&format!(r#"{},"nodeSelector":{{"team":"{team}"}}"#, requests("100m", "128Mi")), "")
    };
    let problem = problem(&[(2, of("x")), (2, of("y"))], vec![slot]);
    let solution = solved(&problem);
    assert_eq!(solution.new_nodes.len(), 2);
    let team = solution.new_nodes[0].requirements.get("team").unwrap();
    assert!(team.single().is_some());
}

#[test]
fn filling_a_node_allocates_nothing() {
    let apart = r#""affinity":{"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"kubernetes.io/hostname","labelSelector":{"matchLabels":{"app":"w"}}}]}}"#;
    let lonely = pod(&format!("{},{apart}", requests("2", "1Gi")), r#""labels":{"app":"w"},"#);
    let demands = [(50, sized("1", "1Gi")), (90, sized("300m", "3Gi")), (9, lonely)];
    let problem = problem(&demands, vec![on_demand()]);
    let storage = super::volumes::Storage::new(&problem);
    let pods = problem.demands.iter().map(|d| &d.shape);
    let offers = compile::Offers::new(&problem, pods, &storage.limits);
    let lessons = lessons::Lessons::new(&problem, &storage);
    let pieces = lessons.pieces();
    let compiled = compile::Compiled::new(&problem, &offers, &pieces);
    let model = model::Model::new(&compiled);
    let packer = pack::Packer::new(&model);
    let columns: Vec<usize> = (0..offers.columns.len()).collect();
    let prices = packer.prices(&columns);
    let values: Vec<f64> = (0..model.groups.len()).map(|g| packer.worth(g, &prices)).collect();
    let mut scratch = fill::Scratch::default();
    let mut fill = || {
        for start in [fill::Start::Empty, fill::Start::Even, fill::Start::With(0)] {
            for column in &columns {
                packer.fill(*column, &values, start, &mut scratch);
            }
        }
    };
    // The first round makes room in the scratch.
    fill();
    assert_eq!(allocation_counter::measure(fill).count_total, 0);
}

#[test]
fn a_hurried_plan_is_whole() {
    let wish = r#""affinity":{"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":1,"preference":{"matchExpressions":[{"key":"kubernetes.io/arch","operator":"In","values":["riscv"]}]}},{"weight":2,"preference":{"matchExpressions":[{"key":"topology.kubernetes.io/zone","operator":"In","values":["nowhere"]}]}}]}}"#;
    let picky = pod(&format!("{},{wish}", requests("1", "1Gi")), "");
    let mut problem = problem(&[(5, picky), (3, sized("1500m", "3Gi"))], vec![on_demand()]);
    problem.options.improve = u32::MAX;
    problem.options.hurry = Hurry::when_asked();
    problem.options.hurry.ask();
    let solution = solved(&problem);
    assert!(solution.unplaced.is_empty(), "{}", show(&problem, &solution));
    let given_up: Vec<u32> = solution.relaxed.iter().map(|relaxed| relaxed.count).collect();
    assert_eq!(given_up, [5, 5]);
    // Nobody was waited for: the first packing is what there is.
    problem.options = Options { improve: 0, bound: true, ..Options::default() };
    assert_eq!(solved(&problem).cost, solution.cost);
}

#[test]
fn who_settles_gets_the_first_packing_with_all_wishes() {
    let wish = r#""affinity":{"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":1,"preference":{"matchExpressions":[{"key":"kubernetes.io/arch","operator":"In","values":["arm64"]}]}},{"weight":2,"preference":{"matchExpressions":[{"key":"topology.kubernetes.io/zone","operator":"In","values":["nowhere"]}]}}]}}"#;
    let picky = pod(&format!("{},{wish}", requests("1", "1Gi")), "");
    let mut problem = problem(&[(5, picky), (3, sized("1500m", "3Gi"))], vec![on_demand()]);
    let first = solved(&problem);
    problem.options.improve = u32::MAX;
    problem.options.hurry = Hurry::when_asked();
    problem.options.hurry.settle();
    let settled = solved(&problem);
    assert_eq!((settled.cost, settled.relaxed), (first.cost, first.relaxed));
}

#[test]
fn improvement_nears_the_bound() {
    let awkward = [
        (90, sized("1100m", "1430Mi")),
        (40, sized("1700m", "6290Mi")),
        (60, sized("2300m", "6670Mi")),
        (30, sized("3100m", "18910Mi")),
        (20, sized("5900m", "7670Mi")),
    ];
    let mut problem = problem(&awkward, vec![on_demand()]);
    problem.options = Options { bound: true, ..Options::default() };
    let over = |problem: &Problem| {
        let solution = solved(problem);
        solution.cost.dollars() / solution.lower_bound.unwrap().dollars()
    };
    let first = over(&problem);
    problem.options.improve = 50;
    let improved = over(&problem);
    assert!(improved <= first, "{improved} after {first}");
    assert!(improved < 1.04, "{improved} after {first}");
}

type Damage = Box<dyn Fn(&mut Solution)>;

#[test]
fn the_checker_objects_to_every_kind_of_damage() {
    let mut problem = problem(&[(6, sized("1500m", "1Gi"))], vec![on_demand()]);
    problem.pools[0].remaining.insert("nodes".into(), 10);
    problem.nodes = vec![NodeSlot {
        name: "n1".into(),
        free: Resources { pods: 10, ..Resources::new(1600, 8 << 30) },
        initialized: true,
        ..NodeSlot::default()
    }];
    let good = solved(&problem);
    let damage: Vec<(&str, Damage)> = vec![
        ("accounted for", Box::new(|s| s.placements.clear())),
        ("not enough cpu", Box::new(|s| s.placements[0].count += 1)),
        ("not enough cpu", Box::new(|s| s.new_nodes[0].pods[0].1 += 40)),
        ("not the sum", Box::new(|s| s.cost += MicroDollarsPerHour(1))),
        ("not that of its choice", Box::new(|s| s.new_nodes[0].price += MicroDollarsPerHour(1))),
        ("below its lower bound", Box::new(|s| s.lower_bound = Some(s.cost + s.cost))),
        ("not acceptable", Box::new(|s| s.new_nodes[0].acceptable.clear())),
        ("order of price", Box::new(|s| s.new_nodes[0].acceptable.reverse())),
        ("does not exist", Box::new(|s| s.new_nodes[0].pool = 7)),
        (
            "over what the limit leaves",
            Box::new(|s| {
                let node = s.new_nodes[0].clone();
                s.new_nodes.extend(vec![node; 10]);
            }),
        ),
    ];
    for (expected, damage) in damage {
        let mut bad = good.clone();
        damage(&mut bad);
        let violations = check::check(&problem, &bad);
        assert!(
            violations.iter().any(|v| v.message.contains(expected)),
            "{expected}: {violations:?}"
        );
    }
}

fn any_problem() -> impl Strategy<Value = Problem> {
    let shape = (1..40_i64, 1..40_i64, 0..4_u8, 1..30_u32);
    (prop::collection::vec(shape, 1..8), 0..3_usize).prop_map(|(shapes, pools)| {
        let demands: Vec<_> = shapes
            .into_iter()
            .map(|(cpu, mem, kind, count)| {
                let extra = match kind {
                    1 => r#","nodeSelector":{"topology.kubernetes.io/zone":"b"}"#,
                    2 => r#","nodeSelector":{"kubernetes.io/arch":"arm64"}"#,
                    3 => r#","priority":5"#,
                    _ => "",
                };
                let spec = format!(
                    "{}{extra}",
                    requests(&format!("{}m", cpu * 100), &format!("{}Mi", mem * 200))
                );
                (count, pod(&spec, ""))
            })
            .collect();
        let pools = match pools {
            0 => vec![on_demand()],
            1 => vec![pool("any", 0, &[])],
            _ => vec![on_demand(), pool("spot", 5, &[(labels::CAPACITY_TYPE, "spot")])],
        };
        problem(&demands, pools)
    })
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn every_solution_passes_the_checker_in_any_order(problem in any_problem(), seed in any::<u64>()) {
        let solution = solve::solve(&problem);
        let violations = check::check(&problem, &solution);
        prop_assert!(violations.is_empty(), "{:?}", violations);
        let mut turned = problem.clone();
        let by = usize::try_from(seed % 7).unwrap() % turned.demands.len();
        turned.demands.rotate_left(by);
        prop_assert_eq!(solve::solve(&turned).cost, solution.cost);
    }

    #[test]
    fn room_that_is_there_never_costs(problem in any_problem()) {
        let solution = solve::solve(&problem);
        let mut again = problem.clone();
        for node in &solution.new_nodes {
            let slot = &problem.pools[node.pool];
            let instance = &slot.types[node.choice.type_index];
            let bought = &instance.offerings[node.choice.offering_index];
            let mut node_labels = labels::Labels::new();
            for (key, requirement) in instance.requirements.iter() {
                if let Some(value) = requirement.single() {
                    node_labels.insert(key.to_string(), value.to_string());
                }
            }
            node_labels.insert(labels::ZONE.into(), bought.zone.to_string());
            again.nodes.push(NodeSlot {
                name: format!("n{}", again.nodes.len()).into(),
                labels: node_labels,
                free: instance.allocatable(),
                initialized: true,
                ..NodeSlot::default()
            });
        }
        let second = solve::solve(&again);
        prop_assert!(check::check(&again, &second).is_empty());
        // First fit on existing nodes may strand some pods of a tight plan; that they are never
        // dearer than the whole is what planning in flight relies on.
        prop_assert!(second.cost <= solution.cost);
    }
}
