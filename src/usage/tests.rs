//! Histories, their checkpoints, and the ladder of evidence.

use proptest::prelude::*;

use super::history::{History, Kill, Period, Tops};
use super::*;
use crate::model::workload::root_owner;

const START: i64 = 20_000 * DAY;
const MEBI: i64 = 1 << 20;

fn subject<'a>(owner: &'a str, revision: &'a str, image: &'a str) -> Subject<'a> {
    Subject { owner: ("Deployment", owner), revision, container: "app", image }
}

fn sample(subject: &Subject<'_>, pod: &str, cpu: i64, memory: i64) -> Sample<'static> {
    Sample {
        namespace: "shop",
        keys: subject.keys(),
        instance: instance(pod, subject.container),
        created_at: START,
        cpu,
        memory,
        starved_cpu: false,
        starved_memory: false,
    }
}

/// A pod that uses the same for some days, one sample a minute.
fn live(book: &mut Book, subject: &Subject<'_>, days: f64, cpu: i64, memory: i64) {
    #[expect(clippy::cast_possible_truncation, reason = "minutes")]
    for minute in 0..(days * 1440.0) as i64 {
        book.observe(&sample(subject, subject.owner.1, cpu, memory), START + minute * 60);
    }
}

fn published(book: &Book) -> Estimates {
    let parts = book.checkpoint("shop");
    let (namespace, bad) = Namespace::read(parts.iter().map(|part| &*part.data));
    assert_eq!(bad, []);
    let mut estimates = Estimates::default();
    estimates.set("shop", Some(namespace.into()));
    estimates
}

fn memory(estimates: &Estimates, subject: &Subject<'_>, fallback: i64) -> Option<Estimate> {
    estimates.estimate("shop", subject, Measure::Memory, 19, fallback, START + 5 * DAY)
}

#[test]
fn buckets_are_those_of_the_vertical_pod_autoscaler() {
    // Start of bucket i is first * (1.05^i - 1) / 0.05.
    assert_eq!(Measure::Cpu.bucket(0), 0);
    assert_eq!(Measure::Cpu.bucket(9), 0);
    assert_eq!(Measure::Cpu.bucket(11), 1);
    assert_eq!(Measure::Cpu.bucket(21), 2);
    assert!((Measure::Cpu.end(0) - 10.0).abs() < 1e-6);
    assert!((Measure::Cpu.end(1) - 20.5).abs() < 1e-6);
    assert!((Measure::Memory.end(2) - 31_525_000.0).abs() < 1.0);
    assert_eq!(Measure::Cpu.bucket(i64::MAX), 175);
    assert_eq!(Measure::Memory.bucket(-5), 0);
    // The last bucket but one holds the most that the scale is for: 1000 cores, 1 TB.
    assert_eq!(Measure::Cpu.bucket(1_000_000), 174);
    assert_eq!(Measure::Memory.bucket(1_000_000_000_000), 174);
}

#[test]
fn old_samples_weigh_half_after_each_half_life() {
    let mut histogram = Histogram::default();
    histogram.add(10, 3.0, START, DAY);
    histogram.add(20, 1.0, START + DAY, DAY);
    // 1.5 against 1: three fifths are in the first.
    assert_eq!(histogram.percentile(0.59), Some(10));
    assert_eq!(histogram.percentile(0.61), Some(20));
    histogram.subtract(20, 1.0, START + DAY, DAY);
    assert_eq!(histogram.percentile(1.0), Some(10));
    histogram.subtract(10, 3.0, START, DAY);
    assert!(histogram.is_empty());
    assert_eq!(histogram.percentile(0.5), None);
}

#[test]
fn lower_bounds_weigh_with_what_is_above_them() {
    let mut histogram = Histogram::default();
    histogram.add(10, 1.0, START, DAY);
    histogram.add(30, 1.0, START, DAY);
    // Two samples "at least 20" are taken for samples of 30.
    histogram.add_at_least(20, 2.0, START, DAY);
    assert_eq!(histogram.percentile(0.25), Some(10));
    assert_eq!(histogram.percentile(0.26), Some(30));
    // With nothing above, they stand for themselves.
    histogram.add_at_least(40, 4.0, START, DAY);
    assert_eq!(histogram.percentile(0.9), Some(40));
}

#[test]
fn starved_use_does_not_pull_estimates_down() {
    let web = subject("web", "1", "web:1");
    let (mut free, mut starved) = (Book::default(), Book::default());
    live(&mut free, &web, 1.0, 400, 500 * MEBI);
    live(&mut starved, &web, 1.0, 400, 500 * MEBI);
    for minute in 1440..2880 {
        let at = START + minute * 60;
        let low = sample(&web, "web", 50, 100 * MEBI);
        let bounds = Sample { starved_cpu: true, starved_memory: true, ..low };
        starved.observe(&bounds, at);
    }
    for measure in Measure::ALL {
        let ask = |book: &Book| {
            let now = START + 2 * DAY;
            published(book).estimate("shop", &web, measure, 9, 1, now).unwrap().amount
        };
        assert_eq!(ask(&starved), ask(&free), "{measure:?}");
    }
}

#[test]
fn own_history_speaks_with_a_stated_confidence() {
    let web = subject("web", "1", "web:1");
    let mut book = Book::default();
    live(&mut book, &web, 3.0, 100, 300 * MEBI);
    let found = memory(&published(&book), &web, 128 * MEBI).unwrap();
    // Up to 5 % by the bucket, 12 % of margin, 6 % by the grid, and never below what was seen.
    assert!((300 * MEBI..375 * MEBI).contains(&found.amount), "{}", found.amount / MEBI);
    assert_eq!(found.evidence("web"), "3 d of web's own history, 92 %");
    // A fallback that is far too high is left behind as evidence grows.
    let high = memory(&published(&book), &web, 4096 * MEBI).unwrap();
    assert!(high.amount < 450 * MEBI, "{}", high.amount / MEBI);
}

#[test]
fn minutes_of_history_do_not_speak_unless_they_show_more_need() {
    let web = subject("web", "1", "web:1");
    let mut book = Book::default();
    live(&mut book, &web, 0.02, 900, 300 * MEBI);
    let estimates = published(&book);
    assert_eq!(memory(&estimates, &web, 512 * MEBI), None);
    let more = memory(&estimates, &web, 128 * MEBI).unwrap();
    assert!(more.amount >= 300 * MEBI);
    assert!(more.confidence < 10, "{more:?}");
    // Cpu of the first minutes is that of a start.
    assert_eq!(estimates.estimate("shop", &web, Measure::Cpu, 9, 100, START + DAY), None);
}

#[test]
fn a_new_revision_starts_from_the_older_ones() {
    let old = subject("web", "1", "web:1.4");
    let mut book = Book::default();
    live(&mut book, &old, 4.0, 100, 300 * MEBI);
    let estimates = published(&book);
    let patch = memory(&estimates, &subject("web", "2", "web:1.5"), 64 * MEBI).unwrap();
    assert_eq!(patch.evidence("web"), "4 d of web's older revisions, 89 %");
    assert!(patch.amount >= 300 * MEBI, "use that was seen is not drawn down");
    // A template does not tell its revision; it is taken for the one that was seen.
    let template = memory(&estimates, &subject("web", "", "web:1.4"), 64 * MEBI).unwrap();
    assert!(matches!(template.level, Level::Own { .. }), "{template:?}");
    let major = memory(&estimates, &subject("web", "2", "web:2.0"), 64 * MEBI).unwrap();
    assert!(major.confidence < patch.confidence);
    // Once pods of the new revision are seen, both speak.
    let new = subject("web", "2", "web:1.5");
    for minute in 0..2880 {
        let at = START + 4 * DAY + minute * 60;
        let young = Sample { created_at: START + 4 * DAY, ..sample(&new, "new", 100, 600 * MEBI) };
        book.observe(&young, at);
        // A pod of the old revision that is still there does not turn it back.
        book.observe(&sample(&old, "web", 100, 300 * MEBI), at);
    }
    let both = memory(&published(&book), &new, 64 * MEBI).unwrap();
    assert!(matches!(both.level, Level::Own { .. }), "{both:?}");
    assert!((600 * MEBI..760 * MEBI).contains(&both.amount), "{}", both.amount / MEBI);
}

#[test]
fn a_renamed_workload_is_known_by_its_image() {
    let mut book = Book::default();
    live(&mut book, &subject("web", "1", "registry:5000/team/web:1"), 6.0, 100, 900 * MEBI);
    let renamed =
        Subject { container: "main", ..subject("shop-web", "1", "registry:5000/team/web:3") };
    let found = memory(&published(&book), &renamed, 128 * MEBI).unwrap();
    assert!(matches!(found.level, Level::Image { count: 1 }), "{found:?}");
    assert!((900 * MEBI..1200 * MEBI).contains(&found.amount), "{}", found.amount / MEBI);
    // Another namespace learns nothing of it.
    let elsewhere = published(&book).estimate("bank", &renamed, Measure::Memory, 19, 1, START);
    assert_eq!(elsewhere, None);
}

#[test]
fn an_image_that_does_many_things_is_believed_less() {
    let (mut alike, mut unlike) = (Book::default(), Book::default());
    for (index, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        let one = subject(name, "1", "python:3");
        live(&mut alike, &one, 1.0, 100, 300 * MEBI);
        live(&mut unlike, &one, 1.0, 100, (60 * MEBI) << (index * 2));
    }
    let asked = Subject { container: "other", ..subject("new", "1", "python:3") };
    let [alike, unlike] = [alike, unlike].map(|book| memory(&published(&book), &asked, 128 * MEBI));
    let alike = alike.unwrap();
    assert_eq!(alike.level, Level::Image { count: 5 });
    let trusted = unlike.is_some_and(|found| {
        matches!(found.level, Level::Image { .. }) && found.confidence * 2 > alike.confidence
    });
    assert!(!trusted, "{unlike:?}");
}

#[test]
fn the_ladder_goes_down_to_the_namespace_and_the_kind_of_image() {
    let mut book = Book::default();
    for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        let image = format!("{name}:1");
        let other = Subject { container: name, ..subject(name, "1", &image) };
        live(&mut book, &other, 0.5, 100, 400 * MEBI);
    }
    let stranger = Subject { container: "x", ..subject("x", "1", "x:1") };
    let found = memory(&published(&book), &stranger, 128 * MEBI).unwrap();
    assert_eq!(found.level, Level::Namespace { count: 10 });
    let sidecar =
        Subject { container: "istio-proxy", ..subject("x", "1", "docker.io/istio/proxyv2:1.24.0") };
    let found = memory(&published(&book), &sidecar, 512 * MEBI).unwrap();
    assert_eq!(found.level, Level::Class("istio-proxy"));
    assert_eq!(found.evidence("x"), "the kind of its image (istio-proxy), 80 %");
    // In a namespace of which nothing is known the kind of the image is all there is.
    let alone = Estimates::default().estimate("new", &sidecar, Measure::Cpu, 9, 500, START);
    assert_eq!(alone.unwrap().level, Level::Class("istio-proxy"));
    assert_eq!(Estimates::default().estimate("new", &stranger, Measure::Cpu, 9, 500, START), None);
}

