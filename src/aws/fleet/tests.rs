use super::*;
use crate::api::conditions::Update;
use crate::api::ec2nodeclass::EC2NodeClassStatus;
use crate::model::labels::Labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::resources::Resources;

fn option(kind: &str, capacity_type: CapacityType, price: i64) -> LaunchOption {
    LaunchOption {
        instance_type: kind.into(),
        zone: "us-west-2a".into(),
        capacity_type,
        reservation: None,
        price: MicroDollarsPerHour(price),
    }
}

fn order(options: Vec<LaunchOption>) -> LaunchOrder {
    LaunchOrder {
        class: Arc::new(EC2NodeClass::default()),
        pool: "default".into(),
        token: "t".to_owned(),
        count: 1,
        options,
        priced_by_overlay: false,
        labels: Labels::new(),
        taints: Vec::new(),
        requests: Resources::default(),
        tags: BTreeMap::new(),
    }
}

#[test]
fn a_fleet_buys_one_capacity_type() {
    use CapacityType::{OnDemand, Reserved, Spot};
    let names = |options: Vec<LaunchOption>| -> Vec<String> {
        let narrowed = narrowed(&order(options));
        narrowed
            .options
            .iter()
            .map(|o| format!("{} {}", o.instance_type, o.capacity_type))
            .collect()
    };
    assert_eq!(
        names(vec![
            option("r", Reserved, 0),
            option("a", Spot, 10),
            option("b", Spot, 30),
            option("c", OnDemand, 31),
            option("d", Spot, 32),
        ]),
        ["a spot", "b spot"]
    );
    assert_eq!(names(vec![option("c", OnDemand, 9), option("a", Spot, 10)]), ["c on-demand"]);
    assert_eq!(names(vec![option("a", Spot, 10)]), ["a spot"]);
    assert!(names(Vec::new()).is_empty());
}

#[test]
fn a_fleet_has_sixty_types() {
    let mut options: Vec<_> =
        (0..70).map(|i| option(&format!("t{i}"), CapacityType::Spot, i)).collect();
    // Another zone of a type that is in does not count.
    options.push(LaunchOption { zone: "us-west-2b".into(), ..options[3].clone() });
    let narrowed = narrowed(&order(options));
    assert_eq!(narrowed.options.len(), 61);
    assert_eq!(&*narrowed.options[59].instance_type, "t59");
}

#[test]
fn stale_classes_are_refused() {
    let class = |status, observed: i64| {
        let mut class = EC2NodeClass::default();
        class.metadata.generation = Some(2);
        let mut list = Vec::new();
        let ready = Update {
            type_: conditions::READY,
            status,
            reason: "r",
            message: "why",
            generation: Some(observed),
        };
        conditions::set(&mut list, ready, Timestamp::UNIX_EPOCH);
        class.status = Some(EC2NodeClassStatus { conditions: list, ..Default::default() });
        class
    };
    assert!(check_ready(&class(ConditionStatus::True, 2)).is_ok());
    for (class, part) in [
        (class(ConditionStatus::True, 1), "changed"),
        (class(ConditionStatus::False, 2), "why"),
        (EC2NodeClass::default(), "not resolved"),
    ] {
        let error = check_ready(&class).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
