//! The solve: existing room first, then new nodes, then the reasons for what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::compile::Compiled;
use super::pack::{Open, Packer};
use super::problem::Problem;
use super::reason::{Reason, Reasons};
use super::solution::{NewNode, OfferingRef, Solution, Unplaced};
use super::{bound, existing, improve, spread, why};
use crate::model::labels;
use crate::model::requirement::{Requirement, Requirements};

/// Places the demand of `problem`. The result depends on nothing but the problem, and not on the
/// order of its demands.
pub fn solve(problem: &Problem) -> Solution {
    let mut compiled = Compiled::new(problem);
    spread::split(&mut compiled);
    let mut solution =
        Solution { placements: existing::fill(&mut compiled), ..Solution::default() };
    let mut packer = Packer::new(&compiled);
    pack_in_order(&mut packer);
    improve::improve(&mut packer, &problem.options);
    let open = std::mem::take(&mut packer.open);
    let limits = packer.limits.clone();
    if problem.options.bound {
        solution.lower_bound = Some(bound::lower_bound(&compiled, &packer.left));
    }
    drop(packer);
    let mut short: BTreeMap<usize, Reason> = BTreeMap::new();
    for node in open {
        expand(&mut compiled, &node, &limits, &mut solution, &mut short);
    }
    solution
        .new_nodes
        .sort_by(|a, b| (a.pool, &a.pods, a.choice).cmp(&(b.pool, &b.pods, b.choice)));
    solution.cost = solution.new_nodes.iter().map(|node| node.price).sum();
    for (index, shape) in compiled.shapes.iter().enumerate() {
        if shape.left() == 0 {
            continue;
        }
        let reasons = match short.get(&index) {
            Some(reason) => {
                Reasons { pools: vec![(String::new(), reason.clone())], nodes: Vec::new() }
            }
            None => why::reasons(&compiled, shape, &limits),
        };
        for (demand, count) in shape.demands.iter().filter(|(_, count)| *count > 0) {
            solution.unplaced.push(Unplaced {
                demand: *demand,
                count: *count,
                reasons: reasons.clone(),
            });
        }
    }
    merge_unplaced(&mut solution);
    solution
}

/// Heavier pools before lighter ones; where limits make room scarce, higher priorities first.
fn pack_in_order(packer: &mut Packer<'_, '_>) {
    let compiled = packer.compiled;
    let pools = &compiled.problem.pools;
    let weights: BTreeSet<i32> = pools.iter().map(|slot| slot.pool.weight).collect();
    for weight in weights.into_iter().rev() {
        let columns: Vec<usize> = (0..compiled.columns.len())
            .filter(|index| pools[compiled.columns[*index].pool].pool.weight == weight)
            .collect();
        if columns.is_empty() {
            continue;
        }
        let limited =
            pools.iter().any(|slot| slot.pool.weight == weight && !slot.remaining.is_empty());
        let buyable = |index: &usize| compiled.shapes[*index].unsupported.is_none();
        let all: Vec<usize> = (0..compiled.shapes.len()).filter(buyable).collect();
        if !limited {
            packer.pack(&columns, &all);
            continue;
        }
        let priorities: BTreeSet<i32> =
            all.iter().map(|index| compiled.shapes[*index].pod.priority).collect();
        for priority in priorities.into_iter().rev() {
            let same: Vec<usize> = all
                .iter()
                .copied()
                .filter(|index| compiled.shapes[*index].pod.priority == priority)
                .collect();
            packer.pack(&columns, &same);
        }
    }
}

/// Turns equal nodes into one [`NewNode`] each, with their pods by demand.
fn expand(
    compiled: &mut Compiled<'_>,
    open: &Open,
    limits: &[BTreeMap<Arc<str>, i64>],
    solution: &mut Solution,
    short: &mut BTreeMap<usize, Reason>,
) {
    let column = compiled.columns[open.column];
    let slot = &compiled.problem.pools[column.pool];
    let acceptable = acceptable(compiled, open, &limits[column.pool]);
    let requirements = requirements(compiled, open, &acceptable);
    if let Some(reason) = min_values(compiled, column.pool, &acceptable) {
        short.extend(open.pods.iter().map(|(shape, _)| (*shape, reason.clone())));
        return;
    }
    let mut requested = compiled.daemon_requests[column.room].clone();
    for (shape, count) in &open.pods {
        requested.add(&compiled.shapes[*shape].pod.requests.times(i64::from(*count)));
    }
    let offering = &slot.types[column.type_index].offerings[column.offering_index];
    for _ in 0..open.copies {
        let mut pods: BTreeMap<usize, u32> = BTreeMap::new();
        for (shape, count) in &open.pods {
            compiled.shapes[*shape].take(*count, |demand, count| {
                *pods.entry(demand).or_insert(0) += count;
            });
        }
        solution.new_nodes.push(NewNode {
            pool: column.pool,
            choice: OfferingRef {
                type_index: column.type_index,
                offering_index: column.offering_index,
            },
            price: offering.price + slot.volume_price,
            acceptable: acceptable.clone(),
            requirements: requirements.clone(),
            pods: pods.into_iter().collect(),
            requested: requested.clone(),
        });
    }
}