#[test]
fn containers_of_one_name_speak_for_each_other() {
    let mut book = Book::default();
    for name in ["a", "b", "c", "d", "e", "f"] {
        let image = format!("{name}:1");
        live(&mut book, &subject(name, "1", &image), 1.0, 100, 400 * MEBI);
    }
    let found = memory(&published(&book), &subject("x", "1", "x:1"), 128 * MEBI).unwrap();
    assert_eq!(found.level, Level::Siblings { count: 6 });
}

#[test]
fn a_kill_counts_at_once_and_fades_slowly() {
    let web = subject("web", "1", "web:1");
    let mut book = Book::default();
    let mut held = 0;
    // Nothing was ever sampled: it dies at its start, each time with what we gave it.
    for _ in 0..4 {
        book.killed("shop", &web.keys(), instance("p", "app"), held, START);
        let found = memory(&published(&book), &web, 64 * MEBI).unwrap();
        assert_eq!(found.level, Level::Killed);
        assert!(found.amount >= (held + 100 * MEBI).max(held / 5 * 6), "{}", found.amount / MEBI);
        held = found.amount;
    }
    assert_eq!(
        memory(&published(&book), &web, 64 * MEBI).unwrap().evidence("web"),
        "a kill of web for lack of memory"
    );
    let after = |days: i64| {
        published(&book)
            .estimate("shop", &web, Measure::Memory, 19, MEBI, START + days * DAY)
            .map(|found| found.amount)
    };
    assert_eq!(after(14), after(0));
    let faded = after(28).unwrap();
    assert!(faded * 2 >= held / 20 * 19 && faded < held / 5 * 3, "{faded} of {held}");
    // The same kill, told again by a list of pods, is no second one.
    let before = book.checkpoint("shop");
    book.killed("shop", &web.keys(), instance("p", "app"), 100 * MEBI, START);
    assert_eq!(book.checkpoint("shop"), before);
    // Cpu has nothing to do with it.
    assert_eq!(published(&book).estimate("shop", &web, Measure::Cpu, 9, 100, START), None);
}

