//! EC2's memory of ClientTokens: an equal request gets the first answer again, a different one with
//! the same token is refused.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use anyhow::Result;
use parking_lot::Mutex;

use super::errors::error;
use super::{Call, Carried};
use crate::http::Reply;

/// Parameters and answer of the first request.
struct First {
    params: BTreeMap<String, String>,
    reply: Reply,
    launched: Vec<String>,
}

/// Held while the first request is under way, so that a second one waits for its answer.
type Slot = Arc<tokio::sync::Mutex<Option<First>>>;

#[derive(Default)]
pub(super) struct Memory(Mutex<BTreeMap<(String, String), Slot>>);

impl Memory {
    /// Carries the request out, or answers as the first time. Failures are not remembered.
    pub(super) async fn once<F>(
        &self,
        call: &Call,
        carry_out: impl FnOnce() -> F,
    ) -> Result<Carried>
    where
        F: Future<Output = Result<Carried>>,
    {
        let key = (call.action.clone(), call.param("ClientToken").to_owned());
        let slot = Arc::clone(self.0.lock().entry(key).or_default());
        let mut slot = slot.lock().await;
        if let Some(first) = slot.as_ref() {
            if first.params != call.params {
                let message = "Arguments on this idempotent request are inconsistent with arguments \
                               used in previous request(s).";
                return Ok(error(&call.service, 400, "IdempotentParameterMismatch", message).into());
            }
            let (reply, launched) = (first.reply.clone(), first.launched.clone());
            return Ok(Carried { reply, launched, replayed: true, ..Carried::default() });
        }
        let carried = carry_out().await?;
        if carried.reply.status == 200 {
            *slot = Some(First {
                params: call.params.clone(),
                reply: carried.reply.clone(),
                launched: carried.launched.clone(),
            });
        }
        Ok(carried)
    }
}
