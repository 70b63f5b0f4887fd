//! Whose usage it is: names, and the hashes that are kept of them.

use sha2::{Digest, Sha256};

use crate::model::labels::Labels;
use crate::model::workload::root_owner;

/// A container of a workload's pod, as samples and questions name it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// Kind and name of the workload that people know; see [`root_owner`].
    pub owner: (&'a str, &'a str),
    /// What tells revisions of the workload apart; the image where nothing does. Empty when it is not
    /// known, as in a template: then it is taken for the newest that was seen.
    pub revision: &'a str,
    /// Name of the container.
    pub container: &'a str,
    /// Its image as it is written.
    pub image: &'a str,
}

impl<'a> Subject<'a> {
    /// A container of a pod with `labels`, which `controller` (kind and name) manages. A pod without
    /// a controller is its own workload. Templates of workloads lack what tells revisions apart.
    pub fn new(
        controller: Option<(&'a str, &'a str)>,
        pod: &'a str,
        labels: &'a Labels,
        container: &'a str,
        image: &'a str,
    ) -> Self {
        let owner = controller.map_or(("Pod", pod), |(kind, name)| root_owner(kind, name, labels));
        let hash = ["pod-template-hash", "controller-revision-hash"]
            .into_iter()
            .find_map(|label| labels.get(label));
        let revision = match hash {
            Some(hash) => hash.as_str(),
            None if matches!(
                owner.0,
                "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet"
            ) =>
            {
                ""
            }
            None => image,
        };
        Self { owner, revision, container, image }
    }

    /// What is kept of the names.
    pub fn keys(&self) -> Keys {
        #[expect(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
        let revision = hash(&[self.revision]) as u32;
        let revision = if self.revision.is_empty() { 0 } else { revision.max(1) };
        let (repository, tag) = repository(self.image);
        Keys {
            container: self.container_key(),
            image: hash(&[repository]),
            name: hash(&[self.container]),
            revision,
            major: major(tag),
        }
    }

    /// Hash of what the container is in its namespace.
    pub(super) fn container_key(&self) -> u64 {
        hash(&[self.owner.0, self.owner.1, self.container])
    }
}

/// Hashes of a [`Subject`]'s names.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Keys {
    /// Of owner and container.
    pub(super) container: u64,
    /// Of the image's repository.
    pub(super) image: u64,
    /// Of the container's name.
    pub(super) name: u64,
    /// Of the revision; 0 when it is not known.
    pub(super) revision: u32,
    /// Major version that the image's tag tells; 0 when it tells none.
    pub(super) major: u16,
}

/// Hash of one container of one pod.
pub fn instance(pod_uid: &str, container: &str) -> u64 {
    hash(&[pod_uid, container])
}

fn major(tag: &str) -> u16 {
    let tag = tag.strip_prefix('v').unwrap_or(tag);
    let digits = tag.find(|c: char| !c.is_ascii_digit()).map_or(tag, |end| &tag[..end]);
    digits.parse().unwrap_or(0)
}

/// Repository and tag of an image; a digest is neither.
pub(super) fn repository(image: &str) -> (&str, &str) {
    let named = image.split('@').next().unwrap_or(image);
    match named.rsplit_once(':') {
        // A colon before a slash is that of a port.
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (named, ""),
    }
}

/// The first eight bytes of the SHA-256 of the parts: checkpoints outlive processes, so the hash must
/// be the same everywhere. Names in Kubernetes contain no NUL.
pub(super) fn hash(parts: &[&str]) -> u64 {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    digest.finalize().iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}