#[test]
fn a_kill_raises_at_least_over_what_was_used() {
    let web = subject("web", "1", "web:1");
    let mut book = Book::default();
    live(&mut book, &web, 1.0, 100, 2000 * MEBI);
    // It asked for little and used much: an eviction.
    book.killed("shop", &web.keys(), instance("web", "app"), 100 * MEBI, START + DAY - 60);
    let found = memory(&published(&book), &web, 64 * MEBI).unwrap();
    assert!(found.amount >= 2400 * MEBI, "{}", found.amount / MEBI);
}

#[test]
fn a_leak_gets_the_growth_of_a_day_more() {
    let web = subject("web", "1", "web:1");
    let (mut leaking, mut level) = (Book::default(), Book::default());
    for minute in 0..5 * 1440 {
        let at = START + minute * 60;
        let grown = 300 + 60 * (minute / 1440);
        leaking.observe(&sample(&web, "web", 100, grown * MEBI), at);
        level.observe(&sample(&web, "web", 100, 540 * MEBI), at);
    }
    let [leaking, level] =
        [leaking, level].map(|book| memory(&published(&book), &web, 64 * MEBI).unwrap().amount);
    assert!(leaking > level + 50 * MEBI, "{leaking} {level}");
}

#[test]
fn a_recommendation_of_another_comes_before_own_history() {
    let web = subject("web", "1", "web:1");
    let mut book = Book::default();
    live(&mut book, &web, 1.0, 100, 300 * MEBI);
    let mut estimates = published(&book);
    let recommended = Recommendation { cpu: None, memory: Some(700 * MEBI) };
    estimates.recommend("shop", [(web.owner, "app", recommended)]);
    let found = memory(&estimates, &web, 64 * MEBI).unwrap();
    assert_eq!(found.level, Level::Recommended);
    assert!((650 * MEBI..750 * MEBI).contains(&found.amount), "{}", found.amount / MEBI);
    // It says nothing about cpu.
    let cpu = estimates.estimate("shop", &web, Measure::Cpu, 9, 10, START + DAY).unwrap();
    assert!(matches!(cpu.level, Level::Own { .. }), "{cpu:?}");
    estimates.recommend("shop", []);
    assert!(matches!(memory(&estimates, &web, 64 * MEBI).unwrap().level, Level::Own { .. }));
}

