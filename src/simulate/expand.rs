//! Workloads as the pods that they make.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::input::Input;
use crate::model::pod::{Pod, PodPhase, PodShape};
use crate::model::wire::pod::PodWire;
use crate::model::wire::workload::{TemplateWire, WorkloadWire};
use crate::model::workload::WorkloadKind;
use crate::policy::{self, Preview, Snapshot};

/// A pod and the spec that it was made from.
#[derive(Clone, Debug)]
pub struct Expanded {
    /// `namespace/name`.
    pub key: String,
    /// The pod.
    pub pod: Pod,
    /// What request policies do to it.
    pub preview: Arc<Preview>,
}

impl Expanded {
    /// Whether the pod waits for a place and is let in.
    pub fn waits(&self) -> bool {
        self.pod.waiting() && self.preview.refusal.is_none()
    }
}

/// The policies that pods meet on their way in, and the moment at which they do. What ResourceQuotas
/// leave is less after each pod.
#[derive(Debug)]
pub struct Door {
    /// Policies.
    pub policies: Snapshot,
    /// Moment.
    pub now: Timestamp,
}

impl Door {
    /// A pod is judged when it is made; one that runs was let in long ago.
    fn admit(&mut self, mut pod: PodWire, owner: (&str, &str)) -> (PodWire, Arc<Preview>) {
        if pod.spec.node_name.is_some() {
            let spec = pod.spec.clone();
            let preview = Preview { spec, findings: Vec::new(), refusal: None, qos: None };
            return (pod, Arc::new(preview));
        }
        let namespace = pod.metadata.namespace().to_owned();
        let mut template = template(&pod);
        let mut preview = policy::preview(&template, &namespace, owner, &self.policies, self.now);
        pod.spec = preview.spec.clone();
        template.spec = preview.spec.clone();
        if preview.refusal.is_none() && !is_over(&pod) {
            let refusing = self.policies.charge(&template, &namespace, owner, true);
            preview.refusal = refusing
                .map(|quota| format!("{} {namespace}/{}: {quota} refuses it", owner.0, owner.1));
        }
        (pod, Arc::new(preview))
    }
}

fn template(pod: &PodWire) -> TemplateWire {
    TemplateWire { metadata: pod.metadata.clone(), spec: pod.spec.clone() }
}

fn is_over(pod: &PodWire) -> bool {
    matches!(pod.status.phase, PodPhase::Succeeded | PodPhase::Failed)
}

