//! Every metric of the provisioner.
//!
//! Names and labels that Karpenter has, with the same meaning, keep its names so that dashboards
//! go on working; what is ours alone begins with `harbinger_`. Labels are enums or names of pools
//! and classes, never of pods, nodes or claims.

use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The registry that `/metrics` prints.
pub type SharedRegistry = Arc<RwLock<Registry>>;

/// Label of a pool.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct PoolLabel {
    /// Pool.
    pub nodepool: String,
}

/// Label of a pool and why something happened to its nodes.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct PoolReasonLabel {
    /// Pool.
    pub nodepool: String,
    /// Reason, from a fixed list: `provisioned`, `empty`, `expired`, `insufficient_capacity`…
    pub reason: String,
}

/// Label of an operation and how it ended.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct OutcomeLabel {
    /// Operation, from a fixed list.
    pub operation: &'static str,
    /// `applied`, `waiting`, `skipped`, `failed` or `abandoned`.
    pub outcome: &'static str,
}

/// Label of what befell a pod.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct FailureLabel {
    /// `evicted` or `oom_killed`.
    pub kind: &'static str,
}

/// Label of a resource of a pool.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct PoolResourceLabel {
    /// Pool.
    pub nodepool: String,
    /// Resource name.
    pub resource_type: String,
}

/// Handles to all metrics; clones share the same series.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Claims created.
    pub claims_created: Family<PoolReasonLabel, Counter>,
    /// Claims that were told to end.
    pub claims_disrupted: Family<PoolReasonLabel, Counter>,
    /// Claims gone.
    pub claims_terminated: Family<PoolLabel, Counter>,
    /// Nodes that joined.
    pub nodes_created: Family<PoolLabel, Counter>,
    /// Usage of pools, in the units of limits.
    pub pool_usage: Family<PoolResourceLabel, Gauge>,
    /// Limits of pools.
    pub pool_limit: Family<PoolResourceLabel, Gauge>,
    /// Seconds of a solve.
    pub solve_seconds: Histogram,
    /// Pods of the last plan that fit nowhere.
    pub unschedulable_pods: Gauge,
    /// Nodes in the state.
    pub state_nodes: Gauge,
    /// Whether all watches delivered their lists.
    pub state_synced: Gauge,
    /// Operations by outcome.
    pub operations: Family<OutcomeLabel, Counter>,
    /// Plans that the independent checker refused.
    pub plans_rejected: Counter,
    /// Seconds from the first event of a plan to its fleet call sent.
    pub event_to_launch_seconds: Histogram,
    /// Pods nominated to nodes that were about to open.
    pub nominations: Family<OutcomeLabel, Counter>,
    /// Whether this process leads.
    pub leader: Gauge,
    /// Number of the leader's term.
    pub term: Gauge,
    /// Reservations that are not released.
    pub reservations: Gauge,
    /// Intents heard from admission.
    pub intents: Counter,
    /// Pods evicted and OOM-killed with requests below their use.
    pub pod_failures: Family<FailureLabel, Counter>,
    /// Workloads whose pods fail so again and again.
    pub eviction_loops: Gauge,
    /// Containers of workloads whose use is known.
    pub usage_containers: Gauge,
    /// Whether the last question to `metrics.k8s.io` was answered.
    pub usage_source_up: Gauge,
}

/// Buckets from 0.5 ms to 16 s, doubling: solves take a fraction of a millisecond to seconds.
fn fast_buckets() -> impl Iterator<Item = f64> {
    (0..16).map(|power| 0.0005 * f64::from(1 << power))
}

