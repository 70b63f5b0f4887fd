//! AdmissionReview v1 on the wire.
//!
//! The types are our own: the object stays the text that it came as, and a patch is written as
//! base64, the canonical form of Go's bytes, which is a quarter of the size of a list of numbers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// Why a body is no review that can be answered.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum ReviewError {
    /// The body is broken and does not even tell its uid.
    #[error("body is not an AdmissionReview: {0}")]
    Malformed(String),
    /// The body is broken, and can be answered.
    #[error("the AdmissionReview cannot be read: {reason}")]
    Unreadable { uid: String, reason: String },
    /// Another version or kind.
    #[error("{kind:?} of {api_version:?} is not supported, send {KIND} of {API_VERSION}")]
    Version { kind: String, api_version: String },
    /// There is nothing to answer.
    #[error("the AdmissionReview has no {0}")]
    Incomplete(&'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct ReviewIn<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    request: Option<Request<'a>>,
}

/// The request of a review, borrowed from its body.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Request<'a> {
    #[serde(borrow)]
    pub(super) uid: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) kind: GroupVersionKind<'a>,
    #[serde(borrow)]
    pub(super) resource: GroupVersionResource<'a>,
    #[serde(borrow)]
    pub(super) sub_resource: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) namespace: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) operation: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) user_info: UserInfo<'a>,
    #[serde(borrow)]
    pub(super) object: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) old_object: Option<&'a RawValue>,
    pub(super) dry_run: Option<bool>,
}

/// Who asks.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct UserInfo<'a> {
    #[serde(borrow)]
    pub(super) username: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) groups: Vec<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct GroupVersionKind<'a> {
    #[serde(borrow)]
    pub(super) group: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) kind: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct GroupVersionResource<'a> {
    #[serde(borrow)]
    pub(super) resource: Cow<'a, str>,
}

impl<'a> Request<'a> {
    /// Reads the body of a review.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, ReviewError> {
        let review: ReviewIn<'a> = serde_json::from_slice(body).map_err(|error| {
            let reason = error.to_string();
            match uid_of(body) {
                Some(uid) => ReviewError::Unreadable { uid, reason },
                None => ReviewError::Malformed(reason),
            }
        })?;
        if (&*review.kind, &*review.api_version) != (KIND, API_VERSION) {
            return Err(ReviewError::Version {
                kind: review.kind.into_owned(),
                api_version: review.api_version.into_owned(),
            });
        }
        let request = review.request.ok_or(ReviewError::Incomplete("request"))?;
        if request.uid.is_empty() {
            return Err(ReviewError::Incomplete("request.uid"));
        }
        Ok(request)
    }

    pub(super) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    pub(super) fn sub_resource(&self) -> &str {
        self.sub_resource.as_deref().unwrap_or_default()
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run == Some(true)
    }
}

#[derive(Deserialize)]
struct UidOnly<'a> {
    #[serde(borrow)]
    request: Uid<'a>,
}

#[derive(Deserialize)]
struct Uid<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
}

/// The uid of a whole review, whatever else is wrong with it.
pub(super) fn uid_of(body: &[u8]) -> Option<String> {
    let only: UidOnly<'_> = serde_json::from_slice(body).ok()?;
    Some(only.request.uid.into_owned()).filter(|uid| !uid.is_empty())
}

/// The uid in the first bytes of a review, for an answer without reading the rest. The API server
/// writes it first in the request.
pub(super) fn uid_of_prefix(prefix: &[u8]) -> Option<&str> {
    let find = |text: &[u8], key: &[u8]| {
        text.windows(key.len()).position(|window| window == key).map(|at| at + key.len())
    };
    let rest = &prefix[find(prefix, b"\"request\"")?..];
    let rest = rest[find(rest, b"\"uid\"")?..].trim_ascii_start();
    let rest = rest.strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    let uid = std::str::from_utf8(&rest[..end]).ok()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (!uid.is_empty() && uid.bytes().all(is_plain)).then_some(uid)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReviewOut<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: &'a Response,
}

