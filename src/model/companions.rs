//! Objects that stand beside workloads: disruption budgets, autoscalers, priority classes.

use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2 as autoscaling;
use k8s_openapi::api::policy::v1 as budgets;
use k8s_openapi::api::scheduling::v1 as scheduling;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels::{LabelSelector, Labels};
use super::wire::pod::selector;

/// A count of pods, or a share of them in per cent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Amount {
    /// Pods.
    Count(i64),
    /// Per cent of the pods that there should be.
    Percent(i64),
}

impl Amount {
    /// None where the text is no share; the API server refuses it then.
    fn read(value: &IntOrString) -> Option<Self> {
        match value {
            IntOrString::Int(count) => Some(Self::Count(i64::from(*count))),
            IntOrString::String(text) => {
                text.strip_suffix('%')?.parse().ok().filter(|share| *share >= 0).map(Self::Percent)
            }
        }
    }

    /// Pods of `all`; shares are rounded up, as the controller of budgets does for both fields.
    fn of(self, all: i64) -> i64 {
        match self {
            Self::Count(count) => count,
            Self::Percent(share) => share.saturating_mul(all).saturating_add(99) / 100,
        }
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(share) => write!(f, "{share}%"),
        }
    }
}

/// A `PodDisruptionBudget`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Budget {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Pods that are meant; absent means none, empty means all of the namespace.
    pub selector: Option<LabelSelector>,
    /// Pods that must stay.
    pub min_available: Option<Amount>,
    /// Pods that may be away.
    pub max_unavailable: Option<Amount>,
    /// Pods that there should be, of all workloads that it selects; 0 before its controller counted.
    pub expected: i64,
}

impl Budget {
    /// Whether it speaks of pods with these labels in this namespace.
    pub fn selects(&self, namespace: &str, labels: &Labels) -> bool {
        *self.namespace == *namespace
            && self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }

    /// Whether it needs to know how many pods there should be, which it learns from the scale of their
    /// controller alone.
    pub fn needs_scale(&self) -> bool {
        self.max_unavailable.is_some() || matches!(self.min_available, Some(Amount::Percent(_)))
    }

    /// How many of `all` healthy pods may be evicted.
    pub fn allowed(&self, all: i64) -> i64 {
        match (self.max_unavailable, self.min_available) {
            (Some(most), _) => most.of(all).min(all),
            (None, Some(least)) => (all - least.of(all)).max(0),
            (None, None) => all,
        }
    }

    /// The rule as it is written, such as `minAvailable 2`.
    pub fn rule(&self) -> String {
        match (self.max_unavailable, self.min_available) {
            (Some(most), _) => format!("maxUnavailable {most}"),
            (None, Some(least)) => format!("minAvailable {least}"),
            (None, None) => "no rule".to_owned(),
        }
    }
}

impl From<budgets::PodDisruptionBudget> for Budget {
    fn from(object: budgets::PodDisruptionBudget) -> Self {
        let spec = object.spec.unwrap_or_default();
        Self {
            namespace: object.metadata.namespace.as_deref().unwrap_or("default").into(),
            name: object.metadata.name.unwrap_or_default().into(),
            selector: selector(spec.selector.as_ref()),
            min_available: spec.min_available.as_ref().and_then(Amount::read),
            max_unavailable: spec.max_unavailable.as_ref().and_then(Amount::read),
            expected: object.status.and_then(|status| status.expected_pods).map_or(0, i64::from),
        }
    }
}

/// A `HorizontalPodAutoscaler`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scaler {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Kind and name of what it scales.
    pub target: (Arc<str>, Arc<str>),
    /// Least and most replicas.
    pub replicas: (i64, i64),
    /// Containers whose cpu it compares with their requests; `None` means all of the pod.
    pub cpu_of: Vec<Option<Arc<str>>>,
}

impl Scaler {
    /// Whether it scales this workload.
    pub fn scales(&self, namespace: &str, kind: &str, name: &str) -> bool {
        *self.namespace == *namespace && *self.target.0 == *kind && *self.target.1 == *name
    }
}

