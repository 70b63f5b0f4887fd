//! Making a packing cheaper: a relaxation that is solved further, then ruin and recreate.
//!
//! One attempt takes a few nodes away, or many, packs their pods anew, and keeps the result if it is
//! cheaper. The count of attempts is the budget, so the result does not depend on the clock.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::fill::Scratch;
use super::generate::{Effort, Pool, REMAINS};
use super::host::State;
use super::pack::{Open, Packer};
use super::problem::Options;

/// Nodes taken away in one attempt.
const MOST_RUINED: usize = 6;
/// An attempt may cost this part of the best price more and still be built upon, at first.
const SLACK: i64 = 50;
/// Rounds of looking for patterns at most.
const MOST_ROUNDS: u32 = 400;
/// Patterns that are kept in mind.
const MOST_PATTERNS: usize = 20_000;
/// Share of attempts that pack many nodes anew…
const MANY: f64 = 0.2;
/// …and the part of the nodes.
const MANY_NODES: std::ops::Range<f64> = 0.1..0.6;
/// How many other attempts take the time of such a one.
const COST_OF_MANY: u32 = 10;
/// Fruitless attempts after which further ones are hardly worth their time.
const MOST_FRUITLESS: u32 = 200;

/// Spends `options.improve` attempts.
pub(super) fn improve(packer: &mut Packer<'_, '_, '_>, options: &Options, scratch: &mut Scratch) {
    if options.improve == 0 || packer.open.is_empty() {
        return;
    }
    // What pool a pod is on was decided by weight, and what is reserved was used first: only nodes
    // of one weight, reserved or not, change at a time.
    let compiled = packer.model.compiled;
    let weight = |column: usize| {
        let pool = compiled.offers.columns[column].pool;
        (compiled.problem.pools[pool].pool.weight, compiled.reserves(column))
    };
    let mut weights: Vec<(i32, bool)> =
        packer.open.iter().map(|open| weight(open.column)).collect();
    weights.sort_unstable();
    weights.dedup();
    let by_weight: Vec<((i32, bool), Vec<usize>)> = weights
        .into_iter()
        .rev()
        .map(|w| {
            let columns: Vec<usize> =
                (0..compiled.offers.columns.len()).filter(|column| weight(*column) == w).collect();
            (w, packer.model.working(&columns))
        })
        .collect();
    let valued: Vec<[Vec<f64>; 3]> =
        by_weight.iter().map(|(_, columns)| values(packer, columns)).collect();
    let rounds = options.improve.min(MOST_ROUNDS) as usize;
    let mut effort = Effort { rounds, views: true, hurry: options.hurry.clone() };
    let mut pools: Vec<Option<Pool>> = Vec::new();
    for (weight_now, columns) in &by_weight {
        let of = |column: usize| weight(column) == *weight_now;
        pools.push(deepen(packer, columns, &effort, of, scratch));
    }
    effort.rounds = REMAINS;
    let mut rng = Pcg64Mcg::seed_from_u64(options.seed);
    let mut best = packer.clone();
    let mut fruitless = 0;
    for attempt in 0..options.improve {
        if fruitless > MOST_FRUITLESS || options.hurry.settled() {
            break;
        }
        let at = rng.random_range(0..by_weight.len());
        let (weight_now, columns) = &by_weight[at];
        let of = |column: usize| weight(column) == *weight_now;
        let mut trial = packer.clone();
        match &mut pools[at] {
            Some(pool) if rng.random_bool(MANY) => {
                if pool.len() > MOST_PATTERNS {
                    *pool = best.patterns(0);
                }
                ruin_many(&mut trial, &mut rng, of);
                trial.dive(columns, pool, &effort, scratch);
                fruitless += COST_OF_MANY;
            }
            _ => {
                ruin(&mut trial, &mut rng, of);
                recreate(&mut trial, columns, &valued[at], &mut rng, scratch);
                fruitless += 1;
            }
        }
        if trial.group_left != best.group_left {
            continue;
        }
        // What is a little dearer than the best is taken as well, less and less: the next attempt
        // starts from somewhere else.
        let patience = i64::from(options.improve - attempt);
        let slack = best.cost() / SLACK * patience / i64::from(options.improve);
        let cost = trial.cost();
        if cost < best.cost() {
            best = trial.clone();
            fruitless = 0;
            if let Some(pool) = &mut pools[at] {
                pool.extend(best.patterns(0));
            }
        }
        if cost <= best.cost() + slack {
            *packer = trial;
        }
    }
    *packer = best;
}

