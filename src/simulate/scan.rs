//! A scan: what pods without requests there are, what each mode of policy would do about them and
//! about the nodes, and the advice on every workload.
//!
//! Nodes are planned for all pods at once on an empty cluster, so that two plans differ in nothing
//! but the requests. Nodes that exist are looked at for what DaemonSets take, and for nothing else.

mod chart;
mod html;
mod room;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use self::room::Fleet;
use super::engine::{self, Settings, SimulateError};
use super::expand::{self, Door};
use super::input::Input;
use super::pools;
use super::report::Report;
use crate::advice::{self, Advice, Market, Question, Subject};
use crate::model::pod::PodShape;
use crate::model::room::PoolRooms;
use crate::model::wire::workload::{TemplateWire, WorkloadWire};
use crate::model::workload::WorkloadKind;
use crate::policy::{self, Action, ContainerKind, Policy, Preview, Resource, Rule, Snapshot};
use crate::schedule::{self, PoolSlot};

pub use html::render as html;
pub use table::render as table;

/// Hours in a month, as AWS counts them.
const HOURS_PER_MONTH: f64 = 730.0;

/// What a scan says, in the shape of its JSON output.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scan {
    /// Workloads, bare pods among them.
    pub workloads: usize,
    /// Pods that they make.
    pub pods: u32,
    /// Of these, pods with a container that has no request.
    pub pods_without_requests: u32,
    /// Containers without requests.
    pub offenders: Vec<Offender>,
    /// What each mode would do.
    pub modes: Vec<Mode>,
    /// Advice on workloads.
    pub advice: Vec<Advised>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// A container without requests.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Offender {
    /// Namespace of the workload.
    pub namespace: String,
    /// Kind of the workload.
    pub kind: String,
    /// Name of the workload.
    pub name: String,
    /// Pods that it makes.
    pub pods: u32,
    /// Container.
    pub container: String,
    /// What it does not ask for.
    pub missing: Vec<String>,
    /// What the policies do about it now, by resource; empty when none speaks about it.
    pub policies: BTreeMap<String, String>,
}

impl Offender {
    /// What the policies say, on one line.
    fn said(&self) -> String {
        if self.policies.is_empty() {
            return "none".to_owned();
        }
        let parts = self.policies.iter().map(|(resource, text)| format!("{resource}: {text}"));
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// What one mode would do to pods and nodes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mode {
    /// `none`, `configured`, `Warn`, `Default` or `Deny`.
    pub mode: String,
    /// Pods that would get a request.
    pub changed: u32,
    /// Pods whose author would be warned.
    pub warned: u32,
    /// Pods that would be refused.
    pub refused: u32,
    /// Nodes for all pods that are let in.
    pub nodes: usize,
    /// Their price, dollars a month.
    pub per_month: f64,
    /// Nodes more than without policies.
    pub delta_nodes: i64,
    /// Dollars a month more than without policies.
    pub delta_per_month: f64,
    /// Pods that fit nowhere.
    pub unschedulable: u32,
}

/// Advice on one workload.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Advised {
    /// Namespace of the workload.
    pub namespace: String,
    /// Kind of the workload.
    pub kind: String,
    /// Name of the workload.
    pub name: String,
    /// What is said.
    #[serde(flatten)]
    pub advice: Advice,
}

/// Modes that are tried for every container.
const MODES: [(&str, Action); 3] =
    [("Warn", Action::Warn), ("Default", Action::Default), ("Deny", Action::Deny)];

/// What a scan's parts share.
struct Scanner<'a> {
    input: &'a Input,
    slots: &'a [PoolSlot],
    /// A pod of each DaemonSet.
    daemons: Vec<Arc<PodShape>>,
    /// What new nodes leave beside them.
    rooms: Arc<[PoolRooms]>,
    /// Nodes that exist.
    fleet: &'a Fleet,
    /// The policies of the input.
    configured: &'a Snapshot,
    /// Namespaces that no policy reaches.
    exempt: &'a BTreeSet<String>,
    settings: &'a Settings,
}

