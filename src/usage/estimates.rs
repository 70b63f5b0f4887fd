//! What admission asks: an immutable index of estimates.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::class;
use super::encode::{self, BadCheckpoint};
use super::grid::step_up;
use super::key::{Keys, Subject};
use super::ladder::{Estimate, Level, Rung, climb};
use super::profile::{Buckets, Known, Profile, QUANTILES, quantile};
use super::scale::Measure;
use crate::model::labels::Labels;
use crate::model::workload::root_owner;

/// Days of own evidence that weigh as much as everything below: after three days 92 %.
const OWN_DAYS: f64 = 0.25;

/// The same for evidence of older revisions.
const OLDER_DAYS: f64 = 0.5;

/// What is left of the weight of older revisions with another major version or another image.
const OTHER_IMAGE: f64 = 0.75;

/// Days of evidence from which a container speaks for others, and from which cpu that was seen is
/// never asked below: a start takes minutes of far more cpu than what follows.
const SOME_DAYS: f32 = 0.25;

/// Containers that weigh as much as everything below them: of the same image, of the same name, of
/// the namespace.
const GROUP_SIZES: [f64; 3] = [0.25, 2.0, 4.0];

/// Spread of the logarithms of a group's members at which it is worth half: a factor of two.
const SPREAD: f64 = std::f64::consts::LN_2;

/// Spread that a group is given beside its own, with the weight of one member: one image can do very
/// different jobs, and a single member does not show it.
const UNSEEN_SPREAD: f64 = 0.5;

/// How far a VerticalPodAutoscaler is believed. Operators trust it; it may still be young.
const RECOMMENDED: f64 = 0.95;

/// Margin on use that was seen, without evidence, of cpu and memory: what lacks cpu waits, what lacks
/// memory ends. The Vertical Pod Autoscaler always adds 15 %; here it shrinks with the root of the
/// days that are remembered, as the error of an estimate does.
const MARGINS: [f64; 2] = [0.1, 0.2];

/// Margin that stays: samples once a minute do not see what happens between them.
const LEAST_MARGIN: f64 = 0.03;

/// What a VerticalPodAutoscaler recommends for a container.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Recommendation {
    /// Millicores.
    pub cpu: Option<i64>,
    /// Bytes.
    pub memory: Option<i64>,
}

/// All estimates. Cloning costs a reference count per namespace.
#[derive(Clone, Debug, Default)]
pub struct Estimates {
    namespaces: BTreeMap<Arc<str>, Arc<Namespace>>,
    recommended: BTreeMap<Arc<str>, Arc<BTreeMap<u64, Recommendation>>>,
}

/// What is known in one namespace.
#[derive(Debug, Default)]
pub struct Namespace {
    /// By hash, in order.
    containers: Vec<(u64, Profile)>,
    images: Vec<(u64, Group)>,
    names: Vec<(u64, Group)>,
    all: Option<Group>,
}

/// What several containers used: the median of containers, not of samples, so that one with many
/// replicas speaks once; of a whole namespace the upper quartile.
#[derive(Clone, Debug)]
struct Group {
    count: u32,
    /// Of cpu and memory.
    buckets: [Buckets; 2],
    /// Standard deviation of the logarithms of the members' amounts.
    spread: [f32; 2],
}

impl Estimates {
    /// Puts in what is known of a namespace; `None` takes it out.
    pub fn set(&mut self, name: &str, namespace: Option<Arc<Namespace>>) {
        match namespace {
            Some(namespace) => self.namespaces.insert(name.into(), namespace),
            None => self.namespaces.remove(name),
        };
    }

    /// Puts in what VerticalPodAutoscalers of a namespace recommend: for a workload (kind and name)
    /// and a container each.
    pub fn recommend<'a>(
        &mut self,
        namespace: &str,
        all: impl IntoIterator<Item = ((&'a str, &'a str), &'a str, Recommendation)>,
    ) {
        let none = Labels::new();
        let key = |(kind, name): (&'a str, &'a str), container| {
            let owner = root_owner(kind, name, &none);
            Subject { owner, container, ..Subject::default() }.container_key()
        };
        let all: BTreeMap<u64, Recommendation> = all
            .into_iter()
            .map(|(owner, container, recommendation)| (key(owner, container), recommendation))
            .collect();
        if all.is_empty() {
            self.recommended.remove(namespace);
        } else {
            self.recommended.insert(namespace.into(), Arc::new(all));
        }
    }

    /// Takes out all recommendations.
    pub fn forget_recommendations(&mut self) {
        self.recommended.clear();
    }

    /// Containers that are known.
    pub fn len(&self) -> usize {
        self.namespaces.values().map(|namespace| namespace.containers.len()).sum()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && self.recommended.is_empty()
    }

