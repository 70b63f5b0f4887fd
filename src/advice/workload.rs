//! The advice on one workload.

use super::code::{Advice, Code, SILENCE_ANNOTATION, Silence};
use super::facts::Facts;
use super::quote::{FleetCost, Hair, Quote};
use crate::model::labels;
use crate::model::resources::{CPU, MEMORY, Resources};
use crate::model::wire::pod::{ContainerWire, PodSpecWire};
use crate::model::wire::requests::ResourcesWire;
use crate::model::wire::workload::WorkloadWire;
use crate::model::workload::WorkloadKind;
use crate::policy::Preview;

/// Time between the notice and the end of a spot instance of EC2, seconds.
const SPOT_NOTICE: i64 = 120;
/// Reasons that are told, one line each.
const REASONS: usize = 3;
/// Types that are named in the line about cost.
const TYPES: usize = 2;

/// The workload in question.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Kind.
    pub kind: WorkloadKind,
    /// Namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// The object.
    pub workload: &'a WorkloadWire,
    /// What the policies will do to its pods.
    pub preview: &'a Preview,
}

impl Subject<'_> {
    /// Whether its pods run until they are told to end.
    fn serves(&self) -> bool {
        use WorkloadKind::{Deployment, ReplicaSet, StatefulSet};
        matches!(self.kind, Deployment | ReplicaSet | StatefulSet)
    }

    fn desired(&self) -> i64 {
        i64::from(self.workload.desired(self.kind))
    }

    fn spec(&self) -> &PodSpecWire {
        &self.preview.spec
    }
}

/// All advice that is not silenced, the gravest first.
pub fn workload(
    subject: &Subject<'_>,
    facts: &Facts,
    quote: Option<&Quote>,
    silenced: &[&str],
) -> Vec<Advice> {
    let template = subject.workload.template();
    let own = [&subject.workload.metadata.annotations, &template.metadata.annotations];
    let mut silence = Silence::of(own);
    silence.add(silenced.iter().copied());
    let mut all = Vec::new();
    for code in Code::ALL.into_iter().filter(|code| !silence.covers(*code)) {
        let messages = match code {
            Code::NoSuchCode => silence
                .unknown()
                .map(|name| format!("{SILENCE_ANNOTATION}: {name:?} is no code of an advice"))
                .collect(),
            Code::MissingRequest => missing(subject),
            Code::FitsNowhere => quote.map(nowhere).unwrap_or_default(),
            Code::Cost => quote.and_then(cost).into_iter().collect(),
            Code::WasteByAHair => {
                quote.and_then(|quote| quote.hair.as_ref()).map(waste).into_iter().collect()
            }
            Code::FleetCost => {
                quote.and_then(|quote| quote.fleet.as_ref()).and_then(fleet).into_iter().collect()
            }
            Code::BudgetBlocksDrains => budgets(subject, facts, true),
            Code::BudgetAgainstAutoscaler => budgets(subject, facts, false),
            Code::AutoscalerIsBlind => blind(subject, facts),
            Code::NoPreStop => no_pre_stop(subject).into_iter().collect(),
            Code::GraceBeyondNotice => grace(subject, quote).into_iter().collect(),
            Code::LonelyOnSpot => lonely(subject, facts, quote).into_iter().collect(),
            Code::Preempts => preempts(subject, facts).into_iter().collect(),
        };
        all.extend(messages.into_iter().map(|message| Advice { code, message }));
    }
    all
}

/// Main containers and sidecars: those that weigh as long as the pod lives.
fn lasting(spec: &PodSpecWire) -> impl Iterator<Item = &ContainerWire> {
    spec.containers.iter().chain(spec.init_containers.iter().filter(|c| c.is_sidecar()))
}

/// What the pod as a whole asks for.
fn pod_level(spec: &PodSpecWire) -> Resources {
    spec.resources.as_ref().map(ResourcesWire::effective).unwrap_or_default()
}

