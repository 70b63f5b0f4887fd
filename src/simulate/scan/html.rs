//! A scan as one page that needs nothing else.

use std::collections::BTreeMap;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::bars;
use super::{Mode, Scan};

/// Rows of a chart; the tables have all.
const BARS: usize = 12;

const STYLE: &str = "
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222831; background: #f3f5f7; margin: 0; }
main { max-width: 1100px; margin: 0 auto; padding: 24px; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 32px 0 10px; }
p { margin: 0 0 10px; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0; }
.tile, .card { background: #fff; border: 1px solid #dce1e7; border-radius: 8px; }
.tile { padding: 12px 18px; min-width: 150px; }
.tile b { display: block; font-size: 24px; }
.card { padding: 12px; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 5px 10px; border-bottom: 1px solid #e9edf1; vertical-align: top; }
th { font-weight: 600; white-space: nowrap; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.code { font-family: ui-monospace, monospace; white-space: nowrap; }
svg { max-width: 100%; height: auto; }
";

/// The scan as HTML.
pub fn render(scan: &Scan) -> String {
    page(scan).into_string()
}

fn page(scan: &Scan) -> Markup {
    let share = match scan.pods {
        0 => 0,
        pods => u64::from(scan.pods_without_requests) * 100 / u64::from(pods),
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Harbinger scan" }
                style { (PreEscaped(STYLE)) }
            }
            body { main {
                h1 { "Pods without requests" }
                p { "What they are, what each mode of policy would do, and advice on every workload." }
                div.tiles {
                    (tile(&scan.workloads.to_string(), "workloads"))
                    (tile(&scan.pods.to_string(), "pods"))
                    (tile(&format!("{} ({share} %)", scan.pods_without_requests), "pods without a request"))
                    (tile(&scan.advice.len().to_string(), "pieces of advice"))
                }
                (modes(&scan.modes))
                (offenders(scan))
                (advice(scan))
                @if !scan.notes.is_empty() {
                    h2 { "Notes" }
                    ul { @for note in &scan.notes { li { (note) } } }
                }
            } }
        }
    }
}

fn tile(value: &str, name: &str) -> Markup {
    html! { div.tile { b { (value) } (name) } }
}

fn chart(rows: &[(String, f64)], show: &dyn Fn(f64) -> String) -> Markup {
    html! { div.card { (PreEscaped(bars(rows, show))) } }
}

fn modes(modes: &[Mode]) -> Markup {
    let prices: Vec<(String, f64)> =
        modes.iter().map(|mode| (mode.mode.clone(), mode.per_month)).collect();
    html! {
        h2 { "What each mode would do" }
        p { "Nodes and price of all pods that are let in, planned at once on an empty cluster; dollars a month." }
        (chart(&prices, &|value| format!("${value:.0}")))
        div.card { table {
            tr {
                th { "mode" }
                @for name in ["pods changed", "warned", "refused", "fit nowhere", "nodes", "Δ nodes", "$/month", "Δ $/month"] {
                    th.n { (name) }
                }
            }
            @for mode in modes {
                tr {
                    td { (mode.mode) }
                    td.n { (mode.changed) }
                    td.n { (mode.warned) }
                    td.n { (mode.refused) }
                    td.n { (mode.unschedulable) }
                    td.n { (mode.nodes) }
                    td.n { (format!("{:+}", mode.delta_nodes)) }
                    td.n { (format!("{:.2}", mode.per_month)) }
                    td.n { (format!("{:+.2}", mode.delta_per_month)) }
                }
            }
        } }
    }
}

fn offenders(scan: &Scan) -> Markup {
    if scan.offenders.is_empty() {
        return html! {
            h2 { "Containers without requests" }
            p { "None." }
        };
    }
    let mut pods: BTreeMap<&str, BTreeMap<(&str, &str), u32>> = BTreeMap::new();
    for offender in &scan.offenders {
        let key = (&*offender.kind, &*offender.name);
        pods.entry(&offender.namespace).or_default().insert(key, offender.pods);
    }
    let mut rows: Vec<(String, f64)> = pods
        .into_iter()
        .map(|(namespace, pods)| (namespace.to_owned(), f64::from(pods.values().sum::<u32>())))
        .collect();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    rows.truncate(BARS);
    html! {
        h2 { "Containers without requests" }
        p { "Pods with such a container, by namespace." }
        (chart(&rows, &|value| format!("{value:.0}")))
        div.card { table {
            tr {
                th.n { "pods" }
                @for name in ["namespace", "workload", "container", "missing", "policies now"] { th { (name) } }
            }
            @for offender in &scan.offenders {
                tr {
                    td.n { (offender.pods) }
                    td { (offender.namespace) }
                    td { (offender.kind) " " (offender.name) }
                    td { (offender.container) }
                    td { (offender.missing.join(", ")) }
                    td { (offender.said()) }
                }
            }
        } }
    }
}

fn advice(scan: &Scan) -> Markup {
    if scan.advice.is_empty() {
        return html! {};
    }
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for told in &scan.advice {
        *counts.entry(told.advice.code.name()).or_insert(0) += 1;
    }
    let rows: Vec<(String, f64)> =
        counts.into_iter().map(|(code, count)| (code.to_owned(), f64::from(count))).collect();
    html! {
        h2 { "Advice" }
        p { "What each code means: docs/advice.md." }
        (chart(&rows, &|value| format!("{value:.0}")))
        div.card { table {
            tr { @for name in ["code", "namespace", "workload", "advice"] { th { (name) } } }
            @for told in &scan.advice {
                tr {
                    td.code { (told.advice.code.name()) }
                    td { (told.namespace) }
                    td { (told.kind) " " (told.name) }
                    td { (told.advice.message) }
                }
            }
        } }
    }
}
