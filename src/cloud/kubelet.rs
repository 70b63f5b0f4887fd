//! The `kubelet` block of a node class, checked.
//!
//! The block is an open object: fields that the capacity formulas and the families' user data need
//! are read here, the others travel to the node as they are where the family can take them. What a
//! node's kubelet would refuse at boot is refused here, when somebody still looks.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::api::ec2nodeclass::AmiFamily;
use crate::model::quantity::Quantity;

/// Fields that every family's user data can carry.
const COMMON_FIELDS: [&str; 12] = [
    "clusterDNS",
    "cpuCFSQuota",
    "evictionHard",
    "evictionMaxPodGracePeriod",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "imageGCHighThresholdPercent",
    "imageGCLowThresholdPercent",
    "kubeReserved",
    "maxPods",
    "podsPerCore",
    "systemReserved",
];
/// Signals that the kubelet can evict on.
const EVICTION_SIGNALS: [&str; 6] = [
    "imagefs.available",
    "imagefs.inodesFree",
    "memory.available",
    "nodefs.available",
    "nodefs.inodesFree",
    "pid.available",
];
/// Resources that the kubelet can reserve.
const RESERVABLE: [&str; 4] = ["cpu", "ephemeral-storage", "memory", "pid"];

/// Kubelet settings that matter for planning and user data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kubelet {
    /// Highest number of pods.
    pub max_pods: Option<u32>,
    /// Highest number of pods per vCPU; 0 means no limit.
    pub pods_per_core: Option<u32>,
    /// Reserved for the kubelet and the runtime; key by key in place of the family's defaults.
    pub kube_reserved: BTreeMap<String, Quantity>,
    /// Reserved for the operating system.
    pub system_reserved: BTreeMap<String, Quantity>,
    /// Hard eviction thresholds by signal.
    pub eviction_hard: BTreeMap<String, Threshold>,
    /// Addresses of the cluster's DNS.
    pub cluster_dns: Vec<String>,
    /// The whole block as the user wrote it.
    pub raw: Map<String, Value>,
}

/// An eviction threshold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Threshold {
    /// Thousandths of a percent of the capacity.
    MilliPercent(u32),
    /// An amount.
    Amount(Quantity),
}

/// What is wrong with the block; `reason` is the condition's reason.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct KubeletError {
    /// Reason of the class's `ValidationSucceeded` condition.
    pub reason: &'static str,
    /// Field, fault and fix.
    pub message: String,
}

fn invalid(message: impl Into<String>) -> KubeletError {
    KubeletError { reason: "InvalidKubeletConfiguration", message: message.into() }
}

fn unsupported(message: impl Into<String>) -> KubeletError {
    KubeletError { reason: "UnsupportedKubeletConfiguration", message: message.into() }
}

impl Kubelet {
    /// Reads and checks the block for a family.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn parse(raw: &Map<String, Value>, family: AmiFamily) -> Result<Self, KubeletError> {
        if raw.contains_key("registerWithTaints") {
            return Err(invalid(
                "spec.kubelet.registerWithTaints is set by the autoscaler; use taints of the NodePool",
            ));
        }
        let kubelet = Self {
            max_pods: max_pods(raw)?,
            pods_per_core: count(raw, "podsPerCore")?,
            kube_reserved: reserved(raw, "kubeReserved")?,
            system_reserved: reserved(raw, "systemReserved")?,
            eviction_hard: thresholds(raw, "evictionHard")?,
            cluster_dns: strings(raw, "clusterDNS")?,
            raw: raw.clone(),
        };
        thresholds(raw, "evictionMinimumReclaim")?;
        check_soft_eviction(raw)?;
        check_image_gc(raw)?;
        count(raw, "evictionMaxPodGracePeriod")?;
        kubelet.check_family(family)?;
        Ok(kubelet)
    }

    fn check_family(&self, family: AmiFamily) -> Result<(), KubeletError> {
        if matches!(family, AmiFamily::AL2023 | AmiFamily::Custom) {
            return Ok(());
        }
        if let Some(field) = self.raw.keys().find(|key| !COMMON_FIELDS.contains(&key.as_str())) {
            return Err(unsupported(format!(
                "spec.kubelet.{field} is supported with AL2023 only, not with {family:?}"
            )));
        }
        if family == AmiFamily::Bottlerocket && self.pods_per_core.is_some() {
            return Err(unsupported("spec.kubelet.podsPerCore is not supported with Bottlerocket"));
        }
        if self.cluster_dns.len() > 1 {
            return Err(unsupported(format!(
                "spec.kubelet.clusterDNS may have one address only with {family:?}"
            )));
        }
        Ok(())
    }
}

fn expression(field: &str) -> KubeletError {
    KubeletError {
        reason: "KubeletExpressionsDisabled",
        message: format!("spec.kubelet.{field} is an expression; expressions are not enabled"),
    }
}