/// Packs the pods of a few nodes that were taken away, by one view of what pods are worth.
fn recreate(
    trial: &mut Packer<'_, '_, '_>,
    columns: &[usize],
    views: &[Vec<f64>; 3],
    rng: &mut Pcg64Mcg,
    scratch: &mut Scratch,
) {
    top_up(trial);
    trial.values.clone_from(&views[rng.random_range(0..3)]);
    if rng.random_bool(0.5) {
        for value in &mut trial.values {
            *value *= rng.random_range(0.75..1.3);
        }
    }
    if rng.random_bool(0.5) && trial.few() {
        trial.cover_relaxed(columns, &mut Pool::new(), &Effort::quick(), scratch);
    } else {
        trial.cover(columns, scratch);
    }
}

/// Packs all nodes of some columns anew by a relaxation that is solved further.
fn deepen(
    packer: &mut Packer<'_, '_, '_>,
    columns: &[usize],
    effort: &Effort,
    of: impl Fn(usize) -> bool,
    scratch: &mut Scratch,
) -> Option<Pool> {
    let mut deep = packer.clone();
    let mine: Vec<usize> = (0..deep.open.len()).filter(|at| of(deep.open[*at].column)).collect();
    let mut pool = deep.patterns(0);
    for index in mine {
        take_away(&mut deep, index, u32::MAX);
    }
    deep.open.retain(|open| open.copies > 0);
    if !deep.relaxes() {
        return None;
    }
    deep.dive(columns, &mut pool, effort, scratch);
    // Where limits leave some pods without a place, who they are was decided by priority.
    if deep.group_left == packer.group_left && deep.cost() < packer.cost() {
        *packer = deep;
    }
    Some(pool)
}

/// Takes away some part of the nodes.
fn ruin_many(packer: &mut Packer<'_, '_, '_>, rng: &mut Pcg64Mcg, of: impl Fn(usize) -> bool) {
    let part = rng.random_range(MANY_NODES);
    for index in 0..packer.open.len() {
        if of(packer.open[index].column) && rng.random_bool(part) {
            take_away(packer, index, u32::MAX);
        }
    }
    packer.open.retain(|open| open.copies > 0);
}

/// Takes up to `copies` copies of an open node away.
fn take_away(packer: &mut Packer<'_, '_, '_>, index: usize, copies: u32) {
    let Open { column, pods, copies: all } = packer.open[index].clone();
    let copies = copies.min(all);
    packer.open[index].copies -= copies;
    for (item, n) in pods {
        packer.left[item] += n * copies;
        packer.group_left[packer.model.items[item].group] += n * copies;
    }
    packer.use_limits(column, -i64::from(copies));
}

/// Several views of what pods are worth: of the packing, by resources, and by what each costs alone.
/// Each leads to other nodes.
fn values(packer: &Packer<'_, '_, '_>, columns: &[usize]) -> [Vec<f64>; 3] {
    let model = packer.model;
    let mut whole = packer.clone();
    whole.left.clone_from(&model.counts);
    whole.sum_up();
    let prices = whole.prices(columns);
    let groups = 0..model.groups.len();
    let resources: Vec<f64> = groups.clone().map(|group| packer.worth(group, &prices)).collect();
    let alone = groups.map(|group| {
        model.alone(group, whole.group_left[group], columns).map_or(0.0, |(each, _, _)| each)
    });
    // What was placed before values were found has none.
    let own = packer.values.iter().zip(&resources);
    let own = own.map(|(own, other)| if *own > 0.0 { *own } else { *other }).collect();
    [own, alone.collect(), resources]
}

