//! One form for what is judged: a pod of a review or a template of a workload.

use crate::model::labels::Labels;
use crate::model::pod::PodShape;
use crate::model::resources::Resources;
use crate::model::wire::MetaWire;
use crate::model::wire::pod::{ContainerWire, PodSpecWire, PodStatusWire, shape};
use crate::model::wire::requests::{ResourceList, ResourcesWire};
use crate::model::workload::{cron_job_of, known_workload};

use super::OPT_OUT_ANNOTATION;
use super::bounds::{Bound, Bounds};
use super::decide::User;
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
    /// Kind and name of the workload whose pod it is; none of a pod that nobody makes.
    pub(super) workload: Option<(&'a str, &'a str)>,
    /// The kind of the managing controller, and of its owner where that is known.
    pub(super) owner_kinds: [&'a str; 2],
    pub(super) opted_out: bool,
    /// Who makes the pod, where that is known.
    pub(super) user: User<'a>,
    pub(super) priority_class: &'a str,
    /// Whether the pod has a deadline, by which quotas tell pods apart.
    pub(super) has_deadline: bool,
    /// `terminationGracePeriodSeconds`.
    pub(super) grace: Option<i64>,
    pub(super) pod_level: Option<&'a ResourcesWire>,
    pub(super) overhead: &'a ResourceList,
    place: Place<'a>,
    pub(super) slots: Vec<Slot<'a>>,
}

/// Where it says where its pods may be.
enum Place<'a> {
    Pod(&'a PodView<'a>),
    Template(&'a PodSpecWire),
}

/// One container.
pub(super) struct Slot<'a> {
    pub(super) list: ContainerList,
    pub(super) index: usize,
    pub(super) name: &'a str,
    pub(super) kind: ContainerKind,
    pub(super) image: &'a str,
    /// Whether it has ports and no `preStop` hook.
    pub(super) stops_at_once: bool,
    /// Whether `lifecycle` exists, so that a patch may add below it.
    pub(super) has_lifecycle: bool,
    /// Whether `resources` exists, so that a patch may add below it.
    pub(super) has_resources: bool,
    /// `resources.requests`, if it exists.
    pub(super) requests: Option<&'a ResourceList>,
    /// `resources.limits`, if it exists.
    limits: Option<&'a ResourceList>,
    /// What the API server will read there once it has filled in its defaults.
    pub(super) amounts: [Amounts; 3],
}

/// Request and limit of a container for one resource; millicores or bytes, the request rounded up and
/// the limit down.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Amounts {
    pub(super) request: Option<i64>,
    pub(super) limit: Option<i64>,
}

impl Amounts {
    /// The API server copies a limit to a request that is absent; LimitRanges fill in what is absent
    /// after that. Both happen before webhooks are called and again after they changed something.
    fn of(
        requests: Option<&ResourceList>,
        limits: Option<&ResourceList>,
        bounds: Option<&Bounds>,
    ) -> [Self; 3] {
        Resource::ALL.map(|resource| {
            let name = resource.name();
            let limit = limits.and_then(|list| list.get(name)).copied();
            let request = requests.and_then(|list| list.get(name)).copied().or(limit);
            let request = request.map(|quantity| Resources::amount(name, quantity));
            let limit = limit.map(|quantity| Resources::amount_floor(name, quantity));
            let range = bounds.map(|bounds| &bounds.container[resource as usize]);
            let filled = |bound: Option<&Option<Bound>>| Some(bound?.as_ref()?.amount);
            Self {
                request: request.or_else(|| filled(range.map(|range| &range.default_request))),
                limit: limit.or_else(|| filled(range.map(|range| &range.default_limit))),
            }
        })
    }
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
    /// Request and limit for a resource.
    pub(super) fn amounts(&self, resource: Resource) -> Amounts {
        self.amounts[resource as usize]
    }

    /// How the request for `resource` stands.
    pub(super) fn standing(&self, resource: Resource) -> Standing {
        match self.amounts(resource).request {
            None => Standing::Missing,
            Some(0) => Standing::Zero,
            Some(_) => Standing::Present,
        }
    }
}

impl<'a> Subject<'a> {
    /// A pod in `namespace`, which has `bounds`.
    pub(super) fn of_pod(
        pod: &'a PodView<'a>,
        namespace: &'a str,
        user: User<'a>,
        bounds: Option<&Bounds>,
    ) -> Self {
        let slot = |list, index, container: &'a ContainerView<'a>| {
            let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
            let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
            Slot {
                list,
                index,
                name: &container.name,
                kind: kind(list, container.restart_policy.as_deref()),
                image: container.image.as_deref().unwrap_or_default(),
                stops_at_once: !container.ports.is_empty()
                    && container.lifecycle.as_ref().is_none_or(|l| l.pre_stop.is_none()),
                has_lifecycle: container.lifecycle.is_some(),
                has_resources: container.resources.is_some(),
                requests,
                limits,
                amounts: Amounts::of(requests, limits, bounds),
            }
        };
        Self {
            namespace,
            kind: "pod",
            name: pod.name(),
            labels: pod.labels(),
            workload: pod.workload(),
            owner_kinds: match pod.controller() {
                Some((kind, name)) => owner_kinds(kind, name, pod.labels()),
                None => ["Pod", "Pod"],
            },
            opted_out: pod.annotations().and_then(|a| a.opt_out.as_deref()) == Some("skip"),
            user,
            priority_class: pod.spec.priority_class_name.as_deref().unwrap_or_default(),
            has_deadline: pod.spec.active_deadline_seconds.is_some(),
            grace: pod.spec.termination_grace_period_seconds,
            pod_level: pod.spec.resources.as_ref(),
            overhead: &pod.spec.overhead,
            place: Place::Pod(pod),
            slots: slots(&pod.spec.containers, &pod.spec.init_containers, slot),
        }
    }

