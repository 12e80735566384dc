//! What a report of 1,000 fixes costs on its way up, without HTTP and the log: admission, and encoding.

use std::{fmt::Write as _, hint::black_box};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use waypost_ingest::admission::{self, Limits, Report, Sender};
use waypost_schemas::{codec, event::Event, id::DeviceId, time::Micros};

const FIXES: usize = 1_000;
/// 2026-07-01T12:00:00Z.
const NOW: Micros = Micros(1_782_907_200_000_000);

/// A body as `waypost import` sends it: places to seven decimals, times to the second, accuracy and speed.
fn body() -> String {
    let mut text = String::from(r#"{"id":"r-1","fixes":["#);
    for i in 0..FIXES {
        let comma = if i == 0 { "" } else { "," };
        let (lat, lon) = (46.0 + i as f64 * 1.234_567e-4, 7.0 + i as f64 * 2.345_678e-4);
        let (minute, second) = (i / 60, i % 60);
        let _ = write!(
            text,
            r#"{comma}{{"lat":{lat:.7},"lon":{lon:.7},"at":"2026-06-30T11:{minute:02}:{second:02}Z","accuracy_m":4.5,"speed_mps":13.2}}"#
        );
    }
    text + "]}"
}

fn admit(body: &str, device: &DeviceId) -> Report {
    let sender = Sender { device, operator: false };
    admission::report(body.as_bytes(), sender, &Limits::default(), NOW).expect("a good report")
}

fn report(c: &mut Criterion) {
    let (body, device) = (body(), DeviceId::new("depot/van-7").expect("a device"));
    let events: Vec<Event> = admit(&body, &device).fixes.into_iter().map(Event::from).collect();
    let mut group = c.benchmark_group("report");
    group.throughput(Throughput::Elements(FIXES as u64));
    group.bench_function("admit", |b| b.iter(|| admit(black_box(&body), &device)));
    group.bench_function("encode", |b| {
        b.iter(|| events.iter().map(|event| codec::encode(black_box(event)).len()).sum::<usize>());
    });
    group.finish();
}

criterion_group!(benches, report);
criterion_main!(benches);
