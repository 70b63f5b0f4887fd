//! The solve: existing room first, then new nodes, then the reasons for what is left.
//!
//! One attempt plans everything. What it could not place teaches the next one: a preference to give
//! up, a domain to leave out, a gang to leave behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fixedbitset::FixedBitSet;

use super::buy::Buyer;
use super::compile::{Compiled, Offers, Piece};
use super::fill::Scratch;
use super::generate::Pool;
use super::lessons::Lessons;
use super::model::{Limit, Model};
use super::pack::Packer;
use super::problem::Problem;
use super::reason::{Reason, Reasons};
use super::repair::repair;
use super::solution::{Placement, Solution, Unplaced};
use super::volumes::Storage;
use super::{bound, bundle, check, choice, domains, even, existing, improve, why};
use crate::model::money::MicroDollarsPerHour;

/// Places the demand of `problem`. The result depends on nothing but the problem, and not on the
/// order of its demands.
pub fn solve(problem: &Problem) -> Solution {
    let storage = Storage::new(problem);
    let pods = problem.demands.iter().map(|demand| &demand.shape);
    solve_with(problem, &storage, &Offers::new(problem, pods, &storage.limits))
}

/// As [`solve`], with offers that were compiled before, for the limits of `storage`.
pub(super) fn solve_with(problem: &Problem, storage: &Storage, offers: &Offers) -> Solution {
    let mut lessons = Lessons::new(problem, storage);
    let mut even = true;
    loop {
        let pieces = lessons.pieces();
        if let Some(solution) = attempt(problem, offers, &pieces, &mut lessons, &mut even) {
            return solution;
        }
    }
}

/// One attempt; `None` when it taught something. `even` says whether pods that spread over host names
/// may be cut into equal parts.
fn attempt(
    problem: &Problem,
    offers: &Offers,
    pieces: &[Piece],
    lessons: &mut Lessons<'_>,
    even: &mut bool,
) -> Option<Solution> {
    let mut compiled = Compiled::new(problem, offers, pieces);
    domains::assign(&mut compiled, lessons.caps());
    if lessons.foresee(&compiled) {
        return None;
    }
    bundle::own_kind(&mut compiled);
    let placements = existing::fill(&mut compiled);
    let uncut = even.then(|| even::cut(&mut compiled, &placements)).flatten();
    bundle::guests(&mut compiled);
    let compiled = compiled;
    let model = Model::new(&compiled);
    let mut packer = Packer::new(&model);
    let mut scratch = Scratch::default();
    let safe = lessons.varied().then(|| choice::safe(problem, offers));
    pack_in_order(&mut packer, safe.as_ref(), &mut scratch);
    let left = left_by_shape(&compiled, &packer);
    if uncut.is_some() && left.iter().any(|left| *left > 0) {
        *even = false;
        return None;
    }
    if lessons.learn(&compiled, &left) {
        return None;
    }
    if safe.is_none() {
        improve::improve(&mut packer, &problem.options, &mut scratch);
    }
    let mut solution = Solution { placements, ..Solution::default() };
    let mut buyer = Buyer::new(&model, &packer.limits, &packer.open);
    for open in &packer.open {
        buyer.buy(open, &mut solution);
    }
    if lessons.vary(&refused(&buyer)) {
        return None;
    }
    // A bound on what fewer columns allow would say too much.
    if problem.options.bound && !lessons.varied() {
        solution.lower_bound = Some(lower_bound(&packer, uncut.as_ref(), !buyer.short.is_empty()));
    }
    solution
        .new_nodes
        .sort_by(|a, b| (a.pool, &a.pods, a.choice).cmp(&(b.pool, &b.pods, b.choice)));
    solution.cost = solution.new_nodes.iter().map(|node| node.price).sum();
    let limits = limits_left(&model, &packer.limits);
    for (index, shape) in compiled.shapes.iter().enumerate() {
        let mut left = buyer.left[index].iter().filter(|(_, count)| *count > 0).peekable();
        if left.peek().is_none() {
            continue;
        }
        let reasons = match buyer.short.get(&index) {
            Some(reason) => {
                Reasons { pools: vec![(String::new(), reason.clone())], nodes: Vec::new() }
            }
            None => why::reasons(&compiled, shape, &limits),
        };
        for (demand, count) in left {
            let (demand, count, reasons) = (*demand, *count, reasons.clone());
            solution.unplaced.push(Unplaced { demand, count, reasons });
        }
    }
    merge(&mut solution);
    // Rules that depend on each other in a circle can defeat the planner: it never returns what
    // could not bind.
    let stuck = check::unbindable(problem, &solution);
    if uncut.is_some() && !stuck.is_empty() {
        *even = false;
        return None;
    }
    if lessons.refuse(&stuck) {
        return None;
    }
    lessons.report(&mut solution);
    repair(problem, offers, &mut solution);
    Some(solution)
}

/// A price that the plan cannot undercut: that of what was packed, or of what it was before parts were
/// `cut` from it. Nothing is known where nodes were refused.
fn lower_bound(
    packer: &Packer<'_, '_, '_>,
    uncut: Option<&Compiled<'_>>,
    refused: bool,
) -> MicroDollarsPerHour {
    if refused {
        return MicroDollarsPerHour::ZERO;
    }
    match uncut.map(Model::new) {
        Some(model) => bound::lower_bound(&model, &vec![0; model.groups.len()], &Pool::default()),
        None => bound::lower_bound(packer.model, &packer.group_left, &packer.patterns(0)),
    }
}

