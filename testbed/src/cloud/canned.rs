//! Answers to what moto does not know: prices, spot history, placement groups, the cluster.

use serde_json::{Value, json};

use super::call::Call;
use super::market::{CapacityType, Market, Pool, dollars};
use super::xml::{write_element, write_text};
use crate::http::Reply;

/// Zones of us-west-2, which is the only region whose zone ids moto tells consistently.
const ZONES: [&str; 4] = ["a", "b", "c", "d"];
/// The term "on demand, per hour" in every price list.
const ON_DEMAND_TERM: &str = "JRTCKXETXF";
const PER_HOUR: &str = "6YS6EN2CT7";
/// Placement groups of every account: id, name, strategy, partitions.
const PLACEMENT_GROUPS: [(&str, &str, &str, u32); 2] =
    [("pg-0a", "tight", "cluster", 0), ("pg-0b", "apart", "partition", 3)];

/// What `eks:DescribeCluster` tells.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub name: String,
    pub endpoint: String,
    /// PEM.
    pub ca: String,
    /// Such as `1.37`.
    pub version: String,
    /// Such as `10.100.0.0/16`.
    pub service_cidr: String,
}

/// The answer, if this is a request that moto does not know.
pub(super) fn answer(
    call: &Call,
    market: &Market,
    region: &str,
    cluster: Option<&Cluster>,
) -> Option<Reply> {
    match (call.service.as_str(), call.action.as_str()) {
        ("pricing", "GetProducts") => Some(products(call, market, region)),
        ("ec2", "DescribeSpotPriceHistory") => Some(spot_history(call, market, region)),
        ("ec2", "DescribePlacementGroups") => Some(placement_groups(call)),
        ("eks", action) => {
            let cluster = cluster?;
            let wanted = action.strip_prefix("GET /clusters/")?;
            (wanted == cluster.name).then(|| describe_cluster(cluster, region))
        }
        _ => None,
    }
}

/// EC2 blames the caller for a group that is not there.
fn placement_groups(call: &Call) -> Reply {
    let (ids, names) = (call.list("GroupId"), call.list("GroupName"));
    let asked =
        |(id, name, ..): &&(&str, &str, &str, u32)| ids.contains(id) || names.contains(name);
    let Some((id, name, strategy, partitions)) = PLACEMENT_GROUPS.iter().find(asked) else {
        let error = "<Code>InvalidPlacementGroup.Unknown</Code><Message>unknown</Message>";
        let body = format!("<Response><Errors><Error>{error}</Error></Errors></Response>");
        return Reply::new(400, "text/xml", body);
    };
    let mut out = String::new();
    write_element(&mut out, "DescribePlacementGroupsResponse", |out| {
        write_element(out, "placementGroupSet", |out| {
            write_element(out, "item", |out| {
                write_text(out, "groupId", id);
                write_text(out, "groupName", name);
                write_text(out, "strategy", strategy);
                write_text(out, "state", "available");
                write_text(out, "partitionCount", &partitions.to_string());
            });
        });
    });
    Reply::new(200, "text/xml", out)
}

/// Pricing answers pages of 100 products, each a JSON document inside a string.
fn products(call: &Call, market: &Market, region: &str) -> Reply {
    let start: usize = offset(call.json["NextToken"].as_str());
    let size = call.json["MaxResults"].as_u64().map_or(100, |max| max.clamp(1, 100));
    let size = usize::try_from(size).unwrap_or(100);
    let filters = call.json["Filters"].as_array().cloned().unwrap_or_default();
    let all = market
        .instance_types()
        .filter_map(|name| {
            let price = market.price(&Pool::new(name, "", CapacityType::OnDemand))?;
            Some(product(name, region, price))
        })
        .filter(|product| filters.iter().all(|filter| matches(product, filter)))
        .collect::<Vec<Value>>();
    let page = all.iter().skip(start).take(size).map(Value::to_string).collect::<Vec<_>>();
    let mut body = json!({ "FormatVersion": "aws_v1", "PriceList": page });
    if start + size < all.len() {
        body["NextToken"] = json!((start + size).to_string());
    }
    Reply::new(200, "application/x-amz-json-1.1", body.to_string())
}

/// Filters name attributes; one that our products do not carry matches nothing, as at AWS.
fn matches(product: &Value, filter: &Value) -> bool {
    let name = filter["Field"].as_str().unwrap_or_default();
    let attributes = &product["product"]["attributes"];
    let is = match name {
        "productFamily" => &product["product"]["productFamily"],
        "serviceCode" | "ServiceCode" => &product["serviceCode"],
        other => &attributes[other],
    };
    *is == filter["Value"]
}

