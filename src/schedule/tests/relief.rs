//! The nearest change, as a table: what is said must be true.

use super::*;
use crate::schedule::relief;

/// What would give one more pod of the last demand a place.
fn nearest(problem: &Problem) -> String {
    let solution = solved(problem);
    let demand = solution.unplaced.first().expect("something is left").demand;
    let mut placed: Vec<u32> = problem.demands.iter().map(|demand| demand.count).collect();
    for unplaced in &solution.unplaced {
        placed[unplaced.demand] -= unplaced.count;
    }
    let changes = relief::nearest(problem, &placed, demand).unwrap_or_default();
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", and if ")
}

fn asks(cpu: &str, memory: &str, more: &str) -> Arc<PodShape> {
    pod(&format!("{},{more}", requests(cpu, memory)), r#""labels":{"app":"w"},"#)
}

#[test]
fn the_nearest_change_is_said_with_its_figure() {
    let tainted = || {
        let mut slot = on_demand();
        let mut pool = (*slot.pool).clone();
        pool.taints = vec![
            serde_json::from_str(r#"{"key":"team","value":"x","effect":"NoSchedule"}"#).unwrap(),
        ];
        slot.pool = Arc::new(pool);
        slot
    };
    let limited = |name: &str, left: i64| {
        let mut slot = on_demand();
        slot.remaining.insert(name.into(), left);
        slot
    };
    let apart = r#""affinity":{"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[
        {"topologyKey":"topology.kubernetes.io/zone","labelSelector":{"matchLabels":{"app":"w"}}}]}}"#;
    let near =
        apart.replace("podAntiAffinity", "podAffinity").replace(r#""app":"w""#, r#""app":"db""#);
    let zone = r#""nodeSelector":{"topology.kubernetes.io/zone":"z"}"#;
    let cases: [(&str, Arc<PodShape>, u32, Vec<PoolSlot>, &str); 10] = [
        (
            "too much memory",
            asks("1", "400Gi", r#""nodeSelector":{"kubernetes.io/os":"linux"}"#),
            1,
            vec![on_demand()],
            "its memory request were at most 130816Mi",
        ),
        (
            "memory of the types that have the cores",
            asks(
                "15",
                "200Gi",
                r#""nodeSelector":{"node.kubernetes.io/instance-type":"c.4xlarge"}"#,
            ),
            1,
            vec![on_demand()],
            "its memory request were at most 32512Mi",
        ),
        (
            "a zone that nobody has",
            asks("1", "1Gi", zone),
            1,
            vec![on_demand()],
            "it did not ask for topology.kubernetes.io/zone In [z] (a or b or c would do)",
        ),
        (
            "a label of no pool",
            asks("1", "1Gi", r#""nodeSelector":{"team":"x"}"#),
            1,
            vec![on_demand()],
            "it did not ask for team In [x]",
        ),
        (
            "a taint",
            sized("1", "1Gi"),
            1,
            vec![tainted()],
            "it tolerated the taint team=x:NoSchedule of NodePool default",
        ),
        (
            "a zone and a taint",
            asks("1", "1Gi", zone),
            1,
            vec![tainted()],
            "it did not ask for topology.kubernetes.io/zone In [z] (a or b or c would do), and if \
             it tolerated the taint team=x:NoSchedule of NodePool default",
        ),
        (
            "more pods than zones",
            asks("1", "1Gi", apart),
            4,
            vec![on_demand()],
            "it did not have to keep away from others by topology.kubernetes.io/zone",
        ),
        (
            "near nobody",
            asks("1", "1Gi", &near),
            1,
            vec![on_demand()],
            "it need not be near others by topology.kubernetes.io/zone",
        ),
        (
            "a limit of nodes",
            sized("15", "1Gi"),
            3,
            vec![limited("nodes", 2)],
            "the limit of nodes of NodePool default were 1 higher",
        ),
        (
            "a limit of cores",
            sized("15", "1Gi"),
            2,
            vec![limited("cpu", 20_000)],
            "the limit of cpu of NodePool default were 12 higher",
        ),
    ];
    for (name, shape, count, pools, expected) in cases {
        assert_eq!(nearest(&problem(&[(count, shape)], pools)), expected, "{name}");
    }
}

#[test]
fn a_request_is_lowered_only_where_that_helps() {
    let pod = asks("1", "1Gi", r#""nodeSelector":{"team":"x"},"tolerations":[{"key":"a"}]"#);
    let mut impossible = problem(&[(1, pod)], vec![on_demand()]);
    let mut pool = (*impossible.pools[0].pool).clone();
    pool.ready = false;
    impossible.pools[0].pool = Arc::new(pool);
    assert_eq!(nearest(&impossible), "", "nothing that the author can change helps");
}

#[test]
fn a_node_that_its_daemon_sets_overfill_is_no_way_out() {
    let mut slot = on_demand();
    slot.types = [
        instance("c.small", "amd64", 4, 16, 100_000),
        instance("r.thin", "amd64", 1, 256, 100_000),
    ]
    .into();
    let pod = asks("0", "100Gi", r#""nodeSelector":{"kubernetes.io/os":"linux"}"#);
    let daemons = vec![sized("2", "1Gi")];
    let problem = Problem { daemons, ..problem(&[(1, pod)], vec![slot]) };
    assert_eq!(nearest(&problem), "its memory request were at most 15104Mi");
}
