//! The ConfigMap `karpenter-global-settings`: its values are flags of ours.

use serde_json::Value;

use super::Scope;
use crate::api::schema::join;

const NAME: &str = "karpenter-global-settings";
const DEFAULT_PROFILE: &str = "aws.defaultInstanceProfile";

/// Settings that have a flag.
const FLAGS: &[(&str, &str)] = &[
    ("batchMaxDuration", "--batch-max-duration"),
    ("batchIdleDuration", "--batch-idle-duration"),
    ("aws.clusterName", "--cluster-name"),
    ("aws.clusterEndpoint", "--cluster-endpoint"),
    ("aws.interruptionQueueName", "--interruption-queue"),
    ("aws.vmMemoryOverheadPercent", "--vm-memory-overhead-percent"),
    ("aws.isolatedVPC", "--isolated-vpc"),
];

/// Whether a ConfigMap holds the global settings.
pub(super) fn is_settings(object: &Value) -> bool {
    object["kind"] == "ConfigMap" && object["metadata"]["name"] == NAME
}

/// The profile of node templates that name none.
pub(super) fn default_profile(object: &Value) -> Option<String> {
    let profile = object["data"][DEFAULT_PROFILE].as_str().filter(|_| is_settings(object))?;
    Some(profile.to_owned()).filter(|profile| !profile.is_empty())
}

/// Says which flags do what the settings did.
pub(super) fn settings(scope: &mut Scope<'_>, object: &Value) {
    scope.note("kind", "dropped: settings are flags");
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        let place = join("data", key);
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if text.is_empty() {
            continue;
        }
        let flag = FLAGS.iter().find(|(setting, _)| setting == key).map(|(_, flag)| *flag);
        match (flag, key.as_str()) {
            (Some(flag), _) => {
                let flag = format!("{flag}={text}");
                scope.note(&place, format!("write {flag}"));
                scope.log.flags.push(flag);
            }
            (None, DEFAULT_PROFILE) => {
                scope.note(&place, "used for the node templates that name no profile");
            }
            (None, "featureGates.driftEnabled") if text == "false" => {
                let message = "drift is always found; a disruption budget {nodes: \"0\", reasons: [Drifted]} stops it";
                scope.note(&place, message);
            }
            (None, "featureGates.driftEnabled") => {
                scope.note(&place, "dropped: drift is always on");
            }
            _ => scope.note(&place, "dropped: there is no such setting"),
        }
    }
}
