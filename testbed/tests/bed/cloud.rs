//! The proxy's market, faults and memory, spoken to in raw requests. One emulator serves all tests
//! here, each in its own account.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::cloud::xml::Element;
use testbed::cloud::{CapacityType, Cloud, Cluster, Effect, Pool, Rule};
use testbed::http::Reply;

const ZONE: &str = "us-west-2a";
const OTHER_ZONE: &str = "us-west-2b";

async fn cloud() -> Cloud {
    let cloud = Cloud::start(super::moto().await, "c1").await.unwrap();
    let ssm = json!({ "Name": "/aws/service/eks/optimized-ami/1.37/amazon-linux-2023/x86_64/standard/recommended/image_id" });
    let image = cloud.direct().send_json("ssm", "AmazonSSM.GetParameter", &ssm).await.unwrap();
    let image: Value = serde_json::from_slice(&image.body).unwrap();
    let params = [
        ("LaunchTemplateName", "lt"),
        ("LaunchTemplateData.ImageId", image["Parameter"]["Value"].as_str().unwrap()),
        ("LaunchTemplateData.SecurityGroupId.1", &cloud.seed().security_group_id),
    ];
    cloud.direct().query("ec2", "CreateLaunchTemplate", &params).await.unwrap();
    cloud
}

/// Asks for `count` instances out of (type, zone) overrides.
async fn fleet(
    cloud: &Cloud,
    kind: &str,
    count: u32,
    token: &str,
    overrides: &[(&str, &str)],
) -> anyhow::Result<Reply> {
    let mut params: BTreeMap<String, String> = BTreeMap::from(
        [
            ("Type", "instant"),
            ("ClientToken", token),
            ("SpotOptions.AllocationStrategy", "price-capacity-optimized"),
            ("OnDemandOptions.AllocationStrategy", "lowest-price"),
            ("LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateName", "lt"),
            ("LaunchTemplateConfigs.1.LaunchTemplateSpecification.Version", "$Latest"),
            ("TargetCapacitySpecification.DefaultTargetCapacityType", kind),
            ("TagSpecification.1.ResourceType", "instance"),
            ("TagSpecification.1.Tag.1.Key", "Name"),
            ("TagSpecification.1.Tag.1.Value", "web"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    params.insert("TargetCapacitySpecification.TotalTargetCapacity".into(), count.to_string());
    for (index, (name, zone)) in overrides.iter().enumerate() {
        let prefix = format!("LaunchTemplateConfigs.1.Overrides.{}", index + 1);
        params.insert(format!("{prefix}.InstanceType"), (*name).to_owned());
        params.insert(format!("{prefix}.SubnetId"), cloud.seed().subnets[*zone].clone());
    }
    let params: Vec<(&str, &str)> =
        params.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    cloud.client().send("ec2", "CreateFleet", &params).await
}

/// Launched (type, count) and errors (code, type) of an answer.
type Outcome = (Vec<(String, usize)>, Vec<(String, String)>);

fn outcome(reply: &Reply) -> Outcome {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let answer = Element::parse(&reply.text()).unwrap();
    let wanted = |item: &Element| {
        item.text_at("launchTemplateAndOverrides/overrides/instanceType").to_owned()
    };
    let launched = answer
        .items("fleetInstanceSet")
        .iter()
        .map(|item| (wanted(item), item.items("instanceIds").len()))
        .collect();
    let errors = answer
        .items("errorSet")
        .iter()
        .map(|item| (item.text_at("errorCode").to_owned(), wanted(item)))
        .collect();
    (launched, errors)
}

fn code(reply: &Reply) -> String {
    Element::parse(&reply.text()).unwrap().text_at("Errors/Error/Code").to_owned()
}

#[tokio::test]
async fn the_cheapest_offer_wins_whatever_the_order() {
    let cloud = cloud().await;
    let offers = [("m5.2xlarge", ZONE), ("c5.large", OTHER_ZONE), ("m5.large", ZONE)];
    let reply = fleet(&cloud, "on-demand", 3, "", &offers).await.unwrap();
    assert_eq!(outcome(&reply), (vec![("c5.large".into(), 3)], vec![]));
    let answer = Element::parse(&reply.text()).unwrap();
    let launched = &answer.items("fleetInstanceSet")[0];
    let template = launched.at("launchTemplateAndOverrides/launchTemplateSpecification").unwrap();
    assert_eq!(template.text_at("version"), "1");
    assert!(template.text_at("launchTemplateId").starts_with("lt-"));
    assert_eq!(launched.text_at("availabilityZone"), OTHER_ZONE);

    cloud.market().set_price(Pool::new("m5.2xlarge", ZONE, CapacityType::Spot), 1);
    let reply = fleet(&cloud, "spot", 1, "", &offers).await.unwrap();
    assert_eq!(outcome(&reply).0, [("m5.2xlarge".into(), 1)]);

    let instances = cloud.instances().await.unwrap();
    assert_eq!(instances.len(), 4);
    let spot = instances.iter().find(|one| one.capacity_type == CapacityType::Spot).unwrap();
    assert_eq!((spot.zone.as_str(), spot.instance_type.as_str()), (ZONE, "m5.2xlarge"));
    assert_eq!(spot.tags["Name"], "web");
    assert!(spot.tags.contains_key("aws:ec2:fleet-id"));
    assert!(spot.private_dns_name.ends_with(".us-west-2.compute.internal"));
    cloud.journal().ensure_sound().unwrap();
}

#[tokio::test]
async fn pools_run_out_and_fill_up_again() {
    let cloud = cloud().await;
    let offers = [("c5.large", ZONE), ("m5.large", ZONE)];
    let cheap = Pool::new("c5.large", ZONE, CapacityType::OnDemand);
    cloud.market().set_capacity(cheap.clone(), 2);
    let reply = fleet(&cloud, "on-demand", 3, "", &offers).await.unwrap();
    let no_capacity = ("InsufficientInstanceCapacity".to_owned(), "c5.large".to_owned());
    let expected = vec![("c5.large".to_owned(), 2), ("m5.large".to_owned(), 1)];
    assert_eq!(outcome(&reply), (expected, vec![no_capacity.clone()]));

    // With nothing to be had anywhere the answer is still 200, with a fleet that has no instances.
    cloud.market().set_capacity(Pool::new("m5.large", ZONE, CapacityType::OnDemand), 0);
    let reply = fleet(&cloud, "on-demand", 1, "", &offers).await.unwrap();
    let (launched, errors) = outcome(&reply);
    assert_eq!((launched.len(), errors.len()), (0, 2));

    let ended = cloud.instances().await.unwrap();
    let ended = ended.iter().find(|one| one.instance_type == "c5.large").unwrap();
    let params = [("InstanceId.1", ended.id.as_str())];
    cloud.client().query("ec2", "TerminateInstances", &params).await.unwrap();
    assert_eq!(cloud.market().left(&cheap), 1);
    let ended = cloud.journal().of("TerminateInstances").remove(0).instance_ids[0].clone();
    assert!(cloud.instances().await.unwrap().iter().all(|one| one.id != ended));

    cloud.market().lift_limits();
    let rule = Rule::new(Effect::InsufficientCapacity).instance_type("c5.large").times(1);
    cloud.rules().push(rule);
    let reply = fleet(&cloud, "on-demand", 1, "", &offers).await.unwrap();
    assert_eq!(outcome(&reply), (vec![("m5.large".into(), 1)], vec![no_capacity]));
    let reply = fleet(&cloud, "on-demand", 1, "", &offers).await.unwrap();
    assert_eq!(outcome(&reply), (vec![("c5.large".into(), 1)], vec![]));
}

#[tokio::test]
async fn priority_and_price_limit_count() {
    let cloud = cloud().await;
    let subnet = cloud.seed().subnets[ZONE].clone();
    let launch = async |strategy: &str, limit: &str| {
        let config = "LaunchTemplateConfigs.1";
        let field = |number: u32, name: &str| format!("{config}.Overrides.{number}.{name}");
        let params = [
            ("Type".to_owned(), "instant"),
            ("SpotOptions.AllocationStrategy".to_owned(), strategy),
            (format!("{config}.LaunchTemplateSpecification.LaunchTemplateName"), "lt"),
            ("TargetCapacitySpecification.TotalTargetCapacity".to_owned(), "1"),
            ("TargetCapacitySpecification.DefaultTargetCapacityType".to_owned(), "spot"),
            (field(1, "InstanceType"), "c5.large"),
            (field(1, "Priority"), "2.0"),
            (field(1, "SubnetId"), &subnet),
            (field(2, "InstanceType"), "m5.2xlarge"),
            (field(2, "Priority"), "1.0"),
            (field(2, "MaxPrice"), limit),
            (field(2, "SubnetId"), &subnet),
        ];
        let params: Vec<(&str, &str)> =
            params.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        outcome(&cloud.client().send("ec2", "CreateFleet", &params).await.unwrap())
    };
    let (launched, _) = launch("capacity-optimized-prioritized", "5").await;
    assert_eq!(launched, [("m5.2xlarge".into(), 1)]);
    let (launched, _) = launch("price-capacity-optimized", "5").await;
    assert_eq!(launched, [("c5.large".into(), 1)]);
    let (launched, errors) = launch("capacity-optimized-prioritized", "0.0001").await;
    assert_eq!(launched, [("c5.large".into(), 1)]);
    assert_eq!(errors, [("SpotMaxPriceTooLow".into(), "m5.2xlarge".into())]);
}

#[tokio::test]
async fn a_client_token_launches_once() {
    let cloud = cloud().await;
    let offers = [("c5.large", ZONE)];
    // The answer to the first request is lost; the instance is there all the same.
    cloud.rules().push(Rule::new(Effect::LoseAnswer).on("CreateFleet").times(1));
    fleet(&cloud, "on-demand", 1, "t1", &offers).await.unwrap_err();
    assert_eq!(cloud.instances().await.unwrap().len(), 1);

    let (again, third) = futures::join!(
        fleet(&cloud, "on-demand", 1, "t1", &offers),
        fleet(&cloud, "on-demand", 1, "t1", &offers)
    );
    assert_eq!(outcome(&again.unwrap()), outcome(&third.unwrap()));
    assert_eq!(cloud.instances().await.unwrap().len(), 1);
    let entries = cloud.journal().of("CreateFleet");
    let told: Vec<(u16, bool)> = entries.iter().map(|one| (one.status, one.replayed)).collect();
    assert_eq!(told, [(0, false), (200, true), (200, true)]);
    assert!(entries.iter().all(|one| one.instance_ids == entries[0].instance_ids));

    let reply = fleet(&cloud, "on-demand", 2, "t1", &offers).await.unwrap();
    assert_eq!((reply.status, code(&reply)), (400, "IdempotentParameterMismatch".into()));
}

#[tokio::test]
async fn faults_hit_what_they_name() {
    let cloud = cloud().await;
    let offers = [("c5.large", ZONE)];
    cloud.rules().push(Rule::new(Effect::LoseRequest).on("CreateFleet").times(1));
    fleet(&cloud, "on-demand", 1, "", &offers).await.unwrap_err();
    assert!(cloud.instances().await.unwrap().is_empty());

    cloud.rules().push(Rule::new(Effect::Throttle).on("CreateFleet").zone(ZONE).times(1));
    let reply = fleet(&cloud, "on-demand", 1, "", &[("c5.large", OTHER_ZONE)]).await.unwrap();
    assert_eq!(reply.status, 200);
    let reply = fleet(&cloud, "on-demand", 1, "", &offers).await.unwrap();
    assert_eq!((reply.status, code(&reply)), (503, "RequestLimitExceeded".into()));

    let error =
        Effect::Error { status: 403, code: "UnauthorizedOperation".into(), message: "no".into() };
    cloud.rules().clear();
    cloud.rules().push(Rule::new(Effect::Delay(Duration::from_millis(50))));
    cloud.rules().push(Rule::new(error).on("DescribeVpcs"));
    let asked = Instant::now();
    let reply = cloud.client().send("ec2", "DescribeVpcs", &[]).await.unwrap();
    assert_eq!((reply.status, code(&reply)), (403, "UnauthorizedOperation".into()));
    assert!(asked.elapsed() >= Duration::from_millis(50));
    let seen = |entry: &testbed::cloud::Entry| entry.status == 403;
    cloud.journal().wait_for("denial", Duration::from_secs(1), seen).await.unwrap();

    // What moto does not know at all is told apart from an AWS error.
    cloud.rules().clear();
    cloud.client().send("ec2", "GetSpotPlacementScores", &[]).await.unwrap();
    assert_eq!(cloud.journal().broken().len(), 1);
}

#[tokio::test]
async fn canned_answers_look_like_amazons() {
    let cloud = cloud().await;
    let client = cloud.client();
    let filter =
        |field: &str, value: &str| json!({ "Type": "TERM_MATCH", "Field": field, "Value": value });
    let target = "AWSPriceListService.GetProducts";
    let one = json!({ "ServiceCode": "AmazonEC2", "Filters": [
        filter("instanceType", "m5.large"), filter("operatingSystem", "Linux"),
        filter("serviceCode", "AmazonEC2"), filter("regionCode", "us-west-2"),
    ] });
    let reply = client.send_json("pricing", target, &one).await.unwrap();
    let answer: Value = serde_json::from_slice(&reply.body).unwrap();
    let product: Value = serde_json::from_str(answer["PriceList"][0].as_str().unwrap()).unwrap();
    assert_eq!(answer["PriceList"].as_array().unwrap().len(), 1);
    let term = product["terms"]["OnDemand"].as_object().unwrap().values().next().unwrap();
    let rate = term["priceDimensions"].as_object().unwrap().values().next().unwrap();
    assert_eq!(rate["pricePerUnit"]["USD"], "0.0960000000");

    let mut body = json!({ "ServiceCode": "AmazonEC2" });
    let mut products = 0;
    loop {
        let reply = client.send_json("pricing", target, &body).await.unwrap();
        let answer: Value = serde_json::from_slice(&reply.body).unwrap();
        products += answer["PriceList"].as_array().unwrap().len();
        if answer["NextToken"].is_null() {
            break;
        }
        body["NextToken"] = answer["NextToken"].clone();
    }
    assert_eq!(products, 1367);

    let params = [("InstanceType.1", "m5.large"), ("ProductDescription.1", "Linux/UNIX")];
    let history = client.query("ec2", "DescribeSpotPriceHistory", &params).await.unwrap();
    assert_eq!(history.items("spotPriceHistorySet").len(), 4);
    assert_eq!(history.text_at("nextToken"), "");
    let none = client.query("ec2", "DescribeCapacityReservations", &[]).await.unwrap();
    assert!(none.items("capacityReservationSet").is_empty());

    cloud.set_cluster(Cluster {
        name: "c1".into(),
        endpoint: "https://127.0.0.1:6443".into(),
        ca: "PEM".into(),
        version: "1.37".into(),
        service_cidr: "127.96.0.0/16".into(),
    });
    let request = hyper::Request::get(format!("{}/clusters/c1", cloud.url()))
        .header(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=a/20260101/us-west-2/eks/aws4_request",
        )
        .body(http_body_util::Full::default())
        .unwrap();
    let reply = testbed::http::send(request).await.unwrap();
    let answer: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(answer["cluster"]["certificateAuthority"]["data"], "UEVN");

    let types = client.query("ec2", "DescribeInstanceTypes", &[]).await.unwrap();
    assert!(types.items("instanceTypeSet").len() > 1000);
    let asked = Instant::now();
    client.query("ec2", "DescribeInstanceTypes", &[]).await.unwrap();
    println!("second list of all types after {:?}", asked.elapsed());
    cloud.journal().ensure_sound().unwrap();
}

#[tokio::test]
async fn accounts_do_not_see_each_other() {
    let (one, other) = (cloud().await, cloud().await);
    fleet(&one, "on-demand", 2, "", &[("c5.large", ZONE)]).await.unwrap();
    assert_eq!(one.instances().await.unwrap().len(), 2);
    assert!(other.instances().await.unwrap().is_empty());
    assert!(one.env().iter().any(|(key, value)| key == "AWS_ENDPOINT_URL" && value == one.url()));
    assert_ne!(one.url(), other.url());
}
