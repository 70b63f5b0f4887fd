//! The EC2 provider over the wire: the real SDK against the test bed's emulator, with its market and
//! faults in between.
//!
//! One emulator serves all tests; each has its own account. What had no capacity and what it cost
//! comes from the test bed's model of a market, so these tests hold requests and answers, not the
//! behaviour of EC2's own market.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ec2::config::Credentials;
use harbinger::api::conditions::{self, ConditionStatus};
use harbinger::api::ec2nodeclass::{EC2NodeClass, EC2NodeClassStatus};
use harbinger::aws::{Provider, Settings};
use harbinger::cloud::{Cloud as _, CloudError, LaunchOption, LaunchOrder, LaunchResult};
use harbinger::model::instance::{CapacityType, InstanceType};
use harbinger::model::labels::Labels;
use harbinger::model::money::MicroDollarsPerHour;
use harbinger::model::resources::Resources;
use harbinger::model::taints::{Taint, TaintEffect};
use jiff::Timestamp;
use serde_json::{Value, json};
use testbed::cloud::{self as bed, Cloud, Effect, Pool, REGION, Rule};

use super::world::moto;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_780_000_000 + seconds).unwrap()
}

struct World {
    cloud: Cloud,
    provider: Provider,
    class: EC2NodeClass,
}

/// A provider before a fresh account, and a class that is resolved.
async fn world(extra: Value) -> World {
    let mut world = unresolved(extra).await;
    let status = world.provider.resolve(&world.class, at(0)).await.unwrap();
    world.class.status = Some(status);
    world
}

/// A fresh account, and how it is reached.
async fn account() -> (Cloud, SdkConfig) {
    let cloud = Cloud::start(moto().await.unwrap(), "shop").await.unwrap();
    let credentials = Credentials::new("test", "test", None, None, "test");
    let config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(cloud.url())
        .credentials_provider(credentials)
        .load()
        .await;
    (cloud, config)
}

#[tokio::test]
async fn nodes_join_with_what_eks_says_of_the_cluster() {
    let (cloud, config) = account().await;
    let mut settings = Settings { cluster_name: "shop".to_owned(), ..Settings::default() };
    let unknown = settings.complete_with(&config).await.unwrap_err();
    assert!(settings.cluster_endpoint.is_empty(), "{unknown}");
    cloud.set_cluster(bed::Cluster {
        name: "shop".to_owned(),
        endpoint: "https://abc.gr7.us-west-2.eks.amazonaws.com".to_owned(),
        ca: "CA".to_owned(),
        version: "1.33".to_owned(),
        service_cidr: "172.20.0.0/16".to_owned(),
    });
    settings.complete_with(&config).await.unwrap();
    assert_eq!(settings.cluster_endpoint, "https://abc.gr7.us-west-2.eks.amazonaws.com");
    assert_eq!(settings.ca_bundle, "Q0E=");
    assert_eq!(settings.service_cidr.as_deref(), Some("172.20.0.0/16"));
    // What somebody has said stays.
    let mut told = Settings { ca_bundle: "T1dO".to_owned(), ..settings.clone() };
    told.service_cidr = Some("10.100.0.0/16".to_owned());
    told.complete_with(&config).await.unwrap();
    assert_eq!((&*told.ca_bundle, told.service_cidr.as_deref()), ("T1dO", Some("10.100.0.0/16")));
}

async fn unresolved(extra: Value) -> World {
    set_up(extra, true).await
}

/// A provider before a fresh account, and a class; `no_dry_runs` keeps calls few.
async fn set_up(extra: Value, no_dry_runs: bool) -> World {
    let (cloud, config) = account().await;
    let settings = Settings {
        no_dry_runs,
        cluster_name: "shop".to_owned(),
        cluster_endpoint: "https://10.0.0.1:6443".to_owned(),
        ca_bundle: "Q0E=".to_owned(),
        service_cidr: Some("10.100.0.0/16".to_owned()),
        kubernetes_version: "1.33".to_owned(),
        memory_overhead_permille: 75,
        ..Settings::default()
    };
    World {
        provider: Provider::with_config(settings, &config).unwrap(),
        class: class(&cloud, &extra),
        cloud,
    }
}

