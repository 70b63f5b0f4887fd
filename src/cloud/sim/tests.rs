use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::cloud::LaunchOption;
use crate::model::labels::Labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::resources::Resources;

/// The simulated cloud never waits, so one poll answers.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the simulated cloud waited"),
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn order(token: &str, count: u32) -> LaunchOrder {
    let option = |kind: &str, zone: &str| LaunchOption {
        instance_type: kind.into(),
        zone: zone.into(),
        capacity_type: CapacityType::Spot,
        reservation: None,
        price: MicroDollarsPerHour(1),
    };
    LaunchOrder {
        class: Arc::new(EC2NodeClass::default()),
        pool: "default".into(),
        token: token.to_owned(),
        count,
        options: vec![option("m5.large", "us-west-2a"), option("m5.large", "us-west-2b")],
        priced_by_overlay: false,
        labels: Labels::new(),
        taints: Vec::new(),
        requests: Resources::default(),
        tags: BTreeMap::new(),
    }
}

fn launch(sim: &Sim, order: &LaunchOrder, seconds: i64) -> Result<LaunchResult, CloudError> {
    now_or_never(sim.launch(order, at(seconds)))
}

#[test]
fn a_token_launches_once() {
    let sim = Sim::new(Settings::default());
    let first = launch(&sim, &order("t", 3), 0).unwrap();
    let again = launch(&sim, &order("t", 3), 1).unwrap();
    assert_eq!(first.instances, again.instances);
    assert_eq!(now_or_never(sim.list()).unwrap().len(), 3);
    let mismatch = launch(&sim, &order("t", 4), 2).unwrap_err();
    assert!(matches!(mismatch, CloudError::TokenMismatch { .. }));
}

#[test]
fn pools_run_dry_and_are_remembered() {
    let sim = Sim::new(Settings::default());
    sim.set_capacity("m5.large", "us-west-2a", CapacityType::Spot, 1);
    sim.set_capacity("m5.large", "us-west-2b", CapacityType::Spot, 1);
    let partial = launch(&sim, &order("a", 3), 0).unwrap();
    let zones: Vec<_> = partial.instances.iter().map(|i| &*i.zone).collect();
    assert_eq!((zones, partial.shortages.len()), (vec!["us-west-2a", "us-west-2b"], 2));
    let error = launch(&sim, &order("b", 1), 1).unwrap_err();
    assert!(matches!(error, CloudError::InsufficientCapacity { .. }));
    let offered = |seconds| {
        let class = EC2NodeClass::default();
        let catalog = now_or_never(sim.instance_types(&class, at(seconds))).unwrap();
        let m5 = catalog.types.iter().find(|kind| &*kind.name == "m5.large").unwrap();
        m5.offerings.iter().filter(|offer| offer.available).count()
    };
    assert_eq!((offered(2), offered(181)), (6, 8));
}

#[test]
fn a_lost_answer_is_found_again_by_its_token() {
    let sim = Sim::new(Settings::default());
    sim.fail_next(Call::Launch, Fault::LostAnswer);
    sim.fail_next(Call::Launch, Fault::Throttle);
    let lost = launch(&sim, &order("t", 2), 0).unwrap_err();
    assert!(matches!(lost, CloudError::Unknown { .. }));
    assert!(matches!(launch(&sim, &order("t", 2), 1), Err(CloudError::Throttled { .. })));
    assert_eq!(launch(&sim, &order("t", 2), 2).unwrap().instances.len(), 2);
    assert_eq!(now_or_never(sim.list()).unwrap().len(), 2);
}

#[test]
fn instances_come_and_go_late() {
    let sim = Sim::new(Settings {
        visible_after: SignedDuration::from_secs(5),
        gone_after: SignedDuration::from_secs(30),
        ..Settings::default()
    });
    let id = Arc::clone(&launch(&sim, &order("t", 1), 0).unwrap().instances[0].provider_id);
    assert!(matches!(now_or_never(sim.get(&id)), Err(CloudError::NotFound { .. })));
    sim.advance_to(at(5));
    assert!(!now_or_never(sim.get(&id)).unwrap().terminating);
    now_or_never(sim.terminate(&id)).unwrap();
    assert!(now_or_never(sim.get(&id)).unwrap().terminating);
    sim.advance_to(at(35));
    assert!(matches!(now_or_never(sim.terminate(&id)), Err(CloudError::NotFound { .. })));
}

#[test]
fn chance_comes_from_the_seed() {
    let outcomes = |seed| {
        let sim = Sim::new(Settings { seed, throttled_permille: 500, ..Settings::default() });
        (0..32).map(|i| launch(&sim, &order(&i.to_string(), 1), 0).is_ok()).collect::<Vec<_>>()
    };
    assert_eq!(outcomes(7), outcomes(7));
    assert_ne!(outcomes(7), outcomes(8));
}

#[test]
fn a_class_is_ready_at_once() {
    let sim = Sim::new(Settings::default());
    let status = now_or_never(sim.resolve(&EC2NodeClass::default(), at(0))).unwrap();
    assert!(conditions::is_true(&status.conditions, conditions::READY));
    assert_eq!(status.subnets.len(), 4);
}
