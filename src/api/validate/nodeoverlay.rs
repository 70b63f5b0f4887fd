//! NodeOverlays.

use serde_json::Value;

use super::Report;
use super::requirements::requirements;
use crate::api::NodeOverlay;
use crate::api::common::{Operator, Requirement};
use crate::api::nodeoverlay::{EXTENDED_ONLY, NOT_IN_NEEDS_VALUES, ONE_PRICE, OverlayRequirement};
use crate::api::schema::join;
use crate::model::overlay::PriceChange;
use crate::model::quantity::Quantity;

/// Resources that every node has, which the cloud alone tells.
const ORDINARY: &[&str] = &["cpu", "memory", "ephemeral-storage", "pods"];

pub(super) fn overlay(report: &mut Report, overlay: &NodeOverlay) {
    let spec = &overlay.spec;
    report.rule(spec.price.is_none() || spec.price_adjustment.is_none(), "spec", ONE_PRICE);
    let list: Vec<Requirement> = spec.requirements.iter().map(Requirement::from).collect();
    for (index, OverlayRequirement { operator, values, .. }) in spec.requirements.iter().enumerate()
    {
        let holds = *operator != Operator::NotIn || !values.is_empty();
        report.rule(holds, &format!("spec.requirements[{index}]"), NOT_IN_NEEDS_VALUES);
    }
    requirements(report, &list, "spec.requirements");
    let extended = spec.capacity.keys().all(|name| !ORDINARY.contains(&name.as_str()));
    report.rule(extended, "spec.capacity", EXTENDED_ONLY);
    for (name, amount) in &spec.capacity {
        if amount.0.parse::<Quantity>().is_ok_and(Quantity::is_negative) {
            let path = join("spec.capacity", name);
            report.add(&path, &Value::from(amount.0.as_str()), "must not be negative");
        }
    }
    readable(report, "spec.price", spec.price.as_deref(), PriceChange::to);
    readable(report, "spec.priceAdjustment", spec.price_adjustment.as_deref(), PriceChange::by);
}

/// A number that the schema takes and that is too long to be one, unless the schema has refused it.
fn readable(
    report: &mut Report,
    path: &str,
    text: Option<&str>,
    read: fn(&str) -> Option<PriceChange>,
) {
    let Some(text) = text.filter(|text| read(text).is_none()) else { return };
    if !report.errors.iter().any(|error| error.path == path) {
        report.add_with_fix(path, &Value::from(text), "is not a price", "write fewer digits");
    }
}
