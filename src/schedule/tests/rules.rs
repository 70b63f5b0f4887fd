//! Rules about other pods, as scenarios and at random. Every solution is judged by the checker.

use proptest::prelude::*;

use super::*;

pub(super) const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";
const KIND: &str = "karpenter.sh/capacity-type";

fn near(kind: &str, key: &str, app: &str) -> String {
    let weight = kind.strip_prefix("preferred ");
    let term =
        format!(r#"{{"topologyKey":"{key}","labelSelector":{{"matchLabels":{{"app":"{app}"}}}}}}"#);
    match weight {
        None => format!(
            r#""affinity":{{"{kind}":{{"requiredDuringSchedulingIgnoredDuringExecution":[{term}]}}}}"#
        ),
        Some(kind) => format!(
            r#""affinity":{{"{kind}":{{"preferredDuringSchedulingIgnoredDuringExecution":[{{"weight":10,"podAffinityTerm":{term}}}]}}}}"#
        ),
    }
}

pub(super) fn spread(key: &str, app: &str, more: &str) -> String {
    format!(
        r#""topologySpreadConstraints":[{{"maxSkew":1,"topologyKey":"{key}","labelSelector":{{"matchLabels":{{"app":"{app}"}}}}{more}}}]"#
    )
}

pub(super) fn of(app: &str, cpu: &str, rule: &str) -> Arc<PodShape> {
    let comma = if rule.is_empty() { "" } else { "," };
    let spec = format!("{}{comma}{rule}", requests(cpu, "256Mi"));
    pod(&spec, &format!(r#""labels":{{"app":"{app}"}},"#))
}

/// Pods of each demand by domain of the new nodes.
pub(super) fn by(
    key: &str,
    problem: &Problem,
    solution: &Solution,
    demand: usize,
) -> Vec<(String, u32)> {
    let mut counts = std::collections::BTreeMap::new();
    for (index, node) in solution.new_nodes.iter().enumerate() {
        let offering = &problem.pools[node.pool].types[node.choice.type_index].offerings
            [node.choice.offering_index];
        let domain = match key {
            ZONE => offering.zone.to_string(),
            KIND => offering.capacity_type.to_string(),
            _ => format!("{index}"),
        };
        let count: u32 = node.pods.iter().filter(|(d, _)| *d == demand).map(|(_, n)| *n).sum();
        *counts.entry(domain).or_insert(0) += count;
    }
    counts.into_iter().filter(|(_, n)| *n > 0).collect()
}

pub(super) fn node(name: &str, zone: &str, cores: i64, pods: &[(Arc<PodShape>, u32)]) -> NodeSlot {
    let labels = [(ZONE, zone), (HOST, name), ("kubernetes.io/arch", "amd64")];
    NodeSlot {
        name: name.into(),
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        free: Resources { pods: 50, ..Resources::new(cores * 1000, 32 << 30) },
        pods: pods.to_vec(),
        initialized: true,
        ..NodeSlot::default()
    }
}

#[test]
fn self_affinity_keeps_a_group_in_one_zone() {
    let web = of("w", "1", &near("podAffinity", ZONE, "w"));
    let problem = problem(&[(40, web)], vec![on_demand()]);
    let solution = solved(&problem);
    assert_eq!(by(ZONE, &problem, &solution, 0).len(), 1);
}

#[test]
fn affinity_follows_pods_that_are_there() {
    let web = of("w", "1", &near("podAffinity", ZONE, "db"));
    let mut problem = problem(&[(4, web)], vec![on_demand()]);
    problem.nodes = vec![node("n1", "b", 0, &[(of("db", "1", ""), 1)])];
    let solution = solved(&problem);
    assert_eq!(by(ZONE, &problem, &solution, 0), [("b".to_owned(), 4)]);
}

#[test]
fn affinity_follows_pods_of_the_plan() {
    let web = of("w", "1", &near("podAffinity", ZONE, "db"));
    let problem = problem(&[(4, web), (1, of("db", "3", ""))], vec![on_demand()]);
    let solution = solved(&problem);
    assert_eq!(by(ZONE, &problem, &solution, 0).len(), 1);
    let zone = by(ZONE, &problem, &solution, 0)[0].0.clone();
    assert_eq!(by(ZONE, &problem, &solution, 1), [(zone, 1)]);
}

#[test]
fn affinity_to_nobody_is_a_reason() {
    for key in [ZONE, HOST] {
        let web = of("w", "1", &near("podAffinity", key, "db"));
        let problem = problem(&[(1, web)], vec![on_demand()]);
        let text = show(&problem, &solved(&problem));
        assert!(text.contains(&format!("the pod affinity on {key} cannot be met")), "{text}");
    }
}

#[test]
fn affinity_over_the_host_name_bundles_pods() {
    let web = of("w", "1500m", &near("podAffinity", HOST, "w"));
    let problem = problem(&[(8, web)], vec![on_demand()]);
    let solution = solved(&problem);
    assert_eq!(solution.new_nodes.len(), 1);
    assert_eq!(solution.new_nodes[0].pods, [(0, 8)]);
    let guest = of("w", "1", &near("podAffinity", HOST, "db"));
    let problem = super::problem(&[(20, guest), (2, of("db", "1", ""))], vec![on_demand()]);
    let solution = solved(&problem);
    assert!(solution.unplaced.is_empty(), "{}", show(&problem, &solution));
    assert_eq!(by(HOST, &problem, &solution, 0).len(), 2);
}

#[test]
fn equal_bundles_are_one_node_each() {
    let guest = of("w", "100m", &near("podAffinity", HOST, "c"));
    let apart = of("c", "100m", &near("podAntiAffinity", HOST, "c"));
    let problem = problem(&[(2, guest), (2, apart)], vec![on_demand()]);
    let solution = solved(&problem);
    assert!(solution.new_nodes.iter().all(|node| !node.pods.is_empty()));
    assert!(solution.unplaced.is_empty(), "{}", show(&problem, &solution));
}

#[test]
fn anti_affinity_over_zones_gives_one_zone_each() {
    let db = of("db", "1", &near("podAntiAffinity", ZONE, "db"));
    let problem = problem(&[(4, db)], vec![on_demand()]);
    let solution = solved(&problem);
    assert_eq!(by(ZONE, &problem, &solution, 0).len(), 3);
    let text = show(&problem, &solution);
    assert!(text.contains("left 0x1: ") && text.contains("anti-affinity on topology"), "{text}");
}

#[test]
fn anti_affinity_holds_in_both_directions() {
    let lonely = of("a", "1", &near("podAntiAffinity", ZONE, "b"));
    let mut problem = problem(&[(3, of("b", "1", ""))], vec![on_demand()]);
    problem.nodes = vec![node("n1", "a", 8, &[(Arc::clone(&lonely), 1)])];
    let solution = solved(&problem);
    assert!(solution.placements.is_empty());
    assert!(by(ZONE, &problem, &solution, 0).iter().all(|(zone, _)| zone != "a"));
    let both = super::problem(&[(2, lonely), (3, of("b", "1", ""))], vec![on_demand()]);
    let solution = solved(&both);
    assert!(solution.unplaced.is_empty());
}

#[test]
fn spread_over_any_key() {
    let web = of("w", "1", &spread(KIND, "w", ""));
    let problem = problem(&[(10, web)], vec![pool("any", 0, &[])]);
    let solution = solved(&problem);
    let counts = by(KIND, &problem, &solution, 0);
    assert_eq!(counts, [("on-demand".to_owned(), 5), ("spot".to_owned(), 5)]);
}

/// A pool whose nodes may have any of these values of a label of its own.
fn open_pool(name: &str, kind: &str, key: &str, values: &[&str]) -> PoolSlot {
    let slot = pool(name, 0, &[(KIND, kind)]);
    let mut pool = (*slot.pool).clone();
    pool.requirements.insert(key, Requirement::one_of(values.iter().copied()));
    PoolSlot { pool: Arc::new(pool), ..slot }
}

#[test]
fn pools_that_leave_a_label_open_choose_it_as_spreads_need() {
    // The field's way to a share of nodes on demand.
    let key = "capacity-spread";
    let pools = vec![
        open_pool("spot", "spot", key, &["2", "3", "4", "5"]),
        open_pool("on-demand", "on-demand", key, &["1"]),
    ];
    let web = of("w", "1", &spread(key, "w", ""));
    let both = problem(&[(20, web), (6, of("o", "1", ""))], pools.clone());
    let solution = solved(&both);
    assert!(solution.unplaced.is_empty(), "{}", show(&both, &solution));
    assert_eq!(
        by(KIND, &both, &solution, 0),
        [("on-demand".to_owned(), 4), ("spot".to_owned(), 16)]
    );
    let values = |solution: &Solution, demand: usize| {
        let mut counts = std::collections::BTreeMap::new();
        for node in &solution.new_nodes {
            let count: u32 = node.pods.iter().filter(|(d, _)| *d == demand).map(|(_, n)| n).sum();
            let value = node.requirements.get(key).and_then(|of| of.single().cloned());
            *counts.entry(value).or_insert(0) += count;
        }
        counts.retain(|_, n| *n > 0);
        counts.into_iter().map(|(value, n)| (value.unwrap_or_default().to_string(), n)).collect()
    };
    let counts: Vec<(String, u32)> = values(&solution, 0);
    assert_eq!(counts, ["1", "2", "3", "4", "5"].map(|value| (value.to_owned(), 4)));
    // What the pod itself asks of the label narrows the choice, and anti-affinity is over it, too.
    let far = format!(r#"{},"nodeSelector":{{"{key}":"3"}}"#, near("podAntiAffinity", key, "w"));
    let lonely = problem(&[(2, of("w", "1", &far))], pools);
    let solution = solved(&lonely);
    let counts: Vec<(String, u32)> = values(&solution, 0);
    assert_eq!(counts, [("3".to_owned(), 1)]);
    assert_eq!(solution.unplaced[0].count, 1);
    // Of several terms the one counts that the offering meets.
    let terms = r#""affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[
        {"matchExpressions":[{"key":"karpenter.sh/capacity-type","operator":"In","values":["on-demand"]},{"key":"team","operator":"Exists"}]},
        {"matchExpressions":[{"key":"karpenter.sh/capacity-type","operator":"In","values":["spot"]},{"key":"team","operator":"In","values":["x"]}]}]}}}"#;
    let slot = pool("any", 0, &[]);
    let mut teams = (*slot.pool).clone();
    teams.requirements.insert("team", Requirement::one_of(["x", "y"]));
    let slot = PoolSlot { pool: Arc::new(teams), ..slot };
    let rule = format!("{terms},{}", spread("team", "w", ""));
    solved(&problem(&[(4, of("w", "1", &rule))], vec![slot]));
    // A node that leaves it open could have any.
    let mut bad = solution;
    bad.new_nodes[0].requirements = lonely.pools[0].pool.requirements.clone();
    let found = check::check(&lonely, &bad);
    assert!(found.iter().any(|v| v.message.contains("leaves capacity-spread open")), "{found:?}");
}

