//! From a packing to nodes to buy: what would do as well, requirements, pods by demand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::choice;
use super::compile::Compiled;
use super::existing::Blocks;
use super::fill::join;
use super::model::{Limit, Model};
use super::pack::Open;
use super::reason::Reason;
use super::solution::{NewNode, OfferingRef, Solution};
use crate::model::labels;
use crate::model::requirement::{Requirement, Requirements};

/// What acceptable columns mean: offerings, requirements, and why they are too few, if they are.
type Terms = (Vec<OfferingRef>, Requirements, Option<Reason>);

/// Turns open nodes into [`NewNode`]s.
pub(super) struct Buyer<'m, 'c, 'p> {
    model: &'m Model<'c, 'p>,
    /// Pods still to place of each shape, by demand.
    pub(super) left: Vec<Vec<(usize, u32)>>,
    /// Shapes whose nodes were refused, and why.
    pub(super) short: BTreeMap<usize, Reason>,
    /// Columns of each pool, cheapest first, and an index of their room.
    by_price: Vec<(Vec<usize>, Blocks)>,
    /// By limit: how much larger than the choice an acceptable type may be, so that the limit holds
    /// even where each node gets its largest type.
    slack: Vec<i64>,
    /// Requirements by pool and acceptable columns.
    known: BTreeMap<(usize, Vec<usize>), Terms>,
}

impl<'m, 'c, 'p> Buyer<'m, 'c, 'p> {
    pub(super) fn new(model: &'m Model<'c, 'p>, limits: &[i64], open: &[Open]) -> Self {
        let compiled = model.compiled;
        let offers = compiled.offers;
        let mut of_pools: Vec<Vec<usize>> = vec![Vec::new(); compiled.problem.pools.len()];
        for (index, column) in offers.columns.iter().enumerate() {
            of_pools[column.pool].push(index);
        }
        let by_price = of_pools.into_iter().map(|mut columns| {
            columns.sort_unstable_by_key(|index| (offers.columns[*index].price, *index));
            let rooms = columns.iter().map(|index| &offers.rooms[offers.columns[*index].room]);
            let blocks = Blocks::new(rooms);
            (columns, blocks)
        });
        let mut nodes = vec![0_i64; compiled.problem.pools.len()];
        for node in open {
            nodes[compiled.offers.columns[node.column].pool] += i64::from(node.copies);
        }
        let slack = model.limits.iter().zip(limits).map(|(limit, left)| match limit {
            Limit::Pool(pool, _) => left.max(&0) / nodes[*pool].max(1),
            Limit::Reservation(_) => 0,
        });
        Self {
            model,
            left: compiled.shapes.iter().map(|shape| shape.demands.clone()).collect(),
            short: BTreeMap::new(),
            slack: slack.collect(),
            by_price: by_price.collect(),
            known: BTreeMap::new(),
        }
    }

    /// Turns equal nodes into one [`NewNode`] each, with their pods by demand.
    pub(super) fn buy(&mut self, open: &Open, solution: &mut Solution) {
        let compiled = self.model.compiled;
        let column = compiled.offers.columns[open.column];
        let slot = &compiled.problem.pools[column.pool];
        let custom: Vec<usize> = open
            .pods
            .iter()
            .map(|(item, _)| self.model.items[*item].shapes[0])
            .filter(|shape| compiled.shapes[*shape].custom)
            .collect();
        let wanted = joined(compiled, open.column, &custom);
        let mut columns = self.acceptable(open);
        // All must do with the labels that the node is given.
        columns.retain(|column| {
            *column == open.column
                || custom.is_empty()
                || joined(compiled, *column, &custom) == wanted
        });
        let key = (column.pool, columns);
        if !self.known.contains_key(&key) {
            let offerings: Vec<OfferingRef> =
                key.1.iter().map(|c| compiled.offers.columns[*c].offering()).collect();
            let requirements = requirements(compiled, column.pool, &offerings);
            let short = choice::shortage(slot, &offerings);
            self.known.insert(key.clone(), (offerings, requirements, short));
        }
        let (acceptable, requirements, short) = &self.known[&key];
        if let Some(reason) = short {
            let shapes = open.pods.iter().flat_map(|(item, _)| &self.model.items[*item].shapes);
            self.short.extend(shapes.map(|shape| (*shape, reason.clone())));
            return;
        }
        let mut requirements = requirements.clone();
        add_custom(compiled, &wanted, &mut requirements);
        let choice = acceptable.first().copied().unwrap_or_else(|| column.offering());
        let bought = &slot.types[choice.type_index].offerings[choice.offering_index];
        let first = key.1.first().copied().unwrap_or(open.column);
        let daemons = &compiled.offers.daemon_requests[compiled.offers.columns[first].room];
        for _ in 0..open.copies {
            let mut pods: Vec<(usize, u32)> = Vec::with_capacity(open.pods.len());
            let mut requested = daemons.clone();
            for (item, count) in &open.pods {
                let mut count = *count;
                for shape in &self.model.items[*item].shapes {
                    let whole = compiled.shapes[*shape].whole;
                    let mut bundle = false;
                    for (demand, left) in &mut self.left[*shape] {
                        let taken = if whole { *left } else { count.min(*left) };
                        if taken > 0 {
                            *left -= taken;
                            pods.push((*demand, taken));
                            count -= if whole { 0 } else { taken };
                            bundle = whole;
                        }
                    }
                    count -= u32::from(bundle);
                    if count == 0 {
                        break;
                    }
                }
            }
            pods.sort_unstable();
            pods.dedup_by(|b, a| {
                a.0 == b.0 && {
                    a.1 += b.1;
                    true
                }
            });
            for (demand, count) in &pods {
                let of = &compiled.problem.demands[*demand].shape.requests;
                if *count == 1 {
                    requested.add(of);
                } else {
                    requested.add(&of.times(i64::from(*count)));
                }
            }
            solution.new_nodes.push(NewNode {
                pool: column.pool,
                choice,
                price: bought.price + slot.volume_price,
                acceptable: acceptable.clone(),
                requirements: requirements.clone(),
                pods,
                requested,
            });
        }
    }

