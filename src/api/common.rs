//! Pieces that several kinds share.
#![expect(unreachable_pub, reason = "the KubeSchema derive repeats each struct in a private scope")]

use std::borrow::Cow;
use std::fmt;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::model::quantity::Quantity;
use crate::model::requirement::{Expression, Operator};
use crate::model::taints::{Taint, TaintEffect};

/// Pattern of Kubernetes quantities, as the API server's own schemas give it.
const QUANTITY_PATTERN: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY_PATTERN,
            "x-kubernetes-int-or-string": true,
        })
    }
}

/// A duration made of hours, minutes and seconds (`720h`, `1h30m`), or `Never`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum NillableDuration {
    /// Seconds.
    Seconds(i64),
    /// Without end.
    #[default]
    Never,
}

impl NillableDuration {
    /// Seconds, `None` for `Never`.
    pub fn seconds(self) -> Option<i64> {
        match self {
            Self::Seconds(seconds) => Some(seconds),
            Self::Never => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "Never" {
            return Some(Self::Never);
        }
        let mut total: i64 = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: i64 = rest[..digits].parse().ok()?;
            let unit = match rest.as_bytes().get(digits)? {
                b'h' => 3600,
                b'm' => 60,
                b's' => 1,
                _ => return None,
            };
            total = total.checked_add(number.checked_mul(unit)?)?;
            rest = &rest[digits + 1..];
        }
        (!text.is_empty()).then_some(Self::Seconds(total))
    }
}

impl fmt::Display for NillableDuration {
    /// The largest whole unit: `720h`, `90m`, `30s`, `Never`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("Never"),
            Self::Seconds(0) => f.write_str("0s"),
            Self::Seconds(s) if s % 3600 == 0 => write!(f, "{}h", s / 3600),
            Self::Seconds(s) if s % 60 == 0 => write!(f, "{}m", s / 60),
            Self::Seconds(s) => write!(f, "{s}s"),
        }
    }
}

impl Serialize for NillableDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NillableDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!(
                "{text:?} is not a duration of hours, minutes and seconds such as 720h or 1h30m, nor Never"
            ))
        })
    }
}

impl JsonSchema for NillableDuration {
    fn schema_name() -> Cow<'static, str> {
        "NillableDuration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^(([0-9]+(s|m|h))+|Never)$"})
    }
}

/// One requirement of a pool's or claim's nodes.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.operator == 'In' ? self.values.size() != 0 : true", "requirements with operator 'In' must have a value defined"),
    validation = ("(self.operator == 'Gt' || self.operator == 'Lt' || self.operator == 'Gte' || self.operator == 'Lte') ? (self.values.size() == 1 && self.values[0].matches('^[0-9]+$')) : true", "requirements operator 'Gt', 'Lt', 'Gte' or 'Lte' must have a single non-negative integer value"),
    validation = ("(self.operator == 'In' && has(self.minValues)) ? self.values.size() >= self.minValues : true", "requirements with 'minValues' must have at least that many values specified in the 'values' field")
)]
pub struct RequirementSpec {
    /// Label key.
    #[schemars(
        length(max = 316),
        regex(
            pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*(/))?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
        )
    )]
    #[x_kube(
        validation = ("self in ['karpenter.sh/capacity-type', 'karpenter.sh/nodepool'] || !self.find('^([^/]+)').endsWith('karpenter.sh')", "label domain \"karpenter.sh\" is restricted"),
        validation = ("self != 'kubernetes.io/hostname'", "label \"kubernetes.io/hostname\" is restricted")
    )]
    pub key: String,
    /// How the values are meant.
    pub operator: OperatorSpec,
    /// Values of the label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 200),
        inner(length(max = 63), regex(pattern = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"))
    )]
    pub values: Vec<String>,
    /// The least number of distinct values that the acceptable instance types must offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50))]
    pub min_values: Option<u32>,
}

/// Operators of requirements.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are those of the Kubernetes API")]
pub enum OperatorSpec {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
    Gte,
    Lte,
}

