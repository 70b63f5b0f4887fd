//! The webhook over real TLS, and its endpoints without it.

mod http;
mod lifecycle;
mod reviews;
mod support;
