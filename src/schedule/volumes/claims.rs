//! Where the claims of a pod let it be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{both, key};
use crate::model::pod::PodShape;
use crate::model::requirement::Requirements;
use crate::model::volume::{
    ClaimKey, ClaimSpec, MountedClaim, PersistentVolume, VolumeClaim, Volumes,
};
use crate::schedule::problem::Problem;
use crate::schedule::reason::VolumeFault;

/// Why a claim keeps its pod from every node, with the claim's name.
pub(super) type Fault = (String, VolumeFault);

/// Where a claim lets its pod be.
#[derive(Default)]
pub(super) struct Place {
    pub(super) reach: Option<Vec<Requirements>>,
    pub(super) node: Option<Arc<str>>,
}

/// A claim for a volume made by hand.
struct Choice<'s> {
    key: ClaimKey,
    class: &'s Arc<str>,
    spec: &'s ClaimSpec,
}

/// What a claim leads to.
enum Source<'s> {
    Place(Place),
    Choice(Choice<'s>),
}

pub(super) struct Resolver<'a> {
    book: &'a Volumes,
    /// Claims that pods on nodes use.
    used: BTreeSet<ClaimKey>,
    /// Free volumes made by hand, the smallest first, and volumes kept for a claim.
    by_class: BTreeMap<&'a str, Vec<&'a PersistentVolume>>,
    kept: BTreeMap<&'a ClaimKey, &'a PersistentVolume>,
    /// Volumes made by hand that claims got in this solve.
    given: BTreeMap<ClaimKey, &'a PersistentVolume>,
    taken: BTreeSet<&'a str>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(problem: &'a Problem) -> Self {
        let book = &problem.volumes;
        let there = problem.nodes.iter().flat_map(|node| node.pods.iter().map(|(pod, _)| pod));
        let used =
            there.flat_map(|pod| pod.claims.iter().filter_map(move |m| key(pod, m))).collect();
        let mut by_class: BTreeMap<&str, Vec<&PersistentVolume>> = BTreeMap::new();
        let mut kept = BTreeMap::new();
        for volume in book.volumes.values().filter(|volume| volume.available) {
            match &volume.claim {
                Some(claim) => {
                    kept.insert(claim, &**volume);
                }
                None => by_class.entry(&volume.class).or_default().push(volume),
            }
        }
        for volumes in by_class.values_mut() {
            volumes.sort_by_key(|volume| (volume.size, &volume.name));
        }
        let (given, taken) = (BTreeMap::new(), BTreeSet::new());
        Self { book, used, by_class, kept, given, taken }
    }

    /// Where all claims of a pod let it be.
    pub(super) fn places(&mut self, pod: &PodShape) -> Result<Place, Fault> {
        let own = pod.node_alternatives();
        let mut all = Place::default();
        let mut chosen = Vec::new();
        for mounted in &pod.claims {
            let name = || mounted.claim.to_string();
            let place = match self.source(pod, mounted).map_err(|fault| (name(), fault))? {
                Source::Place(place) => place,
                Source::Choice(choice) => {
                    chosen.push(choice);
                    continue;
                }
            };
            if place.reach.as_ref().is_some_and(Vec::is_empty) {
                return Err((name(), VolumeFault::Nowhere));
            }
            if place.node.is_some() {
                if all.node.is_some() && all.node != place.node {
                    return Err((name(), VolumeFault::Apart));
                }
                all.node = place.node;
            }
            let Some(reach) = place.reach else { continue };
            if !own.is_empty() && both(&own, &reach).is_empty() {
                return Err((name(), VolumeFault::Affinity));
            }
            let joined = match &all.reach {
                Some(before) => both(before, &reach),
                None => reach,
            };
            if joined.is_empty() {
                return Err((name(), VolumeFault::Apart));
            }
            all.reach = Some(joined);
        }
        let mut open = match &all.reach {
            Some(reach) if !own.is_empty() => both(&own, reach),
            _ => own.clone(),
        };
        if open.is_empty() && !own.is_empty() {
            let last = pod.claims.last().map(|mounted| mounted.claim.to_string());
            return Err((last.unwrap_or_default(), VolumeFault::Affinity));
        }
        if open.is_empty() {
            // Its own affinity admits nothing, which is not the volumes' fault.
            open.push(Requirements::new());
        }
        if let Some(first) = chosen.first() {
            let (name, class) = (first.key.1.to_string(), first.class.to_string());
            let Some(volumes) = self.choose(&chosen, &open, &mut Vec::new()) else {
                return Err((name, VolumeFault::NoVolume { class }));
            };
            for (choice, volume) in chosen.iter().zip(volumes) {
                self.taken.insert(&volume.name);
                self.given.insert(choice.key.clone(), volume);
                if let Some(reach) = &volume.reach {
                    all.reach = Some(match &all.reach {
                        Some(before) => both(before, reach),
                        None => reach.clone(),
                    });
                }
            }
        }
        Ok(all)
    }

    fn source<'s>(
        &self,
        pod: &PodShape,
        mounted: &'s MountedClaim,
    ) -> Result<Source<'s>, VolumeFault>
    where
        'a: 's,
    {
        let claim = self.book.claim(&pod.namespace, mounted);
        let Some(spec) = claim.map(|claim| &claim.spec).or(mounted.template.as_deref()) else {
            return Err(VolumeFault::Missing);
        };
        let at = |reach: &Option<Vec<Requirements>>, node| {
            Ok(Source::Place(Place { reach: reach.clone(), node }))
        };
        if let Some(VolumeClaim { lost: true, .. }) = claim {
            return Err(VolumeFault::Lost);
        }
        if let Some(VolumeClaim { deleting: true, .. }) = claim {
            return Err(VolumeFault::Deleting);
        }
        let bound = claim.and_then(|claim| claim.volume.as_ref().map(|name| (claim.bound, name)));
        if let Some((false, name)) = bound {
            return Err(VolumeFault::Binding { volume: name.to_string() });
        }
        if let Some((true, name)) = bound {
            let Some(volume) = self.book.volumes.get(name) else {
                return Err(VolumeFault::VolumeMissing { volume: name.to_string() });
            };
            return at(&volume.reach, None);
        }
        let Some(name) = self.book.class_name(spec) else {
            return Err(VolumeFault::Unbound { class: String::new() });
        };
        let Some(class) = self.book.classes.get(name) else {
            return Err(VolumeFault::ClassMissing { class: name.to_string() });
        };
        if !class.waits {
            return Err(VolumeFault::Unbound { class: name.to_string() });
        }
        if let Some(node) = claim.and_then(|claim| claim.selected_node.clone()) {
            return at(&class.topologies, Some(node));
        }
        let key = key(pod, mounted);
        if let Some(volume) = key.as_ref().and_then(|key| self.kept.get(key)) {
            return at(&volume.reach, None);
        }
        if !class.by_hand() {
            return at(&class.topologies, None);
        }
        // A claim without a name cannot be given a volume before it is there.
        let Some(key) = key else {
            return Err(VolumeFault::NoVolume { class: name.to_string() });
        };
        Ok(Source::Choice(Choice { key, class: name, spec }))
    }

    /// Volumes made by hand for claims of one pod: the smallest that suit and can all be where one
    /// of `open` holds.
    fn choose(
        &self,
        claims: &[Choice<'_>],
        open: &[Requirements],
        taken: &mut Vec<&'a PersistentVolume>,
    ) -> Option<Vec<&'a PersistentVolume>> {
        let Some(Choice { key, class, spec }) = claims.get(taken.len()) else {
            return Some(taken.clone());
        };
        let given = self.given.get(key).copied();
        let free = self.by_class.get(&***class).into_iter().flatten().copied().filter(|volume| {
            !self.taken.contains(&*volume.name)
                && volume.size >= spec.size
                && volume.block == spec.block
                && volume.modes.cover(spec.modes)
                && spec.selector.as_ref().is_none_or(|s| s.matches(&volume.labels))
        });
        let candidates: Vec<&PersistentVolume> = match given {
            Some(volume) => vec![volume],
            None => free.collect(),
        };
        for volume in candidates {
            if taken.iter().any(|other| other.name == volume.name) {
                continue;
            }
            let narrowed = match &volume.reach {
                Some(reach) => both(open, reach),
                None => open.to_vec(),
            };
            if narrowed.is_empty() {
                continue;
            }
            taken.push(volume);
            if let Some(all) = self.choose(claims, &narrowed, taken) {
                return Some(all);
            }
            taken.pop();
        }
        None
    }

    /// How many of `count` pods may use their claims, and the claim that keeps the others away.
    pub(super) fn reserve(&mut self, pod: &PodShape, count: u32) -> (u32, String) {
        let one_pod = pod.claims.iter().filter(|mounted| {
            let claim = self.book.claim(&pod.namespace, mounted);
            let spec = claim.map(|claim| &claim.spec).or(mounted.template.as_deref());
            spec.is_some_and(|spec| spec.modes.one_pod())
        });
        let keys: Vec<ClaimKey> = one_pod.filter_map(|mounted| key(pod, mounted)).collect();
        let Some(first) = keys.first() else { return (count, String::new()) };
        if let Some(held) = keys.iter().find(|key| self.used.contains(*key)) {
            return (0, held.1.to_string());
        }
        let name = first.1.to_string();
        self.used.extend(keys);
        (count.min(1), name)
    }
}
