//! HTTP around the endpoints: method, path, content type, size, memory, time and panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::endpoint::{Answer, Endpoint, Outcome, Reviewer};
use super::pressure::Pressure;
use super::read::{Read, read};
use super::review::{uid_of, uid_of_prefix};
use super::{BODY_LIMIT, Settings};
use crate::advice::Quote;

/// Unit of the memory budget.
const UNIT: usize = 1 << 10;

/// Least share of one request: its body, the parsed view and the answer of a usual pod.
const LEAST: usize = 16 << 10;

/// Bytes of a body that are enough to find its uid; the API server writes it in the first hundred.
const PREFIX: usize = 4 << 10;

/// Bytes of too large a body that are read before the answer.
const DISCARD: usize = 4 * BODY_LIMIT;

/// From this size a decision may take more than half a millisecond and leaves the async threads.
const INLINE: usize = 128 << 10;

pub(super) struct Gate {
    reviewer: Arc<Reviewer>,
    budget: Semaphore,
    deadline: Duration,
    shed_after: Duration,
    pressure: Arc<Pressure>,
}

/// The router of the three endpoints. Query strings, such as the timeout that the API server adds,
/// are ignored.
pub(super) fn router(
    reviewer: Arc<Reviewer>,
    settings: &Settings,
    pressure: Arc<Pressure>,
) -> Router {
    let gate = Arc::new(Gate {
        reviewer,
        budget: Semaphore::new(settings.body_budget.max(BODY_LIMIT) / UNIT),
        deadline: settings.deadline,
        shed_after: settings.shed_after,
        pressure,
    });
    let mut router = Router::new();
    for endpoint in Endpoint::ALL {
        let handle = move |State(gate): State<Arc<Gate>>, request: Request<Body>| async move {
            gate.handle(endpoint, request).await
        };
        router = router.route(endpoint.path(), post(handle));
    }
    router.with_state(gate)
}

impl Gate {
    async fn handle(&self, endpoint: Endpoint, request: Request<Body>) -> Response {
        let start = Instant::now();
        let answer = self.answer(endpoint, request, start).await;
        self.reviewer.record(endpoint, &answer, start.elapsed().as_secs_f64());
        let content_type = match answer.status {
            StatusCode::OK => "application/json",
            _ => "text/plain; charset=utf-8",
        };
        let mut response = Response::new(Body::from(answer.body));
        *response.status_mut() = answer.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }

    async fn answer(&self, endpoint: Endpoint, request: Request<Body>, start: Instant) -> Answer {
        if !is_json(request.headers()) {
            let message = "content type must be application/json";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Answer::text(status, Outcome::ContentType, message);
        }
        let length = content_length(request.headers());
        let mut body = request.into_body();
        let end = start + self.deadline;
        let mut buffer = BytesMut::new();
        if length.is_some_and(|length| length > BODY_LIMIT) {
            return self.too_large(&mut body, end).await;
        }
        if self.pressure.is_high() {
            return self.shed(endpoint, &mut body, end).await;
        }
        let share = length.unwrap_or(BODY_LIMIT).max(LEAST).div_ceil(UNIT);
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        let Ok(Ok(_permit)) =
            timeout_at(start + self.shed_after, self.budget.acquire_many(share)).await
        else {
            return self.shed(endpoint, &mut body, end).await;
        };
        buffer.reserve(length.unwrap_or(LEAST));
        match timeout_at(end, read(&mut body, &mut buffer, BODY_LIMIT, DISCARD)).await {
            Ok(Read::Whole) => {}
            Ok(Read::Longer) => return too_large(),
            Ok(Read::Broken) => {
                let message = "the body ended early";
                return Answer::text(StatusCode::BAD_REQUEST, Outcome::Malformed, message);
            }
            Err(_) => return self.late(endpoint, &buffer),
        }
        if buffer.len() <= INLINE {
            let quote = match endpoint {
                Endpoint::Advise => self.quote(&buffer).await,
                Endpoint::Mutate | Endpoint::Validate => None,
            };
            return judge(&self.reviewer, endpoint, &buffer, quote.as_ref());
        }
        let reviewer = Arc::clone(&self.reviewer);
        let body = buffer.freeze();
        let text = body.clone();
        let judged = tokio::task::spawn_blocking(move || judge(&reviewer, endpoint, &text, None));
        match timeout_at(end, judged).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Answer::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                Outcome::Panicked,
                "the decision was lost",
            ),
            Err(_) => self.late(endpoint, &body),
        }
    }

    /// What the provisioner says of the workload in this body.
    async fn quote(&self, body: &[u8]) -> Option<Quote> {
        let ask = || self.reviewer.question(body);
        // A body that panics here panics in the decision too, which tells.
        let question = catch_unwind(AssertUnwindSafe(ask)).ok().flatten()?;
        self.reviewer.ask(&question).await
    }

    async fn too_large(&self, body: &mut Body, end: Instant) -> Answer {
        let mut buffer = BytesMut::new();
        // The answer is the same, however the rest of the body ends.
        drop(timeout_at(end, read(body, &mut buffer, 0, DISCARD)).await);
        too_large()
    }

    /// Answers without a decision, keeping only as much of the body as holds its uid.
    async fn shed(&self, endpoint: Endpoint, body: &mut Body, end: Instant) -> Answer {
        let mut buffer = BytesMut::new();
        if timeout_at(end, read(body, &mut buffer, PREFIX, BODY_LIMIT)).await.is_err() {
            return self.late(endpoint, &buffer);
        }
        self.without_decision(
            endpoint,
            &buffer,
            Outcome::Shed,
            StatusCode::SERVICE_UNAVAILABLE,
            "the webhook is overloaded",
        )
    }

    fn late(&self, endpoint: Endpoint, body: &[u8]) -> Answer {
        self.without_decision(
            endpoint,
            body,
            Outcome::Deadline,
            StatusCode::REQUEST_TIMEOUT,
            "the webhook ran out of time",
        )
    }

    fn without_decision(
        &self,
        endpoint: Endpoint,
        body: &[u8],
        outcome: Outcome,
        status: StatusCode,
        why: &str,
    ) -> Answer {
        match uid_of_prefix(&body[..body.len().min(PREFIX)]) {
            Some(uid) => self.reviewer.unjudged(endpoint, uid, outcome, why),
            None => Answer::text(status, outcome, why),
        }
    }
}

/// Decides, and turns a panic into an answer.
fn judge(reviewer: &Reviewer, endpoint: Endpoint, body: &[u8], quote: Option<&Quote>) -> Answer {
    // Decisions share nothing mutable but counters and a queue, which a panic leaves whole.
    let decide = || reviewer.answer_with(endpoint, body, quote);
    catch_unwind(AssertUnwindSafe(decide)).unwrap_or_else(|_| {
        tracing::error!(endpoint = endpoint.name(), bytes = body.len(), "decision panicked");
        let why = "internal error, please report this";
        match uid_of(body) {
            Some(uid) => reviewer.unjudged(endpoint, &uid, Outcome::Panicked, why),
            None => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, Outcome::Panicked, why),
        }
    })
}

fn too_large() -> Answer {
    let message = format!("the body is larger than {BODY_LIMIT} bytes");
    Answer::text(StatusCode::PAYLOAD_TOO_LARGE, Outcome::TooLarge, &message)
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case("application/json")
    })
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
