//! Harbinger.
