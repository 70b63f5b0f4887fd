//! Simulated series of usage, and how estimators fare on them: the study of learned requests.
//!
//! A workload has one to three replicas, each with a sample a minute of cpu and memory. Estimators
//! learn from a history, then say what the pods of the days that follow ask for, and are held
//! against what those pods use.
//!
//! *Need* of a pod: its highest memory, and the cpu that it stays below in nine of ten minutes. A
//! pod is under-requested when it gets less; waste is what it gets above, as a share of all need.

use harbinger::usage::{Book, Estimates, Histogram, Keys, Measure, Namespace, Sample, Subject};
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const MINUTES: usize = 1440;
const DAY: i64 = 86_400;
/// The first midnight of the series, seconds since the epoch.
const START: i64 = 20_000 * DAY;
const MIB: f64 = 1_048_576.0;

/// What containers get of whom nothing is known, in all estimators: millicores and bytes.
pub(crate) const DEFAULTS: [i64; 2] = [100, 128 << 20];

/// What an under-request costs in over-requests, of cpu and memory.
pub(crate) const UNDER_COSTS: [u32; 2] = [9, 19];

/// Kinds of series.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// One level with noise.
    Steady,
    /// A wave a day, with days that differ.
    Daily,
    /// Memory that spikes for ten minutes on three of ten days, and bursts of cpu.
    Spiky,
    /// Memory that grows until a restart each week.
    Leak,
    /// Needs at its start, for seconds, a multiple of what it uses later: no sample sees it.
    KilledAtStart,
    /// Daily, with one day of history.
    DayOld,
    /// Daily, and its workload has another name now.
    Renamed,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Steady,
        Self::Daily,
        Self::Spiky,
        Self::Leak,
        Self::KilledAtStart,
        Self::DayOld,
        Self::Renamed,
    ];

    /// As tables have it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Daily => "daily",
            Self::Spiky => "spiky",
            Self::Leak => "leak",
            Self::KilledAtStart => "OOM at start",
            Self::DayOld => "1 day old",
            Self::Renamed => "renamed",
        }
    }

    /// Days of history, and days on which pods are held against their requests.
    const fn days(self) -> (usize, usize) {
        match self {
            Self::DayOld => (1, 2),
            Self::Leak => (14, 4),
            Self::KilledAtStart => (7, 1),
            _ => (14, 2),
        }
    }
}

/// One replica: millicores and bytes by minute.
type Series = Vec<[i64; 2]>;

struct Workload {
    replicas: Vec<Series>,
    /// Memory that a start takes, bytes.
    at_start: i64,
}

fn normal(rng: &mut impl Rng) -> f64 {
    let (a, b): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

fn between(rng: &mut impl Rng, low: f64, high: f64) -> f64 {
    low + rng.random::<f64>() * (high - low)
}

impl Workload {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "amounts and counts"
    )]
    fn new(kind: Kind, rng: &mut impl Rng) -> Self {
        let (before, after) = kind.days();
        // Medians of 60m and 200 MiB; one in twenty needs five times as much or a fifth.
        let cpu = (60.0_f64.ln() + normal(rng)).exp();
        let memory = (200.0_f64.ln() + normal(rng)).exp() * MIB;
        let wavy = matches!(kind, Kind::Daily | Kind::DayOld | Kind::Renamed);
        let [wave_cpu, wave_memory] =
            if wavy { [between(rng, 0.3, 0.9), between(rng, 0.1, 0.5)] } else { [0.0, 0.0] };
        let unlike_days = if wavy { 0.08 } else { 0.03 };
        let growth = if kind == Kind::Leak { between(rng, 0.05, 0.2) } else { 0.0 };
        let week = (rng.random::<f64>() * 7.0) as usize;
        let replicas = 1 + (rng.random::<f64>() * 3.0) as usize;
        let level: Vec<f64> =
            (0..before + after).map(|_| (unlike_days * normal(rng)).exp()).collect();
        let mut all = Vec::new();
        for _ in 0..replicas {
            let mut series = Series::with_capacity(level.len() * MINUTES);
            let (mut drift, mut burst) = (0.0, 0_usize);
            for (day, level) in level.iter().enumerate() {
                let spikes = kind == Kind::Spiky && rng.random::<f64>() < 0.3;
                let spike_at = (rng.random::<f64>() * (MINUTES - 10) as f64) as usize;
                let spike = if spikes { between(rng, 1.5, 3.0) } else { 1.0 };
                for minute in 0..MINUTES {
                    let hour = minute as f64 / MINUTES as f64;
                    let wave = -(std::f64::consts::TAU * hour).cos();
                    drift = 0.95 * drift + 0.3 * normal(rng);
                    if kind == Kind::Spiky && burst == 0 && rng.random::<f64>() < 0.01 {
                        burst = 5;
                    }
                    burst = burst.saturating_sub(1);
                    let bursts = if burst > 0 { 5.0 } else { 1.0 };
                    let age = ((day + week) % 7) as f64 + hour;
                    let in_spike = (spike_at..spike_at + 10).contains(&minute);
                    let used = [
                        cpu * level * (1.0 + wave_cpu * wave) * bursts * (0.1 * normal(rng)).exp(),
                        memory
                            * level
                            * (1.0 + wave_memory * wave)
                            * (1.0 + growth * age)
                            * if in_spike { spike } else { 1.0 }
                            * (0.02 * drift).exp(),
                    ];
                    series.push(used.map(|amount| amount as i64));
                }
            }
            all.push(series);
        }
        let at_start = if kind == Kind::KilledAtStart { between(rng, 1.5, 3.0) } else { 0.0 };
        Self { replicas: all, at_start: (memory * at_start) as i64 }
    }
}

