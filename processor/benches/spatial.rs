//! The spatial machine on the storks (or on a generated fleet), beside its bare look-ups.

#[path = "../tests/storks/mod.rs"]
mod storks;

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use waypost_processor::{
    bench::{changes, fold, look_up, track::Track},
    machine::Machine,
    registry::What,
    spatial::{SpatialMachine, ZoneIndex},
};
use waypost_schemas::event::Event;

fn spatial(c: &mut Criterion) {
    let (zones, fixes) = if let Some(data) = storks::data() {
        (storks::countries(&data), storks::fixes(&data, 0))
    } else {
        let track = Track::generate(1, 250, 15, 10_000);
        (track.zones(), track.fixes(0))
    };
    let changes = changes(zones);
    let registry = changes.last().expect("there is a rule").offset;
    let events: Vec<Event> = fixes.into_iter().map(Event::from).collect();
    let zones = changes.iter().filter_map(|change| match &change.what {
        What::Zone(zone) => Some(Arc::clone(zone)),
        _ => None,
    });
    let index = ZoneIndex::new(zones);
    let machine = || {
        let mut machine = SpatialMachine::new();
        for change in &changes {
            machine.look(change);
        }
        machine
    };

    let mut group = c.benchmark_group("spatial");
    group.throughput(Throughput::Elements(events.len() as u64)).sample_size(10);
    group.bench_function("floor", |b| b.iter(|| black_box(look_up(&index, &events))));
    group.bench_function("machine", |b| {
        b.iter_batched(machine, |mut m| black_box(fold(&mut m, &events, registry)), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, spatial);
criterion_main!(benches);
