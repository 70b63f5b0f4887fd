//! Pods whose volumes are somewhere already.

use super::*;
use crate::model::volume::{ClaimSpec, MountedClaim, PersistentVolume, StorageClass, VolumeClaim};
use crate::plan::nominate::nominations;

/// A StatefulSet of pods that bring a claim each; types are twice as dear in zone b.
fn world(desired: u32) -> World {
    let mut world = World::new();
    let mut catalog = world.catalogs.of(&world.state.snapshot().pools["p"]).unwrap();
    let types = catalog.types.iter().map(|instance| {
        let mut instance = (**instance).clone();
        let mut dear = instance.offerings[0].clone();
        dear.zone = "b".into();
        dear.price = MicroDollarsPerHour(dear.price.0 * 2);
        instance.offerings.push(dear);
        Arc::new(instance)
    });
    catalog.types = types.collect();
    world.catalogs.insert("c".into(), catalog);
    let class = StorageClass {
        name: "fast".into(),
        provisioner: "d".into(),
        waits: true,
        ..StorageClass::default()
    };
    world.state.apply(Event::StorageClasses(Change::Replace(vec![class])));
    let spec = ClaimSpec { class: Some("fast".into()), ..ClaimSpec::default() };
    let mut template = (*shape()).clone();
    template.claims.push(MountedClaim {
        claim: "data-web-".into(),
        open: true,
        template: Some(Arc::new(spec)),
    });
    world.scale(desired, 1);
    let snapshot = world.state.snapshot();
    let workload = snapshot.workloads.values().next().unwrap();
    let workload = Workload { template: Arc::new(template), ..(**workload).clone() };
    world.state.apply(Event::Workloads(WorkloadKind::StatefulSet, Change::Upsert(workload)));
    world
}

/// A claim of the pod with this number, bound to a volume in a zone if there is one.
fn claim(world: &mut World, number: u32, zone: Option<&str>) {
    let name: Arc<str> = format!("data-web-{number}").into();
    let claim = VolumeClaim {
        namespace: "n".into(),
        name: Arc::clone(&name),
        spec: ClaimSpec { class: Some("fast".into()), ..ClaimSpec::default() },
        volume: zone.map(|_| Arc::clone(&name)),
        bound: zone.is_some(),
        ..VolumeClaim::default()
    };
    world.state.apply(Event::VolumeClaims(Change::Upsert(claim)));
    if let Some(zone) = zone {
        let mut there = Requirements::new();
        there.insert(labels::ZONE, Requirement::one_of([zone]));
        let volume =
            PersistentVolume { name, reach: Some(vec![there]), ..PersistentVolume::default() };
        world.state.apply(Event::Volumes(Change::Upsert(volume)));
    }
}

/// The pod with this number, as the controller makes it.
fn pod(world: &mut World, number: u32) {
    world.pod(number, None);
    let snapshot = world.state.snapshot();
    let key = (Arc::from("n"), Arc::from(format!("web-{number}")));
    let mut pod = (*snapshot.pods[&key]).clone();
    Arc::make_mut(&mut pod.shape).claims.push(MountedClaim::of(&format!("data-web-{number}")));
    world.state.apply(Event::Pods(Change::Upsert(pod)));
}

fn zones(plan: &ProvisionPlan) -> Vec<(String, u32)> {
    let mut all: Vec<(String, u32)> = plan
        .claims
        .iter()
        .map(|claim| {
            let zone = claim.requirements.get(labels::ZONE).unwrap().to_string();
            (zone, claim.pods.iter().map(|pods| pods.count).sum())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn announced_pods_go_where_their_volumes_were_left() {
    let mut world = world(3);
    claim(&mut world, 1, Some("b"));
    let plan = world.plan();
    assert_eq!(World::planned(&plan), 3);
    assert_eq!(zones(&plan).iter().filter(|(zone, _)| zone == "In [b]").count(), 1);
    for number in 0..3 {
        if number != 1 {
            claim(&mut world, number, None);
        }
        pod(&mut world, number);
        assert!(world.plan().claims.is_empty(), "pod {number} was announced");
    }
    // The node in zone b is for pod 1 and for no other.
    let snapshot = world.state.snapshot();
    for draft in &plan.claims {
        let chosen = nominations(&snapshot, world.assignments.of(&draft.name), &|_| false);
        let names: Vec<&str> = chosen.iter().map(|pod| &*pod.name).collect();
        let in_b = draft.requirements.get(labels::ZONE).unwrap().single().is_some();
        assert_eq!(names.contains(&"web-1"), in_b, "{names:?}");
    }
}

#[test]
fn a_pod_with_a_volume_is_not_covered_by_another_pods_node() {
    let mut world = world(2);
    claim(&mut world, 0, None);
    claim(&mut world, 1, None);
    assert_eq!(zones(&world.plan()), [("In [a, b]".to_owned(), 2)]);
    // The volume was bound in another zone after the plan was made.
    claim(&mut world, 1, Some("b"));
    pod(&mut world, 0);
    pod(&mut world, 1);
    assert_eq!(zones(&world.plan()), [("In [b]".to_owned(), 1)]);
}

#[test]
fn a_claim_that_nothing_can_bind_is_the_reason() {
    let mut world = world(0);
    pod(&mut world, 7);
    let plan = world.plan();
    let [told] = &plan.unschedulable[..] else { panic!("{:?}", plan.unschedulable) };
    assert_eq!(
        told.reasons.to_string(),
        "PersistentVolumeClaim data-web-7 does not exist; create it"
    );
    claim(&mut world, 7, None);
    assert_eq!(World::planned(&world.plan()), 1);
}
