//! Zone spread: pods of one shape are shared out over zones before they are packed.
//!
//! A required spread over zones becomes one pinned shape per zone, with counts that keep the skew.
//! Zones without nodes are no domains to the kube-scheduler, so they are used only where pods go.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::compile::{Compiled, Shape};
use crate::model::labels;
use crate::model::pod::{PodShape, SpreadConstraint};
use crate::model::requirement::Requirement;

/// Splits every shape that must spread over zones. Pods for which no zone is left keep a shape
/// without columns, so that they are reported.
pub(super) fn split(compiled: &mut Compiled<'_>) {
    let shapes = std::mem::take(&mut compiled.shapes);
    // Counts of pods that this solve has already placed in zones, for spreads over several shapes.
    let mut planned: Vec<(Arc<PodShape>, Arc<str>, u32)> = Vec::new();
    let mut out = Vec::with_capacity(shapes.len());
    for shape in shapes {
        match zone_spread(&shape.pod) {
            Some(constraint) if shape.unsupported.is_none() => {
                let constraint = constraint.clone();
                share_out(compiled, shape, &constraint, &mut planned, &mut out);
            }
            _ => out.push(shape),
        }
    }
    compiled.shapes = out;
}

/// The first required spread over zones that counts the pod itself.
fn zone_spread(pod: &PodShape) -> Option<&SpreadConstraint> {
    pod.spread.iter().find(|spread| spread.required && &*spread.topology_key == labels::ZONE)
}

fn counts(spread: &SpreadConstraint, owner: &PodShape, other: &PodShape) -> bool {
    owner.namespace == other.namespace
        && spread.selector.as_ref().is_some_and(|selector| selector.matches(&other.labels))
}

fn share_out(
    compiled: &Compiled<'_>,
    shape: Shape,
    spread: &SpreadConstraint,
    planned: &mut Vec<(Arc<PodShape>, Arc<str>, u32)>,
    out: &mut Vec<Shape>,
) {
    // Zone → (pods there, whether more can go there).
    let mut zones: BTreeMap<Arc<str>, (i64, bool)> = BTreeMap::new();
    for column in shape.columns.ones().map(|index| &compiled.columns[index]) {
        let offering = &compiled.instance_type(column).offerings[column.offering_index];
        zones.entry(Arc::clone(&offering.zone)).or_insert((0, true)).1 = true;
    }
    for node in &compiled.problem.nodes {
        let Some(zone) = node.labels.get(labels::ZONE) else { continue };
        let meets = shape.alternatives.iter().any(|alternative| alternative.met_by(&node.labels));
        if spread.honor_node_affinity && !meets {
            continue;
        }
        let entry = zones.entry(Arc::from(&**zone)).or_insert((0, false));
        entry.1 |= meets && shape.pod.requests.fits(&node.free);
        for (pod, count) in &node.pods {
            if counts(spread, &shape.pod, pod) {
                entry.0 += i64::from(*count);
            }
        }
    }
    for (pod, zone, count) in planned.iter() {
        if counts(spread, &shape.pod, pod)
            && let Some(entry) = zones.get_mut(zone)
        {
            entry.0 += i64::from(*count);
        }
    }
    let own = i64::from(counts(spread, &shape.pod, &shape.pod));
    let mut taken: BTreeMap<Arc<str>, u32> = BTreeMap::new();
    for _ in 0..shape.left() {
        let fewest = match spread.min_domains {
            Some(domains) if zones.len() < usize::try_from(domains).unwrap_or(0) => 0,
            _ => zones.values().map(|(count, _)| *count).min().unwrap_or(0),
        };
        let lowest = zones
            .iter_mut()
            .filter(|(_, (count, open))| {
                *open && *count + own - fewest <= i64::from(spread.max_skew)
            })
            .min_by_key(|(_, (count, _))| *count);
        let Some((zone, (count, _))) = lowest else { break };
        *count += own;
        *taken.entry(Arc::clone(zone)).or_insert(0) += 1;
    }
    let mut rest = shape;
    for (zone, count) in taken {
        let mut pinned = rest.clone();
        pinned.demands.clear();
        rest.take(count, |demand, taken| pinned.demands.push((demand, taken)));
        for alternative in &mut pinned.alternatives {
            alternative.insert(labels::ZONE, Requirement::one_of([Arc::clone(&zone)]));
        }
        let columns: Vec<usize> = pinned.columns.ones().collect();
        for index in columns {
            let column = &compiled.columns[index];
            let offering = &compiled.instance_type(column).offerings[column.offering_index];
            pinned.columns.set(index, offering.zone == zone);
        }
        planned.push((Arc::clone(&pinned.pod), zone, count));
        out.push(pinned);
    }
    if rest.left() > 0 {
        rest.unsupported = None;
        rest.columns.clear();
        out.push(rest);
    }
}
