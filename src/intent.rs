//! Intents: what admission has seen of a workload, told to the provisioner at once.
//!
//! An intent is a hint that capacity will be wanted. The object may still be refused or never make
//! a pod, so a receiver books it as tentative and only the watch confirms it. Losing an intent costs
//! the milliseconds until the watch shows the object, so nothing here ever blocks or retries for
//! long.
//!
//! On the Unix socket each intent is one JSON document behind its length as four bytes, big endian.
//!
//! The other way goes one thing only: the answer to a [`Question`] about what pods would cost. It is
//! asked on a connection of its own, in a frame that begins with a question mark, and the answer is
//! the next frame. Who asks sets the time that it may take; nobody is owed an answer.

mod question;
mod receiver;
mod sender;

pub use question::Asked;
pub use receiver::{Inbox, ListenError, Listener, listen};
pub use sender::{Forwarder, Sender, channel, local};

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::pod::OwnerRef;
use crate::model::wire::workload::{TemplateWire, WorkloadWire};
use crate::model::workload::{Workload, WorkloadKind};

/// Bytes of one frame. An object in etcd has at most 1.5 MiB, and an intent holds a part of one.
const FRAME_LIMIT: usize = 2 << 20;

/// What was asked of the API server.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// The object is new.
    Create,
    /// The object, or its scale, changed.
    Update,
}

/// A workload that is about to want pods, or a bare pod.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// Kind: `Deployment`, `ReplicaSet`, `StatefulSet`, `Job` or `Pod`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name; empty for a pod whose name the API server has not made yet.
    pub name: String,
    /// UID.
    pub uid: String,
    /// The managing controller of the object, such as the Deployment of a ReplicaSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<IntentOwner>,
    /// Generation of the spec; absent for a change of scale, which does not carry it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Pods wanted at the same time.
    pub desired: u32,
    /// Template with the requests that the policies will leave; absent for a change of scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateWire>,
    /// What was asked.
    pub operation: Operation,
    /// When admission saw it.
    pub seen_at: Timestamp,
}

/// The managing controller of an object.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct IntentOwner {
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

impl Intent {
    /// The workload as it will be. None for bare pods, changes of scale, which lack a template, and
    /// kinds that make no pods themselves.
    pub fn workload(&self) -> Option<Workload> {
        let kind = WorkloadKind::parse(&self.kind)?;
        let mut wire = WorkloadWire::default();
        wire.metadata.namespace = Some(self.namespace.clone());
        wire.metadata.name = Some(self.name.clone());
        wire.metadata.uid = Some(self.uid.clone());
        wire.metadata.generation = self.generation;
        wire.spec.template = self.template.clone()?;
        let mut workload = wire.to_workload(kind, Arc::new);
        workload.desired = self.desired;
        workload.owner = self.owner.as_ref().map(|owner| OwnerRef {
            kind: (&*owner.kind).into(),
            name: (&*owner.name).into(),
            uid: (&*owner.uid).into(),
        });
        Some(workload)
    }
}

impl From<&OwnerRef> for IntentOwner {
    fn from(owner: &OwnerRef) -> Self {
        Self {
            kind: owner.kind.to_string(),
            name: owner.name.to_string(),
            uid: owner.uid.to_string(),
        }
    }
}

/// How frames are delimited on both sides.
fn codec() -> tokio_util::codec::LengthDelimitedCodec {
    tokio_util::codec::LengthDelimitedCodec::builder().max_frame_length(FRAME_LIMIT).new_codec()
}

#[cfg(test)]
mod tests;
