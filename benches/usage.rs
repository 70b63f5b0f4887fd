//! Learned requests: how right they are, what a look-up takes, and what 50,000 containers weigh.
//!
//! Run with `cargo bench --no-default-features --bench usage`. The first table is the study of the module
//! `series`: learned requests against the published estimator of the Vertical Pod Autoscaler on
//! the same simulated series. It fails where the table of `docs/policies.md` says otherwise.

#![expect(clippy::print_stdout, reason = "the table is the result")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

#[path = "shared/series.rs"]
mod series;

use std::hint::black_box;
use std::time::Instant;

use harbinger::usage::{
    Book, Estimates, Keys, MOST_BYTES, Measure, Namespace, Sample, Subject, instance,
};
use series::{ESTIMATORS, Kind, Score, UNDER_COSTS, run};

/// Workloads of each kind in the study.
const WORKLOADS: usize = 400;
const NAMESPACES: usize = 100;
const CONTAINERS: usize = 50_000;
const START: i64 = 20_000 * 86_400;

fn main() {
    study();
    let book = book();
    weigh(&book);
}

fn study() {
    println!("Pods that got less than they need (under), what pods got above it (waste), and both");
    println!(
        "with an under-request at 9 (cpu) or 19 (memory) times an over-request (cost); shares of need."
    );
    println!(
        "{:<14}{:<8}{:<24}{:>8}{:>9}{:>9}{:>7}",
        "series", "", "", "under", "waste", "cost", "kills"
    );
    let mut wrong = Vec::new();
    for kind in Kind::ALL {
        let scores = run(kind, WORKLOADS, 7);
        for (measure, scores) in ["cpu", "memory"].into_iter().zip(scores) {
            for (name, score) in ESTIMATORS.into_iter().zip(&scores) {
                row(kind, measure, name, score);
            }
            wrong.extend(told_otherwise(kind, measure, &scores));
        }
    }
    assert!(wrong.is_empty(), "docs/policies.md lacks these rows:\n{}", wrong.join("\n"));
}

/// The row of the table in the user guide, where the guide has another.
fn told_otherwise(kind: Kind, measure: &str, scores: &[Score; 3]) -> Option<String> {
    let [vpa, bare, ours] = scores;
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let cells = [
        kind.name().to_owned(),
        measure.to_owned(),
        percent(vpa.under_share()),
        percent(ours.under_share()),
        percent(vpa.waste()),
        percent(bare.waste()),
        percent(ours.waste()),
    ];
    let row = format!("| {} |", cells.join(" | "));
    let guide = include_str!("../docs/policies.md");
    (ours.pods > 0 && !guide.lines().any(|line| line == row)).then_some(row)
}

#[expect(clippy::cast_precision_loss, reason = "a count")]
fn row(kind: Kind, measure: &str, name: &str, score: &Score) {
    if score.pods == 0 {
        return;
    }
    let cost = UNDER_COSTS[usize::from(measure == "memory")];
    let kills = match score.kills {
        0 => String::new(),
        kills => format!("{:.1}", f64::from(kills) / WORKLOADS as f64),
    };
    println!(
        "{:<14}{measure:<8}{name:<24}{:>7.1}%{:>8.1}%{:>8.1}%{kills:>7}",
        kind.name(),
        100.0 * score.under_share(),
        100.0 * score.waste(),
        100.0 * score.cost(cost),
    );
}

fn names(index: usize) -> [String; 4] {
    [
        format!("namespace-{}", index % NAMESPACES),
        format!("workload-with-a-usual-name-{index}"),
        format!("registry.example.com/team-{}/app-{index}:1.4.2", index % 50),
        format!("{index:010x}"),
    ]
}

/// 50,000 containers with a wave a day for three days, a sample every ten minutes.
fn book() -> Book {
    let known: Vec<(String, Keys, u64)> = (0..CONTAINERS)
        .map(|index| {
            let [namespace, owner, image, revision] = names(index);
            let keys = subject(&owner, &image, &revision).keys();
            (namespace, keys, instance(&revision, "app"))
        })
        .collect();
    let mut book = Book::default();
    for step in 0..3 * 144_i64 {
        for (index, (namespace, keys, instance)) in known.iter().enumerate() {
            let size = 1 + i64::try_from(index % 97).unwrap_or(0);
            let noise = i64::try_from(index).unwrap_or(0) * 7 + step * 31;
            let wave = 100 + (step % 144 - 72).abs() + noise % 13;
            book.observe(
                &Sample {
                    namespace,
                    keys: *keys,
                    instance: *instance,
                    created_at: START,
                    cpu: size * wave / 20,
                    memory: (size * wave) << 17,
                    starved_cpu: false,
                    starved_memory: false,
                },
                START + step * 600,
            );
        }
    }
    book
}

fn subject<'a>(owner: &'a str, image: &'a str, revision: &'a str) -> Subject<'a> {
    Subject { owner: ("Deployment", owner), revision, container: "app", image }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn weigh(book: &Book) {
    let mut parts = Vec::new();
    for index in 0..NAMESPACES {
        let namespace = format!("namespace-{index}");
        parts.push((namespace.clone(), book.checkpoint(&namespace)));
    }
    let bytes: usize = parts.iter().flat_map(|(_, parts)| parts).map(|part| part.data.len()).sum();
    println!();
    println!("{} containers", book.len());
    println!(
        "checkpoints: {:.1} MB, {:.0} bytes per container (at most {MOST_BYTES})",
        bytes as f64 / 1e6,
        bytes as f64 / book.len() as f64
    );
    let mut estimates = Estimates::default();
    let began = Instant::now();
    let held = allocation_counter::measure(|| {
        for (name, parts) in &parts {
            let (namespace, bad) = Namespace::read(parts.iter().map(|part| &*part.data));
            assert!(bad.is_empty(), "{bad:?}");
            estimates.set(name, Some(namespace.into()));
        }
    });
    println!(
        "estimates, as admission holds them: {:.1} MB, read in {:.0} ms",
        held.bytes_current as f64 / 1e6,
        began.elapsed().as_secs_f64() * 1e3
    );
    let mut restored = Book::default();
    let held = allocation_counter::measure(|| {
        for (name, parts) in &parts {
            for part in parts {
                restored.restore(name, &part.data).expect("a checkpoint of ours");
            }
        }
    });
    println!("book, as the leader holds it: {:.1} MB", held.bytes_current as f64 / 1e6);
    let asked: Vec<[String; 4]> = (0..CONTAINERS).step_by(50).map(names).collect();
    let mut times = Vec::new();
    for _ in 0..20 {
        for [namespace, owner, image, revision] in &asked {
            let subject = subject(owner, image, revision);
            let began = Instant::now();
            let found =
                estimates.estimate(namespace, &subject, Measure::Memory, 19, 128 << 20, START);
            times.push(began.elapsed());
            black_box(found);
        }
    }
    times.sort_unstable();
    println!(
        "look-up: median {:?}, 99th percentile {:?}",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
}
