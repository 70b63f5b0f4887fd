//! Plans believe overlays.

use super::*;
use crate::model::overlay::{Overlay, PriceChange};
use crate::plan::catalogs::{CAPACITY_OVERLAY_APPLIED, PRICE_OVERLAY_APPLIED};

fn lay(world: &mut World, overlays: Vec<Overlay>) {
    world.state.apply(Event::Overlays(Change::Replace(overlays)));
    world.catalogs = world.catalogs.clone().overlaid(&world.state.snapshot());
}

fn priced(name: &str, kind: &str, price: &str) -> Overlay {
    let mut requirements = Requirements::new();
    requirements.insert(labels::INSTANCE_TYPE, Requirement::one_of([kind]));
    Overlay { name: name.into(), requirements, price: PriceChange::to(price), ..Overlay::default() }
}

#[test]
fn the_overlaid_price_decides_and_the_claim_says_so() {
    let mut world = World::new();
    world.scale(1, 1);
    lay(&mut world, vec![priced("o", "xlarge", "0.01")]);
    let plan = world.plan();
    let [claim] = &plan.claims[..] else { panic!("{}", plan.claims.len()) };
    assert_eq!(&*claim.options[0].instance_type, "xlarge");
    assert_eq!(claim.options[0].price, MicroDollarsPerHour(10_000));
    assert_eq!(plan.cost, MicroDollarsPerHour(12_000), "with its volumes");
    assert_eq!(claim.annotations.get(PRICE_OVERLAY_APPLIED).map(String::as_str), Some("true"));
    assert_eq!(claim.annotations.get(CAPACITY_OVERLAY_APPLIED), None);
}

#[test]
fn without_overlays_claims_say_nothing_of_them() {
    let mut world = World::new();
    world.scale(1, 1);
    lay(&mut world, vec![priced("o", "other", "0.01")]);
    assert_eq!(world.catalogs.overlays().len(), 1);
    let plan = world.plan();
    assert!(!plan.claims[0].annotations.contains_key(PRICE_OVERLAY_APPLIED));
    lay(&mut world, Vec::new());
    assert!(world.catalogs.overlays().is_empty());
}

#[test]
fn extended_resources_are_expected_of_claims() {
    let mut world = World::new();
    let capacity = std::collections::BTreeMap::from([(Arc::from("example.com/card"), 2)]);
    let cards = Overlay { price: None, capacity, ..priced("o", "xlarge", "0") };
    lay(&mut world, vec![cards]);
    let mut wants = (*shape()).clone();
    wants.requests.set("example.com/card", 1);
    let pod = |index: u32| Pod {
        name: format!("p{index}").into(),
        uid: format!("p{index}").into(),
        shape: Arc::new(wants.clone()),
        ..Pod::default()
    };
    for index in 0..4 {
        world.state.apply(Event::Pods(Change::Upsert(pod(index))));
    }
    let plan = world.plan();
    assert_eq!(plan.claims.len(), 2, "two cards on each");
    for claim in &plan.claims {
        assert_eq!(claim.capacity.get("example.com/card"), 2);
        assert!(claim.annotations.contains_key(CAPACITY_OVERLAY_APPLIED));
    }
    world.advance(ClaimStage::Launched);
    assert!(world.plan().claims.is_empty(), "what is on its way has the cards");
}
