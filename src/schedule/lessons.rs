//! What an attempt teaches the next one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::compile::{Compiled, Piece};
use super::domains::Caps;
use super::problem::Problem;
use super::reason::{Reason, Reasons};
use super::relax::{self, Want};
use super::solution::{Preference, Relaxed, Solution, Unplaced};
use super::solve::gang_reasons;
use super::volumes::Storage;

/// Attempts that may be spent on giving up preferences one by one; then all of the pods that are
/// still without a place are given up at once.
const MOST_STEPS: u32 = 24;
/// Attempts that may be spent on other shares of domains; then pods whose shares do not come true go
/// without a place.
const MOST_DOMAINS: u32 = 12;
/// Gangs that are left behind one by one; then all that do not fit are.
const MOST_GANGS: u32 = 16;

/// Pods without a place by priority, the highest first.
type Shortfall = BTreeMap<Reverse<i32>, u64>;

/// Whether fewer pods of the highest priority that differs are without a place.
fn is_less(a: &Shortfall, b: &Shortfall) -> bool {
    let of = |all: &Shortfall, priority| all.get(priority).copied().unwrap_or(0);
    let differs = a.keys().chain(b.keys()).filter(|priority| of(a, priority) != of(b, priority));
    differs.min().is_some_and(|priority| of(a, priority) < of(b, priority))
}

/// What is known before an attempt.
pub(super) struct Lessons<'a> {
    problem: &'a Problem,
    storage: &'a Storage,
    /// Preferences of each demand in the order in which they are given up.
    steps: Vec<Vec<Preference>>,
    /// Pods of each demand by the number of preferences given up.
    levels: Vec<BTreeMap<usize, u32>>,
    caps: Caps,
    /// Pods of each gang that may go without a place while the others have one.
    spare: BTreeMap<usize, u64>,
    /// Gangs left behind.
    behind: BTreeSet<usize>,
    /// Those of them that did not fit beside the others, with their priority, highest last.
    dropped: BTreeSet<(i32, Reverse<usize>)>,
    /// The one of them that is tried again.
    trial: Option<(i32, usize)>,
    /// Gangs of which not all pods are known, with the count of those that are.
    partial: BTreeMap<usize, u64>,
    /// Demands whose rules could not be kept in any order of binding.
    refused: BTreeSet<usize>,
    /// Whether nodes are bought as small as so many others that `minValues` hold.
    varied: bool,
    spent: u32,
    domains: u32,
    bare: bool,
    /// Levels before all preferences were given up, with the pods that had no place then.
    wishes: Option<(Vec<BTreeMap<usize, u32>>, Shortfall)>,
    /// Whether whole steps are taken where single ones would give up less.
    hurry: bool,
}

impl<'a> Lessons<'a> {
    pub(super) fn new(problem: &'a Problem, storage: &'a Storage) -> Self {
        let soft = |taints: &[crate::model::taints::Taint]| taints.iter().any(|t| !t.repels());
        let soft_taints = problem.pools.iter().any(|slot| soft(&slot.pool.taints))
            || problem.nodes.iter().any(|node| soft(&node.taints));
        let respect = problem.options.respect_preferences;
        let steps: Vec<Vec<Preference>> =
            problem.demands.iter().map(|demand| relax::steps(&demand.shape, soft_taints)).collect();
        let levels = problem
            .demands
            .iter()
            .zip(&steps)
            .enumerate()
            .map(|(at, (demand, steps))| {
                let count = demand.count - storage.blocked(at);
                BTreeMap::from([(if respect { 0 } else { steps.len() }, count)])
            })
            .collect();
        let members = problem.gang_members();
        let unknown = |(gang, known): &(usize, u64)| {
            let slot = &problem.gangs[*gang];
            slot.absent || *known < u64::from(slot.size)
        };
        let partial: BTreeMap<usize, u64> =
            members.iter().copied().enumerate().filter(unknown).collect();
        // A gang of which a pod has no place anyway is not tried.
        let mut blocked: BTreeMap<usize, u64> = BTreeMap::new();
        for (at, demand) in problem.demands.iter().enumerate() {
            if let Some(gang) = demand.gang.filter(|_| storage.blocked(at) > 0) {
                *blocked.entry(gang).or_insert(0) += u64::from(storage.blocked(at));
            }
        }
        let elastic = problem.gangs.iter().zip(&members).enumerate();
        let mut spare: BTreeMap<usize, u64> = elastic
            .filter(|(_, (slot, _))| slot.elastic)
            .map(|(gang, (slot, known))| (gang, known.saturating_sub(u64::from(slot.size))))
            .collect();
        let mut behind: BTreeSet<usize> = partial.keys().copied().collect();
        for (gang, blocked) in blocked {
            let spare = spare.entry(gang).or_insert(0);
            if blocked > *spare {
                behind.insert(gang);
            }
            *spare = spare.saturating_sub(blocked);
        }
        Self {
            problem,
            storage,
            spare,
            steps,
            levels,
            caps: Caps::new(),
            behind,
            dropped: BTreeSet::new(),
            trial: None,
            partial,
            refused: BTreeSet::new(),
            varied: false,
            spent: 0,
            domains: 0,
            bare: false,
            wishes: None,
            hurry: false,
        }
    }

