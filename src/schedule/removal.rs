//! Would the pods of these nodes fit elsewhere, and at what price?
//!
//! Consolidation asks it of each node and of many sets of nodes. What all questions share is done
//! once: what can be bought, which nodes a pod admits, and an index of free room. Pods that have no
//! rules about other pods and no volumes, and that nobody minds, are placed by that index; only what
//! does not fit is solved. Others are solved on the cluster without the nodes in question.

use std::collections::BTreeMap;
use std::sync::Arc;

use fixedbitset::FixedBitSet;

use super::compile::{Offers, share};
use super::existing::{Blocks, filling_order, times};
use super::feasible;
use super::problem::{Demand, NodeSlot, Options, Problem};
use super::solution::{Placement, Solution};
use super::solve::{solve, solve_with};
use super::topology;
use super::volumes::{Limits, Storage};
use crate::model::pod::PodShape;

/// Pods that must move: shape and count.
pub type Moving = [(Arc<PodShape>, u32)];

/// Questions about one cluster.
#[derive(Debug)]
pub struct Removals {
    problem: Problem,
    /// The same pools without nodes, for what must be bought.
    bare: Problem,
    offers: Offers,
    /// The greatest room of any type.
    largest: Vec<i64>,
    /// Pods that keep others away, each kind once.
    owners: Vec<Arc<PodShape>>,
    /// Positions of nodes in the order in which they are filled, and their free room.
    order: Vec<usize>,
    free: Vec<Vec<i64>>,
    blocks: Blocks,
    /// Nodes that a shape admits, by its address; the shape is kept so that the address stays its
    /// own.
    admits: BTreeMap<usize, (Arc<PodShape>, FixedBitSet)>,
}

impl Removals {
    /// Questions about the nodes and pools of `problem`; its demands are left aside.
    pub fn new(mut problem: Problem) -> Self {
        problem.demands.clear();
        problem.options = Options { bound: false, improve: 0, ..problem.options };
        let pods = problem.nodes.iter().flat_map(|node| node.pods.iter().map(|(pod, _)| pod));
        let offers = Offers::new(&problem, pods, &Limits::default());
        let order = filling_order(&problem.nodes);
        let free: Vec<Vec<i64>> =
            order.iter().map(|at| offers.vector(&problem.nodes[*at].free)).collect();
        let blocks = Blocks::new(free.iter());
        let pods = problem.nodes.iter().flat_map(|node| node.pods.iter().map(|(pod, _)| pod));
        let owners: BTreeMap<usize, Arc<PodShape>> = pods
            .filter(|pod| !pod.pod_anti_affinity.is_empty())
            .map(|pod| (Arc::as_ptr(pod).addr(), Arc::clone(pod)))
            .collect();
        let owners = owners.into_values().collect();
        let bare = Problem { nodes: Vec::new(), ..problem.clone() };
        let (largest, admits) = (offers.largest(), BTreeMap::new());
        Self { problem, bare, offers, largest, owners, order, free, blocks, admits }
    }

    /// Where `pods` go when the nodes at positions `removed` are not there. They are pods of nodes
    /// that the problem had: resources that nobody there asked for are not counted. Positions in the
    /// answer are those of the problem's nodes and of `pods`; its cost is that of nodes to buy.
    pub fn without(&mut self, removed: &[usize], pods: &Moving) -> Solution {
        debug_assert!(pods.iter().all(|(pod, _)| self.offers.knows(&pod.requests)));
        if pods.iter().all(|(pod, _)| self.is_free(pod)) {
            self.by_index(removed, pods)
        } else {
            self.by_solve(removed, pods)
        }
    }

    /// Whether only room and labels decide where a pod goes.
    fn is_free(&self, pod: &PodShape) -> bool {
        let spaces = &self.problem.namespaces;
        let wishes = self.problem.options.respect_preferences
            && (!pod.preferred_node_terms.is_empty()
                || !pod.preferred_pod_terms.is_empty()
                || !pod.spread.is_empty());
        let rules = pod.spread.iter().any(|spread| spread.required)
            || !pod.pod_affinity.is_empty()
            || !pod.together.is_empty()
            || !pod.pod_anti_affinity.is_empty()
            || !pod.host_ports.is_empty()
            || !pod.claims.is_empty()
            || pod.devices;
        !wishes
            && !rules
            && self.owners.iter().all(|owner| !topology::repels(owner, pod, spaces, |_| true))
    }

