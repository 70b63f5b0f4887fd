//! Quotes: what pods would cost, and whether they can be placed at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::hair::hair;
use super::market::{FleetNode, Market};
use super::quote::{FleetCost, Question, Quote};
use crate::model::instance::CapacityType;
use crate::model::money::MicroDollarsPerHour;
use crate::model::pod::PodShape;
use crate::model::resources::{CPU, MEMORY, Resources};
use crate::model::workload::WorkloadKind;
use crate::schedule::{self, Demand, NewNode, Problem, Solution};

/// Pods that are planned; a larger workload costs as many times more. Beyond this the mix of nodes
/// hardly changes and the time would.
const PLANNED: u32 = 500;

/// Answers a question. `fleet` lists the nodes that exist, and is asked only where they matter.
pub fn quote(question: &Question, market: &Market, fleet: &dyn Fn() -> Vec<FleetNode>) -> Quote {
    let shape = Arc::new(question.shape());
    if question.kind == WorkloadKind::DaemonSet {
        let cost = fleet_cost(&shape, question.shape_before().as_ref(), &fleet());
        return Quote { fleet: Some(cost), ..Quote::default() };
    }
    let mut quote = Quote { replicas: question.desired, ..Quote::default() };
    if question.desired == 0 || market.pools.is_empty() {
        return quote;
    }
    let planned = question.desired.min(PLANNED);
    let solution = solve(market, &shape, planned);
    let times = |count: u32| {
        let all = u64::from(count) * u64::from(question.desired) / u64::from(planned);
        u32::try_from(all).unwrap_or(u32::MAX)
    };
    let mut types: BTreeMap<&str, u32> = BTreeMap::new();
    for node in &solution.new_nodes {
        *types.entry(type_of(market, node)).or_insert(0) += 1;
        if capacity_of(market, node) == CapacityType::Spot {
            quote.on_spot += node.pods.iter().map(|(_, count)| count).sum::<u32>();
        }
    }
    quote.on_spot = times(quote.on_spot);
    quote.nodes = times(u32::try_from(solution.new_nodes.len()).unwrap_or(u32::MAX));
    quote.per_hour = scaled(solution.cost, question.desired, planned);
    quote.types = types.into_iter().map(|(name, count)| (name.to_owned(), times(count))).collect();
    quote.types.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
    let unplaced: u32 = solution.unplaced.iter().map(|left| left.count).sum();
    if unplaced > 0 && fleet().iter().any(|node| node.takes(&shape)) {
        quote.elsewhere = times(unplaced);
    } else if unplaced > 0 {
        quote.unplaced = times(unplaced);
        let reasons = solution.unplaced.iter().flat_map(|left| &left.reasons.pools);
        quote.reasons = reasons
            .map(|(pool, reason)| match &**pool {
                "" => reason.to_string(),
                pool => format!("NodePool {pool}: {reason}"),
            })
            .collect();
        quote.reasons.dedup();
    }
    let steady = matches!(
        question.kind,
        WorkloadKind::Deployment | WorkloadKind::ReplicaSet | WorkloadKind::StatefulSet
    );
    if steady && unplaced == 0 {
        quote.hair = hair(market, &shape, question.desired);
    }
    quote
}

/// Plans so many pods of one shape on nodes of their own. Volumes are left aside: the claims of
/// workloads that are not there yet are not there either.
pub(super) fn solve(market: &Market, shape: &Arc<PodShape>, count: u32) -> Solution {
    let shape = if shape.claims.is_empty() {
        Arc::clone(shape)
    } else {
        Arc::new(PodShape { claims: Vec::new(), ..(**shape).clone() })
    };
    schedule::solve(&Problem {
        demands: vec![Demand { shape, count, gang: None }],
        pools: market.pools.clone(),
        daemons: market.daemons.clone(),
        namespaces: market.namespaces.clone(),
        ..Problem::default()
    })
}

/// A price of `planned` pods as one of `desired`.
pub(super) fn scaled(
    price: MicroDollarsPerHour,
    desired: u32,
    planned: u32,
) -> MicroDollarsPerHour {
    MicroDollarsPerHour((price * i64::from(desired)).0 / i64::from(planned.max(1)))
}

/// The instance type of a planned node.
pub(super) fn type_of<'a>(market: &'a Market, node: &NewNode) -> &'a str {
    &market.pools[node.pool].types[node.choice.type_index].name
}

fn capacity_of(market: &Market, node: &NewNode) -> CapacityType {
    let instance = &market.pools[node.pool].types[node.choice.type_index];
    instance.offerings[node.choice.offering_index].capacity_type
}

/// What a DaemonSet takes on the nodes that let it in.
fn fleet_cost(shape: &PodShape, before: Option<&PodShape>, fleet: &[FleetNode]) -> FleetCost {
    let mut each = shape.requests.clone();
    if let Some(before) = before {
        each.sub(&before.requests);
    }
    each.pods = 0;
    let mut cost = FleetCost { grows: before.is_some(), ..FleetCost::default() };
    for node in fleet.iter().filter(|node| node.admits(shape)) {
        cost.nodes += 1;
        cost.short += u32::from(!each.fits(&node.free));
        let share = |of: &Resources| {
            let share = |name: &str| match node.allocatable.get(name) {
                0 => 0,
                all => (i128::from(node.price.0) * i128::from(of.get(name))) / i128::from(all),
            };
            // The resource that runs out first is what the node is bought for.
            i64::try_from(share(CPU).max(share(MEMORY))).unwrap_or(i64::MAX)
        };
        let less = before.map_or(0, |before| share(&before.requests));
        cost.per_hour += MicroDollarsPerHour(share(&shape.requests) - less);
    }
    cost.each = each;
    cost
}
