//! Keys of labels, annotations, taints and finalizers that the API gives a meaning to.
//!
//! Decides which keys are reserved, which old spellings mean the same, and which wrong spellings deserve a hint.

/// The API group of `NodePool` and `NodeClaim`.
pub const KARPENTER_GROUP: &str = "karpenter.sh";
/// The API group of `EC2NodeClass`.
pub const AWS_GROUP: &str = "karpenter.k8s.aws";
/// The API group of our own kinds.
pub const HARBINGER_GROUP: &str = "harbinger.sh";

/// Label: the pool that a node belongs to.
pub const NODEPOOL: &str = "karpenter.sh/nodepool";
/// Label: how the capacity is bought.
pub const CAPACITY_TYPE: &str = "karpenter.sh/capacity-type";
/// Label on nodes: the node joined and was synchronised.
pub const REGISTERED: &str = "karpenter.sh/registered";
/// Label on nodes: the node may be counted on.
pub const INITIALIZED: &str = "karpenter.sh/initialized";

/// Values of [`CAPACITY_TYPE`].
pub const CAPACITY_TYPES: &[&str] = &[SPOT, ON_DEMAND, RESERVED];
/// Spare capacity that the cloud may take back.
pub const SPOT: &str = "spot";
/// Capacity at list price.
pub const ON_DEMAND: &str = "on-demand";
/// Capacity that is paid for already.
pub const RESERVED: &str = "reserved";

/// Annotation on pods and nodes: leave it alone.
pub const DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";
/// Annotation on claims: the moment (RFC 3339) at which draining stops being polite.
pub const TERMINATION_TIMESTAMP: &str = "karpenter.sh/nodeclaim-termination-timestamp";
/// Annotation on claims: `minValues` could not be held.
pub const MIN_VALUES_RELAXED: &str = "karpenter.sh/nodeclaim-min-values-relaxed";
/// Annotation on claims: the instance carries its claim's tags.
pub const TAGGED: &str = "karpenter.k8s.aws/tagged";
/// Annotation on claims: the profile that the instance was started with.
pub const INSTANCE_PROFILE_NAME: &str = "karpenter.k8s.aws/instance-profile-name";
/// Annotation on pods, read by us: which replica goes first.
pub const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Annotation on pod templates: [`REQUEST_POLICY_SKIP`] opts out where the policy allows it.
pub const REQUEST_POLICY: &str = "harbinger.sh/request-policy";
/// The one value of [`REQUEST_POLICY`].
pub const REQUEST_POLICY_SKIP: &str = "skip";

/// Finalizer on nodes and claims.
pub const TERMINATION_FINALIZER: &str = "karpenter.sh/termination";
/// Finalizer on node classes.
pub const CLASS_FINALIZER: &str = "karpenter.k8s.aws/termination";

/// Taint (`NoSchedule`): the node is going.
pub const DISRUPTED_TAINT: &str = "karpenter.sh/disrupted";
/// Taint (`NoExecute`): the node is not yet synchronised.
pub const UNREGISTERED_TAINT: &str = "karpenter.sh/unregistered";
/// Taint that the node controller owns.
pub const NOT_READY_TAINT: &str = "node.kubernetes.io/not-ready";
/// Taint that the node controller owns.
pub const UNREACHABLE_TAINT: &str = "node.kubernetes.io/unreachable";
/// Taint that a cloud controller takes off.
pub const CLOUD_UNINITIALIZED_TAINT: &str = "node.cloudprovider.kubernetes.io/uninitialized";
/// Start of the taint keys that readiness agents take off.
pub const READINESS_TAINT_PREFIX: &str = "readiness.k8s.io/";