/// A class of the account.
fn class(cloud: &Cloud, extra: &Value) -> EC2NodeClass {
    let discovery = json!([{"tags": {"karpenter.sh/discovery": "shop"}}]);
    let mut spec = json!({
        "subnetSelectorTerms": discovery,
        "securityGroupSelectorTerms": discovery,
        "amiSelectorTerms": [{"alias": "al2023@latest"}],
        "role": cloud.seed().role,
        "tags": {"team": "web"},
    });
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let class = json!({
        "apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass",
        "metadata": {"name": "std", "uid": "7d2f", "generation": 3},
        "spec": spec,
    });
    serde_json::from_value(class).unwrap()
}

impl World {
    /// The cheapest offerings of a capacity type among these types, cheapest first.
    async fn options(
        &self,
        types: &[&str],
        capacity_type: CapacityType,
        seconds: i64,
    ) -> Vec<LaunchOption> {
        let catalog = self.provider.instance_types(&self.class, at(seconds)).await.unwrap();
        let mut options: Vec<LaunchOption> = catalog
            .types
            .iter()
            .filter(|kind| types.contains(&&*kind.name))
            .flat_map(|kind| kind.offerings.iter().map(|offer| (Arc::clone(&kind.name), offer)))
            .filter(|(_, offer)| offer.available && offer.capacity_type == capacity_type)
            .map(|(instance_type, offer)| LaunchOption {
                instance_type,
                zone: Arc::clone(&offer.zone),
                capacity_type,
                reservation: None,
                price: offer.price,
            })
            .collect();
        options.sort_by(|a, b| {
            (a.price, &a.instance_type, &a.zone).cmp(&(b.price, &b.instance_type, &b.zone))
        });
        options
    }

    fn order(&self, token: &str, count: u32, options: Vec<LaunchOption>) -> LaunchOrder {
        LaunchOrder {
            class: Arc::new(self.class.clone()),
            pool: "default".into(),
            token: token.to_owned(),
            count,
            options,
            priced_by_overlay: false,
            labels: Labels::from([("karpenter.sh/nodepool".to_owned(), "default".to_owned())]),
            taints: vec![Taint::new("karpenter.sh/unregistered", TaintEffect::NoExecute)],
            requests: Resources::default(),
            tags: BTreeMap::from([("harbinger.sh/group".to_owned(), "g1".to_owned())]),
        }
    }

    async fn launch(&self, order: &LaunchOrder, seconds: i64) -> Result<LaunchResult, CloudError> {
        self.provider.launch(order, at(seconds)).await
    }

    fn calls(&self) -> Vec<String> {
        let entries = self.cloud.journal().entries();
        entries.into_iter().map(|entry| entry.action).collect()
    }

    fn sound(&self) {
        self.cloud.journal().ensure_sound().unwrap();
    }
}

fn reason(status: &EC2NodeClassStatus, kind: &str) -> String {
    let found = conditions::get(&status.conditions, kind).unwrap();
    format!("{:?} {}", found.status, found.reason)
}

fn ids(result: &LaunchResult) -> BTreeSet<String> {
    result.instances.iter().map(|instance| instance.provider_id.to_string()).collect()
}

#[tokio::test]
async fn a_class_is_resolved_and_its_types_are_listed_once() {
    let world = world(json!({})).await;
    let status = world.class.status.as_ref().unwrap();
    assert_eq!(reason(status, "Ready"), "True Ready", "{:?}", status.conditions);
    assert!(status.conditions.iter().all(|c| c.observed_generation == Some(3)));
    let subnets: BTreeSet<&str> = status.subnets.iter().map(|subnet| &*subnet.id).collect();
    let seeded = world.cloud.seed();
    assert_eq!(subnets, seeded.subnets.values().map(String::as_str).collect());
    assert_eq!(status.security_groups[0].id, seeded.security_group_id);
    // Standard and nvidia for both architectures, neuron for one.
    assert_eq!(status.amis.len(), 5, "{:?}", status.amis);
    assert!(status.amis.iter().all(|ami| ami.name.as_deref().unwrap().contains("1.33-v2026")));
    assert!(status.instance_profile.as_deref().unwrap().starts_with("shop_"));

    let catalog = world.provider.instance_types(&world.class, at(1)).await.unwrap();
    assert!(catalog.types.len() > 1000, "{}", catalog.types.len());
    let m5 = catalog.types.iter().find(|kind| &*kind.name == "m5.large").unwrap();
    let allocatable = m5.allocatable();
    assert_eq!((allocatable.cpu, allocatable.memory >> 20, allocatable.pods), (1930, 6903, 29));
    let zones: BTreeSet<&str> = m5.offerings.iter().map(|offer| &*offer.zone).collect();
    assert_eq!(zones, seeded.subnets.keys().map(String::as_str).collect());
    let price = |capacity_type| {
        m5.offerings.iter().filter(|o| o.capacity_type == capacity_type).map(|o| o.price.0).min()
    };
    assert_eq!(price(CapacityType::OnDemand), Some(96_000));
    assert!(price(CapacityType::Spot) < Some(60_000));
    assert!(
        !catalog.types.iter().any(|kind| kind.name.starts_with("a1.")
            && kind.offerings.iter().any(|offer| offer.available))
    );

    world.cloud.journal().clear();
    let again = world.provider.instance_types(&world.class, at(2)).await.unwrap();
    assert!(Arc::ptr_eq(&catalog.types, &again.types));
    assert_eq!(world.calls(), Vec::<String>::new());
    world.sound();
}

