//! Pods that must share a node: required affinity over the host name.
//!
//! Pods that want to be near their own kind become one bundle, which is placed whole like a large
//! pod. Pods that want to be near others become bundles of one such pod and as many of them as fit.

use fixedbitset::FixedBitSet;

use super::compile::{Compiled, Shape};
use super::host::{Host, State};
use super::reason::Reason;
use crate::model::labels;
use crate::model::requirement::Requirements;

/// Alternatives of a bundle beyond this count are left out; each is one way to meet all its pods.
const MOST_ALTERNATIVES: usize = 64;

/// Bundles pods that may be the first of those that their affinity means.
pub(super) fn own_kind(compiled: &mut Compiled<'_>) {
    let starters: Vec<usize> = (0..compiled.shapes.len())
        .filter(|s| {
            let shape = &compiled.shapes[*s];
            !shape.host.needs.is_empty()
                && shape.blocked.is_none()
                && shape.rules.near.iter().all(|near| near.key.is_some() || near.own)
                && shape.host.needs.iter().all(|counter| nobody(compiled, *counter))
        })
        .collect();
    let mut done = vec![false; compiled.shapes.len()];
    for &first in &starters {
        if done[first] {
            continue;
        }
        let needs = compiled.shapes[first].host.needs.clone();
        let members: Vec<usize> = starters
            .iter()
            .copied()
            .filter(|s| !done[*s] && compiled.shapes[*s].host.needs == needs)
            .collect();
        let mut bundle = empty(&compiled.shapes[first]);
        for member in members {
            done[member] = true;
            let left = compiled.shapes[member].left();
            let fits = most(compiled, &bundle, member, left);
            add(compiled, &mut bundle, member, fits);
            block(&mut compiled.shapes[member]);
        }
        compiled.shapes.push(bundle);
    }
    clean(compiled);
}

/// Bundles what is left of pods with one pod each of those that they want to be near.
pub(super) fn guests(compiled: &mut Compiled<'_>) {
    let waiting: Vec<usize> = (0..compiled.shapes.len())
        .filter(|s| !compiled.shapes[*s].host.needs.is_empty() && compiled.shapes[*s].left() > 0)
        .collect();
    let old = compiled.shapes.len();
    for guest in waiting {
        let needs = compiled.shapes[guest].host.needs.clone();
        let meets = |shape: &Shape| {
            let has = |counter| shape.host.adds.iter().any(|(c, _)| c == counter);
            shape.host.needs.is_empty() && needs.iter().all(has)
        };
        // Bundles that are there already, then new ones.
        for host in (old..compiled.shapes.len()).chain(0..old) {
            while compiled.shapes[guest].left() > 0
                && compiled.shapes[host].left() > 0
                && meets(&compiled.shapes[host])
            {
                let mut bundle = empty(&compiled.shapes[host]);
                if host >= old {
                    bundle = compiled.shapes[host].clone();
                } else {
                    add(compiled, &mut bundle, host, 0);
                    bundle.request.clone_from(&compiled.shapes[host].request);
                    bundle.host = compiled.shapes[host].host.clone();
                }
                let fits = most(compiled, &bundle, guest, compiled.shapes[guest].left());
                if fits == 0 {
                    break;
                }
                if host < old {
                    compiled.shapes[host].take(1, |d, n| bundle.demands.push((d, n)));
                }
                add(compiled, &mut bundle, guest, fits);
                if host >= old {
                    compiled.shapes[host] = bundle;
                    break;
                }
                compiled.shapes.push(bundle);
            }
        }
        block(&mut compiled.shapes[guest]);
    }
    clean(compiled);
}

/// Whether no pod that is there or planned apart counts.
fn nobody(compiled: &Compiled<'_>, counter: u32) -> bool {
    let there = compiled.topology.node_matches.iter();
    let mut counts = there.flat_map(|counts| counts.iter().filter(|(c, _)| *c == counter));
    counts.next().is_none()
        && !compiled
            .shapes
            .iter()
            .any(|shape| shape.host.needs.is_empty() && shape.rules.matched.contains(&counter))
}

fn empty(of: &Shape) -> Shape {
    Shape {
        demands: Vec::new(),
        whole: true,
        request: vec![0; of.request.len()],
        host: Host::default(),
        ..of.clone()
    }
}

/// What the bundle would be with `count` pods of a shape more.
fn with(compiled: &Compiled<'_>, bundle: &Shape, member: usize, count: u32) -> (Vec<i64>, Host) {
    let shape = &compiled.shapes[member];
    let times = i64::from(count);
    let request =
        bundle.request.iter().zip(&shape.request).map(|(all, one)| all + one * times).collect();
    let mut host = bundle.host.clone();
    host.join(&shape.host, times);
    (request, host)
}

/// How many pods of a shape, at most `want`, some column or node can hold beside the bundle.
fn most(compiled: &Compiled<'_>, bundle: &Shape, member: usize, want: u32) -> u32 {
    let shape = &compiled.shapes[member];
    let both = |a: usize, b: usize| -> FixedBitSet {
        let mut set = compiled.sets.get(a).clone();
        set.intersect_with(compiled.sets.get(b));
        set
    };
    let columns = both(bundle.columns, shape.columns);
    let nodes = both(bundle.nodes, shape.nodes);
    let frees: Vec<Vec<i64>> = nodes.ones().map(|node| compiled.free(node)).collect();
    let fits = |count: u32| {
        let (request, host) = with(compiled, bundle, member, count);
        let fits =
            |room: &[i64]| request.iter().zip(room).all(|(ask, room)| *ask <= 0 || ask <= room);
        State::default().fit(&host, 1) == 1
            && (columns
                .ones()
                .any(|c| fits(&compiled.offers.rooms[compiled.offers.columns[c].room]))
                || frees.iter().any(|free| fits(free)))
    };
    let (mut least, mut more) = (0, want);
    while least < more {
        let middle = least + (more - least).div_ceil(2);
        if fits(middle) {
            least = middle;
        } else {
            more = middle - 1;
        }
    }
    least
}

fn add(compiled: &mut Compiled<'_>, bundle: &mut Shape, member: usize, count: u32) {
    let (request, host) = with(compiled, bundle, member, count);
    bundle.request = request;
    bundle.host = host;
    let shape = compiled.shapes[member].clone();
    for (at, theirs) in [(&mut bundle.columns, shape.columns), (&mut bundle.nodes, shape.nodes)] {
        let keep = compiled.sets.get(theirs).clone();
        *at = compiled.sets.narrow(*at, |one| keep.contains(one));
    }
    bundle.custom |= shape.custom;
    if bundle.alternatives != shape.alternatives {
        let pairs = bundle.alternatives.iter().flat_map(|a| {
            shape.alternatives.iter().map(move |b| {
                let mut both: Requirements = a.clone();
                both.extend(b);
                both
            })
        });
        bundle.alternatives = pairs.take(MOST_ALTERNATIVES).collect();
    }
    compiled.shapes[member].take(count, |demand, n| bundle.demands.push((demand, n)));
}

fn block(shape: &mut Shape) {
    if shape.left() > 0 {
        shape.blocked = Some(Reason::PodAffinity { key: labels::HOSTNAME.to_owned() });
    }
}

/// Pods that no bundle took cannot be on new nodes.
fn clean(compiled: &mut Compiled<'_>) {
    let none = compiled.sets.add(FixedBitSet::with_capacity(compiled.offers.columns.len()));
    for shape in &mut compiled.shapes {
        if shape.blocked.is_some() {
            shape.columns = none;
        }
    }
    compiled.shapes.retain(|shape| !shape.whole || shape.left() > 0);
}
