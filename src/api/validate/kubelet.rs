//! The kubelet block of a class. An API server takes any object there; these are the checks of the controller.
//!
//! Expressions are recognised, not evaluated: that needs the instance types.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

use super::Report;
use crate::api::common::QUANTITY_PATTERN;
use crate::api::duration::GoDuration;
use crate::api::ec2nodeclass::AmiFamily;
use crate::api::ec2nodeclass::kubelet::{Kubelet, MaxPods};
use crate::api::labels::nearest;
use crate::api::schema::join;

const PATH: &str = "spec.kubelet";
/// What can be kept back.
const RESERVED: &[&str] = &["cpu", "memory", "ephemeral-storage", "pid"];
/// What kubelet measures before it evicts.
const SIGNALS: &[&str] = &[
    "memory.available",
    "nodefs.available",
    "nodefs.inodesFree",
    "imagefs.available",
    "imagefs.inodesFree",
    "pid.available",
];
/// The fields that every image family understands.
const INTERPRETED: &[&str] = &[
    "clusterDNS",
    "maxPods",
    "podsPerCore",
    "systemReserved",
    "kubeReserved",
    "evictionHard",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "evictionMaxPodGracePeriod",
    "imageGCHighThresholdPercent",
    "imageGCLowThresholdPercent",
    "cpuCFSQuota",
];

pub(super) fn kubelet(report: &mut Report, block: &Map<String, Value>, family: Option<AmiFamily>) {
    let kubelet = match Kubelet::read(block) {
        Ok(kubelet) => kubelet,
        Err(error) => {
            let path = join(PATH, &error.path().to_string());
            report.add(&path, &Value::Null, error.inner().to_string());
            return;
        }
    };
    let form = Regex::new(QUANTITY_PATTERN)
        .expect("the pattern is a constant that the schema tests compile");
    reserved(report, "kubeReserved", &kubelet.kube_reserved);
    reserved(report, "systemReserved", &kubelet.system_reserved);
    thresholds(report, "evictionHard", &kubelet.eviction_hard, &form);
    thresholds(report, "evictionSoft", &kubelet.eviction_soft, &form);
    graces(report, &kubelet);
    if let Some(Value::Object(reclaim)) = kubelet.rest.get("evictionMinimumReclaim") {
        let reclaim =
            reclaim.iter().map(|(key, v)| (key.clone(), v.as_str().unwrap_or_default().to_owned()));
        thresholds(report, "evictionMinimumReclaim", &reclaim.collect(), &form);
    }
    numbers(report, &kubelet);
    support(report, &kubelet, family);
}

fn unknown_key(report: &mut Report, path: &str, key: &str, known: &[&str]) {
    let value = Value::from(key);
    let fix = match nearest(key, known.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("valid keys are {}", known.join(", ")),
    };
    report.add_with_fix(path, &value, "unknown key", fix);
}

fn reserved(report: &mut Report, field: &str, map: &BTreeMap<String, String>) {
    let path = join(PATH, field);
    for (key, value) in map {
        if !RESERVED.contains(&key.as_str()) {
            unknown_key(report, &path, key, RESERVED);
        }
        if value.starts_with('-') {
            report.add(&join(&path, key), &Value::from(value.as_str()), "must not be negative");
        }
    }
}

fn thresholds(report: &mut Report, field: &str, map: &BTreeMap<String, String>, form: &Regex) {
    let path = join(PATH, field);
    for (key, value) in map {
        if !SIGNALS.contains(&key.as_str()) {
            unknown_key(report, &path, key, SIGNALS);
        }
        let fits = match value.strip_suffix('%') {
            Some(share) => share.parse::<f64>().is_ok_and(|share| (0.0..=100.0).contains(&share)),
            None => form.is_match(value) && !value.starts_with('-'),
        };
        if !fits {
            let message = "must be a percentage from 0% to 100% or an amount that is not negative";
            report.add(&join(&path, key), &Value::from(value.as_str()), message);
        }
    }
}

fn graces(report: &mut Report, kubelet: &Kubelet) {
    let field = join(PATH, "evictionSoftGracePeriod");
    let graces = &kubelet.eviction_soft_grace_period;
    for (key, value) in graces {
        if !SIGNALS.contains(&key.as_str()) {
            unknown_key(report, &field, key, SIGNALS);
        }
        if let Err(error) = value.parse::<GoDuration>() {
            report.add(&join(&field, key), &Value::from(value.as_str()), error.to_string());
        }
        if !kubelet.eviction_soft.contains_key(key) {
            report.add(&join(&field, key), &Value::Null, "has no matching evictionSoft");
        }
    }
    for key in kubelet.eviction_soft.keys().filter(|key| !graces.contains_key(*key)) {
        let path = join(&join(PATH, "evictionSoft"), key);
        report.add(&path, &Value::Null, "has no matching evictionSoftGracePeriod");
    }
}

fn numbers(report: &mut Report, kubelet: &Kubelet) {
    let max_pods = match &kubelet.max_pods {
        Some(MaxPods::Count(count)) => Some(*count),
        _ => None,
    };
    let counts = [
        ("maxPods", max_pods),
        ("podsPerCore", kubelet.pods_per_core),
        ("evictionMaxPodGracePeriod", kubelet.eviction_max_pod_grace_period),
    ];
    for (field, number) in counts {
        if let Some(number) = number.filter(|n| *n < 0) {
            report.add(&join(PATH, field), &number.into(), "must not be negative");
        }
    }
    let (high, low) =
        (kubelet.image_gc_high_threshold_percent, kubelet.image_gc_low_threshold_percent);
    let shares = [("imageGCHighThresholdPercent", high), ("imageGCLowThresholdPercent", low)];
    for (field, share) in shares {
        if let Some(share) = share.filter(|s| !(0..=100).contains(s)) {
            report.add(&join(PATH, field), &share.into(), "must be from 0 to 100");
        }
    }
    if let (Some(high), Some(low)) = (high, low)
        && high <= low
    {
        let path = join(PATH, "imageGCHighThresholdPercent");
        report.add(&path, &high.into(), "must be greater than imageGCLowThresholdPercent");
    }
}

