//! What the webhook asks, and what the provisioner answers.

use serde::{Deserialize, Serialize};

use crate::model::money::MicroDollarsPerHour;
use crate::model::pod::PodShape;
use crate::model::resources::Resources;
use crate::model::wire::pod::{PodStatusWire, shape};
use crate::model::wire::workload::TemplateWire;
use crate::model::workload::WorkloadKind;

/// What would these pods cost, and can they be placed at all?
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// Kind of the workload.
    pub kind: WorkloadKind,
    /// Its namespace.
    pub namespace: String,
    /// Pods at the same time; of a CronJob those of one run.
    pub desired: u32,
    /// Its template, with the requests that the policies will leave.
    pub template: TemplateWire,
    /// The template before the change, of a DaemonSet that was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<TemplateWire>,
}

impl Question {
    /// The shape of the pods.
    pub fn shape(&self) -> PodShape {
        self.shape_of(&self.template)
    }

    /// The shape of the pods before the change.
    pub fn shape_before(&self) -> Option<PodShape> {
        self.before.as_ref().map(|template| self.shape_of(template))
    }

    fn shape_of(&self, template: &TemplateWire) -> PodShape {
        let mut meta = template.metadata.clone();
        meta.namespace = Some(self.namespace.clone());
        shape(&meta, &template.spec, &PodStatusWire::default())
    }
}

/// The answer. All pods of the workload are counted on nodes of their own: what is free today may
/// be taken when they come.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Quote {
    /// Pods that were asked for.
    pub replicas: u32,
    /// Nodes that they need.
    pub nodes: u32,
    /// Price of these nodes.
    pub per_hour: MicroDollarsPerHour,
    /// Instance types of these nodes with their count, the commonest first.
    pub types: Vec<(String, u32)>,
    /// Pods of these on spot nodes.
    pub on_spot: u32,
    /// Pods that fit nowhere.
    pub unplaced: u32,
    /// Pods that no new node takes, but one that is there could if it were empty.
    pub elsewhere: u32,
    /// Why, one line for each pool.
    pub reasons: Vec<String>,
    /// A little less of one resource would save this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hair: Option<Hair>,
    /// What a DaemonSet takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetCost>,
}

/// A request that misses one more pod on each node by little.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hair {
    /// The resource.
    pub resource: String,
    /// What the pod asks now, in millicores or bytes.
    pub from: i64,
    /// What it could ask.
    pub to: i64,
    /// What that would save.
    pub saving: MicroDollarsPerHour,
    /// The type that most of the pods would be on.
    pub instance_type: String,
    /// Pods on each of these.
    pub fits: u32,
}

/// What a DaemonSet takes on the nodes that exist.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetCost {
    /// Nodes that it runs on.
    pub nodes: u32,
    /// Requests of one pod, or their growth where the DaemonSet was there before.
    pub each: Resources,
    /// Whether `each` is a growth.
    pub grows: bool,
    /// Its share of the price of all these nodes: of each the larger of its shares of cpu and memory.
    pub per_hour: MicroDollarsPerHour,
    /// Nodes whose free room is less than that.
    pub short: u32,
}