fn max_pods(raw: &Map<String, Value>) -> Result<Option<u32>, KubeletError> {
    match raw.get("maxPods") {
        Some(Value::String(_)) => Err(expression("maxPods")),
        _ => count(raw, "maxPods"),
    }
}

fn count(raw: &Map<String, Value>, field: &str) -> Result<Option<u32>, KubeletError> {
    match raw.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .filter(|number| *number <= u64::from(i32::MAX.unsigned_abs()))
            .and_then(|number| u32::try_from(number).ok())
            .map(Some)
            .ok_or_else(|| {
                invalid(format!(
                    "spec.kubelet.{field} is {value}, but must be a number of at least 0"
                ))
            }),
    }
}

fn object<'a>(
    raw: &'a Map<String, Value>,
    field: &str,
) -> Result<impl Iterator<Item = (&'a str, String)>, KubeletError> {
    let map = match raw.get(field) {
        None | Some(Value::Null) => None,
        Some(Value::Object(map)) => Some(map),
        Some(_) => {
            return Err(invalid(format!("spec.kubelet.{field} must be an object of texts")));
        }
    };
    Ok(map.into_iter().flatten().map(|(key, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (key.as_str(), text)
    }))
}

fn reserved(
    raw: &Map<String, Value>,
    field: &str,
) -> Result<BTreeMap<String, Quantity>, KubeletError> {
    let mut amounts = BTreeMap::new();
    for (key, text) in object(raw, field)? {
        if !RESERVABLE.contains(&key) {
            return Err(invalid(format!(
                "spec.kubelet.{field}.{key}: the kubelet can reserve {} only",
                RESERVABLE.join(", ")
            )));
        }
        if text.starts_with('-') {
            return Err(invalid(format!("spec.kubelet.{field}.{key} must not be negative")));
        }
        let quantity: Quantity = text.parse().map_err(|_| expression(&format!("{field}.{key}")))?;
        if key != "pid" {
            amounts.insert(key.to_owned(), quantity);
        }
    }
    Ok(amounts)
}

fn thresholds(
    raw: &Map<String, Value>,
    field: &str,
) -> Result<BTreeMap<String, Threshold>, KubeletError> {
    let mut signals = BTreeMap::new();
    for (key, text) in object(raw, field)? {
        check_signal(field, key)?;
        let threshold = threshold(&text).ok_or_else(|| {
            invalid(format!(
                "spec.kubelet.{field}.{key} is {text:?}, but must be a quantity or a percentage from 0% to 100%"
            ))
        })?;
        signals.insert(key.to_owned(), threshold);
    }
    Ok(signals)
}

fn threshold(text: &str) -> Option<Threshold> {
    let Some(percent) = text.strip_suffix('%') else {
        let quantity: Quantity = text.parse().ok()?;
        return (!quantity.is_negative()).then_some(Threshold::Amount(quantity));
    };
    let percent: f64 = percent.parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked first"
    )]
    (0.0..=100.0)
        .contains(&percent)
        .then(|| Threshold::MilliPercent((percent * 1000.0).round() as u32))
}

fn check_signal(field: &str, key: &str) -> Result<(), KubeletError> {
    if EVICTION_SIGNALS.contains(&key) {
        return Ok(());
    }
    Err(invalid(format!(
        "spec.kubelet.{field}.{key} is no eviction signal; there are {}",
        EVICTION_SIGNALS.join(", ")
    )))
}

fn check_soft_eviction(raw: &Map<String, Value>) -> Result<(), KubeletError> {
    let soft: BTreeSet<String> = thresholds(raw, "evictionSoft")?.into_keys().collect();
    let mut grace = BTreeSet::new();
    for (key, text) in object(raw, "evictionSoftGracePeriod")? {
        check_signal("evictionSoftGracePeriod", key)?;
        if !is_duration(&text) {
            return Err(invalid(format!(
                "spec.kubelet.evictionSoftGracePeriod.{key} is {text:?}, but must be a duration such as 1m30s"
            )));
        }
        grace.insert(key.to_owned());
    }
    match soft.symmetric_difference(&grace).next() {
        None => Ok(()),
        Some(key) => Err(invalid(format!(
            "spec.kubelet.evictionSoft and evictionSoftGracePeriod must name the same signals, but only one names {key}"
        ))),
    }
}

fn check_image_gc(raw: &Map<String, Value>) -> Result<(), KubeletError> {
    let [high, low] = ["imageGCHighThresholdPercent", "imageGCLowThresholdPercent"].map(|field| {
        match count(raw, field)? {
            Some(percent) if percent > 100 => {
                Err(invalid(format!("spec.kubelet.{field} is {percent}, but must be at most 100")))
            }
            percent => Ok(percent),
        }
    });
    match (high?, low?) {
        (Some(high), Some(low)) if high <= low => Err(invalid(
            "spec.kubelet.imageGCHighThresholdPercent must be above imageGCLowThresholdPercent",
        )),
        _ => Ok(()),
    }
}

