//! What LimitRanges and ResourceQuotas of a namespace ask of a pod, read once.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use k8s_openapi::apimachinery::pkg::api::resource;

use super::snapshot::Resource;
use crate::model::quantity::Quantity;
use crate::model::resources::Resources;

/// A resource list of the API.
type List = BTreeMap<String, resource::Quantity>;

/// How a quantity becomes millicores or bytes: rounded down where it bounds from above, else up.
type Amount = fn(&str, Quantity) -> i64;

/// An amount and the object that sets it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Bound {
    /// Millicores or bytes.
    pub(super) amount: i64,
    /// Name of the object.
    pub(super) by: Arc<str>,
}

/// What LimitRanges say about one resource of a container or a pod. Of several the narrowest counts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Range {
    /// Limit of containers without one.
    pub(super) default_limit: Option<Bound>,
    /// Request of containers without one.
    pub(super) default_request: Option<Bound>,
    pub(super) min: Option<Bound>,
    pub(super) max: Option<Bound>,
    /// Most that a limit may be in thousandths of its request.
    pub(super) ratio: Option<Bound>,
}

/// Which pods a quota counts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Scope {
    BestEffort,
    NotBestEffort,
    Terminating,
    NotTerminating,
    /// Whether classes are listed to be in or not in; no list means any class.
    PriorityClass {
        allow: bool,
        classes: Option<Vec<String>>,
    },
    /// One that says nothing about resources; taken to hold, which is the careful side.
    Other,
}

/// A ResourceQuota as far as it concerns pods.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Quota {
    pub(super) name: Arc<str>,
    pub(super) scopes: Vec<Scope>,
    /// What is left of requests, where they are counted.
    pub(super) requests: [Option<i64>; 3],
    /// What is left of limits, where they are counted.
    pub(super) limits: [Option<i64>; 3],
    /// What is left of pods, where they are counted.
    pub(super) pods: Option<i64>,
}

/// All bounds of one namespace.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Bounds {
    pub(super) container: [Range; 3],
    pub(super) pod: [Range; 3],
    pub(super) quotas: Vec<Quota>,
}

impl Bounds {
    /// Reads the objects of one namespace, in any order.
    pub fn new<'a>(
        limit_ranges: impl IntoIterator<Item = &'a LimitRange>,
        quotas: impl IntoIterator<Item = &'a ResourceQuota>,
    ) -> Self {
        let mut bounds = Self::default();
        for range in limit_ranges {
            bounds.add_range(range);
        }
        bounds.quotas = quotas.into_iter().map(quota).collect();
        bounds.quotas.sort_by(|a, b| a.name.cmp(&b.name));
        bounds
    }

    fn add_range(&mut self, object: &LimitRange) {
        let name: Arc<str> = object.metadata.name.as_deref().unwrap_or_default().into();
        for item in object.spec.iter().flat_map(|spec| &spec.limits) {
            let (ranges, is_container) = match &*item.type_ {
                "Container" => (&mut self.container, true),
                "Pod" => (&mut self.pod, false),
                // Claims for volumes.
                _ => continue,
            };
            for (range, resource) in ranges.iter_mut().zip(Resource::ALL) {
                let read = |list: &Option<List>, amount: Amount| {
                    let quantity = list.as_ref()?.get(resource.name())?.0.parse().ok()?;
                    let amount = amount(resource.name(), quantity);
                    Some(Bound { amount, by: Arc::clone(&name) })
                };
                let min = read(&item.min, Resources::amount);
                let max = read(&item.max, Resources::amount_floor);
                if is_container {
                    // What the API server fills in when the object is made; files have not been there.
                    let limit = read(&item.default, Resources::amount_floor);
                    let limit = limit.or_else(|| max.clone());
                    let request = read(&item.default_request, Resources::amount);
                    let request = request.or_else(|| limit.clone()).or_else(|| min.clone());
                    lower(&mut range.default_limit, limit);
                    lower(&mut range.default_request, request);
                }
                lower(&mut range.max, max);
                if min.as_ref().map(|b| b.amount) > range.min.as_ref().map(|b| b.amount) {
                    range.min = min;
                }
                let ratio = item.max_limit_request_ratio.as_ref();
                let ratio = ratio.and_then(|list| list.get(resource.name()));
                let ratio = ratio.and_then(|text| text.0.parse::<Quantity>().ok());
                let ratio =
                    ratio.map(|ratio| Bound { amount: ratio.milli_floor(), by: Arc::clone(&name) });
                lower(&mut range.ratio, ratio);
            }
        }
    }
}

fn lower(old: &mut Option<Bound>, new: Option<Bound>) {
    if let Some(new) = new
        && old.as_ref().is_none_or(|old| new.amount < old.amount)
    {
        *old = Some(new);
    }
}

fn quota(object: &ResourceQuota) -> Quota {
    let spec = object.spec.as_ref();
    let status = object.status.as_ref();
    // The status holds what is in force; a quota that is new has none yet.
    let hard = status.and_then(|s| s.hard.as_ref()).or_else(|| spec.and_then(|s| s.hard.as_ref()));
    let used = status.and_then(|s| s.used.as_ref());
    let left = |key: &str, resource: &str| {
        let read = |text: &resource::Quantity, amount: Amount| {
            text.0.parse().ok().map(|quantity| amount(resource, quantity))
        };
        let hard = read(hard?.get(key)?, Resources::amount_floor)?;
        let used = used.and_then(|used| read(used.get(key)?, Resources::amount)).unwrap_or(0);
        Some(hard.saturating_sub(used))
    };
    let least = |a: Option<i64>, b: Option<i64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let mut scopes: Vec<Scope> = Vec::new();
    for scope in spec.and_then(|spec| spec.scopes.as_ref()).into_iter().flatten() {
        scopes.push(plain(scope));
    }
    let selector = spec.and_then(|spec| spec.scope_selector.as_ref());
    for term in selector.and_then(|s| s.match_expressions.as_ref()).into_iter().flatten() {
        scopes.push(match (&*term.scope_name, &*term.operator) {
            ("PriorityClass", "In") => Scope::PriorityClass {
                allow: true,
                classes: Some(term.values.clone().unwrap_or_default()),
            },
            ("PriorityClass", "NotIn") => Scope::PriorityClass {
                allow: false,
                classes: Some(term.values.clone().unwrap_or_default()),
            },
            ("PriorityClass", operator) => {
                Scope::PriorityClass { allow: operator == "Exists", classes: None }
            }
            (name, _) => plain(name),
        });
    }
    Quota {
        name: object.metadata.name.as_deref().unwrap_or_default().into(),
        scopes,
        requests: Resource::ALL.map(|resource| {
            let name = resource.name();
            least(left(name, name), left(&format!("requests.{name}"), name))
        }),
        limits: Resource::ALL
            .map(|resource| left(&format!("limits.{}", resource.name()), resource.name())),
        pods: least(left("pods", "pods"), left("count/pods", "pods")),
    }
}

fn plain(name: &str) -> Scope {
    match name {
        "BestEffort" => Scope::BestEffort,
        "NotBestEffort" => Scope::NotBestEffort,
        "Terminating" => Scope::Terminating,
        "NotTerminating" => Scope::NotTerminating,
        "PriorityClass" => Scope::PriorityClass { allow: true, classes: None },
        _ => Scope::Other,
    }
}