#[tokio::test]
async fn three_instances_of_the_cheapest_come_and_go() {
    let world = world(json!({})).await;
    let types = ["m5.large", "m6a.large", "c6g.large", "t3.large"];
    let options = world.options(&types, CapacityType::Spot, 1).await;
    let order = world.order("token-1", 3, options.clone());
    world.provider.warm(&order, at(1)).await.unwrap();
    world.cloud.journal().clear();
    let started = Instant::now();
    let launched = world.launch(&order, 2).await.unwrap();
    println!("launch with known templates: {:?}", started.elapsed());
    assert_eq!(world.calls(), ["CreateFleet"]);
    assert_eq!(launched.instances.len(), 3);
    assert!(launched.shortages.is_empty());
    for instance in &launched.instances {
        assert_eq!(instance.instance_type, options[0].instance_type);
        assert_eq!(instance.capacity_type, Some(CapacityType::Spot));
    }

    // The same order again is the same launch, in this process and in the next one.
    let again = world.launch(&order, 3).await.unwrap();
    assert_eq!(ids(&launched), ids(&again));
    let other = world.order("token-1", 4, options);
    let mismatch = world.launch(&other, 3).await.unwrap_err();
    assert!(matches!(mismatch, CloudError::TokenMismatch { .. }), "{mismatch}");

    let listed = world.provider.list().await.unwrap();
    assert_eq!(listed.len(), 3);
    for (key, value) in [
        ("karpenter.sh/nodepool", "default"),
        ("kubernetes.io/cluster/shop", "owned"),
        ("eks:eks-cluster-name", "shop"),
        ("karpenter.k8s.aws/ec2nodeclass", "std"),
        ("harbinger.sh/group", "g1"),
        ("team", "web"),
    ] {
        assert_eq!(listed[0].tags.get(key).map(String::as_str), Some(value), "{key}");
    }
    let instance = &launched.instances[0];
    let read = world.provider.get(&instance.provider_id).await.unwrap();
    assert_eq!((&read.zone, &read.image_id), (&instance.zone, &instance.image_id));
    assert_eq!(read.capacity_type, Some(CapacityType::Spot));
    world.provider.tag(&instance.provider_id, &[("Name", "node-1")]).await.unwrap();
    let tagged = world.provider.get(&instance.provider_id).await.unwrap();
    assert_eq!(tagged.tags["Name"], "node-1");

    world.cloud.journal().clear();
    let gone = ids(&launched);
    let all = gone.iter().map(|id| world.provider.terminate(id));
    futures::future::try_join_all(all).await.unwrap();
    assert_eq!(world.calls(), ["TerminateInstances"]);
    let error = world.provider.terminate("aws:///us-west-2a/i-0123456789abcdef0").await;
    assert!(matches!(error, Err(CloudError::NotFound { .. })), "{error:?}");
    for id in &gone {
        match world.provider.get(id).await {
            Ok(instance) => assert!(instance.terminating),
            Err(error) => assert!(matches!(error, CloudError::NotFound { .. }), "{error}"),
        }
    }
    world.sound();
}

