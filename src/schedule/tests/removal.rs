//! Questions about removing nodes: answers are those of a solve.

use super::rules::{Case, any_cluster, node};
use super::*;
use crate::schedule::removal::Removals;

/// The problem that a question is.
fn without(problem: &Problem, removed: usize, pods: &[(Arc<PodShape>, u32)]) -> Problem {
    let mut asked = problem.clone();
    asked.nodes.remove(removed);
    asked.demands = pods
        .iter()
        .map(|(pod, count)| Demand { shape: Arc::clone(pod), count: *count, gang: None })
        .collect();
    asked.options = Options::default();
    asked
}

#[test]
fn what_fits_elsewhere_costs_nothing_and_the_rest_its_price() {
    let small = sized("1", "1Gi");
    let mut problem = problem(&[], vec![on_demand()]);
    problem.nodes = vec![
        node("n1", "a", 0, &[(Arc::clone(&small), 3)]),
        node("n2", "a", 2, &[]),
        node("n3", "b", 0, &[(Arc::clone(&small), 1)]),
    ];
    let mut removals = Removals::new(problem.clone());
    let fits = removals.without(&[2], &[(Arc::clone(&small), 1)]);
    assert_eq!(fits.cost, MicroDollarsPerHour::ZERO);
    assert_eq!(fits.placements, [Placement { node: 1, demand: 0, count: 1 }]);
    let bought = removals.without(&[0], &[(Arc::clone(&small), 3)]);
    assert_eq!(bought.placements, [Placement { node: 1, demand: 0, count: 2 }]);
    let alone = solved(&super::problem(&[(1, Arc::clone(&small))], vec![on_demand()]));
    assert_eq!(bought.cost, alone.cost, "one pod is left over");
    let nowhere = removals.without(&[1, 2], &[(sized("1", "1000Gi"), 1)]);
    assert_eq!(nowhere.unplaced[0].count, 1);
}

#[test]
fn pods_with_devices_are_not_moved() {
    let claims = r#""resourceClaims":[{"name":"gpu","resourceClaimName":"g"}]"#;
    let drives = pod(&format!("{},{claims}", requests("1", "1Gi")), "");
    let mut problem = problem(&[], vec![on_demand()]);
    problem.nodes = vec![node("n1", "a", 0, &[(Arc::clone(&drives), 1)]), node("n2", "a", 8, &[])];
    let answer = Removals::new(problem).without(&[0], &[(drives, 1)]);
    assert_eq!((answer.placements.len(), answer.unplaced.len()), (0, 1));
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn answers_pass_the_checker(case in any_cluster(), at in any::<prop::sample::Index>()) {
        let Case(mut problem) = case;
        problem.demands.clear();
        if problem.nodes.is_empty() {
                return Ok(());
            }
        let mut removals = Removals::new(problem.clone());
        // Twice, since a question must leave nothing behind.
        for at in [at.index(problem.nodes.len()), 0] {
            let pods = problem.nodes[at].pods.clone();
            let mut answer = removals.without(&[at], &pods);
            for placement in &mut answer.placements {
                prop_assert!(placement.node != at);
                placement.node -= usize::from(placement.node > at);
            }
            let asked = without(&problem, at, &pods);
            let violations = check::check(&asked, &answer);
            prop_assert!(violations.is_empty(), "{:?}\n{}", violations, show(&asked, &answer));
            prop_assert_eq!(answer.cost.0 == 0, solve::solve(&asked).cost.0 == 0);
        }
    }
}
