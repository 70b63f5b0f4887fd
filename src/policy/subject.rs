//! One form for what is judged: a pod of a review or a template of a workload.

use crate::model::labels::Labels;
use crate::model::wire::pod::{ContainerWire, PodSpecWire};
use crate::model::wire::requests::{ResourceList, ResourcesWire};

use super::OPT_OUT_ANNOTATION;
use super::snapshot::{ContainerKind, Policy, Resource};
use super::view::{ContainerView, PodView};

/// The list of a pod's spec that a container is in.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ContainerList {
    /// `spec.containers`
    Containers,
    /// `spec.initContainers`
    InitContainers,
}

impl ContainerList {
    /// The field's name.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::InitContainers => "initContainers",
        }
    }
}

/// What is judged.
pub(super) struct Subject<'a> {
    pub(super) namespace: &'a str,
    /// Kind and name, for messages.
    pub(super) kind: &'a str,
    pub(super) name: &'a str,
    pub(super) labels: &'a Labels,
    /// The kind of the managing controller, and of its owner where that is known.
    pub(super) owner_kinds: [&'a str; 2],
    pub(super) opted_out: bool,
    pub(super) pod_level: Option<&'a ResourcesWire>,
    pub(super) slots: Vec<Slot<'a>>,
}

/// One container.
pub(super) struct Slot<'a> {
    pub(super) list: ContainerList,
    pub(super) index: usize,
    pub(super) name: &'a str,
    pub(super) kind: ContainerKind,
    /// Whether `resources` exists, so that a patch may add below it.
    pub(super) has_resources: bool,
    /// `resources.requests`, if it exists.
    pub(super) requests: Option<&'a ResourceList>,
    pub(super) limits: Option<&'a ResourceList>,
}

/// How a request stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    Present,
    Missing,
    /// Written down as zero.
    Zero,
}

impl Slot<'_> {
    /// How the request for `resource` stands. A limit alone counts as a request, because the API
    /// server copies it.
    pub(super) fn standing(&self, resource: Resource) -> Standing {
        match self.requests.and_then(|requests| requests.get(resource.name())) {
            Some(request) if request.is_zero() => Standing::Zero,
            Some(_) => Standing::Present,
            None => match self.limits.and_then(|limits| limits.get(resource.name())) {
                Some(limit) if !limit.is_zero() => Standing::Present,
                _ => Standing::Missing,
            },
        }
    }
}

impl<'a> Subject<'a> {
    /// A pod in `namespace`.
    pub(super) fn of_pod(pod: &'a PodView<'a>, namespace: &'a str) -> Self {
        let slot = |list, index, container: &'a ContainerView<'a>| Slot {
            list,
            index,
            name: &container.name,
            kind: kind(list, container.restart_policy.as_deref()),
            has_resources: container.resources.is_some(),
            requests: container.resources.as_ref().and_then(|r| r.requests.as_ref()),
            limits: container.resources.as_ref().and_then(|r| r.limits.as_ref()),
        };
        Self {
            namespace,
            kind: "pod",
            name: pod.name(),
            labels: pod.labels(),
            owner_kinds: match pod.controller() {
                Some((kind, name)) => owner_kinds(kind, name, pod.labels()),
                None => ["Pod", "Pod"],
            },
            opted_out: pod.annotations().and_then(|a| a.opt_out.as_deref()) == Some("skip"),
            pod_level: pod.spec.resources.as_ref(),
            slots: slots(&pod.spec.containers, &pod.spec.init_containers, slot),
        }
    }

    /// The pods that a workload's template makes. `owner` is the workload's kind and name.
    pub(super) fn of_template(
        metadata: &'a crate::model::wire::MetaWire,
        spec: &'a PodSpecWire,
        namespace: &'a str,
        owner: (&'a str, &'a str),
    ) -> Self {
        let slot = |list, index, container: &'a ContainerWire| Slot {
            list,
            index,
            name: &container.name,
            kind: kind(list, container.restart_policy.as_deref()),
            has_resources: true,
            requests: Some(&container.resources.requests),
            limits: Some(&container.resources.limits),
        };
        Self {
            namespace,
            kind: owner.0,
            name: owner.1,
            labels: &metadata.labels,
            owner_kinds: owner_kinds(owner.0, owner.1, &metadata.labels),
            opted_out: metadata.annotations.get(OPT_OUT_ANNOTATION).is_some_and(|v| v == "skip"),
            pod_level: spec.resources.as_ref(),
            slots: slots(&spec.containers, &spec.init_containers, slot),
        }
    }

    /// How messages call it: `pod shop/web`.
    pub(super) fn noun(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }

    /// Whether the policy selects the subject; its namespace is judged elsewhere.
    pub(super) fn is_selected_by(&self, policy: &Policy) -> bool {
        if self.opted_out && policy.allow_opt_out {
            return false;
        }
        policy.objects.as_ref().is_none_or(|selector| selector.matches(self.labels))
            && (policy.owner_kinds.is_empty()
                || policy.owner_kinds.iter().any(|kind| self.owner_kinds.contains(&&**kind)))
    }

    /// Whether pod-level resources make the containers' requests for `resource` needless.
    pub(super) fn is_set_for_pod(&self, resource: Resource) -> bool {
        let Some(resources) = self.pod_level.filter(|_| resource.has_pod_level()) else {
            return false;
        };
        match resources.requests.get(resource.name()) {
            Some(request) => !request.is_zero(),
            None => resources.limits.get(resource.name()).is_some_and(|limit| !limit.is_zero()),
        }
    }
}

fn slots<'a, T>(
    containers: &'a [T],
    init_containers: &'a [T],
    slot: impl Fn(ContainerList, usize, &'a T) -> Slot<'a>,
) -> Vec<Slot<'a>> {
    let main = containers.iter().enumerate();
    let init = init_containers.iter().enumerate();
    main.map(|(index, container)| slot(ContainerList::Containers, index, container))
        .chain(init.map(|(index, container)| slot(ContainerList::InitContainers, index, container)))
        .collect()
}

fn kind(list: ContainerList, restart_policy: Option<&str>) -> ContainerKind {
    match (list, restart_policy) {
        (ContainerList::Containers, _) => ContainerKind::Main,
        (ContainerList::InitContainers, Some("Always")) => ContainerKind::Sidecar,
        (ContainerList::InitContainers, _) => ContainerKind::Init,
    }
}

/// The kinds by which a policy may name the owner of a pod.
///
/// A ReplicaSet belongs to a Deployment when its name ends in the template hash that the Deployment
/// controller put on the pod. A Job does not tell whether a CronJob made it, so the pods of a
/// CronJob are those of a Job.
fn owner_kinds<'a>(kind: &'a str, name: &str, labels: &Labels) -> [&'a str; 2] {
    match kind {
        "Deployment" => ["Deployment", "ReplicaSet"],
        "CronJob" => ["Job", "Job"],
        "ReplicaSet" => {
            let of_deployment = labels
                .get("pod-template-hash")
                .and_then(|hash| name.strip_suffix(&**hash))
                .is_some_and(|rest| rest.ends_with('-'));
            [kind, if of_deployment { "Deployment" } else { kind }]
        }
        _ => [kind, kind],
    }
}
