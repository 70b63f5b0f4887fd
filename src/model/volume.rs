//! Persistent volumes, as far as they decide where pods may be.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::labels::{LabelSelector, Labels};
use super::requirement::Requirements;

/// Provisioner of classes whose volumes somebody makes by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Ways in which a volume may be mounted, as a set.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AccessModes(u8);

impl AccessModes {
    const NAMES: [&str; 4] = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"];

    /// Reads the names of the API; unknown ones are left out.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let bit = |name: &str| Self::NAMES.iter().position(|known| *known == name);
        Self(names.into_iter().filter_map(bit).fold(0, |set, bit| set | 1 << bit))
    }

    /// Whether every mode of `asked` is among these.
    pub fn cover(self, asked: Self) -> bool {
        self.0 & asked.0 == asked.0
    }

    /// Whether only one pod at a time may use the volume (`ReadWriteOncePod`).
    pub fn one_pod(self) -> bool {
        self.0 & 0b1000 != 0
    }
}

/// What a claim asks for.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClaimSpec {
    /// Storage class; `None` is the default class, and an empty name is no class.
    pub class: Option<Arc<str>>,
    /// Access modes.
    pub modes: AccessModes,
    /// Size, bytes.
    pub size: i64,
    /// Whether it wants a raw block device.
    pub block: bool,
    /// Volumes that will do, where volumes are made by hand.
    pub selector: Option<LabelSelector>,
}

/// A claim that a pod mounts.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MountedClaim {
    /// Name, in the pod's namespace; empty where the claim is made with a pod that has no name yet.
    pub claim: Arc<str>,
    /// Whether the pod's number is missing at the end of the name: a template of a `StatefulSet`.
    pub open: bool,
    /// What the claim is made from where it is not there yet: ephemeral volumes, and claims of a
    /// `StatefulSet`.
    pub template: Option<Arc<ClaimSpec>>,
}

impl MountedClaim {
    /// The claim of a name that is not made with the pod.
    pub fn of(claim: &str) -> Self {
        Self { claim: claim.into(), ..Self::default() }
    }

    /// The name, if it is known.
    pub fn name(&self) -> Option<&Arc<str>> {
        Some(&self.claim).filter(|name| !self.open && !name.is_empty())
    }

    /// The claim of the pod with this number.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Self {
        if !self.open {
            return self.clone();
        }
        let claim = format!("{}{number}", self.claim).into();
        Self { claim, open: false, template: self.template.clone() }
    }
}

/// A `PersistentVolumeClaim`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct VolumeClaim {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// What it asks for.
    pub spec: ClaimSpec,
    /// Volume that it is, or is to be, bound to.
    pub volume: Option<Arc<str>>,
    /// Whether the binding is complete.
    pub bound: bool,
    /// Whether its volume was lost.
    pub lost: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Node that the scheduler chose for a volume that is being made.
    pub selected_node: Option<Arc<str>>,
}

/// A `PersistentVolume`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PersistentVolume {
    /// Name.
    pub name: Arc<str>,
    /// Labels, seen by the selectors of claims.
    pub labels: Labels,
    /// Storage class; empty for none.
    pub class: Arc<str>,
    /// Where it can be reached, one of which must hold: the terms of its node affinity, each with
    /// the zones that its labels name. `None` is everywhere.
    pub reach: Option<Vec<Requirements>>,
    /// Driver and handle of a CSI volume (or of one that is translated to CSI).
    pub handle: Option<(Arc<str>, Arc<str>)>,
    /// Access modes.
    pub modes: AccessModes,
    /// Size, bytes.
    pub size: i64,
    /// Whether it is a raw block device.
    pub block: bool,
    /// Claim that it is bound to or kept for: namespace and name.
    pub claim: Option<(Arc<str>, Arc<str>)>,
    /// Whether a claim may still be bound to it.
    pub available: bool,
}

/// A `StorageClass`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StorageClass {
    /// Name.
    pub name: Arc<str>,
    /// Driver that makes volumes, by its CSI name.
    pub provisioner: Arc<str>,
    /// Whether volumes are made where their first pod is (`WaitForFirstConsumer`).
    pub waits: bool,
    /// Where volumes may be made, one of which must hold; `None` is everywhere.
    pub topologies: Option<Vec<Requirements>>,
    /// Whether claims that name no class get it.
    pub default: bool,
    /// When it was created, seconds since the epoch: of several defaults the newest counts.
    pub created_at: i64,
}

