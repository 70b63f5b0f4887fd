//! A provisioner that is killed at any moment, or whose API server goes away, loses nothing and
//! doubles nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harbinger::api::nodeclaim::NodeClaim;
use kube::ResourceExt;
use testbed::cloud::{Effect, Rule};
use testbed::poll;
use testbed::process::Signal;

use super::world::{DEADLINE, World};

/// Pods of a round: more than the largest node of the pool holds, so that there are several claims.
const PODS: u32 = 40;
const LAUNCHED: &str = "Launched";
const REGISTERED: &str = "Registered";
const INITIALIZED: &str = "Initialized";

/// When the provisioner is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The workload exists.
    Announced,
    /// Claims exist; the cloud has heard nothing of them.
    Claimed,
    /// CreateFleet was sent and got lost on its way.
    FleetLost,
    /// CreateFleet was carried out; its answer got lost.
    FleetUnanswered,
    /// CreateFleet was answered.
    FleetAnswered,
    /// The first claim has this condition.
    Claim(&'static str),
    /// The first claim is being deleted.
    Deleting,
    /// TerminateInstances was sent and got lost on its way.
    EndLost,
    /// TerminateInstances was carried out; its answer got lost.
    EndUnanswered,
    /// TerminateInstances was answered.
    EndAnswered,
}

