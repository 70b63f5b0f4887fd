//! Leader election.
//!
//! A lease is ours while we renew it; somebody else's is dead when we have watched it stand still
//! for its whole duration on our own monotonic clock, whatever its timestamps say. Updates carry
//! the resource version, so of two that try at once one loses. Losing ends the process: a leader
//! that is not sure writes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a lease lives without renewal; client-go's default.
const DURATION: Duration = Duration::from_secs(15);
/// How long the leader may go without renewal before it stops writing; client-go's default.
const DEADLINE: Duration = Duration::from_secs(10);
/// Time between attempts; client-go's default.
const RETRY: Duration = Duration::from_secs(2);

/// Says whether this process surely leads.
#[derive(Clone, Debug)]
pub struct Fence {
    start: Instant,
    /// Milliseconds since `start` until which leadership is certain; negative when it is not.
    until: Arc<AtomicI64>,
    term: Arc<AtomicU64>,
}

impl Default for Fence {
    fn default() -> Self {
        Self { start: Instant::now(), until: Arc::new(AtomicI64::new(-1)), term: Arc::default() }
    }
}

impl Fence {
    /// Whether leadership is certain now.
    pub fn holds(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until >= 0 && self.since_start(Instant::now()) < until
    }

    /// Number of the term: how often the lease has changed hands.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    /// A fence that always holds, for a process that runs without an election.
    pub fn open() -> Self {
        let fence = Self::default();
        fence.until.store(i64::MAX, Ordering::Release);
        fence
    }

    fn since_start(&self, moment: Instant) -> i64 {
        i64::try_from(moment.duration_since(self.start).as_millis()).unwrap_or(i64::MAX)
    }

    /// Leadership is certain for [`DEADLINE`] from the moment before the renewal was sent.
    fn renewed(&self, sent: Instant, term: u64) {
        self.term.store(term, Ordering::Release);
        self.until.store(self.since_start(sent + DEADLINE), Ordering::Release);
    }

    fn fell(&self) {
        self.until.store(-1, Ordering::Release);
    }
}

/// What we have seen of somebody else's lease.
#[derive(Clone, Debug)]
struct Observed {
    version: Option<String>,
    at: Instant,
}

/// One candidate.
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    fence: Fence,
    observed: Option<Observed>,
}

/// What one attempt brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Attempt {
    Leading,
    Following,
}

impl Election {
    /// A candidate named `identity` for the lease.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            fence: Fence::default(),
            observed: None,
        }
    }

    /// The fence that this candidate raises.
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Waits until this candidate leads. Returns `false` when cancelled before.
    pub async fn acquire(
        &mut self,
        cancel: &CancellationToken,
        now: impl Fn() -> Timestamp,
    ) -> bool {
        loop {
            match self.attempt(now()).await {
                Ok(Attempt::Leading) => return true,
                Ok(Attempt::Following) => {}
                Err(error) => tracing::warn!(%error, "lease cannot be read or written"),
            }
            tokio::select! {
                () = cancel.cancelled() => return false,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Keeps the lease until cancelled, then releases it. Returns `true` if it was lost.
    pub async fn hold(&mut self, cancel: &CancellationToken, now: impl Fn() -> Timestamp) -> bool {
        loop {
            tokio::select! {
                () = cancel.cancelled() => {
                    self.fence.fell();
                    if let Err(error) = self.release(now()).await {
                        tracing::warn!(%error, "lease was not released and will run out");
                    }
                    return false;
                }
                () = tokio::time::sleep(RETRY) => {}
            }
            match self.attempt(now()).await {
                Ok(Attempt::Leading) => {}
                Ok(Attempt::Following) => {
                    self.fence.fell();
                    return true;
                }
                Err(error) => {
                    tracing::warn!(%error, "lease was not renewed");
                    if !self.fence.holds() {
                        return true;
                    }
                }
            }
        }
    }

    async fn attempt(&mut self, now: Timestamp) -> Result<Attempt, kube::Error> {
        let sent = Instant::now();
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let mut lease = Lease::default();
            lease.metadata.name = Some(self.name.clone());
            lease.spec = Some(self.spec(now, now, 0));
            return match self.api.create(&PostParams::default(), &lease).await {
                Ok(_) => {
                    self.fence.renewed(sent, 0);
                    Ok(Attempt::Leading)
                }
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(Attempt::Following),
                Err(error) => Err(error),
            };
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let mut term = spec.lease_transitions.unwrap_or(0);
        let mut acquired = spec.acquire_time.as_ref().map_or(now, |time| time.0);
        if holder != self.identity {
            let version = lease.metadata.resource_version.clone();
            let seen = self.observed.as_ref().filter(|seen| seen.version == version);
            let still = seen.map(|seen| sent.duration_since(seen.at));
            if still.is_none() {
                self.observed = Some(Observed { version, at: sent });
            }
            let length = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
            let length = length.map_or(DURATION, Duration::from_secs);
            if !holder.is_empty() && still.is_none_or(|still| still < length) {
                return Ok(Attempt::Following);
            }
            term += 1;
            acquired = now;
        }
        lease.spec = Some(self.spec(acquired, now, term));
        match self.api.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(_) => {
                self.fence.renewed(sent, u64::try_from(term).unwrap_or(0));
                Ok(Attempt::Leading)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Attempt::Following),
            Err(error) => Err(error),
        }
    }

    async fn release(&mut self, now: Timestamp) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else { return Ok(()) };
        let Some(spec) = &mut lease.spec else { return Ok(()) };
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(());
        }
        // An empty holder lets the next candidate take over at once.
        spec.holder_identity = Some(String::new());
        spec.renew_time = Some(MicroTime(now));
        self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        Ok(())
    }

    fn spec(&self, acquired: Timestamp, now: Timestamp, term: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(MicroTime(acquired)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(term),
            ..LeaseSpec::default()
        }
    }
}

/// Name of a replica: its host's, which is the pod's, and its process.
pub fn identity(process: u32) -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    format!("{}_{process}", host.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fence_falls_by_itself() {
        let fence = Fence::default();
        assert!(!fence.holds());
        fence.renewed(Instant::now(), 3);
        assert!(fence.holds());
        assert_eq!(fence.term(), 3);
        tokio::time::advance(DEADLINE.checked_sub(Duration::from_millis(1)).unwrap()).await;
        assert!(fence.holds());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!fence.holds());
        assert!(Fence::open().holds());
    }
}
