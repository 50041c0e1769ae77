//! What the stream costs beside the model, stage by stage: time of one call, by criterion.
//!
//! `cargo bench --bench stream`; `cargo bench --bench stream -- ledger` for one of them.
#![allow(missing_docs, reason = "criterion's macros make functions without")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use panoptes::domain::MapCodec;
use panoptes::kafka::commit_metadata;
use panoptes::kafka::offsets::OffsetLedger;
use panoptes::schema::result::PartResult;
use panoptes::scoring::{MapSettings, decode_map, encode_map};

#[allow(dead_code, reason = "shared with another bench")]
mod line;

const IMAGE_BYTES: usize = 100_000;

fn envelope(criterion: &mut Criterion) {
    let (decoder, image) = (line::decoder(), vec![7; IMAGE_BYTES]);
    criterion.bench_function("envelope/decode", |bencher| {
        bencher.iter_batched(
            || line::record(0, 0, &image),
            |record| line::decode(&decoder, record, line::time_of(0)),
            BatchSize::SmallInput,
        );
    });
}

fn reassembly(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reassembly/accept");
    for bytes in [1_000, IMAGE_BYTES] {
        let (decoder, buffer, image) = (line::decoder(), line::buffer(), vec![7; bytes]);
        group.throughput(Throughput::Elements(2));
        let mut part = 0;
        group.bench_function(format!("part of 2 views of {bytes} bytes"), |bencher| {
            bencher.iter_batched(
                || {
                    part += 1;
                    let view = |view| {
                        line::decode(
                            &decoder,
                            line::record(part, view, &image),
                            line::time_of(part),
                        )
                    };
                    (line::time_of(part), [view(0), view(1)])
                },
                |(now, [first, second])| {
                    let events = buffer.accept(first, now);
                    assert!(events.is_empty());
                    line::closed(buffer.accept(second, now)).expect("the part is complete")
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn ledger(criterion: &mut Criterion) {
    let mut ledger = OffsetLedger::default();
    ledger.assign([line::partition(0)], line::GENERATION);
    let source = |offset: i64| {
        let mut source = line::record(0, 0, &[]).source;
        source.offset = offset;
        source
    };
    // Some hundred records are always on their way, as in a busy partition.
    let mut next = 0;
    let behind = 256;
    criterion.bench_function("ledger/begin and finish", |bencher| {
        bencher.iter_batched(
            || {
                next += 1;
                (source(next), source(next - behind))
            },
            |(read, done)| {
                ledger.begin(&read);
                ledger.finish(&done, line::GENERATION)
            },
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("ledger/positions to commit", |bencher| {
        bencher.iter(|| black_box(&ledger).positions_to_commit());
    });
}

fn metadata(criterion: &mut Criterion) {
    let ranges: Vec<_> = (0..500)
        .map(|range| 10 * range + 3..10 * range + 8)
        .collect();
    let text = commit_metadata::encode(0, &ranges).text;
    assert_eq!(commit_metadata::decode(0, &text), ranges);
    criterion.bench_function("commit metadata/encode 500 ranges", |bencher| {
        bencher.iter(|| commit_metadata::encode(0, black_box(&ranges)));
    });
    criterion.bench_function("commit metadata/decode 500 ranges", |bencher| {
        bencher.iter(|| commit_metadata::decode(0, black_box(&text)));
    });
}

fn maps(criterion: &mut Criterion) {
    let map = line::map(392);
    for (name, codec) in [("png", MapCodec::Png), ("zstd", MapCodec::Zstd)] {
        let settings = MapSettings { codec, side: 128 };
        criterion.bench_function(&format!("map codec/encode {name}"), |bencher| {
            bencher.iter(|| encode_map(black_box(&map), settings));
        });
        let encoded = encode_map(&map, settings);
        criterion.bench_function(&format!("map codec/decode {name}"), |bencher| {
            bencher.iter(|| decode_map(black_box(&encoded)).expect("it was just encoded"));
        });
    }
}

fn results(criterion: &mut Criterion) {
    let (verdict, model, run) = (line::verdict(), line::model(), line::run());
    let result = || PartResult::new(black_box(&verdict), &model, &run);
    let sound = "a result is data that any encoder takes";
    criterion.bench_function("result/msgpack", |bencher| {
        bencher.iter(|| result().to_msgpack().expect(sound));
    });
    criterion.bench_function("result/json", |bencher| {
        bencher.iter(|| result().to_json().expect(sound));
    });
}

criterion_group!(
    benches, envelope, reassembly, ledger, metadata, maps, results
);
criterion_main!(benches);
