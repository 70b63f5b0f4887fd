use proptest::prelude::*;

use super::*;
use crate::model::instance::{CapacityType, Offering};
use crate::model::labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::overlay::PriceChange;
use crate::model::requirement::{Expression, Operator, Requirement};
use crate::model::resources::Resources;

const PRICE: i64 = 100_000;

fn kind(name: &str) -> Arc<InstanceType> {
    let mut requirements = Requirements::new();
    requirements.insert(labels::INSTANCE_TYPE, Requirement::one_of([name]));
    requirements.insert("karpenter.k8s.aws/instance-cpu", Requirement::one_of(["4"]));
    requirements.insert("karpenter.k8s.aws/instance-gpu-count", Requirement::does_not_exist());
    let offer = |zone: &str, capacity_type| Offering {
        zone: zone.into(),
        capacity_type,
        price: MicroDollarsPerHour(PRICE),
        available: true,
        reserved: None,
    };
    Arc::new(InstanceType {
        name: name.into(),
        requirements,
        capacity: Resources { pods: 110, ..Resources::new(4_000, 16 << 30) },
        overhead: Resources::new(100, 1 << 30),
        attach_limits: Vec::new(),
        offerings: vec![
            offer("a", CapacityType::Spot),
            offer("a", CapacityType::OnDemand),
            offer("b", CapacityType::OnDemand),
        ],
    })
}

fn pool(name: &str) -> Pool {
    let mut pool = Pool { name: name.into(), ..Pool::default() };
    pool.labels.insert(labels::NODEPOOL.to_owned(), name.to_owned());
    pool.labels.insert("team".to_owned(), format!("team-{name}"));
    pool
}

fn types() -> Types {
    vec![kind("m.large"), kind("m.small")].into()
}

fn overlay(name: &str, weight: i32, wanted: &[(&str, Operator, &[&str])]) -> Overlay {
    let expressions: Vec<Expression> = wanted
        .iter()
        .map(|(key, operator, values)| Expression {
            key: (*key).to_owned(),
            operator: *operator,
            values: values.iter().map(ToString::to_string).collect(),
            min_values: None,
        })
        .collect();
    let requirements = Requirements::from_expressions(&expressions);
    Overlay { name: name.into(), weight, requirements, ..Overlay::default() }
}

fn priced(name: &str, weight: i32, by: &str, wanted: &[(&str, Operator, &[&str])]) -> Overlay {
    Overlay { price: PriceChange::by(by), ..overlay(name, weight, wanted) }
}

/// Prices of all offerings of a pool, type by type.
fn prices(overlaid: &Overlaid, pool: &str) -> Vec<Vec<i64>> {
    let all = types();
    let all = overlaid.types.get(pool).unwrap_or(&all);
    all.iter().map(|kind| kind.offerings.iter().map(|o| o.price.0).collect()).collect()
}

fn lay_in(pools: &[&str], overlays: &[Overlay]) -> Overlaid {
    let types = types();
    let pools: Vec<Pool> = pools.iter().map(|name| pool(name)).collect();
    let pools: Vec<_> = pools.iter().map(|pool| (pool, &types)).collect();
    lay(overlays, &pools)
}

fn refused(overlaid: &Overlaid) -> Vec<(&str, &'static str)> {
    overlaid
        .verdicts
        .iter()
        .filter_map(|(name, refusal)| Some((&**name, refusal.as_ref()?.reason())))
        .collect()
}