/// What the way in which an image family is configured cannot express.
fn support(report: &mut Report, kubelet: &Kubelet, family: Option<AmiFamily>) {
    if kubelet.rest.contains_key("registerWithTaints") {
        let fix = "set taints on the NodePool";
        report.add_with_fix(
            "spec.kubelet.registerWithTaints",
            &Value::Null,
            "is set by the autoscaler",
            fix,
        );
    }
    let Some(family) = family.filter(|family| *family != AmiFamily::Custom) else {
        return;
    };
    let fields = kubelet.rest.keys().filter(|field| *field != "registerWithTaints");
    for field in fields {
        let meant = nearest(field, INTERPRETED.iter().copied());
        // AL2023 hands any other field to kubelet, but a near miss of ours is a slip of the pen.
        let message = match meant {
            None if family == AmiFamily::AL2023 => continue,
            Some(_) => "unknown field".to_owned(),
            None => format!("is not supported with amiFamily {family:?}"),
        };
        report.add(&join(PATH, field), &Value::Null, message).fix =
            meant.map(|meant| format!("did you mean {meant}?"));
    }
    if family != AmiFamily::AL2023 && kubelet.cluster_dns.len() > 1 {
        let message = format!("takes one address with amiFamily {family:?}");
        report.add("spec.kubelet.clusterDNS", &Value::Null, message);
    }
    if family == AmiFamily::Bottlerocket && kubelet.pods_per_core.is_some() {
        let message = "is not supported with amiFamily Bottlerocket";
        report.add("spec.kubelet.podsPerCore", &Value::Null, message);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(block: Value, family: AmiFamily) -> Vec<String> {
        let Value::Object(block) = block else { panic!("the test gives an object") };
        let mut report = Report::default();
        kubelet(&mut report, &block, Some(family));
        report.errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_sound_block_passes() {
        let block = json!({
            "maxPods": 110, "kubeReserved": {"cpu": "100m", "memory": "vcpus * 100"},
            "evictionHard": {"memory.available": "5%", "nodefs.available": "10Gi"},
            "evictionSoft": {"memory.available": "500Mi"}, "evictionSoftGracePeriod": {"memory.available": "1m30s"},
            "imageGCHighThresholdPercent": 85, "imageGCLowThresholdPercent": 80, "topologyManagerPolicy": "restricted",
        });
        assert_eq!(check(block, AmiFamily::AL2023), Vec::<String>::new());
    }

    #[test]
    fn wrong_keys_and_values_are_named() {
        let block = json!({
            "kubeReserved": {"memroy": "1Gi", "cpu": "-1"}, "evictionHard": {"memory.available": "101%"},
            "evictionSoft": {"nodefs.available": "5%"}, "evictionSoftGracePeriod": {"pid.available": "soon"},
            "imageGCHighThresholdPercent": 50, "imageGCLowThresholdPercent": 50, "maxPods": -1,
            "evictionMinimumReclaim": {"memory.available": "lots"},
        });
        let expected = [
            "spec.kubelet.kubeReserved[cpu]: \"-1\": must not be negative",
            "spec.kubelet.kubeReserved: \"memroy\": unknown key; did you mean memory?",
            "spec.kubelet.evictionHard[memory.available]: \"101%\": must be a percentage from 0% to 100% or an amount \
             that is not negative",
            "spec.kubelet.evictionSoftGracePeriod[pid.available]: \"soon\": \"soon\" is not a duration such as 30s, \
             5m or 1h30m",
            "spec.kubelet.evictionSoftGracePeriod[pid.available]: has no matching evictionSoft",
            "spec.kubelet.evictionSoft[nodefs.available]: has no matching evictionSoftGracePeriod",
            "spec.kubelet.evictionMinimumReclaim[memory.available]: \"lots\": must be a percentage from 0% to 100% or \
             an amount that is not negative",
            "spec.kubelet.maxPods: -1: must not be negative",
            "spec.kubelet.imageGCHighThresholdPercent: 50: must be greater than imageGCLowThresholdPercent",
        ];
        let expected: Vec<String> =
            expected.iter().map(|e| e.replace("kubeReserved[cpu]", "kubeReserved.cpu")).collect();
        assert_eq!(check(block, AmiFamily::AL2023), expected);
    }

    #[test]
    fn families_differ_in_what_they_take() {
        let block = || json!({"podsPerCore": 8, "clusterDNS": ["10.0.0.10", "10.0.0.11"], "podPidsLimit": 100});
        assert_eq!(check(block(), AmiFamily::AL2023), Vec::<String>::new());
        assert_eq!(check(block(), AmiFamily::Custom), Vec::<String>::new());
        assert_eq!(check(block(), AmiFamily::AL2).len(), 2);
        assert_eq!(check(block(), AmiFamily::Bottlerocket).len(), 3);
        let taints = json!({"registerWithTaints": []});
        assert_eq!(check(taints, AmiFamily::Custom).len(), 1);
        let slip = check(json!({"maxPod": 1}), AmiFamily::AL2023);
        assert_eq!(slip, ["spec.kubelet.maxPod: unknown field; did you mean maxPods?"]);
    }

    #[test]
    fn a_wrong_type_is_one_error() {
        let found = check(json!({"maxPods": 110, "cpuCFSQuota": "yes"}), AmiFamily::AL2023);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("spec.kubelet.cpuCFSQuota: "), "{found:?}");
    }
}
