//! AWS error codes, sorted by what the caller does next.

use aws_sdk_ec2::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::cloud::CloudError;

/// Codes that mean "not this capacity, not now", in answers of CreateFleet.
const NO_CAPACITY: [&str; 10] = [
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
    "InsufficientCapacity",
    "InsufficientFreeAddressesInSubnet",
    "InsufficientInstanceCapacity",
    "MaxFleetCountExceeded",
    "MaxSpotInstanceCountExceeded",
    "ReservationCapacityExceeded",
    "UnfulfillableCapacity",
    "Unsupported",
    "VcpuLimitExceeded",
];
/// Codes of calls that came too fast.
const THROTTLED: [&str; 8] = [
    "EC2ThrottledException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];
/// Codes for things that are not there. Things that a class names (images, subnets, groups) are not
/// among them: those are faults of the class.
const NOT_FOUND: [&str; 8] = [
    "InvalidInstanceID.Malformed",
    "InvalidInstanceID.NotFound",
    "InvalidLaunchTemplateId.NotFound",
    "InvalidLaunchTemplateName.NotFoundException",
    "NoSuchEntity",
    "NoSuchEntityException",
    "ParameterNotFound",
    "InvalidCapacityReservationId.NotFound",
];
/// Codes of the provider's own faults.
const FAULTS: [&str; 6] = [
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "RequestTimeout",
    "ServiceUnavailable",
    "Unavailable",
];

/// Whether a code means that an option had no capacity.
pub(super) fn is_shortage(code: &str) -> bool {
    NO_CAPACITY.contains(&code)
}

/// Whether a code means that a launch template is gone.
pub(super) fn is_missing_template(code: &str) -> bool {
    matches!(
        code,
        "InvalidLaunchTemplateName.NotFoundException" | "InvalidLaunchTemplateId.NotFound"
    )
}

/// The error that a code and its text stand for. `server_fault` says that the answer was a 5xx.
pub(super) fn classify(code: &str, text: &str, server_fault: bool) -> CloudError {
    let message = match (code, text) {
        ("", text) => text.to_owned(),
        (code, "") => code.to_owned(),
        (code, text) => format!("{code}: {text}"),
    };
    if THROTTLED.contains(&code) {
        return CloudError::Throttled { message };
    }
    if code == "IdempotentParameterMismatch" {
        return CloudError::TokenMismatch { message };
    }
    if NO_CAPACITY.contains(&code) {
        return CloudError::InsufficientCapacity { message };
    }
    if NOT_FOUND.contains(&code) {
        return CloudError::NotFound { message };
    }
    let denied = ["UnauthorizedOperation", "AccessDenied", "AuthFailure", "OptInRequired"];
    let credentials = ["ExpiredToken", "InvalidClientTokenId", "RequestExpired", "SignatureDoes"];
    if denied.iter().chain(&credentials).any(|start| code.starts_with(start))
        || matches!(code, "PendingVerification" | "UnrecognizedClientException" | "Blocked")
    {
        return CloudError::Denied { message };
    }
    if server_fault || code.is_empty() || FAULTS.contains(&code) {
        return CloudError::Unknown { message };
    }
    // What is left are 4xx answers about the arguments, all of which come from the class.
    CloudError::ClassNotReady { message }
}

/// The code of an SDK error; empty when the service gave none.
pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> &str {
    error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default()
}

/// An SDK error in the words of the seam.
pub(super) fn from_sdk<E>(error: &SdkError<E, HttpResponse>) -> CloudError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let Some(service) = error.as_service_error() else {
        // Nothing came back, or nothing that can be read.
        return CloudError::Unknown { message: DisplayErrorContext(error).to_string() };
    };
    let server_fault =
        error.raw_response().is_some_and(|response| response.status().is_server_error());
    let code = service.code().unwrap_or_default();
    let text = service.message().unwrap_or("the service gave no reason");
    classify(code, text, server_fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(error: &CloudError) -> &'static str {
        match error {
            CloudError::InsufficientCapacity { .. } => "capacity",
            CloudError::Throttled { .. } => "throttled",
            CloudError::NotFound { .. } => "gone",
            CloudError::TokenMismatch { .. } => "token",
            CloudError::ClassNotReady { .. } => "class",
            CloudError::Denied { .. } => "denied",
            CloudError::Unknown { .. } => "unknown",
        }
    }

    #[test]
    fn codes_say_what_to_do_next() {
        for (code, server_fault, expected) in [
            ("InsufficientInstanceCapacity", false, "capacity"),
            ("InsufficientInstanceCapacity", true, "capacity"),
            ("MaxSpotInstanceCountExceeded", false, "capacity"),
            ("VcpuLimitExceeded", false, "capacity"),
            ("AuthFailure.ServiceLinkedRoleCreationNotPermitted", false, "capacity"),
            ("RequestLimitExceeded", true, "throttled"),
            ("Throttling", false, "throttled"),
            ("InvalidInstanceID.NotFound", false, "gone"),
            ("NoSuchEntity", false, "gone"),
            ("IdempotentParameterMismatch", false, "token"),
            ("UnauthorizedOperation", false, "denied"),
            ("AccessDeniedException", false, "denied"),
            ("AuthFailure", false, "denied"),
            ("ExpiredTokenException", false, "denied"),
            ("InvalidParameterValue", false, "class"),
            ("InvalidAMIID.NotFound", false, "class"),
            ("InvalidSubnetID.NotFound", false, "class"),
            ("InvalidUserData.Malformed", false, "class"),
            ("InternalError", true, "unknown"),
            ("Unavailable", true, "unknown"),
            ("", true, "unknown"),
            ("", false, "unknown"),
        ] {
            assert_eq!(kind(&classify(code, "text", server_fault)), expected, "{code}");
        }
        assert_eq!(
            classify("VcpuLimitExceeded", "you asked too much", false).to_string(),
            "insufficient capacity: VcpuLimitExceeded: you asked too much"
        );
    }
}