impl StorageClass {
    /// Whether volumes of the class are made by hand.
    pub fn by_hand(&self) -> bool {
        self.provisioner.is_empty() || &*self.provisioner == NO_PROVISIONER
    }
}

/// A `CSINode`: how many volumes of each driver its node can attach. Drivers without a limit are
/// left out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CsiNode {
    /// Name of the node.
    pub name: Arc<str>,
    /// Limits by driver.
    pub limits: BTreeMap<Arc<str>, i64>,
}

/// A `VolumeAttachment`: a volume that is attached to a node, or about to be.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Attachment {
    /// Name.
    pub name: Arc<str>,
    /// Name of the node.
    pub node: Arc<str>,
    /// Name of the volume.
    pub volume: Arc<str>,
}

/// Namespace and name of a claim.
pub type ClaimKey = (Arc<str>, Arc<str>);

/// Everything that is known of volumes. Cloning costs five reference counts.
#[derive(Clone, Debug, Default)]
pub struct Volumes {
    /// Claims by namespace and name.
    pub claims: Arc<BTreeMap<ClaimKey, Arc<VolumeClaim>>>,
    /// Volumes by name.
    pub volumes: Arc<BTreeMap<Arc<str>, Arc<PersistentVolume>>>,
    /// Storage classes by name.
    pub classes: Arc<BTreeMap<Arc<str>, Arc<StorageClass>>>,
    /// CSI nodes by name of the node.
    pub nodes: Arc<BTreeMap<Arc<str>, Arc<CsiNode>>>,
    /// Attachments by name.
    pub attachments: Arc<BTreeMap<Arc<str>, Arc<Attachment>>>,
}

impl Volumes {
    /// The claim that a pod of a namespace mounts, if it is there.
    pub fn claim(&self, namespace: &Arc<str>, mounted: &MountedClaim) -> Option<&VolumeClaim> {
        let key = (Arc::clone(namespace), Arc::clone(mounted.name()?));
        self.claims.get(&key).map(|claim| &**claim)
    }

    /// Name of the class that counts for a claim; `None` where it has none.
    pub fn class_name<'a>(&'a self, spec: &'a ClaimSpec) -> Option<&'a Arc<str>> {
        if let Some(name) = &spec.class {
            Some(name).filter(|name| !name.is_empty())
        } else {
            let defaults = self.classes.values().filter(|class| class.default);
            let newest = defaults
                .max_by_key(|class| (class.created_at, std::cmp::Reverse(Arc::clone(&class.name))));
            newest.map(|class| &class.name)
        }
    }

    /// The class that counts for a claim, if it is there.
    pub fn class(&self, spec: &ClaimSpec) -> Option<&StorageClass> {
        self.class_name(spec).and_then(|name| self.classes.get(name)).map(|class| &**class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_sets() {
        let of = |names: &[&str]| AccessModes::parse(names.iter().copied());
        let both = of(&["ReadWriteOnce", "ReadOnlyMany"]);
        assert!(both.cover(of(&["ReadWriteOnce"])) && !of(&["ReadWriteOnce"]).cover(both));
        assert!(of(&["ReadWriteOncePod"]).one_pod() && !both.one_pod());
        assert_eq!(of(&["ReadAnything"]), AccessModes::default());
    }

    #[test]
    fn the_newest_default_class_counts() {
        let class = |name: &str, default, created_at| {
            let class =
                StorageClass { name: name.into(), default, created_at, ..StorageClass::default() };
            (Arc::clone(&class.name), Arc::new(class))
        };
        let classes = [class("a", true, 1), class("b", true, 2), class("c", false, 3)];
        let book = Volumes { classes: Arc::new(classes.into()), ..Volumes::default() };
        let spec =
            |class: Option<&str>| ClaimSpec { class: class.map(Arc::from), ..ClaimSpec::default() };
        assert_eq!(book.class_name(&spec(None)).map(|name| &**name), Some("b"));
        assert_eq!(book.class_name(&spec(Some(""))), None);
        assert_eq!(book.class_name(&spec(Some("gone"))).map(|name| &**name), Some("gone"));
        assert!(book.class(&spec(Some("gone"))).is_none());
    }
}
