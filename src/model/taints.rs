//! Taints and tolerations.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Effect of a taint on pods that do not tolerate it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(missing_docs, reason = "the names are those of the Kubernetes API")]
pub enum TaintEffect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

impl fmt::Display for TaintEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        })
    }
}

/// A taint of a node or a pool.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Taint {
    /// Key, unique per effect on a node.
    pub key: String,
    /// Value, often empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Effect.
    pub effect: TaintEffect,
}

impl Taint {
    /// A taint without a value.
    pub fn new(key: &str, effect: TaintEffect) -> Self {
        Self { key: key.to_owned(), value: String::new(), effect }
    }

    /// Whether the taint keeps pods away that do not tolerate it (all but `PreferNoSchedule`).
    pub fn repels(&self) -> bool {
        self.effect != TaintEffect::PreferNoSchedule
    }
}

impl fmt::Display for Taint {
    /// `key=value:Effect`, or `key:Effect`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let equals = if self.value.is_empty() { "" } else { "=" };
        write!(f, "{}{equals}{}:{}", self.key, self.value, self.effect)
    }
}

/// A toleration of a pod.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    /// Key; absent or empty with `Exists` tolerates every taint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `Equal` (default), `Exists`, `Gt` or `Lt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Value, for every operator but `Exists`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Effect; absent or empty tolerates all effects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// How long a `NoExecute` taint is tolerated, in seconds; absent means for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

impl Toleration {
    /// Whether this toleration lets a pod live with `taint`.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        let key = self.key.as_deref().unwrap_or_default();
        let effect = self.effect.as_deref().unwrap_or_default();
        if !effect.is_empty() && effect != taint.effect.to_string() {
            return false;
        }
        if !key.is_empty() && key != taint.key {
            return false;
        }
        let value = self.value.as_deref().unwrap_or_default();
        // `Gt` and `Lt` compare integers: the taint's value against the toleration's.
        let integers = || Some((taint.value.parse::<i64>().ok()?, value.parse::<i64>().ok()?));
        match self.operator.as_deref().unwrap_or_default() {
            "" | "Equal" => !key.is_empty() && value == taint.value,
            "Exists" => true,
            "Gt" => !key.is_empty() && integers().is_some_and(|(taint, own)| taint > own),
            "Lt" => !key.is_empty() && integers().is_some_and(|(taint, own)| taint < own),
            _ => false,
        }
    }
}

/// The first repelling taint that none of the tolerations tolerates.
pub fn untolerated<'a>(
    taints: impl IntoIterator<Item = &'a Taint>,
    tolerations: &[Toleration],
) -> Option<&'a Taint> {
    taints
        .into_iter()
        .filter(|taint| taint.repels())
        .find(|taint| !tolerations.iter().any(|toleration| toleration.tolerates(taint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(json: &str) -> Toleration {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn tolerates_as_the_scheduler_does() {
        let taint = Taint { key: "gpu".into(), value: "7".into(), effect: TaintEffect::NoSchedule };
        for (json, expected) in [
            (r#"{"operator":"Exists"}"#, true),
            (r#"{"key":"gpu","operator":"Exists"}"#, true),
            (r#"{"key":"gpu","value":"7"}"#, true),
            (r#"{"key":"gpu","value":"8"}"#, false),
            (r#"{"key":"gpu","operator":"Exists","effect":"NoExecute"}"#, false),
            (r#"{"key":"gpu","operator":"Gt","value":"6"}"#, true),
            (r#"{"key":"gpu","operator":"Lt","value":"6"}"#, false),
            (r#"{"key":"other","operator":"Exists"}"#, false),
            (r"{}", false),
        ] {
            assert_eq!(toleration(json).tolerates(&taint), expected, "{json}");
        }
    }

    #[test]
    fn preferences_never_repel() {
        let soft = Taint::new("a", TaintEffect::PreferNoSchedule);
        let hard = Taint::new("b", TaintEffect::NoExecute);
        assert_eq!(untolerated([&soft, &hard], &[]), Some(&hard));
        assert_eq!(untolerated([&soft], &[]), None);
    }
}
