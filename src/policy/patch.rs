//! The JSON Patch that sets requests.
//!
//! A patch that does not apply is an error for the user even where the webhook may fail, so it
//! names only parents that were seen, and it is tried on the received object before it is sent.

use std::collections::BTreeMap;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, ReplaceOperation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::accept::Qos;
use super::find::{Clamp, Finding};
use super::sleep::Sleep;
use super::subject::{Slot, Subject};
use super::view::PodView;
use super::{RECORD_ANNOTATION, skeleton};
use crate::model::wire::{object_or_default, or_default};

/// Bytes of a patch that is sent; a pod of 400 containers needs less.
const PATCH_LIMIT: usize = 64 << 10;

/// Bytes of the record on the pod.
const RECORD_LIMIT: usize = 2 << 10;

/// Bytes of the keys and values of all annotations that the API server takes.
const ANNOTATIONS_LIMIT: usize = 256 << 10;

/// Why a patch is not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum PatchError {
    #[error("it does not apply: {0}")]
    Apply(#[from] json_patch::PatchError),
    #[error("the object cannot be read: {0}")]
    Read(#[from] serde_json::Error),
    #[error("it has {0} bytes, more than {PATCH_LIMIT}")]
    Size(usize),
    #[error("requests are still missing after it")]
    Diverges,
}

/// The patch that sets the requests of all findings whose action does, and whether the pod's
/// annotations leave no room for the record of it.
pub(super) fn build(
    pod: &PodView<'_>,
    subject: &Subject<'_>,
    findings: &[Finding],
    sleeps: &[Sleep],
    qos: Option<(Qos, Qos)>,
) -> (Patch, bool) {
    let mut operations = Vec::new();
    for slot in &subject.slots {
        let wanted: Vec<&Finding> = findings
            .iter()
            .filter(|finding| {
                finding.action.sets() && (finding.list, finding.index) == (slot.list, slot.index)
            })
            .collect();
        if !wanted.is_empty() {
            set_requests(slot, &wanted, &mut operations);
        }
    }
    operations.extend(sleeps.iter().map(set_sleep));
    // What is held back in silence would be missed, and refused, at the end of admission.
    let holds_back = findings.iter().any(|f| f.verified && f.withheld.is_some());
    if operations.is_empty() && !holds_back {
        return (Patch(operations), false);
    }
    let record = record(pod, findings, sleeps, qos);
    let is_left_out = record.is_err();
    operations.extend(record.ok().flatten());
    (Patch(operations), is_left_out)
}

fn set_sleep(sleep: &Sleep) -> PatchOperation {
    let index = sleep.index.to_string();
    let path = ["spec", "containers", &index, "lifecycle", "preStop"];
    let hook = json!({ "sleep": { "seconds": sleep.seconds } });
    if sleep.has_lifecycle {
        add(path, hook)
    } else {
        add(path.into_iter().take(4), json!({ "preStop": hook }))
    }
}

fn set_requests(slot: &Slot<'_>, wanted: &[&Finding], operations: &mut Vec<PatchOperation>) {
    let index = slot.index.to_string();
    let resources = ["spec", slot.list.field(), &index, "resources"];
    let all = || -> Value {
        wanted.iter().map(|f| (f.resource.name().to_owned(), f.quantity())).collect()
    };
    let Some(requests) = slot.requests else {
        operations.push(if slot.has_resources {
            add(resources.into_iter().chain(["requests"]), all())
        } else {
            add(resources, json!({ "requests": all() }))
        });
        return;
    };
    for finding in wanted {
        let name = finding.resource.name();
        let path = resources.into_iter().chain(["requests", name]);
        let value = Value::from(finding.quantity());
        operations.push(if requests.contains_key(name) {
            replace(path, value)
        } else {
            add(path, value)
        });
    }
}

/// What the annotation on the pod holds. It adds up over the rounds of one admission, since
/// injectors may add containers between them.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Record {
    v: u8,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    set: BTreeMap<String, BTreeMap<String, String>>,
    /// What amounts were learned from: `3 d of web's own history, 92 %`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    learned: BTreeMap<String, BTreeMap<String, String>>,
    /// Amounts that differ from what the policy says: `was 1Gi: ResourceQuota "small"`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    clamped: BTreeMap<String, BTreeMap<String, String>>,
    /// Requests that a rule would verify and that were not set, with the reason, as of the last round.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    withheld: BTreeMap<String, BTreeMap<String, String>>,
    /// Sleeps before the end, by container.
    #[serde(rename = "preStop", skip_serializing_if = "BTreeMap::is_empty")]
    pre_stop: BTreeMap<String, String>,
    policies: Vec<String>,
    /// Change of the quality of service: `Burstable, was BestEffort`.
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<String>,
}

/// Requests that the record on a pod says were not set, by container and resource.
pub(super) struct HeldBack(BTreeMap<String, BTreeMap<String, String>>);

impl HeldBack {
    pub(super) fn names(&self, finding: &Finding) -> bool {
        let resources = self.0.get(&finding.container);
        resources.is_some_and(|resources| resources.contains_key(finding.resource.name()))
    }
}

/// Reads what an earlier call held back. A record that a user writes by hand is written anew by the
/// mutating call, so it counts only where that call is missing too.
pub(super) fn held_back(pod: &PodView<'_>) -> HeldBack {
    HeldBack(read(pod).withheld)
}

