//! Errors in the form of each AWS protocol.

use hyper::header::HeaderValue;
use serde_json::json;

use crate::http::Reply;

/// EC2's answer to a request that it accepts without a result.
pub(super) fn accepted(action: &str) -> Reply {
    let body = format!("<{action}Response><requestId>0</requestId></{action}Response>");
    Reply::new(200, "text/xml", body)
}

/// The service's way to say "slow down".
pub(super) fn throttled(service: &str) -> Reply {
    match service {
        "ec2" => error(service, 503, "RequestLimitExceeded", "Request limit exceeded."),
        "iam" | "sts" => error(service, 400, "Throttling", "Rate exceeded"),
        _ => error(service, 400, "ThrottlingException", "Rate exceeded"),
    }
}

/// An error in the service's own form.
pub(super) fn error(service: &str, status: u16, code: &str, message: &str) -> Reply {
    let item = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    match service {
        "ec2" => {
            let body =
                format!("<Response><Errors>{item}</Errors><RequestID>0</RequestID></Response>");
            Reply::new(status, "text/xml", body)
        }
        "iam" | "sts" => {
            let body = format!("<ErrorResponse>{item}<RequestId>0</RequestId></ErrorResponse>");
            Reply::new(status, "text/xml", body)
        }
        _ => {
            let body = json!({ "__type": code, "message": message });
            let mut reply = Reply::new(status, "application/x-amz-json-1.1", body.to_string());
            if let Ok(code) = HeaderValue::from_str(code) {
                reply.headers.insert("x-amzn-errortype", code);
            }
            reply
        }
    }
}
