//! `harbinger explain`.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::simulate::Source;
use crate::simulate::report::{Report, meant};

/// Says where a pod or workload of the manifests goes, or why it fits nowhere.
#[derive(Args, Debug)]
pub struct Explain {
    /// Pod or workload as `namespace/name`, or a name in namespace `default`
    name: String,
    #[command(flatten)]
    source: Source,
}

impl Explain {
    pub(super) fn run(self) -> Result<ExitCode> {
        let name =
            if self.name.contains('/') { self.name } else { format!("default/{}", self.name) };
        let report = match self.source.simulate(Some(&name))? {
            Ok(report) => report,
            Err(code) => return Ok(code),
        };
        let text = explain(&report, &name)?;
        if text.is_empty() {
            return Ok(super::complain(&[format!(
                "no pod of the input is {name} or was made by a workload of that name"
            )]));
        }
        super::print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn explain(report: &Report, name: &str) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    for (node, pods) in &report.existing {
        for pod in pods.iter().filter(|pod| meant(pod, name)) {
            writeln!(out, "{pod}: fits on node {node}")?;
        }
    }
    for node in &report.nodes {
        for pod in node.pods.iter().filter(|pod| meant(pod, name)) {
            writeln!(
                out,
                "{pod}: on a new {} in {} ({}, ${:.4} per hour) of NodePool {}",
                node.instance_type,
                node.zone,
                node.capacity_type,
                node.price_per_hour,
                node.node_pool
            )?;
        }
    }
    for pod in report.unschedulable.iter().filter(|pod| meant(&pod.pod, name)) {
        writeln!(out, "{}: fits nowhere", pod.pod)?;
        for reason in &pod.reasons {
            writeln!(out, "  {reason}")?;
        }
        if !pod.fits_if.is_empty() {
            writeln!(out, "  It would fit if {}.", pod.fits_if.join(", and if "))?;
        }
    }
    for relaxed in report.relaxed.iter().filter(|relaxed| meant(&relaxed.pod, name)) {
        writeln!(out, "{}: {} pods gave up: {}", relaxed.pod, relaxed.count, relaxed.preference)?;
    }
    for finding in report.admission.iter().filter(|finding| meant(&finding.pod, name)) {
        writeln!(out, "{}: admission: {}: {}", finding.pod, finding.action, finding.message)?;
    }
    Ok(out)
}