    fn by_index(&mut self, removed: &[usize], pods: &Moving) -> Solution {
        let mut order: Vec<usize> = (0..pods.len()).collect();
        let size = |at: usize| share(&self.offers.vector(&pods[at].0.requests), &self.largest);
        // As in a solve: high priority first, then what asks for much.
        order.sort_by_cached_key(|at| {
            let pod = &pods[*at].0;
            (std::cmp::Reverse(pod.priority), std::cmp::Reverse(size(*at)), *at)
        });
        let mut solution = Solution::default();
        let mut taken: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
        let mut left: Vec<(usize, u32)> = Vec::new();
        for at in order {
            let (pod, mut count) = (&pods[at].0, pods[at].1);
            let asked = self.offers.vector(&pod.requests);
            let admits = self.admitted(pod).clone();
            for place in self.blocks.with_room(&asked) {
                let node = self.order[place];
                if count == 0 {
                    break;
                }
                if !admits.contains(node) || removed.contains(&node) {
                    continue;
                }
                let free = taken.get(&place).unwrap_or(&self.free[place]);
                let some = times(&asked, free, count);
                if some > 0 {
                    let free = taken.entry(place).or_insert_with(|| self.free[place].clone());
                    for (free, asked) in free.iter_mut().zip(&asked) {
                        *free -= asked * i64::from(some);
                    }
                    count -= some;
                    solution.placements.push(Placement { node, demand: at, count: some });
                }
            }
            if count > 0 {
                left.push((at, count));
            }
        }
        solution.placements.sort_unstable();
        if left.is_empty() {
            return solution;
        }
        self.bare.demands = left
            .iter()
            .map(|(at, count)| Demand {
                shape: Arc::clone(&pods[*at].0),
                count: *count,
                gang: None,
            })
            .collect();
        let bought = solve_with(&self.bare, &Storage::new(&self.bare), &self.offers);
        let whole = |demand: usize| left[demand].0;
        let placements = std::mem::take(&mut solution.placements);
        renumber(Solution { placements, ..bought }, whole)
    }

    fn admitted(&mut self, pod: &Arc<PodShape>) -> &FixedBitSet {
        let nodes = &self.problem.nodes;
        let (_, bits) = self.admits.entry(Arc::as_ptr(pod).addr()).or_insert_with(|| {
            let alternatives = pod.node_alternatives();
            let mut bits = FixedBitSet::with_capacity(nodes.len());
            for (at, node) in nodes.iter().enumerate() {
                bits.set(at, feasible::takes(pod, &alternatives, node));
            }
            (Arc::clone(pod), bits)
        });
        bits
    }

    fn by_solve(&mut self, removed: &[usize], pods: &Moving) -> Solution {
        let mut gone: Vec<usize> = removed.to_vec();
        gone.sort_unstable();
        gone.dedup();
        gone.retain(|at| *at < self.problem.nodes.len());
        let mut out: Vec<(usize, NodeSlot)> = Vec::with_capacity(gone.len());
        for at in gone.iter().rev() {
            out.push((*at, self.problem.nodes.remove(*at)));
        }
        self.problem.demands = pods
            .iter()
            .map(|(pod, count)| Demand { shape: Arc::clone(pod), count: *count, gang: None })
            .collect();
        let storage = Storage::new(&self.problem);
        // What is offered depends on the removed nodes only where volumes are attached.
        let mut solution = if storage.limits.drivers.is_empty() {
            solve_with(&self.problem, &storage, &self.offers)
        } else {
            solve(&self.problem)
        };
        self.problem.demands.clear();
        for (at, node) in out.into_iter().rev() {
            self.problem.nodes.insert(at, node);
        }
        for placement in &mut solution.placements {
            for at in &gone {
                placement.node += usize::from(placement.node >= *at);
            }
        }
        solution
    }
}

/// The solution with other numbers for its demands outside of placements.
fn renumber(mut solution: Solution, whole: impl Fn(usize) -> usize) -> Solution {
    for node in &mut solution.new_nodes {
        for (demand, _) in &mut node.pods {
            *demand = whole(*demand);
        }
    }
    for unplaced in &mut solution.unplaced {
        unplaced.demand = whole(unplaced.demand);
    }
    for relaxed in &mut solution.relaxed {
        relaxed.demand = whole(relaxed.demand);
    }
    solution
}
