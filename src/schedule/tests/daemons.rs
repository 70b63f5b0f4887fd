//! DaemonSets as neighbours on nodes that are to be bought.

use super::*;

/// Anti-affinity over host names against pods with this `app`.
fn apart(app: &str) -> String {
    format!(
        r#""affinity":{{"podAntiAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{{"labelSelector":{{"matchLabels":{{"app":"{app}"}}}},"topologyKey":"kubernetes.io/hostname"}}]}}}}"#
    )
}

fn small(more: &str, app: &str) -> Arc<PodShape> {
    pod(&format!("{}{more}", requests("100m", "100Mi")), &format!(r#""labels":{{"app":"{app}"}},"#))
}

const ON_HEAVY: &str = r#","nodeSelector":{"karpenter.sh/nodepool":"heavy"}"#;
const PORT: &str = r#""containers":[{"name":"c","ports":[{"containerPort":9100,"hostPort":9100,"protocol":"TCP"}]}]"#;

fn with(daemon: Arc<PodShape>, pods: &[(u32, Arc<PodShape>)]) -> Problem {
    let heavy = pool("heavy", 9, &[(labels::CAPACITY_TYPE, "on-demand"), (labels::ARCH, "amd64")]);
    // Improvement may put a pod on a lighter pool's node that is bought anyway.
    let options = Options { bound: true, ..Options::default() };
    Problem { daemons: vec![daemon], options, ..problem(pods, vec![on_demand(), heavy]) }
}

fn pools_of(problem: &Problem) -> Vec<String> {
    let solution = solved(problem);
    let name = |node: &NewNode| problem.pools[node.pool].pool.name.to_string();
    solution.new_nodes.iter().map(name).collect()
}

#[test]
fn pods_go_where_no_daemon_set_is_in_their_way() {
    let free = with(small(ON_HEAVY, "agent"), &[(1, small("", "web"))]);
    assert_eq!(pools_of(&free), ["heavy"]);
    let repelled = small(&format!(",{}", apart("agent")), "web");
    assert_eq!(pools_of(&with(small(ON_HEAVY, "agent"), &[(1, repelled)])), ["default"]);
    let shy = small(&format!("{ON_HEAVY},{}", apart("web")), "agent");
    assert_eq!(pools_of(&with(Arc::clone(&shy), &[(1, small("", "web"))])), ["default"]);
    // Pods that differ only in a label that the DaemonSet looks at.
    let both = with(shy, &[(1, small("", "web")), (1, small("", "other"))]);
    let mut pools = pools_of(&both);
    pools.sort();
    assert_eq!(pools, ["default", "heavy"]);
    let exporter = pod(&format!("{PORT}{ON_HEAVY}"), "");
    assert_eq!(pools_of(&with(exporter, &[(1, pod(PORT, ""))])), ["default"]);
}

#[test]
fn a_daemon_set_that_is_everywhere_is_the_reason() {
    let repelled = small(&format!(",{}", apart("agent")), "web");
    let problem = with(small("", "agent"), &[(2, repelled)]);
    let solution = solved(&problem);
    assert!(solution.new_nodes.is_empty());
    let told = solution.unplaced[0].reasons.to_string();
    assert!(told.contains("cannot share a node with a DaemonSet"), "{told}");
}

#[test]
fn the_checker_sees_daemon_sets() {
    let good = with(small(ON_HEAVY, "agent"), &[(1, small("", "web"))]);
    let solution = solved(&good);
    let shy = small(&format!("{ON_HEAVY},{}", apart("web")), "agent");
    let bad = with(shy, &[(1, small("", "web"))]);
    let found = check::check(&bad, &solution);
    assert!(found.iter().any(|v| v.message.contains("keep apart")), "{found:?}");
}

#[test]
fn nodes_hold_their_daemon_sets_whatever_pods_ask() {
    // 6 GiB beside a pod that asks for no memory at all.
    let large = || pod(&requests("100m", "6Gi"), r#""labels":{"app":"agent"},"#);
    let thin = || pod(r#""containers":[{"name":"c","resources":{"requests":{"cpu":"100m"}}}]"#, "");
    let problem =
        |daemon| Problem { daemons: vec![daemon], ..problem(&[(1, thin())], vec![on_demand()]) };
    let solution = solved(&problem(large()));
    assert_eq!(solution.new_nodes.len(), 1);
    let huge = pod(&requests("100m", "9000Gi"), r#""labels":{"app":"agent"},"#);
    let solution = solved(&problem(huge));
    assert!(solution.new_nodes.is_empty());
    let told = solution.unplaced[0].reasons.to_string();
    assert!(told.contains("no instance type is large enough: memory 9000Gi is asked"), "{told}");
}
