//! What a pool's `minValues` ask of each node.

use super::*;

const FAMILY: &str = "karpenter.k8s.aws/instance-family";

/// A pool that wants so many values of a label for each node.
fn varied(key: &str, values: u32) -> PoolSlot {
    let mut slot = on_demand();
    let mut asked = Requirement::exists();
    asked.min_values = Some(values);
    Arc::make_mut(&mut slot.pool).requirements.insert(key, asked);
    slot
}

#[test]
fn a_gang_that_min_values_touch_is_left_out_whole() {
    // The large pod fits three types, the others fit all nine.
    let slot = varied(labels::INSTANCE_TYPE, 4);
    let mut problem = problem(&[(1, sized("15", "1Gi")), (3, sized("1", "1Gi"))], vec![slot]);
    problem.demands[0].gang = Some(0);
    problem.demands[1].gang = Some(0);
    // In zones of their own, so that they do not share a node.
    for (demand, zone) in problem.demands.iter_mut().zip(["a", "b"]) {
        let pod = Arc::make_mut(&mut demand.shape);
        pod.node_selector.insert(labels::ZONE, Requirement::one_of([zone]));
    }
    problem.gangs = vec![crate::schedule::GangSlot::default()];
    let solution = solved(&problem);
    let left: u32 = solution.unplaced.iter().map(|unplaced| unplaced.count).sum();
    assert_eq!(left, 4, "{}", show(&problem, &solution));
}

#[test]
fn the_checker_counts_what_min_values_ask() {
    let slot = varied(labels::INSTANCE_TYPE, 4);
    let problem = problem(&[(1, sized("1", "1Gi"))], vec![slot]);
    let mut bad = solved(&problem);
    bad.new_nodes[0].acceptable.truncate(3);
    let found = check::check(&problem, &bad);
    assert!(found.iter().any(|v| v.message.starts_with("minValues of")), "{found:?}");
}

/// Types of four families; the first has the five cheapest.
fn families(slot: &mut PoolSlot) {
    let mut types = Vec::new();
    for (family, count, price) in [("a", 5, 10_000), ("b", 2, 20_000), ("c", 2, 30_000)] {
        for at in 0..count {
            let name = format!("{family}.{at}");
            let mut of = (*instance(&name, "amd64", 4, 8, price + at)).clone();
            of.requirements.insert(FAMILY, Requirement::one_of([family]));
            types.push(Arc::new(of));
        }
    }
    slot.types = types.into();
}

#[test]
fn the_list_of_types_is_cut_to_a_varied_one() {
    let mut slot = varied(FAMILY, 3);
    families(&mut slot);
    let mut problem = problem(&[(1, sized("1", "1Gi"))], vec![slot.clone()]);
    problem.options.max_types = 4;
    let solution = solved(&problem);
    let names = |offerings: &[OfferingRef]| {
        let mut names: Vec<String> =
            offerings.iter().map(|o| slot.types[o.type_index].name.to_string()).collect();
        names.sort();
        names.dedup();
        names
    };
    assert!(solution.unplaced.is_empty(), "{}", show(&problem, &solution));
    let node = &solution.new_nodes[0];
    assert_eq!(names(&node.acceptable), ["a.0", "a.1", "b.0", "c.0"]);
    assert_eq!(&*slot.types[node.choice.type_index].name, "a.0");
    let bare = bare_node(&slot, Vec::new(), 4).unwrap();
    assert_eq!(names(&bare.acceptable), ["a.0", "a.1", "b.0", "c.0"]);
}

#[test]
fn nodes_are_as_small_as_enough_other_types() {
    // Of three types none is larger than the 4xlarge ones, which pods alone would fill.
    let slot = varied(labels::INSTANCE_TYPE, 6);
    let problem = problem(&[(30, sized("1800m", "1Gi"))], vec![slot]);
    let solution = solved(&problem);
    assert!(solution.unplaced.is_empty(), "{}", show(&problem, &solution));
}
