//! A scan for people at a terminal.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::{Mode, Scan};

/// Rows of each table before the rest is only counted.
const ROWS: usize = 40;

/// The scan as text.
pub fn render(scan: &Scan) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ok = write(scan, &mut out);
    out
}

fn write(scan: &Scan, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "{} workloads with {} pods; {} pods have a container without a request",
        scan.workloads, scan.pods, scan.pods_without_requests
    )?;
    if !scan.offenders.is_empty() {
        writeln!(out, "\nContainers without requests")?;
        writeln!(out, "{}", offenders(scan))?;
        more(out, scan.offenders.len())?;
    }
    writeln!(out, "\nWhat each mode would do")?;
    writeln!(out, "{}", modes(&scan.modes))?;
    if !scan.advice.is_empty() {
        writeln!(out, "\nAdvice (docs/advice.md)")?;
        for told in scan.advice.iter().take(ROWS) {
            writeln!(out, "  {}/{} {}: {}", told.namespace, told.name, told.kind, told.advice)?;
        }
        more(out, scan.advice.len())?;
    }
    if !scan.notes.is_empty() {
        writeln!(out, "\nNotes")?;
        for note in &scan.notes {
            writeln!(out, "  {note}")?;
        }
    }
    Ok(())
}

fn more(out: &mut String, all: usize) -> std::fmt::Result {
    match all.checked_sub(ROWS) {
        Some(left) if left > 0 => writeln!(out, "  and {left} more (-o json and -o html have all)"),
        _ => Ok(()),
    }
}

fn table(header: &[&str], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for column in numbers {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn offenders(scan: &Scan) -> Table {
    let mut table = table(&["pods", "workload", "kind", "container", "missing", "policies"], &[0]);
    for offender in scan.offenders.iter().take(ROWS) {
        table.add_row([
            offender.pods.to_string(),
            format!("{}/{}", offender.namespace, offender.name),
            offender.kind.clone(),
            offender.container.clone(),
            offender.missing.join(", "),
            offender.said(),
        ]);
    }
    table
}

fn modes(modes: &[Mode]) -> Table {
    let header =
        ["mode", "changed", "warned", "refused", "nowhere", "nodes", "Δ", "$/month", "Δ $/month"];
    let mut table = table(&header, &[1, 2, 3, 4, 5, 6, 7, 8]);
    for mode in modes {
        table.add_row([
            mode.mode.clone(),
            mode.changed.to_string(),
            mode.warned.to_string(),
            mode.refused.to_string(),
            mode.unschedulable.to_string(),
            mode.nodes.to_string(),
            format!("{:+}", mode.delta_nodes),
            format!("{:.2}", mode.per_month),
            format!("{:+.2}", mode.delta_per_month),
        ]);
    }
    table
}