/// The estimator that the Vertical Pod Autoscaler publishes.
///
/// A histogram each of cpu samples and of memory peaks, one per pod and day, with half-lives of a
/// day; their 90th percentiles, 15 % above; for a pod at least 25m and 250 MB. A kill counts as a
/// peak of what the container had or was seen with, and 100 MiB or 20 % more.
#[derive(Default)]
struct Vpa {
    histograms: [Histogram; 2],
    /// The peak of each replica, with its day.
    peaks: Vec<Option<(i64, u8)>>,
    seen: bool,
}

impl Vpa {
    fn observe(&mut self, replica: usize, used: [i64; 2], now: i64) {
        self.seen = true;
        self.histograms[0].add(Measure::Cpu.bucket(used[0]), 0.1, now, DAY);
        self.peak(replica, Measure::Memory.bucket(used[1]), now);
    }

    fn peak(&mut self, replica: usize, bucket: u8, now: i64) {
        self.peaks.resize(self.peaks.len().max(replica + 1), None);
        let day = now / DAY * DAY;
        let old = self.peaks[replica].filter(|(of, _)| *of == day);
        if old.is_none_or(|(_, old)| old < bucket) {
            if let Some((day, old)) = old {
                self.histograms[1].subtract(old, 1.0, day, DAY);
            }
            self.histograms[1].add(bucket, 1.0, day, DAY);
            self.peaks[replica] = Some((day, bucket));
        }
    }

    fn killed(&mut self, replica: usize, held: i64, now: i64) {
        self.seen = true;
        let enough = (held + (100 << 20)).max(held + held / 5);
        self.peak(replica, Measure::Memory.bucket(enough), now);
    }

    #[expect(clippy::cast_possible_truncation, reason = "amounts")]
    fn target(&self, measure: Measure, floors: bool) -> i64 {
        let (place, floor) = match measure {
            Measure::Cpu => (0, 25),
            Measure::Memory => (1, 250_000_000),
        };
        if !self.seen {
            return DEFAULTS[place];
        }
        let bucket = self.histograms[place].percentile(0.9);
        let amount = bucket.map_or(0.0, |bucket| measure.end(bucket)) * 1.15;
        (amount as i64).max(if floors { floor } else { 0 })
    }
}

/// How an estimator fared.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Score {
    /// Pods.
    pub(crate) pods: u32,
    /// Pods that got less than they need.
    pub(crate) under: u32,
    /// What pods got above their need; millicores or bytes.
    pub(crate) over: f64,
    /// What pods lacked.
    pub(crate) short: f64,
    /// What pods need.
    pub(crate) need: f64,
    /// Kills until the first start that was none.
    pub(crate) kills: u32,
}

impl Score {
    #[expect(clippy::cast_precision_loss, reason = "amounts are below 2^53")]
    fn count(&mut self, request: i64, need: i64) {
        self.pods += 1;
        self.under += u32::from(request < need);
        self.over += (request - need).max(0) as f64;
        self.short += (need - request).max(0) as f64;
        self.need += need as f64;
    }

    /// Share of pods that got less than they need.
    pub(crate) fn under_share(&self) -> f64 {
        f64::from(self.under) / f64::from(self.pods.max(1))
    }

    /// Waste as a share of all need.
    pub(crate) fn waste(&self) -> f64 {
        self.over / self.need.max(1.0)
    }

    /// Waste and shortage, where the latter costs so much more, as a share of all need.
    pub(crate) fn cost(&self, under_cost: u32) -> f64 {
        (self.over + f64::from(under_cost) * self.short) / self.need.max(1.0)
    }
}

/// The estimators that are compared.
pub(crate) const ESTIMATORS: [&str; 3] = ["VPA", "VPA without its floor", "Harbinger"];

/// Scores of a kind: by measure, then estimator.
pub(crate) type Scores = [[Score; 3]; 2];