/// The answer to a review.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Response {
    pub(super) uid: String,
    pub(super) allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<Status>,
    /// Base64; present exactly when `patch_type` is.
    #[serde(rename = "patch", skip_serializing_if = "Option::is_none")]
    encoded_patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) audit_annotations: BTreeMap<String, String>,
}

/// Why a request is denied.
#[derive(Clone, Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the Kubernetes API")]
pub(super) struct Status {
    status: &'static str,
    message: String,
    reason: &'static str,
    code: u16,
}

impl Response {
    pub(super) fn allow(uid: &str) -> Self {
        Self { uid: uid.to_owned(), allowed: true, ..Self::default() }
    }

    pub(super) fn deny(uid: &str, code: u16, reason: &'static str, message: String) -> Self {
        let status = Some(Status { status: "Failure", message, reason, code });
        Self { uid: uid.to_owned(), allowed: false, status, ..Self::default() }
    }

    pub(super) fn warn(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        let all = std::mem::take(&mut self.warnings).into_iter().chain(warnings);
        self.warnings = crate::policy::limit_warnings(all);
        self
    }

    /// Adds a patch, unless it is empty. Returns the response and the patch's size in bytes.
    pub(super) fn patch(mut self, patch: &json_patch::Patch) -> (Self, usize) {
        if patch.is_empty() {
            return (self, 0);
        }
        let json = serde_json::to_vec(patch).unwrap_or_default();
        self.encoded_patch = Some(STANDARD.encode(&json));
        self.patch_type = Some("JSONPatch");
        (self, json.len())
    }

    /// The body of the answer.
    pub(super) fn to_body(&self) -> Vec<u8> {
        let review = ReviewOut { api_version: API_VERSION, kind: KIND, response: self };
        serde_json::to_vec(&review).expect("a struct of strings with string keys is valid JSON")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn broken_reviews_are_answered_where_the_uid_can_be_read() {
        let unreadable = br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview",
            "request":{"uid":"u1","namespace":7}}"#;
        assert!(matches!(
            Request::parse(unreadable),
            Err(ReviewError::Unreadable { uid, .. }) if uid == "u1"
        ));
        assert!(matches!(Request::parse(b"{"), Err(ReviewError::Malformed(_))));
        assert!(matches!(Request::parse(b"{}"), Err(ReviewError::Version { .. })));
        let no_request = br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#;
        assert_eq!(Request::parse(no_request).err(), Some(ReviewError::Incomplete("request")));
    }

    #[test]
    fn the_uid_is_found_in_a_prefix_only_where_it_belongs() {
        let body = br#"{"kind":"AdmissionReview","request":{"uid":"705ab4f5-6393","kind":{"#;
        assert_eq!(uid_of_prefix(body), Some("705ab4f5-6393"));
        assert_eq!(uid_of_prefix(br#"{"request" : { "uid" : "a-1" }"#), Some("a-1"));
        assert_eq!(uid_of_prefix(br#"{"request":{"uid":"half"#), None);
        assert_eq!(uid_of_prefix(br#"{"request":{"uid":"a\"b"}"#), None);
        assert_eq!(uid_of_prefix(br#"{"uid":"x"}"#), None);
    }

    #[test]
    fn an_empty_patch_is_left_out() {
        let (response, size) = Response::allow("u").patch(&json_patch::Patch::default());
        assert_eq!(size, 0);
        let body = String::from_utf8(response.to_body()).unwrap();
        assert_eq!(
            body,
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u","allowed":true}}"#
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(Request::parse(&body));
            let found = uid_of_prefix(&body);
            prop_assert!(found.is_none_or(|uid| !uid.is_empty()));
        }

        #[test]
        fn parsing_of_json_never_panics(
            key in prop::sample::select(vec!["uid", "object", "kind", "dryRun", "resource", "name"]),
            value in prop::sample::select(vec!["null", "1", "\"x\"", "{}", "[]", "{\"kind\":3}"]),
        ) {
            let body = format!(
                r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview",
                    "request":{{"uid":"u","{key}":{value}}}}}"#
            );
            drop(Request::parse(body.as_bytes()));
        }
    }
}
