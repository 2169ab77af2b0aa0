//! Every input of the committed fuzz corpus, once more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod frame_builder;

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::PathBuf;

use frame_builder::{data, Packet, ACK, PSH};

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

fn replay(target: &str, run: fn(&[u8])) {
    let mut inputs: Vec<PathBuf> = fs::read_dir(corpus(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    assert!(inputs.len() >= 4, "{} inputs for {target}", inputs.len());
    for input in inputs {
        println!("{}", input.display());
        run(&fs::read(input).unwrap());
    }
}

#[test]
fn segmenter() {
    replay("segmenter", targets::segmenter);
}

#[test]
fn coalescer() {
    replay("coalescer", targets::coalescer);
}

#[test]
fn fdb() {
    replay("fdb", targets::fdb);
}

#[test]
fn packet() {
    replay("packet", targets::packet);
}

fn shapes() -> Vec<(String, Packet)> {
    let mut shapes = Vec::new();
    for is_v4 in [true, false] {
        for is_tcp in [true, false] {
            for tags in 0..3 {
                let packet = Packet {
                    is_v4,
                    is_tcp,
                    tags: vec![[0x81, 0, 0, 5]; tags],
                    flags: ACK | PSH,
                    payload: data(700, tags as u8),
                    ..Packet::default()
                };
                let family = if is_v4 { 4 } else { 6 };
                let name = format!("{}{family}_{tags}_tags", if is_tcp { "tcp" } else { "udp" });
                shapes.push((name, packet));
            }
        }
    }
    shapes
}

/// Write the inputs that fuzzing begins with: `cargo test -p bridged-core --test corpus -- --ignored`.
#[test]
#[ignore = "writes the corpus; run by hand when formats change"]
fn write_first_inputs() {
    let write = |target: &str, name: &str, input: &[u8]| {
        fs::create_dir_all(corpus(target)).unwrap();
        fs::write(corpus(target).join(name), input).unwrap();
    };
    for (name, packet) in shapes() {
        let mut input = packet.vnet(200).serialize()[..10].to_vec();
        input.extend(300u16.to_be_bytes());
        input.extend(packet.partial_frame());
        write("segmenter", &name, &input);
        let mut input = Vec::new();
        for frame in packet.segments(200) {
            input.extend((frame.len() as u16).to_be_bytes());
            input.extend(frame);
        }
        write("coalescer", &name, &input);
    }
    let frame = Packet { payload: data(10, 1), ..Packet::default() }.frame();
    let mut input = (frame.len() as u16).to_be_bytes().to_vec();
    input.extend(frame);
    input.extend([0xFF; 12]);
    write("coalescer", "repeated", &input);
    write(
        "fdb",
        "learn_move_age",
        &[2, 1, 1, 0, 2, 1, 2, 1, 2, 1, 0, 0, 2, 1, 0, 255, 1, 0, 0, 255, 1, 0, 0, 255, 1, 0, 0, 255],
    );
    write("fdb", "limit", &(0..12).flat_map(|number| [3, number, 1, 0]).collect::<Vec<u8>>());
    write("fdb", "full", &(0..30).flat_map(|number| [3, number, number % 4, 0]).collect::<Vec<u8>>());
    write("fdb", "flush", &[2, 1, 1, 0, 2, 2, 1, 0, 2, 3, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0]);
    write("packet", "data_v1", &[&[6 << 3 | 1][..], &data(40, 0)].concat());
    write("packet", "data_v2", &[&[9 << 3 | 7][..], &data(40, 0)].concat());
    write("packet", "short", &[9 << 3, 0, 0]);
    write("packet", "ping", &bridged_core::packet::PING);
    write("packet", "occ", &bridged_core::packet::OCC_MAGIC);
}
