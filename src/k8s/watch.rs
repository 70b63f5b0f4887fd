//! Watches: each kind's stream of events, projected and sent on.
//!
//! An object that cannot be read is skipped with a warning, so that one broken object does not
//! blind the rest. A gap ends in a full list, which the receiver compares with what it has.

use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::scheduling::v1beta1 as scheduling;
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::usage;
use super::wire::{
    AttachmentObject, ClaimObject, ClassObject, CronJobObject, CsiNodeObject, DaemonSetObject,
    DeploymentObject, JobObject, NodeObject, PodObject, ReplicaSetObject, StatefulSetObject,
    VolumeObject,
};
use crate::api::demandprofile::DemandProfile;
use crate::api::ec2nodeclass::EC2NodeClass;
use crate::api::nodeclaim::NodeClaim;
use crate::api::nodeoverlay::NodeOverlay;
use crate::api::nodepool::NodePool;
use crate::api::project;
use crate::api::requestpolicy::RequestPolicy;
use crate::cluster::{Change, Event};
use crate::model::companions::{Budget, Priority, Scaler};
use crate::model::failure::Failure;
use crate::model::labels::Labels;
use crate::model::wire::node::NodeWire;
use crate::model::wire::pod::PodWire;
use crate::model::wire::volume::{
    AttachmentWire, ClaimWire, ClassWire, CsiNodeWire, VolumeObjectWire,
};
use crate::model::wire::workload::WorkloadWire;
use crate::model::workload::WorkloadKind;

/// Starts watches on one client.
#[derive(Clone)]
pub struct Watches {
    /// Client.
    pub client: Client,
    /// Keeps the tasks.
    pub tracker: TaskTracker,
    /// Ends them.
    pub cancel: CancellationToken,
}

/// Changes a workload's template into what its pods will be.
pub type Effective = Arc<dyn Fn(WorkloadKind, &mut WorkloadWire) + Send + Sync>;

type Named<T> = Change<Arc<str>, T>;

/// Which objects of a kind are watched, and how.
struct Scope {
    config: watcher::Config,
    /// Whether the API server may not know the kind, which then has no objects. Of others it means that
    /// the installation is broken, and the watch is tried until the kind is there.
    optional: bool,
}

impl Scope {
    fn all() -> Self {
        Self { config: watcher::Config::default(), optional: false }
    }

    fn fields(selector: &str) -> Self {
        Self { config: watcher::Config::default().fields(selector), optional: false }
    }

    fn optional() -> Self {
        Self { optional: true, ..Self::all() }
    }

    /// Lists are read so many objects at a time; the kind may be absent.
    fn paged(size: u32) -> Self {
        Self { config: watcher::Config::default().page_size(size), optional: true }
    }
}

/// Namespace and name of an object.
pub type Place = (Arc<str>, Arc<str>);

fn place<K: Resource>(object: &K) -> Place {
    (object.namespace().unwrap_or_default().into(), object.name_any().into())
}

