//! Every input of the committed fuzz corpus, once more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod frame_builder;

#[path = "../../fuzz/src/lib.rs"]
mod targets;

#[path = "../../fuzz/src/inputs.rs"]
mod inputs;

use std::fs;

use frame_builder::{data, Packet, ACK, PSH};
use inputs::replay;

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

fn shapes() -> Vec<Packet> {
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
                shapes.push(packet);
            }
        }
    }
    shapes
}

/// Add an input to those of the target, unless it is there.
fn add(target: &str, input: &[u8]) {
    let line: String = input.iter().map(|octet| format!("{octet:02x}")).collect();
    let mut lines = fs::read_to_string(inputs::file(target)).unwrap_or_default();
    if !lines.lines().any(|known| known == line) {
        lines.push_str(&line);
        lines.push('\n');
        fs::write(inputs::file(target), lines).unwrap();
    }
}

/// Write the inputs that fuzzing begins with: `cargo test -p bridged-core --test corpus -- --ignored`.
#[test]
#[ignore = "writes the corpus; run by hand when formats change"]
fn write_first_inputs() {
    for packet in shapes() {
        let mut input = packet.vnet(200).serialize()[..10].to_vec();
        input.extend(300u16.to_be_bytes());
        input.extend(packet.partial_frame());
        add("segmenter", &input);
        let mut input = Vec::new();
        for frame in packet.segments(200) {
            input.extend((frame.len() as u16).to_be_bytes());
            input.extend(frame);
        }
        add("coalescer", &input);
    }
    let frame = Packet { payload: data(10, 1), ..Packet::default() }.frame();
    let mut input = (frame.len() as u16).to_be_bytes().to_vec();
    input.extend(frame);
    input.extend([0xFF; 12]);
    add("coalescer", &input);
    add("fdb", &[2, 1, 1, 0, 2, 1, 2, 1, 2, 1, 0, 0, 2, 1, 0, 255, 1, 0, 0, 255, 1, 0, 0, 255, 1, 0, 0, 255]);
    add("fdb", &(0..12).flat_map(|number| [3, number, 1, 0]).collect::<Vec<u8>>());
    add("fdb", &(0..30).flat_map(|number| [3, number, number % 4, 0]).collect::<Vec<u8>>());
    add("fdb", &[2, 1, 1, 0, 2, 2, 1, 0, 2, 3, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0]);
    add("packet", &[&[6 << 3 | 1][..], &data(40, 0)].concat());
    add("packet", &[&[9 << 3 | 7][..], &data(40, 0)].concat());
    add("packet", &[9 << 3, 0, 0]);
    add("packet", &bridged_core::packet::PING);
    add("packet", &bridged_core::packet::OCC_MAGIC);
}
