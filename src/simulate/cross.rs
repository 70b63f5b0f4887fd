//! What is wrong between objects: names that lead nowhere, and more pods than can be planned.

use std::collections::BTreeSet;

use kube::ResourceExt;
use serde_json::Value;

use super::expand::wanted;
use super::input::Input;
use super::load::{InputError, Origin};
use crate::api::Operator;
use crate::api::labels::nearest;
use crate::api::validate::FieldError;
use crate::model::labels;

/// A hundred nodes for each of ten thousand workloads; beyond this, a number is a slip.
pub const MOST_PODS: u64 = 1_000_000;

/// Errors between the objects. `types` are the names of all instance types; `foreign` says that they
/// are of a catalog of the user's own, which knows no classes.
pub fn check(input: &Input, types: &BTreeSet<&str>, foreign: bool) -> Vec<InputError> {
    let mut errors = Vec::new();
    if !foreign {
        classes(input, &mut errors);
    }
    instance_types(input, types, &mut errors);
    counts(input, &mut errors);
    errors
}

/// Pools whose class is missing among those of the input. An input without any class takes the
/// defaults, which the report says.
fn classes(input: &Input, errors: &mut Vec<InputError>) {
    let given =
        || input.places.keys().filter(|(kind, ..)| kind == "EC2NodeClass").map(|key| &*key.2);
    if given().next().is_none() {
        return;
    }
    for pool in &input.pools {
        let name = &*pool.spec.template.spec.node_class_ref.name;
        if given().any(|given| given == name) {
            continue;
        }
        let what = "no EC2NodeClass of the input has this name";
        let mut error = FieldError::new("spec.template.spec.nodeClassRef.name", &name.into(), what);
        error.fix = Some(nearest(name, given()).map_or_else(
            || {
                let given: Vec<&str> = given().collect();
                format!("add it, or write one of {}", given.join(", "))
            },
            |meant| format!("did you mean {meant}?"),
        ));
        errors.push(of_pool(input, &pool.name_any(), &error));
    }
}

/// Types that pools and pods ask for and that no catalog knows.
fn instance_types(input: &Input, types: &BTreeSet<&str>, errors: &mut Vec<InputError>) {
    for pool in &input.pools {
        for (index, requirement) in pool.spec.template.spec.requirements.iter().enumerate() {
            if requirement.key != labels::INSTANCE_TYPE || requirement.operator != Operator::In {
                continue;
            }
            for (at, value) in requirement.values.iter().enumerate() {
                if types.contains(&**value) {
                    continue;
                }
                let path = format!("spec.template.spec.requirements[{index}].values[{at}]");
                let what = "unknown instance type";
                let mut error = FieldError::new(&path, &Value::from(&**value), what);
                error.fix = Some(match nearest(value, types.iter().copied()) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => "write one of the catalog, or give --catalog with it".to_owned(),
                });
                errors.push(of_pool(input, &pool.name_any(), &error));
            }
        }
    }
}

fn of_pool(input: &Input, name: &str, error: &FieldError) -> InputError {
    InputError {
        origin: input.place("NodePool", name).cloned().unwrap_or_default(),
        object: format!("NodePool {name}"),
        message: error.to_string(),
    }
}

/// How many pods the input makes.
pub fn pods(input: &Input) -> u64 {
    let listed = u64::try_from(input.pods.len()).unwrap_or(u64::MAX);
    let made = input.workloads.iter().map(|(kind, workload)| u64::from(wanted(*kind, workload)));
    made.fold(listed, u64::saturating_add)
}

/// More pods than can be planned, which would cost memory without end.
fn counts(input: &Input, errors: &mut Vec<InputError>) {
    let all = pods(input);
    if all <= MOST_PODS {
        return;
    }
    let mut largest: Option<(u64, InputError)> = None;
    for (kind, workload) in &input.workloads {
        let count = u64::from(wanted(*kind, workload));
        if largest.as_ref().is_some_and(|(most, _)| *most >= count) {
            continue;
        }
        let meta = &workload.metadata;
        let key = (kind.name().to_owned(), meta.namespace().to_owned(), meta.name().to_owned());
        let error = InputError {
            origin: input.places.get(&key).cloned().unwrap_or_default(),
            object: format!("{} {}", kind.name(), meta.name()),
            message: String::new(),
        };
        largest = Some((count, error));
    }
    let (count, error) = largest.unwrap_or_else(|| {
        let nowhere =
            InputError { origin: Origin::default(), object: String::new(), message: String::new() };
        (all, nowhere)
    });
    let mut field =
        FieldError::new("spec", &Value::Null, format!("makes {count} of the input's {all} pods"));
    field.fix = Some(format!("lower its replicas: at most {MOST_PODS} pods can be simulated"));
    errors.push(InputError { message: field.to_string(), ..error });
}
