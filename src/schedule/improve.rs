//! Making a packing cheaper: ruin and recreate.
//!
//! One attempt takes a few nodes away, packs their pods anew, and keeps the result if it is
//! cheaper. The count of attempts is the budget, so the result does not depend on the clock.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::pack::{Open, Packer};
use super::problem::Options;

/// Nodes taken away in one attempt.
const MOST_RUINED: usize = 6;

/// Spends `options.improve` attempts.
pub(super) fn improve(packer: &mut Packer<'_, '_>, options: &Options) {
    let mut rng = Pcg64Mcg::seed_from_u64(options.seed);
    let mut fruitless = 0;
    for _ in 0..options.improve {
        // After many attempts without success further ones are hardly worth their time.
        if packer.open.is_empty() || fruitless > 64 {
            return;
        }
        let before = packer.cost();
        let mut trial = packer.clone();
        ruin(&mut trial, &mut rng);
        recreate(&mut trial);
        if trial.left == packer.left && trial.cost() < before {
            *packer = trial;
            fruitless = 0;
        } else {
            fruitless += 1;
        }
    }
}

/// Takes away some nodes: often the worst used, sometimes any.
fn ruin(packer: &mut Packer<'_, '_>, rng: &mut Pcg64Mcg) {
    let mut order: Vec<usize> = (0..packer.open.len()).collect();
    order.shuffle(rng);
    if rng.random_bool(0.5) {
        order.sort_by_key(|index| used_permille(packer, &packer.open[*index]));
    }
    let count = rng.random_range(1..=MOST_RUINED);
    order.truncate(count);
    for &index in &order {
        let column = packer.open[index].column;
        packer.open[index].copies -= 1;
        for (shape, n) in packer.open[index].pods.clone() {
            packer.left[shape] += n;
        }
        packer.use_limits(column, -1);
    }
    packer.open.retain(|open| open.copies > 0);
}

/// Packs what is left, within the pool weights that the pods were on.
fn recreate(packer: &mut Packer<'_, '_>) {
    let compiled = packer.compiled;
    let shapes: Vec<usize> = (0..compiled.shapes.len())
        .filter(|s| packer.left[*s] > 0 && compiled.shapes[*s].unsupported.is_none())
        .collect();
    top_up(packer, &shapes);
    let weights: std::collections::BTreeSet<i32> =
        compiled.problem.pools.iter().map(|slot| slot.pool.weight).collect();
    for weight in weights.into_iter().rev() {
        let columns: Vec<usize> = (0..compiled.columns.len())
            .filter(|c| compiled.problem.pools[compiled.columns[*c].pool].pool.weight == weight)
            .collect();
        packer.pack(&columns, &shapes);
    }
}

/// Puts loose pods into room that open nodes still have.
fn top_up(packer: &mut Packer<'_, '_>, shapes: &[usize]) {
    for index in 0..packer.open.len() {
        if shapes.iter().all(|s| packer.left[*s] == 0) {
            break;
        }
        let open = packer.open[index].clone();
        let mut pods = open.pods.clone();
        let mut room = packer.compiled.rooms[packer.compiled.columns[open.column].room].clone();
        for (s, n) in &pods {
            for (room, asked) in room.iter_mut().zip(&packer.compiled.shapes[*s].request) {
                *room -= asked * i64::from(*n);
            }
        }
        let mut grew = false;
        for &s in shapes {
            let shape = &packer.compiled.shapes[s];
            let clash = pods.iter().any(|(other, _)| shape.conflicts.contains(*other));
            if shape.custom || clash || !shape.columns.contains(open.column) {
                continue;
            }
            let have = pods.iter().find(|(other, _)| *other == s).map_or(0, |(_, n)| *n);
            let mut fit = packer.left[s].min(shape.per_node.saturating_sub(have));
            for (asked, room) in shape.request.iter().zip(&room) {
                if *asked > 0 {
                    fit = fit.min(u32::try_from((room / asked).max(0)).unwrap_or(u32::MAX));
                }
            }
            if fit == 0 {
                continue;
            }
            for (room, asked) in room.iter_mut().zip(&shape.request) {
                *room -= asked * i64::from(fit);
            }
            packer.left[s] -= fit;
            grew = true;
            match pods.iter_mut().find(|(other, _)| *other == s) {
                Some((_, n)) => *n += fit,
                None => pods.push((s, fit)),
            }
        }
        if grew {
            pods.sort_unstable();
            packer.open[index].copies -= 1;
            packer.open.push(Open { column: open.column, pods, copies: 1 });
        }
    }
    packer.open.retain(|open| open.copies > 0);
}

/// How much of its scarcest resource a node uses, in thousandths.
fn used_permille(packer: &Packer<'_, '_>, open: &Open) -> i64 {
    let compiled = packer.compiled;
    let room = &compiled.rooms[compiled.columns[open.column].room];
    let mut used = vec![0_i64; room.len()];
    for (s, n) in &open.pods {
        for (used, asked) in used.iter_mut().zip(&compiled.shapes[*s].request) {
            *used += asked * i64::from(*n);
        }
    }
    let shares = used.iter().zip(room).filter(|(_, room)| **room > 0);
    shares.map(|(used, room)| used.saturating_mul(1000) / room).max().unwrap_or(0)
}
