//! Runs of seeds, and the tests.

use std::{
    collections::BTreeMap,
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use waypost_runtime::{
    lifecycle,
    telemetry::{self, Format},
};

use crate::{
    bug::{BUGS, Bug},
    digest,
    met::Met,
    oracle::Log,
    world::{Trace, World},
};

/// How many seeds a test run has.
const SEEDS: u64 = 200;
/// How many seeds are run twice, to see that nothing but the seed decides.
const SEEDS_TWICE: u64 = 20;
/// How many seeds a planted bug may pass at most before one catches it.
const SEEDS_UNTIL_CAUGHT: u64 = 300;

/// What came of a seed.
struct Run {
    failure: Option<String>,
    met: BTreeMap<&'static str, u64>,
    trace: Vec<String>,
    /// Of the trace, of every step of every process, and of the log.
    digest: u64,
}

/// Runs one seed.
fn run(seed: u64, bug: Option<Bug>, trace: Option<Trace>) -> Run {
    lifecycle::block_in_turn();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime of one thread can be built").block_on(async {
        let mut world = World::new(seed, bug, trace);
        let rounds = world.dice.within(1..=3);
        let outcome = async {
            for _ in 0..rounds {
                let acts = world.dice.within(20..=90);
                world.live(acts).await?;
                world.quiet().await?;
            }
            world.rebuild().await
        };
        let failure = outcome.await.err();
        let (met, trace) = (world.met.counts(), world.take_trace());
        let ends =
            [format!("{failure:?} {met:?}"), format!("{:x}", world.steps()), Log::of(&world.cluster).text()];
        let digest = digest::of(trace.iter().chain(&ends).map(String::as_str));
        Run { failure, met, trace, digest }
    })
}

/// Runs seeds on all processors until one fails; gives what they met, and the first failure.
fn many(seeds: std::ops::Range<u64>, bug: Option<Bug>) -> (Met, Option<(u64, String)>) {
    let (next, met, failed) =
        (AtomicU64::new(seeds.start), Met::default(), Mutex::new(None::<(u64, String)>));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            let mut found = failed.lock().unwrap_or_else(PoisonError::into_inner);
            if seed >= seeds.end || found.as_ref().is_some_and(|(at, _)| *at < seed) {
                return;
            }
            drop(found);
            let run = run(seed, bug, None);
            met.add(&run.met);
            if let Some(why) = run.failure {
                found = failed.lock().unwrap_or_else(PoisonError::into_inner);
                if found.as_ref().is_none_or(|(at, _)| seed < *at) {
                    *found = Some((seed, why));
                }
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    (met, failed)
}

/// A number in a variable of the environment: how `infra/test` hands over what it was asked for.
#[allow(clippy::disallowed_methods, reason = "a switch of this test, which has no settings")]
fn asked(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

#[test]
fn whatever_goes_wrong_everything_arrives_once_in_order_and_the_same_when_it_is_made_again() {
    if let Some(seed) = asked("WAYPOST_SIM_SEED") {
        let filter = "info,waypost_processor=debug,waypost_ingest=debug,waypost_runtime=debug";
        telemetry::init(Format::Pretty, filter).expect("logging can be started");
        let run = run(seed, None, Some(Trace::aloud()));
        println!("seed {seed} met: {:?}", run.met);
        assert_eq!(run.failure, None, "seed {seed}");
        return;
    }
    let seeds = asked("WAYPOST_SIM_SEEDS").unwrap_or(SEEDS);
    let (met, failed) = many(0..seeds, None);
    println!("{seeds} seeds met: {met}");
    if let Some((seed, why)) = failed {
        panic!("seed {seed}: {why}\nagain with its trace: infra/test --sim-seed {seed}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let seeds = || (0..SEEDS_TWICE).map(|seed| run(seed, None, Some(Trace::default()))).collect::<Vec<Run>>();
    let (ones, twos) = thread::scope(|scope| {
        let (ones, twos) = (scope.spawn(seeds), scope.spawn(seeds));
        (ones.join().expect("the first runs"), twos.join().expect("the second runs"))
    });
    for (seed, (one, two)) in ones.iter().zip(&twos).enumerate() {
        assert!(!one.trace.is_empty());
        assert_eq!(one.trace, two.trace, "seed {seed}");
        assert_eq!(one.met, two.met, "seed {seed}");
        assert_eq!(one.failure, two.failure, "seed {seed}");
        assert_eq!(
            one.digest, two.digest,
            "seed {seed} has the same trace, and differs in its steps or its log"
        );
    }
    assert_ne!(ones[0].digest, ones[1].digest, "the digest sees no difference");
}

#[test]
fn every_planted_bug_is_caught() {
    for bug in BUGS {
        let (_, failed) = many(0..SEEDS_UNTIL_CAUGHT, Some(bug));
        let (seed, why) =
            failed.unwrap_or_else(|| panic!("{bug:?} was not caught in {SEEDS_UNTIL_CAUGHT} seeds"));
        println!("{bug:?} is caught by seed {seed}: {why}");
    }
}
