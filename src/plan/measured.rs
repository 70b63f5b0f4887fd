//! Memory that nodes turned out to have.
//!
//! What EC2 lists is what the machine has, not what its operating system sees: the difference depends
//! on the type and cannot be looked up. The estimate of a catalog is too high for some types, whose
//! nodes are then too small for what was planned, and too low for most, whose nodes are bought larger
//! than needed. The first node of a type settles it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::overlay::Types;
use crate::cluster::Snapshot;
use crate::model::claim::ClaimStage;
use crate::model::instance::InstanceType;
use crate::model::labels;

/// Differences below this are noise of the kernel's own tables, bytes.
const GRAIN: i64 = 1 << 20;

/// The least memory that a node of a type registered with, bytes, by class (its images make a
/// difference) and type.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Measured(BTreeMap<Arc<str>, BTreeMap<Arc<str>, i64>>);

impl Measured {
    /// Looks at the nodes of a cluster. Whether something was learned.
    pub fn observe(&mut self, snapshot: &Snapshot) -> bool {
        let mut learned = false;
        for claim in snapshot.claims.values().filter(|c| c.stage >= ClaimStage::Registered) {
            let Some(node) = snapshot.node_of(claim) else { continue };
            let Some(kind) = node.label(labels::INSTANCE_TYPE) else { continue };
            let memory = node.capacity.memory / GRAIN * GRAIN;
            if memory <= 0 {
                continue;
            }
            let of_class = self.0.entry(Arc::clone(&claim.class.name)).or_default();
            match of_class.get_mut(kind) {
                Some(least) if *least <= memory => {}
                Some(least) => {
                    *least = memory;
                    learned = true;
                }
                None => {
                    of_class.insert(kind.into(), memory);
                    learned = true;
                }
            }
        }
        learned
    }

    /// The types of a class with the memory that their nodes have.
    pub fn correct(&self, class: &str, types: &Types) -> Types {
        let Some(of_class) = self.0.get(class) else { return Arc::clone(types) };
        let differs = |kind: &InstanceType| {
            of_class.get(&kind.name).copied().filter(|memory| *memory != kind.capacity.memory)
        };
        if !types.iter().any(|kind| differs(kind).is_some()) {
            return Arc::clone(types);
        }
        let corrected = types.iter().map(|kind| match differs(kind) {
            None => Arc::clone(kind),
            Some(memory) => {
                let mut kind = InstanceType::clone(kind);
                kind.capacity.memory = memory;
                Arc::new(kind)
            }
        });
        corrected.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::claim::Claim;
    use crate::model::node::Node;
    use crate::model::requirement::Requirements;
    use crate::model::resources::Resources;

    const GIB: i64 = 1 << 30;

    fn snapshot(nodes: &[(&str, ClaimStage, i64)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (at, (kind, stage, memory)) in nodes.iter().enumerate() {
            let name: Arc<str> = format!("n-{at}").into();
            let mut claim = Claim { name: Arc::clone(&name), stage: *stage, ..Claim::default() };
            claim.class.name = "default".into();
            claim.node_name = Arc::clone(&name);
            let mut node = Node { name: Arc::clone(&name), ..Node::default() };
            node.capacity = Resources::new(1000, *memory);
            node.labels.insert(labels::INSTANCE_TYPE.to_owned(), (*kind).to_owned());
            Arc::make_mut(&mut snapshot.claims).insert(Arc::clone(&name), Arc::new(claim));
            Arc::make_mut(&mut snapshot.nodes).insert(name, Arc::new(node));
        }
        snapshot
    }

    #[test]
    fn the_smallest_node_counts() {
        let types: Types = ["a.large", "b.large"]
            .map(|name| {
                Arc::new(InstanceType {
                    name: name.into(),
                    requirements: Requirements::new(),
                    capacity: Resources::new(2000, 8 * GIB),
                    overhead: Resources::default(),
                    attach_limits: Vec::new(),
                    offerings: Vec::new(),
                })
            })
            .into();
        let mut measured = Measured::default();
        assert!(Arc::ptr_eq(&measured.correct("default", &types), &types));
        let registered = ClaimStage::Registered;
        assert!(!measured.observe(&snapshot(&[("a.large", ClaimStage::Launched, GIB)])));
        assert!(measured.observe(&snapshot(&[
            ("a.large", registered, 9 * GIB),
            ("a.large", registered, 7 * GIB + 5),
        ])));
        assert!(!measured.observe(&snapshot(&[("a.large", registered, 8 * GIB)])));
        let corrected = measured.correct("default", &types);
        assert_eq!(corrected[0].capacity.memory, 7 * GIB);
        assert!(Arc::ptr_eq(&corrected[1], &types[1]));
        assert!(Arc::ptr_eq(&measured.correct("other", &types), &types), "of another image");
        // A node that has what was thought changes nothing.
        assert!(measured.observe(&snapshot(&[("b.large", registered, 8 * GIB)])));
        assert!(Arc::ptr_eq(&measured.correct("default", &types)[1], &types[1]));
    }
}