impl Metrics {
    /// Makes all metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            claims_created: Family::default(),
            claims_disrupted: Family::default(),
            claims_terminated: Family::default(),
            nodes_created: Family::default(),
            pool_usage: Family::default(),
            pool_limit: Family::default(),
            solve_seconds: Histogram::new(fast_buckets()),
            unschedulable_pods: Gauge::default(),
            state_nodes: Gauge::default(),
            state_synced: Gauge::default(),
            operations: Family::default(),
            plans_rejected: Counter::default(),
            event_to_launch_seconds: Histogram::new(fast_buckets()),
            nominations: Family::default(),
            leader: Gauge::default(),
            term: Gauge::default(),
            reservations: Gauge::default(),
            intents: Counter::default(),
            pod_failures: Family::default(),
            eviction_loops: Gauge::default(),
            usage_containers: Gauge::default(),
            usage_source_up: Gauge::default(),
        };
        let m = &metrics;
        registry.register(
            "karpenter_nodeclaims_created",
            "NodeClaims created, by pool and reason",
            m.claims_created.clone(),
        );
        registry.register(
            "karpenter_nodeclaims_disrupted",
            "NodeClaims that were told to end, by pool and reason",
            m.claims_disrupted.clone(),
        );
        registry.register(
            "karpenter_nodeclaims_terminated",
            "NodeClaims gone, by pool",
            m.claims_terminated.clone(),
        );
        registry.register(
            "karpenter_nodes_created",
            "Nodes that joined, by pool",
            m.nodes_created.clone(),
        );
        registry.register(
            "karpenter_nodepools_usage",
            "Capacity of a pool's nodes, in-flight ones included",
            m.pool_usage.clone(),
        );
        registry.register("karpenter_nodepools_limit", "Limits of a pool", m.pool_limit.clone());
        registry.register(
            "karpenter_scheduler_scheduling_duration_seconds",
            "Time of a solve",
            m.solve_seconds.clone(),
        );
        registry.register(
            "karpenter_scheduler_unschedulable_pods_count",
            "Pods of the last plan that fit nowhere",
            m.unschedulable_pods.clone(),
        );
        registry.register(
            "karpenter_cluster_state_node_count",
            "Nodes in the state",
            m.state_nodes.clone(),
        );
        registry.register(
            "karpenter_cluster_state_synced",
            "Whether all watches delivered their lists",
            m.state_synced.clone(),
        );
        registry.register(
            "harbinger_operations",
            "Operations of the loops, by outcome",
            m.operations.clone(),
        );
        registry.register(
            "harbinger_plans_rejected",
            "Plans that the independent checker refused",
            m.plans_rejected.clone(),
        );
        registry.register(
            "harbinger_event_to_launch_seconds",
            "Time from the first event of a plan to its fleet call",
            m.event_to_launch_seconds.clone(),
        );
        registry.register(
            "harbinger_nominations",
            "Pods nominated to nodes about to open, by outcome",
            m.nominations.clone(),
        );
        registry.register("harbinger_leader", "Whether this process leads", m.leader.clone());
        registry.register("harbinger_leader_term", "Number of the leader's term", m.term.clone());
        metrics.register_demand(registry);
        metrics
    }

    fn register_demand(&self, registry: &mut Registry) {
        let m = self;
        registry.register(
            "harbinger_usage_containers",
            "Containers of workloads whose use is known to the leader",
            m.usage_containers.clone(),
        );
        registry.register(
            "harbinger_usage_source_up",
            "Whether metrics.k8s.io answered last",
            m.usage_source_up.clone(),
        );
        registry.register(
            "harbinger_intents_received",
            "Intents heard from admission",
            m.intents.clone(),
        );
        registry.register(
            "harbinger_reservations",
            "Reservations that are not released",
            m.reservations.clone(),
        );
        registry.register(
            "harbinger_pod_failures",
            "Pods evicted and OOM-killed with requests below their use, by kind",
            m.pod_failures.clone(),
        );
        registry.register(
            "harbinger_eviction_loops",
            "Workloads whose pods are evicted or OOM-killed again and again",
            m.eviction_loops.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_names_that_dashboards_know() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics
            .claims_created
            .get_or_create(&PoolReasonLabel {
                nodepool: "web".into(),
                reason: "provisioned".into(),
            })
            .inc();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = r#"karpenter_nodeclaims_created_total{nodepool="web",reason="provisioned"} 1"#;
        assert!(text.contains(line), "{text}");
    }
}