    /// What domains can take.
    pub(super) fn caps(&self) -> &Caps {
        &self.caps
    }

    /// What to place in the next attempt.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::with_capacity(self.levels.len());
        for (demand, levels) in self.levels.iter().enumerate() {
            let of = &self.problem.demands[demand];
            let behind = of.gang.is_some_and(|gang| self.behind.contains(&gang));
            if behind || self.refused.contains(&demand) {
                continue;
            }
            for (level, count) in levels.iter().filter(|(_, count)| **count > 0) {
                let want: Want = relax::want(&of.shape, &self.steps[demand], *level);
                let needs = Arc::clone(&self.storage.needs[demand]);
                pieces.push(Piece { demand, count: *count, want, needs });
            }
        }
        pieces
    }

    /// Forgets what domains could take: other pods, or other wishes, will be shared out.
    fn share_anew(&mut self) {
        self.caps.clear();
        self.domains = 0;
    }

    /// Leaves out pods that could not bind in a finished plan; `false` when there are none.
    pub(super) fn refuse(&mut self, stuck: &[usize]) -> bool {
        for demand in stuck {
            match self.problem.demands[*demand].gang {
                Some(gang) => self.behind.insert(gang),
                None => self.refused.insert(*demand),
            };
        }
        self.share_anew();
        !stuck.is_empty()
    }

    /// Gives up preferences of pods for which no place is left before anything is packed; `false`
    /// when there are none. Packing, which is most of an attempt, is then not done in vain.
    pub(super) fn foresee(&mut self, compiled: &Compiled<'_>) -> bool {
        let mut missing: BTreeMap<usize, u32> = BTreeMap::new();
        for shape in compiled.shapes.iter().filter(|shape| compiled.is_hopeless(shape)) {
            for (demand, count) in &shape.demands {
                *missing.entry(*demand).or_insert(0) += count;
            }
        }
        self.hurry |= !missing.is_empty() && self.problem.options.hurry.asked();
        self.relax(&missing)
    }

    /// Whether another attempt may do better. `left` are the pods (or bundles) of each shape that
    /// have no place.
    pub(super) fn learn(&mut self, compiled: &Compiled<'_>, left: &[u32]) -> bool {
        if left.iter().all(|left| *left == 0) {
            return self.readmit();
        }
        self.hurry |= self.problem.options.hurry.asked();
        let mut missing: BTreeMap<usize, u32> = BTreeMap::new();
        for (shape, left) in compiled.shapes.iter().zip(left) {
            let mut left = if shape.whole && *left > 0 { u32::MAX } else { *left };
            // The last demands of a shape go without.
            for (demand, count) in shape.demands.iter().rev() {
                let mine = left.min(*count);
                left -= mine;
                if mine > 0 {
                    *missing.entry(*demand).or_insert(0) += mine;
                }
            }
        }
        self.relax(&missing)
            || self.close(compiled, left)
            || self.strip(&missing)
            || self.unstrip(&missing)
            || self.leave_behind(&missing)
            || self.readmit()
    }

    fn shortfall(&self, missing: &BTreeMap<usize, u32>) -> Shortfall {
        let mut all = Shortfall::new();
        for (demand, count) in missing {
            let priority = self.problem.demands[*demand].shape.priority;
            *all.entry(Reverse(priority)).or_insert(0) += u64::from(*count);
        }
        all
    }

    /// Gives up one preference of each pod without a place.
    fn relax(&mut self, missing: &BTreeMap<usize, u32>) -> bool {
        let mut changed = false;
        for (&demand, &count) in missing {
            let steps = self.steps[demand].len();
            let mut count = count;
            for level in 0..steps {
                let here = self.levels[demand].get(&level).copied().unwrap_or(0);
                let moved = here.min(count);
                if moved == 0 {
                    continue;
                }
                count -= moved;
                let single = self.spent < MOST_STEPS && !self.hurry;
                let to = if single { level + 1 } else { steps };
                self.levels[demand].insert(level, here - moved);
                *self.levels[demand].entry(to).or_insert(0) += moved;
                changed = true;
                if to == level + 1 {
                    // What moved one step must not move again in this round.
                    break;
                }
            }
        }
        if changed {
            self.spent += 1;
            self.share_anew();
        }
        changed
    }

    /// Remembers how many pods domains could take. Shares that did not come true may have tipped
    /// other rules, so a plan with such shares is never kept.
    fn close(&mut self, compiled: &Compiled<'_>, left: &[u32]) -> bool {
        let mut changed = false;
        // A share may be cut again by another key, so its parts are summed up.
        let mut shares: BTreeMap<(usize, usize, usize), (u32, u32)> = BTreeMap::new();
        for (shape, left) in compiled.shapes.iter().zip(left).filter(|(shape, _)| !shape.whole) {
            for (key, domain) in &shape.pinned {
                let share = shares.entry((shape.origin, *key, *domain)).or_default();
                share.0 += shape.size;
                share.1 += *left;
            }
        }
        for ((origin, key, domain), (size, left)) in shares {
            if left == 0 {
                continue;
            }
            if self.domains < MOST_DOMAINS && !self.hurry {
                self.caps.insert((origin, key, domain), size.saturating_sub(left));
            } else {
                let all = 0..=compiled.topology.keys[key].domains.len();
                self.caps.extend(all.map(|domain| ((origin, key, domain), 0)));
            }
            changed = true;
        }
        self.domains += u32::from(changed);
        changed
    }

    /// Gives up all preferences of all pods: somebody's wish may be what is in another's way.
    fn strip(&mut self, missing: &BTreeMap<usize, u32>) -> bool {
        if self.bare {
            return false;
        }
        self.bare = true;
        let mut changed = false;
        let before = self.levels.clone();
        for (at, (levels, steps)) in self.levels.iter_mut().zip(&self.steps).enumerate() {
            let count = self.problem.demands[at].count - self.storage.blocked(at);
            if count == 0 {
                continue;
            }
            let all = BTreeMap::from([(steps.len(), count)]);
            levels.retain(|_, count| *count > 0);
            if *levels != all {
                *levels = all;
                changed = true;
            }
        }
        if changed {
            self.share_anew();
            self.wishes = Some((before, self.shortfall(missing)));
        }
        changed
    }

    /// Takes preferences up again that were given up in vain: nobody more has a place for it.
    fn unstrip(&mut self, missing: &BTreeMap<usize, u32>) -> bool {
        let Some((levels, before)) = self.wishes.take() else { return false };
        if is_less(&self.shortfall(missing), &before) {
            return false;
        }
        self.levels = levels;
        self.share_anew();
        true
    }

    /// Whether another attempt may do better where pods had nodes that their pool's `minValues`
    /// refuse. Such a node may have held a part of a gang.
    pub(super) fn vary(&mut self, refused: &BTreeMap<usize, u32>) -> bool {
        if refused.is_empty() {
            return false;
        }
        if self.varied {
            return self.leave_behind(refused);
        }
        self.varied = true;
        self.share_anew();
        true
    }

    /// Whether nodes are bought so small that enough others would do.
    pub(super) fn varied(&self) -> bool {
        self.varied
    }

    /// Leaves the gang of least priority behind of those that do not fit as a whole.
    fn leave_behind(&mut self, missing: &BTreeMap<usize, u32>) -> bool {
        let demands = &self.problem.demands;
        let mut gone: BTreeMap<usize, u64> = BTreeMap::new();
        for (demand, count) in missing {
            if let Some(gang) = demands[*demand].gang {
                *gone.entry(gang).or_insert(0) += u64::from(*count);
            }
        }
        let mut failed: Vec<(i32, usize)> = missing
            .keys()
            .filter_map(|demand| Some((demands[*demand].shape.priority, demands[*demand].gang?)))
            .filter(|(_, gang)| {
                let spare = self.spare.get(gang).copied().unwrap_or(0);
                !self.behind.contains(gang) && gone[gang] > spare
            })
            .collect();
        failed.sort_unstable();
        // A gang that is tried again may not push out others of its priority, or fail again.
        if let Some((priority, gang)) = self.trial
            && failed.last().is_some_and(|(most, other)| *most >= priority || *other == gang)
        {
            self.trial = None;
            self.behind.insert(gang);
            self.share_anew();
            return true;
        }
        let single = self.behind.len() < MOST_GANGS as usize && !self.hurry;
        let count = if single { 1 } else { failed.len() };
        failed.truncate(count);
        self.behind.extend(failed.iter().map(|(_, gang)| *gang));
        self.dropped.extend(failed.iter().map(|(priority, gang)| (*priority, Reverse(*gang))));
        !failed.is_empty()
    }

    /// Tries a gang once more that was left behind: what was in its way may have been left behind
    /// after it.
    fn readmit(&mut self) -> bool {
        self.trial = None;
        if self.hurry || self.behind.len() < 2 {
            return false;
        }
        let Some((priority, Reverse(gang))) = self.dropped.pop_last() else { return false };
        self.behind.remove(&gang);
        self.trial = Some((priority, gang));
        self.share_anew();
        true
    }

    /// Says what was given up and who was left behind.
    pub(super) fn report(&self, solution: &mut Solution) {
        for (demand, of) in self.problem.demands.iter().enumerate() {
            if let Some((count, reason)) = &self.storage.blocked[demand] {
                let pools = vec![(String::new(), reason.clone())];
                let reasons = Reasons { pools, nodes: Vec::new() };
                solution.unplaced.push(Unplaced { demand, count: *count, reasons });
            }
            let count = of.count - self.storage.blocked(demand);
            if let Some(gang) = of.gang.filter(|gang| self.behind.contains(gang))
                && count > 0
            {
                let reasons = gang_reasons(self.problem, gang, self.partial.get(&gang));
                solution.unplaced.push(Unplaced { demand, count, reasons });
            }
            if self.refused.contains(&demand) && count > 0 {
                let feature =
                    "a set of rules about other pods that depend on each other".to_owned();
                let reasons = Reasons {
                    pools: vec![(String::new(), Reason::Unsupported { feature })],
                    nodes: Vec::new(),
                };
                solution.unplaced.push(Unplaced { demand, count, reasons });
            }
            if !self.problem.options.respect_preferences {
                continue;
            }
            let steps = &self.steps[demand];
            for (at, preference) in steps.iter().enumerate() {
                let given_up = self.levels[demand].range(at + 1..).map(|(_, count)| count).sum();
                if given_up > 0 {
                    solution.relaxed.push(Relaxed {
                        demand,
                        count: given_up,
                        preference: *preference,
                    });
                }
            }
        }
        solution.unplaced.sort_by_key(|unplaced| unplaced.demand);
    }
}