/// The rounds: when it is killed while nodes are bought, and when while they are ended.
const ROUNDS: [(Moment, Option<Moment>); 8] = [
    (Moment::Announced, Some(Moment::Deleting)),
    (Moment::Claimed, Some(Moment::EndLost)),
    (Moment::FleetLost, None),
    (Moment::FleetUnanswered, None),
    (Moment::FleetAnswered, Some(Moment::EndUnanswered)),
    (Moment::Claim(LAUNCHED), Some(Moment::EndAnswered)),
    (Moment::Claim(REGISTERED), None),
    (Moment::Claim(INITIALIZED), None),
];

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_nodes_are_bought_and_ended() -> Result<()> {
    let mut world = World::start(Duration::from_secs(1), &["--leader-elect=false"]).await?;
    for (birth, end) in ROUNDS {
        let namespace = world.plane.namespace("round").await?;
        world.cloud.journal().clear();
        hold(&world, birth);
        world.deploy(&namespace, "web", PODS).await?;
        kill_at(&mut world, birth).await.with_context(|| format!("{birth:?}"))?;
        settled(&world, &namespace).await.with_context(|| format!("killed at {birth:?}"))?;
        if let Some(end) = end {
            hold(&world, end);
        }
        world.scale(&namespace, "web", 0).await?;
        if let Some(end) = end {
            kill_at(&mut world, end).await.with_context(|| format!("{end:?}"))?;
        }
        world.empty().await.with_context(|| format!("after {birth:?} and {end:?}"))?;
        let (launched, ended) =
            (touched(&world, "CreateFleet"), touched(&world, "TerminateInstances"));
        // An instance may be ended twice, by the one that was killed and the one after it.
        ensure!(launched.is_subset(&ended), "{end:?}: launched {launched:?}, ended {ended:?}");
    }
    world.cloud.journal().ensure_sound()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_restarts_while_nodes_are_bought() -> Result<()> {
    let mut world = World::start(Duration::from_secs(1), &["--leader-elect=false"]).await?;
    let mut namespaces = Vec::new();
    for (signal, moment) in [
        (Signal::KILL, Moment::FleetAnswered),
        (Signal::TERM, Moment::Claim(LAUNCHED)),
        (Signal::KILL, Moment::Claim(REGISTERED)),
    ] {
        let context = || format!("{signal:?} at {moment:?}");
        let namespace = world.plane.namespace("restart").await?;
        let old = world.claims().await?.iter().map(ResourceExt::name_any).collect();
        world.deploy(&namespace, "web", PODS).await?;
        reached(&world, moment, &old).await.with_context(context)?;
        world.plane.restart_apiserver(signal).await?;
        settled(&world, &namespace).await.with_context(context)?;
        namespaces.push(namespace);
    }
    for namespace in namespaces {
        world.scale(&namespace, "web", 0).await?;
    }
    world.empty().await?;
    world.provisioner.ensure_running()?;
    world.webhook.ensure_running()
}

/// Who is asked to end finishes its calls first, and who dies is followed by another replica.
#[tokio::test(flavor = "multi_thread")]
async fn leaders_end_and_die() -> Result<()> {
    let mut world = World::start(Duration::from_secs(1), &["--identity=first"]).await?;
    let namespace = world.plane.namespace("leaders").await?;
    world.cloud.rules().push(Rule::new(Effect::Delay(Duration::from_secs(3))).on("CreateFleet"));
    world.deploy(&namespace, "web", PODS).await?;
    reached(&world, Moment::Claimed, &BTreeSet::new()).await?;
    let status = world.provisioner.stop(DEADLINE).await?;
    ensure!(status.success(), "{status}\n{}", world.story());
    let claims = world.claims().await?;
    ensure!(claims.iter().all(|claim| has(claim, LAUNCHED)), "{}", world.story());
    world.cloud.rules().clear();
    world.provisioner.start_again()?;
    settled(&world, &namespace).await?;

    let mut second = world.another("second")?;
    world.provisioner.kill()?;
    world.deploy(&namespace, "more", PODS).await?;
    world.running(&namespace, 2 * PODS as usize).await?;
    exact(&world).await?;
    second.ensure_running()
}

/// Puts the rules in place that keep the world at the moment.
fn hold(world: &World, moment: Moment) {
    let rule = match moment {
        // Templates are looked up between the claim and the fleet.
        Moment::Claimed => {
            Rule::new(Effect::Delay(Duration::from_mins(1))).on("DescribeLaunchTemplates")
        }
        Moment::FleetLost => Rule::new(Effect::LoseRequest).on("CreateFleet"),
        Moment::FleetUnanswered => Rule::new(Effect::LoseAnswer).on("CreateFleet"),
        Moment::EndLost => Rule::new(Effect::LoseRequest).on("TerminateInstances"),
        Moment::EndUnanswered => Rule::new(Effect::LoseAnswer).on("TerminateInstances"),
        _ => return,
    };
    world.cloud.rules().push(rule);
}

/// Kills the provisioner at the moment, lifts the rules and starts it again.
async fn kill_at(world: &mut World, moment: Moment) -> Result<()> {
    reached(world, moment, &BTreeSet::new()).await?;
    world.provisioner.kill()?;
    world.cloud.rules().clear();
    world.provisioner.start_again()
}

/// Waits for the moment; `old` are names of claims that were there before.
async fn reached(world: &World, moment: Moment, old: &BTreeSet<String>) -> Result<()> {
    let heard = |action: &str, answered: bool| {
        let entries = world.cloud.journal().of(action);
        ensure!(entries.iter().any(|e| (e.status == 200) == answered), "no {action}");
        Ok(())
    };
    let what = format!("{moment:?}");
    poll::until(&what, DEADLINE, async || {
        match moment {
            Moment::Announced => {}
            Moment::FleetLost | Moment::FleetUnanswered => heard("CreateFleet", false)?,
            Moment::FleetAnswered => heard("CreateFleet", true)?,
            Moment::EndLost | Moment::EndUnanswered => heard("TerminateInstances", false)?,
            Moment::EndAnswered => heard("TerminateInstances", true)?,
            Moment::Claimed => {
                ensure!(!world.claims().await?.is_empty(), "no claim");
                ensure!(world.cloud.journal().of("CreateFleet").is_empty(), "too late");
            }
            Moment::Claim(condition) => {
                let all = world.claims().await?;
                let mut new = all.iter().filter(|claim| !old.contains(&claim.name_any()));
                ensure!(new.any(|claim| has(claim, condition)), "no claim is {condition}");
            }
            Moment::Deleting => {
                let all = world.claims().await?;
                let deleting = |c: &NodeClaim| c.metadata.deletion_timestamp.is_some();
                ensure!(all.iter().any(deleting), "no claim is being deleted");
            }
        }
        Ok(())
    })
    .await
    .with_context(|| world.story())
}

/// All pods run, and there is exactly one instance and one node for each claim, none of them bought
/// in vain.
async fn settled(world: &World, namespace: &str) -> Result<()> {
    world.running(namespace, PODS as usize).await?;
    let live = exact(world).await?;
    let launched = touched(world, "CreateFleet");
    ensure!(launched == live, "launched {launched:?}, live are {live:?}\n{}", world.story());
    Ok(())
}

/// One instance for each claim, and the other way round.
async fn exact(world: &World) -> Result<BTreeSet<String>> {
    poll::until("one instance a claim", DEADLINE, async || {
        let claims = world.claims().await?;
        let settled = claims.iter().all(|claim| has(claim, INITIALIZED));
        ensure!(settled, "claims are not initialized");
        let id = |claim: &NodeClaim| {
            let id = claim.status.as_ref()?.provider_id.as_deref()?.rsplit_once('/')?.1.to_owned();
            Some(id)
        };
        let promised: BTreeSet<String> = claims.iter().filter_map(id).collect();
        ensure!(promised.len() == claims.len(), "two claims share an instance, or one has none");
        let live: BTreeSet<String> =
            world.cloud.instances().await?.into_iter().map(|instance| instance.id).collect();
        ensure!(promised == live, "claims have {promised:?}, EC2 has {live:?}");
        Ok(live)
    })
    .await
    .with_context(|| world.story())
}

fn touched(world: &World, action: &str) -> BTreeSet<String> {
    world.cloud.journal().of(action).into_iter().flat_map(|entry| entry.instance_ids).collect()
}

fn has(claim: &NodeClaim, condition: &str) -> bool {
    let conditions = claim.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    harbinger::api::conditions::is_true(conditions, condition)
}
