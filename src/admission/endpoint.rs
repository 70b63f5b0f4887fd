//! From the body of a review to the body of its answer, without IO.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;

use super::metrics::{Metrics, ReviewLabels};
use super::review::{Request, Response, ReviewError};
use super::{Clock, FactsSource, PolicySource};
use crate::advice::{Question, Quote};
use crate::intent::{self, Intent, Operation};
use crate::model::wire::pod::PodWire;
use crate::model::wire::workload::TemplateWire;
use crate::policy::{self, PodView, RequestMeta, Stage, Tally, User, Verdict};

/// How long advice waits for the provisioner: the person at the keyboard does not notice it, and it
/// is far below the deadline of a review.
const QUOTE_WAIT: Duration = Duration::from_millis(150);

/// The endpoints.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Endpoint {
    /// `/mutate/pods`
    Mutate,
    /// `/validate/pods`
    Validate,
    /// `/advise/workloads`
    Advise,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Mutate, Self::Validate, Self::Advise];

    /// The path.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Mutate => "/mutate/pods",
            Self::Validate => "/validate/pods",
            Self::Advise => "/advise/workloads",
        }
    }

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mutate => "mutate",
            Self::Validate => "validate",
            Self::Advise => "advise",
        }
    }
}

/// How a request ended, for metrics.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Outcome {
    /// Allowed without a word.
    Allowed,
    /// Allowed with a warning.
    Warned,
    /// Allowed with a patch.
    Patched,
    /// Denied.
    Denied,
    /// The body was no review of this version.
    Malformed,
    /// The body was too large.
    TooLarge,
    /// The content type was wrong.
    ContentType,
    /// The object could not be read, or is of a kind that this endpoint does not know.
    Unsupported,
    /// Answered unjudged for want of memory.
    Shed,
    /// Answered unjudged for want of time.
    Deadline,
    /// Answered unjudged because the decision panicked.
    Panicked,
}

impl Outcome {
    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Warned => "warned",
            Self::Patched => "patched",
            Self::Denied => "denied",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::ContentType => "content_type",
            Self::Unsupported => "unsupported",
            Self::Shed => "shed",
            Self::Deadline => "deadline",
            Self::Panicked => "panicked",
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status: 200 for every review that could be answered, also for a denial.
    pub status: StatusCode,
    /// An AdmissionReview, or a line of text with another status than 200.
    pub body: Vec<u8>,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether the request was a dry run.
    pub dry_run: bool,
}

impl Answer {
    pub(super) fn review(response: &Response, outcome: Outcome, dry_run: bool) -> Self {
        Self { status: StatusCode::OK, body: response.to_body(), outcome, dry_run }
    }

    pub(super) fn text(status: StatusCode, outcome: Outcome, message: &str) -> Self {
        Self { status, body: format!("{message}\n").into_bytes(), outcome, dry_run: false }
    }
}

/// Answers reviews from the current snapshot.
pub struct Reviewer {
    pub(super) policies: PolicySource,
    pub(super) facts: FactsSource,
    pub(super) intents: Option<intent::Sender>,
    pub(super) tally: Arc<Mutex<Tally>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) strict: bool,
}

impl Reviewer {
    /// A reviewer; `strict` makes `/validate/pods` refuse what cannot be judged.
    pub fn new(
        policies: PolicySource,
        intents: Option<intent::Sender>,
        tally: Arc<Mutex<Tally>>,
        metrics: Arc<Metrics>,
        clock: Clock,
        strict: bool,
    ) -> Self {
        Self { policies, facts: FactsSource::default(), intents, tally, metrics, clock, strict }
    }

    /// With what stands beside workloads.
    #[must_use]
    pub fn with_facts(mut self, facts: FactsSource) -> Self {
        self.facts = facts;
        self
    }

    /// What to ask the provisioner before `/advise/workloads` answers this body, if anything.
    pub fn question(&self, body: &[u8]) -> Option<Question> {
        self.workload_question(&Request::parse(body).ok()?)
    }

    /// Asks the provisioner, within the time that advice may take.
    pub(super) async fn ask(&self, question: &Question) -> Option<Quote> {
        let asking = self.intents.as_ref()?.ask(question);
        let quote = tokio::time::timeout(QUOTE_WAIT, asking).await.ok().flatten();
        let result = if quote.is_some() { "answered" } else { "none" };
        self.metrics.quotes.get_or_create(&vec![("result", result)]).inc();
        quote
    }

    /// Answers one review.
    pub fn answer(&self, endpoint: Endpoint, body: &[u8]) -> Answer {
        self.answer_with(endpoint, body, None)
    }

    /// Answers one review, with what the provisioner said of the workload.
    pub fn answer_with(&self, endpoint: Endpoint, body: &[u8], quote: Option<&Quote>) -> Answer {
        let request = match Request::parse(body) {
            Ok(request) => request,
            Err(ReviewError::Unreadable { uid, reason }) => {
                let reason = format!("the AdmissionReview cannot be read: {reason}");
                return self.unjudged(endpoint, &uid, Outcome::Malformed, &reason);
            }
            Err(error) => {
                let status = StatusCode::BAD_REQUEST;
                return Answer::text(status, Outcome::Malformed, &error.to_string());
            }
        };
        let judged = match endpoint {
            Endpoint::Mutate | Endpoint::Validate => self.pod(endpoint, &request),
            Endpoint::Advise => self.workload(&request, quote),
        };
        let mut answer = judged.unwrap_or_else(|why| {
            self.unjudged(endpoint, &request.uid, Outcome::Unsupported, &why)
        });
        answer.dry_run = request.is_dry_run();
        answer
    }

