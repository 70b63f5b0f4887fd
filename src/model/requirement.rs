//! The requirement algebra: what a label may be.
//!
//! A requirement constrains one label key. Pools, instance types, node selectors and claims are all
//! conjunctions of requirements, and scheduling asks whether two of them can hold at once.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};

use super::labels::Labels;

/// Values of a label, sorted and distinct. Nearly every requirement of an instance type has one,
/// and a catalog has forty thousand requirements.
type Values = SmallVec<[Arc<str>; 1]>;

/// The operators of node selectors; `Gte` and `Lte` exist in `karpenter.sh/v1` only.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(missing_docs, reason = "the names are those of the Kubernetes API")]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
    Gte,
    Lte,
}

impl Operator {
    /// Reads the operator's name as the API spells it.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "In" => Self::In,
            "NotIn" => Self::NotIn,
            "Exists" => Self::Exists,
            "DoesNotExist" => Self::DoesNotExist,
            "Gt" => Self::Gt,
            "Lt" => Self::Lt,
            "Gte" => Self::Gte,
            "Lte" => Self::Lte,
            _ => return None,
        })
    }
}

/// One `(key, operator, values)` entry as objects spell it.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Expression {
    /// Label key.
    pub key: String,
    /// Operator.
    pub operator: Operator,
    /// Values: some for `In` and `NotIn`, one integer for the bounds, none otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// The least number of distinct values that a claim's instance types must offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_values: Option<u32>,
}

/// The set of values that one label may take.
///
/// `values` is the allowed set, or the excluded one when `complement` holds. Bounds are inclusive
/// and apply to integer values only; a value that is no integer never satisfies a bound.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Requirement {
    complement: bool,
    values: Values,
    at_least: Option<i64>,
    at_most: Option<i64>,
    /// Whether the label may be absent: `NotIn` and `DoesNotExist` hold for nodes without it.
    absent_ok: bool,
    /// The least number of distinct values wanted among instance types.
    pub min_values: Option<u32>,
}

impl Requirement {
    /// Any value, but the label must exist.
    pub fn exists() -> Self {
        Self::of(true, smallvec![], false)
    }

    /// The label must be absent.
    pub fn does_not_exist() -> Self {
        Self::of(false, smallvec![], true)
    }

    /// One of the values.
    pub fn one_of<T: Into<Arc<str>>>(values: impl IntoIterator<Item = T>) -> Self {
        Self::of(false, sorted(values), false)
    }

    /// None of the values; the label may be absent.
    pub fn none_of<T: Into<Arc<str>>>(values: impl IntoIterator<Item = T>) -> Self {
        Self::of(true, sorted(values), true)
    }

    fn of(complement: bool, values: Values, absent_ok: bool) -> Self {
        Self { complement, values, at_least: None, at_most: None, absent_ok, min_values: None }
    }

    /// Compiles an entry. A bound whose value is no integer, or that leaves no integer, can never
    /// hold: it becomes the empty set, as in the field.
    pub fn from_expression(expression: &Expression) -> Self {
        let values = || expression.values.iter().map(|value| Arc::from(&**value));
        let bound = expression.values.first().and_then(|value| value.parse::<i64>().ok());
        let mut requirement = match expression.operator {
            Operator::In => Self::one_of(values()),
            Operator::NotIn => Self::none_of(values()),
            Operator::Exists => Self::exists(),
            Operator::DoesNotExist => Self::does_not_exist(),
            Operator::Gt => Self::bounded(bound.and_then(|n| n.checked_add(1)), None),
            Operator::Gte => Self::bounded(bound, None),
            Operator::Lt => Self::bounded(None, bound.and_then(|n| n.checked_sub(1))),
            Operator::Lte => Self::bounded(None, bound),
        };
        requirement.min_values = expression.min_values;
        requirement
    }

    fn bounded(at_least: Option<i64>, at_most: Option<i64>) -> Self {
        if at_least.is_none() && at_most.is_none() {
            return Self::of(false, smallvec![], false);
        }
        Self { at_least, at_most, ..Self::exists() }
    }

    /// Whether a node whose label has `value` satisfies the requirement.
    pub fn allows(&self, value: &str) -> bool {
        self.has(value) != self.complement && self.within_bounds(value)
    }

    fn has(&self, value: &str) -> bool {
        self.values.binary_search_by(|known| (**known).cmp(value)).is_ok()
    }

