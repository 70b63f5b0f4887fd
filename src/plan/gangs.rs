//! Gangs of the cluster: how many of their pods there are already.

use std::sync::Arc;

use crate::cluster::Snapshot;
use crate::demand::Ledger;
use crate::model::pod::PodShape;
use crate::schedule::Problem;

/// Gives the demands their gangs. Of a gang count all pods that exist or are announced, wherever they
/// are: those that are not demanded have a place.
pub(super) fn join(problem: &mut Problem, snapshot: &Snapshot, ledger: &Ledger) {
    if problem.demands.iter().all(|demand| demand.shape.gang.is_none()) {
        return;
    }
    let demanded: Vec<(Arc<PodShape>, i64)> =
        problem.demands.iter().map(|d| (Arc::clone(&d.shape), -i64::from(d.count))).collect();
    let active = snapshot.pods.values().filter(|pod| pod.active() && !pod.gated);
    let active = active.map(|pod| (&pod.shape, 1));
    let announced =
        ledger.iter().map(|(_, reserved)| (&reserved.shape, i64::from(reserved.missing())));
    let wanted = demanded.iter().map(|(shape, count)| (shape, *count));
    problem.join_gangs(&snapshot.pod_groups, active.chain(announced).chain(wanted));
}
