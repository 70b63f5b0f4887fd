//! EC2 has no capacity, or does not want to be asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testbed::cloud::{CapacityType, Effect, Entry, Pool, Rule};
use testbed::poll;

use super::world::{DEADLINE, World};

const PODS: u32 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn pods_run_when_ec2_has_nothing_or_is_not_asked() -> Result<()> {
    let world = World::start(Duration::from_secs(1), &["--leader-elect=false"]).await?;
    empty_pools(&world).await.context("the cheapest pools are empty")?;
    throttled(&world).await.context("throttled")
}

/// Pods run when the cheapest pools are empty.
async fn empty_pools(world: &World) -> Result<()> {
    let usual = timed(world).await?;
    let asked = pools(&world.cloud.journal().of("CreateFleet")[0]);
    ensure!(asked.len() > 3, "only {} offerings were asked for", asked.len());

    // The call itself goes on to the next offering.
    for pool in &asked[..3] {
        world.cloud.market().set_capacity(pool.clone(), 0);
    }
    let three = timed(world).await?;

    // Nothing that the first call asks for: its claims must be given up and their pods planned anew.
    world.cloud.market().lift_limits();
    world.cloud.rules().push(Rule::new(Effect::InsufficientCapacity).times(1));
    let ended = async || {
        let reason = [r#"reason="insufficient_capacity""#];
        world.chart.metric("metrics", "karpenter_nodeclaims_disrupted_total", &reason).await
    };
    ensure!(ended().await? < 0.5, "claims were ended before");
    let all = timed(world).await?;
    let calls = world.cloud.journal().of("CreateFleet");
    let first = calls.iter().find(|call| call.instance_ids.is_empty());
    let first = first.context("no call was refused")?;
    let empty = pools(first);
    // Each claim that the call was for.
    let asked = first.params.get("TargetCapacitySpecification.TotalTargetCapacity");
    let asked: f64 = asked.context("no capacity was asked for")?.parse()?;
    let counted = ended().await?;
    ensure!((counted - asked).abs() < 0.5, "{counted} claims were ended, {asked} were in the call");
    // Calls of the same plan may be under way and come even later; the last is of the new plan.
    let last = calls.iter().max_by_key(|call| call.at).context("no call")?;
    ensure!(last.at > first.at + first.took, "nothing was planned anew");
    let again: Vec<Pool> = pools(last).into_iter().filter(|pool| empty.contains(pool)).collect();
    ensure!(again.is_empty(), "empty pools were asked for again: {again:?}");
    eprintln!(
        "{PODS} pods ran after {usual:?}; with the three cheapest pools empty after {three:?}; with \
         all {} pools of the first call empty after {all:?}",
        empty.len()
    );
    world.cloud.journal().ensure_sound()
}

/// Launches that are throttled are kept and sent again.
async fn throttled(world: &World) -> Result<()> {
    world.cloud.rules().clear();
    world.cloud.journal().clear();
    // A class that cannot be looked at again offers what it did.
    world.cloud.rules().push(Rule::new(Effect::Throttle).on("DescribeSubnets"));
    let before = world.cloud.journal().of("DescribeSubnets").len();
    world.plane.kubectl(&["annotate", "ec2nodeclass/default", "look=again"], "").await?;
    poll::until("the class was looked at", DEADLINE, async || {
        let tried = world.cloud.journal().of("DescribeSubnets").len() - before;
        // The SDK tries a call three times.
        ensure!(tried >= 3, "{tried} calls");
        Ok(())
    })
    .await?;
    let namespace = world.plane.namespace("unseen").await?;
    world.deploy(&namespace, "web", 1).await?;
    world.running(&namespace, 1).await?;
    let bought = world.cloud.journal().of("CreateFleet").len();

    world.cloud.rules().push(Rule::new(Effect::Throttle).on("CreateFleet"));
    let namespace = world.plane.namespace("throttled").await?;
    let asked = Instant::now();
    world.deploy(&namespace, "web", PODS).await?;
    // Not a wait for something, but how long the fault lasts.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let refused = world.cloud.journal().of("CreateFleet").len() - bought;
    world.cloud.rules().clear();
    world.running(&namespace, PODS as usize).await?;
    eprintln!(
        "{PODS} pods ran after {:?}; {refused} calls were throttled for 20 s",
        asked.elapsed()
    );
    ensure!(refused >= 2, "{refused} calls");
    let launched: usize =
        world.cloud.journal().of("CreateFleet").iter().map(|e| e.instance_ids.len()).sum();
    let live = world.cloud.instances().await?.len();
    ensure!(launched == live, "{launched} were launched, {live} are there");
    Ok(())
}

/// Runs a Deployment and takes it away again; returns how long its pods took to run.
async fn timed(world: &World) -> Result<Duration> {
    let namespace = world.plane.namespace("short").await?;
    world.cloud.journal().clear();
    let asked = Instant::now();
    world.deploy(&namespace, "web", PODS).await?;
    world.running(&namespace, PODS as usize).await?;
    let took = asked.elapsed();
    world.scale(&namespace, "web", 0).await?;
    world.empty().await?;
    Ok(took)
}

/// What a CreateFleet asked for, in its order.
fn pools(call: &Entry) -> Vec<Pool> {
    let spot = call.params.get("TargetCapacitySpecification.DefaultTargetCapacityType");
    let kind = match spot.map(String::as_str) {
        Some("spot") => CapacityType::Spot,
        _ => CapacityType::OnDemand,
    };
    let mut places: BTreeMap<(u32, u32), (String, String)> = BTreeMap::new();
    for (key, value) in &call.params {
        let parts: Vec<&str> = key.split('.').collect();
        let ["LaunchTemplateConfigs", config, "Overrides", at, field] = parts[..] else { continue };
        let (Ok(config), Ok(at)) = (config.parse(), at.parse()) else { continue };
        let place = places.entry((config, at)).or_default();
        match field {
            "InstanceType" => place.0.clone_from(value),
            "AvailabilityZone" => place.1.clone_from(value),
            _ => {}
        }
    }
    places.into_values().map(|(kind_of, zone)| Pool::new(&kind_of, &zone, kind)).collect()
}