/// Scans the input. Policies do not reach the `exempt` namespaces, and no advice is given there.
///
/// # Errors
/// When the catalog cannot be used.
pub fn scan(
    mut input: Input,
    settings: &Settings,
    exempt: &BTreeSet<String>,
) -> Result<Scan, SimulateError> {
    let mut report = Report::default();
    let configured = engine::policies(&input, exempt, &mut report);
    pools::complete(&mut input, settings, &mut report);
    let fleet_pools = pools::slots(&input, settings, &mut report)?;
    let fleet = room::fleet(&input, &fleet_pools);
    room::settle(&mut input);
    let slots = pools::slots(&input, settings, &mut Report::default())?;
    let daemons = expand::daemons(&input, &configured, settings.now);
    let rooms: Arc<[PoolRooms]> = schedule::rooms(slots.clone(), daemons.clone()).into();
    let configured = configured.with_rooms(Arc::clone(&rooms));
    let units = units(&input, fleet.nodes.len());
    let mut scan = Scan { workloads: units.len(), ..Scan::default() };
    scan.notes.append(&mut input.warnings);
    scan.notes.append(&mut report.warnings);
    let scanner = Scanner {
        input: &input,
        slots: &slots,
        daemons,
        rooms,
        fleet: &fleet,
        configured: &configured,
        exempt,
        settings,
    };
    scanner.offenders(&units, &mut scan);
    scanner.modes(&mut scan);
    scanner.advise(&units, &mut scan);
    scan.notes.push(
        "plans count what pods ask for, not what they use: without requests they are too small"
            .to_owned(),
    );
    Ok(scan)
}

/// A workload, or a pod that nobody owns.
struct Unit {
    kind: &'static str,
    workload_kind: Option<WorkloadKind>,
    workload: WorkloadWire,
    pods: u32,
}

impl Unit {
    fn namespace(&self) -> &str {
        self.workload.metadata.namespace()
    }

    fn name(&self) -> &str {
        self.workload.metadata.name()
    }

    fn owner(&self) -> (&str, &str) {
        (self.kind, self.name())
    }

    fn offender(&self, container: &str) -> Offender {
        Offender {
            namespace: self.namespace().to_owned(),
            kind: self.kind.to_owned(),
            name: self.name().to_owned(),
            pods: self.pods,
            container: container.to_owned(),
            missing: Vec::new(),
            policies: BTreeMap::new(),
        }
    }
}

fn units(input: &Input, nodes: usize) -> Vec<Unit> {
    let mut units: Vec<Unit> = input
        .workloads
        .iter()
        .map(|(kind, workload)| Unit {
            kind: kind.name(),
            workload_kind: Some(*kind),
            workload: workload.clone(),
            pods: match kind {
                WorkloadKind::DaemonSet => u32::try_from(nodes.max(1)).unwrap_or(u32::MAX),
                kind => workload.at_once(*kind),
            },
        })
        .collect();
    for pod in &input.pods {
        let mut workload =
            WorkloadWire { metadata: pod.metadata.clone(), ..WorkloadWire::default() };
        workload.spec.template =
            TemplateWire { metadata: pod.metadata.clone(), spec: pod.spec.clone() };
        units.push(Unit { kind: "Pod", workload_kind: None, workload, pods: 1 });
    }
    let key = |unit: &Unit| (unit.namespace().to_owned(), unit.kind, unit.name().to_owned());
    units.sort_by_key(key);
    units
}

/// A policy for every container that says `action` about cpu and memory.
fn everywhere(action: Action) -> Policy {
    let rule = |resource: Resource| Rule {
        resource,
        action,
        amount: Some(resource.suggestion()),
        learned: None,
        enforce_from: None,
    };
    Policy {
        name: "scan".into(),
        container_kinds: vec![ContainerKind::Main, ContainerKind::Sidecar],
        rules: vec![rule(Resource::Cpu), rule(Resource::Memory)],
        zero_means_missing: true,
        ..Policy::default()
    }
}

