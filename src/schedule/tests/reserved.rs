//! Capacity that is reserved.

use super::*;
use crate::model::instance::{CapacityReservation, Reserved};

/// Adds a reservation of so many instances of a type in zone a.
fn reserve(slot: &mut PoolSlot, id: &str, kind: &str, left: u32) {
    let types = slot.types.iter().map(|instance| {
        if &*instance.name != kind {
            return Arc::clone(instance);
        }
        let mut instance = (**instance).clone();
        let reservation = CapacityReservation { id: id.into(), block: false, interruptible: false };
        instance.offerings.push(Offering {
            zone: "a".into(),
            capacity_type: CapacityType::Reserved,
            price: MicroDollarsPerHour(10),
            available: left > 0,
            reserved: Some(Reserved { reservation: Arc::new(reservation), left }),
        });
        Arc::new(instance)
    });
    slot.types = types.collect();
}

/// A pool that may use what is reserved, and on-demand capacity beside it.
fn either(name: &str) -> PoolSlot {
    let mut slot = pool(name, 0, &[(labels::ARCH, "amd64")]);
    let kinds = Requirement::one_of(["reserved", "on-demand"]);
    Arc::make_mut(&mut slot.pool).requirements.insert(labels::CAPACITY_TYPE, kinds);
    slot
}

/// New nodes that use each reservation.
fn used(problem: &Problem, solution: &Solution) -> std::collections::BTreeMap<String, usize> {
    let mut used = std::collections::BTreeMap::new();
    for node in &solution.new_nodes {
        let bought = &problem.pools[node.pool].types[node.choice.type_index].offerings
            [node.choice.offering_index];
        if let Some(reserved) = &bought.reserved {
            assert_eq!(node.acceptable.len(), 1, "nothing else may be launched for it");
            let id = node.requirements.get(labels::RESERVATION_ID).and_then(Requirement::single);
            assert_eq!(id, Some(&reserved.reservation.id));
            *used.entry(reserved.reservation.id.to_string()).or_insert(0) += 1;
        } else {
            let kinds = node.requirements.get(labels::CAPACITY_TYPE).unwrap();
            assert!(!kinds.allows("reserved"));
        }
    }
    used
}

#[test]
fn what_is_reserved_comes_first_and_is_never_overshot() {
    for (pods, reserved, bought) in [(1, 1, 0), (6, 2, 0), (7, 2, 1), (60, 2, 18)] {
        let mut slot = either("p");
        reserve(&mut slot, "cr-1", "m.xlarge", 2);
        let problem = problem(&[(pods, sized("1300m", "1Gi"))], vec![slot]);
        let solution = solved(&problem);
        assert_eq!(solution.unplaced, []);
        assert_eq!(used(&problem, &solution).get("cr-1"), Some(&reserved), "{pods}");
        let rest = solution.new_nodes.len() - reserved;
        assert!(rest <= bought && (rest > 0) == (bought > 0), "{pods}: {rest}");
    }
}

#[test]
fn pools_share_a_reservation() {
    let tainted = r#","tolerations":[{"operator":"Exists"}]"#;
    let (mut a, mut b) = (either("a"), either("b"));
    reserve(&mut a, "cr-1", "c.large", 3);
    // Its class was looked at a moment later.
    reserve(&mut b, "cr-1", "c.large", 2);
    Arc::make_mut(&mut b.pool).taints =
        vec![crate::model::taints::Taint::new("b", crate::model::taints::TaintEffect::NoSchedule)];
    let of_b = pod(
        &format!(
            r#"{}{tainted},"nodeSelector":{{"karpenter.sh/nodepool":"b"}}"#,
            requests("1500m", "1Gi")
        ),
        "",
    );
    let problem = problem(&[(4, sized("1500m", "1Gi")), (4, of_b)], vec![a, b]);
    let solution = solved(&problem);
    assert_eq!(solution.unplaced, []);
    assert_eq!(used(&problem, &solution)["cr-1"], 2);
}

#[test]
fn nodes_on_their_way_have_taken_their_part() {
    let mut slot = either("p");
    reserve(&mut slot, "cr-1", "c.large", 3);
    let mut problem = problem(&[(9, sized("1500m", "1Gi"))], vec![slot]);
    problem.reserved.insert("cr-1".into(), 2);
    assert_eq!(used(&problem, &solved(&problem))["cr-1"], 1);
    problem.reserved.insert("cr-1".into(), 5);
    assert!(used(&problem, &solved(&problem)).is_empty());
}