    /// Whether a node without the label satisfies the requirement.
    pub fn allows_absent(&self) -> bool {
        self.absent_ok
    }

    fn within_bounds(&self, value: &str) -> bool {
        if self.at_least.is_none() && self.at_most.is_none() {
            return true;
        }
        value.parse::<i64>().is_ok_and(|n| {
            self.at_least.is_none_or(|least| n >= least)
                && self.at_most.is_none_or(|most| n <= most)
        })
    }

    /// The values, sorted, when the set is finite (`In`).
    pub fn finite_values(&self) -> Option<&[Arc<str>]> {
        (!self.complement).then_some(&self.values)
    }

    /// The only value that is allowed, if there is exactly one and the label must exist.
    pub fn single(&self) -> Option<&Arc<str>> {
        if self.complement || self.absent_ok || self.values.len() != 1 {
            return None;
        }
        self.values.first()
    }

    /// Whether no value at all is allowed.
    pub fn is_empty(&self) -> bool {
        (!self.complement && self.values.is_empty())
            || matches!((self.at_least, self.at_most), (Some(least), Some(most)) if least > most)
    }

    /// Whether a node can meet it, with a value or without the label.
    pub fn is_possible(&self) -> bool {
        self.absent_ok || !self.is_empty()
    }

    /// Both requirements at once.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let at_least = self.at_least.max(other.at_least);
        let at_most = match (self.at_most, other.at_most) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let (complement, values) = match (self.complement, other.complement) {
            (true, true) => (true, sorted(self.values.iter().chain(&other.values).cloned())),
            (false, false) => (false, self.values_where(|value| other.has(value))),
            (false, true) => (false, self.values_where(|value| !other.has(value))),
            (true, false) => (false, other.values_where(|value| !self.has(value))),
        };
        let mut both = Self {
            complement,
            values,
            at_least,
            at_most,
            absent_ok: self.absent_ok && other.absent_ok,
            min_values: self.min_values.max(other.min_values),
        };
        if !both.complement {
            // A finite set needs no bounds once the values outside of them are gone.
            both.values = both.values_where(|value| both.within_bounds(value));
            both.at_least = None;
            both.at_most = None;
        }
        both
    }

    fn values_where(&self, keep: impl Fn(&str) -> bool) -> Values {
        self.values.iter().filter(|value| keep(value)).cloned().collect()
    }

    /// Whether a node can satisfy both: some value is allowed by both, or both allow absence.
    pub fn intersects(&self, other: &Self) -> bool {
        if self.absent_ok && other.absent_ok {
            return true;
        }
        match (self.complement, other.complement) {
            (false, _) => {
                self.values.iter().any(|value| self.within_bounds(value) && other.allows(value))
            }
            (true, false) => {
                other.values.iter().any(|value| other.within_bounds(value) && self.allows(value))
            }
            (true, true) => !self.intersect(other).is_empty(),
        }
    }

    /// The entries that spell this requirement; several when bounds and exclusions combine, so
    /// that nothing is lost on the way to a `NodeClaim`.
    pub fn to_expressions(&self, key: &str) -> Vec<Expression> {
        let entry = |operator, values: Vec<String>| Expression {
            key: key.to_owned(),
            operator,
            values,
            min_values: self.min_values,
        };
        let values = || self.values.iter().map(|value| (**value).to_owned()).collect::<Vec<_>>();
        if !self.complement {
            return if self.values.is_empty() {
                vec![entry(Operator::DoesNotExist, Vec::new())]
            } else {
                vec![entry(Operator::In, values())]
            };
        }
        let mut entries = Vec::new();
        if let Some(least) = self.at_least {
            entries.push(entry(Operator::Gte, vec![least.to_string()]));
        }
        if let Some(most) = self.at_most {
            entries.push(entry(Operator::Lte, vec![most.to_string()]));
        }
        if !self.values.is_empty() {
            entries.push(entry(Operator::NotIn, values()));
        }
        if !self.absent_ok && entries.iter().all(|entry| entry.operator == Operator::NotIn) {
            entries.insert(0, entry(Operator::Exists, Vec::new()));
        }
        entries
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for entry in self.to_expressions("") {
            let and = if first { "" } else { " and " };
            first = false;
            write!(f, "{and}{:?}", entry.operator)?;
            match entry.values.as_slice() {
                [] => {}
                values if values.len() > 5 => {
                    write!(f, " [{}, and {} more]", values[..5].join(", "), values.len() - 5)?;
                }
                values => write!(f, " [{}]", values.join(", "))?,
            }
        }
        Ok(())
    }
}

