//! The seam to the cloud: what the loops ask of a provider, and nothing about any one of them.

pub mod catalog;
pub mod error;
pub mod facts;
pub mod kubelet;
pub mod offerings;
pub mod settings;
pub mod sim;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

pub use error::CloudError;

use crate::api::ec2nodeclass::EC2NodeClass;
use crate::model::instance::{CapacityReservation, CapacityType, InstanceType};
use crate::model::labels::Labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::resources::Resources;
use crate::model::taints::Taint;

/// A provider of nodes.
pub trait Cloud: Send + Sync + 'static {
    /// Resolves what a class selects (subnets, security groups, images, instance profile) into its
    /// status, conditions included. The class's own status is the previous one.
    fn resolve(
        &self,
        class: &EC2NodeClass,
        now: jiff::Timestamp,
    ) -> impl Future<Output = Result<crate::api::ec2nodeclass::EC2NodeClassStatus, CloudError>> + Send;

    /// The instance types that a resolved class can launch, with prices and availability.
    fn instance_types(
        &self,
        class: &EC2NodeClass,
        now: jiff::Timestamp,
    ) -> impl Future<Output = Result<ClassCatalog, CloudError>> + Send;

    /// Launches `order.count` equal instances with one call. Repeating the same order (same token)
    /// launches nothing new and returns the same instances. A launch may be partial: then fewer
    /// instances come back, with the shortages that the provider named; the provider also
    /// remembers those itself, so that [`Self::instance_types`] no longer offers them for a while.
    fn launch(
        &self,
        order: &LaunchOrder,
        now: jiff::Timestamp,
    ) -> impl Future<Output = Result<LaunchResult, CloudError>> + Send;

    /// Prepares what a launch like `order` will need (launch templates), so that the launch itself
    /// is a single call. Launches nothing; the order's token does not matter.
    fn warm(
        &self,
        _order: &LaunchOrder,
        _now: jiff::Timestamp,
    ) -> impl Future<Output = Result<(), CloudError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Terminates one instance; [`CloudError::NotFound`] when it is gone.
    fn terminate(&self, provider_id: &str) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// One instance; [`CloudError::NotFound`] when it is gone. An instance that is shutting down is
    /// still there, with `terminating` set.
    fn get(&self, provider_id: &str) -> impl Future<Output = Result<Instance, CloudError>> + Send;

    /// All instances of this cluster that are not terminated.
    fn list(&self) -> impl Future<Output = Result<Vec<Instance>, CloudError>> + Send;

    /// Sets tags of an instance (`Name`, the claim's name) that were not known when it was launched.
    fn tag(
        &self,
        _provider_id: &str,
        _tags: &[(&str, &str)],
    ) -> impl Future<Output = Result<(), CloudError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Removes what was made for a class that goes away (instance profile, launch templates).
    fn release(
        &self,
        _class: &EC2NodeClass,
    ) -> impl Future<Output = Result<(), CloudError>> + Send {
        std::future::ready(Ok(()))
    }
}

/// What one class offers.
#[derive(Clone, Debug)]
pub struct ClassCatalog {
    /// Instance types, sorted by name.
    pub types: Arc<[Arc<InstanceType>]>,
    /// Price of a node's volumes.
    pub volume_price: MicroDollarsPerHour,
}

/// One call's worth of equal instances.
#[derive(Clone, Debug)]
pub struct LaunchOrder {
    /// Class, resolved.
    pub class: Arc<EC2NodeClass>,
    /// Pool, for tags.
    pub pool: Arc<str>,
    /// Idempotency token: derived from the launch group of the claims and the attempt, at most 64
    /// characters.
    pub token: String,
    /// Number of instances.
    pub count: u32,
    /// Options, cheapest first. At most 60 types.
    pub options: Vec<LaunchOption>,
    /// Whether an overlay made the prices, so that the provider must keep to the order of the options
    /// where it would else go by prices of its own.
    pub priced_by_overlay: bool,
    /// Labels that the nodes register with.
    pub labels: Labels,
    /// Taints that the nodes register with: the claim's, its startup taints and
    /// `karpenter.sh/unregistered:NoExecute`.
    pub taints: Vec<Taint>,
    /// Extended resources that pods asked (`vpc.amazonaws.com/efa`…).
    pub requests: Resources,
    /// Tags beside those that the provider always sets. Contains the launch group, by which
    /// instances of an unanswered call are found again.
    pub tags: BTreeMap<String, String>,
}

/// One way to fill an order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LaunchOption {
    /// Instance type.
    pub instance_type: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
    /// Capacity type.
    pub capacity_type: CapacityType,
    /// Reservation that it draws on. An order draws on one at most.
    pub reservation: Option<Arc<CapacityReservation>>,
    /// Price, for the order of preference.
    pub price: MicroDollarsPerHour,
}

/// What a launch brought.
#[derive(Clone, Debug, Default)]
pub struct LaunchResult {
    /// Instances, at most as many as ordered.
    pub instances: Vec<Instance>,
    /// Options that had no capacity.
    pub shortages: Vec<LaunchOption>,
}

/// An instance of the cluster.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Instance {
    /// Provider's id, such as `aws:///us-west-2a/i-0123`.
    pub provider_id: Arc<str>,
    /// Instance type.
    pub instance_type: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
    /// Capacity type.
    pub capacity_type: Option<CapacityType>,
    /// Reservation that it uses, where it was launched into one.
    pub reservation: Option<Arc<CapacityReservation>>,
    /// Image.
    pub image_id: Arc<str>,
    /// Pool tag.
    pub pool: Arc<str>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Launch time, seconds since the epoch.
    pub launched_at: i64,
    /// Whether it is being terminated.
    pub terminating: bool,
}