#[tokio::test]
async fn user_data_makes_the_node_join() {
    let world = world(json!({"kubelet": {"maxPods": 40}})).await;
    let options = world.options(&["m5.large"], CapacityType::OnDemand, 1).await;
    world.launch(&world.order("t", 1, options), 1).await.unwrap();
    let created = world.cloud.journal().of("CreateLaunchTemplate");
    let data = |key: &str| created[0].params[&format!("LaunchTemplateData.{key}")].clone();
    let text = base64_decode(&data("UserData"));
    let registration = bed::user_data::Registration::parse(&text);
    assert!(registration.understood);
    assert_eq!(registration.max_pods, Some(40));
    assert_eq!(registration.labels["karpenter.sh/capacity-type"], "on-demand");
    assert_eq!(registration.taints[0].key, "karpenter.sh/unregistered");
    assert_eq!(data("SecurityGroupId.1"), world.cloud.seed().security_group_id);
    assert_eq!(data("BlockDeviceMapping.1.Ebs.VolumeSize"), "20");
    assert_eq!(data("MetadataOptions.HttpTokens"), "required");
    assert!(data("IamInstanceProfile.Name").starts_with("shop_"));
    world.sound();
}

#[tokio::test]
async fn overlaid_prices_make_the_order_of_options_ec2s_own() {
    let world = world(json!({})).await;
    for (capacity_type, field, plain, ordered) in [
        (
            CapacityType::OnDemand,
            "OnDemandOptions.AllocationStrategy",
            "lowest-price",
            "prioritized",
        ),
        (
            CapacityType::Spot,
            "SpotOptions.AllocationStrategy",
            "price-capacity-optimized",
            "capacity-optimized-prioritized",
        ),
    ] {
        let mut options = world.options(&["m5.large", "m5.xlarge"], capacity_type, 1).await;
        // The dearest is said to cost nothing.
        options.reverse();
        options[0].price = MicroDollarsPerHour::ZERO;
        for (priced_by_overlay, strategy) in [(false, plain), (true, ordered)] {
            let token = format!("{capacity_type}-{priced_by_overlay}");
            let order =
                LaunchOrder { priced_by_overlay, ..world.order(&token, 1, options.clone()) };
            world.cloud.journal().clear();
            let launched = world.launch(&order, 1).await.unwrap();
            assert_eq!(world.cloud.journal().of("CreateFleet")[0].params[field], strategy);
            let kind = &*launched.instances[0].instance_type;
            assert_eq!(kind == &*options[0].instance_type, priced_by_overlay, "{strategy}: {kind}");
        }
    }
    world.sound();
}

#[tokio::test]
async fn reserved_capacity_is_found_counted_and_drawn_on() {
    let terms =
        json!({"capacityReservationSelectorTerms": [{"tags": {"team": "ml"}}, {"id": "cr-0"}]});
    let mut world = unresolved(terms).await;
    let reservation = |left, team: &str| bed::Reservation {
        instance_type: "m5.large".to_owned(),
        zone: format!("{REGION}a"),
        left,
        tags: BTreeMap::from([("team".to_owned(), team.to_owned())]),
    };
    world.cloud.reservations().set("cr-1", reservation(3, "ml"));
    world.cloud.reservations().set("cr-2", reservation(9, "web"));
    let status = world.provider.resolve(&world.class, at(0)).await.unwrap();
    assert_eq!(reason(&status, "CapacityReservationsReady"), "True CapacityReservationsReady");
    let found: Vec<&str> = status.capacity_reservations.iter().map(|one| &*one.id).collect();
    assert_eq!(found, ["cr-1"]);
    world.class.status = Some(status);
    let reserved = async |seconds| {
        let catalog = world.provider.instance_types(&world.class, at(seconds)).await.unwrap();
        let m5 = Arc::clone(catalog.types.iter().find(|kind| &*kind.name == "m5.large").unwrap());
        let mut all = m5.offerings.iter().filter(|offer| offer.reserved.is_some());
        let one = all.next().unwrap().clone();
        assert!(all.next().is_none());
        one
    };
    let offer = reserved(1).await;
    assert_eq!((offer.capacity_type, &*offer.zone), (CapacityType::Reserved, "us-west-2a"));
    assert!(offer.available && offer.price < MicroDollarsPerHour(100), "{}", offer.price);
    let option = LaunchOption {
        instance_type: "m5.large".into(),
        zone: Arc::clone(&offer.zone),
        capacity_type: CapacityType::Reserved,
        reservation: offer.reserved.map(|reserved| reserved.reservation),
        price: offer.price,
    };
    let order = world.order("r-1", 2, vec![option.clone()]);
    let launched = world.launch(&order, 2).await.unwrap();
    assert_eq!(launched.instances.len(), 2);
    assert_eq!(launched.instances[0].capacity_type, Some(CapacityType::Reserved));
    assert_eq!(launched.instances[0].reservation.as_ref().map(|of| &*of.id), Some("cr-1"));
    let created = world.cloud.journal().of("CreateLaunchTemplate");
    let named = "LaunchTemplateData.CapacityReservationSpecification";
    let of = |field: &str| created[0].params[&format!("{named}.{field}")].as_str();
    assert_eq!(of("CapacityReservationPreference"), "capacity-reservations-only");
    assert_eq!(of("CapacityReservationTarget.CapacityReservationId"), "cr-1");
    // Counted at once, without asking EC2.
    assert_eq!(reserved(3).await.reserved.unwrap().left, 1);
    // Somebody else was faster.
    world.cloud.reservations().set("cr-1", reservation(0, "ml"));
    let error = world.launch(&world.order("r-2", 1, vec![option]), 4).await.unwrap_err();
    assert!(matches!(error, CloudError::InsufficientCapacity { .. }), "{error}");
    assert!(!reserved(5).await.available);
    // What is bought otherwise leaves reservations alone.
    let bought = world.options(&["m5.large"], CapacityType::OnDemand, 6).await;
    assert!(!bought.is_empty(), "on-demand capacity of the type is not short");
    world.cloud.journal().clear();
    world.launch(&world.order("r-3", 1, bought), 6).await.unwrap();
    let created = world.cloud.journal().of("CreateLaunchTemplate");
    assert_eq!(created[0].params[&format!("{named}.CapacityReservationPreference")], "none");
    world.sound();
}