/// All pods: those of the files, and those that workloads of the files will make. A pod that says
/// that a workload of the files owns it stands for one of the workload's pods.
pub fn pods(input: &mut Input, door: &mut Door) -> Vec<Expanded> {
    let mut all = Vec::new();
    for pod in input.pods.iter().filter(|pod| pod.spec.node_name.is_some() && !is_over(pod)) {
        let owner = owner(pod).unwrap_or(("Pod", pod.metadata.name()));
        door.policies.charge(&template(pod), pod.metadata.namespace(), owner, false);
    }
    for pod in &mut input.pods {
        if let (None, Some(class)) = (pod.spec.priority, &pod.spec.priority_class_name) {
            pod.spec.priority = input.priorities.get(class).copied();
        }
        let name = pod.metadata.name().to_owned();
        let owner = owner(pod).map(|(kind, name)| (kind.to_owned(), name.to_owned()));
        let owner = owner.unwrap_or_else(|| ("Pod".to_owned(), name));
        let (admitted, preview) = door.admit(std::mem::take(pod), (&owner.0, &owner.1));
        *pod = admitted;
        all.push(expanded(pod, preview));
    }
    let mut taken: BTreeSet<String> = all.iter().map(|pod| pod.key.clone()).collect();
    for (kind, workload) in &input.workloads {
        let meta = &workload.metadata;
        let owned = |wanted: WorkloadKind, name: &str| {
            input.pods.iter().any(|pod| owner(pod) == Some((wanted.name(), name)))
        };
        let listed = input
            .pods
            .iter()
            .filter(|pod| {
                pod.metadata.namespace() == meta.namespace()
                    && owner(pod) == Some((kind.name(), meta.name()))
            })
            .count();
        // Deployments own pods through ReplicaSets, CronJobs through Jobs: if those are listed
        // themselves, they are counted there.
        let through = match kind {
            WorkloadKind::Deployment => owns(input, WorkloadKind::ReplicaSet, workload),
            WorkloadKind::CronJob => owns(input, WorkloadKind::Job, workload),
            _ => false,
        };
        let controlled = meta.controller().is_some_and(|owner| {
            WorkloadKind::parse(&owner.kind).is_some_and(|kind| owned(kind, &owner.name))
        });
        if through || controlled {
            continue;
        }
        let wanted = wanted(*kind, workload);
        let pod = made(input, workload);
        // One pod is like the next, unless a quota counts them.
        let counts = door.policies.has_quota(meta.namespace());
        let mut admitted = None;
        let mut left = wanted.saturating_sub(u32::try_from(listed).unwrap_or(u32::MAX));
        // Pods of a StatefulSet are numbered, and have the claims of their number.
        let numbered = *kind == WorkloadKind::StatefulSet;
        let mut index = workload.spec.ordinals.map_or(0, |ordinals| ordinals.start);
        while left > 0 {
            let mut name = format!("{}-{index}", meta.name());
            let claims: Vec<_> = workload.claims().map(|claim| claim.numbered(index)).collect();
            index += 1;
            if !taken.insert(format!("{}/{name}", meta.namespace())) {
                if numbered {
                    continue;
                }
                while !taken.insert(format!("{}/{name}", meta.namespace())) {
                    name.push('x');
                }
            }
            left -= 1;
            if counts {
                admitted = None;
            }
            let owner = (kind.name(), meta.name());
            let (pod, preview) = admitted.get_or_insert_with(|| door.admit(pod.clone(), owner));
            pod.metadata.name = Some(name);
            let mut made = expanded(pod, Arc::clone(preview));
            if !claims.is_empty() {
                let shape = Arc::make_mut(&mut made.pod.shape);
                shape.claims.extend(claims);
                shape.claims.sort();
            }
            all.push(made);
        }
    }
    all
}

/// A pod of each DaemonSet as it will be let in.
pub(super) fn daemons(input: &Input, policies: &Snapshot, now: Timestamp) -> Vec<Arc<PodShape>> {
    let sets = input.workloads.iter().filter(|(kind, _)| *kind == WorkloadKind::DaemonSet);
    let shape = |(kind, workload): &(WorkloadKind, WorkloadWire)| {
        let mut workload = workload.clone();
        policy::settle(*kind, &mut workload, policies, now);
        Arc::new(workload.template_shape())
    };
    sets.map(shape).collect()
}

/// How many pods a workload makes here: of a CronJob one run counts, of a DaemonSet none.
pub(super) fn wanted(kind: WorkloadKind, workload: &WorkloadWire) -> u32 {
    match kind {
        WorkloadKind::DaemonSet => 0,
        kind => workload.at_once(kind),
    }
}

fn owns(input: &Input, kind: WorkloadKind, owner: &WorkloadWire) -> bool {
    input.workloads.iter().any(|(other, workload)| {
        *other == kind
            && workload.metadata.namespace() == owner.metadata.namespace()
            && workload.metadata.controller().is_some_and(|o| *o.name == *owner.metadata.name())
            && workload.desired(kind) > 0
    })
}

fn owner(pod: &PodWire) -> Option<(&str, &str)> {
    let owner =
        pod.metadata.owner_references.iter().find(|owner| owner.controller == Some(true))?;
    Some((&owner.kind, &owner.name))
}

fn made(input: &Input, workload: &WorkloadWire) -> PodWire {
    let template = workload.template();
    let mut pod = PodWire {
        metadata: template.metadata.clone(),
        spec: template.spec.clone(),
        ..PodWire::default()
    };
    pod.metadata.namespace.clone_from(&workload.metadata.namespace);
    if let (None, Some(class)) = (pod.spec.priority, &pod.spec.priority_class_name) {
        pod.spec.priority = input.priorities.get(class).copied();
    }
    pod
}

fn expanded(pod: &PodWire, preview: Arc<Preview>) -> Expanded {
    let pod = pod.to_pod(Arc::new);
    Expanded { key: pod.key(), pod, preview }
}
