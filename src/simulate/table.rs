//! The report for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::report::{FamilyReport, NodeReport, Report};
use crate::model::quantity::Quantity;

/// Hours in a month, as AWS counts them.
const HOURS_PER_MONTH: f64 = 730.0;

/// Families in one line of a table.
const FAMILIES_PER_LINE: usize = 8;

/// The report as text.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ok = write(report, &mut out);
    out
}

/// What a report that was [kept](Report::keep) to one name says of it, as text.
pub fn explain(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ok = write_places(report, &mut out);
    out
}

fn write_places(report: &Report, out: &mut String) -> std::fmt::Result {
    for (node, pods) in &report.existing {
        for pod in pods {
            writeln!(out, "{pod}: fits on node {node}")?;
        }
    }
    for node in &report.nodes {
        let (of, zone, pool) = (&node.instance_type, &node.zone, &node.node_pool);
        let price = format!("{}, ${:.4} per hour", node.capacity_type, node.price_per_hour);
        for pod in &node.pods {
            writeln!(out, "{pod}: on a new {of} in {zone} ({price}) of NodePool {pool}")?;
        }
    }
    let mut last: &[FamilyReport] = &[];
    for pod in &report.unschedulable {
        writeln!(out, "{}: fits nowhere", pod.pod)?;
        for reason in &pod.reasons {
            writeln!(out, "  {reason}")?;
        }
        if !pod.fits_if.is_empty() {
            writeln!(out, "  It would fit if {}.", pod.fits_if.join(", and if "))?;
        }
        // Pods of one workload say the same.
        if !pod.families.is_empty() && *pod.families != *last {
            for line in families(&pod.families).lines() {
                writeln!(out, "{}", line.trim_end())?;
            }
        }
        last = &pod.families;
    }
    for relaxed in &report.relaxed {
        writeln!(out, "{}: {} pods gave up: {}", relaxed.pod, relaxed.count, relaxed.preference)?;
    }
    for finding in &report.admission {
        writeln!(out, "{}: admission: {}: {}", finding.pod, finding.action, finding.message)?;
    }
    Ok(())
}

/// One row per pool and reason, in the order in which a pod is kept from them.
fn families(families: &[FamilyReport]) -> Table {
    let mut rows: Vec<(&str, String, usize, Vec<&str>)> = Vec::new();
    for family in families {
        let pool = &*family.node_pool;
        let reason = match &family.reason {
            Some(reason) => reason.to_string(),
            None => "fits alone".to_owned(),
        };
        match rows.iter_mut().find(|row| row.0 == pool && row.1 == reason) {
            Some(row) => {
                row.2 += family.types;
                row.3.push(&family.family);
            }
            None => rows.push((pool, reason, family.types, vec![&family.family])),
        }
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["pool", "types", "families", "reason"]);
    for (pool, reason, types, names) in rows {
        let lines: Vec<String> = names.chunks(FAMILIES_PER_LINE).map(|of| of.join(", ")).collect();
        table.add_row([pool.to_owned(), types.to_string(), lines.join("\n"), reason]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.nodes.is_empty() {
        writeln!(out, "No node needs to be bought.")?;
    } else {
        writeln!(out, "Nodes to buy")?;
        writeln!(out, "{}", nodes(&report.nodes))?;
    }
    let pods = &report.pods;
    writeln!(
        out,
        "\nPods: {} to place, {} on existing nodes, {} on new nodes, {} nowhere",
        pods.total, pods.placed_on_existing, pods.placed_on_new, pods.unschedulable
    )?;
    let cost = &report.cost;
    write!(
        out,
        "Cost: ${:.4} per hour, ${:.2} per month",
        cost.per_hour,
        cost.per_hour * HOURS_PER_MONTH
    )?;
    if cost.lower_bound_per_hour > 0.0 {
        let over = (cost.per_hour / cost.lower_bound_per_hour - 1.0) * 100.0;
        write!(out, "; at most {over:.1} % above the cheapest possible")?;
    }
    writeln!(out)?;
    if !report.unschedulable.is_empty() {
        writeln!(out, "\nPods that fit nowhere")?;
        let mut by_reason: BTreeMap<&[String], Vec<&str>> = BTreeMap::new();
        for pod in &report.unschedulable {
            by_reason.entry(&pod.reasons).or_default().push(&pod.pod);
        }
        for (reasons, pods) in by_reason {
            writeln!(out, "  {}", shorten(&pods))?;
            for reason in reasons {
                writeln!(out, "    {reason}")?;
            }
        }
    }
    if !report.relaxed.is_empty() {
        writeln!(out, "\nPreferences given up")?;
        for relaxed in &report.relaxed {
            let more = match relaxed.count {
                0 | 1 => String::new(),
                count => format!(" and {} like it", count - 1),
            };
            writeln!(out, "  {}{more}: {}", relaxed.pod, relaxed.preference)?;
        }
    }
    if !report.admission.is_empty() {
        writeln!(out, "\nAdmission")?;
        let mut by_message: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for finding in &report.admission {
            by_message.entry((&finding.action, &finding.message)).or_default().push(&finding.pod);
        }
        for ((action, message), pods) in by_message {
            writeln!(out, "  {action}: {}: {message}", shorten(&pods))?;
        }
    }
    if !report.warnings.is_empty() {
        writeln!(out, "\nNotes")?;
        for warning in &report.warnings {
            writeln!(out, "  {warning}")?;
        }
    }
    let timing = &report.timing;
    writeln!(out, "\nRead in {:.1} ms, planned in {:.1} ms", timing.load_ms, timing.solve_ms)
}

fn shorten(pods: &[&str]) -> String {
    match pods {
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second}, {third} and {} more", rest.len())
        }
        pods => pods.join(", "),
    }
}

/// One row per kind of node.
fn nodes(nodes: &[NodeReport]) -> Table {
    let mut rows: BTreeMap<[String; 8], usize> = BTreeMap::new();
    for node in nodes {
        let row = [
            node.node_pool.clone(),
            node.instance_type.clone(),
            node.zone.clone(),
            node.capacity_type.clone(),
            format!("{:.4}", node.price_per_hour),
            used(node, "cpu"),
            used(node, "memory"),
            owners(&node.pods),
        ];
        *rows.entry(row).or_insert(0) += 1;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["n", "pool", "type", "zone", "capacity", "$/h", "cpu", "memory", "pods"]);
    for (row, count) in rows {
        table.add_row(std::iter::once(count.to_string()).chain(row));
    }
    for column in [0, 5, 6, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Share of a resource that is asked, in per cent.
fn used(node: &NodeReport, name: &str) -> String {
    let amount = |list: &BTreeMap<String, String>| {
        list.get(name).and_then(|text| text.parse::<Quantity>().ok()).map_or(0, Quantity::milli)
    };
    match amount(&node.allocatable) {
        0 => "-".to_owned(),
        all => format!("{} %", i128::from(amount(&node.requested)) * 100 / i128::from(all)),
    }
}

/// `3 shop/web, 1 shop/db`: pods by the name that they share.
fn owners(pods: &[String]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in pods {
        let owner =
            pod.rsplit_once('-').filter(|(_, n)| n.parse::<u64>().is_ok()).map_or(&**pod, |p| p.0);
        *counts.entry(owner).or_insert(0) += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(owner, n)| format!("{n} {owner}")).collect();
    match parts.len() {
        0..=4 => parts.join(", "),
        more => format!("{}, and {} more", parts[..4].join(", "), more - 4),
    }
}