#[test]
fn the_cost_of_an_under_request_chooses_the_quantile() {
    let web = subject("web", "1", "web:1");
    let mut book = Book::default();
    for minute in 0..2 * 1440 {
        let cpu = if minute % 20 == 0 {
            1000
        } else if minute % 5 == 0 {
            400
        } else {
            100
        };
        book.observe(&sample(&web, "web", cpu, 300 * MEBI), START + minute * 60);
    }
    let estimates = published(&book);
    let ask = |cost| {
        estimates.estimate("shop", &web, Measure::Cpu, cost, 10, START + 2 * DAY).unwrap().amount
    };
    assert!((100..140).contains(&ask(1)), "{}", ask(1));
    assert!((400..500).contains(&ask(9)), "{}", ask(9));
    assert!((1000..1200).contains(&ask(99)), "{}", ask(99));
    assert_eq!(ask(u32::MAX), ask(1000));
}

#[test]
fn what_is_not_seen_for_long_is_forgotten_and_the_oldest_first() {
    let mut book = Book::default();
    live(&mut book, &subject("old", "1", "old:1"), 0.1, 1, MEBI);
    let mut later = sample(&subject("new", "1", "new:1"), "new", 1, MEBI);
    later.namespace = "other";
    book.observe(&later, START + 40 * DAY);
    assert_eq!(book.len(), 1);
    assert_eq!(book.namespaces().map(|name| &**name).collect::<Vec<_>>(), ["other"]);
    // All are seen at one moment, as in one list of metrics.
    let mut keys = subject("x", "1", "x:1").keys();
    for index in 0..MOST_CONTAINERS + 10 {
        keys.container = u64::try_from(index).unwrap();
        let one = Sample { keys, instance: keys.container, ..later };
        book.observe(&one, START + 40 * DAY + 60);
    }
    assert_eq!(book.len(), MOST_CONTAINERS + 11);
    book.sweep(START + 40 * DAY + 60);
    assert_eq!(book.len(), MOST_CONTAINERS);
}

