//! The API objects that users write and Harbinger keeps: Karpenter's, and our own.
//!
//! Types here are what goes over the wire, with the validation and defaults of the CRDs that are
//! generated from them. Planning works on the compiled forms in [`model`](crate::model), which
//! [`project`] makes.

pub mod common;
pub mod conditions;
pub mod crds;
pub mod decode;
pub mod ec2nodeclass;
pub mod nodeclaim;
pub mod nodepool;
pub mod project;
pub mod requestpolicy;
pub mod reservation;
pub mod validate;