#[test]
fn min_domains_hold_back_what_has_too_few() {
    let web = of("w", "1", &spread(ZONE, "w", r#","minDomains":4"#));
    let problem = problem(&[(10, web)], vec![on_demand()]);
    let solution = solved(&problem);
    assert_eq!(solution.unplaced[0].count, 7, "three zones, one pod each");
}

#[test]
fn spread_counts_pods_that_are_there() {
    let web = of("w", "1", &spread(ZONE, "w", ""));
    let mut problem = problem(&[(3, Arc::clone(&web))], vec![on_demand()]);
    problem.nodes = vec![node("n1", "a", 0, &[(Arc::clone(&web), 2)])];
    let solution = solved(&problem);
    let counts = by(ZONE, &problem, &solution, 0);
    assert!(counts.iter().all(|(zone, _)| zone != "a"), "{counts:?}");
    // Those that are being deleted are not counted.
    let leaving = Arc::new(PodShape { leaving: true, ..(*web).clone() });
    problem.nodes = vec![node("n1", "a", 0, &[(leaving, 2)])];
    let counts = by(ZONE, &problem, &solved(&problem), 0);
    assert_eq!(counts.len(), 3, "{counts:?}");
}

#[test]
fn spread_over_hosts_levels_nodes_that_are_there() {
    let web = of("w", "1", &spread(HOST, "w", ""));
    let mut problem = problem(&[(5, Arc::clone(&web))], vec![on_demand()]);
    problem.nodes =
        ["n1", "n2", "n3"].map(|name| node(name, "a", 2, &[(Arc::clone(&web), 1)])).into();
    let solution = solved(&problem);
    assert!(solution.new_nodes.is_empty(), "the least count is one, so two more per node may come");
    problem.nodes.push(node("full", "a", 0, &[]));
    assert_eq!(solved(&problem).new_nodes.len(), 5, "an empty node keeps the least count at 0");
}

#[test]
fn another_zone_takes_what_a_full_zone_cannot() {
    let web = of("w", "1", &spread(ZONE, "w", ""));
    let mut slot = on_demand();
    slot.remaining.insert("nodes".into(), 0);
    let mut problem = problem(&[(4, web)], vec![slot]);
    problem.nodes = vec![node("n1", "a", 1, &[]), node("n2", "b", 8, &[])];
    let solution = solved(&problem);
    let placed: u32 = solution.placements.iter().map(|placement| placement.count).sum();
    assert_eq!(placed, 3, "one in a, two in b");
}

#[test]
fn preferences_are_given_up_one_by_one_and_said() {
    let wish = r#""affinity":{"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[
        {"weight":1,"preference":{"matchExpressions":[{"key":"topology.kubernetes.io/zone","operator":"In","values":["b"]}]}},
        {"weight":9,"preference":{"matchExpressions":[{"key":"team","operator":"In","values":["x"]}]}}]}}"#;
    let web = of("w", "1", wish);
    let problem = problem(&[(2, web)], vec![on_demand()]);
    let solution = solved(&problem);
    assert_eq!(by(ZONE, &problem, &solution, 0), [("b".to_owned(), 2)]);
    let given_up = [Relaxed { demand: 0, count: 2, preference: Preference::NodeAffinity(1) }];
    assert_eq!(solution.relaxed, given_up);
}