/// Takes away some nodes: often the worst used, sometimes any, sometimes those that could host each
/// other's pods.
fn ruin(packer: &mut Packer<'_, '_, '_>, rng: &mut Pcg64Mcg, of: impl Fn(usize) -> bool) {
    let mut order: Vec<usize> =
        (0..packer.open.len()).filter(|at| of(packer.open[*at].column)).collect();
    order.shuffle(rng);
    match rng.random_range(0..4) {
        0 => order.sort_by_cached_key(|index| used_permille(packer, &packer.open[*index])),
        1 | 2 => {
            let like = |at: &usize| packer.model.signature[packer.open[*at].column];
            let first = order.first().map(like);
            order.sort_by_key(|at| Some(like(at)) != first);
        }
        _ => {}
    }
    order.truncate(rng.random_range(1..=MOST_RUINED));
    for index in order {
        take_away(packer, index, 1);
    }
    packer.open.retain(|open| open.copies > 0);
}

/// Puts loose pods into room that open nodes still have.
fn top_up(packer: &mut Packer<'_, '_, '_>) {
    let model = packer.model;
    let loose: Vec<usize> = (0..model.items.len())
        .filter(|item| packer.left[*item] > 0 && !model.groups[model.items[*item].group].custom)
        .collect();
    for index in 0..packer.open.len() {
        let open = &packer.open[index];
        let mut room = model.rooms[model.compiled.offers.columns[open.column].room].clone();
        let mut state = State::default();
        for (item, n) in &open.pods {
            let of = &model.items[*item];
            for (room, asked) in room.iter_mut().zip(&model.groups[of.group].request) {
                *room -= asked * f64::from(*n);
            }
            state.add(&of.host, *n);
        }
        let mut pods: Option<Vec<(usize, u32)>> = None;
        for &item in &loose {
            let of = &model.items[item];
            let group = &model.groups[of.group];
            if packer.left[item] == 0 || !model.compiled.sets.get(group.set).contains(open.column) {
                continue;
            }
            let mut fit = f64::from(packer.left[item]);
            for (asked, room) in group.request.iter().zip(&room) {
                if *asked > 0.0 {
                    fit = fit.min((room / asked).floor());
                }
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let fit = state.fit(&of.host, fit.max(0.0) as u32);
            if fit == 0 {
                continue;
            }
            for (room, asked) in room.iter_mut().zip(&group.request) {
                *room -= asked * f64::from(fit);
            }
            state.add(&of.host, fit);
            packer.left[item] -= fit;
            packer.group_left[of.group] -= fit;
            let pods = pods.get_or_insert_with(|| open.pods.clone());
            match pods.iter_mut().find(|(other, _)| *other == item) {
                Some((_, n)) => *n += fit,
                None => pods.push((item, fit)),
            }
        }
        if let Some(mut pods) = pods {
            pods.sort_unstable();
            let column = open.column;
            packer.open[index].copies -= 1;
            packer.open.push(Open { column, pods, copies: 1 });
        }
    }
    packer.open.retain(|open| open.copies > 0);
}

/// How much of its scarcest resource a node uses, in thousandths.
fn used_permille(packer: &Packer<'_, '_, '_>, open: &Open) -> i64 {
    let model = packer.model;
    let room = &model.rooms[model.compiled.offers.columns[open.column].room];
    let mut most = 0.0_f64;
    for (dim, room) in room.iter().enumerate().filter(|(_, room)| **room > 0.0) {
        let asked = |(item, n): &(usize, u32)| {
            model.groups[model.items[*item].group].request[dim] * f64::from(*n)
        };
        most = most.max(open.pods.iter().map(asked).sum::<f64>() / room);
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most a thousand or so")]
    let permille = (most * 1000.0) as i64;
    permille
}