#[tokio::test]
async fn nodes_start_in_the_placement_group_of_their_class() {
    let mut world = unresolved(json!({"placementGroupSelector": {"name": "absent"}})).await;
    let status = world.provider.resolve(&world.class, at(0)).await.unwrap();
    assert_eq!(reason(&status, "PlacementGroupReady"), "False PlacementGroupNotFound");
    assert_eq!(reason(&status, "Ready"), "False UnhealthyDependents");
    let key = |name: &str| format!("karpenter.k8s.aws/placement-group-{name}");
    let mut resolve = async |selector: Value| {
        world.class.spec.placement_group_selector = serde_json::from_value(selector).unwrap();
        let status = world.provider.resolve(&world.class, at(0)).await.unwrap();
        assert_eq!(reason(&status, "Ready"), "True Ready");
        world.class.status = Some(status);
        let types = world.provider.instance_types(&world.class, at(1)).await.unwrap().types;
        let kind = |name: &str| types.iter().find(|kind| &*kind.name == name).cloned();
        (kind("m5.large"), kind("t3.large"))
    };
    // Burstable types may not start close to each other.
    let (m5, t3) = resolve(json!({"name": "tight"})).await;
    assert!(t3.is_none());
    let of = |kind: &InstanceType, name: &str| {
        kind.requirements.get(&key(name)).map(ToString::to_string)
    };
    assert_eq!(of(&m5.unwrap(), "id").as_deref(), Some("In [pg-0a]"));
    let (m5, t3) = resolve(json!({"id": "pg-0b"})).await;
    assert_eq!(of(&m5.unwrap(), "partition").as_deref(), Some("In [1, 2, 3]"));
    assert!(t3.is_some());
    // The partition that a claim asks for.
    let options = world.options(&["m5.large"], CapacityType::OnDemand, 2).await;
    let mut order = world.order("p-1", 1, options);
    order.labels.insert(key("partition"), "2".to_owned());
    world.launch(&order, 2).await.unwrap();
    let created = world.cloud.journal().of("CreateLaunchTemplate");
    let placement =
        |field: &str| &*created[0].params[&format!("LaunchTemplateData.Placement.{field}")];
    assert_eq!((placement("GroupId"), placement("PartitionNumber")), ("pg-0b", "2"));
    world.sound();
}

