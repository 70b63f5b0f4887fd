//! The API: custom resources of Karpenter's groups and our own, as types, schemas and files.
//!
//! Decides what an object may say, what it means when it says nothing, and how objects of older versions are
//! read. It does not decide what is done about an object, and it talks to nobody.

#![expect(
    unreachable_pub,
    reason = "the KubeSchema derive copies each public struct into a function"
)]
#![expect(
    clippy::doc_markdown,
    reason = "the comments are the text of kubectl explain, where backticks are noise"
)]
#![expect(
    clippy::duplicated_attributes,
    reason = "the lint mistakes the fields of one printer column for those of another"
)]

pub mod common;
pub mod conditions;
pub mod convert;
pub mod crd;
pub mod decode;
pub mod defaults;
pub mod demandprofile;
pub mod duration;
pub mod ec2nodeclass;
pub mod kubernetes;
pub mod labels;
pub mod nodeclaim;
pub mod nodeoverlay;
pub mod nodepool;
pub mod project;
pub mod requestpolicy;
pub mod reservation;
pub mod schema;
pub mod validate;

pub use common::{Effect, NodeClassRef, Operator, Requirement, ResourceList, Taint};
pub use conditions::{Condition, ConditionStatus};
pub use crd::{crds, crds_yaml};
pub use decode::decode;
pub use demandprofile::{DemandProfile, DemandProfileSpec};
pub use duration::{GoDuration, NillableDuration};
pub use ec2nodeclass::{AmiFamily, EC2NodeClass, EC2NodeClassSpec};
pub use nodeclaim::{NodeClaim, NodeClaimSpec, NodeClaimStatus};
pub use nodeoverlay::{NodeOverlay, NodeOverlaySpec, NodeOverlayStatus};
pub use nodepool::{NodePool, NodePoolSpec, NodePoolStatus};
pub use requestpolicy::{RequestPolicy, RequestPolicySpec, RequestPolicyStatus};
pub use reservation::{Reservation, ReservationSpec, ReservationStatus};
pub use validate::{
    FieldError, validate_demandprofile, validate_ec2nodeclass, validate_nodeclaim,
    validate_nodeoverlay, validate_nodepool, validate_requestpolicy, validate_reservation,
};
