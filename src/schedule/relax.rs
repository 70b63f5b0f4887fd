//! Preferences: held like requirements first, then given up one by one.
//!
//! The order is the field's: preferred pod affinity, preferred pod anti-affinity, preferred node
//! affinity (each by falling weight), `ScheduleAnyway` spreads, and last taints of effect
//! `PreferNoSchedule`. Required node terms need no such step, since all of them are tried.

use std::cmp::Reverse;
use std::sync::Arc;

use super::solution::Preference;
use crate::model::pod::{PodAffinityTerm, PodShape};

/// What a pod asks while some of its preferences are held.
#[derive(Clone, Debug)]
pub(super) struct Want {
    /// The pod with the held preferences among its requirements; preferred pod affinity aside.
    pub(super) pod: Arc<PodShape>,
    /// What keeps its gang together, and preferred pod affinity that is held. Apart, since the
    /// required terms of a pod mean one and the same set of pods, and these do not.
    pub(super) likes: Vec<PodAffinityTerm>,
    /// Whether taints of effect `PreferNoSchedule` repel it.
    pub(super) avoids: bool,
}

/// The preferences of a pod in the order in which they are given up.
pub(super) fn steps(pod: &PodShape, soft_taints: bool) -> Vec<Preference> {
    let mut steps = Vec::new();
    let mut terms: Vec<(i32, usize)> = Vec::new();
    let weighted = |terms: &mut Vec<(i32, usize)>, keep: &dyn Fn(i32) -> bool| {
        terms.clear();
        let all = pod.preferred_pod_terms.iter().enumerate();
        terms.extend(all.filter(|(_, (w, _))| keep(*w)).map(|(i, (w, _))| (w.abs(), i)));
        terms.sort_by_key(|(weight, index)| (Reverse(*weight), *index));
    };
    weighted(&mut terms, &|weight| weight >= 0);
    steps.extend(terms.iter().map(|(_, index)| Preference::PodAffinity(*index)));
    weighted(&mut terms, &|weight| weight < 0);
    steps.extend(terms.iter().map(|(_, index)| Preference::PodAntiAffinity(*index)));
    terms.clear();
    let nodes = pod.preferred_node_terms.iter().enumerate();
    terms.extend(nodes.filter(|(_, (_, t))| !t.is_empty()).map(|(index, (w, _))| (*w, index)));
    terms.sort_by_key(|(weight, index)| (Reverse(*weight), *index));
    steps.extend(terms.iter().map(|(_, index)| Preference::NodeAffinity(*index)));
    let soft = pod.spread.iter().enumerate().filter(|(_, spread)| !spread.required);
    steps.extend(soft.map(|(index, _)| Preference::Spread(index)));
    if soft_taints {
        steps.push(Preference::Taints);
    }
    steps
}

/// The pod with all preferences held but the first `dropped` of `steps`.
pub(super) fn want(pod: &Arc<PodShape>, steps: &[Preference], dropped: usize) -> Want {
    let held = &steps[dropped.min(steps.len())..];
    let plain = pod.preferred_node_terms.is_empty()
        && pod.preferred_pod_terms.is_empty()
        && pod.spread.iter().all(|spread| spread.required);
    if plain {
        let likes = pod.together.clone();
        return Want { pod: Arc::clone(pod), likes, avoids: !held.is_empty() };
    }
    let mut bare = (**pod).clone();
    bare.preferred_node_terms.clear();
    bare.preferred_pod_terms.clear();
    bare.spread.clear();
    let mut likes = pod.together.clone();
    let mut avoids = false;
    let mut near = true;
    let mut soft = Vec::new();
    for step in held {
        match step {
            Preference::PodAffinity(index) => {
                likes.push(pod.preferred_pod_terms[*index].1.clone());
            }
            Preference::PodAntiAffinity(index) => {
                bare.pod_anti_affinity.push(pod.preferred_pod_terms[*index].1.clone());
            }
            // Of several preferred node terms only the heaviest that is left counts.
            Preference::NodeAffinity(index) if near => {
                bare.node_selector.extend(&pod.preferred_node_terms[*index].1.requirements);
                near = false;
            }
            Preference::NodeAffinity(_) => {}
            Preference::Spread(index) => soft.push(*index),
            Preference::Taints => avoids = true,
        }
    }
    for (index, spread) in pod.spread.iter().enumerate() {
        if spread.required || soft.contains(&index) {
            bare.spread
                .push(crate::model::pod::SpreadConstraint { required: true, ..spread.clone() });
        }
    }
    Want { pod: Arc::new(bare), likes, avoids }
}
