//! What etcd's errors mean to a replica.

use std::error::Error as _;

use etcd_client::Error;

use crate::coordinator::CoordinatorError;

// gRPC's codes (grpc/status.md). The client library does not export the type that names them.
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const FAILED_PRECONDITION: i32 = 9;
const OUT_OF_RANGE: i32 = 11;
const UNIMPLEMENTED: i32 = 12;
const UNAUTHENTICATED: i32 = 16;

/// What `error` says about the call. Whatever leaves open what happened is `Unreachable`.
pub(super) fn explain(error: Error) -> CoordinatorError {
    match error {
        Error::GRpcStatus(status) => {
            let text = with_causes(status.message(), status.source());
            answered(status.code() as i32, text)
        }
        // The client's own words for an answer without a ttl.
        Error::LeaseKeepAliveError(text) if text == "lease not found" => {
            CoordinatorError::LeaseGone
        }
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
            CoordinatorError::Invalid(error.to_string())
        }
        Error::TransportError(cause) => {
            CoordinatorError::Unreachable(with_causes(&cause.to_string(), cause.source()))
        }
        other => CoordinatorError::Unreachable(other.to_string()),
    }
}

/// What an answer with this gRPC code says.
fn answered(code: i32, text: String) -> CoordinatorError {
    match code {
        // A login that was fine when its token was made: the next connection makes a new token.
        INVALID_ARGUMENT if text.contains("revision of auth store is old") => {
            CoordinatorError::Unreachable(text)
        }
        INVALID_ARGUMENT | FAILED_PRECONDITION
            if text.contains("authentication") || text.contains("user name is empty") =>
        {
            CoordinatorError::Denied(text)
        }
        NOT_FOUND if text.contains("lease not found") => CoordinatorError::LeaseGone,
        PERMISSION_DENIED | UNAUTHENTICATED => CoordinatorError::Denied(text),
        INVALID_ARGUMENT | NOT_FOUND | FAILED_PRECONDITION | OUT_OF_RANGE | UNIMPLEMENTED => {
            CoordinatorError::Invalid(text)
        }
        _ => CoordinatorError::Unreachable(text),
    }
}

/// "transport error" alone helps nobody: the causes say "connection refused" or "bad certificate".
fn with_causes(text: &str, mut cause: Option<&(dyn std::error::Error + 'static)>) -> String {
    let mut text = text.to_owned();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_that_settles_the_call_is_not_unreachable() {
        let unreachable = |error| matches!(error, CoordinatorError::Unreachable(_));
        for code in [1, 2, 4, 8, 10, 13, 14, 15] {
            assert!(unreachable(answered(code, "etcdserver: no leader".into())), "{code}");
        }
        let old = "etcdserver: revision of auth store is old";
        assert!(unreachable(answered(INVALID_ARGUMENT, old.into())));
    }

    #[test]
    fn a_wrong_password_is_not_a_wrong_request() {
        let wrong = "etcdserver: authentication failed, invalid user ID or password";
        for (code, text) in [
            (INVALID_ARGUMENT, wrong),
            (PERMISSION_DENIED, "etcdserver: permission denied"),
            (UNAUTHENTICATED, "etcdserver: invalid auth token"),
            (INVALID_ARGUMENT, "etcdserver: user name is empty"),
        ] {
            assert_eq!(answered(code, text.into()), CoordinatorError::Denied(text.into()));
        }
    }

    #[test]
    fn a_lost_lease_is_told_from_other_losses() {
        let gone = "etcdserver: requested lease not found";
        assert_eq!(answered(NOT_FOUND, gone.into()), CoordinatorError::LeaseGone);
        let keeper = Error::LeaseKeepAliveError("lease not found".into());
        assert_eq!(explain(keeper), CoordinatorError::LeaseGone);
    }
}