fn strings(raw: &Map<String, Value>, field: &str) -> Result<Vec<String>, KubeletError> {
    match raw.get(field) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list
            .iter()
            .map(|value| value.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| invalid(format!("spec.kubelet.{field} must be a list of texts"))),
        Some(_) => Err(invalid(format!("spec.kubelet.{field} must be a list of texts"))),
    }
}

/// Whether the text is a duration as Go writes it, not negative (`0`, `90s`, `1h30m`, `1.5h`).
fn is_duration(text: &str) -> bool {
    if text == "0" {
        return true;
    }
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        if rest[..number].parse::<f64>().is_err() {
            return false;
        }
        rest = &rest[number..];
        // "m" is also the beginning of "ms", so the longer units come first.
        let unit = ["ns", "us", "µs", "ms", "h", "m", "s"];
        let Some(after) = unit.iter().find_map(|unit| rest.strip_prefix(unit)) else {
            return false;
        };
        rest = after;
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str, family: AmiFamily) -> Result<Kubelet, KubeletError> {
        Kubelet::parse(&serde_json::from_str(json).unwrap(), family)
    }

    #[test]
    fn reads_what_planning_needs() {
        let kubelet = parse(
            r#"{"maxPods": 42, "podsPerCore": 0, "kubeReserved": {"cpu": "1", "pid": "100"},
                "evictionHard": {"memory.available": "5%", "nodefs.available": "1Gi"},
                "clusterDNS": ["10.0.0.10"], "topologyManagerPolicy": "restricted"}"#,
            AmiFamily::AL2023,
        )
        .unwrap();
        assert_eq!(kubelet.max_pods, Some(42));
        assert_eq!(kubelet.kube_reserved.len(), 1);
        assert_eq!(kubelet.eviction_hard["memory.available"], Threshold::MilliPercent(5000));
        assert!(kubelet.raw.contains_key("topologyManagerPolicy"));
    }

    #[test]
    fn refuses_what_a_kubelet_would_refuse() {
        for (json, family, reason, part) in [
            (r#"{"registerWithTaints": []}"#, AmiFamily::AL2023, "Invalid", "NodePool"),
            (r#"{"maxPods": "max_pods - 1"}"#, AmiFamily::AL2023, "KubeletExpressions", "maxPods"),
            (r#"{"maxPods": -1}"#, AmiFamily::AL2023, "Invalid", "at least 0"),
            (r#"{"kubeReserved": {"gpu": "1"}}"#, AmiFamily::AL2023, "Invalid", "kubeReserved.gpu"),
            (r#"{"kubeReserved": {"cpu": "-1"}}"#, AmiFamily::AL2023, "Invalid", "negative"),
            (r#"{"kubeReserved": {"cpu": "vcpus * 2"}}"#, AmiFamily::AL2023, "KubeletExpr", "cpu"),
            (r#"{"evictionHard": {"memory": "1Gi"}}"#, AmiFamily::AL2023, "Invalid", "signal"),
            (r#"{"evictionHard": {"pid.available": "101%"}}"#, AmiFamily::AL2, "Invalid", "100%"),
            (r#"{"evictionSoft": {"pid.available": "1%"}}"#, AmiFamily::AL2, "Invalid", "same"),
            (
                r#"{"evictionSoft": {"pid.available": "1%"}, "evictionSoftGracePeriod": {"pid.available": "1 m"}}"#,
                AmiFamily::AL2,
                "Invalid",
                "duration",
            ),
            (
                r#"{"imageGCHighThresholdPercent": 50, "imageGCLowThresholdPercent": 50}"#,
                AmiFamily::AL2,
                "Invalid",
                "above",
            ),
            (r#"{"cpuManagerPolicy": "static"}"#, AmiFamily::AL2, "Unsupported", "AL2023"),
            (r#"{"podsPerCore": 4}"#, AmiFamily::Bottlerocket, "Unsupported", "podsPerCore"),
            (r#"{"clusterDNS": ["a", "b"]}"#, AmiFamily::AL2, "Unsupported", "one address"),
        ] {
            let error = parse(json, family).expect_err(json);
            assert!(error.reason.starts_with(reason), "{json}: {error:?}");
            assert!(error.message.contains(part), "{json}: {error}");
        }
    }

    #[test]
    fn durations_are_those_of_go() {
        for text in ["0", "90s", "1h30m", "1.5h", "100ms", "0s"] {
            assert!(is_duration(text), "{text}");
        }
        for text in ["", "90", "m", "-1s", "1 m", "1d"] {
            assert!(!is_duration(text), "{text}");
        }
    }
}
