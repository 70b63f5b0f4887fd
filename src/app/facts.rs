//! Keeping what stands beside workloads, for advice.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::advice::Facts;
use crate::cluster::Change;
use crate::k8s::watch::{Place, Watches};
use crate::model::companions::{Budget, Priority, Scaler};

/// Changes that may wait to be folded.
const QUEUE: usize = 256;

enum Message {
    Budget(Change<Place, Budget>),
    Scaler(Change<Place, Scaler>),
    Priority(Change<Arc<str>, Priority>),
}

/// Watches disruption budgets, autoscalers and priority classes.
pub fn follow(watches: &Watches) -> Arc<ArcSwap<Facts>> {
    let (to, mut inbox) = mpsc::channel(QUEUE);
    watches.budgets(&to, Message::Budget);
    watches.scalers(&to, Message::Scaler);
    watches.priorities(&to, Message::Priority);
    let facts: Arc<ArcSwap<Facts>> = Arc::default();
    let published = Arc::clone(&facts);
    watches.tracker.spawn(async move {
        let mut state = Facts::default();
        while let Some(message) = inbox.recv().await {
            let mut changed = fold(&mut state, message);
            while let Ok(message) = inbox.try_recv() {
                changed |= fold(&mut state, message);
            }
            if changed {
                published.store(Arc::new(state.clone()));
            }
        }
    });
    facts
}

fn fold(facts: &mut Facts, message: Message) -> bool {
    match message {
        Message::Budget(change) => {
            let key = |budget: &Budget| (Arc::clone(&budget.namespace), Arc::clone(&budget.name));
            change.fold_into(&mut facts.budgets, key)
        }
        Message::Scaler(change) => {
            let key = |scaler: &Scaler| (Arc::clone(&scaler.namespace), Arc::clone(&scaler.name));
            change.fold_into(&mut facts.scalers, key)
        }
        Message::Priority(change) => {
            change.fold_into(&mut facts.priorities, |class| Arc::clone(&class.name))
        }
    }
}
