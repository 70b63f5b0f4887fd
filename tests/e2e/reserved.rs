//! Capacity that was reserved is used before any is bought, and never more than there is.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use testbed::cloud::{REGION, Reservation};
use testbed::poll;

use super::world::{DEADLINE, World};

const CLASS: &str = "
apiVersion: karpenter.k8s.aws/v1
kind: EC2NodeClass
metadata: {name: default}
spec:
  instanceProfile: node
  amiSelectorTerms: [{alias: al2023@latest}]
  subnetSelectorTerms: [{tags: {karpenter.sh/discovery: c1}}]
  securityGroupSelectorTerms: [{tags: {karpenter.sh/discovery: c1}}]
  capacityReservationSelectorTerms: [{tags: {team: web}}]
---
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: default}
spec:
  template:
    spec:
      nodeClassRef: {group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}
      requirements:
        - {key: karpenter.sh/capacity-type, operator: In, values: [reserved, on-demand]}
        - {key: node.kubernetes.io/instance-type, operator: In, values: [m5.large, c5.large]}
  disruption: {consolidationPolicy: WhenEmpty, consolidateAfter: 2s}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_is_used_up_before_anything_is_bought() -> Result<()> {
    let world = World::start(Duration::from_secs(1), &["--leader-elect=false"]).await?;
    let reservation = Reservation {
        instance_type: "m5.large".to_owned(),
        zone: format!("{REGION}b"),
        left: 2,
        tags: BTreeMap::from([("team".to_owned(), "web".to_owned())]),
    };
    world.cloud.reservations().set("cr-1", reservation);
    world.apply(CLASS).await?;
    poll::until("the reservation is found", DEADLINE, async || {
        let path = "jsonpath={.status.capacityReservations[*].id}";
        let told = world.plane.kubectl(&["get", "ec2nodeclass", "default", "-o", path], "").await?;
        ensure!(told.trim() == "cr-1", "{told}");
        // What a round of reading found is in force when the next one begins.
        let rounds = world.cloud.journal().of("DescribeCapacityReservations").len();
        ensure!(rounds >= 2, "{rounds} rounds");
        Ok(())
    })
    .await
    .with_context(|| world.story())?;

    // One pod to a node, in two steps, so that the second plan must know of the first's claim.
    let namespace = world.plane.namespace("reserved").await?;
    world.deploy(&namespace, "web", 1).await?;
    world.running(&namespace, 1).await?;
    ensure!(world.cloud.reservations().left("cr-1") == 1, "the first node was bought");
    world.scale(&namespace, "web", 4).await?;
    world.running(&namespace, 4).await?;
    ensure!(world.cloud.reservations().left("cr-1") == 0);
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for node in world.nodes().await? {
        let label = |key: &str| node.labels().get(key).cloned().unwrap_or_default();
        let id = label("karpenter.k8s.aws/capacity-reservation-id");
        let kind = format!("{} {id}", label("karpenter.sh/capacity-type"));
        *kinds.entry(kind).or_insert(0) += 1;
    }
    let found: Vec<(&str, usize)> = kinds.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
    ensure!(found == [("on-demand ", 2), ("reserved cr-1", 2)], "{found:?}");

    // What was given back is used again.
    world.scale(&namespace, "web", 0).await?;
    world.empty().await?;
    ensure!(world.cloud.reservations().left("cr-1") == 2);
    world.cloud.journal().ensure_sound()
}
