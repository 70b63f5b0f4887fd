//! Keeping request policies compiled, for admission and for the provisioner alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use kube::ResourceExt;
use tokio::sync::{mpsc, watch};

use crate::api::requestpolicy::RequestPolicy;
use crate::cluster::Change;
use crate::k8s::watch::Watches;
use crate::model::digest::hex;
use crate::model::labels::Labels;
use crate::policy::{self, Snapshot};

/// Changes that may wait to be folded; namespaces of a large cluster come in one list.
const QUEUE: usize = 256;

enum Message {
    Policy(Box<Change<Arc<str>, RequestPolicy>>),
    Namespace(Change<Arc<str>, (Arc<str>, Labels)>),
}

/// The policies as they are now.
#[derive(Clone)]
pub struct Policies {
    /// What decisions read.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Whether policies and namespaces have been listed.
    pub synced: Arc<AtomicBool>,
    /// Identifies the policies; changes with them, not with namespaces. Empty until listed.
    pub version: watch::Receiver<String>,
}

/// Watches policies and namespaces. Pods in `exempt` namespaces are never touched.
pub fn follow(watches: &Watches, exempt: BTreeSet<String>) -> Policies {
    let (to, mut inbox) = mpsc::channel(QUEUE);
    watches.policies(&to, |change| Message::Policy(Box::new(change)));
    watches.namespaces(&to, Message::Namespace);
    let (version, versions) = watch::channel(String::new());
    let policies = Policies {
        snapshot: Arc::new(ArcSwap::from_pointee(Snapshot::default())),
        synced: Arc::default(),
        version: versions,
    };
    let (snapshot, synced) = (Arc::clone(&policies.snapshot), Arc::clone(&policies.synced));
    watches.tracker.spawn(async move {
        let mut state = State { exempt, ..State::default() };
        while let Some(message) = inbox.recv().await {
            state.fold(message);
            while let Ok(message) = inbox.try_recv() {
                state.fold(message);
            }
            let next = state.snapshot();
            let name = next.version().to_owned();
            snapshot.store(Arc::new(next));
            if state.listed.iter().all(|listed| *listed) {
                synced.store(true, Ordering::Release);
                version.send_if_modified(|old| {
                    let changed = *old != name;
                    *old = name;
                    changed
                });
            }
        }
    });
    policies
}

#[derive(Default)]
struct State {
    policies: BTreeMap<Arc<str>, RequestPolicy>,
    namespaces: BTreeMap<String, Labels>,
    exempt: BTreeSet<String>,
    /// Policies, namespaces.
    listed: [bool; 2],
    /// Policies whose fault was told, with the generation that has it.
    told: BTreeMap<Arc<str>, Option<i64>>,
}

impl State {
    fn fold(&mut self, message: Message) {
        match message {
            Message::Policy(change) => match *change {
                Change::Upsert(policy) => {
                    self.policies.insert(policy.name_any().into(), policy);
                }
                Change::Delete(name) => {
                    self.policies.remove(&name);
                }
                Change::Replace(list) => {
                    self.policies =
                        list.into_iter().map(|policy| (policy.name_any().into(), policy)).collect();
                    self.listed[0] = true;
                }
            },
            Message::Namespace(change) => match change {
                Change::Upsert((name, labels)) => {
                    self.namespaces.insert(name.to_string(), labels);
                }
                Change::Delete(name) => {
                    self.namespaces.remove(&*name);
                }
                Change::Replace(list) => {
                    self.namespaces =
                        list.into_iter().map(|(name, labels)| (name.to_string(), labels)).collect();
                    self.listed[1] = true;
                }
            },
        }
    }

    /// A policy that cannot be compiled counts as absent: others must go on working.
    fn snapshot(&mut self) -> Snapshot {
        let mut compiled = Vec::new();
        let mut identity = String::from("v1");
        for (name, policy) in &self.policies {
            let generation = policy.metadata.generation;
            match policy::compile(name, &policy.spec) {
                Ok(policy) => {
                    let part = format!(" {name}/{}", generation.unwrap_or_default());
                    identity.push_str(&part);
                    compiled.push(policy);
                }
                Err(error) => {
                    if self.told.insert(Arc::clone(name), generation) != Some(generation) {
                        tracing::error!(policy = %name, %error, "request policy is ignored");
                    }
                }
            }
        }
        let version = hex(identity, 8);
        Snapshot::new(version, compiled, self.namespaces.clone(), self.exempt.clone())
    }
}
