//! Pods that spread over host names, alone on their nodes and not.

use super::rules::{by, node, of, spread};
use super::*;

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

fn web(cpu: &str, more: &str) -> Arc<PodShape> {
    of("w", cpu, &spread(HOST, "w", more))
}

/// Pods of the first demand on each new node, the fewest first.
fn shares(problem: &Problem, solution: &Solution) -> Vec<u32> {
    let mut counts: Vec<u32> = by(HOST, problem, solution, 0).into_iter().map(|(_, n)| n).collect();
    counts.sort_unstable();
    counts
}

#[test]
fn nodes_of_one_set_get_equal_parts() {
    let mut problem = problem(&[(100, web("500m", ""))], vec![on_demand()]);
    problem.options.bound = true;
    let solution = solved(&problem);
    let counts = shares(&problem, &solution);
    assert!(solution.unplaced.is_empty() && counts.iter().sum::<u32>() == 100, "{counts:?}");
    assert!(counts.last().unwrap() - counts[0] <= 1, "{counts:?}");
    assert!((2..=34).contains(&counts.len()), "{counts:?}");
    // One node each would cost twice as much at least; the bound knows of no such nodes.
    let one_each = MicroDollarsPerHour(68_000 * 100);
    assert!(solution.cost.0 * 2 < one_each.0, "{}", solution.cost);
    let lower = solution.lower_bound.unwrap();
    assert!(lower <= solution.cost && lower.0 * 11 > solution.cost.0 * 10, "{lower}");
}

#[test]
fn of_sizes_that_cost_alike_the_smallest_is_taken() {
    let problem = problem(&[(32, web("900m", ""))], vec![on_demand()]);
    let counts = shares(&problem, &solved(&problem));
    // Two to a node of two cores; a node of 16 cores would take 17.
    assert_eq!(counts, [2; 16]);
}

#[test]
fn a_few_pods_keep_a_node_each() {
    let few = problem(&[(3, web("100m", ""))], vec![on_demand()]);
    assert_eq!(shares(&few, &solved(&few)), [1; 3]);
    let more = problem(&[(5, web("100m", ""))], vec![on_demand()]);
    assert_eq!(shares(&more, &solved(&more)), [1, 2, 2]);
}

#[test]
fn a_node_that_stays_empty_keeps_the_least_at_0() {
    let set = (12, web("500m", ""));
    let mut full = problem(std::slice::from_ref(&set), vec![on_demand()]);
    full.nodes = vec![node("full", "a", 0, &[])];
    assert_eq!(shares(&full, &solved(&full)), [1; 12]);
    // Others that need nodes might get one without any of the set…
    let others = problem(&[set.clone(), (40, of("o", "1", ""))], vec![on_demand()]);
    assert_eq!(shares(&others, &solved(&others)), [1; 12]);
    // …but not where nodes of the set are none of theirs.
    let theirs = of("o", "1", r#""nodeSelector":{"kubernetes.io/arch":"amd64"}"#);
    let rule =
        format!(r#"{},"nodeSelector":{{"kubernetes.io/arch":"arm64"}}"#, spread(HOST, "w", ""));
    let apart = problem(&[(12, of("w", "500m", &rule)), (40, theirs)], vec![on_demand()]);
    let counts = shares(&apart, &solved(&apart));
    assert!(counts.len() < 12, "{counts:?}");
}

#[test]
fn parts_are_even_with_what_is_there() {
    let web = web("500m", "");
    let mut problem = problem(&[(12, Arc::clone(&web))], vec![on_demand()]);
    problem.nodes = vec![node("n1", "a", 0, &[(Arc::clone(&web), 2)])];
    let counts = shares(&problem, &solved(&problem));
    assert!(counts.iter().all(|n| (1..=3).contains(n)) && counts.len() < 12, "{counts:?}");
}

#[test]
fn zones_and_hosts_are_even_at_once() {
    let both = r#""topologySpreadConstraints":[
        {"maxSkew":1,"topologyKey":"topology.kubernetes.io/zone","labelSelector":{"matchLabels":{"app":"w"}}},
        {"maxSkew":1,"topologyKey":"kubernetes.io/hostname","labelSelector":{"matchLabels":{"app":"w"}}}]"#;
    let problem = problem(&[(50, of("w", "500m", both))], vec![on_demand()]);
    let solution = solved(&problem);
    let zones: Vec<u32> = by(ZONE, &problem, &solution, 0).into_iter().map(|(_, n)| n).collect();
    assert_eq!(zones.iter().sum::<u32>(), 50);
    assert!(zones.iter().all(|n| (16..=17).contains(n)), "{zones:?}");
    let counts = shares(&problem, &solution);
    assert!(counts.len() < 25 && counts.last().unwrap() - counts[0] <= 1, "{counts:?}");
}

#[test]
fn domains_and_limits_bound_the_parts() {
    let spread = web("100m", r#","minDomains":7"#);
    let few = problem(&[(70, spread)], vec![on_demand()]);
    let counts = shares(&few, &solved(&few));
    assert!(counts.len() >= 7, "{counts:?}");
    // Parts that a pool's limit has no nodes for do not come true; what can be placed is.
    let mut slot = on_demand();
    slot.remaining.insert("nodes".into(), 3);
    let limited = problem(&[(100, web("1", ""))], vec![slot]);
    let solution = solved(&limited);
    assert_eq!(solution.new_nodes.len(), 3, "{}", show(&limited, &solution));
}