#[test]
fn checkpoints_come_in_parts_and_are_checked() {
    let mut book = Book::default();
    for index in 0..CHUNK + 5 {
        let name = index.to_string();
        book.observe(&sample(&subject(&name, "1", "x"), &name, 1, MEBI), START);
    }
    let parts = book.checkpoint("shop");
    assert_eq!(parts.len(), 2);
    assert_eq!(book.checkpoint("nobody"), []);
    let mut copy = Book::default();
    for part in &parts {
        copy.restore("shop", &part.data).unwrap();
    }
    assert_eq!(copy.len(), book.len());
    assert_eq!(copy.restore("shop", b"nonsense"), Err(BadCheckpoint::Format));
    let cut = &parts[1].data[..parts[1].data.len() - 1];
    assert!(matches!(copy.restore("shop", cut), Err(BadCheckpoint::Broken { .. })));
    let (namespace, bad) = Namespace::read([cut, b"nonsense"]);
    assert_eq!(bad.len(), 2);
    let mut estimates = Estimates::default();
    estimates.set("shop", Some(namespace.into()));
    assert_eq!(estimates.len(), 4);
}

#[test]
fn a_restart_loses_nothing_that_matters() {
    let web = subject("web", "1", "web:1");
    let (mut whole, mut first) = (Book::default(), Book::default());
    for minute in 0..4 * 1440 {
        let at = START + minute * 60;
        let memory = 300 + (minute / 60) % 24 * 10;
        let sample = sample(&web, "web", 100 + minute % 7 * 10, memory * MEBI);
        whole.observe(&sample, at);
        // A new leader takes over twice a day.
        if minute % 720 == 700 {
            let mut next = Book::default();
            for part in first.checkpoint("shop") {
                next.restore("shop", &part.data).unwrap();
            }
            first = next;
        }
        first.observe(&sample, at);
    }
    let now = START + 4 * DAY;
    for measure in Measure::ALL {
        let ask = |book: &Book| published(book).estimate("shop", &web, measure, 9, 1, now).unwrap();
        let (whole, restored) = (ask(&whole), ask(&first));
        let apart = (whole.amount - restored.amount).abs();
        // One step of the grid.
        assert!(apart * 100 <= whole.amount * 7, "{measure:?}: {whole:?} {restored:?}");
        assert_eq!(whole.confidence, restored.confidence);
    }
}

