//! Errors of the cloud, named by what the caller does next.

/// Why a call to the cloud failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CloudError {
    /// No option had capacity: plan again without them.
    #[error("insufficient capacity: {message}")]
    InsufficientCapacity {
        /// What the provider said.
        message: String,
    },
    /// Too many calls: try the same again later.
    #[error("throttled by the provider: {message}")]
    Throttled {
        /// What the provider said.
        message: String,
    },
    /// The thing is gone: go on without it.
    #[error("not found: {message}")]
    NotFound {
        /// What the provider said.
        message: String,
    },
    /// The same token was used with other arguments: look for its instances, then use a new token.
    #[error("idempotency token was used with other parameters: {message}")]
    TokenMismatch {
        /// What the provider said.
        message: String,
    },
    /// The class is not ready or its settings are refused: tell the user and wait for a change.
    #[error("node class cannot be used: {message}")]
    ClassNotReady {
        /// What is wrong and how to mend it.
        message: String,
    },
    /// We lack a permission: tell the user and try again later.
    #[error("denied by the provider: {message}")]
    Denied {
        /// What the provider said.
        message: String,
    },
    /// The outcome is unknown (timeout, broken connection, server fault): ask again with the same
    /// token.
    #[error("outcome unknown: {message}")]
    Unknown {
        /// What happened.
        message: String,
    },
}