fn missing(subject: &Subject<'_>) -> Vec<String> {
    if subject.preview.refusal.is_some() {
        return Vec::new();
    }
    let whole = pod_level(subject.spec());
    let line = |container: &ContainerWire| {
        let asked = container.resources.effective();
        let lacks: Vec<&str> = [CPU, MEMORY]
            .into_iter()
            .filter(|name| asked.get(name) == 0 && whole.get(name) == 0)
            .filter(|name| !subject.preview.covers(&container.name, name))
            .collect();
        (!lacks.is_empty()).then(|| {
            let lacks = lacks.join(" and no ");
            format!("container {:?} has no {lacks} request: it counts as 0", container.name)
        })
    };
    lasting(subject.spec()).filter_map(line).collect()
}

fn nowhere(quote: &Quote) -> Vec<String> {
    if quote.unplaced == 0 {
        return Vec::new();
    }
    let who = match (quote.unplaced, quote.replicas) {
        (left, all) if left >= all => "fits nowhere".to_owned(),
        (left, all) => format!("{left} of {all} pods fit nowhere"),
    };
    let mut lines: Vec<String> =
        quote.reasons.iter().take(REASONS).map(|reason| format!("{who}: {reason}")).collect();
    if let Some(more) = quote.reasons.len().checked_sub(REASONS).filter(|more| *more > 0) {
        lines.push(format!("{who}: and {more} more NodePools refuse"));
    }
    if lines.is_empty() {
        lines.push(who);
    }
    lines
}

fn cost(quote: &Quote) -> Option<String> {
    if quote.nodes == 0 {
        return None;
    }
    let mut types: Vec<String> =
        quote.types.iter().take(TYPES).map(|(name, count)| format!("{count} {name}")).collect();
    if quote.types.len() > TYPES {
        types.push("…".to_owned());
    }
    let pods = if quote.replicas == 1 { "pod needs" } else { "pods need" };
    let nodes = if quote.nodes == 1 { "node" } else { "nodes" };
    Some(format!(
        "{} {pods} {} {nodes} of their own ({}): {}/h",
        quote.replicas,
        quote.nodes,
        types.join(", "),
        quote.per_hour,
    ))
}

fn waste(hair: &Hair) -> String {
    let amount = |amount: i64| Resources::format_amount(&hair.resource, amount);
    let verb = if hair.fits == 1 { "fits" } else { "fit" };
    format!(
        "{} {} wastes room: at {} {} {verb} on {}: -${}/month",
        hair.resource,
        amount(hair.from),
        amount(hair.to),
        hair.fits,
        hair.instance_type,
        per_month(hair.saving.0),
    )
}

/// Whole dollars a month of micro-dollars an hour.
fn per_month(micros: i64) -> i64 {
    micros.saturating_mul(super::HOURS_PER_MONTH) / 1_000_000
}

fn fleet(cost: &FleetCost) -> Option<String> {
    if cost.nodes == 0 || cost.each.is_zero() {
        return None;
    }
    let mut times = Resources::default();
    times.set(CPU, cost.each.get(CPU).saturating_mul(i64::from(cost.nodes)));
    times.set(MEMORY, cost.each.get(MEMORY).saturating_mul(i64::from(cost.nodes)));
    let what = if cost.grows { "this change takes" } else { "takes" };
    let nodes = if cost.nodes == 1 { "node" } else { "nodes" };
    let short = match cost.short {
        0 => String::new(),
        short => format!("; {short} lack room"),
    };
    let price = cost.per_hour;
    Some(format!("{what} {times} on {} {nodes}, {price}/h of their price{short}", cost.nodes))
}