#[test]
fn names_that_change_with_each_run_are_left_out() {
    let labels =
        crate::model::labels::Labels::from([("pod-template-hash".to_owned(), "5d4f8c".to_owned())]);
    let none = crate::model::labels::Labels::new();
    assert_eq!(root_owner("ReplicaSet", "web-5d4f8c", &labels), ("Deployment", "web"));
    assert_eq!(root_owner("ReplicaSet", "web-5d4f8c", &none), ("ReplicaSet", "web-5d4f8c"));
    assert_eq!(root_owner("Job", "backup-28391200", &none), ("Job", "backup"));
    assert_eq!(root_owner("CronJob", "backup", &none), ("Job", "backup"));
    assert_eq!(root_owner("Job", "backup-2024", &none), ("Job", "backup-2024"));
    let of = |image| Subject { image, ..Subject::default() }.keys();
    assert_eq!(of("registry:5000/a/b:1.2").image, of("registry:5000/a/b@sha256:00ff").image);
    assert_ne!(of("registry:5000/a/b").image, of("registry:5000/a/c").image);
    assert_eq!(of("b:v2.3").major, 2);
    assert_eq!(of("b:latest").major, 0);
    assert_eq!(of("registry:5000/b").major, 0);
}

fn histogram() -> impl Strategy<Value = Histogram> {
    let sample = (0..176_u8, 0.001..1000.0_f32, 0..20 * DAY);
    prop::collection::vec(sample, 0..200).prop_map(|samples| {
        let mut histogram = Histogram::default();
        for (bucket, weight, at) in samples {
            histogram.add(bucket, weight, START + at, DAY);
        }
        histogram
    })
}

fn period() -> impl Strategy<Value = Period> {
    (histogram(), histogram(), 0..20 * DAY, any::<u32>()).prop_map(
        |(cpu, memory, span, samples)| Period {
            cpu,
            memory,
            first: START,
            last: START + span,
            samples,
        },
    )
}

fn history() -> impl Strategy<Value = History> {
    let hashes = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u16>());
    let kill = prop::option::of((0..176_u8, 0..20 * DAY));
    (hashes, kill, any::<[u8; 4]>(), period(), period()).prop_map(
        |((image, name, revision, major), kill, peaks, current, older)| History {
            image,
            name,
            revision,
            major,
            newest: START,
            current,
            older,
            kill: kill.map(|(bucket, at)| Kill { bucket, at: START + at }),
            tops: Tops { day: 20_000, peaks },
        },
    )
}