/// Label: name of the machine. Never usable in a pool: each node has its own.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// Label: processor architecture in Go's words.
pub const ARCH: &str = "kubernetes.io/arch";
/// Label: operating system in Go's words.
pub const OS: &str = "kubernetes.io/os";
/// Label: instance type.
pub const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
/// Label: Windows build.
pub const WINDOWS_BUILD: &str = "node.kubernetes.io/windows-build";
/// Label: availability zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Label: region.
pub const REGION: &str = "topology.kubernetes.io/region";
/// Label: availability zone by id, the same in all accounts.
pub const ZONE_ID: &str = "topology.k8s.aws/zone-id";
/// Label on nodes that leave: keeps load balancers off.
pub const EXCLUDE_FROM_LOAD_BALANCERS: &str =
    "node.kubernetes.io/exclude-from-external-load-balancers";

/// Label and tag key: the class of a node.
pub const EC2NODECLASS: &str = "karpenter.k8s.aws/ec2nodeclass";
/// Label: first letters of the type, such as `c`.
pub const INSTANCE_CATEGORY: &str = "karpenter.k8s.aws/instance-category";
/// Label: text before the dot, such as `c7g`.
pub const INSTANCE_FAMILY: &str = "karpenter.k8s.aws/instance-family";
/// Label: the number in the family.
pub const INSTANCE_GENERATION: &str = "karpenter.k8s.aws/instance-generation";
/// Label: text after the dot, such as `2xlarge`.
pub const INSTANCE_SIZE: &str = "karpenter.k8s.aws/instance-size";

/// Labels that the instance types of EC2 carry.
pub const INSTANCE_LABELS: &[&str] = &[
    "karpenter.k8s.aws/instance-hypervisor",
    "karpenter.k8s.aws/instance-encryption-in-transit-supported",
    "karpenter.k8s.aws/nitro-sandbox",
    INSTANCE_CATEGORY,
    INSTANCE_GENERATION,
    INSTANCE_FAMILY,
    INSTANCE_SIZE,
    "karpenter.k8s.aws/instance-capability-flex",
    "karpenter.k8s.aws/instance-local-nvme",
    "karpenter.k8s.aws/instance-cpu",
    "karpenter.k8s.aws/instance-memory",
    "karpenter.k8s.aws/instance-cpu-manufacturer",
    "karpenter.k8s.aws/instance-cpu-sustained-clock-speed-mhz",
    "karpenter.k8s.aws/instance-ebs-bandwidth",
    "karpenter.k8s.aws/instance-network-bandwidth",
    "karpenter.k8s.aws/instance-gpu-name",
    "karpenter.k8s.aws/instance-gpu-manufacturer",
    "karpenter.k8s.aws/instance-gpu-count",
    "karpenter.k8s.aws/instance-gpu-memory",
    "karpenter.k8s.aws/instance-accelerator-name",
    "karpenter.k8s.aws/instance-accelerator-manufacturer",
    "karpenter.k8s.aws/instance-accelerator-count",
    "karpenter.k8s.aws/instance-tenancy",
    "karpenter.k8s.aws/capacity-reservation-id",
    "karpenter.k8s.aws/capacity-reservation-type",
    "karpenter.k8s.aws/capacity-reservation-interruptible",
    "karpenter.k8s.aws/placement-group-id",
    "karpenter.k8s.aws/placement-group-partition",
    EC2NODECLASS,
    ZONE_ID,
];

/// Labels with a meaning for scheduling on every cloud.
pub const WELL_KNOWN: &[&str] =
    &[NODEPOOL, CAPACITY_TYPE, ZONE, REGION, INSTANCE_TYPE, ARCH, OS, WINDOWS_BUILD];

/// Old spellings and what they are read as.
const ALIASES: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", ARCH),
    ("beta.kubernetes.io/os", OS),
    ("beta.kubernetes.io/instance-type", INSTANCE_TYPE),
    ("failure-domain.beta.kubernetes.io/zone", ZONE),
    ("failure-domain.beta.kubernetes.io/region", REGION),
    ("topology.ebs.csi.aws.com/zone", ZONE),
];

