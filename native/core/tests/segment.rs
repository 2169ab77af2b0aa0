//! The segmenter against frames built one by one, field by field.
#![allow(clippy::unwrap_used)]

mod frame_builder;

use bridged_core::segment::{complete_checksum, copy_complete, SegmentError, SuperFrame, LEAST_FITTED_PAYLOAD};
use bridged_core::vnet::{VnetHeader, GSO_TCPV4, GSO_UDP_L4, NEEDS_CSUM};

/// UDP fragmentation offload, which no kernel offers any more.
const GSO_UDP: u8 = 3;
use frame_builder::{data, Packet, ACK, CWR, ECE, FIN, PSH};
use proptest::prelude::*;

fn cut_all(vnet: &VnetHeader, frame: &[u8], fit: usize) -> Vec<Vec<u8>> {
    let parsed = SuperFrame::parse(vnet, frame).unwrap();
    let cut = parsed.cut(fit);
    let frames: Vec<Vec<u8>> = (0..cut.count)
        .map(|index| {
            let mut out = vec![0xA5; cut.first_len + 1];
            let written = parsed.write(&cut, index, &mut out);
            assert_eq!(written, cut.len_of(index));
            assert!(out[written..].iter().all(|&octet| octet == 0xA5), "written behind the frame");
            out.truncate(written);
            out
        })
        .collect();
    assert_eq!(cut.total(), frames.iter().map(Vec::len).sum::<usize>());
    assert_eq!(parsed.write(&cut, cut.count, &mut vec![0; 70000]), 0);
    frames
}

fn packets() -> impl Strategy<Value = Packet> {
    let tags = prop_oneof![
        Just(vec![]),
        Just(vec![[0x81, 0x00, 0x20, 0x05]]),
        Just(vec![[0x88, 0xA8, 0, 1], [0x81, 0x00, 0, 9]])
    ];
    let shape = (tags, any::<bool>(), any::<bool>(), 0usize..4, 0usize..=10);
    let fields = (any::<u16>(), any::<u32>(), any::<u8>(), any::<u8>(), any::<u16>());
    (shape, fields, proptest::collection::vec(any::<u8>(), 1..6000)).prop_map(
        |((tags, is_v4, is_tcp, extra, options), (identity, sequence, flags, tos, window), payload)| Packet {
            tags,
            is_v4,
            is_tcp,
            extra: if is_v4 { vec![1; extra * 4] } else { vec![0; extra * 8] },
            options: vec![1; if is_tcp { options * 4 } else { 0 }],
            identity,
            sequence,
            flags,
            tos,
            window,
            payload,
            ..Packet::default()
        },
    )
}

proptest! {
    #[test]
    fn a_super_frame_becomes_what_the_sender_would_have_cut(packet in packets(), size in 1u16..3000) {
        let frames = cut_all(&packet.vnet(size), &packet.partial_frame(), 0);
        prop_assert_eq!(frames, packet.segments(usize::from(size)));
    }

    #[test]
    fn tcp_is_cut_to_what_fits_and_udp_is_not(packet in packets(), size in 100u16..3000, fit in 0usize..2000) {
        let room = fit.saturating_sub(packet.header_len());
        let is_fitted = packet.is_tcp && room >= LEAST_FITTED_PAYLOAD;
        let expected = if is_fitted { usize::from(size).min(room) } else { usize::from(size) };
        let frames = cut_all(&packet.vnet(size), &packet.partial_frame(), fit);
        if is_fitted {
            prop_assert!(frames.iter().all(|frame| frame.len() <= fit));
        }
        prop_assert_eq!(frames, packet.segments(expected));
    }

    #[test]
    fn a_checksum_left_to_us_is_completed(packet in packets()) {
        let packet = Packet { payload: packet.payload[..packet.payload.len().min(1400)].to_vec(), ..packet };
        let (vnet, mut frame) = (packet.vnet(0), packet.partial_frame());
        let mut copy = vec![0; frame.len() + 3];
        prop_assert_eq!(copy_complete(&vnet, &frame, &mut copy), Ok(frame.len()));
        complete_checksum(&vnet, &mut frame).unwrap();
        prop_assert_eq!(&frame, &packet.frame());
        prop_assert_eq!(&copy[..frame.len()], &frame[..]);
    }

    #[test]
    fn no_octets_can_make_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..200), vnet in any::<[u8; 10]>(), kind in 0u8..6, start in 0u16..120) {
        let mut vnet = VnetHeader::parse(&vnet).unwrap();
        (vnet.gso_type, vnet.csum_start) = (kind, start);
        check_anything(&vnet, &octets);
    }

    #[test]
    fn a_damaged_super_frame_cannot_make_it_panic(packet in packets(), size in 1u16..3000, damage in proptest::collection::vec((0usize..120, any::<u8>()), 1..6), length in 0usize..6100, delta in -3i32..4) {
        let mut frame = packet.partial_frame();
        for (at, octet) in damage {
            if let Some(place) = frame.get_mut(at) {
                *place = octet;
            }
        }
        frame.truncate(length);
        let mut vnet = packet.vnet(size);
        vnet.csum_start = (i32::from(vnet.csum_start) + delta) as u16;
        check_anything(&vnet, &frame);
    }
}