    /// The pods that a workload's template makes. `owner` is the workload's kind and name. Who will
    /// make them is not known, and whether they will have a deadline neither.
    pub(super) fn of_template(
        metadata: &'a crate::model::wire::MetaWire,
        spec: &'a PodSpecWire,
        namespace: &'a str,
        owner: (&'a str, &'a str),
        bounds: Option<&Bounds>,
    ) -> Self {
        let slot = |list, index, container: &'a ContainerWire| Slot {
            list,
            index,
            name: &container.name,
            kind: kind(list, container.restart_policy.as_deref()),
            image: container.image.as_deref().unwrap_or_default(),
            stops_at_once: !container.ports.is_empty()
                && container.lifecycle.as_ref().is_none_or(|l| l.pre_stop.is_none()),
            has_lifecycle: container.lifecycle.is_some(),
            has_resources: true,
            requests: Some(&container.resources.requests),
            limits: Some(&container.resources.limits),
            amounts: Amounts::of(
                Some(&container.resources.requests),
                Some(&container.resources.limits),
                bounds,
            ),
        };
        Self {
            namespace,
            kind: owner.0,
            name: owner.1,
            labels: &metadata.labels,
            workload: (owner.0 != "Pod")
                .then(|| known_workload(owner.0, owner.1, &metadata.labels)),
            owner_kinds: owner_kinds(owner.0, owner.1, &metadata.labels),
            opted_out: metadata.annotations.get(OPT_OUT_ANNOTATION).is_some_and(|v| v == "skip"),
            user: User::default(),
            priority_class: spec.priority_class_name.as_deref().unwrap_or_default(),
            has_deadline: false,
            grace: spec.termination_grace_period_seconds,
            pod_level: spec.resources.as_ref(),
            overhead: &spec.overhead,
            place: Place::Template(spec),
            slots: slots(&spec.containers, &spec.init_containers, slot),
        }
    }

    /// How messages call it: `pod shop/web`.
    pub(super) fn noun(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }

    /// Whether the policy selects the subject; its namespace and the policy's conditions are judged
    /// elsewhere.
    pub(super) fn is_selected_by(&self, policy: &Policy) -> bool {
        if policy.allow_opt_out && (self.opted_out || self.is_exempt(policy)) {
            return false;
        }
        policy.objects.as_ref().is_none_or(|selector| selector.matches(self.labels))
            && (policy.owner_kinds.is_empty()
                || policy.owner_kinds.iter().any(|kind| self.owner_kinds.contains(&&**kind)))
            && (policy.priority_classes.is_empty()
                || policy.priority_classes.iter().any(|class| class == self.priority_class))
    }

    fn is_exempt(&self, policy: &Policy) -> bool {
        let User { name, groups } = self.user;
        policy.exempt_users.iter().any(|user| user == name)
            || policy.exempt_groups.iter().any(|exempt| groups.iter().any(|group| group == exempt))
    }

    /// The request that `spec.resources` makes for the pod as a whole; millicores or bytes, rounded
    /// down, since its containers must stay within it.
    pub(super) fn pod_request(&self, resource: Resource) -> Option<i64> {
        let resources = self.pod_level.filter(|_| resource.has_pod_level())?;
        let name = resource.name();
        let quantity = resources.requests.get(name).or_else(|| resources.limits.get(name))?;
        Some(Resources::amount_floor(name, *quantity))
    }

    /// Whether pod-level resources make the containers' requests for `resource` needless.
    pub(super) fn is_set_for_pod(&self, resource: Resource) -> bool {
        self.pod_request(resource).is_some_and(|request| request != 0)
    }

    /// What its pods ask of a node, amounts of the resources that every node has aside.
    pub(super) fn placement(&self) -> PodShape {
        let spec = match &self.place {
            Place::Pod(pod) => pod.to_placement(),
            Place::Template(spec) => PodSpecWire {
                node_selector: spec.node_selector.clone(),
                affinity: spec.affinity.clone(),
                tolerations: spec.tolerations.clone(),
                ..PodSpecWire::default()
            },
        };
        let mut shape = shape(&MetaWire::default(), &spec, &PodStatusWire::default());
        for slot in &self.slots {
            // Of devices no container may have more than it asks for, so either list names all.
            for list in [slot.requests, slot.limits].into_iter().flatten() {
                for (name, quantity) in list {
                    if Resource::parse(name).is_none() {
                        let amount = Resources::amount(name, *quantity);
                        shape.requests.set(name, amount.max(shape.requests.get(name)));
                    }
                }
            }
        }
        shape
    }

    /// Whether it is a pod of a DaemonSet.
    pub(super) fn of_daemon_set(&self) -> bool {
        self.owner_kinds.contains(&"DaemonSet")
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
/// controller put on the pod. Pods name their Job only, and its name tells whether a CronJob made it.
fn owner_kinds<'a>(kind: &'a str, name: &'a str, labels: &Labels) -> [&'a str; 2] {
    match kind {
        "Deployment" => ["Deployment", "ReplicaSet"],
        "CronJob" => ["CronJob", "Job"],
        "Job" if cron_job_of(name).is_some() => ["CronJob", "Job"],
        _ => [kind, known_workload(kind, name, labels).0],
    }
}
