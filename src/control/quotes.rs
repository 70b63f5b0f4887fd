//! Answers to what pods would cost, for advice on workloads.
//!
//! Every replica answers, leading or not: all of them hold the state of the cluster.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::advice::{self, FleetNode, Market};
use crate::cluster::Snapshot;
use crate::demand::Assignments;
use crate::intent::Asked;
use crate::model::node::Node;
use crate::plan::{Catalogs, provision};

/// Answers until nobody can ask any more; one at a time, so that planning keeps the other cores.
pub async fn run(
    mut questions: mpsc::Receiver<Asked>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    offers: watch::Receiver<Catalogs>,
) {
    while let Some(asked) = questions.recv().await {
        let snapshot = Arc::clone(&snapshots.borrow());
        let catalogs = offers.borrow().clone();
        // Without either every pod would seem to fit nowhere.
        if asked.reply.is_closed() || !snapshot.synced || catalogs.is_empty() {
            continue;
        }
        let answer = tokio::task::spawn_blocking(move || {
            let market = market(&snapshot, &catalogs);
            advice::quote(&asked.question, &market, &|| fleet(&snapshot, &catalogs))
        });
        match answer.await {
            // Who asked may have stopped waiting.
            Ok(quote) => drop(asked.reply.send(quote)),
            Err(error) => tracing::error!(%error, "a quote was lost"),
        }
    }
}

fn market(snapshot: &Snapshot, catalogs: &Catalogs) -> Market {
    Market {
        pools: provision::pools(snapshot, &Assignments::default(), catalogs),
        daemons: snapshot.daemons(),
        namespaces: (*snapshot.namespaces).clone(),
    }
}

fn fleet(snapshot: &Snapshot, catalogs: &Catalogs) -> Vec<FleetNode> {
    let pods = snapshot.pods_by_node();
    let node = |node: &Arc<Node>| {
        let mut free = node.allocatable.clone();
        for pod in pods.get(&*node.name).into_iter().flatten() {
            free.sub(&pod.shape.requests);
        }
        let pool = node.label(crate::model::labels::NODEPOOL);
        let pool = pool.and_then(|pool| snapshot.pools.get(pool));
        let price = pool
            .and_then(|pool| catalogs.of(pool))
            .map(|catalog| advice::price_of(&node.labels, &catalog.types, catalog.volume_price));
        FleetNode {
            labels: node.labels.clone(),
            taints: node.taints.clone(),
            allocatable: node.allocatable.clone(),
            free,
            price: price.unwrap_or_default(),
        }
    };
    snapshot.nodes.values().filter(|node| node.deleted_at.is_none()).map(node).collect()
}