#[test]
fn an_overlay_reaches_what_its_requirements_name() {
    use Operator::{DoesNotExist, Gt, In, NotIn};
    const ALL: [i64; 3] = [0, 0, 0];
    const NONE: [i64; 3] = [PRICE; 3];
    let cases: &[(&[(&str, Operator, &[&str])], [[i64; 3]; 2])] = &[
        (&[], [ALL, ALL]),
        (&[(labels::INSTANCE_TYPE, In, &["m.small"])], [NONE, ALL]),
        (&[(labels::ZONE, In, &["b"])], [[PRICE, PRICE, 0], [PRICE, PRICE, 0]]),
        (&[(labels::CAPACITY_TYPE, NotIn, &["spot"])], [[PRICE, 0, 0], [PRICE, 0, 0]]),
        (&[("karpenter.k8s.aws/instance-cpu", Gt, &["3"])], [ALL, ALL]),
        (&[("karpenter.k8s.aws/instance-cpu", Gt, &["4"])], [NONE, NONE]),
        (&[("karpenter.k8s.aws/instance-gpu-count", DoesNotExist, &[])], [ALL, ALL]),
        (&[("karpenter.k8s.aws/instance-gpu-count", Gt, &["0"])], [NONE, NONE]),
        (&[(labels::NODEPOOL, In, &["p"])], [ALL, ALL]),
        (&[(labels::NODEPOOL, In, &["q"])], [NONE, NONE]),
        (&[("team", In, &["team-p"])], [ALL, ALL]),
        (&[("team", NotIn, &["team-p"])], [NONE, NONE]),
        (&[("unknown", NotIn, &["x"])], [ALL, ALL]),
        (&[("unknown", In, &["x"])], [NONE, NONE]),
    ];
    for (wanted, expected) in cases {
        let overlaid = lay_in(&["p"], &[priced("o", 0, "-100%", wanted)]);
        assert_eq!(prices(&overlaid, "p"), expected, "{wanted:?}");
        let touched = expected.iter().flatten().any(|price| *price == 0);
        assert_eq!(overlaid.types.contains_key("p"), touched, "{wanted:?}");
    }
}

#[test]
fn the_heaviest_overlay_counts_alone() {
    let large: (&str, Operator, &[&str]) = (labels::INSTANCE_TYPE, Operator::In, &["m.large"]);
    let overlays = [
        priced("wide", 1, "+10%", &[]),
        priced("narrow", 10, "-0.05", &[large]),
        priced("lost", 5, "-100%", &[large]),
    ];
    let overlaid = lay_in(&["p"], &overlays);
    assert_eq!(prices(&overlaid, "p"), [[50_000; 3], [110_000; 3]]);
    assert_eq!(refused(&overlaid), []);
}

#[test]
fn equal_weights_that_overlap_are_in_conflict_and_the_later_name_stays() {
    let on_b: (&str, Operator, &[&str]) = (labels::ZONE, Operator::In, &["b"]);
    let in_q: (&str, Operator, &[&str]) = (labels::NODEPOOL, Operator::In, &["q"]);
    // `a` overlaps with `z` in pool q only, and must not be applied in p either.
    let overlays = [priced("a", 3, "-100%", &[]), priced("z", 3, "+1%", &[on_b, in_q])];
    let overlaid = lay_in(&["p", "q"], &overlays);
    assert_eq!(refused(&overlaid), [("a", "Conflict")]);
    assert!(!overlaid.types.contains_key("p"));
    assert_eq!(prices(&overlaid, "q"), [[PRICE, PRICE, 101_000]; 2]);
    let told = overlaid.verdicts["a"].as_ref().unwrap().to_string();
    assert!(told.contains("overlay z of the same weight"), "{told}");
    // A rival that did not count itself is one all the same.
    let under = [&overlays[..], &[priced("heavy", 9, "-50%", &[])]].concat();
    assert_eq!(refused(&lay_in(&["p", "q"], &under)), [("a", "Conflict")]);
    // Apart they are not in conflict, and another field is no rival.
    let on_a: (&str, Operator, &[&str]) = (labels::ZONE, Operator::In, &["a"]);
    let card = BTreeMap::from([(Arc::from("example.com/card"), 2)]);
    let apart = [
        priced("a", 3, "-100%", &[on_a]),
        priced("z", 3, "+1%", &[on_b]),
        Overlay { capacity: card, ..overlay("c", 3, &[]) },
    ];
    assert_eq!(refused(&lay_in(&["p"], &apart)), []);
}

#[test]
fn extended_resources_are_added_by_name() {
    let gives = |name: &str, weight, amounts: &[(&str, i64)]| Overlay {
        capacity: amounts.iter().map(|(name, amount)| (Arc::from(*name), *amount)).collect(),
        ..overlay(name, weight, &[(labels::INSTANCE_TYPE, Operator::In, &["m.large"])])
    };
    let overlays = [
        gives("heavy", 2, &[("example.com/card", 4)]),
        gives("light", 1, &[("example.com/card", 1), ("hugepages-2Mi", 1 << 30)]),
    ];
    let overlaid = lay_in(&["p"], &overlays);
    let [large, small] = &overlaid.types["p"][..] else { panic!("two types") };
    assert_eq!(large.capacity.get("example.com/card"), 4);
    assert_eq!(large.allocatable().memory, 14 << 30, "huge pages are taken out of memory");
    assert_eq!(*small, types()[1]);
    let clash = [gives("x", 1, &[("a/b", 1), ("c/d", 1)]), gives("y", 1, &[("c/d", 1)])];
    assert_eq!(refused(&lay_in(&["p"], &clash)), [("x", "Conflict")]);
}

