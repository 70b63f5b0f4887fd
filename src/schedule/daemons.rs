//! DaemonSet pods as neighbours: where one runs, pods that it repels or that it keeps from a host
//! port cannot be.
//!
//! A new node gets its DaemonSet pods before others, so such pods would wait on it for ever.

use std::sync::Arc;

use fixedbitset::FixedBitSet;

use super::compile::{Compiled, Shape};
use super::problem::Problem;
use super::topology::repels;
use crate::model::instance::Asked;
use crate::model::labels;
use crate::model::pod::PodShape;
use crate::model::requirement::Requirements;
use crate::model::taints::untolerated;

/// Takes from each shape the columns on which a DaemonSet is in its way.
pub(super) fn keep_apart(compiled: &mut Compiled<'_>) {
    let problem = compiled.problem;
    let mut known: Vec<Option<FixedBitSet>> = vec![None; problem.daemons.len()];
    for at in 0..compiled.shapes.len() {
        let pod = Arc::clone(&compiled.shapes[at].pod);
        let mut out = FixedBitSet::with_capacity(compiled.offers.columns.len());
        for (daemon, known) in problem.daemons.iter().zip(&mut known) {
            if in_the_way(problem, daemon, &pod) {
                out.union_with(known.get_or_insert_with(|| columns(compiled, daemon)));
            }
        }
        if !out.is_clear() {
            let all = compiled.shapes[at].columns;
            let left = compiled.sets.narrow(all, |column| !out.contains(column));
            let shape = &mut compiled.shapes[at];
            (shape.columns, shape.wide) = (left, left);
        }
    }
}

/// Whether some DaemonSet is in the way of a shape on nodes of a pool.
pub(super) fn block(compiled: &Compiled<'_>, shape: &Shape, pool: usize) -> bool {
    let problem = compiled.problem;
    let of_pool = |column: usize| compiled.offers.columns[column].pool == pool;
    problem
        .daemons
        .iter()
        .filter(|daemon| in_the_way(problem, daemon, &shape.pod))
        .any(|daemon| columns(compiled, daemon).ones().any(of_pool))
}

/// Columns whose nodes a DaemonSet runs on.
fn columns(compiled: &Compiled<'_>, daemon: &PodShape) -> FixedBitSet {
    let alternatives = daemon.node_alternatives();
    let asked: Vec<(&Requirements, Asked<'_>)> =
        alternatives.iter().map(|wanted| (wanted, Asked::of(wanted))).collect();
    let mut set = FixedBitSet::with_capacity(compiled.offers.columns.len());
    for (index, column) in compiled.offers.columns.iter().enumerate() {
        let pool = &compiled.problem.pools[column.pool].pool;
        let instance = compiled.instance_type(column);
        let offering = &instance.offerings[column.offering_index];
        let runs = untolerated(&pool.taints, &daemon.tolerations).is_none()
            && asked.iter().any(|(wanted, asked)| {
                asked.met_by(offering) && instance.meets(&pool.requirements, wanted)
            });
        set.set(index, runs);
    }
    set
}

/// Whether two pods cannot share a node.
fn in_the_way(problem: &Problem, daemon: &PodShape, pod: &PodShape) -> bool {
    let ports = || {
        let mut mine = pod.host_ports.iter();
        mine.any(|mine| daemon.host_ports.iter().any(|theirs| theirs.conflicts(mine)))
    };
    let spaces = &problem.namespaces;
    ports() || repels(daemon, pod, spaces, on_node) || repels(pod, daemon, spaces, on_node)
}

/// Keys that every node has: pods of one node share their domain.
fn on_node(key: &str) -> bool {
    matches!(
        key,
        labels::HOSTNAME
            | labels::ZONE
            | labels::CAPACITY_TYPE
            | labels::INSTANCE_TYPE
            | labels::NODEPOOL
            | labels::ARCH
            | labels::OS
    )
}
