//! The cloud of one test: an account in the emulator, the proxy in front of it with its market and
//! faults, and a seeded network.
//!
//! moto checks that requests are well formed and that what they name exists. The market, its
//! capacity and its faults are ours: a test of allocation is a test against our model.

pub mod boot;
pub mod call;
pub mod canned;
pub mod client;
mod fleet;
pub mod journal;
pub mod machine;
pub mod market;
pub mod moto;
pub mod proxy;
pub mod reservations;
pub mod rules;
mod seed;
pub mod user_data;
pub mod xml;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

pub use self::boot::{Boot, BootOptions, BootPlan};
pub use self::canned::Cluster;
pub use self::client::AwsClient;
pub use self::journal::{Entry, Journal};
pub use self::market::{CapacityType, Market, Pool};
pub use self::moto::Moto;
pub use self::proxy::{Event, Proxy};
pub use self::reservations::{Reservation, Reservations};
pub use self::rules::{Effect, Rule, Rules};
pub use self::seed::Seed;
use self::xml::Element;

/// The region whose zone names and ids moto tells consistently.
pub const REGION: &str = "us-west-2";
/// Largest page of DescribeInstances.
const PAGE: &str = "1000";

/// Gives each cloud of this process its own account and address range.
static ACCOUNTS: AtomicU32 = AtomicU32::new(0);

/// One account with its proxy. Dereferences to the [`Proxy`].
pub struct Cloud {
    proxy: Proxy,
    direct: AwsClient,
    seed: Seed,
    // Kept alive for as long as a cloud needs it.
    moto: Arc<Moto>,
}

impl Cloud {
    /// Opens a fresh account in `moto`, seeds it for the cluster of this name and starts a proxy.
    pub async fn start(moto: Arc<Moto>, cluster: &str) -> Result<Self> {
        let number = ACCOUNTS.fetch_add(1, Ordering::Relaxed);
        let account = format!("{:012}", 100_000_000_000_u64 + u64::from(number));
        let direct = AwsClient::new(moto.url(), &account, REGION);
        // Private addresses become node names, which must differ between clouds of one plane.
        let seed = Seed::plant(&direct, cluster, number % 256).await?;
        let proxy = Proxy::start(direct.clone(), moto.catalog()).await?;
        Ok(Self { proxy, direct, seed, moto })
    }

    /// The network, role and images that were made for the cluster.
    pub fn seed(&self) -> &Seed {
        &self.seed
    }

    /// The emulator behind the proxy.
    pub fn moto(&self) -> &Arc<Moto> {
        &self.moto
    }

    /// A client of the emulator itself: no market, no faults, no journal.
    pub fn direct(&self) -> &AwsClient {
        &self.direct
    }

    /// A client of the proxy.
    pub fn client(&self) -> AwsClient {
        AwsClient::new(self.proxy.url(), self.direct.account(), self.direct.region())
    }

    /// Environment for a process that shall use this cloud, and nothing else, as AWS.
    pub fn env(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", self.proxy.url()),
            ("AWS_REGION", self.direct.region()),
            ("AWS_DEFAULT_REGION", self.direct.region()),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// Pending and running instances, by id.
    pub async fn instances(&self) -> Result<Vec<Instance>> {
        let live = [
            ("Filter.1.Name", "instance-state-name"),
            ("Filter.1.Value.1", "pending"),
            ("Filter.1.Value.2", "running"),
        ];
        describe(&self.direct, &live).await
    }

    /// Starts turning launched instances into nodes of the cluster behind `kube`.
    pub fn boot(&self, kube: kube::Client, options: BootOptions) -> Boot {
        Boot::start(kube, self.direct.clone(), self.proxy.events(), options)
    }
}

impl Deref for Cloud {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.proxy
    }
}

/// An instance as EC2 describes it.
#[derive(Clone, Debug)]
pub struct Instance {
    pub id: String,
    pub instance_type: String,
    pub zone: String,
    pub subnet_id: String,
    pub capacity_type: CapacityType,
    /// Such as `running`.
    pub state: String,
    pub image_id: String,
    /// EC2's word, such as `x86_64`.
    pub architecture: String,
    pub private_ip: String,
    /// Such as `ip-10-0-0-4.us-west-2.compute.internal`: the node's name.
    pub private_dns_name: String,
    pub tags: BTreeMap<String, String>,
}

impl Instance {
    fn read(item: &Element) -> Self {
        let text = |path: &str| item.text_at(path).to_owned();
        let tag = |tag: &Element| (tag.text_at("key").to_owned(), tag.text_at("value").to_owned());
        Self {
            id: text("instanceId"),
            instance_type: text("instanceType"),
            zone: text("placement/availabilityZone"),
            subnet_id: text("subnetId"),
            capacity_type: CapacityType::parse(item.text_at("instanceLifecycle")),
            state: text("instanceState/name"),
            image_id: text("imageId"),
            architecture: text("architecture"),
            private_ip: text("privateIpAddress"),
            private_dns_name: text("privateDnsName"),
            tags: item.items("tagSet").iter().map(tag).collect(),
        }
    }
}

/// All instances that match, by id.
pub(crate) async fn describe(client: &AwsClient, params: &[(&str, &str)]) -> Result<Vec<Instance>> {
    // EC2 takes no page size together with ids.
    let by_id = params.iter().any(|(key, _)| key.starts_with("InstanceId"));
    let mut token = String::new();
    let mut all = Vec::new();
    loop {
        let mut params = params.to_vec();
        if !by_id {
            params.push(("MaxResults", PAGE));
        }
        if !token.is_empty() {
            params.push(("NextToken", &token));
        }
        let answer = client.query("ec2", "DescribeInstances", &params).await?;
        let reservations = answer.items("reservationSet").iter();
        all.extend(reservations.flat_map(|item| item.items("instancesSet")).map(Instance::read));
        answer.text_at("nextToken").clone_into(&mut token);
        if token.is_empty() {
            break;
        }
    }
    all.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(all)
}