    /// What the container should ask for, where one under-request costs as much as `under_cost`
    /// over-requests of the same size. `None` where too little is known to move the amount from
    /// `fallback`. Amounts are millicores or bytes, `now` is in seconds since the epoch.
    pub fn estimate(
        &self,
        namespace: &str,
        subject: &Subject<'_>,
        measure: Measure,
        under_cost: u32,
        fallback: i64,
        now: i64,
    ) -> Option<Estimate> {
        let (mut rungs, mut floor) = (Vec::with_capacity(8), 0);
        let keys = subject.keys();
        let known = self.namespaces.get(namespace);
        let place = quantile(under_cost);
        let mine = known.and_then(|known| find(&known.containers, keys.container));
        let class = class::of(subject.image).map(|class| of_class(class, measure));
        match known {
            Some(known) => known.groups(&keys, mine, class, measure, place, &mut rungs),
            None => rungs.extend(class),
        }
        if let Some(profile) = mine {
            own(profile, &keys, measure, place, &mut rungs);
            if measure == Measure::Memory {
                floor = profile.kill.map_or(0, |kill| kill.floor(now));
            }
        }
        if let Some(recommended) =
            self.recommended.get(namespace).and_then(|all| all.get(&keys.container))
            && let Some(amount) = match measure {
                Measure::Cpu => recommended.cpu,
                Measure::Memory => recommended.memory,
            }
        {
            #[expect(clippy::cast_precision_loss, reason = "amounts are below 2^53")]
            let amount = amount as f64;
            let level = Level::Recommended;
            rungs.push(Rung { level, amount, weight: RECOMMENDED, seen: false });
        }
        let climbed = climb(&rungs, fallback);
        #[expect(clippy::cast_possible_truncation, reason = "at most a terabyte")]
        let amount = climbed.map_or(fallback, |(amount, ..)| amount.ceil() as i64);
        let (level, part) = match climbed {
            _ if floor > amount => (Level::Killed, 1.0),
            None => return None,
            Some((_, level, part)) => (level, part),
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentage")]
        let confidence = (part * 100.0).round() as u8;
        let amount = step_up(measure, amount.max(floor).max(measure.floor()));
        Some(Estimate { amount, level, confidence })
    }
}

impl Namespace {
    /// Reads the parts of a checkpoint. What cannot be read is left out, and told.
    pub fn read<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> (Self, Vec<BadCheckpoint>) {
        let (mut containers, mut bad) = (Vec::new(), Vec::new());
        for part in parts {
            match encode::read(part) {
                Err(error) => bad.push(error),
                Ok(records) => {
                    for record in records {
                        match record {
                            Ok((key, history)) => containers.push((key, Profile::of(&history))),
                            Err(error) => bad.push(error),
                        }
                    }
                }
            }
        }
        (Self::of(containers), bad)
    }

    fn of(mut containers: Vec<(u64, Profile)>) -> Self {
        containers.sort_by_key(|(key, _)| *key);
        containers.dedup_by_key(|(key, _)| *key);
        containers.shrink_to_fit();
        let speakers: Vec<&Profile> =
            containers.iter().map(|(_, p)| p).filter(|p| speaks(p)).collect();
        Self {
            images: groups(&speakers, |profile| profile.image),
            names: groups(&speakers, |profile| profile.name),
            all: Group::of(&speakers, 3, 4),
            containers,
        }
    }

