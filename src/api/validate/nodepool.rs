//! NodePools and NodeClaims.

use croner::Cron;
use regex::Regex;
use serde_json::Value;

use super::Report;
use super::requirements::{contradictions, hint, node_class_ref, requirements, taints};
use crate::api::common::{KEY_PATTERN, NodeClassRef};
use crate::api::labels;
use crate::api::nodepool::{
    KEY_NODEPOOL, LABEL_DOMAIN, LABEL_HOSTNAME, LABEL_NODEPOOL, NodePoolSpec,
    SCHEDULE_WITH_DURATION, STATIC_LIMITS, STATIC_WEIGHT, TemplateMetadata,
};
use crate::api::project;
use crate::api::schema::join;
use crate::api::{NodeClaim, NodePool};

/// The longest name that fits into the label `karpenter.sh/nodepool`.
const LONGEST_NAME: usize = 63;

/// Where the labels of a pool's nodes stand.
const LABELS: &str = "spec.template.metadata.labels";

pub(super) fn pool(report: &mut Report, pool: &NodePool) {
    let spec = &pool.spec;
    if let Some(name) = pool.metadata.name.as_ref().filter(|name| name.len() > LONGEST_NAME) {
        let message = format!("must fit into a label: may not be more than {LONGEST_NAME} bytes");
        report.add("metadata.name", &Value::from(name.as_str()), message);
    }
    let static_limits = spec.limits.keys().all(|key| key == "nodes");
    report.rule(spec.replicas.is_none() || static_limits, "spec", STATIC_LIMITS);
    report.rule(spec.replicas.is_none() || spec.weight.is_none(), "spec", STATIC_WEIGHT);
    template_labels(report, &spec.template.metadata);
    let template = &spec.template.spec;
    let path = "spec.template.spec";
    node_class_ref(report, &template.node_class_ref, &format!("{path}.nodeClassRef"));
    class_kind(report, &template.node_class_ref, &format!("{path}.nodeClassRef"));
    let list = format!("{path}.requirements");
    let names_pool = template.requirements.iter().any(|r| r.key == labels::NODEPOOL);
    report.rule(!names_pool, &list, KEY_NODEPOOL);
    requirements(report, &template.requirements, &list);
    let class = project::class_ref(&template.node_class_ref);
    let class_key = project::class_label(&class);
    let own = spec.template.metadata.labels.iter();
    let own = own.map(|(key, value)| (LABELS, key.as_str(), value.as_str()));
    let of_class = (list.as_str(), class_key.as_str(), &*class.name);
    contradictions(report, &template.requirements, own.chain([of_class]));
    let lists = [
        ("spec.template.spec.taints", template.taints.as_slice()),
        ("spec.template.spec.startupTaints", template.startup_taints.as_slice()),
    ];
    taints(report, lists);
    budgets(report, spec);
}

pub(super) fn claim(report: &mut Report, claim: &NodeClaim) {
    let spec = &claim.spec;
    node_class_ref(report, &spec.node_class_ref, "spec.nodeClassRef");
    requirements(report, &spec.requirements, "spec.requirements");
    let lists = [
        ("spec.taints", spec.taints.as_slice()),
        ("spec.startupTaints", spec.startup_taints.as_slice()),
    ];
    taints(report, lists);
}

/// We build nodes from one kind of class only; another kind would never become ready.
fn class_kind(report: &mut Report, reference: &NodeClassRef, path: &str) {
    let wanted =
        [("group", &reference.group, labels::AWS_GROUP), ("kind", &reference.kind, "EC2NodeClass")];
    for (field, found, wanted) in wanted {
        if !found.is_empty() && found != wanted {
            let message = format!("class is not supported: expected {wanted}");
            report.add_with_fix(
                &join(path, field),
                &Value::from(found.as_str()),
                message,
                format!("write {wanted}"),
            );
        }
    }
}

fn template_labels(report: &mut Report, metadata: &TemplateMetadata) {
    let key_form =
        Regex::new(KEY_PATTERN).expect("the pattern is a constant that the schema tests compile");
    for key in metadata.labels.keys() {
        let before = report.errors.len();
        let value = Value::from(key.as_str());
        if key == labels::HOSTNAME {
            report.add(LABELS, &value, LABEL_HOSTNAME.1);
        } else if key == labels::NODEPOOL {
            report.add(LABELS, &value, LABEL_NODEPOOL.1);
        } else if labels::is_restricted(key) {
            report.add(LABELS, &value, LABEL_DOMAIN.1);
        } else if !key_form.is_match(key) {
            report.add(LABELS, &value, "is not a label key");
        }
        hint(report, before, key);
    }
}

fn budgets(report: &mut Report, spec: &NodePoolSpec) {
    for (index, budget) in spec.disruption.budgets.iter().enumerate() {
        let path = format!("spec.disruption.budgets[{index}]");
        let together = budget.schedule.is_some() == budget.duration.is_some();
        report.rule(together, &path, SCHEDULE_WITH_DURATION);
        let Some(schedule) = budget.schedule.as_deref().filter(|s| !s.starts_with('@')) else {
            continue;
        };
        if schedule.split_whitespace().count() == 5
            && let Err(error) = schedule.parse::<Cron>()
        {
            let message =
                format!("is not a cron schedule: {}", error.to_string().trim_end_matches('.'));
            report.add(&format!("{path}.schedule"), &Value::from(schedule), message);
        }
    }
}