    /// The answer to a request that could not be judged: allowed with a warning, or denied where
    /// the server is strict.
    pub(super) fn unjudged(
        &self,
        endpoint: Endpoint,
        uid: &str,
        outcome: Outcome,
        why: &str,
    ) -> Answer {
        let response = if self.strict && endpoint == Endpoint::Validate {
            let message = format!("requests could not be checked: {why}");
            Response::deny(uid, 503, "ServiceUnavailable", message)
        } else {
            Response::allow(uid).warn([format!("harbinger: requests not checked: {why}")])
        };
        Answer::review(&response, outcome, false)
    }

    fn pod(&self, endpoint: Endpoint, request: &Request<'_>) -> Result<Answer, String> {
        if (&*request.kind.group, &*request.kind.kind) != ("", "Pod") {
            return Err(format!("{} judges Pods, not {}", endpoint.path(), request.kind.kind));
        }
        let allow = || Answer::review(&Response::allow(&request.uid), Outcome::Allowed, false);
        // Resources of a running pod change only through its resize subresource, which keeps the
        // quality of service; there is nothing to cure later than at creation.
        if request.operation != "CREATE" || !request.sub_resource().is_empty() {
            return Ok(allow());
        }
        let object = request.object.ok_or("the review has no object")?;
        let pod =
            PodView::parse(object.get()).map_err(|error| format!("unreadable Pod: {error}"))?;
        let now = (self.clock)();
        let user = User { name: &request.user_info.username, groups: &request.user_info.groups };
        let meta = RequestMeta { namespace: request.namespace(), now, user };
        let decision = policy::decide(&pod, &meta, &self.policies.load());
        if let Some(why) = &decision.patch_dropped {
            self.metrics.patches_dropped.inc();
            tracing::warn!(
                uid = %request.uid, namespace = request.namespace(), pod = pod.name(), why,
                "patch dropped: it failed its own test"
            );
        }
        let idle = decision.findings.is_empty() && decision.failed_conditions.is_empty();
        if !idle && !request.is_dry_run() {
            let stage = match endpoint {
                Endpoint::Mutate => Stage::Mutating,
                Endpoint::Validate | Endpoint::Advise => Stage::Validating,
            };
            self.tally.lock().record(stage, &pod, request.namespace(), &decision, now);
        }
        if endpoint == Endpoint::Mutate {
            let (mut response, size) = Response::allow(&request.uid).patch(&decision.patch);
            if size > 0 {
                let size = u32::try_from(size).unwrap_or(u32::MAX);
                self.metrics.patch_bytes.observe(size.into());
            }
            response = response.warn(decision.mutation_warnings());
            response.audit_annotations = decision.audit;
            let outcome = match (size, response.warnings.is_empty()) {
                (1.., _) => Outcome::Patched,
                (0, false) => Outcome::Warned,
                (0, true) => Outcome::Allowed,
            };
            return Ok(Answer::review(&response, outcome, false));
        }
        let warnings = decision.validation_warnings();
        let mut response = match decision.verdict {
            Verdict::Deny { code, message } => {
                Response::deny(&request.uid, code, "Invalid", message)
            }
            Verdict::Allow => {
                if pod.controller().is_none() && decision.exempt.is_none() {
                    self.emit(request, || bare_pod(request, object.get(), now));
                }
                Response::allow(&request.uid)
            }
        };
        response = response.warn(warnings);
        response.audit_annotations = decision.audit;
        let outcome = outcome_of(&response);
        Ok(Answer::review(&response, outcome, false))
    }

    /// Sends an intent, unless the request is a dry run or nobody listens.
    pub(super) fn emit(&self, request: &Request<'_>, intent: impl FnOnce() -> Option<Intent>) {
        let Some(sender) = &self.intents else { return };
        if request.is_dry_run() {
            return;
        }
        if let Some(intent) = intent() {
            let sent = if sender.send(intent) { "queued" } else { "dropped" };
            self.metrics.intents.get_or_create(&vec![("result", sent)]).inc();
        }
    }

    pub(super) fn record(&self, endpoint: Endpoint, answer: &Answer, seconds: f64) {
        let labels = ReviewLabels {
            endpoint: endpoint.name(),
            outcome: answer.outcome.name(),
            dry_run: if answer.dry_run { "true" } else { "false" },
        };
        self.metrics.reviews.get_or_create(&labels).inc();
        self.metrics.duration.get_or_create(&vec![("endpoint", endpoint.name())]).observe(seconds);
    }
}

pub(super) fn outcome_of(response: &Response) -> Outcome {
    match (response.allowed, response.warnings.is_empty()) {
        (false, _) => Outcome::Denied,
        (true, false) => Outcome::Warned,
        (true, true) => Outcome::Allowed,
    }
}

fn bare_pod(request: &Request<'_>, object: &str, now: jiff::Timestamp) -> Option<Intent> {
    let pod: PodWire = serde_json::from_str(object).ok()?;
    let mut template = TemplateWire { spec: pod.spec, ..TemplateWire::default() };
    template.metadata.labels = pod.metadata.labels;
    template.metadata.namespace = Some(request.namespace().to_owned());
    Some(Intent {
        kind: "Pod".to_owned(),
        namespace: request.namespace().to_owned(),
        name: pod.metadata.name.or_else(|| request.name.as_deref().map(str::to_owned))?,
        uid: pod.metadata.uid.unwrap_or_default(),
        owner: None,
        generation: pod.metadata.generation,
        desired: 1,
        template: Some(template),
        operation: Operation::Create,
        seen_at: now,
    })
}
