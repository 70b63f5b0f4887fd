//! The guard over made-up failures.

use std::sync::Arc;

use proptest::prelude::*;

use super::record::{LOOP, WINDOW};
use super::*;
use crate::model::failure::{Failure, FailureKind, Owner, Shortage};
use crate::model::resources::MEMORY;

const MEBI: i64 = 1 << 20;
const DAY: i64 = 86_400;

fn web() -> Owner {
    Owner::new("shop", "Deployment", "web")
}

/// A pod of `web` that used so many MiB.
fn evicted(pod: u32, at: i64, used: i64) -> Arc<Failure> {
    Arc::new(Failure::of_web(&format!("web-{pod}"), at, used * MEBI))
}

fn killed(pod: u32, at: i64, request: i64) -> Arc<Failure> {
    let mut failure = (*evicted(pod, at, request)).clone();
    failure.kind = FailureKind::OomKilled;
    failure.shortages[0].request = request * MEBI;
    Arc::new(failure)
}

/// The floor of `web`'s container in MiB.
fn floor(guard: &Guard, now: i64) -> Option<i64> {
    guard.floor(&web(), "app", MEMORY, now).map(|floor| floor.amount / MEBI)
}

#[test]
fn a_floor_is_what_was_used_and_a_step() {
    let mut guard = Guard::default();
    assert_eq!(floor(&guard, 0), None);
    assert!(guard.fold(&evicted(1, 10, 200), 10));
    assert_eq!(floor(&guard, 10), Some(300), "100 MiB more");
    guard.fold(&evicted(2, 20, 1000), 20);
    assert_eq!(floor(&guard, 20), Some(1200), "a fifth more");
    // A pod that was killed with that request, at no known use, asks for more next time.
    guard.fold(&killed(3, 30, 1200), 30);
    assert_eq!(floor(&guard, 30), Some(1440));
    // A small one later does not lower it.
    guard.fold(&evicted(4, 40, 50), 40);
    assert_eq!(floor(&guard, 40), Some(1440));
    assert_eq!(guard.floor(&web(), "other", MEMORY, 40), None);
    assert_eq!(guard.floor(&Owner::new("shop", "Deployment", "api"), "app", MEMORY, 40), None);
}

#[test]
fn a_floor_fades_after_a_day_of_calm() {
    let mut guard = Guard::default();
    guard.fold(&evicted(1, 0, 1000), 0);
    for (days, expected) in
        [(0, Some(1200)), (1, Some(600)), (2, Some(300)), (8, Some(5)), (9, None)]
    {
        assert_eq!(floor(&guard, days * DAY), expected, "after {days} days");
        assert_eq!(floor(&guard, days * DAY + DAY - 1), expected, "at the end of day {days}");
    }
    assert!(!guard.fold(&evicted(2, 0, 9000), 9 * DAY), "one of long ago");
    assert_eq!(floor(&guard, 9 * DAY), None);
}

#[test]
fn three_failures_in_ten_minutes_are_a_loop_until_it_is_calm() {
    let mut guard = Guard::default();
    for pod in 1..=2 {
        guard.fold(&evicted(pod, 0, 100), 0);
        // Told again by a later status, or a list.
        assert!(!guard.fold(&evicted(pod, 5, 100), 5));
    }
    assert_eq!(guard.loops(5).count(), 0);
    assert!(guard.fold(&evicted(3, 60, 100), 60));
    let found = guard.loops(60).next().unwrap();
    assert_eq!((found.owner, found.failures, &*found.last.pod), (&web(), 3, "web-3"));
    assert_eq!(guard.loops(WINDOW - 1).count(), 1);
    assert_eq!(guard.loops(WINDOW).count(), 0, "the first two are over");
    // Kills of one pod's container count each.
    let mut guard = Guard::default();
    for at in 0..3 {
        assert!(guard.fold(&killed(1, at, 100), at));
    }
    assert_eq!(guard.loops(3).count(), 1);
}

#[test]
fn clocks_that_are_ahead_do_not_make_it_last() {
    let mut guard = Guard::default();
    for pod in 0..3 {
        assert!(guard.fold(&killed(pod, 10 * DAY, 100), 0));
        assert!(!guard.fold(&killed(pod, 10 * DAY, 100), 1), "known");
    }
    assert_eq!(guard.loops(WINDOW - 1).count(), 1);
    assert_eq!(guard.loops(WINDOW + 1).count(), 0);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut guard = Guard::default();
    for number in 0..5000_u32 {
        let mut failure = (*evicted(number, i64::from(number), 100)).clone();
        failure.owner = Owner::new("shop", "Job", &format!("job-{number}"));
        failure.shortages = (0..40)
            .map(|container| Shortage {
                container: format!("c{container}").into(),
                ..failure.shortages[0].clone()
            })
            .collect();
        guard.fold(&Arc::new(failure), i64::from(number));
    }
    let known = |number: u32, container: &str| {
        let owner = Owner::new("shop", "Job", &format!("job-{number}"));
        guard.floor(&owner, container, MEMORY, 5000).is_some()
    };
    assert!(known(4999, "c0") && !known(0, "c0"), "the oldest makes room");
    assert!(known(4999, "c15") && !known(4999, "c16"));
    assert_eq!((0..5000).filter(|number| known(*number, "c0")).count(), 4096);
    for pod in 0..100 {
        guard.fold(&evicted(pod, 5000, 100), 5000);
    }
    let found = guard.loops(5000).next().unwrap();
    assert_eq!((found.owner, found.failures), (&web(), 32));
}

proptest! {
    #[test]
    fn order_and_repetition_do_not_matter(
        failures in prop::collection::vec((0..9_u32, 0..2 * WINDOW, 1..4000_i64, any::<bool>()), 1..20),
        order in any::<prop::sample::Index>(),
    ) {
        let make = |(pod, at, amount, kill): &(u32, i64, i64, bool)| {
            // A pod is evicted once, so that its amount and time are its own.
            if *kill { killed(*pod, *at, *amount) } else { evicted(100 + pod, i64::from(*pod), *amount) }
        };
        let now = 2 * WINDOW;
        let all: Vec<_> = failures.iter().map(make).collect();
        let (mut one, mut other) = (Guard::default(), Guard::default());
        for failure in &all {
            one.fold(failure, now);
        }
        let mut turned = all.clone();
        turned.rotate_left(order.index(all.len()));
        for failure in turned.iter().rev().chain(&all) {
            other.fold(failure, now);
        }
        prop_assert_eq!(one.floor(&web(), "app", MEMORY, now), other.floor(&web(), "app", MEMORY, now));
        let count = |guard: &Guard| guard.loops(now).next().map(|found| found.failures);
        prop_assert_eq!(count(&one), count(&other));
        prop_assert!(count(&one).is_none_or(|count| count >= LOOP));
        // A floor covers what each failure tells.
        let most = all.iter().flat_map(|f| &f.shortages).map(|s| s.used.max(s.request)).max().unwrap_or(0);
        let floor = one.floor(&web(), "app", MEMORY, now).unwrap();
        prop_assert!(floor.amount >= most + (100 << 20), "{} for {most}", floor.amount);
    }
}