fn product(name: &str, region: &str, price: u64) -> Value {
    let sku: String = name.to_uppercase().replace(['.', '-'], "");
    let term = format!("{sku}.{ON_DEMAND_TERM}");
    let rate = format!("{term}.{PER_HOUR}");
    let family =
        if name.contains(".metal") { "Compute Instance (bare metal)" } else { "Compute Instance" };
    json!({
        "product": {
            "productFamily": family,
            "sku": sku,
            "attributes": {
                "servicecode": "AmazonEC2",
                "servicename": "Amazon Elastic Compute Cloud",
                "instanceType": name,
                "regionCode": region,
                "locationType": "AWS Region",
                "operatingSystem": "Linux",
                "preInstalledSw": "NA",
                "licenseModel": "No License required",
                "tenancy": "Shared",
                "capacitystatus": "Used",
                "marketoption": "OnDemand",
                "operation": "RunInstances",
                "usagetype": format!("BoxUsage:{name}"),
            },
        },
        "serviceCode": "AmazonEC2",
        "terms": { "OnDemand": { term.clone(): {
            "sku": sku,
            "offerTermCode": ON_DEMAND_TERM,
            "effectiveDate": "2026-07-01T00:00:00Z",
            "termAttributes": {},
            "priceDimensions": { rate.clone(): {
                "rateCode": rate,
                "unit": "Hrs",
                "beginRange": "0",
                "endRange": "Inf",
                "appliesTo": [],
                "description": format!("${} per On Demand Linux {name} Instance Hour", dollars(price)),
                "pricePerUnit": { "USD": format!("{}0000", dollars(price)) },
            } },
        } } },
        "version": "20260720000000",
        "publicationDate": "2026-07-20T00:00:00Z",
    })
}

fn spot_history(call: &Call, market: &Market, region: &str) -> Reply {
    let mut types = call.list("InstanceType");
    types.extend(call.filter("instance-type"));
    let mut zones = call.filter("availability-zone");
    zones.extend(Some(call.param("AvailabilityZone")).filter(|zone| !zone.is_empty()));
    let mut products = call.list("ProductDescription");
    products.extend(call.filter("product-description"));
    let linux = products.is_empty() || products.iter().any(|name| name.starts_with("Linux/UNIX"));
    let rows: Vec<(&str, String, u64)> = market
        .instance_types()
        .filter(|name| linux && (types.is_empty() || types.contains(name)))
        .flat_map(|name| ZONES.map(|letter| (name, format!("{region}{letter}"))))
        .filter(|(_, zone)| zones.is_empty() || zones.contains(&zone.as_str()))
        .filter_map(|(name, zone)| {
            let price = market.price(&Pool::new(name, &zone, CapacityType::Spot))?;
            Some((name, zone, price))
        })
        .collect();
    let start = offset(Some(call.param("NextToken")));
    let size: usize = call.param("MaxResults").parse().unwrap_or(1000);
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string();
    let mut out = String::new();
    write_element(&mut out, "DescribeSpotPriceHistoryResponse", |out| {
        write_element(out, "spotPriceHistorySet", |out| {
            for (name, zone, price) in rows.iter().skip(start).take(size) {
                write_element(out, "item", |out| {
                    write_text(out, "availabilityZone", zone);
                    write_text(out, "instanceType", name);
                    write_text(out, "productDescription", "Linux/UNIX");
                    write_text(out, "spotPrice", &dollars(*price));
                    write_text(out, "timestamp", &now);
                });
            }
        });
        // EC2 ends with an empty token.
        let next = start + size;
        let token = if next < rows.len() { next.to_string() } else { String::new() };
        write_text(out, "nextToken", &token);
    });
    Reply::new(200, "text/xml", out)
}

fn describe_cluster(cluster: &Cluster, region: &str) -> Reply {
    use base64::Engine;
    let ca = base64::engine::general_purpose::STANDARD.encode(&cluster.ca);
    let body = json!({ "cluster": {
        "name": cluster.name,
        "arn": format!("arn:aws:eks:{region}:123456789012:cluster/{}", cluster.name),
        "status": "ACTIVE",
        "version": cluster.version,
        "endpoint": cluster.endpoint,
        "certificateAuthority": { "data": ca },
        "kubernetesNetworkConfig": {
            "serviceIpv4Cidr": cluster.service_cidr, "ipFamily": "ipv4",
        },
    } });
    Reply::new(200, "application/json", body.to_string())
}

fn offset(token: Option<&str>) -> usize {
    token.and_then(|token| token.parse().ok()).unwrap_or(0)
}
