//! The webhook over real TLS, and its endpoints without it.

mod advice;
mod http;
mod lifecycle;
mod reviews;
mod support;