/// The record on the pod. What a user wrote there by hand is not worth an error.
fn read(pod: &PodView<'_>) -> Record {
    let old = pod.annotations().and_then(|annotations| annotations.record.as_deref());
    old.and_then(|old| serde_json::from_str(old).ok()).unwrap_or_default()
}

/// The API server would refuse the pod for the record.
struct NoRoom;

/// The operation that writes the record, if it changes.
fn record(
    pod: &PodView<'_>,
    findings: &[Finding],
    sleeps: &[Sleep],
    qos: Option<(Qos, Qos)>,
) -> Result<Option<PatchOperation>, NoRoom> {
    let annotations = pod.annotations();
    let old = annotations.and_then(|annotations| annotations.record.as_deref());
    let mut record = read(pod);
    record.v = 1;
    record.withheld.clear();
    for finding in findings.iter().filter(|finding| finding.verified) {
        if let Some(cause) = &finding.withheld {
            let resources = record.withheld.entry(finding.container.clone()).or_default();
            resources.insert(finding.resource.name().to_owned(), cause.clone());
        }
    }
    for finding in findings.iter().filter(|finding| finding.action.sets()) {
        record
            .set
            .entry(finding.container.clone())
            .or_default()
            .insert(finding.resource.name().to_owned(), finding.quantity());
        if let Some(evidence) = &finding.learned {
            record
                .learned
                .entry(finding.container.clone())
                .or_default()
                .insert(finding.resource.name().to_owned(), evidence.clone());
        }
        if !finding.clamps.is_empty() {
            let told = |clamp: &Clamp| {
                format!("was {}: {}", finding.resource.format(clamp.from), clamp.cause)
            };
            let told: Vec<String> = finding.clamps.iter().map(told).collect();
            record
                .clamped
                .entry(finding.container.clone())
                .or_default()
                .insert(finding.resource.name().to_owned(), told.join("; "));
        }
        if !record.policies.iter().any(|policy| **policy == *finding.policy) {
            record.policies.push(finding.policy.to_string());
        }
    }
    for sleep in sleeps {
        record.pre_stop.insert(sleep.container.clone(), format!("{}s", sleep.seconds));
        if !record.policies.iter().any(|policy| **policy == *sleep.policy) {
            record.policies.push(sleep.policy.to_string());
        }
    }
    if let Some((before, after)) = qos {
        record.qos = Some(format!("{}, was {}", after.name(), before.name()));
    }
    let mut text = json!(record).to_string();
    // Reasons go first, what was set last.
    let parts: [fn(&mut Record); 7] = [
        |record| record.learned.clear(),
        |record| record.clamped.clear(),
        |record| record.pre_stop.clear(),
        |record| record.qos = None,
        |record| record.set.clear(),
        |record| record.withheld.clear(),
        |record| record.policies.clear(),
    ];
    for clear in parts {
        if text.len() > RECORD_LIMIT {
            clear(&mut record);
            text = json!(record).to_string();
        }
    }
    if old == Some(&*text) {
        return Ok(None);
    }
    if !has_room(pod, text.len().saturating_sub(old.map_or(0, str::len))) {
        return Err(NoRoom);
    }
    let path = ["metadata", "annotations", RECORD_ANNOTATION];
    Ok(Some(match (&pod.metadata, annotations) {
        (None, _) => add(["metadata"], json!({ "annotations": { RECORD_ANNOTATION: text } })),
        (Some(_), None) => add(path.into_iter().take(2), json!({ RECORD_ANNOTATION: text })),
        (Some(_), Some(_)) if old.is_some() => replace(path, text.into()),
        (Some(_), Some(_)) => add(path, text.into()),
    }))
}

/// Whether the pod's annotations leave room for the record's key and `more` bytes of its value.
fn has_room(pod: &PodView<'_>, more: usize) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Pod {
        #[serde(deserialize_with = "object_or_default")]
        metadata: Meta,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Meta {
        #[serde(deserialize_with = "or_default")]
        annotations: BTreeMap<String, String>,
    }
    let more = more + RECORD_ANNOTATION.len();
    // No text is longer than the JSON that holds it; nearly all pods are done here.
    if pod.raw.len() + more <= ANNOTATIONS_LIMIT {
        return true;
    }
    let used = serde_json::from_str::<Pod>(pod.raw).map(|pod| {
        pod.metadata.annotations.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
    });
    used.is_ok_and(|used| used + more <= ANNOTATIONS_LIMIT)
}

fn add<'a>(path: impl IntoIterator<Item = &'a str>, value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path), value })
}

fn replace<'a>(path: impl IntoIterator<Item = &'a str>, value: Value) -> PatchOperation {
    PatchOperation::Replace(ReplaceOperation { path: PointerBuf::from_tokens(path), value })
}

/// Tries the patch on the received object; `settled` tells whether the result needs no patch.
pub(super) fn verify(
    pod: &PodView<'_>,
    patch: &Patch,
    settled: impl FnOnce(&PodView<'_>) -> bool,
) -> Result<(), PatchError> {
    let size = serde_json::to_vec(patch)?.len();
    if size > PATCH_LIMIT {
        return Err(PatchError::Size(size));
    }
    let mut object = skeleton::read(pod.raw)?;
    json_patch::patch(&mut object, patch)?;
    let mut patched = PodView::deserialize(&object)?;
    patched.stand_where(pod);
    if settled(&patched) { Ok(()) } else { Err(PatchError::Diverges) }
}
