//! What was asked of the cloud, in order, for tests to look at.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use serde_json::Value;

use super::call::Call;
use crate::http::Reply;
use crate::poll;

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When it arrived.
    pub at: Instant,
    /// How long the answer took.
    pub took: Duration,
    pub service: String,
    pub action: String,
    /// Parameters of a query request.
    pub params: BTreeMap<String, String>,
    /// Body of a JSON request, else null.
    pub json: Value,
    /// HTTP status of the answer; 0 when the client got none.
    pub status: u16,
    /// True when the answer was the remembered one of an earlier equal ClientToken.
    pub replayed: bool,
    /// Instances that the request launched or ended.
    pub instance_ids: Vec<String>,
}

/// All requests so far.
#[derive(Debug, Default)]
pub struct Journal {
    entries: Mutex<Vec<Entry>>,
    broken: Mutex<Vec<String>>,
}

impl Journal {
    pub(super) fn record(&self, entry: Entry) {
        self.entries.lock().push(entry);
    }

    /// moto answers what it does not know with a page of HTML, which an SDK retries and hides.
    pub(super) fn inspect(&self, call: &Call, reply: &Reply) {
        let start: String = reply.text().chars().take(15).collect();
        if start.eq_ignore_ascii_case("<!doctype html>") {
            self.broken.lock().push(format!(
                "{} {} ({}): {:?}",
                call.service, call.action, reply.status, call.params
            ));
        }
    }

    /// The proxy could not carry a request out.
    pub(super) fn broke(&self, call: &Call, error: &anyhow::Error) {
        self.broken.lock().push(format!("{} {}: {error:#}", call.service, call.action));
    }

    /// A copy of the entries.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().clone()
    }

    /// The entries of one action, dry runs aside.
    pub fn of(&self, action: &str) -> Vec<Entry> {
        let meant = |entry: &&Entry| {
            entry.action == action && entry.params.get("DryRun").is_none_or(|dry| dry != "true")
        };
        self.entries.lock().iter().filter(meant).cloned().collect()
    }

    /// Forgets the entries so far.
    pub fn clear(&self) {
        self.entries.lock().clear();
    }

    /// Waits for the first entry that `wanted` accepts.
    pub async fn wait_for(
        &self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Result<Entry> {
        poll::until(what, deadline, async || {
            let entries = self.entries.lock();
            entries.iter().find(|entry| wanted(entry)).cloned().context("no such request")
        })
        .await
    }

    /// Requests that the emulator does not know or broke on.
    pub fn broken(&self) -> Vec<String> {
        self.broken.lock().clone()
    }

    /// Fails if the emulator broke on a request.
    pub fn ensure_sound(&self) -> Result<()> {
        let broken = self.broken();
        ensure!(broken.is_empty(), "the emulator broke on:\n{}", broken.join("\n"));
        Ok(())
    }
}
