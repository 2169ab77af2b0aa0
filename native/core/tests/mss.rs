//! The MSS clamp.
#![allow(clippy::unwrap_used)]

mod frame_builder;

use bridged_core::mss::{clamp_mss, clamp_mss_to_frame, is_syn};
use frame_builder::{Packet, ACK};
use proptest::prelude::*;

const SYN: u8 = 2;

fn syn(mss: u16, before: usize) -> Packet {
    let mut options = vec![1; before];
    options.extend([2, 4]);
    options.extend(mss.to_be_bytes());
    options.resize(options.len().div_ceil(4) * 4, 0);
    Packet { flags: SYN, options, payload: vec![], ..Packet::default() }
}

#[test]
fn a_syn_is_lowered_to_the_limit_and_never_raised() {
    let mut frame = syn(1460, 0).frame();
    assert!(clamp_mss(&mut frame, 1368));
    assert_eq!(frame, syn(1368, 0).frame());
    assert!(!clamp_mss(&mut frame, 1368));
    assert!(!clamp_mss(&mut frame, 1400));
    assert_eq!(frame, syn(1368, 0).frame());
}

#[test]
fn ipv6_gets_20_less_and_limits_that_leave_nothing_are_not_applied() {
    let packet = |mss| Packet { is_v4: false, ..syn(mss, 0) };
    let mut frame = packet(1440).frame();
    assert!(clamp_mss(&mut frame, 1368));
    assert_eq!(frame, packet(1348).frame());
    assert!(!clamp_mss(&mut frame, 20));
    assert!(!clamp_mss(&mut frame, 3));
    assert!(!clamp_mss(&mut syn(1460, 0).frame(), 0));
}

#[test]
fn a_full_segment_of_the_lowered_mss_is_a_frame_of_the_given_size() {
    for tags in [vec![], vec![[0x81, 0, 0, 1]]] {
        for is_v4 in [true, false] {
            let packet = |mss| Packet { tags: tags.clone(), is_v4, ..syn(mss, 0) };
            let headers = 14 + 4 * tags.len() + if is_v4 { 20 } else { 40 } + 20;
            let mut frame = packet(1460).frame();
            assert!(is_syn(&frame));
            assert!(clamp_mss_to_frame(&mut frame, 1440));
            assert_eq!(frame, packet((1440 - headers) as u16).frame());
            assert!(!clamp_mss_to_frame(&mut frame, 1440));
            assert!(!clamp_mss_to_frame(&mut frame, usize::MAX));
            assert!(!clamp_mss_to_frame(&mut frame, headers + 63));
            assert!(!clamp_mss_to_frame(&mut frame, 0));
        }
    }
}

#[test]
fn what_is_no_syn_with_an_mss_is_left_alone() {
    let packets = [
        Packet { flags: ACK, ..syn(1460, 0) },
        Packet { fragment: 0x2000, ..syn(1460, 0) },
        Packet { fragment: 0x0001, ..syn(1460, 0) },
        Packet { options: vec![], ..syn(1460, 0) },
        Packet { options: vec![0, 2, 4, 5, 0xB4, 0, 0, 0], ..syn(1460, 0) },
        Packet { options: vec![3, 0, 2, 4, 5, 0xB4, 0, 0], ..syn(1460, 0) },
        Packet { options: vec![2, 3, 5, 1], ..syn(1460, 0) },
        Packet { options: vec![1, 1, 2, 4], ..syn(1460, 0) },
        Packet { is_v4: false, extra: vec![0; 8], ..syn(1460, 0) },
        Packet { tags: vec![[0x81, 0, 0, 1]; 3], ..syn(1460, 0) },
        Packet { is_tcp: false, payload: vec![2; 40], ..Packet::default() },
    ];
    for packet in packets {
        let mut frame = packet.frame();
        assert!(!clamp_mss(&mut frame, 500), "{packet:?}");
        assert_eq!(frame, packet.frame());
    }
}

proptest! {
    #[test]
    fn the_frame_is_that_of_a_sender_with_the_lower_mss(
        is_v4: bool, mss: u16, limit in 21u16.., before in 0usize..6, tags in 0usize..3, extra in 0usize..4, sequence: u32, flags in 0u8..,
    ) {
        let make = |mss| Packet {
            is_v4,
            tags: vec![[0x81, 0, 0, 9]; tags],
            extra: if is_v4 { vec![1; extra * 4] } else { vec![] },
            sequence,
            flags: flags | SYN,
            ..syn(mss, before)
        };
        let wanted = if is_v4 { limit } else { limit - 20 };
        let mut frame = make(mss).frame();
        prop_assert_eq!(clamp_mss(&mut frame, limit), mss > wanted);
        let expected = make(mss.min(wanted)).frame();
        // 0 and FFFF are one sum in two spellings; an update cannot know which one the sender would use.
        let at = make(0).transport() + 16;
        let sums: Vec<u16> = [&frame, &expected].iter().map(|f| u16::from_be_bytes([f[at], f[at + 1]]) % 0xFFFF).collect();
        prop_assert_eq!(sums[0], sums[1]);
        frame[at..at + 2].copy_from_slice(&expected[at..at + 2]);
        prop_assert_eq!(frame, expected);
    }

    #[test]
    fn a_wrong_checksum_stays_as_wrong_as_it_was(mss in 600u16.., by in 1u16..0xFFFF) {
        let at = syn(0, 0).transport() + 16;
        let shift = |frame: &mut Vec<u8>| {
            let sum = u32::from(u16::from_be_bytes([frame[at], frame[at + 1]])) + u32::from(by);
            frame[at..at + 2].copy_from_slice(&((sum % 0xFFFF) as u16).to_be_bytes());
        };
        let (mut frame, mut expected) = (syn(mss, 0).frame(), syn(500, 0).frame());
        shift(&mut frame);
        shift(&mut expected);
        prop_assert!(clamp_mss(&mut frame, 500));
        let value = |frame: &[u8]| u16::from_be_bytes([frame[at], frame[at + 1]]) % 0xFFFF;
        prop_assert_eq!(value(&frame), value(&expected));
    }

    #[test]
    fn no_octets_can_make_it_panic(mut frame in proptest::collection::vec(any::<u8>(), 0..120), is_v4: bool, limit: u16) {
        if frame.len() > 60 {
            frame[12..15].copy_from_slice(if is_v4 { &[8, 0, 0x46] } else { &[0x86, 0xDD, 0x60] });
            let at = if is_v4 { 23 } else { 20 };
            frame[at] = 6;
        }
        let length = frame.len();
        clamp_mss(&mut frame, limit);
        prop_assert_eq!(frame.len(), length);
    }
}