/// Keys that articles spread and that no node carries.
const WRONG: &[(&str, &str)] = &[
    ("karpenter.k8s.aws/instance-type", INSTANCE_TYPE),
    ("karpenter.sh/instance-type", INSTANCE_TYPE),
    ("kubernetes.io/instance-type", INSTANCE_TYPE),
    ("node.kubernetes.io/zone", ZONE),
    ("karpenter.k8s.aws/zone", ZONE),
    ("karpenter.sh/zone", ZONE),
    ("capacity-type", CAPACITY_TYPE),
    ("karpenter.k8s.aws/capacity-type", CAPACITY_TYPE),
    ("node.kubernetes.io/capacity-type", CAPACITY_TYPE),
    ("node.kubernetes.io/arch", ARCH),
    ("node.kubernetes.io/os", OS),
    ("karpenter.sh/instance-family", INSTANCE_FAMILY),
    ("karpenter.sh/instance-category", INSTANCE_CATEGORY),
    ("karpenter.sh/instance-size", INSTANCE_SIZE),
    ("karpenter.sh/provisioner-name", NODEPOOL),
];

/// The key that an old spelling stands for, else the key itself.
pub fn normalized(key: &str) -> &str {
    lookup(ALIASES, key).unwrap_or(key)
}

/// The right key for one that is known to be wrong.
pub fn corrected(key: &str) -> Option<&'static str> {
    lookup(WRONG, key)
}

fn lookup(table: &[(&'static str, &'static str)], key: &str) -> Option<&'static str> {
    table.iter().find(|(old, _)| *old == key).map(|(_, new)| *new)
}

/// The part before the slash; empty when there is none.
pub fn domain(key: &str) -> &str {
    key.split_once('/').map_or("", |(domain, _)| domain)
}

/// Whether pools, pods and users may not set this label themselves.
pub fn is_restricted(key: &str) -> bool {
    if WELL_KNOWN.contains(&key) {
        return false;
    }
    let domain = domain(key);
    key == HOSTNAME || domain == KARPENTER_GROUP || domain.ends_with(".karpenter.sh")
}

/// Whether some part of the system gives nodes this label.
pub fn is_known(key: &str) -> bool {
    WELL_KNOWN.contains(&key) || INSTANCE_LABELS.contains(&key) || key == HOSTNAME
}

/// The well-known key that was probably meant, when this key is not one itself.
pub fn suggestion(key: &str) -> Option<&'static str> {
    if is_known(key) {
        return None;
    }
    corrected(key).or_else(|| nearest(key, WELL_KNOWN.iter().chain(INSTANCE_LABELS).copied()))
}

/// The candidate that differs by the fewest edits, when that is few for its length.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 4).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (edits(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many insertions, deletions, replacements and swaps of neighbours lead from one word to the other.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_real_subdomains_are_restricted() {
        for key in ["karpenter.sh/x", "a.karpenter.sh/x", HOSTNAME] {
            assert!(is_restricted(key), "{key}");
        }
        for key in ["my-karpenter.sh/x", "karpenter.sh", CAPACITY_TYPE, "kubernetes.io/x", "team"] {
            assert!(!is_restricted(key), "{key}");
        }
    }

    #[test]
    fn a_mistyped_key_finds_its_neighbour() {
        assert_eq!(suggestion("karpenter.k8s.aws/instance-catagory"), Some(INSTANCE_CATEGORY));
        assert_eq!(suggestion("topology.kubernetes.io/zones"), Some(ZONE));
        assert_eq!(suggestion("karpenter.k8s.aws/instance-type"), Some(INSTANCE_TYPE));
        assert_eq!(suggestion("example.com/team"), None);
        assert_eq!(suggestion(ZONE), None);
    }

    #[test]
    fn aliases_are_read_as_the_stable_key() {
        assert_eq!(normalized("failure-domain.beta.kubernetes.io/zone"), ZONE);
        assert_eq!(normalized("example.com/x"), "example.com/x");
    }
}
