//! The evidence ladder: from what is true of anybody up to what is known of the container itself.

use std::fmt::Write as _;

/// Where most of an amount comes from, most specific first.
///
/// The ladder has two more rungs that are not here: a request or a rule's amount that somebody wrote
/// down is never asked about, and what a LimitRange gives a container is no missing request. Nothing
/// crosses from one namespace to another: a tenant can neither raise nor learn what others need.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Level {
    /// The container was killed for lack of memory with less.
    Killed,
    /// A VerticalPodAutoscaler recommends it.
    Recommended,
    /// What the container used, in this revision of its workload.
    Own {
        /// Days of evidence.
        days: f32,
    },
    /// What it used in older revisions.
    OlderRevision {
        /// Days of evidence.
        days: f32,
    },
    /// What the same image used in other workloads of the namespace.
    Image {
        /// Containers of workloads.
        count: u32,
    },
    /// What containers of the same name used in other workloads of the namespace.
    Siblings {
        /// Containers of workloads.
        count: u32,
    },
    /// What images of its kind need.
    Class(&'static str),
    /// What containers of the namespace used.
    Namespace {
        /// Containers of workloads.
        count: u32,
    },
}

/// A request that was learned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Millicores or bytes, on the grid.
    pub amount: i64,
    /// Where most of it comes from.
    pub level: Level,
    /// How much of it comes from there, percent; the rest comes from less specific levels. For a kill
    /// it is 100.
    pub confidence: u8,
}

impl Estimate {
    /// The evidence in words, for the workload called `owner`: `3 d of web's own history, 92 %`.
    pub fn evidence(&self, owner: &str) -> String {
        let mut text = match self.level {
            Level::Killed => return format!("a kill of {owner} for lack of memory"),
            Level::Recommended => format!("the VerticalPodAutoscaler of {owner}"),
            Level::Own { days } => format!("{} of {owner}'s own history", span(days)),
            Level::OlderRevision { days } => format!("{} of {owner}'s older revisions", span(days)),
            Level::Image { count } => format!("its image in {count} other containers"),
            Level::Siblings { count } => format!("{count} containers of its name"),
            Level::Class(name) => format!("the kind of its image ({name})"),
            Level::Namespace { count } => format!("{count} containers of its namespace"),
        };
        // Writing to a string cannot fail.
        let _ok = write!(text, ", {} %", self.confidence);
        text
    }
}

fn span(days: f32) -> String {
    match days {
        1.0.. => format!("{days:.0} d"),
        0.042.. => format!("{:.0} h", days * 24.0),
        _ => format!("{:.0} min", days * 24.0 * 60.0),
    }
}

/// What one level says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rung {
    pub(super) level: Level,
    /// Millicores or bytes.
    pub(super) amount: f64,
    /// How far it is believed before what is below it, 0 to 1.
    pub(super) weight: f64,
    /// Whether it is use that was seen: levels below may raise it and do not lower it. An
    /// under-request costs more than an over-request, so doubt speaks for the higher amount.
    pub(super) seen: bool,
}

/// Blends rungs, the least specific first, over a fallback: each draws the logarithm of the amount to
/// its own by its weight. `None` where the fallback keeps more than half and nobody was seen to need
/// more. Tells the level with the largest part in the amount, and that part.
pub(super) fn climb(rungs: &[Rung], fallback: i64) -> Option<(f64, Level, f64)> {
    #[expect(clippy::cast_precision_loss, reason = "amounts are below 2^53")]
    let fallback = (fallback.max(1) as f64).ln();
    let (mut log, mut left) = (fallback, 1.0);
    for rung in rungs {
        let own = rung.amount.max(1.0).ln();
        log = rung.weight * own + (1.0 - rung.weight) * log;
        left *= 1.0 - rung.weight;
        if rung.seen {
            log = log.max(own);
        }
    }
    let mut part = 1.0;
    let mut parts: Vec<(f64, &Rung)> = Vec::with_capacity(rungs.len());
    for rung in rungs.iter().rev() {
        parts.push((rung.weight * part, rung));
        part *= 1.0 - rung.weight;
    }
    if left > 0.5 {
        let needs_more = |rung: &&Rung| rung.seen && rung.amount.ln() > fallback;
        let highest =
            rungs.iter().filter(needs_more).max_by(|a, b| a.amount.total_cmp(&b.amount))?;
        let (part, _) = parts.iter().find(|(_, rung)| rung.level == highest.level)?;
        return Some((highest.amount, highest.level, *part));
    }
    let (part, rung) = parts.into_iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some((log.exp(), rung.level, part))
}