impl From<OperatorSpec> for Operator {
    fn from(operator: OperatorSpec) -> Self {
        match operator {
            OperatorSpec::In => Self::In,
            OperatorSpec::NotIn => Self::NotIn,
            OperatorSpec::Exists => Self::Exists,
            OperatorSpec::DoesNotExist => Self::DoesNotExist,
            OperatorSpec::Gt => Self::Gt,
            OperatorSpec::Lt => Self::Lt,
            OperatorSpec::Gte => Self::Gte,
            OperatorSpec::Lte => Self::Lte,
        }
    }
}

impl From<Operator> for OperatorSpec {
    fn from(operator: Operator) -> Self {
        match operator {
            Operator::In => Self::In,
            Operator::NotIn => Self::NotIn,
            Operator::Exists => Self::Exists,
            Operator::DoesNotExist => Self::DoesNotExist,
            Operator::Gt => Self::Gt,
            Operator::Lt => Self::Lt,
            Operator::Gte => Self::Gte,
            Operator::Lte => Self::Lte,
        }
    }
}

impl RequirementSpec {
    /// The requirement in the planner's words.
    pub fn expression(&self) -> Expression {
        Expression {
            key: self.key.clone(),
            operator: self.operator.into(),
            values: self.values.clone(),
            min_values: self.min_values,
        }
    }
}

impl From<Expression> for RequirementSpec {
    fn from(expression: Expression) -> Self {
        Self {
            key: expression.key,
            operator: expression.operator.into(),
            values: expression.values,
            min_values: expression.min_values,
        }
    }
}

/// A taint of a pool's or claim's nodes.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaintSpec {
    /// Key.
    #[schemars(
        length(min = 1, max = 316),
        regex(
            pattern = r"^([a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
        )
    )]
    pub key: String,
    /// Value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(
        length(max = 63),
        regex(pattern = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
    )]
    pub value: String,
    /// What happens to pods that do not tolerate it.
    pub effect: TaintEffectSpec,
}

/// Effects of taints.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are those of the Kubernetes API")]
pub enum TaintEffectSpec {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

impl TaintSpec {
    /// The taint in the planner's words.
    pub fn taint(&self) -> Taint {
        Taint {
            key: self.key.clone(),
            value: self.value.clone(),
            effect: match self.effect {
                TaintEffectSpec::NoSchedule => TaintEffect::NoSchedule,
                TaintEffectSpec::PreferNoSchedule => TaintEffect::PreferNoSchedule,
                TaintEffectSpec::NoExecute => TaintEffect::NoExecute,
            },
        }
    }
}

impl From<&Taint> for TaintSpec {
    fn from(taint: &Taint) -> Self {
        Self {
            key: taint.key.clone(),
            value: taint.value.clone(),
            effect: match taint.effect {
                TaintEffect::NoSchedule => TaintEffectSpec::NoSchedule,
                TaintEffect::PreferNoSchedule => TaintEffectSpec::PreferNoSchedule,
                TaintEffect::NoExecute => TaintEffectSpec::NoExecute,
            },
        }
    }
}

/// Reference to the class that holds the cloud's settings.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeClassRef {
    /// API group, `karpenter.k8s.aws`.
    #[schemars(length(min = 1), regex(pattern = "^[^/]*$"))]
    pub group: String,
    /// Kind, `EC2NodeClass`.
    #[schemars(length(min = 1))]
    pub kind: String,
    /// Name.
    #[schemars(length(min = 1))]
    pub name: String,
}

/// A condition of an object's status. Unlike `metav1.Condition` the reason may be empty.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type.
    #[serde(rename = "type")]
    #[schemars(length(max = 316))]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    pub status: String,
    /// When the status last changed.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// Machine-readable cause.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Cause for people.
    #[serde(default)]
    #[schemars(length(max = 32768))]
    pub message: String,
    /// Generation of the object that the condition speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for (text, seconds, printed) in [
            ("720h", Some(2_592_000), "720h"),
            ("720h0m", Some(2_592_000), "720h"),
            ("1h30m", Some(5400), "90m"),
            ("0s", Some(0), "0s"),
            ("Never", None, "Never"),
        ] {
            let duration = NillableDuration::parse(text).unwrap();
            assert_eq!(duration.seconds(), seconds, "{text}");
            assert_eq!(duration.to_string(), printed);
        }
        for text in ["", "1d", "h", "1.5h", "-1s", "never", "99999999999999999999h"] {
            assert_eq!(NillableDuration::parse(text), None, "{text}");
        }
    }
}
