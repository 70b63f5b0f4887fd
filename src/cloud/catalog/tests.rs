use super::*;
use crate::model::labels;

fn types(region: &str, spot: &SpotPrices) -> Vec<Arc<InstanceType>> {
    let catalog = Catalog::built_in().unwrap();
    catalog.instance_types(region, &ClassSettings::default(), spot).unwrap()
}

#[test]
fn the_table_is_small_and_whole() {
    assert!(include_bytes!("ec2.json.gz").len() < 200_000);
    let table = Catalog::built_in().unwrap();
    assert_eq!(table.regions().collect::<Vec<_>>(), ["eu-west-1", "us-east-1", "us-west-2"]);
    assert!(table.rows.len() > 1300, "{}", table.rows.len());
    assert!(table.rows.is_sorted_by(|a, b| a.f.name < b.f.name));
    assert!(table.facts("mac1.metal").is_none());
}

#[test]
fn offers_every_zone_and_capacity_type() {
    let types = types("us-east-1", &SpotPrices::Discount(600));
    let m5 = types.iter().find(|kind| &*kind.name == "m5.large").unwrap();
    assert_eq!(m5.offerings.len(), 10);
    assert!(m5.offerings.iter().all(|offer| offer.available));
    assert_eq!(m5.cheapest(), Some(MicroDollarsPerHour(38_400)));
    let zones = m5.requirements.get(labels::ZONE).unwrap().finite_values().unwrap().len();
    assert_eq!(zones, 5);
    let priced = types.iter().all(|kind| kind.offerings.iter().all(|o| o.price.0 > 0));
    assert!(priced);
}

#[test]
fn other_regions_say_whose_prices_they_use() {
    let catalog = Catalog::built_in().unwrap();
    let spot = SpotPrices::Discount(600);
    let warnings = catalog.warnings("eu-west-1", &spot);
    assert!(warnings[0].contains("60.0 %") && warnings[1].contains("eu-west-1"), "{warnings:?}");
    let settings = ClassSettings::default();
    let error = catalog.instance_types("mars-1", &settings, &spot).unwrap_err().to_string();
    assert!(error.contains("mars-1") && error.contains("us-west-2"), "{error}");
}

#[test]
fn listed_spot_prices_replace_the_assumption() {
    let history = r#"{"SpotPriceHistory": [
        {"InstanceType":"m5.large","AvailabilityZone":"us-east-1a","SpotPrice":"0.05","ProductDescription":"Linux/UNIX","Timestamp":"2026-01-02T00:00:00Z"},
        {"InstanceType":"m5.large","AvailabilityZone":"us-east-1a","SpotPrice":"0.04","ProductDescription":"Linux/UNIX","Timestamp":"2026-01-01T00:00:00Z"},
        {"InstanceType":"m5.large","AvailabilityZone":"us-east-1a","SpotPrice":"9","ProductDescription":"Windows","Timestamp":"2026-01-03T00:00:00Z"}]}"#;
    let types = types("us-east-1", &spot_prices(history).unwrap());
    let m5 = types.iter().find(|kind| &*kind.name == "m5.large").unwrap();
    let spot: Vec<_> = m5
        .offerings
        .iter()
        .filter(|offer| offer.capacity_type == CapacityType::Spot && offer.available)
        .map(|offer| (&*offer.zone, offer.price.0))
        .collect();
    assert_eq!(spot, [("us-east-1a", 50_000)]);
}

#[test]
fn bad_spot_prices_are_named() {
    for (json, part) in [
        ("[]", "expected struct"),
        (r#"{"SpotPriceHistory":[{}]}"#, "SpotPriceHistory[0]"),
        (
            r#"{"SpotPriceHistory":[{"InstanceType":"a","AvailabilityZone":"b","SpotPrice":"x"}]}"#,
            "SpotPriceHistory[0].SpotPrice",
        ),
    ] {
        let error = spot_prices(json).unwrap_err().to_string();
        assert!(error.contains(part), "{json}: {error}");
    }
}

#[test]
fn foreign_catalogs_are_read() {
    let types = from_json(
        r#"[{"name":"b","capacity":{"cpu":"2","memory":"4Gi","pods":"10"},"overhead":{"cpu":"100m"},
             "requirements":[{"key":"kubernetes.io/arch","operator":"In","values":["amd64"]},
                             {"key":"special","operator":"DoesNotExist"}],
             "offerings":[{"zone":"z1","capacityType":"spot","price":0.5,"available":true}]},
            {"name":"a","capacity":{"cpu":1},"allocatable":{"cpu":"900m"},"offerings":[]}]"#,
    )
    .unwrap();
    assert_eq!(types.iter().map(|kind| &*kind.name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(types[0].allocatable().cpu, 900);
    let b = &types[1];
    assert_eq!(b.allocatable().cpu, 1900);
    assert_eq!(b.offerings[0].price, MicroDollarsPerHour(500_000));
    assert!(b.requirements.get(labels::ZONE).unwrap().allows("z1"));
    assert!(b.requirements.get(labels::INSTANCE_TYPE).unwrap().allows("b"));
}

#[test]
fn foreign_catalogs_that_are_wrong_name_entry_and_field() {
    let entry = |inner: &str| format!(r#"[{{"name":"a","capacity":{{"cpu":1}},{inner}}}]"#);
    for (json, parts) in [
        (String::new(), &["catalog", "JSON array"][..]),
        ("[]".to_owned(), &["no instance types"]),
        ("{}".to_owned(), &["JSON array"]),
        (r#"[{"name":"a"}]"#.to_owned(), &["entry 0", "\"a\"", "capacity"]),
        (r#"[{"name":"","capacity":{},"offerings":[]}]"#.to_owned(), &["entry 0", "name"]),
        (entry(r#""offerings":[],"colour":1"#), &["entry 0", "colour"]),
        (
            entry(r#""offerings":[{"zone":"z","capacityType":"Spot","price":1}]"#),
            &["offerings[0].capacityType", "on-demand, spot, reserved"],
        ),
        (
            entry(r#""offerings":[{"zone":"z","capacityType":"spot","price":-1}]"#),
            &["offerings[0].price"],
        ),
        (
            entry(r#""offerings":[],"requirements":[{"key":"k","operator":"in"}]"#),
            &["requirements[0].operator"],
        ),
        (
            entry(r#""offerings":[],"requirements":[{"key":"k","operator":"Gt","values":["x"]}]"#),
            &["requirements[0].values", "integer"],
        ),
        (
            r#"[{"name":"a","capacity":{"cpu":"4x"},"offerings":[]}]"#.to_owned(),
            &["entry 0", "capacity", "4x"],
        ),
        (
            r#"[{"name":"a","capacity":{},"offerings":[]},{"name":"a","capacity":{},"offerings":[]}]"#
                .to_owned(),
            &["entry 1", "same name"],
        ),
    ] {
        let errors = from_json(&json).unwrap_err();
        let error = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        for part in parts {
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