    /// The rungs that others make, the least specific first. The container itself is no other, as far
    /// as it is alone in a group.
    fn groups(
        &self,
        keys: &Keys,
        mine: Option<&Profile>,
        class: Option<Rung>,
        measure: Measure,
        place: usize,
        to: &mut Vec<Rung>,
    ) {
        let mine = mine.filter(|mine| speaks(mine));
        let others = |group: &Group, with_me: bool| {
            Some(group.count - u32::from(with_me)).filter(|count| *count > 0)
        };
        let [of_image, of_name, of_all] = GROUP_SIZES;
        if let Some(all) = &self.all
            && let Some(count) = others(all, mine.is_some())
        {
            to.push(all.rung(Level::Namespace { count }, measure, place, of_all));
        }
        to.extend(class);
        if let Some(group) = find(&self.names, keys.name)
            && let Some(count) = others(group, mine.is_some_and(|mine| mine.name == keys.name))
        {
            to.push(group.rung(Level::Siblings { count }, measure, place, of_name));
        }
        if let Some(group) = find(&self.images, keys.image)
            && let Some(count) = others(group, mine.is_some_and(|mine| mine.image == keys.image))
        {
            to.push(group.rung(Level::Image { count }, measure, place, of_image));
        }
    }
}

/// Whether a container speaks for others.
fn speaks(profile: &Profile) -> bool {
    profile.best().days >= SOME_DAYS
}

fn find<T>(sorted: &[(u64, T)], key: u64) -> Option<&T> {
    let place = sorted.binary_search_by_key(&key, |(key, _)| *key).ok()?;
    sorted.get(place).map(|(_, found)| found)
}

fn of_class(class: &class::Class, measure: Measure) -> Rung {
    #[expect(clippy::cast_precision_loss, reason = "amounts are below 2^53")]
    let amount = class.amount(measure) as f64;
    Rung { level: Level::Class(class.name), amount, weight: class.weight, seen: false }
}

/// The rungs that the container's own history makes, the least specific first.
fn own(profile: &Profile, keys: &Keys, measure: Measure, place: usize, to: &mut Vec<Rung>) {
    // Whole days that weigh as much as all samples with what they have lost by now.
    #[expect(clippy::cast_precision_loss, reason = "a few days")]
    let most = measure.half_life() as f64 / super::DAY as f64 / std::f64::consts::LN_2;
    let rung = |known: &Known, level, half: f64, trust: f64, rise: u8| {
        let days = f64::from(known.days);
        let bucket = known.buckets(measure)[place].saturating_add(rise);
        let unsure = MARGINS[measure as usize] - LEAST_MARGIN;
        let margin = 1.0 + LEAST_MARGIN + unsure / (1.0 + days.min(most)).sqrt();
        Rung {
            level,
            amount: measure.end(bucket) * margin,
            weight: trust * days / (days + half),
            seen: trust >= 1.0 && (measure == Measure::Memory || known.days >= SOME_DAYS),
        }
    };
    let rise = if measure == Measure::Memory { profile.rise } else { 0 };
    let is_current = keys.revision == 0 || keys.revision == profile.revision;
    let (old, new) = (profile.major, keys.major);
    let same = profile.image == keys.image && (old == 0 || new == 0 || old == new);
    let trust = if same { 1.0 } else { OTHER_IMAGE };
    let (older, current) = (&profile.older, &profile.current);
    if older.days > 0.0 {
        let level = Level::OlderRevision { days: older.days };
        to.push(rung(older, level, OLDER_DAYS, trust, 0));
    }
    if current.days > 0.0 {
        to.push(if is_current {
            rung(current, Level::Own { days: current.days }, OWN_DAYS, 1.0, rise)
        } else {
            let level = Level::OlderRevision { days: current.days };
            rung(current, level, OLDER_DAYS, trust, rise)
        });
    }
}

/// Groups of those that share a hash, in order of it. A single container is a group too: another of
/// its image may be it under a new name.
fn groups(speakers: &[&Profile], hash: impl Fn(&Profile) -> u64) -> Vec<(u64, Group)> {
    let mut sorted = speakers.to_vec();
    sorted.sort_by_key(|profile| hash(profile));
    sorted
        .chunk_by(|a, b| hash(a) == hash(b))
        .filter_map(|members| Some((hash(members.first()?), Group::of(members, 1, 2)?)))
        .collect()
}

impl Group {
    /// The `part / of` quantile of members.
    fn of(members: &[&Profile], part: usize, of: usize) -> Option<Self> {
        if members.is_empty() {
            return None;
        }
        let mut values: Vec<u8> = Vec::with_capacity(members.len());
        let mut buckets = [Buckets::default(); 2];
        let mut spread = [0.0; 2];
        for measure in Measure::ALL {
            for (place, bucket) in buckets[measure as usize].iter_mut().enumerate() {
                values.clear();
                values.extend(members.iter().map(|profile| profile.best().buckets(measure)[place]));
                let middle = (values.len() * part / of).min(values.len() - 1);
                *bucket = *values.select_nth_unstable(middle).1;
            }
            let logs = members.iter().map(|profile| {
                measure.end(profile.best().buckets(measure)[QUANTILES.len() / 2]).ln()
            });
            spread[measure as usize] = deviation(logs);
        }
        Some(Self { count: u32::try_from(members.len()).unwrap_or(u32::MAX), buckets, spread })
    }

    fn rung(&self, level: Level, measure: Measure, place: usize, half: f64) -> Rung {
        let count = f64::from(self.count);
        let spread = f64::from(self.spread[measure as usize]).powi(2) * count;
        let variance = (spread + UNSEEN_SPREAD.powi(2)) / (count + 1.0);
        let weight = count / (count + half) / (1.0 + variance / SPREAD.powi(2));
        Rung {
            level,
            amount: measure.end(self.buckets[measure as usize][place])
                * (1.0 + MARGINS[measure as usize]),
            weight,
            seen: matches!(level, Level::Image { .. }) && weight >= 0.5,
        }
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a spread")]
fn deviation(values: impl Iterator<Item = f64> + Clone) -> f32 {
    let count = values.clone().count().max(1) as f64;
    let mean = values.clone().sum::<f64>() / count;
    (values.map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt() as f32
}