impl From<autoscaling::HorizontalPodAutoscaler> for Scaler {
    fn from(object: autoscaling::HorizontalPodAutoscaler) -> Self {
        let spec = object.spec;
        let target = spec.scale_target_ref;
        let of = |metric: &autoscaling::MetricSpec| {
            if let Some(resource) = &metric.resource {
                let share = resource.target.average_utilization.is_some();
                return (resource.name == "cpu" && share).then_some(None);
            }
            let resource = metric.container_resource.as_ref()?;
            let share = resource.target.average_utilization.is_some();
            (resource.name == "cpu" && share).then(|| Some(Arc::from(&*resource.container)))
        };
        let cpu_of = match &spec.metrics {
            Some(metrics) if !metrics.is_empty() => metrics.iter().filter_map(of).collect(),
            // Without metrics the API server scales on 80 % of cpu.
            _ => vec![None],
        };
        Self {
            namespace: object.metadata.namespace.as_deref().unwrap_or("default").into(),
            name: object.metadata.name.unwrap_or_default().into(),
            target: (target.kind.into(), target.name.into()),
            replicas: (i64::from(spec.min_replicas.unwrap_or(1)), i64::from(spec.max_replicas)),
            cpu_of,
        }
    }
}

/// A `PriorityClass`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Priority {
    /// Name.
    pub name: Arc<str>,
    /// Value; higher comes first.
    pub value: i32,
    /// Whether pods without a class get it.
    pub global_default: bool,
    /// Whether its pods may preempt others.
    pub preempts: bool,
}

impl From<scheduling::PriorityClass> for Priority {
    fn from(object: scheduling::PriorityClass) -> Self {
        Self {
            name: object.metadata.name.unwrap_or_default().into(),
            value: object.value.unwrap_or(0),
            global_default: object.global_default == Some(true),
            preempts: object.preemption_policy.as_deref() != Some("Never"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(spec: &str) -> Budget {
        let text = format!(r#"{{"metadata":{{"name":"b","namespace":"n"}},"spec":{spec}}}"#);
        serde_json::from_str::<budgets::PodDisruptionBudget>(&text).unwrap().into()
    }

    #[test]
    fn budgets_count_as_their_controller_does() {
        for (spec, all, allowed) in [
            (r#"{"minAvailable":2}"#, 3, 1),
            (r#"{"minAvailable":3}"#, 2, 0),
            (r#"{"minAvailable":"50%"}"#, 3, 1),
            (r#"{"minAvailable":"50%"}"#, 1, 0),
            (r#"{"maxUnavailable":"10%"}"#, 3, 1),
            (r#"{"maxUnavailable":0}"#, 9, 0),
            (r#"{"maxUnavailable":5}"#, 2, 2),
            ("{}", 2, 2),
        ] {
            assert_eq!(budget(spec).allowed(all), allowed, "{spec} of {all}");
        }
        let labels = Labels::from([("app".into(), "web".into())]);
        assert!(!budget("{}").selects("n", &labels), "no selector selects nothing");
        assert!(budget(r#"{"selector":{}}"#).selects("n", &labels));
        assert!(!budget(r#"{"selector":{}}"#).selects("other", &labels));
    }

    #[test]
    fn autoscalers_say_whose_cpu_they_read() {
        let read = |metrics: &str| -> Scaler {
            let text = format!(
                r#"{{"metadata":{{"name":"h","namespace":"n"}},"spec":{{"maxReplicas":9,
                    "scaleTargetRef":{{"kind":"Deployment","name":"web"}},"metrics":{metrics}}}}}"#
            );
            serde_json::from_str::<autoscaling::HorizontalPodAutoscaler>(&text).unwrap().into()
        };
        let share = r#""target":{"type":"Utilization","averageUtilization":80}"#;
        let value = r#""target":{"type":"AverageValue","averageValue":"1"}"#;
        assert_eq!(read("[]").cpu_of, [None]);
        let all = read(&format!(r#"[{{"type":"Resource","resource":{{"name":"cpu",{share}}}}}]"#));
        assert_eq!((all.cpu_of, all.replicas), (vec![None], (1, 9)));
        let by_value = format!(r#"[{{"type":"Resource","resource":{{"name":"cpu",{value}}}}}]"#);
        assert!(read(&by_value).cpu_of.is_empty(), "absolute values need no request");
        let one = format!(
            r#"[{{"type":"ContainerResource","containerResource":{{"name":"cpu","container":"app",{share}}}}}]"#
        );
        assert_eq!(read(&one).cpu_of, [Some(Arc::from("app"))]);
        assert!(read("[]").scales("n", "Deployment", "web"));
        assert!(!read("[]").scales("n", "StatefulSet", "web"));
    }
}
