//! What the largest nodes that can be bought leave for one pod.

use std::sync::Arc;

use super::compile::Offers;
use super::problem::{PoolSlot, Problem};
use super::volumes::Limits;
use crate::model::pod::PodShape;
use crate::model::resources::Resources;

/// Room beside DaemonSets on nodes of these pools, without those that another node beats in cpu,
/// memory and ephemeral storage at once. Sorted, largest first.
pub fn largest_rooms(pools: Vec<PoolSlot>, daemons: Vec<Arc<PodShape>>) -> Vec<Resources> {
    let problem = Problem { pools, daemons, ..Problem::default() };
    let offers = Offers::new(&problem, [], &Limits::default());
    let mut rooms: Vec<Resources> = Vec::new();
    let mut last = None;
    for column in &offers.columns {
        // Columns of one pool and type are neighbours.
        if last.replace(column.room) == Some(column.room) {
            continue;
        }
        let daemons = &offers.daemon_requests[column.room];
        let instance = &problem.pools[column.pool].types[column.type_index];
        let room = instance.allocatable().minus(daemons);
        if rooms.iter().any(|other| covers(other, &room)) {
            continue;
        }
        rooms.retain(|other| !covers(&room, other));
        rooms.push(room);
    }
    rooms.sort_by(|a, b| b.cmp(a));
    rooms
}

fn covers(a: &Resources, b: &Resources) -> bool {
    a.cpu >= b.cpu && a.memory >= b.memory && a.ephemeral_storage >= b.ephemeral_storage
}
