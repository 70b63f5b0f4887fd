//! What an event means before it is folded.

use std::sync::Arc;

use super::Engine;
use crate::api::ec2nodeclass::EC2NodeClass;
use crate::api::project;
use crate::cloud::Cloud;
use crate::cluster::{Change, Event};
use crate::control::Clock;
use crate::demand::{Phase, Reservation};
use crate::intent::Intent;
use crate::model::pod::Pod;
use crate::model::workload::WorkloadKind;
use crate::server::ApiServer;

impl<A: ApiServer, C: Cloud, K: Clock> Engine<A, C, K> {
    /// Books what admission has seen, and plans soon: the watch confirms it within moments.
    pub(super) fn announce(&mut self, intent: &Intent) {
        if !self.settings.intents {
            return;
        }
        self.context.metrics.intents.inc();
        if let Some(workload) = intent.workload() {
            self.ledger.announce(Arc::new(workload), self.now());
        }
        // A change of scale carries the count only.
        if WorkloadKind::parse(&intent.kind).is_some() {
            self.mark();
        }
    }

    /// Takes note of classes, and of what they say of their nodes.
    pub(super) fn note_classes(&mut self, change: Change<Arc<str>, EC2NodeClass>) {
        let name =
            |class: &EC2NodeClass| Arc::from(class.metadata.name.as_deref().unwrap_or_default());
        self.classes.send_modify(|classes| match change {
            Change::Upsert(class) => {
                self.class_facts.insert(name(&class), project::class(&class));
                classes.insert(name(&class), Arc::new(class));
            }
            Change::Delete(name) => {
                self.class_facts.remove(&name);
                classes.remove(&name);
            }
            Change::Replace(list) => {
                self.class_facts =
                    list.iter().map(|class| (name(class), project::class(class))).collect();
                *classes = list.into_iter().map(|class| (name(&class), Arc::new(class))).collect();
            }
        });
    }

    /// Whether an event can change what is to be bought. Pods that a reservation announced do not
    /// put a plan off: they come in long bursts.
    pub(super) fn relevant(&self, event: &Event) -> bool {
        match event {
            Event::Pods(Change::Upsert(pod)) => pod.waiting() && !self.covered(pod),
            Event::Namespaces(_) | Event::Attachments(_) => false,
            _ => true,
        }
    }

    fn covered(&self, pod: &Pod) -> bool {
        let root = self.state.snapshot().root_of(pod);
        let booked = |r: &Reservation| r.desired > 0 && r.phase != Phase::Stopped;
        self.settings.intents && self.ledger.get(&root).is_some_and(booked)
    }

    pub(super) fn note_pods(&mut self, event: &Event) {
        let now = self.now();
        if let Event::Pods(change) = event {
            let snapshot = self.state.snapshot();
            let mut touch = |node: &Option<Arc<str>>| {
                if let Some(node) = node {
                    self.pod_events.insert(Arc::clone(node), now);
                }
            };
            match change {
                Change::Upsert(pod) if !pod.of_daemon_set() => {
                    let key = (Arc::clone(&pod.shape.namespace), Arc::clone(&pod.name));
                    let old = snapshot.pods.get(&key);
                    let moved = old.is_none_or(|old| {
                        old.node_name != pod.node_name
                            || old.deleted_at != pod.deleted_at
                            || old.terminal() != pod.terminal()
                    });
                    if moved {
                        touch(&pod.node_name);
                    }
                }
                Change::Delete(key) => {
                    if let Some(old) = snapshot.pods.get(key).filter(|old| !old.of_daemon_set()) {
                        touch(&old.node_name);
                    }
                }
                _ => {}
            }
        }
    }
}
