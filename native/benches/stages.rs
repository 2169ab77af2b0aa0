//! Each stage of the data plane by itself, on data that is in the cache.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../core/tests/frame_builder/mod.rs"]
mod frame_builder;

use std::hint::black_box;

use bridged_core::checksum::{copy_and_sum, sum};
use bridged_core::coalesce::{CoalesceRules, Coalescer, Group};
use bridged_core::fdb::{Fdb, FdbSettings, Station};
use bridged_core::headers::{addresses, Mac};
use bridged_core::local_cache::LocalCache;
use bridged_core::mss::clamp_mss;
use bridged_core::policer::{Rate, Source, SourceLimit};
use bridged_core::replay::ReplayWindow;
use bridged_core::segment::SuperFrame;
use bridged_core::SECOND;
use criterion::{criterion_group, criterion_main, Criterion, Throughput};
use frame_builder::{data, Packet};

fn checksums(criterion: &mut Criterion) {
    for octets in [64usize, 1400, 65_000] {
        let source = data(octets, 1);
        let mut target = vec![0; octets];
        let mut group = criterion.benchmark_group(format!("checksum/{octets}"));
        group.throughput(Throughput::Bytes(octets as u64));
        group.bench_function("sum", |bencher| bencher.iter(|| sum(black_box(&source))));
        group.bench_function("copy_and_sum", |bencher| {
            bencher.iter(|| copy_and_sum(black_box(&source), black_box(&mut target)))
        });
        group.bench_function("memcpy", |bencher| {
            bencher.iter(|| black_box(&mut target).copy_from_slice(black_box(&source)))
        });
    }
}

fn segmenter(criterion: &mut Criterion) {
    for (name, is_v4, is_tcp) in [("tcp4", true, true), ("tcp6", false, true), ("udp4", true, false)] {
        let packet = Packet { is_v4, is_tcp, payload: data(63_712, 1), ..Packet::default() };
        let (vnet, frame) = (packet.vnet(1448), packet.partial_frame());
        let mut out = vec![0; 70_000];
        let mut group = criterion.benchmark_group("segment");
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(format!("{name}/64KiB"), |bencher| {
            bencher.iter(|| {
                let parsed = SuperFrame::parse(black_box(&vnet), black_box(&frame)).unwrap();
                let cut = parsed.cut(1446);
                let mut at = 0;
                for index in 0..cut.count {
                    at += parsed.write(&cut, index, &mut out[at..]);
                }
                at
            });
        });
    }
}

fn coalescer(criterion: &mut Criterion) {
    let rules = CoalesceRules { tcp4: true, tcp6: true, udp4: true, udp6: true, tagged: true };
    let flow = |port, is_tcp, octets, size| {
        Packet { port, is_tcp, payload: data(octets, 1), ..Packet::default() }.segments(size)
    };
    let four: Vec<Vec<Vec<u8>>> = (0..4).map(|port| flow(port, true, 15 * 1448, 1448)).collect();
    let mixed =
        (0..15).flat_map(|at| (0..4).map(move |port| (port, at))).map(|(port, at)| four[port as usize][at].clone());
    let lone = (0..64).flat_map(|port| flow(port, true, 64, 64));
    let batches: [(&str, Vec<Vec<u8>>); 5] = [
        ("tcp_1_flow/44x1448", flow(1, true, 44 * 1448, 1448)),
        ("tcp_4_flows/60x1448", mixed.collect()),
        ("udp_1_flow/44x1448", flow(1, false, 44 * 1448, 1448)),
        ("tcp_lone/64x64", lone.collect()),
        ("tcp_1_flow/1x64", flow(1, true, 64, 64)),
    ];
    for (name, frames) in batches {
        let mut coalescer = Coalescer::new(rules, 1);
        let mut group = criterion.benchmark_group("coalesce");
        group.throughput(Throughput::Elements(frames.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for (index, frame) in black_box(&frames).iter().enumerate() {
                    coalescer.push(frame, index as u32);
                }
                let count = |group| match group {
                    Group::Plain { index } => index as usize,
                    Group::Super(group) => group.parts().map(|part| part as usize).sum::<usize>() + group.octets,
                };
                coalescer.finish().map(count).sum::<usize>()
            });
        });
    }
}

fn switch(criterion: &mut Criterion) {
    let settings = FdbSettings {
        capacity: 100_000,
        addresses_per_peer: 100_000,
        ageing: 300 * SECOND,
        move_hold: SECOND / 4,
        refresh: SECOND / 16,
    };
    let mac = |number: u32| {
        let [a, b, c, d] = number.to_be_bytes();
        Station::new(0, Mac::new([2, 0, a, b, c, d]))
    };
    let mut fdb = Fdb::new(settings, 1);
    for number in 0..100_000 {
        fdb.learn(mac(number), 1 + u64::from(number % 50), 0).unwrap();
    }
    let mut cache = LocalCache::new(4096, 2);
    cache.put(mac(1), 1, 0, u64::MAX);
    let frame = Packet::default().frame();
    let mut number = 0u32;
    let mut next = move || {
        number = (number + 7919) % 100_000;
        number
    };
    let mut group = criterion.benchmark_group("switch");
    group.bench_function("addresses_of_a_frame", |bencher| bencher.iter(|| addresses(black_box(&frame))));
    group.bench_function("cache_hit", |bencher| bencher.iter(|| cache.get(black_box(mac(1)), 0, 1)));
    group.bench_function("find/100000", |bencher| bencher.iter(|| fdb.find(mac(next()), 1)));
    group.bench_function("refresh/100000", |bencher| {
        bencher.iter(|| {
            let number = next();
            fdb.learn(mac(number), 1 + u64::from(number % 50), 1)
        });
    });
    group.bench_function("sweep_4096", |bencher| bencher.iter(|| fdb.sweep(1)));
}

fn small_stages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("packet");
    let mut window = ReplayWindow::new(4096).unwrap();
    let mut id = 0u64;
    group.bench_function("replay_accept", |bencher| {
        bencher.iter(|| {
            id = id.wrapping_add(1);
            window.accept(black_box(id))
        });
    });
    let mut frame = Packet::default().frame();
    group.bench_function("mss_no_syn", |bencher| bencher.iter(|| clamp_mss(black_box(&mut frame), 1368)));
    let mut limit = SourceLimit::new(3);
    let mut address = 0u128;
    group.bench_function("policer_flood", |bencher| {
        bencher.iter(|| {
            address += 1;
            limit.allows(Source { address, port: 0 }, 0, Rate::STRANGER)
        });
    });
}

criterion_group!(stages, checksums, segmenter, coalescer, switch, small_stages);
criterion_main!(stages);