impl Scanner<'_> {
    fn snapshot(&self, policies: Vec<Policy>) -> Snapshot {
        let namespaces =
            self.input.namespaces.iter().map(|(name, l)| (name.to_string(), l.clone()));
        let namespaces: BTreeMap<_, _> = namespaces.collect();
        Snapshot::new("scan", policies, Arc::new(namespaces), self.exempt.clone())
            .with_bounds(self.input.bounds())
            .with_rooms(Arc::clone(&self.rooms))
    }

    fn offenders(&self, units: &[Unit], scan: &mut Scan) {
        let all = self.snapshot(vec![everywhere(Action::Warn)]);
        for unit in units {
            scan.pods += unit.pods;
            let of = |policies: &Snapshot| -> Preview {
                let template = unit.workload.template();
                policy::preview(
                    template,
                    unit.namespace(),
                    unit.owner(),
                    policies,
                    self.settings.now,
                )
            };
            let (lacks, now) = (of(&all), of(self.configured));
            let mut by_container: BTreeMap<&str, Offender> = BTreeMap::new();
            for finding in &lacks.findings {
                let container = &*finding.container;
                let offender =
                    by_container.entry(container).or_insert_with(|| unit.offender(container));
                let resource = finding.resource.name();
                offender.missing.push(resource.to_owned());
                let said = now
                    .findings
                    .iter()
                    .find(|f| f.container == finding.container && f.resource == finding.resource);
                if let Some(said) = said {
                    let verb = said.action.api_name();
                    let text = if said.action.sets() {
                        format!("{verb} {} ({})", said.quantity(), said.policy)
                    } else {
                        format!("{verb} ({})", said.policy)
                    };
                    offender.policies.insert(resource.to_owned(), text);
                }
            }
            if !by_container.is_empty() {
                scan.pods_without_requests += unit.pods;
            }
            scan.offenders.extend(by_container.into_values());
        }
        scan.offenders.sort_by(|a, b| {
            (b.pods, &a.namespace, &a.name, &a.container).cmp(&(
                a.pods,
                &b.namespace,
                &b.name,
                &b.container,
            ))
        });
    }

    /// Plans for no policy, for the policies that there are, and for one rule everywhere.
    fn modes(&self, scan: &mut Scan) {
        let mut variants = vec![("none", self.snapshot(Vec::new()))];
        if !self.configured.policies().is_empty() {
            variants.push(("configured", self.configured.clone()));
        }
        let tried = MODES.map(|(name, action)| (name, self.snapshot(vec![everywhere(action)])));
        variants.extend(tried);
        let mut base: Option<(usize, f64)> = None;
        for (name, policies) in variants {
            let mode = self.mode(name, &policies, base);
            base = base.or(Some((mode.nodes, mode.per_month)));
            scan.modes.push(mode);
        }
    }

    fn mode(&self, name: &str, policies: &Snapshot, base: Option<(usize, f64)>) -> Mode {
        let mut copy = self.input.clone();
        let mut door = Door { policies: policies.clone(), now: self.settings.now };
        let pods = expand::pods(&mut copy, &mut door);
        let count = |wanted: &dyn Fn(&Preview) -> bool| {
            let found = pods.iter().filter(|pod| wanted(&pod.preview)).count();
            u32::try_from(found).unwrap_or(u32::MAX)
        };
        let does = |preview: &Preview, what: fn(Action) -> bool| {
            preview.refusal.is_none() && preview.findings.iter().any(|f| what(f.action))
        };
        let (mut problem, _) =
            engine::problem(&copy, &pods, self.slots.to_vec(), self.daemons.clone());
        problem.options.bound = false;
        let solution = schedule::solve(&problem);
        let nodes = solution.new_nodes.len();
        let per_month = solution.cost.dollars() * HOURS_PER_MONTH;
        let (base_nodes, base_price) = base.unwrap_or((nodes, per_month));
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        Mode {
            mode: name.to_owned(),
            changed: count(&|preview| does(preview, Action::sets)),
            warned: count(&|preview| does(preview, |action| action == Action::Warn)),
            refused: count(&|preview| preview.refusal.is_some()),
            nodes,
            per_month: cents(per_month),
            delta_nodes: signed(nodes) - signed(base_nodes),
            delta_per_month: cents(per_month - base_price),
            unschedulable: solution.unplaced.iter().map(|left| left.count).sum(),
        }
    }

    fn advise(&self, units: &[Unit], scan: &mut Scan) {
        let market = Market {
            pools: self.slots.to_vec(),
            daemons: self.daemons.clone(),
            namespaces: self.input.namespaces.clone(),
        };
        for unit in units.iter().filter(|unit| !self.exempt.contains(unit.namespace())) {
            let Some(kind) = unit.workload_kind else { continue };
            let template = unit.workload.template();
            let (namespace, now) = (unit.namespace(), self.settings.now);
            let preview = policy::preview(template, namespace, unit.owner(), self.configured, now);
            let spec = preview.spec.clone();
            let (facts, before) = (&self.input.facts, unit.workload.at_once(kind));
            let question = Question {
                kind,
                namespace: namespace.to_owned(),
                desired: facts.held(namespace, kind.name(), unit.name(), before),
                template: TemplateWire { metadata: template.metadata.clone(), spec },
                before: None,
            };
            let fleet = || match kind {
                WorkloadKind::DaemonSet => self.fleet.without(namespace, unit.name()),
                _ => self.fleet.nodes.clone(),
            };
            let quote = advice::quote(&question, &market, &fleet);
            let subject = Subject {
                kind,
                namespace,
                name: unit.name(),
                workload: &unit.workload,
                before,
                preview: &preview,
            };
            let silenced = policy::silenced(template, namespace, unit.owner(), self.configured);
            let told = advice::workload(&subject, facts, Some(&quote), &silenced);
            scan.advice.extend(told.into_iter().map(|advice| Advised {
                namespace: namespace.to_owned(),
                kind: unit.kind.to_owned(),
                name: unit.name().to_owned(),
                advice,
            }));
        }
    }
}

/// Rounded to a cent.
fn cents(dollars: f64) -> f64 {
    (dollars * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests;