/// Runs `count` workloads of a kind.
pub(crate) fn run(kind: Kind, count: usize, seed: u64) -> Scores {
    let mut scores = Scores::default();
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    for index in 0..count {
        let workload = Workload::new(kind, &mut rng);
        one(kind, index, &workload, &mut scores);
    }
    scores
}

fn one(kind: Kind, index: usize, workload: &Workload, scores: &mut Scores) {
    let (before, _) = kind.days();
    let image = format!("registry.example.com/team/app-{index}:1.0");
    let name = format!("app-{index}");
    let subject = Subject {
        owner: ("Deployment", &name),
        revision: "5d4f8c7b9",
        container: &name,
        image: &image,
    };
    let keys = subject.keys();
    let (mut book, mut vpa, mut plain) = (Book::default(), Vpa::default(), Vpa::default());
    if workload.at_start > 0 {
        start(workload.at_start, &subject, &mut book, [&mut vpa, &mut plain], &mut scores[1]);
    }
    for minute in 0..before * MINUTES {
        let now = START + i64::try_from(minute).unwrap_or(0) * 60;
        for (replica, series) in workload.replicas.iter().enumerate() {
            let used = series[minute];
            let instance = u64::try_from(replica).unwrap_or(0);
            book.observe(&sample(keys, instance, used), now);
            vpa.observe(replica, used, now);
            plain.observe(replica, used, now);
        }
    }
    let now = START + i64::try_from(before).unwrap_or(0) * DAY;
    let estimates = published(&book);
    let renamed = Subject { owner: ("Deployment", "renamed"), container: "renamed", ..subject };
    let (asked, nobody) = match kind {
        Kind::Renamed => (&renamed, Vpa::default()),
        _ => (&subject, Vpa::default()),
    };
    let (vpa, plain) = if kind == Kind::Renamed { (&nobody, &nobody) } else { (&vpa, &plain) };
    for measure in Measure::ALL {
        let place = measure as usize;
        if workload.at_start > 0 && measure == Measure::Cpu {
            continue;
        }
        let requests = [
            vpa.target(measure, true),
            plain.target(measure, false),
            estimate(&estimates, asked, measure, now),
        ];
        for series in &workload.replicas {
            let need = match measure {
                _ if workload.at_start > 0 => workload.at_start,
                Measure::Cpu => ninth_decile(&series[before * MINUTES..]),
                Measure::Memory => {
                    series[before * MINUTES..].iter().map(|used| used[1]).max().unwrap_or(0)
                }
            };
            for (score, request) in scores[place].iter_mut().zip(requests) {
                score.count(request, need);
            }
        }
    }
}

/// Starts until one is not killed; each estimator goes its own way.
fn start(
    need: i64,
    subject: &Subject<'_>,
    book: &mut Book,
    [vpa, plain]: [&mut Vpa; 2],
    scores: &mut [Score; 3],
) {
    for (floors, estimator, score) in [(true, vpa, 0), (false, plain, 1)] {
        while estimator.target(Measure::Memory, floors) < need {
            let held = estimator.target(Measure::Memory, floors);
            estimator.killed(0, held, START);
            scores[score].kills += 1;
        }
    }
    loop {
        let held = estimate(&published(book), subject, Measure::Memory, START);
        if held >= need {
            break;
        }
        book.killed("study", &subject.keys(), 0, held, START);
        scores[2].kills += 1;
    }
}

fn sample(keys: Keys, instance: u64, used: [i64; 2]) -> Sample<'static> {
    Sample {
        namespace: "study",
        keys,
        instance,
        created_at: START,
        cpu: used[0],
        memory: used[1],
        starved_cpu: false,
        starved_memory: false,
    }
}

/// What the webhook reads: the book as it comes out of its checkpoint.
fn published(book: &Book) -> Estimates {
    let parts = book.checkpoint("study");
    let (namespace, bad) = Namespace::read(parts.iter().map(|part| &*part.data));
    assert!(bad.is_empty(), "{bad:?}");
    let mut estimates = Estimates::default();
    estimates.set("study", Some(namespace.into()));
    estimates
}

fn estimate(estimates: &Estimates, subject: &Subject<'_>, measure: Measure, now: i64) -> i64 {
    let place = measure as usize;
    let (cost, fallback) = (UNDER_COSTS[place], DEFAULTS[place]);
    let estimate = estimates.estimate("study", subject, measure, cost, fallback, now);
    estimate.map_or(fallback, |estimate| estimate.amount)
}

fn ninth_decile(series: &[[i64; 2]]) -> i64 {
    let mut cpu: Vec<i64> = series.iter().map(|used| used[0]).collect();
    let place = cpu.len() * 9 / 10;
    cpu.select_nth_unstable(place);
    cpu[place]
}