impl Watches {
    /// Watches everything that the cluster's state is made of, except workloads.
    pub fn cluster<M: Send + 'static>(&self, to: &Sender<M>, wrap: fn(Event) -> M) {
        self.start::<PodObject, _, _, _>(
            Scope::fields("status.phase!=Succeeded,status.phase!=Failed"),
            to,
            place,
            |pod| Some(PodWire::from(pod).to_pod(Arc::new)),
            move |change| wrap(Event::Pods(change)),
        );
        self.start::<NodeObject, _, _, _>(
            Scope::all(),
            to,
            |node| node.name_any().into(),
            |node| Some(NodeWire::from(node).to_node()),
            move |change| wrap(Event::Nodes(change)),
        );
        self.start::<NodeClaim, _, _, _>(
            Scope::all(),
            to,
            |claim| claim.name_any().into(),
            |claim| Some(project::claim(&claim)),
            move |change| wrap(Event::Claims(change)),
        );
        self.start::<NodePool, _, _, _>(
            Scope::all(),
            to,
            |pool| pool.name_any().into(),
            |pool| Some(project::pool(&pool)),
            move |change| wrap(Event::Pools(change)),
        );
        // A cluster may have been installed before this kind was, and few serve the next one.
        self.start::<NodeOverlay, _, _, _>(
            Scope::optional(),
            to,
            |overlay| overlay.name_any().into(),
            |overlay| Some(project::overlay(&overlay)),
            move |change| wrap(Event::Overlays(change)),
        );
        self.start::<scheduling::PodGroup, _, _, _>(
            Scope::optional(),
            to,
            place,
            |group| Some(group.into()),
            move |change| wrap(Event::PodGroups(change)),
        );
        self.namespaces(to, move |change| wrap(Event::Namespaces(change)));
        self.volumes(to, wrap);
    }

    /// Watches what decides where pods with volumes may be, and which nodes hold volumes.
    fn volumes<M: Send + 'static>(&self, to: &Sender<M>, wrap: fn(Event) -> M) {
        self.start::<ClaimObject, _, _, _>(
            Scope::all(),
            to,
            place,
            |claim| Some(ClaimWire::from(claim).to_claim()),
            move |change| wrap(Event::VolumeClaims(change)),
        );
        self.start::<VolumeObject, _, _, _>(
            Scope::all(),
            to,
            |volume| volume.name_any().into(),
            |volume| Some(VolumeObjectWire::from(volume).to_volume()),
            move |change| wrap(Event::Volumes(change)),
        );
        self.start::<ClassObject, _, _, _>(
            Scope::all(),
            to,
            |class| class.name_any().into(),
            |class| Some(ClassWire::from(class).to_class()),
            move |change| wrap(Event::StorageClasses(change)),
        );
        self.start::<CsiNodeObject, _, _, _>(
            Scope::all(),
            to,
            |node| node.name_any().into(),
            |node| Some(CsiNodeWire::from(node).to_csi_node()),
            move |change| wrap(Event::CsiNodes(change)),
        );
        self.start::<AttachmentObject, _, _, _>(
            Scope::all(),
            to,
            |attachment| attachment.name_any().into(),
            |attachment| AttachmentWire::from(attachment).to_attachment(),
            move |change| wrap(Event::Attachments(change)),
        );
    }

    /// Watches the workloads that make pods. `effective` gives each template the requests that its
    /// pods will have.
    pub fn workloads<M: Send + 'static>(
        &self,
        to: &Sender<M>,
        wrap: fn(Event) -> M,
        effective: &Effective,
    ) {
        self.workload::<DeploymentObject, M>(WorkloadKind::Deployment, to, wrap, effective);
        self.workload::<ReplicaSetObject, M>(WorkloadKind::ReplicaSet, to, wrap, effective);
        self.workload::<StatefulSetObject, M>(WorkloadKind::StatefulSet, to, wrap, effective);
        self.workload::<DaemonSetObject, M>(WorkloadKind::DaemonSet, to, wrap, effective);
        self.workload::<JobObject, M>(WorkloadKind::Job, to, wrap, effective);
        self.workload::<CronJobObject, M>(WorkloadKind::CronJob, to, wrap, effective);
    }

    /// Watches the failures of pods that ended, evicted ones above all. Kills of containers whose pod
    /// goes on are in the pods of [`Self::cluster`]. A failure stays true when its pod is gone.
    pub fn failures<M: Send + 'static>(
        &self,
        to: &Sender<M>,
        wrap: impl Fn(Vec<Arc<Failure>>) -> M + Send + 'static,
    ) {
        self.start::<PodObject, _, _, _>(
            Scope::fields("status.phase=Failed"),
            to,
            place,
            |pod| PodWire::from(pod).failure().map(Arc::new),
            move |change| {
                wrap(match change {
                    Change::Upsert(failure) => vec![failure],
                    Change::Replace(failures) => failures,
                    Change::Delete(_) => Vec::new(),
                })
            },
        );
    }

    /// Watches namespaces: names with labels.
    pub fn namespaces<M: Send + 'static>(
        &self,
        to: &Sender<M>,
        wrap: impl Fn(Named<(Arc<str>, Labels)>) -> M + Send + 'static,
    ) {
        self.start::<Namespace, _, _, _>(
            Scope::all(),
            to,
            |namespace| namespace.name_any().into(),
            |namespace| {
                let labels: Labels = namespace.labels().clone();
                Some((namespace.name_any().into(), labels))
            },
            wrap,
        );
    }

    fn workload<K, M: Send + 'static>(
        &self,
        kind: WorkloadKind,
        to: &Sender<M>,
        wrap: fn(Event) -> M,
        effective: &Effective,
    ) where
        K: Resource<DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Into<WorkloadWire>
            + 'static,
    {
        let effective = Arc::clone(effective);
        self.start::<K, _, _, _>(
            Scope::all(),
            to,
            place,
            move |object| {
                let mut wire: WorkloadWire = object.into();
                effective(kind, &mut wire);
                Some(wire.to_workload(kind, Arc::new))
            },
            move |change| wrap(Event::Workloads(kind, change)),
        );
    }

    /// Watches node classes as the API has them.
    pub fn classes<M: Send + 'static>(&self, to: &Sender<M>, wrap: fn(Named<EC2NodeClass>) -> M) {
        self.whole(Scope::all(), to, wrap);
    }

    /// Watches pools and their classes, as the API has them, where there may be none: a webhook does
    /// without a provisioner.
    pub fn offers<M: Send + 'static>(
        &self,
        to: &Sender<M>,
        pool: fn(Named<NodePool>) -> M,
        class: fn(Named<EC2NodeClass>) -> M,
    ) {
        self.whole(Scope::optional(), to, pool);
        self.whole(Scope::optional(), to, class);
    }

    /// Watches request policies as the API has them.
    pub fn policies<M: Send + 'static>(&self, to: &Sender<M>, wrap: fn(Named<RequestPolicy>) -> M) {
        self.whole(Scope::all(), to, wrap);
    }

    /// Watches what was learned of containers: namespace and name with the bytes. They are read in
    /// small pages, since each may be large. Where nothing learns, the kind may be absent.
    pub fn profiles<M: Send + 'static>(
        &self,
        to: &Sender<M>,
        wrap: fn(Change<Place, (Place, Vec<u8>)>) -> M,
    ) {
        self.start::<DemandProfile, _, _, _>(
            Scope::paged(usage::PAGE),
            to,
            place,
            |object| Some((place(&object), object.spec.bytes())),
            wrap,
        );
    }

    /// Watches disruption budgets.
    pub fn budgets<M: Send + 'static>(&self, to: &Sender<M>, wrap: fn(Change<Place, Budget>) -> M) {
        let read = |budget: PodDisruptionBudget| Some(budget.into());
        self.start(Scope::all(), to, place, read, wrap);
    }

    /// Watches autoscalers.
    pub fn scalers<M: Send + 'static>(&self, to: &Sender<M>, wrap: fn(Change<Place, Scaler>) -> M) {
        let read = |scaler: HorizontalPodAutoscaler| Some(scaler.into());
        self.start(Scope::all(), to, place, read, wrap);
    }

    /// Watches priority classes.
    pub fn priorities<M: Send + 'static>(&self, to: &Sender<M>, wrap: fn(Named<Priority>) -> M) {
        let key = |class: &PriorityClass| class.name_any().into();
        self.start(Scope::all(), to, key, |class| Some(class.into()), wrap);
    }

    /// Watches LimitRanges of all namespaces.
    pub fn limit_ranges<M: Send + 'static>(
        &self,
        to: &Sender<M>,
        wrap: fn(Change<Place, LimitRange>) -> M,
    ) {
        self.start::<LimitRange, _, _, _>(Scope::all(), to, place, Some, wrap);
    }

    /// Watches ResourceQuotas of all namespaces.
    pub fn quotas<M: Send + 'static>(
        &self,
        to: &Sender<M>,
        wrap: fn(Change<Place, ResourceQuota>) -> M,
    ) {
        self.start::<ResourceQuota, _, _, _>(Scope::all(), to, place, Some, wrap);
    }

    /// Watches DaemonSets.
    pub fn daemon_sets<M: Send + 'static>(
        &self,
        to: &Sender<M>,
        wrap: fn(Change<Place, (Place, WorkloadWire)>) -> M,
    ) {
        let read = |object: DaemonSetObject| Some((place(&object), object.into()));
        self.start(Scope::all(), to, place, read, wrap);
    }

    fn whole<K, M: Send + 'static>(&self, scope: Scope, to: &Sender<M>, wrap: fn(Named<K>) -> M)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let key = |object: &K| object.name_any().into();
        self.start::<K, _, _, _>(scope, to, key, Some, wrap);
    }

    /// Watches one kind, in all namespaces.
    fn start<K, Key, T, M>(
        &self,
        scope: Scope,
        to: &Sender<M>,
        key: impl Fn(&K) -> Key + Send + 'static,
        project: impl Fn(K) -> Option<T> + Send + 'static,
        wrap: impl Fn(Change<Key, T>) -> M + Send + 'static,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
        Key: Send + 'static,
        T: Send + 'static,
        M: Send + 'static,
    {
        let api: Api<DeserializeGuard<K>> = Api::all(self.client.clone());
        let stream = watcher(api, scope.config).default_backoff();
        let (to, cancel) = (to.clone(), self.cancel.clone());
        let kind = K::kind(&()).into_owned();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                () = follow(stream, &kind, to, key, project, wrap, scope.optional) => {}
            }
        });
    }
}