    /// Columns of the same pool that hold the same pods, cheapest first, of at most `max_types`
    /// types. The first is what is bought.
    fn acceptable(&self, open: &Open) -> Vec<usize> {
        let compiled = self.model.compiled;
        if compiled.reserves(open.column) {
            // Another reservation would have to be counted as well.
            return vec![open.column];
        }
        let chosen = compiled.offers.columns[open.column];
        let mut need = vec![0_i64; compiled.offers.dims.len()];
        let mut sets: Vec<usize> = Vec::with_capacity(open.pods.len());
        for (item, count) in &open.pods {
            let of = &self.model.items[*item];
            for (need, asked) in need.iter_mut().zip(&compiled.shapes[of.shapes[0]].request) {
                *need += asked * i64::from(*count);
            }
            sets.push(self.model.groups[of.group].set);
        }
        sets.sort_unstable();
        sets.dedup();
        let capacity = &compiled.instance_type(&chosen).capacity;
        let most = compiled.problem.options.max_types.max(1);
        let varied = choice::is_varied(&compiled.problem.pools[chosen.pool]);
        let mut types: BTreeSet<usize> = BTreeSet::new();
        let mut kept = Vec::new();
        let (by_price, blocks) = &self.by_price[chosen.pool];
        for index in blocks.with_room(&need).map(|place| by_price[place]) {
            if compiled.reserves(index) {
                continue;
            }
            let column = &compiled.offers.columns[index];
            let fits = compiled.offers.rooms[column.room]
                .iter()
                .zip(&need)
                .all(|(room, need)| *need <= 0 || need <= room);
            if !fits || !sets.iter().all(|set| compiled.sets.get(*set).contains(index)) {
                continue;
            }
            // Whatever type is launched in the end, the limits must hold.
            let within = self.model.uses[index].iter().all(|(at, each)| {
                let Limit::Pool(_, name) = &self.model.limits[*at] else { return false };
                let most = || capacity.get(name).saturating_add(self.slack[*at]);
                &**name == "nodes" || *each <= most()
            });
            if !within {
                continue;
            }
            // Where types must be varied, dearer ones may be needed.
            let known = types.contains(&column.type_index);
            if !known && types.len() >= most && column.price > chosen.price && !varied {
                break;
            }
            types.insert(column.type_index);
            kept.push(index);
        }
        let slot = &compiled.problem.pools[chosen.pool];
        choice::cut(slot, &mut kept, most, |column| compiled.offers.columns[*column].offering());
        kept
    }
}

/// Requirements of a claim: the pool's, and the acceptable offerings.
fn requirements(compiled: &Compiled<'_>, pool: usize, acceptable: &[OfferingRef]) -> Requirements {
    let slot = &compiled.problem.pools[pool];
    let mut all = slot.pool.requirements.clone();
    let mut lists: BTreeMap<&str, BTreeSet<Arc<str>>> = BTreeMap::new();
    for offering in acceptable {
        let instance = &slot.types[offering.type_index];
        let bought = &instance.offerings[offering.offering_index];
        let reservation = bought.reserved.as_ref().map(|reserved| &reserved.reservation.id);
        for (key, value) in [
            (labels::INSTANCE_TYPE, Some(Arc::clone(&instance.name))),
            (labels::ZONE, Some(Arc::clone(&bought.zone))),
            (labels::CAPACITY_TYPE, Some(Arc::from(bought.capacity_type.label()))),
            (labels::RESERVATION_ID, reservation.map(Arc::clone)),
        ] {
            if let Some(value) = value {
                lists.entry(key).or_default().insert(value);
            }
        }
    }
    for (key, values) in lists {
        all.insert(key, Requirement::one_of(values));
    }
    all
}

/// What pods of these shapes ask together of those labels of a column's nodes that only the choice of
/// the node decides.
fn joined(compiled: &Compiled<'_>, column: usize, shapes: &[usize]) -> Requirements {
    let mut all = Requirements::new();
    for shape in shapes {
        join(compiled, column, *shape, &mut all);
    }
    let mut custom = Requirements::new();
    for (key, requirement) in all.iter().filter(|(key, _)| !labels::is_well_known(key)) {
        custom.insert(key, requirement.clone());
    }
    custom
}

/// Adds what pods ask of labels that only the choice of the node decides.
fn add_custom(compiled: &Compiled<'_>, custom: &Requirements, requirements: &mut Requirements) {
    requirements.extend(custom);
    // Rules about other pods count a node in one domain: of those that all its pods allow any will do.
    for key in compiled.topology.keys.iter().filter(|key| custom.get(&key.name).is_some()) {
        let values = requirements.get(&key.name).and_then(Requirement::finite_values);
        if let Some([first, _, ..]) = values {
            let one = Requirement::one_of([Arc::clone(first)]);
            requirements.insert(&key.name, one);
        }
    }
}