fn check_anything(vnet: &VnetHeader, octets: &[u8]) {
    let mut out = vec![0; 70000];
    if let Ok(parsed) = SuperFrame::parse(vnet, octets) {
        for fit in [0, 100, 1500] {
            let cut = parsed.cut(fit);
            let payload = octets.len() - parsed.header_len();
            assert_eq!(cut.total(), cut.count * parsed.header_len() + payload);
            for index in [0, 1, cut.count / 2, cut.count - 1] {
                assert_eq!(parsed.write(&cut, index, &mut out), cut.len_of(index));
            }
            assert_eq!(parsed.write(&cut, 0, &mut [0; 20]), 0);
        }
    }
    let _ = copy_complete(vnet, octets, &mut out);
    let _ = complete_checksum(vnet, &mut octets.to_vec());
}

#[test]
fn flags_go_where_they_belong() {
    let packet = Packet { flags: ACK | PSH | FIN | CWR | ECE, payload: data(2500, 1), ..Packet::default() };
    let frames = cut_all(&packet.vnet(1000), &packet.partial_frame(), 0);
    let flags: Vec<u8> = frames.iter().map(|frame| frame[14 + 20 + 13]).collect();
    assert_eq!(flags, [ACK | CWR | ECE, ACK | ECE, ACK | ECE | PSH | FIN]);
}

#[test]
fn a_lone_segment_keeps_all_its_flags() {
    let packet = Packet { flags: ACK | PSH | FIN | CWR, payload: data(500, 1), ..Packet::default() };
    assert_eq!(cut_all(&packet.vnet(1000), &packet.partial_frame(), 0), [packet.frame()]);
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_ffff() {
    // A payload that makes the sum a zero: what is missing is put into its last word.
    let mut packet = Packet { is_tcp: false, payload: data(100, 3), ..Packet::default() };
    packet.payload[98..].fill(0);
    let sum = u16::from_be_bytes(packet.frame()[40..42].try_into().unwrap());
    packet.payload[98..].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(packet.frame()[40..42], [0xFF, 0xFF]);
    let mut frame = packet.partial_frame();
    complete_checksum(&packet.vnet(0), &mut frame).unwrap();
    assert_eq!(frame[40..42], [0xFF, 0xFF]);
    assert_eq!(cut_all(&packet.vnet(1000), &packet.partial_frame(), 0)[0][40..42], [0xFF, 0xFF]);
}

#[test]
fn a_whole_datagram_of_65535_octets_is_cut() {
    for is_v4 in [true, false] {
        let packet = Packet { is_v4, payload: data(65535 - if is_v4 { 52 } else { 32 }, 5), ..Packet::default() };
        let frames = cut_all(&packet.vnet(1448), &packet.partial_frame(), 0);
        assert_eq!(frames, packet.segments(1448));
    }
}

#[test]
fn without_needs_csum_a_frame_is_left_as_it_is() {
    let vnet = VnetHeader { csum_start: 9999, ..VnetHeader::default() };
    let mut frame = data(60, 0);
    complete_checksum(&vnet, &mut frame).unwrap();
    assert_eq!(frame, data(60, 0));
    let mut out = [0; 60];
    assert_eq!(copy_complete(&vnet, &frame, &mut out), Ok(60));
    assert_eq!(out[..], frame[..]);
    assert_eq!(copy_complete(&vnet, &frame, &mut out[..59]), Err(SegmentError::Headers));
}

#[test]
fn what_does_not_fit_is_refused() {
    let packet = Packet { payload: data(3000, 1), ..Packet::default() };
    let (good, frame) = (packet.vnet(1000), packet.partial_frame());
    let refused = |vnet: VnetHeader, frame: &[u8]| SuperFrame::parse(&vnet, frame).unwrap_err();
    assert_eq!(refused(VnetHeader { gso_size: 0, ..good }, &frame), SegmentError::Size);
    assert_eq!(refused(VnetHeader { gso_type: GSO_UDP, ..good }, &frame), SegmentError::Kind(GSO_UDP));
    assert_eq!(refused(VnetHeader { gso_type: 0, ..good }, &frame), SegmentError::Kind(0));
    assert_eq!(refused(VnetHeader { csum_start: 33, ..good }, &frame), SegmentError::Headers);
    assert_eq!(refused(VnetHeader { csum_start: 60000, ..good }, &frame), SegmentError::Headers);
    assert_eq!(refused(good, &frame[..packet.header_len()]), SegmentError::Empty);
    assert_eq!(refused(good, &frame[..packet.header_len() - 1]), SegmentError::Headers);
    assert_eq!(refused(good, &[0; 64]), SegmentError::EtherType(0));
    assert_eq!(refused(VnetHeader { gso_type: GSO_UDP_L4, ..good }, &[]), SegmentError::EtherType(0));
    let mut short_header = frame.clone();
    short_header[14 + 20 + 12] = 0x40;
    assert_eq!(refused(good, &short_header), SegmentError::Headers);
    let huge = VnetHeader { gso_size: 65535, gso_type: GSO_TCPV4, ..good };
    let mut large = frame.clone();
    large.resize(14 + 65536, 0);
    assert_eq!(refused(huge, &large), SegmentError::Size);
    let outside = VnetHeader { flags: NEEDS_CSUM, csum_start: 3065, csum_offset: 16, ..VnetHeader::default() };
    assert_eq!(complete_checksum(&outside, &mut frame.clone()), Err(SegmentError::ChecksumField));
    assert_eq!(SegmentError::Empty.code(), "bad_length");
}
