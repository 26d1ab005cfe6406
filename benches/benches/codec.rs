//! Codec, checksums and scheduling on their own: `cargo bench -p fcp-benches`.
#![allow(
    missing_docs,
    clippy::expect_used,
    reason = "criterion makes public items; a bench may fail"
)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fcp_common::transfer::{Schedule, digest};
use fcp_proto::frame::{self, HEAD_LEN};
use fcp_proto::limits::BLOCK;
use fcp_proto::packet::{Data, Entry, EntryBody, Message, Sequenced, put_data_head};
use fcp_proto::{ConnId, DirId, FileId, Flag, Name, Timestamp};

/// Content bytes of a DATA frame, as the engine cuts them.
const PIECE: usize = 60 << 10;

fn entries(n: u32) -> Vec<Entry> {
    (0..n)
        .map(|i| Entry {
            id: FileId(i),
            parent: DirId::ROOT,
            name: Name::new(format!("file-{i:08}").as_bytes()).expect("a plain name"),
            mode: 0o644,
            mtime: Timestamp { secs: 1_700_000_000, nanos: i },
            body: EntryBody::File { size: 4096, token: u64::from(i) },
        })
        .collect()
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    let content = vec![7u8; PIECE];
    group.throughput(Throughput::Bytes(PIECE as u64));
    group.bench_function("data frame, head made", |b| {
        let mut head = [0; HEAD_LEN + Data::HEAD];
        b.iter(|| put_data_head(&mut head, FileId(1), 0, black_box(&content)));
    });
    let mut framed = vec![0; Data::HEAD];
    framed.extend_from_slice(&content);
    let mut bytes = Vec::new();
    frame::encode(Flag::DATA, &framed, &mut bytes);
    group.bench_function("data frame, checked in place", |b| {
        b.iter(|| frame::decode(black_box(&bytes)).map(|f| f.map(|(f, n)| (f.flag, n))));
    });
    group.finish();

    let mut group = c.benchmark_group("messages");
    let message = Message::Entries(entries(256));
    let payload = message.to_payload(0);
    group.throughput(Throughput::Elements(256));
    group.bench_function("256 entries, written", |b| b.iter(|| black_box(&message).to_payload(0)));
    group.bench_function("256 entries, read", |b| {
        b.iter(|| Sequenced::from_payload(Flag::ENTRIES, black_box(&payload)));
    });
    group.finish();
}

fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksums of a block");
    let block = vec![3u8; BLOCK as usize];
    group.throughput(Throughput::Bytes(BLOCK));
    group.bench_function("crc32", |b| b.iter(|| crc32fast::hash(black_box(&block))));
    group.bench_function("xxh3-128", |b| b.iter(|| digest(black_box(&block))));
    group.bench_function("blake3", |b| b.iter(|| blake3::hash(black_box(&block))));
    group.finish();
}

fn scheduling(c: &mut Criterion) {
    let mut group = c.benchmark_group("schedule");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("1,000 small files over 4 connections", |b| {
        b.iter(|| {
            let mut schedule = Schedule::default();
            (0..1000).for_each(|i| schedule.want(FileId(i), 0..4096));
            let mut conn = 0;
            while let Some(block) = schedule.next(ConnId(conn % 4), Duration::ZERO) {
                schedule.handle_written(block.file, block.offset, Duration::ZERO);
                conn += 1;
            }
        });
    });
    group.bench_function("1,000 blocks, one of 8 connections lost", |b| {
        b.iter(|| {
            let mut schedule = Schedule::default();
            schedule.want(FileId(1), 0..1000 * BLOCK);
            (0..1000).for_each(|i| {
                black_box(schedule.next(ConnId(i % 8), Duration::ZERO));
            });
            schedule.handle_conn_lost(ConnId(3));
            while schedule.next(ConnId(0), Duration::ZERO).is_some() {}
        });
    });
    group.finish();
}

criterion_group!(benches, codec, checksums, scheduling);
criterion_main!(benches);