#[test]
fn a_hopeless_pod_costs_nobody_a_preference() {
    let wish = r#""affinity":{"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[
        {"weight":1,"preference":{"matchExpressions":[{"key":"topology.kubernetes.io/zone","operator":"In","values":["b"]}]}}]}}"#;
    let lost = of("l", "1", r#""nodeSelector":{"kubernetes.io/arch":"none"}"#);
    let problem = problem(&[(2, of("w", "1", wish)), (1, lost)], vec![on_demand()]);
    let solution = solved(&problem);
    assert_eq!(by(ZONE, &problem, &solution, 0), [("b".to_owned(), 2)]);
    assert_eq!(solution.relaxed, []);
    assert_eq!(solution.unplaced.len(), 1);
}

#[test]
fn a_soft_spread_spreads_as_far_as_it_can() {
    let web = of("w", "1", &spread(ZONE, "w", r#","whenUnsatisfiable":"ScheduleAnyway""#));
    let problem = problem(&[(6, Arc::clone(&web))], vec![on_demand()]);
    assert_eq!(by(ZONE, &problem, &solved(&problem), 0).len(), 3);
    let mut stuck = problem.clone();
    stuck.pools[0].remaining.insert("nodes".into(), 0);
    stuck.nodes = vec![node("n1", "a", 8, &[]), node("n2", "b", 0, &[])];
    let solution = solved(&stuck);
    assert!(solution.unplaced.is_empty(), "{}", show(&stuck, &solution));
    assert_eq!(solution.relaxed[0].preference, Preference::Spread(0));
}

#[test]
fn soft_taints_repel_only_as_long_as_they_can() {
    let mut soft = on_demand();
    let mut tainted = (*soft.pool).clone();
    tainted.weight = 50;
    tainted.taints =
        vec![serde_json::from_str(r#"{"key":"old","effect":"PreferNoSchedule"}"#).unwrap()];
    soft.pool = Arc::new(tainted);
    let both = problem(&[(1, sized("1", "1Gi"))], vec![soft.clone(), on_demand()]);
    assert_eq!(solved(&both).new_nodes[0].pool, 1, "the heavier pool has the taint");
    let solution = solved(&problem(&[(1, sized("1", "1Gi"))], vec![soft]));
    assert_eq!(solution.relaxed[0].preference, Preference::Taints);
    assert!(solution.unplaced.is_empty());
}

#[test]
fn a_gang_is_placed_wholly_or_not_at_all() {
    let mut slot = on_demand();
    slot.remaining.insert("nodes".into(), 2);
    let mut problem = problem(&[(40, sized("3", "1Gi")), (3, sized("500m", "1Gi"))], vec![slot]);
    problem.demands[0].gang = Some(1);
    let solution = solved(&problem);
    let text = show(&problem, &solution);
    assert!(text.contains("left 0x40: the gang does not fit as a whole"), "{text}");
    assert_eq!(solution.unplaced.len(), 1, "{text}");
}

#[test]
fn a_gang_that_fits_is_not_left_behind_with_one_that_never_does() {
    let mut slot = on_demand();
    slot.remaining.insert("cpu".into(), 16_000);
    let mut problem =
        problem(&[(8, sized("1500m", "1Gi")), (10, sized("3500m", "1Gi"))], vec![slot]);
    problem.demands[0].gang = Some(0);
    problem.demands[1].gang = Some(1);
    let solution = solved(&problem);
    let left: Vec<usize> = solution.unplaced.iter().map(|unplaced| unplaced.demand).collect();
    assert_eq!(left, [1], "{}", show(&problem, &solution));
}

#[test]
fn nothing_is_bought_for_devices_that_nobody_knows() {
    let drives = of("w", "1", r#""resourceClaims":[{"name":"gpu","resourceClaimName":"g"}]"#);
    let mut problem = problem(&[(2, drives), (1, of("v", "1", ""))], vec![on_demand()]);
    problem.nodes = vec![node("n1", "a", 8, &[])];
    let text = show(&problem, &solved(&problem));
    assert!(text.contains("left 0x2: spec.resourceClaims"), "{text}");
    let mut wrong = solved(&problem);
    wrong.unplaced.clear();
    problem.nodes.clear();
    wrong.placements.clear();
    wrong.new_nodes =
        solved(&super::problem(&[(2, of("w", "1", ""))], vec![on_demand()])).new_nodes;
    let said = format!("{:?}", check::check(&problem, &wrong));
    assert!(said.contains("devices"), "{said}");
}

#[test]
fn namespaces_by_label() {
    let rule = r#""affinity":{"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"kubernetes.io/hostname","namespaceSelector":{"matchLabels":{"team":"x"}},"labelSelector":{}}]}}"#;
    let shy = of("w", "100m", rule);
    let mut other = (*of("o", "100m", "")).clone();
    other.namespace = "far".into();
    let mut problem = problem(&[(1, shy), (1, Arc::new(other))], vec![on_demand()]);
    assert_eq!(solved(&problem).new_nodes.len(), 1);
    let team = labels::Labels::from([("team".to_owned(), "x".to_owned())]);
    problem.namespaces.insert("far".into(), team);
    assert_eq!(solved(&problem).new_nodes.len(), 2);
}

#[test]
fn the_checker_objects_to_broken_rules() {
    let apart = |key| of("w", "1", &near("podAntiAffinity", key, "w"));
    let together = |key| of("w", "1", &near("podAffinity", key, "w"));
    let even = |key| of("w", "1", &spread(key, "w", ""));
    // All pods of a good solution are put on its first node, or each on a node in its own zone.
    for (shape, merge, expected) in [
        (apart(HOST), true, "share their kubernetes.io/hostname"),
        (apart(ZONE), true, "share their topology"),
        (even(HOST), true, "the spread over kubernetes.io/hostname"),
        (even(ZONE), true, "the spread over topology"),
        (together(ZONE), false, "wants to be near"),
        (together(HOST), false, "wants to be near"),
    ] {
        let problem = problem(&[(3, shape)], vec![on_demand()]);
        let mut bad = solved(&problem);
        if merge {
            bad.new_nodes.truncate(2);
            bad.new_nodes[0].pods = vec![(0, 3)];
            bad.new_nodes.push(bad.new_nodes[0].clone());
            bad.new_nodes[2].pods.clear();
        } else {
            let first = bad.new_nodes[0].clone();
            bad.new_nodes = vec![first.clone(), first];
            bad.new_nodes[0].pods = vec![(0, 1)];
            bad.new_nodes[1].pods = vec![(0, 2)];
            let offerings = &problem.pools[0].types[bad.new_nodes[0].choice.type_index].offerings;
            let here = &offerings[bad.new_nodes[0].choice.offering_index].zone;
            bad.new_nodes[1].choice.offering_index =
                offerings.iter().position(|o| o.zone != *here).unwrap();
        }
        let found = check::check(&problem, &bad);
        assert!(found.iter().any(|v| v.message.contains(expected)), "{expected}: {found:?}");
    }
}

fn any_rule() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![ZONE, HOST, KIND]);
    let app = prop::sample::select(vec!["a", "b", "c"]);
    (0..9_u8, key, app).prop_map(|(kind, key, app)| match kind {
        0 | 1 => spread(key, app, ""),
        2 => spread(key, app, r#","whenUnsatisfiable":"ScheduleAnyway""#),
        3 => near("podAffinity", key, app),
        4 => near("podAntiAffinity", key, app),
        5 => near("preferred podAffinity", key, app),
        6 => near("preferred podAntiAffinity", key, app),
        7 => format!(
            "{},{}",
            spread(key, app, r#","nodeTaintsPolicy":"Honor""#),
            near("podAntiAffinity", HOST, app)
        ),
        _ => String::new(),
    })
}

/// A problem that prints what matters of it.
pub(super) struct Case(pub(super) Problem);

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pod = |f: &mut std::fmt::Formatter<'_>, n: u32, pod: &PodShape| {
            write!(f, "  {n} of {:?} cpu {}m", pod.labels.get("app"), pod.requests.cpu)?;
            for (key, requirement) in pod.node_selector.iter() {
                write!(f, ", {key} {requirement}")?;
            }
            for s in &pod.spread {
                let app = s.selector.as_ref().map(|s| &s.match_labels["app"]);
                write!(
                    f,
                    ", spread {app:?} {} {} {}",
                    s.topology_key, s.required, s.honor_node_taints
                )?;
            }
            let soft = pod.preferred_pod_terms.iter().map(|(w, t)| (*w, t));
            let near = pod.pod_affinity.iter().map(|t| (1000, t));
            let far = pod.pod_anti_affinity.iter().map(|t| (-1000, t));
            for (weight, term) in near.chain(far).chain(soft) {
                let app = term.selector.as_ref().map(|s| &s.match_labels["app"]);
                write!(f, ", near {weight} {app:?} {}", term.topology_key)?;
            }
            writeln!(f, ", priority {}", pod.priority)
        };
        writeln!(f, "pool {}", self.0.pools[0].pool.name)?;
        for demand in &self.0.demands {
            pod(f, demand.count, &demand.shape)?;
        }
        for node in &self.0.nodes {
            writeln!(f, " {} in {:?}, {}", node.name, node.labels.get(ZONE), node.free)?;
            for (shape, n) in &node.pods {
                pod(f, *n, shape)?;
            }
        }
        Ok(())
    }
}

pub(super) fn any_cluster() -> impl Strategy<Value = Case> {
    let app = || prop::sample::select(vec!["a", "b", "c"]);
    let demand = (1..20_i64, 1..12_u32, app(), any_rule(), 0..3_u8);
    let there = (0..6_i64, prop::collection::vec((app(), any_rule(), 1..3_u32), 0..3), 0..4_usize);
    (prop::collection::vec(demand, 1..7), prop::collection::vec(there, 0..5), 0..2_usize).prop_map(
        |(demands, nodes, pools)| {
            let demands: Vec<_> = demands
                .into_iter()
                .map(|(cpu, count, app, rule, kind)| {
                    let extra = match kind {
                        1 => r#","nodeSelector":{"topology.kubernetes.io/zone":"b"}"#,
                        2 => r#","priority":5"#,
                        _ => "",
                    };
                    let rule = if rule.is_empty() { rule } else { format!(",{rule}") };
                    let spec =
                        format!("{}{rule}{extra}", requests(&format!("{}m", cpu * 100), "1Gi"));
                    (count, pod(&spec, &format!(r#""labels":{{"app":"{app}"}},"#)))
                })
                .collect();
            let pools = if pools == 0 { vec![on_demand()] } else { vec![pool("any", 0, &[])] };
            let mut problem = problem(&demands, pools);
            for (index, (cores, pods, zone)) in nodes.into_iter().enumerate() {
                let pods: Vec<_> =
                    pods.iter().map(|(app, rule, n)| (of(app, "1", rule), *n)).collect();
                let zone = ["a", "b", "c", "d"][zone];
                problem.nodes.push(node(&format!("n{index}"), zone, cores, &pods));
            }
            Case(problem)
        },
    )
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn rules_hold_in_random_clusters(case in any_cluster(), by in 0..7_usize) {
        let Case(problem) = case;
        let solution = solve::solve(&problem);
        let violations = check::check(&problem, &solution);
        prop_assert!(violations.is_empty(), "{:?}\n{}", violations, show(&problem, &solution));
        let mut turned = problem.clone();
        let by = by % turned.demands.len();
        turned.demands.rotate_left(by);
        let other = solve::solve(&turned);
        prop_assert_eq!(
            other.cost, solution.cost,
            "{}\nturned:\n{}", show(&problem, &solution), show(&turned, &other)
        );
    }
}

#[test]
fn pods_without_a_stake_in_a_spread_bind_before_it_tips() {
    let looks = of("a", "100m", &spread(ZONE, "b", ""));
    let herd = of("b", "500m", &near("podAffinity", ZONE, "b"));
    let mut problem = problem(&[(1, looks), (10, herd)], vec![on_demand()]);
    let there = of("b", "1", &spread(ZONE, "a", ""));
    problem.nodes = vec![node("n0", "b", 0, &[]), node("n1", "a", 0, &[(there, 1)])];
    assert!(solved(&problem).unplaced.is_empty());
}

#[test]
fn a_herd_that_is_too_large_for_one_node_is_placed_as_far_as_it_fits() {
    let herd = format!(
        "{},{}",
        near("podAffinity", HOST, "b"),
        spread(ZONE, "a", r#","nodeTaintsPolicy":"Honor""#)
    );
    let herd = of("b", "3", &herd);
    let problem = problem(&[(8, herd)], vec![on_demand()]);
    let solution = solved(&problem);
    assert_eq!(solution.unplaced[0].count, 3, "{}", show(&problem, &solution));
}
