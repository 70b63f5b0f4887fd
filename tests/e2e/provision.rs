//! Pods get nodes, and idle nodes go.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_runs_and_its_nodes_leave_after_it() -> Result<()> {
    let world = World::start(Duration::from_secs(1), &["--leader-elect=false"]).await?;
    let namespace = world.plane.namespace("web").await?;
    let asked = Instant::now();
    world.deploy(&namespace, "web", 10).await?;
    let pods = world.running(&namespace, 10).await?;
    println!("10 pods ran {:?} after the Deployment was made", asked.elapsed());
    assert!(pods.iter().all(|pod| pod.spec.as_ref().unwrap().node_name.is_some()));
    let fleets = world.cloud.journal().of("CreateFleet").len();
    let instances = world.cloud.instances().await?.len();
    assert!(instances >= 1 && fleets >= 1, "{instances} instances by {fleets} calls");

    let scaled = Instant::now();
    world.scale(&namespace, "web", 0).await?;
    world.empty().await?;
    println!("all nodes were gone {:?} after the scale to zero", scaled.elapsed());
    assert!(world.boot.problems().is_empty(), "{:?}", world.boot.problems());
    world.cloud.journal().ensure_sound()?;
    Ok(())
}