#[test]
fn what_is_wrong_with_an_overlay_keeps_it_out() {
    let broken = Overlay { fault: Some("no".into()), ..priced("o", 1, "-50%", &[]) };
    let overlaid = lay_in(&["p"], &[broken, priced("fine", 1, "+50%", &[])]);
    assert_eq!(refused(&overlaid), [("o", "RuntimeValidation")]);
    assert_eq!(prices(&overlaid, "p"), [[150_000; 3]; 2]);
}

/// Overlays over few things, so that they meet.
fn some() -> impl Strategy<Value = Vec<Overlay>> {
    let zone = prop::sample::subsequence(vec!["a", "b"], 0..=2);
    let kinds = prop::sample::subsequence(vec!["m.large", "m.small"], 0..=2);
    let one = (0..3_i32, zone, kinds, 0..4_u8, any::<bool>());
    prop::collection::vec(one, 0..6).prop_map(|list| {
        let build = |(at, (weight, zones, kinds, change, gives)): (
            usize,
            (i32, Vec<&str>, Vec<&str>, u8, bool),
        )| {
            let mut wanted: Vec<(&str, Operator, &[&str])> = Vec::new();
            if !zones.is_empty() {
                wanted.push((labels::ZONE, Operator::In, &zones));
            }
            if !kinds.is_empty() {
                wanted.push((labels::INSTANCE_TYPE, Operator::In, &kinds));
            }
            let texts = ["-100%", "+7%", "-0.01"];
            let price = texts.get(usize::from(change)).and_then(|text| PriceChange::by(text));
            let card = gives.then(|| (Arc::from("example.com/card"), i64::from(weight) + 1));
            let capacity = card.into_iter().collect();
            Overlay { price, capacity, ..overlay(&format!("o{at}"), weight, &wanted) }
        };
        list.into_iter().enumerate().map(build).collect()
    })
}

proptest! {
    #[test]
    fn the_order_of_the_list_does_not_matter(overlays in some(), swap in any::<prop::sample::Index>()) {
        let mut other = overlays.clone();
        other.reverse();
        if !other.is_empty() {
            let by = swap.index(other.len());
            other.rotate_left(by);
        }
        let (a, b) = (lay_in(&["p", "q"], &overlays), lay_in(&["p", "q"], &other));
        prop_assert_eq!(a.verdicts, b.verdicts);
        prop_assert_eq!(a.types, b.types);
    }

    #[test]
    fn refused_overlays_leave_no_trace(overlays in some()) {
        let all = lay_in(&["p", "q"], &overlays);
        let taken: Vec<Overlay> =
            overlays.iter().filter(|o| all.verdicts[&o.name].is_none()).cloned().collect();
        let alone = lay_in(&["p", "q"], &taken);
        prop_assert!(alone.verdicts.values().all(Option::is_none));
        prop_assert_eq!(all.types, alone.types);
    }

    /// Each price is that of the heaviest overlay that was taken and names it.
    #[test]
    fn each_price_has_one_author(overlays in some()) {
        let overlaid = lay_in(&["p"], &overlays);
        let found = prices(&overlaid, "p");
        for (at, kind) in types().iter().enumerate() {
            for (offering, price) in found[at].iter().enumerate() {
                let mut named: Vec<&Overlay> = overlays
                    .iter()
                    .filter(|o| o.price.is_some() && overlaid.verdicts[&o.name].is_none())
                    .filter(|o| offerings(&o.requirements, &pool("p"), kind).contains(&offering))
                    .collect();
                named.sort_by_key(|o| std::cmp::Reverse(o.weight));
                let before = MicroDollarsPerHour(PRICE);
                let wanted = named.first().and_then(|o| o.price).map_or(before, |c| c.apply(before));
                prop_assert_eq!(*price, wanted.0);
                prop_assert!(named.windows(2).all(|two| two[0].weight != two[1].weight));
            }
        }
    }
}