/// Offerings of the same pool that hold the same pods, cheapest first, of at most `max_types` types.
fn acceptable(
    compiled: &Compiled<'_>,
    open: &Open,
    limits: &BTreeMap<Arc<str>, i64>,
) -> Vec<OfferingRef> {
    let choice = compiled.columns[open.column];
    let chosen = &compiled.instance_type(&choice).capacity;
    let mut need = vec![0_i64; compiled.dims.len()];
    for (shape, count) in &open.pods {
        for (need, asked) in need.iter_mut().zip(&compiled.shapes[*shape].request) {
            *need += asked * i64::from(*count);
        }
    }
    let mut found: Vec<(i64, usize)> = Vec::new();
    for (index, column) in compiled.columns.iter().enumerate() {
        let fits = column.pool == choice.pool
            && compiled.rooms[column.room].iter().zip(&need).all(|(room, need)| need <= room)
            && open.pods.iter().all(|(shape, _)| compiled.shapes[*shape].columns.contains(index));
        // Whatever type is launched in the end, the limit must hold.
        let capacity = &compiled.instance_type(column).capacity;
        let within = limits.keys().all(|name| capacity.get(name) <= chosen.get(name));
        if fits && within {
            found.push((column.price, index));
        }
    }
    // The choice leads among offerings of one price.
    found.sort_unstable_by_key(|(price, index)| (*price, *index != open.column, *index));
    let most = compiled.problem.options.max_types;
    let mut types = BTreeSet::from([choice.type_index]);
    let mut kept = Vec::new();
    for (_, index) in found {
        let column = compiled.columns[index];
        if types.contains(&column.type_index) || types.len() < most {
            types.insert(column.type_index);
            kept.push(OfferingRef {
                type_index: column.type_index,
                offering_index: column.offering_index,
            });
        }
    }
    kept
}

/// Requirements of the claim: the pool's, what the pods add, and the acceptable offerings.
fn requirements(compiled: &Compiled<'_>, open: &Open, acceptable: &[OfferingRef]) -> Requirements {
    let column = compiled.columns[open.column];
    let slot = &compiled.problem.pools[column.pool];
    let mut all = slot.pool.requirements.clone();
    let packer = Packer::new(compiled);
    let mut custom = Requirements::new();
    for (shape, _) in &open.pods {
        if compiled.shapes[*shape].custom {
            packer.join(column.pool, open.column, *shape, &mut custom);
        }
    }
    for (key, requirement) in custom.iter() {
        if !labels::is_well_known(key) {
            all.insert(key, requirement.clone());
        }
    }
    let mut lists: BTreeMap<&str, BTreeSet<Arc<str>>> = BTreeMap::new();
    for offering in acceptable {
        let instance = &slot.types[offering.type_index];
        let bought = &instance.offerings[offering.offering_index];
        for (key, value) in [
            (labels::INSTANCE_TYPE, Arc::clone(&instance.name)),
            (labels::ZONE, Arc::clone(&bought.zone)),
            (labels::CAPACITY_TYPE, Arc::from(bought.capacity_type.label())),
        ] {
            lists.entry(key).or_default().insert(value);
        }
    }
    for (key, values) in lists {
        all.insert(key, Requirement::one_of(values));
    }
    all
}

/// Why the acceptable types do not meet the pool's `minValues`, if they do not.
fn min_values(compiled: &Compiled<'_>, pool: usize, acceptable: &[OfferingRef]) -> Option<Reason> {
    let slot = &compiled.problem.pools[pool];
    for (key, requirement) in slot.pool.requirements.iter() {
        let Some(wanted) = requirement.min_values else { continue };
        let mut values: BTreeSet<Arc<str>> = BTreeSet::new();
        for offering in acceptable {
            let instance = &slot.types[offering.type_index];
            let bought = &instance.offerings[offering.offering_index];
            match &**key {
                labels::ZONE => values.extend([Arc::clone(&bought.zone)]),
                labels::CAPACITY_TYPE => values.extend([Arc::from(bought.capacity_type.label())]),
                key => {
                    let own = instance.requirements.get(key).and_then(Requirement::finite_values);
                    values.extend(own.into_iter().flatten().cloned());
                }
            }
        }
        let found = u32::try_from(values.len()).unwrap_or(u32::MAX);
        if found < wanted {
            return Some(Reason::MinValues { key: key.to_string(), wanted, found });
        }
    }
    None
}

/// One entry per demand and reasons.
fn merge_unplaced(solution: &mut Solution) {
    solution.unplaced.sort_by_key(|unplaced| unplaced.demand);
    let mut merged: Vec<Unplaced> = Vec::new();
    for unplaced in std::mem::take(&mut solution.unplaced) {
        match merged.last_mut() {
            Some(last) if last.demand == unplaced.demand => last.count += unplaced.count,
            _ => merged.push(unplaced),
        }
    }
    solution.unplaced = merged;
    for placement in std::mem::take(&mut solution.placements) {
        match solution.placements.last_mut() {
            Some(last) if (last.node, last.demand) == (placement.node, placement.demand) => {
                last.count += placement.count;
            }
            _ => solution.placements.push(placement),
        }
    }
}
