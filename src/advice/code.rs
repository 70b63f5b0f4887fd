//! Codes: the stable names of kinds of advice, and how they are silenced.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

/// Annotation on a workload or its template with the codes that are not wanted, separated by
/// commas, or `*` for all.
pub const SILENCE_ANNOTATION: &str = "harbinger.sh/silence-advice";

/// A kind of advice. The hundreds group them: requests, room and money, guards, endings, priority.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Code {
    /// An annotation silences what does not exist.
    #[serde(rename = "HB000")]
    NoSuchCode,
    /// A container has no request, and no policy speaks about it.
    #[serde(rename = "HB001")]
    MissingRequest,
    /// No pool can make a node for the pods.
    #[serde(rename = "HB101")]
    FitsNowhere,
    /// Nodes and price of the replicas.
    #[serde(rename = "HB102")]
    Cost,
    /// A little less would let one more pod onto each node.
    #[serde(rename = "HB103")]
    WasteByAHair,
    /// What a DaemonSet takes on all nodes together.
    #[serde(rename = "HB104")]
    FleetCost,
    /// A disruption budget lets no pod go.
    #[serde(rename = "HB201")]
    BudgetBlocksDrains,
    /// A disruption budget lets no pod go while an autoscaler is at its minimum.
    #[serde(rename = "HB202")]
    BudgetAgainstAutoscaler,
    /// An autoscaler compares cpu with a request that is missing.
    #[serde(rename = "HB203")]
    AutoscalerIsBlind,
    /// A serving container is told to end while traffic still comes.
    #[serde(rename = "HB301")]
    NoPreStop,
    /// Pods want more time to end than a spot node has.
    #[serde(rename = "HB302")]
    GraceBeyondNotice,
    /// The only replica is on a node that can be taken back.
    #[serde(rename = "HB303")]
    LonelyOnSpot,
    /// The pods will push others out.
    #[serde(rename = "HB401")]
    Preempts,
}

impl Code {
    /// All of them, in the order in which they are given.
    pub const ALL: [Self; 13] = [
        Self::NoSuchCode,
        Self::FitsNowhere,
        Self::MissingRequest,
        Self::BudgetBlocksDrains,
        Self::BudgetAgainstAutoscaler,
        Self::AutoscalerIsBlind,
        Self::LonelyOnSpot,
        Self::GraceBeyondNotice,
        Self::NoPreStop,
        Self::Preempts,
        Self::WasteByAHair,
        Self::FleetCost,
        Self::Cost,
    ];

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoSuchCode => "HB000",
            Self::MissingRequest => "HB001",
            Self::FitsNowhere => "HB101",
            Self::Cost => "HB102",
            Self::WasteByAHair => "HB103",
            Self::FleetCost => "HB104",
            Self::BudgetBlocksDrains => "HB201",
            Self::BudgetAgainstAutoscaler => "HB202",
            Self::AutoscalerIsBlind => "HB203",
            Self::NoPreStop => "HB301",
            Self::GraceBeyondNotice => "HB302",
            Self::LonelyOnSpot => "HB303",
            Self::Preempts => "HB401",
        }
    }

    /// Reads the stable name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }
}

/// One piece of advice.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Advice {
    /// Its kind.
    pub code: Code,
    /// One line.
    pub message: String,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

/// Which kinds of advice are not wanted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Silence {
    all: bool,
    codes: BTreeSet<Code>,
    unknown: BTreeSet<String>,
}

impl Silence {
    /// What the annotations of a workload and of its template say.
    pub fn of<'a>(annotations: impl IntoIterator<Item = &'a BTreeMap<String, String>>) -> Self {
        let mut silence = Self::default();
        for text in annotations.into_iter().filter_map(|list| list.get(SILENCE_ANNOTATION)) {
            silence.add(text.split(','));
        }
        silence
    }

    /// Adds names of codes, or `*`.
    pub fn add<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        for name in names.into_iter().map(str::trim).filter(|name| !name.is_empty()) {
            match Code::parse(name) {
                _ if name == "*" => self.all = true,
                Some(code) => drop(self.codes.insert(code)),
                None => drop(self.unknown.insert(name.to_owned())),
            }
        }
    }

    /// Whether a kind is not wanted.
    pub fn covers(&self, code: Code) -> bool {
        self.all || self.codes.contains(&code)
    }

    /// Names that are no codes: slips of who wrote them.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        self.unknown.iter().map(String::as_str)
    }
}
