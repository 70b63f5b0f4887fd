//! The real cloud: EC2 and the services around it, through the AWS SDK for Rust.
//!
//! The provider owns what it learns (instance facts, prices, free addresses, launch templates,
//! shortages) in caches whose age is measured by the `now` of its callers. Classes are resolved and
//! caches are refreshed off the launch path, so that an order whose launch templates are known
//! costs one CreateFleet call and nothing else.

mod cache;
mod catalog;
mod cluster;
mod error;
mod fleet;
mod images;
mod instances;
mod launch_template;
mod network;
mod permissions;
mod placement;
mod pricing;
mod profile;
mod request;
mod reservations;
mod resolve;
mod settings;
mod tags;
mod types;
mod userdata;

use std::sync::Arc;

use aws_config::SdkConfig;
use jiff::Timestamp;

pub use settings::Settings;

use self::catalog::Catalogs;
use self::fleet::Sent;
use self::images::Images;
use self::instances::Terminations;
use self::launch_template::Templates;
use self::network::Network;
use self::permissions::Granted;
use self::placement::Placements;
use self::pricing::Prices;
use self::profile::Profiles;
use self::reservations::Reservations;
use self::types::Types;
use crate::api::ec2nodeclass::{EC2NodeClass, EC2NodeClassStatus};
use crate::cloud::{ClassCatalog, Cloud, CloudError, Instance, LaunchOrder, LaunchResult};

/// EC2 as a provider of nodes.
#[derive(Debug)]
pub struct Provider {
    settings: Settings,
    region: String,
    ec2: aws_sdk_ec2::Client,
    iam: aws_sdk_iam::Client,
    pricing: aws_sdk_pricing::Client,
    ssm: aws_sdk_ssm::Client,
    types: Types,
    prices: Prices,
    network: Network,
    reservations: Reservations,
    placements: Placements,
    granted: Granted,
    images: Images,
    profiles: Profiles,
    templates: Templates,
    catalogs: Catalogs,
    sent: Sent,
    terminations: Arc<Terminations>,
}

impl Provider {
    /// Connects with the SDK's own chain of region, credentials and endpoints
    /// (`AWS_ENDPOINT_URL` and its kin are honoured). No call is made yet.
    ///
    /// # Errors
    /// [`CloudError::ClassNotReady`] when no region is known or a setting cannot be right.
    pub async fn connect(settings: Settings) -> Result<Self, CloudError> {
        let config = settings::sdk_config(&settings).await;
        Self::with_config(settings, &config)
    }

    /// Uses a configuration that the caller made, with its own endpoint or credentials.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn with_config(settings: Settings, config: &SdkConfig) -> Result<Self, CloudError> {
        settings.check()?;
        let region = settings::region(config)?;
        let pricing = settings::pricing_config(config, &region);
        Ok(Self {
            ec2: aws_sdk_ec2::Client::new(config),
            iam: aws_sdk_iam::Client::new(config),
            pricing: aws_sdk_pricing::Client::from_conf(pricing),
            ssm: aws_sdk_ssm::Client::new(config),
            types: Types::default(),
            prices: Prices::default(),
            network: Network::default(),
            reservations: Reservations::default(),
            placements: Placements::default(),
            granted: Granted::default(),
            images: Images::default(),
            profiles: Profiles::default(),
            templates: Templates::default(),
            catalogs: Catalogs::default(),
            sent: Sent::default(),
            terminations: Arc::default(),
            region,
            settings,
        })
    }

    /// Region that nodes are bought in.
    pub fn region(&self) -> &str {
        &self.region
    }
}

impl Cloud for Provider {
    async fn resolve(
        &self,
        class: &EC2NodeClass,
        now: Timestamp,
    ) -> Result<EC2NodeClassStatus, CloudError> {
        self.resolve_class(class, now).await
    }

    async fn instance_types(
        &self,
        class: &EC2NodeClass,
        now: Timestamp,
    ) -> Result<ClassCatalog, CloudError> {
        self.class_catalog(class, now).await
    }

    async fn launch(
        &self,
        order: &LaunchOrder,
        now: Timestamp,
    ) -> Result<LaunchResult, CloudError> {
        self.create_fleet(order, now).await
    }

    async fn warm(&self, order: &LaunchOrder, now: Timestamp) -> Result<(), CloudError> {
        self.prepare(order, now).await.map(drop)
    }

    async fn terminate(&self, provider_id: &str) -> Result<(), CloudError> {
        self.terminate_instance(provider_id).await
    }

    async fn get(&self, provider_id: &str) -> Result<Instance, CloudError> {
        self.describe_instance(provider_id).await
    }

    async fn list(&self) -> Result<Vec<Instance>, CloudError> {
        self.list_instances().await
    }

    async fn tag(&self, provider_id: &str, tags: &[(&str, &str)]) -> Result<(), CloudError> {
        self.tag_instance(provider_id, tags).await
    }

    async fn release(&self, class: &EC2NodeClass) -> Result<(), CloudError> {
        self.release_class(class).await
    }
}