proptest! {
    #[test]
    fn a_checkpoint_keeps_what_decides(key: u64, history in history()) {
        let bytes = encode::write([(key, &history)].into_iter());
        prop_assert!(bytes.len() <= MOST_BYTES + 4, "{} bytes", bytes.len());
        let read: Vec<_> = encode::read(&bytes).unwrap().collect();
        prop_assert_eq!(read.len(), 1);
        let (read_key, read) = read.into_iter().next().unwrap().unwrap();
        prop_assert_eq!(read_key, key);
        prop_assert_eq!((read.image, read.name), (history.image, history.name));
        prop_assert_eq!((read.revision, read.major), (history.revision, history.major));
        prop_assert_eq!(read.tops, history.tops);
        prop_assert_eq!(read.kill.map(|kill| kill.bucket), history.kill.map(|kill| kill.bucket));
        for (read, wrote) in [(&read.current, &history.current), (&read.older, &history.older)] {
            prop_assert_eq!(read.samples, wrote.samples);
            prop_assert!((read.days() - wrote.days()).abs() < 0.001);
            for measure in Measure::ALL {
                let highest = |period: &Period| period.of(measure).percentile(1.0);
                // The highest stays the highest, but for the width of the joined buckets.
                match (highest(read), highest(wrote)) {
                    (None, None) => {}
                    (Some(read), Some(wrote)) => {
                        prop_assert!(read >= wrote && read - wrote < 8, "{read} {wrote}");
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
        // What was read is written as it was.
        let again = encode::write([(key, &read)].into_iter());
        let twice: Vec<_> = encode::read(&again).unwrap().collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(twice[0].1.current.cpu.percentile(0.9), read.current.cpu.percentile(0.9));
    }

    #[test]
    fn checkpoints_of_nonsense_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut framed = b"HBU1".to_vec();
        framed.extend(&bytes);
        let (namespace, _) = Namespace::read([framed.as_slice(), bytes.as_slice()]);
        let mut estimates = Estimates::default();
        estimates.set("shop", Some(namespace.into()));
        let mut book = Book::default();
        let _read = book.restore("shop", &framed);
        book.sweep(START);
        prop_assert!(estimates.len() <= bytes.len() / 73);
    }

    #[test]
    fn quantiles_are_never_below_what_was_seen(
        samples in prop::collection::vec(1..100_000_i64, 1..300),
        share in 0.01..1.0_f64,
    ) {
        let mut histogram = Histogram::default();
        for amount in &samples {
            histogram.add(Measure::Cpu.bucket(*amount), 1.0, START, DAY);
        }
        let mut sorted = samples;
        sorted.sort_unstable();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place")]
        let place = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1;
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let exact = sorted[place] as f64;
        let told = Measure::Cpu.end(histogram.percentile(share).unwrap());
        prop_assert!(told >= exact, "{told} for {exact}");
    }

    #[test]
    fn merging_is_adding(
        all in prop::collection::vec((0..60_u8, 0.1..10.0_f32, 0..10 * DAY), 1..60),
        split in 0..60_usize,
    ) {
        let fill = |samples: &[(u8, f32, i64)]| {
            let mut histogram = Histogram::default();
            for (bucket, weight, at) in samples {
                histogram.add(*bucket, *weight, START + at, DAY);
            }
            histogram
        };
        let (left, right) = all.split_at(split.min(all.len()));
        let mut merged = fill(left);
        merged.merge(&fill(right), DAY);
        let whole = fill(&all);
        let at = START + 10 * DAY;
        let weights = |histogram: &Histogram| histogram.weights_at(at, DAY).collect::<Vec<_>>();
        for ((a, x), (b, y)) in weights(&merged).into_iter().zip(weights(&whole)) {
            prop_assert_eq!(a, b);
            prop_assert!((x - y).abs() <= 1e-3 * y.abs(), "{x} {y}");
        }
    }

    #[test]
    fn the_grid_is_close_above_and_stable(amount in 1..1_i64 << 45) {
        for measure in Measure::ALL {
            let up = step_up(measure, amount);
            prop_assert!(up >= amount);
            prop_assert!(up - amount <= (amount / 16).max(1 << 20));
            prop_assert_eq!(step_up(measure, up), up);
        }
    }

    #[test]
    fn more_evidence_of_one_use_never_moves_away_from_it(
        use_mib in 40..4000_i64,
        fallback_mib in 40..4000_i64,
        days in 1..6_u32,
    ) {
        let web = subject("web", "1", "web:1");
        let mut book = Book::default();
        let mut last = None;
        for day in 0..i64::from(days) {
            for hour in 0..24 {
                let at = START + day * DAY + hour * 3600;
                book.observe(&sample(&web, "web", 100, use_mib * MEBI), at);
            }
            let now = START + day * DAY;
            let found = published(&book)
                .estimate("shop", &web, Measure::Memory, 19, fallback_mib * MEBI, now);
            let amount = found.map_or(fallback_mib * MEBI, |found| found.amount);
            // Never below the use that was seen, and never above both by more than margins.
            prop_assert!(found.is_none() || amount >= use_mib * MEBI);
            prop_assert!(amount <= use_mib.max(fallback_mib) * MEBI / 100 * 136 + (10 << 20));
            let distance = (amount - use_mib * MEBI).abs();
            // A step of the grid either way.
            prop_assert!(last.is_none_or(|last| distance <= last + amount / 14), "{distance} {last:?}");
            last = Some(distance);
        }
    }
}
