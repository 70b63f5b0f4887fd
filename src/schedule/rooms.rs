//! What the nodes that can be bought leave for one pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::compile::Offers;
use super::problem::{PoolSlot, Problem};
use super::volumes::Limits;
use crate::model::pod::PodShape;
use crate::model::requirement::Requirements;
use crate::model::room::{PoolRooms, Room};

/// Room beside DaemonSets on new nodes of these pools, in their order, as far as each may still grow.
pub fn rooms(pools: Vec<PoolSlot>, daemons: Vec<Arc<PodShape>>) -> Vec<PoolRooms> {
    let problem = Problem { pools, daemons, ..Problem::default() };
    let offers = Offers::new(&problem, [], &Limits::default());
    // Labels of a type are the same for most classes, and long.
    let mut known: BTreeMap<&str, Arc<Requirements>> = BTreeMap::new();
    let mut by_pool: Vec<Vec<Room>> = vec![Vec::new(); problem.pools.len()];
    let mut last = None;
    for column in &offers.columns {
        // Columns of one pool and type are neighbours.
        if last.replace(column.room) == Some(column.room) {
            continue;
        }
        let slot = &problem.pools[column.pool];
        let instance = &slot.types[column.type_index];
        let beyond = |(name, left): (&Arc<str>, &i64)| match &**name {
            "nodes" => *left < 1,
            name => instance.capacity.get(name) > *left,
        };
        if slot.remaining.iter().any(beyond) {
            continue;
        }
        let shared =
            known.entry(&*instance.name).or_insert_with(|| Arc::new(instance.requirements.clone()));
        let labels = if **shared == instance.requirements {
            Arc::clone(shared)
        } else {
            Arc::new(instance.requirements.clone())
        };
        let left = instance.allocatable().minus(&offers.daemon_requests[column.room]);
        by_pool[column.pool].push(Room { labels, left });
    }
    let made = problem.pools.iter().zip(by_pool).map(|(slot, rooms)| {
        PoolRooms::new(slot.pool.taints.clone(), slot.pool.requirements.clone(), rooms)
    });
    made.collect()
}