fn sorted<T: Into<Arc<str>>>(values: impl IntoIterator<Item = T>) -> Values {
    let mut values: Values = values.into_iter().map(Into::into).collect();
    values.sort_unstable();
    values.dedup();
    values
}

/// Texts that many requirements have in common, each kept once.
///
/// A catalog spells 36 label keys for each of some 1,100 instance types; shared, they cost nothing.
#[derive(Debug, Default)]
pub struct Texts {
    known: BTreeSet<Arc<str>>,
}

impl Texts {
    fn share(&mut self, text: &mut Arc<str>) {
        match self.known.get(text) {
            Some(known) => *text = Arc::clone(known),
            None => {
                self.known.insert(Arc::clone(text));
            }
        }
    }
}

/// A conjunction of requirements, one per label key.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Requirements {
    /// Sorted by key.
    by_key: Vec<(Arc<str>, Requirement)>,
}

impl Requirements {
    /// No constraint.
    pub fn new() -> Self {
        Self::default()
    }

    /// The requirements that a node with exactly these label values meets.
    pub fn from_labels(labels: &Labels) -> Self {
        let mut requirements = Self::new();
        for (key, value) in labels {
            requirements.insert(key, Requirement::one_of([&**value]));
        }
        requirements
    }

    /// Compiles a list of entries; entries of one key must all hold.
    pub fn from_expressions<'a>(entries: impl IntoIterator<Item = &'a Expression>) -> Self {
        let mut requirements = Self::new();
        for entry in entries {
            requirements.insert(&entry.key, Requirement::from_expression(entry));
        }
        requirements
    }

    /// Adds a requirement: what was there for the key must hold as well. Old label keys are
    /// normalised first.
    pub fn insert(&mut self, key: &str, requirement: Requirement) {
        let key = super::labels::normalize_key(key);
        match self.position(key) {
            Ok(at) => {
                let existing = &mut self.by_key[at].1;
                *existing = existing.intersect(&requirement);
            }
            Err(at) => self.by_key.insert(at, (Arc::from(key), requirement)),
        }
    }

    fn position(&self, key: &str) -> Result<usize, usize> {
        self.by_key.binary_search_by(|(known, _)| (**known).cmp(key))
    }

    /// Adds all requirements of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (key, requirement) in &other.by_key {
            match self.position(key) {
                Ok(at) => self.by_key[at].1 = self.by_key[at].1.intersect(requirement),
                Err(at) => self.by_key.insert(at, (Arc::clone(key), requirement.clone())),
            }
        }
    }

    /// Lets go of room to grow and takes texts that `texts` knows from there, so that long-lived
    /// requirements are small.
    pub fn compact(&mut self, texts: &mut Texts) {
        self.by_key.shrink_to_fit();
        for (key, requirement) in &mut self.by_key {
            texts.share(key);
            requirement.values.shrink_to_fit();
            requirement.values.iter_mut().for_each(|value| texts.share(value));
        }
    }

    /// The requirement on `key`.
    pub fn get(&self, key: &str) -> Option<&Requirement> {
        self.position(key).ok().map(|at| &self.by_key[at].1)
    }

    /// Removes the requirement on `key`.
    pub fn remove(&mut self, key: &str) -> Option<Requirement> {
        self.position(key).ok().map(|at| self.by_key.remove(at).1)
    }

    /// All requirements in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Requirement)> {
        self.by_key.iter().map(|(key, requirement)| (key, requirement))
    }

    /// Whether nothing is required.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The first key on which no node can satisfy both; keys that only one side names never
    /// conflict. This is the test between pool and instance type.
    pub fn conflict<'a>(&'a self, other: &Self) -> Option<&'a str> {
        self.first(|key, ours| other.get(key).is_some_and(|theirs| !ours.intersects(theirs)))
    }

    /// The first key of `self` (what a pod asks) that a node described by `node` cannot meet.
    ///
    /// A key that `node` does not define is met only by requirements that allow absence, or where
    /// `open` says that the key may still take any value (well-known keys of a pool template).
    pub fn unmet<'a>(&'a self, node: &Self, open: impl Fn(&str) -> bool) -> Option<&'a str> {
        self.first(|key, ours| match node.get(key) {
            Some(theirs) => !ours.intersects(theirs),
            None => !ours.allows_absent() && !open(key),
        })
    }

    fn first(&self, test: impl Fn(&str, &Requirement) -> bool) -> Option<&str> {
        let mut entries = self.by_key.iter();
        entries.find(|(key, requirement)| test(key, requirement)).map(|(key, _)| &**key)
    }

    /// Whether a node with these labels meets every requirement.
    pub fn met_by(&self, labels: &Labels) -> bool {
        self.by_key.iter().all(|(key, requirement)| match labels.get(&**key) {
            Some(value) => requirement.allows(value),
            None => requirement.allows_absent(),
        })
    }

    /// The entries that spell these requirements, in key order.
    pub fn to_expressions(&self) -> Vec<Expression> {
        self.by_key.iter().flat_map(|(key, requirement)| requirement.to_expressions(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn req(operator: Operator, values: &[&str]) -> Requirement {
        Requirement::from_expression(&Expression {
            key: "k".into(),
            operator,
            values: values.iter().map(|v| (*v).to_owned()).collect(),
            min_values: None,
        })
    }

    #[test]
    fn bounds_are_integers_only() {
        let gt = req(Operator::Gt, &["4"]);
        assert!(gt.allows("5") && !gt.allows("4") && !gt.allows("many") && !gt.allows_absent());
        let both = gt.intersect(&req(Operator::Lte, &["6"]));
        assert!(both.allows("6") && !both.allows("7"));
        assert!(req(Operator::Gt, &["9"]).intersect(&req(Operator::Lt, &["9"])).is_empty());
        assert!(req(Operator::Gt, &["9223372036854775807"]).is_empty());
    }

    #[test]
    fn exclusions_survive_bounds_when_spelled() {
        let both = req(Operator::Gt, &["4"]).intersect(&req(Operator::NotIn, &["8"]));
        let spelled = both.to_expressions("k");
        let back = Requirements::from_expressions(&spelled);
        assert!(!back.get("k").unwrap().allows("8"));
        assert!(back.get("k").unwrap().allows("6"));
    }

    #[test]
    fn absent_labels() {
        let mut pod = Requirements::new();
        pod.insert("team", req(Operator::NotIn, &["a"]));
        assert_eq!(pod.unmet(&Requirements::new(), |_| false), None);
        pod.insert("team", req(Operator::Exists, &[]));
        assert_eq!(pod.unmet(&Requirements::new(), |_| false), Some("team"));
        assert_eq!(pod.unmet(&Requirements::new(), |_| true), None);
    }

    #[test]
    fn old_keys_are_the_new_keys() {
        let mut pod = Requirements::new();
        pod.insert("beta.kubernetes.io/arch", req(Operator::In, &["arm64"]));
        assert!(pod.get("kubernetes.io/arch").is_some());
    }

    fn any_requirement() -> impl Strategy<Value = Requirement> {
        (0..8_usize, prop::collection::vec(0..6_i64, 0..3)).prop_map(|(operator, values)| {
            let operator = [
                Operator::In,
                Operator::NotIn,
                Operator::Exists,
                Operator::DoesNotExist,
                Operator::Gt,
                Operator::Lt,
                Operator::Gte,
                Operator::Lte,
            ][operator];
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            req(operator, &values)
        })
    }

    proptest! {
        #[test]
        fn intersection_allows_exactly_what_both_allow(
            a in any_requirement(), b in any_requirement(), value in -1..8_i64
        ) {
            let value = value.to_string();
            let both = a.intersect(&b);
            prop_assert_eq!(both.allows(&value), a.allows(&value) && b.allows(&value));
            prop_assert_eq!(both.allows_absent(), a.allows_absent() && b.allows_absent());
            if a.allows(&value) && b.allows(&value) {
                prop_assert!(a.intersects(&b));
            }
            prop_assert_eq!(a.intersects(&b), b.intersects(&a));
        }

        #[test]
        fn spelling_keeps_the_meaning(a in any_requirement(), value in -1..8_i64) {
            let value = value.to_string();
            let entries = a.to_expressions("k");
            let back = Requirements::from_expressions(&entries);
            let back = back.get("k").cloned();
            prop_assert_eq!(back.is_none_or(|r| r.allows(&value)), a.allows(&value));
        }
    }
}
