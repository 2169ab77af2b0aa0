//! What sealing and opening one packet costs, by cipher and size; what batches cost, by format; and what sealing a batch
//! costs that lies elsewhere.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use bridged_core::layout::Layout;
use bridged_core::limits::KeyLimits;
use bridged_core::packet::{DataHeader, PacketRun, OVERHEAD_V2};
use bridged_worker::keys::{KeySlot, SPARE_OCTETS};
use bridged_worker::{Cipher, Key, KeyFormat};
use criterion::{criterion_group, criterion_main, BatchSize, Criterion, Throughput};
use zeroize::Zeroizing;

fn slot(cipher: Cipher) -> KeySlot {
    slot_of(cipher, KeyFormat::Aead)
}

/// `cipher`: of 32 bytes for epochs, whose secrets have as many.
fn slot_of(cipher: Cipher, format: KeyFormat) -> KeySlot {
    let key = Key {
        key_id: 0,
        cipher,
        format,
        send_key: Zeroizing::new(vec![7; cipher.key_length()]),
        send_iv: Zeroizing::new([7; 8]),
        receive_key: Zeroizing::new(vec![7; cipher.key_length()]),
        receive_iv: Zeroizing::new([7; 8]),
    };
    let limits = KeyLimits { is_aes_gcm: true, renegotiate_bytes: 0, renegotiate_packets: 0 };
    KeySlot::new(&key, 4096, limits).unwrap()
}

fn benches(criterion: &mut Criterion) {
    let header = DataHeader { key_id: 0, peer_id: Some(7) };
    for cipher in [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        for size in [64usize, 1400, 8900] {
            let mut group = criterion.benchmark_group(cipher.name());
            group.throughput(Throughput::Bytes(size as u64));
            let near = slot(cipher);
            let mut packet = vec![0; OVERHEAD_V2 + size];
            group.bench_function(format!("seal/{size}"), |bencher| {
                bencher.iter(|| near.seal(&header, black_box(&mut packet), size, &mut near.reserve(1)));
            });
            let length = packet.len();
            group.bench_function(format!("open/{size}"), |bencher| {
                let mut sealed = || {
                    near.seal(&header, &mut packet, size, &mut near.reserve(1));
                    let mut octets = packet.clone();
                    octets.resize(length + SPARE_OCTETS, 0);
                    octets
                };
                let far = slot(cipher);
                bencher.iter_batched_ref(
                    &mut sealed,
                    |octets| far.open(octets, PacketRun::of(length, length), true, |_, _| {}, |_| {}),
                    BatchSize::SmallInput,
                );
            });
            group.finish();
        }
    }
}

/// A batch of received frames goes to other peers: sealed where it lies, copied and then sealed, or sealed from there.
fn batches(criterion: &mut Criterion) {
    let header = DataHeader { key_id: 0, peer_id: Some(7) };
    let key = slot(Cipher::Aes256Gcm);
    for (size, count) in [(60usize, 64usize), (1448, 44)] {
        let mut group = criterion.benchmark_group(format!("batch of {count}"));
        group.throughput(Throughput::Elements(count as u64));
        let stride = OVERHEAD_V2 + size;
        let mut source = vec![0u8; stride * count];
        let mut room = vec![0u8; stride * count];
        group.bench_function(format!("in place/{size}"), |bencher| {
            bencher.iter(|| {
                let mut ids = key.reserve(count);
                for packet in black_box(&mut source).chunks_mut(stride) {
                    key.seal(&header, packet, size, &mut ids);
                }
            });
        });
        group.bench_function(format!("copied, then in place/{size}"), |bencher| {
            bencher.iter(|| {
                let mut ids = key.reserve(count);
                for (packet, frame) in black_box(&mut room).chunks_mut(stride).zip(source.chunks(stride)) {
                    packet[OVERHEAD_V2..].copy_from_slice(&frame[OVERHEAD_V2..]);
                    key.seal(&header, packet, size, &mut ids);
                }
            });
        });
        group.bench_function(format!("from elsewhere/{size}"), |bencher| {
            bencher.iter(|| {
                let mut ids = key.reserve(count);
                for (packet, frame) in black_box(&mut room).chunks_mut(stride).zip(source.chunks(stride)) {
                    key.seal_from(&header, &frame[OVERHEAD_V2..], packet, &mut ids);
                }
            });
        });
        group.finish();
    }
}

/// A batch of small frames is sealed and opened, in each format of AEAD ciphers.
fn formats(criterion: &mut Criterion) {
    const SIZE: usize = 60;
    const COUNT: usize = 64;
    let header = DataHeader { key_id: 0, peer_id: Some(7) };
    let made: [fn() -> KeySlot; 2] =
        [|| slot_of(Cipher::Aes256Gcm, KeyFormat::Aead), || slot_of(Cipher::Aes256Gcm, KeyFormat::Epoch)];
    for make in made {
        let (near, far) = (make(), make());
        let stride = Layout::of(&header, near.format).sealed(SIZE);
        let mut group = criterion.benchmark_group(format!("{COUNT} packets, {:?}", near.format));
        group.throughput(Throughput::Elements(COUNT as u64));
        let mut octets = vec![0u8; stride * COUNT + SPARE_OCTETS];
        group.bench_function("seal", |bencher| {
            bencher.iter(|| seal_batch(&near, &header, black_box(&mut octets), stride, SIZE));
        });
        group.bench_function("open", |bencher| {
            bencher.iter_batched_ref(
                || {
                    seal_batch(&near, &header, &mut octets, stride, SIZE);
                    octets.clone()
                },
                |octets| far.open(octets, PacketRun::of(stride * COUNT, stride), true, |_, _| {}, |_| {}),
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

fn seal_batch(key: &KeySlot, header: &DataHeader, octets: &mut [u8], stride: usize, size: usize) {
    let mut ids = key.reserve(octets.len() / stride);
    for packet in octets.chunks_exact_mut(stride) {
        assert!(key.seal(header, packet, size, &mut ids));
    }
}

criterion_group!(seal, batches, formats, benches);
criterion_main!(seal);