#[tokio::test]
async fn missing_permissions_show_on_the_class() {
    let world = set_up(json!({}), false).await;
    let denied = || Effect::Error {
        status: 403,
        code: "UnauthorizedOperation".to_owned(),
        message: "no".to_owned(),
    };
    let refused = async |rule: Rule, seconds| {
        world.cloud.rules().push(rule);
        let status = world.provider.resolve(&world.class, at(seconds)).await.unwrap();
        world.cloud.rules().clear();
        reason(&status, "ValidationSucceeded")
    };
    let template = refused(Rule::new(denied()).on("CreateLaunchTemplate"), 0).await;
    assert_eq!(template, "False CreateLaunchTemplateAuthCheckFailed");
    let fleet = refused(Rule::new(denied()).on("CreateFleet").dry_run(), 1).await;
    assert_eq!(fleet, "False CreateFleetAuthCheckFailed");
    let instance = refused(Rule::new(denied()).on("RunInstances").dry_run(), 2).await;
    assert_eq!(instance, "False RunInstancesAuthCheckFailed");
    let unknown = Effect::Error {
        status: 400,
        code: "InvalidParameterValue".to_owned(),
        message: "Value (node) for parameter iamInstanceProfile.name is invalid. Invalid IAM \
                  Instance Profile name"
            .to_owned(),
    };
    let profile = refused(Rule::new(unknown).on("RunInstances").dry_run(), 3).await;
    assert_eq!(profile, "False InstanceProfileNotFound");
    // What is granted is not asked again for a while, and nothing was launched.
    let dry = |action: &str| {
        let all = world.cloud.journal().entries();
        let tried = |entry: &&bed::Entry| {
            entry.action == action && entry.params.get("DryRun").is_some_and(|dry| dry == "true")
        };
        all.iter().filter(tried).count()
    };
    let throttled = refused(Rule::new(Effect::Throttle).on("CreateFleet").dry_run(), 4).await;
    assert_eq!(throttled, "True ValidationSucceeded", "says nothing about permissions");
    let tried = (dry("CreateFleet"), dry("RunInstances"));
    let status = world.provider.resolve(&world.class, at(5)).await.unwrap();
    assert_eq!(reason(&status, "Ready"), "True Ready");
    assert_eq!((dry("CreateFleet"), dry("RunInstances")), tried);
    let status = world.provider.resolve(&world.class, at(5 + 30 * 60)).await.unwrap();
    assert_eq!(reason(&status, "Ready"), "True Ready");
    assert_eq!((dry("CreateFleet"), dry("RunInstances")), (tried.0 + 1, tried.1 + 1));
    assert_eq!(world.provider.list().await.unwrap(), []);
    world.sound();
}