/// Pods by demand whose nodes were refused.
fn refused(buyer: &Buyer<'_, '_, '_>) -> BTreeMap<usize, u32> {
    let mut missing = BTreeMap::new();
    for (demand, count) in buyer.short.keys().flat_map(|shape| &buyer.left[*shape]) {
        if *count > 0 {
            *missing.entry(*demand).or_insert(0) += count;
        }
    }
    missing
}

/// Pods of each shape that nothing took.
fn left_by_shape(compiled: &Compiled<'_>, packer: &Packer<'_, '_, '_>) -> Vec<u32> {
    let mut left: Vec<u32> = compiled.shapes.iter().map(super::compile::Shape::left).collect();
    for (item, open) in packer.model.items.iter().zip(&packer.left) {
        // The last shapes of an item go without.
        let mut open = *open;
        for shape in item.shapes.iter().rev() {
            let mine = left[*shape].min(open);
            left[*shape] = mine;
            open -= mine;
        }
    }
    left
}

/// Packs into columns: into what is reserved first, since it is paid for, then into what is bought,
/// where `minValues` were not met into what leaves a choice before the rest.
fn pack_each(packer: &mut Packer<'_, '_, '_>, columns: &[Vec<usize>; 3], scratch: &mut Scratch) {
    for columns in columns.iter().filter(|columns| !columns.is_empty()) {
        packer.pack(columns, scratch);
    }
}

/// Heavier pools before lighter ones; where limits make room scarce, higher priorities first.
fn pack_in_order(
    packer: &mut Packer<'_, '_, '_>,
    safe: Option<&FixedBitSet>,
    scratch: &mut Scratch,
) {
    let model = packer.model;
    let pools = &model.compiled.problem.pools;
    let weights: BTreeSet<i32> = pools.iter().map(|slot| slot.pool.weight).collect();
    let priorities: BTreeSet<i32> = model.groups.iter().map(|group| group.priority).collect();
    for weight in weights.into_iter().rev() {
        let (reserved, bought): (Vec<usize>, Vec<usize>) = (0..model.compiled.offers.columns.len())
            .filter(|index| pools[model.compiled.offers.columns[*index].pool].pool.weight == weight)
            .partition(|index| model.compiled.reserves(*index));
        let (varied, rest) =
            bought.into_iter().partition(|index| safe.is_none_or(|safe| safe.contains(*index)));
        let columns = [reserved, varied, rest];
        if columns.iter().all(Vec::is_empty) || packer.group_left.iter().all(|left| *left == 0) {
            continue;
        }
        let before = packer.clone();
        pack_each(packer, &columns, scratch);
        // Together is cheaper; one by one is fair, and needed only where a limit was felt.
        let limited = packer.group_left.iter().any(|left| *left > 0)
            && pools.iter().any(|slot| slot.pool.weight == weight && !slot.remaining.is_empty());
        if !limited || priorities.len() < 2 {
            continue;
        }
        *packer = before;
        let mut waiting = packer.left.clone();
        for priority in priorities.iter().rev() {
            for (at, item) in model.items.iter().enumerate() {
                let now = model.groups[item.group].priority == *priority;
                packer.left[at] = if now { waiting[at] } else { 0 };
            }
            packer.sum_up();
            pack_each(packer, &columns, scratch);
            for (at, item) in model.items.iter().enumerate() {
                if model.groups[item.group].priority == *priority {
                    waiting[at] = packer.left[at];
                }
            }
        }
        packer.left = waiting;
        packer.sum_up();
    }
}

/// What limits leave, by pool and name.
fn limits_left(model: &Model<'_, '_>, left: &[i64]) -> Vec<BTreeMap<Arc<str>, i64>> {
    let mut by_pool = vec![BTreeMap::new(); model.compiled.problem.pools.len()];
    for (limit, left) in model.limits.iter().zip(left) {
        if let Limit::Pool(pool, name) = limit {
            by_pool[*pool].insert(Arc::clone(name), *left);
        }
    }
    by_pool
}

/// One entry per demand, or per demand and node.
fn merge(solution: &mut Solution) {
    solution.unplaced.sort_by_key(|unplaced| unplaced.demand);
    solution.unplaced.dedup_by(|b, a| {
        a.demand == b.demand && {
            a.count += b.count;
            true
        }
    });
    solution.placements.sort_unstable();
    let same = |a: &Placement, b: &Placement| (a.node, a.demand) == (b.node, b.demand);
    solution.placements.dedup_by(|b, a| {
        same(a, b) && {
            a.count += b.count;
            true
        }
    });
}

/// What a gang that was left behind says of its pods; `known` are its pods where they are too few.
pub(super) fn gang_reasons(problem: &Problem, gang: usize, known: Option<&u64>) -> Reasons {
    let member = problem.demands.iter().find(|demand| demand.gang == Some(gang));
    let reason = match (known, problem.gangs.get(gang)) {
        (_, Some(slot)) if slot.absent => {
            let name = member.and_then(|demand| demand.shape.gang.as_ref());
            Reason::GroupMissing {
                name: name.map_or_else(String::new, |gang| gang.name.to_string()),
            }
        }
        (Some(known), Some(gang)) => Reason::GangPartial { known: *known, size: gang.size },
        _ => Reason::Gang,
    };
    Reasons { pools: vec![(String::new(), reason)], nodes: Vec::new() }
}