#[test]
fn pods_may_ask_for_a_reservation_or_for_none() {
    let asks = |expression: &str| {
        let affinity = format!(
            r#""affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[{{"matchExpressions":[{expression}]}}]}}}}}}"#
        );
        pod(&format!("{},{affinity}", requests("1500m", "1Gi")), "")
    };
    let id = "karpenter.k8s.aws/capacity-reservation-id";
    let second = asks(&format!(r#"{{"key":"{id}","operator":"In","values":["cr-2"]}}"#));
    let none = asks(&format!(r#"{{"key":"{id}","operator":"DoesNotExist"}}"#));
    let paid =
        asks(r#"{"key":"karpenter.sh/capacity-type","operator":"In","values":["reserved"]}"#);
    let mut slot = either("p");
    reserve(&mut slot, "cr-1", "c.large", 2);
    reserve(&mut slot, "cr-2", "m.large", 2);
    let with = |demands: &[(u32, Arc<PodShape>)]| problem(demands, vec![slot.clone()]);
    let asked = with(&[(3, second)]);
    let solution = solved(&asked);
    assert_eq!(used(&asked, &solution).into_iter().collect::<Vec<_>>(), [("cr-2".to_owned(), 2)]);
    assert_eq!(solution.unplaced[0].count, 1);
    let apart = with(&[(3, none)]);
    assert!(used(&apart, &solved(&apart)).is_empty());
    let only = with(&[(5, paid)]);
    let solution = solved(&only);
    assert_eq!(solution.new_nodes.len(), 4);
    assert_eq!(solution.unplaced[0].count, 1);
}

#[test]
fn priorities_keep_their_order_where_a_limit_is_felt() {
    let mut slot = either("p");
    reserve(&mut slot, "cr-1", "m.4xlarge", 1);
    slot.remaining.insert("nodes".into(), 2);
    // One to a node, whatever its type.
    let high = pod(&format!(r#"{},"priority":100"#, requests("14", "1Gi")), "");
    let problem = problem(&[(4, sized("14", "1Gi")), (2, high)], vec![slot]);
    let solution = solved(&problem);
    assert_eq!((solution.unplaced.len(), solution.unplaced[0].demand), (1, 0));
    assert_eq!(solution.unplaced[0].count, 4);
}

#[test]
fn a_pool_that_wants_choice_uses_no_reservation() {
    let mut slot = either("p");
    reserve(&mut slot, "cr-1", "m.large", 5);
    let mut varied = Requirement::exists();
    varied.min_values = Some(3);
    Arc::make_mut(&mut slot.pool).requirements.insert(labels::INSTANCE_TYPE, varied);
    let problem = problem(&[(3, sized("1500m", "1Gi"))], vec![slot]);
    assert!(used(&problem, &solved(&problem)).is_empty());
}

#[test]
fn the_checker_counts_reservations() {
    let mut slot = either("p");
    reserve(&mut slot, "cr-1", "m.large", 1);
    let problem = problem(&[(1, sized("1500m", "1Gi"))], vec![slot]);
    let mut bad = solved(&problem);
    let node = bad.new_nodes[0].clone();
    bad.new_nodes.push(node);
    let found = check::check(&problem, &bad);
    assert!(found.iter().any(|v| v.message.contains("has 1 instances, not 2")), "{found:?}");
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn reservations_hold_in_any_problem(problem in any_problem(), left in prop::collection::vec(0..4_u32, 3)) {
        let mut problem = problem;
        for slot in &mut problem.pools {
            Arc::make_mut(&mut slot.pool).requirements.remove(labels::CAPACITY_TYPE);
            for (at, left) in left.iter().enumerate() {
                reserve(slot, &format!("cr-{at}"), ["c.xlarge", "m.large", "r.2xlarge"][at], *left);
            }
        }
        let solution = solve::solve(&problem);
        let violations = check::check(&problem, &solution);
        prop_assert!(violations.is_empty(), "{:?}", violations);
        let used = used(&problem, &solution);
        for (at, left) in left.iter().enumerate() {
            let drawn = used.get(&format!("cr-{at}")).copied().unwrap_or(0);
            prop_assert!(drawn <= *left as usize, "{} of {}", drawn, left);
        }
        prop_assert_eq!(solve::solve(&problem).cost, solution.cost);
    }
}