/// Budgets that let no pod go: at all times (`always`), or at the autoscaler's minimum only.
fn budgets(subject: &Subject<'_>, facts: &Facts, always: bool) -> Vec<String> {
    if !subject.serves() {
        return Vec::new();
    }
    let labels = &subject.workload.template().metadata.labels;
    let scaler = facts.scaler_of(subject.namespace, subject.kind.name(), subject.name);
    let line = |budget: &&crate::model::companions::Budget| {
        let rule = budget.rule();
        let (least, most) = match scaler {
            Some(scaler) => scaler.replicas,
            None => (subject.desired(), subject.desired()),
        };
        let blocked = |pods: i64| pods > 0 && budget.allowed(pods) <= 0;
        match scaler {
            _ if always => blocked(most).then(|| {
                let name = &budget.name;
                format!("budget {name:?} ({rule}) lets none of {most} pods go: it blocks drains")
            }),
            Some(scaler) if blocked(least) && !blocked(most) => Some(format!(
                "budget {:?} ({rule}) blocks drains while HPA {:?} is at its minimum of {least}",
                budget.name, scaler.name
            )),
            _ => None,
        }
    };
    facts.budgets_of(subject.namespace, labels).iter().filter_map(line).collect()
}

/// Autoscalers compare use with requests; a container without one makes them fail for the pod.
fn blind(subject: &Subject<'_>, facts: &Facts) -> Vec<String> {
    let Some(scaler) = facts.scaler_of(subject.namespace, subject.kind.name(), subject.name) else {
        return Vec::new();
    };
    let whole = pod_level(subject.spec());
    let reads = |name: &str| {
        scaler.cpu_of.iter().any(|of| of.as_deref().is_none_or(|container| container == name))
    };
    lasting(subject.spec())
        .filter(|container| reads(&container.name))
        .filter(|container| container.resources.effective().cpu == 0 && whole.cpu == 0)
        .map(|container| {
            format!(
                "HPA {:?} scales on cpu, but container {:?} has no cpu request: it cannot scale",
                scaler.name, container.name
            )
        })
        .collect()
}

fn no_pre_stop(subject: &Subject<'_>) -> Option<String> {
    if !subject.serves() {
        return None;
    }
    let hooked = |container: &ContainerWire| {
        container.lifecycle.as_ref().is_some_and(|hooks| hooks.pre_stop.is_some())
    };
    let open = |container: &&ContainerWire| !container.ports.is_empty() && !hooked(container);
    let container = subject.spec().containers.iter().find(open)?;
    Some(format!(
        "container {:?} has ports and no preStop: it may end while traffic still comes",
        container.name
    ))
}

fn grace(subject: &Subject<'_>, quote: Option<&Quote>) -> Option<String> {
    let grace = subject.spec().termination_grace_period_seconds?;
    (grace > SPOT_NOTICE && on_spot(subject, quote)).then(|| {
        format!(
            "{grace} s to end are more than the {SPOT_NOTICE} s of a spot notice, and pods may \
             run on spot"
        )
    })
}

fn lonely(subject: &Subject<'_>, facts: &Facts, quote: Option<&Quote>) -> Option<String> {
    let scaler = facts.scaler_of(subject.namespace, subject.kind.name(), subject.name);
    let least = scaler.map_or(subject.desired(), |scaler| scaler.replicas.0);
    let lonely = subject.serves() && least == 1 && on_spot(subject, quote);
    lonely.then(|| {
        "the only replica may run on spot: an interruption is an outage; want 2, or on-demand"
            .to_owned()
    })
}

/// Whether pods may run on spot: the cheapest plan says so, or the template asks for it.
fn on_spot(subject: &Subject<'_>, quote: Option<&Quote>) -> bool {
    let selected = subject.spec().node_selector.get(labels::CAPACITY_TYPE);
    quote.is_some_and(|quote| quote.on_spot > 0) || selected.is_some_and(|kind| kind == "spot")
}

fn preempts(subject: &Subject<'_>, facts: &Facts) -> Option<String> {
    let spec = subject.spec();
    let class = facts.priorities.get(spec.priority_class_name.as_deref()?)?;
    let usual = facts.priorities.values().find(|class| class.global_default);
    let usual = usual.map_or(0, |class| class.value);
    let may = class.preempts && spec.preemption_policy.as_deref() != Some("Never");
    (may && class.value > usual).then(|| {
        format!(
            "priority class {:?} ({}) evicts pods of lower priority where room is short",
            class.name, class.value
        )
    })
}