async fn follow<K, Key, T, M>(
    stream: impl Stream<Item = watcher::Result<watcher::Event<DeserializeGuard<K>>>>,
    kind: &str,
    to: Sender<M>,
    key: impl Fn(&K) -> Key,
    project: impl Fn(K) -> Option<T>,
    wrap: impl Fn(Change<Key, T>) -> M,
    optional: bool,
) where
    K: Resource<DynamicType = ()>,
{
    let mut stream = std::pin::pin!(stream);
    let mut list = Vec::new();
    let read = |object: DeserializeGuard<K>| match object.0 {
        Ok(object) => Some(object),
        Err(error) => {
            let name = error.metadata.name.unwrap_or_default();
            tracing::warn!(kind, name, error = %error.error, "object cannot be read and is skipped");
            None
        }
    };
    while let Some(event) = stream.next().await {
        let change = match event {
            Ok(watcher::Event::Init) => {
                list.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                list.extend(read(object).and_then(&project));
                continue;
            }
            Ok(watcher::Event::InitDone) => Change::Replace(std::mem::take(&mut list)),
            Ok(watcher::Event::Apply(object)) => match read(object).and_then(&project) {
                Some(object) => Change::Upsert(object),
                None => continue,
            },
            Ok(watcher::Event::Delete(object)) => match read(object) {
                Some(object) => Change::Delete(key(&object)),
                None => continue,
            },
            Err(watcher::Error::InitialListFailed(kube::Error::Api(status)))
                if optional && status.code == 404 =>
            {
                tracing::debug!(kind, "the API server does not know this kind");
                Change::Replace(Vec::new())
            }
            Err(error) => {
                tracing::warn!(kind, %error, "watch failed and starts again");
                continue;
            }
        };
        if to.send(wrap(change)).await.is_err() {
            return;
        }
    }
}
