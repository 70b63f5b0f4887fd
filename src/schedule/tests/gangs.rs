//! Pods that are placed wholly or not at all.

use super::rules::node;
use super::*;
use crate::model::gang::{PodGroup, PodGroups};

#[test]
fn a_gang_waits_for_all_of_its_pods() {
    let of = |annotations: &str| {
        let meta = format!(r#""annotations":{{"harbinger.sh/gang":"mpi"{annotations}}},"#);
        pod(&requests("500m", "1Gi"), &meta)
    };
    let three = of(r#","harbinger.sh/gang-size":"3""#);
    let mut partial =
        problem(&[(2, Arc::clone(&three)), (1, sized("1", "1Gi"))], vec![on_demand()]);
    partial.join_gangs(&PodGroups::new(), []);
    let solution = solved(&partial);
    let text = show(&partial, &solution);
    assert!(text.contains("left 0x2: the gang waits for its pods: 2 of 3 are there"), "{text}");
    assert_eq!(solution.new_nodes.len(), 1, "{text}");
    // One that runs counts, and so does one of another template.
    let mut whole = partial.clone();
    whole.gangs.clear();
    whole.join_gangs(&PodGroups::new(), [(&three, 1)]);
    assert!(solved(&whole).unplaced.is_empty());
    let mut mixed = problem(&[(2, three), (1, of(""))], vec![on_demand()]);
    mixed.join_gangs(&PodGroups::new(), []);
    assert!(solved(&mixed).unplaced.is_empty());
    let mut wrong = solved(&partial);
    wrong.unplaced.clear();
    wrong.new_nodes[0].pods.push((0, 2));
    let violations = check::check(&partial, &wrong);
    assert!(
        violations.iter().any(|v| v.message.contains("without all of its 3")),
        "{violations:?}"
    );
}

/// Zones of the nodes to buy.
fn zones(problem: &Problem, solution: &Solution) -> Vec<Arc<str>> {
    let types = &problem.pools[0].types;
    let bought = solution.new_nodes.iter().map(|node| {
        Arc::clone(&types[node.choice.type_index].offerings[node.choice.offering_index].zone)
    });
    bought.collect()
}

/// A group of the pods `pod`, with its minimum.
fn group(min_count: Option<u32>, topology: &[&str]) -> PodGroups {
    let topology = topology.iter().map(|label| Arc::from(*label)).collect();
    let (namespace, name): (Arc<str>, Arc<str>) = ("n".into(), "train".into());
    let key = (Arc::clone(&namespace), Arc::clone(&name));
    [(key, Arc::new(PodGroup { namespace, name, min_count, topology }))].into()
}

fn member(cpu: &str) -> Arc<PodShape> {
    let requests = requests(cpu, "1Gi");
    pod(&format!(r#"{requests},"schedulingGroup":{{"podGroupName":"train"}}"#), "")
}

/// How many pods have no place where the pool's limit leaves 16 cores, and why.
fn left(count: u32, groups: &PodGroups) -> (u32, String) {
    let mut problem = problem(&[(count, member("3500m"))], vec![on_demand()]);
    problem.pools[0].remaining.insert("cpu".into(), 16_000);
    problem.join_gangs(groups, []);
    let solution = solved(&problem);
    let unplaced = solution.unplaced.first();
    (unplaced.map_or(0, |unplaced| unplaced.count), show(&problem, &solution))
}

#[test]
fn a_pod_group_says_how_many_go_together() {
    // Four fit under the limit.
    let (all, text) = left(6, &PodGroups::new());
    assert_eq!(all, 6, "{text}");
    assert!(text.contains("PodGroup train does not exist"), "{text}");
    let (some, text) = left(6, &group(None, &[]));
    assert_eq!(some, 2, "each goes its own way: {text}");
    let (some, text) = left(6, &group(Some(4), &[]));
    assert_eq!(some, 2, "the first four go together, the others follow: {text}");
    let (all, text) = left(6, &group(Some(5), &[]));
    assert_eq!(all, 6, "{text}");
    assert!(text.contains("the gang does not fit as a whole"), "{text}");
    let (all, text) = left(3, &group(Some(4), &[]));
    assert_eq!(all, 3, "{text}");
    assert!(text.contains("the gang waits for its pods: 3 of 4 are there"), "{text}");
}

#[test]
fn a_pod_group_is_in_one_domain() {
    let zone = "topology.kubernetes.io/zone";
    let elsewhere = pod(
        &format!(
            r#"{},"nodeSelector":{{"{zone}":"b"}},"schedulingGroup":{{"podGroupName":"train"}}"#,
            requests("7", "1Gi")
        ),
        "",
    );
    let mut problem = problem(&[(5, member("7")), (1, elsewhere)], vec![on_demand()]);
    problem.join_gangs(&group(Some(6), &[zone]), []);
    let solution = solved(&problem);
    assert!(solution.unplaced.is_empty(), "{}", show(&problem, &solution));
    assert!(zones(&problem, &solution).iter().all(|zone| &**zone == "b"));
}

#[test]
fn the_check_minds_what_a_pod_group_asks() {
    let mut problem = problem(&[(4, member("500m"))], vec![on_demand()]);
    problem.join_gangs(&group(Some(2), &[]), []);
    let whole = solved(&problem);
    assert!(whole.unplaced.is_empty());
    let objects = |problem: &Problem, placed: u32| {
        let mut solution = whole.clone();
        solution.new_nodes.truncate(1);
        solution.new_nodes[0].pods = vec![(0, placed)];
        solution.unplaced =
            vec![Unplaced { demand: 0, count: 4 - placed, reasons: Reasons::default() }];
        let violations = check::check(problem, &solution);
        let of_gangs = violations.into_iter().filter(|v| v.place.starts_with("gang"));
        of_gangs.map(|violation| violation.message).collect::<Vec<_>>()
    };
    assert_eq!(objects(&problem, 1), ["it is placed without all of its 2 pods"]);
    assert!(objects(&problem, 2).is_empty());
    problem.gangs[0].absent = true;
    assert_eq!(objects(&problem, 2), ["it is placed before its PodGroup exists"]);
}

#[test]
fn a_gang_in_one_zone_is_in_one_zone() {
    let meta = r#""annotations":{"harbinger.sh/gang":"mpi","harbinger.sh/gang-topology":"topology.kubernetes.io/zone"},"#;
    let close = pod(&requests("7", "1Gi"), meta);
    let elsewhere = pod(
        &format!(
            r#"{},"nodeSelector":{{"topology.kubernetes.io/zone":"b"}}"#,
            requests("7", "1Gi")
        ),
        meta,
    );
    let mut problem = problem(&[(5, close), (1, elsewhere)], vec![on_demand()]);
    problem.join_gangs(&PodGroups::new(), []);
    let solution = solved(&problem);
    assert!(solution.unplaced.is_empty(), "{}", show(&problem, &solution));
    assert!(zones(&problem, &solution).iter().all(|zone| &**zone == "b"));
}

/// Pods of a gang that is kept in one zone, with more of the pod's spec.
fn close(cpu: &str, more: &str) -> Arc<PodShape> {
    let meta = r#""annotations":{"harbinger.sh/gang":"mpi","harbinger.sh/gang-topology":"topology.kubernetes.io/zone"},"#;
    pod(&format!("{}{more}", requests(cpu, "1Gi")), meta)
}

#[test]
fn members_of_a_gang_have_affinities_of_their_own() {
    let near = r#","affinity":{"podAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"topology.kubernetes.io/zone","labelSelector":{"matchLabels":{"app":"db"}}}]}}"#;
    let db = pod(&requests("1", "1Gi"), r#""labels":{"app":"db"},"#);
    let mut problem = problem(&[(3, close("7", near)), (2, close("3", ""))], vec![on_demand()]);
    problem.nodes = vec![node("n1", "b", 0, &[(db, 1)])];
    problem.join_gangs(&PodGroups::new(), []);
    let solution = solved(&problem);
    assert!(solution.unplaced.is_empty(), "{}", show(&problem, &solution));
    assert!(zones(&problem, &solution).iter().all(|zone| &**zone == "b"));
}

#[test]
fn the_checker_sees_a_gang_that_is_not_together() {
    let mut problem = problem(&[(2, close("15", ""))], vec![on_demand()]);
    problem.join_gangs(&PodGroups::new(), []);
    let good = solved(&problem);
    assert_eq!(good.new_nodes.len(), 2);
    let mut apart = good.clone();
    let of = problem.pools[0].types[good.new_nodes[0].choice.type_index].offerings.clone();
    let zone = Arc::clone(&of[good.new_nodes[0].choice.offering_index].zone);
    let other = of.iter().position(|o| o.zone != zone && o.capacity_type.label() == "on-demand");
    let node = &mut apart.new_nodes[0];
    node.choice.offering_index = other.unwrap();
    node.acceptable = vec![node.choice];
    let found = check::check(&problem, &apart);
    let said = found.iter().any(|v| v.message.contains("is not kept in one topology"));
    assert!(said, "{found:?}");
}
