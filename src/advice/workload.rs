//! The advice on one workload.

use super::code::{Advice, Code, SILENCE_ANNOTATION, Silence};
use super::facts::Facts;
use super::quote::{FleetCost, Hair, Quote};
use crate::model::companions::Budget;
use crate::model::labels;
use crate::model::money::MicroDollarsPerHour;
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
    /// Pods that it asked for before; none when it is new.
    pub before: u32,
    /// What the policies will do to its pods.
    pub preview: &'a Preview,
}

impl Subject<'_> {
    /// Whether its pods run until they are told to end.
    fn serves(&self) -> bool {
        use WorkloadKind::{Deployment, ReplicaSet, StatefulSet};
        matches!(self.kind, Deployment | ReplicaSet | StatefulSet)
    }

    /// The least and the most pods that it may have.
    fn replicas(&self, facts: &Facts) -> (i64, i64) {
        let desired = i64::from(self.workload.at_once(self.kind));
        facts.replicas(self.namespace, self.kind.name(), self.name, desired)
    }

    fn most(&self, facts: &Facts) -> i64 {
        self.replicas(facts).1
    }

    /// Pods of other workloads that a budget counts.
    fn others(&self, budget: &Budget) -> i64 {
        (budget.expected - i64::from(self.before)).max(0)
    }

    /// Whether a budget lets none of so many pods and those of others go.
    fn is_blocked(&self, budget: &Budget, pods: i64) -> bool {
        pods > 0 && budget.allowed(pods + self.others(budget)) <= 0
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
            Code::BudgetBlocksDrains => blocking(subject, facts),
            Code::BudgetAgainstAutoscaler => blocking_at_least(subject, facts),
            Code::AutoscalerIsBlind => blind(subject, facts),
            Code::NoPreStop => no_pre_stop(subject),
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
    let placed = quote.replicas.saturating_sub(quote.unplaced + quote.elsewhere);
    let pods = if placed == 1 { "pod needs" } else { "pods need" };
    let nodes = if quote.nodes == 1 { "node" } else { "nodes" };
    Some(format!(
        "{placed} {pods} {} {nodes} of their own ({}): {}/h",
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
    if cost.nodes == 0 || (cost.each.cpu, cost.each.memory) == (0, 0) {
        return None;
    }
    let (cpu, memory) = (cost.each.cpu, cost.each.memory);
    let frees = cpu <= 0 && memory <= 0;
    let sign = if frees { -1 } else { 1 };
    let times = Resources::new(cpu, memory).times(sign * i64::from(cost.nodes));
    let what = match (cost.grows, frees) {
        (true, true) => "this change frees",
        (true, false) => "this change takes",
        (false, _) => "takes",
    };
    let nodes = if cost.nodes == 1 { "node" } else { "nodes" };
    // The price of nodes of others is not known.
    let price = match cost.per_hour * sign {
        MicroDollarsPerHour::ZERO => String::new(),
        price => format!(", {price}/h of their price"),
    };
    let short = match cost.short {
        0 => String::new(),
        short => format!("; {short} lack room"),
    };
    Some(format!("{what} {times} on {} {nodes}{price}{short}", cost.nodes))
}

/// Budgets that let no pod go, whatever an autoscaler does.
fn blocking(subject: &Subject<'_>, facts: &Facts) -> Vec<String> {
    let found = budgets(subject, facts);
    if let [first, second, ..] = &found[..]
        && subject.most(facts) > 0
    {
        return vec![format!(
            "budgets {:?} and {:?} select its pods: the API server evicts none of them",
            first.name, second.name
        )];
    }
    let line = |budget: &&Budget| {
        let (name, rule) = (&budget.name, budget.rule());
        if !subject.serves() {
            // Its controller finds no scale of a Job, and lets nothing go then.
            let kind = subject.kind;
            return (budget.needs_scale() && subject.most(facts) > 0).then(|| {
                format!("budget {name:?} ({rule}) lets no pod of a {kind} go: it blocks drains")
            });
        }
        let all = subject.most(facts) + subject.others(budget);
        subject.is_blocked(budget, subject.most(facts)).then(|| {
            format!("budget {name:?} ({rule}) lets none of {all} pods go: it blocks drains")
        })
    };
    found.iter().filter_map(line).collect()
}

/// Budgets that let no pod go while the autoscaler is at its minimum.
fn blocking_at_least(subject: &Subject<'_>, facts: &Facts) -> Vec<String> {
    let Some(scaler) = facts.scaler_of(subject.namespace, subject.kind.name(), subject.name) else {
        return Vec::new();
    };
    let (least, most) = subject.replicas(facts);
    let found = budgets(subject, facts);
    if found.len() > 1 || !subject.serves() {
        return Vec::new();
    }
    let blocked =
        |budget: &&&Budget| subject.is_blocked(budget, least) && !subject.is_blocked(budget, most);
    let line = |budget: &&Budget| {
        let (name, rule) = (&budget.name, budget.rule());
        format!(
            "budget {name:?} ({rule}) blocks drains while HPA {:?} is at its minimum of {least}",
            scaler.name
        )
    };
    found.iter().filter(blocked).map(line).collect()
}

/// The budgets of pods that drains evict: those of DaemonSets stay.
fn budgets<'a>(subject: &Subject<'_>, facts: &'a Facts) -> Vec<&'a Budget> {
    if subject.kind == WorkloadKind::DaemonSet {
        return Vec::new();
    }
    facts.budgets_of(subject.namespace, &subject.workload.template().metadata.labels)
}

/// Autoscalers compare use with requests; a container without one makes them fail for the pod.
fn blind(subject: &Subject<'_>, facts: &Facts) -> Vec<String> {
    let Some(scaler) = facts.scaler_of(subject.namespace, subject.kind.name(), subject.name) else {
        return Vec::new();
    };
    if pod_level(subject.spec()).cpu != 0 {
        return Vec::new();
    }
    let reads = |container: &&ContainerWire| {
        let mut of = scaler.cpu_of.iter();
        of.any(|of| of.as_deref().is_none_or(|name| name == container.name))
    };
    let read = || lasting(subject.spec()).filter(reads);
    // A request of 0 is one as long as another is more.
    let sum: i64 = read().map(|container| container.resources.effective().cpu).sum();
    let lacks = |container: &&ContainerWire| {
        let ResourcesWire { requests, limits } = &container.resources;
        sum == 0 || !(requests.contains_key(CPU) || limits.contains_key(CPU))
    };
    read()
        .filter(lacks)
        .map(|container| {
            format!(
                "HPA {:?} scales on cpu, but container {:?} has no cpu request: it cannot scale",
                scaler.name, container.name
            )
        })
        .collect()
}

fn no_pre_stop(subject: &Subject<'_>) -> Vec<String> {
    if !subject.serves() {
        return Vec::new();
    }
    if subject.spec().termination_grace_period_seconds == Some(0) {
        return vec![
            "0 s to end: containers are killed at once, and preStop hooks do not run".into(),
        ];
    }
    let hooked = |container: &ContainerWire| {
        container.lifecycle.as_ref().is_some_and(|hooks| hooks.pre_stop.is_some())
    };
    let open = |container: &&ContainerWire| !container.ports.is_empty() && !hooked(container);
    let line = |container: &ContainerWire| {
        let name = &container.name;
        format!("container {name:?} has ports and no preStop: it may end while traffic still comes")
    };
    subject.spec().containers.iter().filter(open).map(line).collect()
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
    let (least, _) = subject.replicas(facts);
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
    // The API server takes the lowest, should there be several.
    let defaults = facts.priorities.values().filter(|class| class.global_default);
    let usual = defaults.map(|class| class.value).min().unwrap_or(0);
    let may = class.preempts && spec.preemption_policy.as_deref() != Some("Never");
    (may && class.value > usual).then(|| {
        format!(
            "priority class {:?} ({}) evicts pods of lower priority where room is short",
            class.name, class.value
        )
    })
}
