//! What can be bought of a pool when no pod asks for it.

use std::sync::Arc;

use super::choice;
use super::compile::Offers;
use super::problem::{Options, PoolSlot, Problem};
use super::reason::Reason;
use super::solution::OfferingRef;
use super::volumes::Limits;
use crate::model::pod::PodShape;
use crate::model::pool::Pool;
use crate::model::resources::Resources;

/// A node without pods.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BareNode {
    /// Offerings that the pool allows and on which its DaemonSets fit, cheapest first.
    pub acceptable: Vec<OfferingRef>,
    /// Requests of the DaemonSets on the first of them.
    pub requested: Resources,
}

/// A node of a pool that no pod asked for, of at most `max_types` types.
///
/// # Errors
/// Why there is none.
pub fn bare_node(
    slot: &PoolSlot,
    daemons: Vec<Arc<PodShape>>,
    max_types: usize,
) -> Result<BareNode, Reason> {
    if !slot.pool.ready {
        return Err(Reason::PoolNotReady);
    }
    let pool = Arc::new(Pool { replicas: None, ..(*slot.pool).clone() });
    let pools = vec![PoolSlot { pool, ..slot.clone() }];
    let problem = Problem { pools, daemons, options: Options::default(), ..Problem::default() };
    let offers = Offers::new(&problem, [], &Limits::default());
    let mut order: Vec<usize> = (0..offers.columns.len()).collect();
    order.sort_by_key(|column| (offers.columns[*column].price, *column));
    let mut node = BareNode::default();
    for column in order.into_iter().map(|index| offers.columns[index]) {
        let daemons = &offers.daemon_requests[column.room];
        if !daemons.fits(&slot.types[column.type_index].allocatable()) {
            continue;
        }
        if node.acceptable.is_empty() {
            node.requested.clone_from(daemons);
        }
        node.acceptable.push(column.offering());
    }
    if node.acceptable.is_empty() {
        return Err(Reason::NoOffering { types: Vec::new() });
    }
    choice::cut(slot, &mut node.acceptable, max_types, |offering| *offering);
    choice::shortage(slot, &node.acceptable).map_or(Ok(node), Err)
}
