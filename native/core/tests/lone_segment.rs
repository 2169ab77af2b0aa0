//! A segment that came alone is cut as if its sender had made smaller ones, or it is left alone.
#![allow(clippy::unwrap_used)]

mod frame_builder;

use bridged_core::segment::{SuperFrame, LEAST_FITTED_PAYLOAD};
use frame_builder::{data, Packet, ACK, CWR, ECE, FIN, PSH};
use proptest::prelude::*;

const SYN: u8 = 2;
const RST: u8 = 4;
const URG: u8 = 32;

fn cut_all(frame: &[u8], fit: usize) -> Option<Vec<Vec<u8>>> {
    let parsed = SuperFrame::of_segment(frame)?;
    let cut = parsed.cut(fit);
    let frames = (0..cut.count).map(|index| {
        let mut out = vec![0; cut.first_len];
        let written = parsed.write(&cut, index, &mut out);
        out.truncate(written);
        out
    });
    Some(frames.collect())
}

fn is_left_alone(packet: &Packet) -> bool {
    SuperFrame::of_segment(&packet.frame()).is_none()
}

fn segments() -> impl Strategy<Value = Packet> {
    let tags = prop_oneof![Just(vec![]), Just(vec![[0x81, 0x00, 0x20, 0x05]])];
    let timestamps = vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let acknowledged = vec![1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let options = prop_oneof![Just(vec![]), Just(timestamps), Just(acknowledged), Just(vec![1, 1, 0, 7])];
    let flags = prop_oneof![Just(0), Just(PSH), Just(PSH | FIN), Just(ECE), Just(CWR | PSH)];
    let shape = (tags, any::<bool>(), options, flags);
    let fields = (any::<u16>(), any::<u32>(), any::<u8>(), any::<u16>());
    (shape, fields, proptest::collection::vec(any::<u8>(), 1..1500)).prop_map(
        |((tags, is_v4, options, flags), (identity, sequence, tos, window), payload)| Packet {
            tags,
            is_v4,
            options,
            flags: ACK | flags,
            identity,
            sequence,
            tos,
            window,
            payload,
            ..Packet::default()
        },
    )
}

proptest! {
    #[test]
    fn it_is_cut_as_its_sender_would_have_cut_it(packet in segments(), fit in 0usize..1700) {
        let room = fit.saturating_sub(packet.header_len());
        let size = if room >= LEAST_FITTED_PAYLOAD { room } else { packet.payload.len() };
        prop_assert_eq!(cut_all(&packet.frame(), fit).unwrap(), packet.segments(size));
    }

    #[test]
    fn no_changed_octet_is_made_good(packet in segments(), at in 14usize..1600, octet in 1u8..) {
        let mut frame = packet.frame();
        // Window, addresses and so on: whatever is changed, either a checksum tells, or it counts for nothing.
        let at = packet.network() + (at % (frame.len() - packet.network()));
        frame[at] ^= octet;
        if let Some(frames) = cut_all(&frame, 1 + frame.len()) {
            prop_assert_eq!(frames, [frame]);
        }
    }

    #[test]
    fn no_octets_can_make_it_panic(packet in segments(), damage in proptest::collection::vec((0usize..120, any::<u8>()), 1..6), length in 0usize..1600) {
        let mut frame = packet.frame();
        for (at, octet) in damage {
            if let Some(place) = frame.get_mut(at) {
                *place = octet;
            }
        }
        frame.truncate(length);
        let _ = cut_all(&frame, 500);
    }
}

#[test]
fn what_is_of_the_segment_as_a_whole_is_left_alone() {
    let good = Packet { payload: data(1400, 1), ..Packet::default() };
    assert!(!is_left_alone(&good));
    for flags in [ACK | SYN, ACK | RST, ACK | URG, 0, ACK | ECE | CWR] {
        assert!(is_left_alone(&Packet { flags, ..good.clone() }), "flags {flags:#x}");
    }
    let signature = [vec![1, 1, 19, 18], vec![7; 16]].concat();
    let mapping = vec![30, 12, 0x20, 5, 0, 0, 0, 1, 0, 0, 0, 2];
    let endless = vec![1, 1, 8, 11, 0, 0, 0, 1, 0, 0, 0, 2];
    for options in [signature, mapping, endless, vec![1, 1, 1, 8], vec![1, 1, 8, 0]] {
        assert!(is_left_alone(&Packet { options: options.clone(), ..good.clone() }), "options {options:?}");
    }
    for fragment in [0, 0x2000, 0x4001, 0x00B9, 0xC000] {
        assert!(is_left_alone(&Packet { fragment, ..good.clone() }), "fragment {fragment:#x}");
    }
    assert!(is_left_alone(&Packet { is_tcp: false, ..good.clone() }), "UDP");
    assert!(is_left_alone(&Packet { extra: vec![1; 4], ..good.clone() }), "an IPv4 option");
    assert!(is_left_alone(&Packet { is_v4: false, extra: vec![0; 8], ..good.clone() }), "an extension header");
    assert!(is_left_alone(&Packet { payload: vec![], ..good.clone() }), "an acknowledgement");
    let mut padded = good.frame();
    padded.push(0);
    assert!(SuperFrame::of_segment(&padded).is_none(), "padding");
    let mut other = good.frame();
    other[12..14].copy_from_slice(&[0x88, 0xB5]);
    assert!(SuperFrame::of_segment(&other).is_none(), "another EtherType");
}

#[test]
fn a_wrong_checksum_is_left_alone() {
    for is_v4 in [true, false] {
        let packet = Packet { is_v4, payload: data(1400, 1), ..Packet::default() };
        for at in [packet.transport() + 16, packet.transport() + 17, packet.header_len() + 700] {
            let mut frame = packet.frame();
            frame[at] ^= 1;
            assert!(SuperFrame::of_segment(&frame).is_none(), "octet {at}");
        }
    }
    let packet = Packet { payload: data(1400, 1), ..Packet::default() };
    let mut frame = packet.frame();
    frame[14 + 10] ^= 1;
    assert!(SuperFrame::of_segment(&frame).is_none(), "the IPv4 header's");
}