fn base64_decode(text: &str) -> String {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn pools_without_capacity_are_passed_over_and_come_back() {
    let world = world(json!({})).await;
    let types = ["m5.large", "m6a.large"];
    let options = world.options(&types, CapacityType::Spot, 1).await;
    let dry = |option: &LaunchOption| {
        Pool::new(&option.instance_type, &option.zone, bed::CapacityType::Spot)
    };
    world.cloud.market().set_capacity(dry(&options[0]), 0);
    let result = world.launch(&world.order("a", 1, options.clone()), 1).await.unwrap();
    assert_eq!(result.instances.len(), 1);
    assert_eq!(result.shortages, options[..1]);
    assert_eq!(result.instances[0].instance_type, options[1].instance_type);
    assert_eq!(result.instances[0].zone, options[1].zone);
    let left = |options: Vec<LaunchOption>| options.len();
    assert_eq!(left(world.options(&types, CapacityType::Spot, 2).await), options.len() - 1);
    assert_eq!(left(world.options(&types, CapacityType::Spot, 182).await), options.len());

    for option in &options {
        world.cloud.market().set_capacity(dry(option), 0);
    }
    let error = world.launch(&world.order("b", 1, options.clone()), 200).await.unwrap_err();
    assert!(matches!(error, CloudError::InsufficientCapacity { .. }), "{error}");
    assert_eq!(left(world.options(&types, CapacityType::Spot, 201).await), 0);
    let on_demand = world.options(&types, CapacityType::OnDemand, 201).await;
    assert_eq!(
        world.launch(&world.order("c", 1, on_demand), 201).await.unwrap().instances.len(),
        1
    );
    world.sound();
}

#[tokio::test]
async fn fleets_may_be_partial() {
    let world = world(json!({})).await;
    let options = world.options(&["m5.large"], CapacityType::OnDemand, 1).await;
    for option in &options {
        let pool = Pool::new("m5.large", &option.zone, bed::CapacityType::OnDemand);
        world.cloud.market().set_capacity(pool, 1);
    }
    let result = world.launch(&world.order("t", 5, options), 1).await.unwrap();
    assert!(!result.instances.is_empty() && result.instances.len() < 5, "{result:?}");
    assert!(!result.shortages.is_empty());
    assert_eq!(world.provider.list().await.unwrap().len(), result.instances.len());
}

#[tokio::test]
async fn throttles_are_retried_and_then_said() {
    let world = world(json!({})).await;
    let options = world.options(&["m5.large"], CapacityType::Spot, 1).await;
    let throttle = |times| Rule::new(Effect::Throttle).on("CreateFleet").times(times);
    world.cloud.rules().push(throttle(2));
    let result = world.launch(&world.order("a", 1, options.clone()), 1).await.unwrap();
    assert_eq!(result.instances.len(), 1);
    world.cloud.rules().push(throttle(10));
    let error = world.launch(&world.order("b", 1, options.clone()), 2).await.unwrap_err();
    assert!(matches!(error, CloudError::Throttled { .. }), "{error}");
    world.cloud.rules().clear();
    world.launch(&world.order("b", 1, options), 3).await.unwrap();
    assert_eq!(world.provider.list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_lost_answer_launches_nothing_twice() {
    let world = world(json!({})).await;
    let options = world.options(&["m5.large"], CapacityType::Spot, 1).await;
    let order = world.order("t", 2, options);
    world.cloud.rules().push(Rule::new(Effect::LoseAnswer).on("CreateFleet").times(5));
    match world.launch(&order, 1).await {
        Err(error) => assert!(matches!(error, CloudError::Unknown { .. }), "{error}"),
        Ok(_) => panic!("five answers were lost"),
    }
    world.cloud.rules().clear();
    assert_eq!(world.launch(&order, 2).await.unwrap().instances.len(), 2);
    assert_eq!(world.provider.list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_deleted_template_is_made_again() {
    let world = world(json!({})).await;
    let options = world.options(&["m5.large"], CapacityType::Spot, 1).await;
    world.launch(&world.order("a", 1, options.clone()), 1).await.unwrap();
    let created = world.cloud.journal().of("CreateLaunchTemplate");
    let name = created[0].params["LaunchTemplateName"].clone();
    let params = [("LaunchTemplateName", name.as_str())];
    world.cloud.direct().query("ec2", "DeleteLaunchTemplate", &params).await.unwrap();
    world.cloud.journal().clear();
    world.launch(&world.order("b", 1, options), 2).await.unwrap();
    assert_eq!(world.calls(), ["CreateFleet", "CreateLaunchTemplate", "CreateFleet"]);
}

#[tokio::test]
async fn unused_templates_and_profiles_are_deleted() {
    let world = world(json!({})).await;
    let options = world.options(&["m5.large"], CapacityType::Spot, 1).await;
    world.launch(&world.order("a", 1, options.clone()), 1).await.unwrap();
    // In the first hour nothing is looked for that could not be deleted yet.
    world.cloud.journal().clear();
    world.provider.resolve(&world.class, at(3000)).await.unwrap();
    assert!(world.cloud.journal().of("DescribeLaunchTemplates").is_empty());
    world.provider.resolve(&world.class, at(3602)).await.unwrap();
    assert_eq!(world.cloud.journal().of("DeleteLaunchTemplate").len(), 1);
    world.launch(&world.order("b", 1, options), 3603).await.unwrap();
    world.provider.release(&world.class).await.unwrap();
    assert_eq!(world.cloud.journal().of("DeleteLaunchTemplate").len(), 2);
    assert_eq!(world.cloud.journal().of("DeleteInstanceProfile").len(), 1);
    world.sound();
}

#[tokio::test]
async fn classes_that_cannot_work_say_why() {
    let mut world = unresolved(json!({})).await;
    for (extra, kind, expected) in [
        (
            json!({"subnetSelectorTerms": [{"tags": {"no": "such"}}]}),
            "SubnetsReady",
            "False SubnetsNotFound",
        ),
        (
            json!({"securityGroupSelectorTerms": [{"name": "none"}]}),
            "SecurityGroupsReady",
            "False SecurityGroupsNotFound",
        ),
        (
            json!({"amiSelectorTerms": [{"alias": "al2@latest"}]}),
            "AMIsReady",
            "False UnsupportedAlias",
        ),
        (
            json!({"amiSelectorTerms": [{"id": "ami-0123456789"}], "amiFamily": "AL2023"}),
            "AMIsReady",
            "False AMINotFound",
        ),
        (json!({"role": "nobody"}), "InstanceProfileReady", "False InstanceProfileNotFound"),
        (
            json!({"kubelet": {"maxPods": -1}}),
            "ValidationSucceeded",
            "False InvalidKubeletConfiguration",
        ),
        (
            json!({"tags": {"karpenter.sh/nodepool": "x"}}),
            "ValidationSucceeded",
            "False TagValidationFailed",
        ),
    ] {
        world.class = class(&world.cloud, &extra);
        let status = world.provider.resolve(&world.class, at(0)).await.unwrap();
        assert_eq!(reason(&status, kind), expected);
        let ready = conditions::get(&status.conditions, "Ready").unwrap();
        assert!(
            ready.status == ConditionStatus::False && ready.message.contains(kind),
            "{ready:?}"
        );
        let mut class = world.class.clone();
        class.status = Some(status);
        let order = LaunchOrder { class: Arc::new(class), ..world.order("t", 1, Vec::new()) };
        let error = world.launch(&order, 1).await.unwrap_err();
        assert!(matches!(error, CloudError::ClassNotReady { .. }), "{error}");
    }
}

#[tokio::test]
async fn images_by_name_and_id_and_own_profiles() {
    let name = "amazon-eks-node-al2023-x86_64-standard-1.33-v*";
    let world = world(json!({
        "role": null, "instanceProfile": "node", "amiFamily": "AL2023",
        "amiSelectorTerms": [{"name": name, "owner": "602401143452"}],
    }))
    .await;
    let status = world.class.status.as_ref().unwrap();
    assert_eq!(reason(status, "Ready"), "True Ready", "{:?}", status.conditions);
    assert_eq!(status.instance_profile.as_deref(), Some("node"));
    assert_eq!(status.amis.len(), 1);
    assert!(status.amis[0].name.as_deref().unwrap().ends_with("v20261101"), "{:?}", status.amis);
    // An image for amd64 leaves no types of arm64.
    let catalog = world.provider.instance_types(&world.class, at(1)).await.unwrap();
    assert!(!catalog.types.iter().any(|kind| &*kind.name == "m6g.large"));
    assert!(catalog.types.iter().any(|kind| &*kind.name == "m5.large"));
    world.sound();
}

#[tokio::test]
async fn a_dead_endpoint_is_an_unknown_outcome() {
    let world = unresolved(json!({})).await;
    world.cloud.rules().push(Rule::new(Effect::LoseRequest));
    let error = world.provider.resolve(&world.class, at(0)).await.unwrap_err();
    assert!(matches!(error, CloudError::Unknown { .. }), "{error}");
    let denied = Effect::Error {
        status: 403,
        code: "UnauthorizedOperation".to_owned(),
        message: "you are not authorized to perform this operation".to_owned(),
    };
    world.cloud.rules().clear();
    world.cloud.rules().push(Rule::new(denied).on("DescribeSubnets"));
    let error = world.provider.resolve(&world.class, at(0)).await.unwrap_err();
    assert!(matches!(error, CloudError::Denied { .. }), "{error}");
}

#[tokio::test]
async fn wide_orders_need_few_templates_and_one_call() {
    let world = world(json!({})).await;
    let catalog = world.provider.instance_types(&world.class, at(1)).await.unwrap();
    let mut options: Vec<LaunchOption> = catalog
        .types
        .iter()
        .filter(|kind| !kind.name.contains("metal"))
        .flat_map(|kind| {
            kind.offerings.iter().filter(|o| o.available).map(|offer| LaunchOption {
                instance_type: Arc::clone(&kind.name),
                zone: Arc::clone(&offer.zone),
                capacity_type: offer.capacity_type,
                reservation: None,
                price: offer.price,
            })
        })
        .filter(|option| option.capacity_type == CapacityType::Spot)
        .collect();
    options.sort_by_key(|option| option.price);
    let order = world.order("wide", 1, options);
    let started = Instant::now();
    world.launch(&order, 1).await.unwrap();
    let cold = started.elapsed();
    let templates = world.cloud.journal().of("CreateLaunchTemplate").len();
    let fleet = &world.cloud.journal().of("CreateFleet")[0];
    let overrides = fleet.params.keys().filter(|key| key.ends_with(".InstanceType")).count();
    assert!(overrides <= 300 && overrides > 100, "{overrides}");
    assert!(templates < 20, "{templates}");
    let started = Instant::now();
    let order = LaunchOrder { token: "wide-2".to_owned(), ..order };
    world.launch(&order, 2).await.unwrap();
    println!(
        "{overrides} overrides, {templates} templates, cold {cold:?}, warm {:?}",
        started.elapsed()
    );
    world.sound();
}
