//! Whether the volumes of placed pods let them be where they are, looked up in the claims, volumes
//! and classes themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Violation, facts, look_up};
use crate::model::labels;
use crate::model::pod::PodShape;
use crate::model::requirement::Requirements;
use crate::model::volume::{ClaimKey, ClaimSpec, MountedClaim, PersistentVolume, Volumes};
use crate::schedule::problem::Problem;
use crate::schedule::solution::Solution;

/// A node with what is certain of its labels, one set for each way in which it may come to be.
struct Place {
    name: String,
    node: Option<usize>,
    facts: Vec<Requirements>,
    /// Limits by driver, one for each way as well.
    limits: Vec<Vec<(Arc<str>, i64)>>,
    pods: Vec<(usize, u32)>,
}

/// How a claim gets its volume.
enum Source<'a> {
    /// It has one.
    Bound(&'a PersistentVolume),
    /// It is made in one of these places.
    Made(Option<&'a [Requirements]>),
    /// One of these is chosen when the pod binds.
    Chosen(Vec<&'a PersistentVolume>),
}

pub(super) fn judge(problem: &Problem, solution: &Solution) -> Vec<Violation> {
    let mounts = problem.demands.iter().any(|demand| !demand.shape.claims.is_empty());
    if !mounts {
        return Vec::new();
    }
    let mut found = Vec::new();
    let places = places(problem, solution);
    for place in &places {
        for (demand, _) in &place.pods {
            let Some(demand) = problem.demands.get(*demand) else { continue };
            if let Err(message) = reaches(problem, &demand.shape, place) {
                found.push(Violation { place: place.name.clone(), message });
            }
        }
        found.extend(attached(problem, place));
    }
    found.extend(one_pod(problem, &places));
    found.extend(by_hand(problem, &places));
    found
}

fn places(problem: &Problem, solution: &Solution) -> Vec<Place> {
    let mut places = Vec::new();
    for (index, node) in problem.nodes.iter().enumerate() {
        let placed = solution.placements.iter().filter(|p| p.node == index);
        let pods: Vec<(usize, u32)> = placed.map(|p| (p.demand, p.count)).collect();
        if pods.is_empty() {
            continue;
        }
        let stated = problem.volumes.nodes.get(&node.name).map(|csi| csi.limits.clone());
        let mut limits: BTreeMap<Arc<str>, i64> = BTreeMap::new();
        if let (false, Some(pool)) = (node.initialized, node.pool) {
            let types = problem.pools.get(pool).map(|slot| slot.types.iter());
            let name = node.labels.get(labels::INSTANCE_TYPE);
            let mut types = types.into_iter().flatten();
            let known = types.find(|instance| name.is_some_and(|name| *instance.name == **name));
            limits.extend(known.into_iter().flat_map(|instance| instance.attach_limits.clone()));
        }
        limits.extend(stated.into_iter().flatten());
        places.push(Place {
            name: format!("node {}", node.name),
            node: Some(index),
            facts: vec![Requirements::from_labels(&node.labels)],
            limits: vec![limits.into_iter().collect()],
            pods,
        });
    }
    for (index, node) in solution.new_nodes.iter().enumerate() {
        let Some(slot) = problem.pools.get(node.pool) else { continue };
        let ways = node.acceptable.iter().filter_map(|offering| look_up(slot, *offering));
        let (facts, limits) = ways
            .map(|(instance, bought)| {
                (facts(slot, instance, bought), instance.attach_limits.clone())
            })
            .unzip();
        let name = format!("new node {index}");
        places.push(Place { name, node: None, facts, limits, pods: node.pods.clone() });
    }
    places
}

/// Whether a node can have all volumes of a pod, and its affinity at the same time.
fn reaches(problem: &Problem, pod: &PodShape, place: &Place) -> Result<(), String> {
    let mut sources = Vec::new();
    for mounted in &pod.claims {
        let name = &mounted.claim;
        let source = source(problem, pod, mounted)?;
        let selected = problem.volumes.claim(&pod.namespace, mounted).filter(|claim| !claim.bound);
        if let Some(selected) = selected.and_then(|claim| claim.selected_node.as_ref()) {
            let here = place.node.map(|node| &problem.nodes[node].name);
            if here != Some(selected) {
                return Err(format!(
                    "the volume of claim {name} is being made for node {selected}"
                ));
            }
        }
        sources.push(source);
    }
    let own = pod.node_alternatives();
    for facts in &place.facts {
        // Affinity that names nodes is judged elsewhere.
        let met = own.iter().any(|wanted| match place.node {
            Some(_) => all_reach(&sources, facts),
            None => {
                wanted.unmet(facts, |_| false).is_none() && {
                    let mut narrowed = facts.clone();
                    narrowed.extend(wanted);
                    all_reach(&sources, &narrowed)
                }
            }
        });
        if !met {
            return Err("a pod's volumes cannot be here".to_owned());
        }
    }
    Ok(())
}

/// Whether a node with these facts can have all volumes.
fn all_reach(sources: &[Source<'_>], facts: &Requirements) -> bool {
    let Some((first, others)) = sources.split_first() else { return true };
    let under = |terms: &[Requirements]| {
        terms.iter().any(|term| {
            term.unmet(facts, |_| false).is_none() && {
                let mut narrowed = facts.clone();
                narrowed.extend(term);
                all_reach(others, &narrowed)
            }
        })
    };
    let of = |volume: &PersistentVolume| match &volume.reach {
        Some(terms) => under(terms),
        None => all_reach(others, facts),
    };
    match first {
        Source::Bound(volume) => of(volume),
        Source::Made(Some(terms)) => under(terms),
        Source::Made(None) => all_reach(others, facts),
        Source::Chosen(volumes) => volumes.iter().any(|volume| of(volume)),
    }
}

fn source<'a>(
    problem: &'a Problem,
    pod: &'a PodShape,
    mounted: &'a MountedClaim,
) -> Result<Source<'a>, String> {
    let (book, name) = (&problem.volumes, &mounted.claim);
    let claim = book.claim(&pod.namespace, mounted);
    let spec = spec(book, pod, mounted).ok_or_else(|| format!("claim {name} does not exist"))?;
    if let Some(claim) = claim {
        if claim.lost || claim.deleting {
            return Err(format!("claim {name} is lost or being deleted"));
        }
        match &claim.volume {
            Some(volume) if claim.bound => {
                let found = book.volumes.get(volume).map(|volume| Source::Bound(volume));
                return found.ok_or_else(|| format!("volume {volume} does not exist"));
            }
            Some(volume) => return Err(format!("claim {name} is not bound to {volume} yet")),
            None => {}
        }
    }
    let Some(class) = book.class(spec) else {
        return Err(format!("claim {name} has no class"));
    };
    if !class.waits {
        return Err(format!("claim {name} is not bound"));
    }
    let kept = |volume: &&Arc<PersistentVolume>| {
        volume.available
            && volume.claim.as_ref().is_some_and(|(namespace, of)| {
                *namespace == pod.namespace && Some(of) == mounted.name()
            })
    };
    if let Some(volume) = book.volumes.values().find(kept) {
        return Ok(Source::Chosen(vec![&**volume]));
    }
    if class.by_hand() {
        let free = book.volumes.values().filter(|volume| {
            volume.available && volume.claim.is_none() && volume.class == class.name
        });
        return Ok(Source::Chosen(free.filter(|v| suits(v, spec)).map(|v| &**v).collect()));
    }
    Ok(Source::Made(class.topologies.as_deref()))
}

fn spec<'a>(book: &'a Volumes, pod: &PodShape, mounted: &'a MountedClaim) -> Option<&'a ClaimSpec> {
    let claim = book.claim(&pod.namespace, mounted);
    claim.map(|claim| &claim.spec).or(mounted.template.as_deref())
}

fn suits(volume: &PersistentVolume, spec: &ClaimSpec) -> bool {
    volume.size >= spec.size
        && volume.block == spec.block
        && volume.modes.cover(spec.modes)
        && spec.selector.as_ref().is_none_or(|selector| selector.matches(&volume.labels))
}

/// Whether a node attaches more volumes than it can.
fn attached(problem: &Problem, place: &Place) -> Option<Violation> {
    let mut volumes: BTreeSet<(Arc<str>, String)> = BTreeSet::new();
    let there = place.node.map(|node| &problem.nodes[node].pods[..]).unwrap_or_default();
    add(&problem.volumes, there.iter().map(|(pod, count)| (&**pod, *count)), &mut volumes);
    let before = by_driver(&volumes);
    let new = place.pods.iter().filter_map(|(demand, count)| {
        problem.demands.get(*demand).map(|demand| (&*demand.shape, *count))
    });
    add(&problem.volumes, new, &mut volumes);
    let after = by_driver(&volumes);
    for (driver, limit) in place.limits.iter().flatten() {
        let (old, all) = (before.get(driver).unwrap_or(&0), after.get(driver).unwrap_or(&0));
        if all > old && all > limit {
            let message = format!("attaches {all} volumes of {driver}, but can attach {limit}");
            return Some(Violation { place: place.name.clone(), message });
        }
    }
    None
}

/// Adds what pods attach; each volume once.
fn add<'a>(
    book: &Volumes,
    pods: impl Iterator<Item = (&'a PodShape, u32)>,
    volumes: &mut BTreeSet<(Arc<str>, String)>,
) {
    for (pod, count) in pods {
        for mounted in &pod.claims {
            let name = &mounted.claim;
            let claim = book.claim(&pod.namespace, mounted);
            let volume = claim.and_then(|claim| book.volumes.get(claim.volume.as_ref()?));
            if let Some(volume) = volume {
                let handle = volume.handle.as_ref();
                volumes.extend(handle.map(|(driver, id)| (Arc::clone(driver), format!("={id}"))));
                continue;
            }
            let spec = spec(book, pod, mounted);
            let Some(class) = spec.and_then(|spec| book.class(spec)) else { continue };
            let driver = || Arc::clone(&class.provisioner);
            if mounted.name().is_none() {
                let next = volumes.len();
                volumes.extend((0..count).map(|n| (driver(), format!("new {next} {n}"))));
            } else {
                volumes.insert((driver(), format!("{}/{name}", pod.namespace)));
            }
        }
    }
}

fn by_driver(volumes: &BTreeSet<(Arc<str>, String)>) -> BTreeMap<Arc<str>, i64> {
    let mut counts = BTreeMap::new();
    for (driver, _) in volumes {
        *counts.entry(Arc::clone(driver)).or_insert(0) += 1;
    }
    counts
}

/// Claims for one pod that more than one pod uses.
fn one_pod(problem: &Problem, places: &[Place]) -> Vec<Violation> {
    let mut users: BTreeMap<ClaimKey, u32> = BTreeMap::new();
    let there = problem.nodes.iter().flat_map(|node| node.pods.iter().map(|(p, n)| (&**p, *n)));
    let of_place = |place: &Place| place.pods.clone();
    let new = places.iter().flat_map(of_place).filter_map(|(demand, count)| {
        problem.demands.get(demand).map(|demand| (&*demand.shape, count))
    });
    let mut asked: BTreeSet<ClaimKey> = BTreeSet::new();
    for (placed, (pod, count)) in there.map(|p| (false, p)).chain(new.map(|p| (true, p))) {
        for mounted in pod.claims.iter().filter(|mounted| mounted.name().is_some()) {
            if spec(&problem.volumes, pod, mounted).is_some_and(|spec| spec.modes.one_pod()) {
                let key = (Arc::clone(&pod.namespace), Arc::clone(&mounted.claim));
                if placed {
                    asked.insert(key.clone());
                }
                *users.entry(key).or_insert(0) += count;
            }
        }
    }
    let many = users.into_iter().filter(|(key, count)| *count > 1 && asked.contains(key));
    many.map(|((namespace, name), count)| Violation {
        place: format!("claim {namespace}/{name}"),
        message: format!("is for one pod, and {count} use it"),
    })
    .collect()
}

/// Whether claims whose volumes are made by hand can all have one at the same time.
fn by_hand(problem: &Problem, places: &[Place]) -> Vec<Violation> {
    let mut claims: BTreeMap<ClaimKey, Vec<&PersistentVolume>> = BTreeMap::new();
    for place in places {
        for (demand, _) in &place.pods {
            let Some(demand) = problem.demands.get(*demand) else { continue };
            for mounted in &demand.shape.claims {
                let key = (Arc::clone(&demand.shape.namespace), Arc::clone(&mounted.claim));
                if let Ok(Source::Chosen(mut volumes)) = source(problem, &demand.shape, mounted) {
                    volumes.retain(|volume| {
                        let alone = [Source::Bound(volume)];
                        place.facts.iter().all(|facts| all_reach(&alone, facts))
                    });
                    claims.insert(key, volumes);
                }
            }
        }
    }
    let claims: Vec<(ClaimKey, Vec<&PersistentVolume>)> = claims.into_iter().collect();
    let mut holder: BTreeMap<&str, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for at in 0..claims.len() {
        if !matched(at, &claims, &mut holder, &mut BTreeSet::new()) {
            let (namespace, name) = &claims[at].0;
            let message = "no volume is left for it".to_owned();
            found.push(Violation { place: format!("claim {namespace}/{name}"), message });
        }
    }
    found
}

/// Finds a volume for a claim; others that hold one may change to another.
fn matched<'v>(
    at: usize,
    claims: &[(ClaimKey, Vec<&'v PersistentVolume>)],
    holder: &mut BTreeMap<&'v str, usize>,
    seen: &mut BTreeSet<&'v str>,
) -> bool {
    for volume in &claims[at].1 {
        if !seen.insert(&volume.name) {
            continue;
        }
        let before = holder.get(&*volume.name).copied();
        if before.is_none_or(|other| matched(other, claims, holder, seen)) {
            holder.insert(&volume.name, at);
            return true;
        }
    }
    false
}
