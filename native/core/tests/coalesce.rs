//! The coalescer against the segmenter: whatever was merged must come back byte for byte.
#![allow(clippy::unwrap_used)]

mod frame_builder;

use bridged_core::coalesce::{CoalesceRules, Coalescer, Group, MAX_PARTS, MAX_UDP_PARTS};
use bridged_core::segment::SuperFrame;
use bridged_core::vnet::{GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM};
use frame_builder::{data, Packet, ACK, CWR, ECE, FIN, PSH};
use proptest::prelude::*;

const ALL: CoalesceRules = CoalesceRules { tcp4: true, tcp6: true, udp4: true, udp6: true, tagged: true };

/// The indexes of each write. Checks that what is merged can be cut into the same frames again.
fn groups_of(coalescer: &mut Coalescer, frames: &[Vec<u8>]) -> Vec<Vec<usize>> {
    for (index, frame) in frames.iter().enumerate() {
        coalescer.push(frame, index as u32);
    }
    assert_eq!(coalescer.len(), frames.len());
    let mut groups = Vec::new();
    for group in coalescer.finish() {
        let group = match group {
            Group::Plain { index } => vec![index as usize],
            Group::Super(group) => {
                let parts: Vec<usize> = group.parts().map(|index| index as usize).collect();
                let mut whole = group.header.to_vec();
                for &part in &parts {
                    whole.extend(&frames[part][group.header_len()..]);
                }
                assert_eq!((group.count, group.octets), (parts.len(), whole.len()));
                assert!(parts.len() >= 2 && parts.len() <= MAX_PARTS);
                assert_eq!(group.vnet.flags, NEEDS_CSUM);
                let parsed = SuperFrame::parse(&group.vnet, &whole).unwrap();
                assert_eq!(parsed.header_len(), group.header_len());
                let cut = parsed.cut(0);
                assert_eq!(cut.count, parts.len());
                for (index, &part) in parts.iter().enumerate() {
                    let mut out = vec![0; cut.first_len];
                    let written = parsed.write(&cut, index, &mut out);
                    out.truncate(written);
                    assert_eq!(out, frames[part], "part {index}");
                }
                parts
            }
        };
        groups.push(group);
    }
    groups
}

fn merged(frames: &[Vec<u8>]) -> Vec<Vec<usize>> {
    groups_of(&mut Coalescer::new(ALL, 1), frames)
}

fn bulk(octets: usize) -> Packet {
    Packet { payload: data(octets, 7), ..Packet::default() }
}

#[test]
fn segments_of_one_flow_become_one_write() {
    for tags in [vec![], vec![[0x81, 0, 0, 5]], vec![[0x88, 0xA8, 0, 5], [0x81, 0, 0, 6]]] {
        for (is_v4, is_tcp, kind) in
            [(true, true, GSO_TCPV4), (false, true, GSO_TCPV6), (true, false, GSO_UDP_L4), (false, false, GSO_UDP_L4)]
        {
            let packet = Packet { is_v4, is_tcp, tags: tags.clone(), ..bulk(10_000) };
            let frames = packet.segments(1400);
            assert_eq!(merged(&frames), [(0..8).collect::<Vec<_>>()]);
            let mut coalescer = Coalescer::new(ALL, 2);
            frames.iter().for_each(|frame| coalescer.push(frame, 0));
            let Some(Group::Super(group)) = coalescer.finish().next() else { panic!("no super-frame") };
            assert_eq!((group.vnet.gso_type, group.vnet.gso_size), (kind, 1400));
            assert_eq!(usize::from(group.vnet.hdr_len), packet.header_len());
            assert_eq!(usize::from(group.vnet.csum_start), packet.transport());
            // It is the super-frame that the kernel would have made.
            assert_eq!(group.header, &packet.partial_frame()[..packet.header_len()]);
        }
    }
}

#[test]
fn a_pushed_segment_closes_a_super_frame() {
    let first = Packet { flags: ACK | PSH, ..bulk(3000) };
    let mut frames = first.segments(1000);
    let second =
        Packet { sequence: first.sequence.wrapping_add(3000), identity: first.identity.wrapping_add(3), ..bulk(2000) };
    frames.extend(second.segments(1000));
    assert_eq!(merged(&frames), [vec![0, 1, 2], vec![3, 4]]);
}

#[test]
fn a_pushed_segment_does_not_begin_one() {
    let packet = Packet { flags: ACK | PSH, ..bulk(1000) };
    let next = Packet { sequence: packet.sequence.wrapping_add(1000), identity: packet.identity + 1, ..bulk(1000) };
    assert_eq!(merged(&[packet.frame(), next.frame()]), [[0], [1]]);
}

#[test]
fn a_shorter_segment_closes_a_super_frame() {
    let frames = bulk(2500).segments(1000);
    let next = Packet { sequence: bulk(0).sequence.wrapping_add(2500), identity: 0x1237, ..bulk(1000) };
    assert_eq!(merged(&[frames, vec![next.frame()]].concat()), [vec![0, 1, 2], vec![3]]);
}

#[test]
fn flows_are_told_apart_and_keep_their_order() {
    let one = bulk(4000).segments(1000);
    let two = Packet { port: 5202, ..bulk(4000) }.segments(1000);
    let mixed: Vec<Vec<u8>> = one.into_iter().zip(two).flat_map(|(a, b)| [a, b]).collect();
    assert_eq!(merged(&mixed), [[0, 2, 4, 6], [1, 3, 5, 7]]);
}

#[test]
fn a_wrong_checksum_stays_alone_and_is_not_overtaken() {
    for at in [24usize, 50, 80, 200] {
        for bad in 0..4 {
            let mut frames = bulk(4000).segments(1000);
            frames[bad][at] ^= 0x10;
            let groups = merged(&frames);
            assert!(groups.contains(&vec![bad]), "octet {at} of frame {bad}: {groups:?}");
            assert!(groups.iter().flatten().is_sorted());
        }
    }
}

#[test]
fn a_checksum_that_the_kernel_would_write_otherwise_stays_alone() {
    // A TCP sum of zero is written as 0: FFFF is right too, but would not come back.
    let mut packet = bulk(1000);
    packet.payload[998..].fill(0);
    let at = packet.transport() + 16;
    let sum = packet.frame()[at..at + 2].to_vec();
    packet.payload[998..].copy_from_slice(&sum);
    let mut frames = vec![packet.frame()];
    assert_eq!(frames[0][at..at + 2], [0, 0]);
    let next = Packet { sequence: packet.sequence.wrapping_add(1000), identity: packet.identity + 1, ..bulk(1000) };
    frames.push(next.frame());
    assert_eq!(merged(&frames), [[0, 1]]);
    frames[0][at..at + 2].fill(0xFF);
    assert_eq!(merged(&frames), [[0], [1]]);
    // UDP without a checksum would get one.
    let mut frames = Packet { is_tcp: false, ..bulk(3000) }.segments(1000);
    frames.iter_mut().for_each(|frame| frame[40..42].fill(0));
    assert_eq!(merged(&frames), [[0], [1], [2]]);
}

#[test]
fn only_what_counts_up_by_one_comes_back() {
    let mut frames = bulk(3000).segments(1000);
    frames[2] = Packet { identity: 9, sequence: bulk(0).sequence.wrapping_add(2000), ..bulk(1000) }.frame();
    assert_eq!(merged(&frames), [vec![0, 1], vec![2]]);
    frames.remove(1);
    assert_eq!(merged(&frames), [[0], [1]]);
    frames.reverse();
    assert_eq!(merged(&frames), [[0], [1]]);
}

#[test]
fn a_header_that_differs_begins_anew() {
    let base = bulk(1000);
    let next = Packet { sequence: base.sequence.wrapping_add(1000), identity: base.identity + 1, ..base.clone() };
    assert_eq!(merged(&[base.frame(), next.frame()]), [[0, 1]]);
    let others = [
        Packet { tos: 1, ..next.clone() },
        Packet { ttl: 63, ..next.clone() },
        Packet { fragment: 0, ..next.clone() },
        Packet { acknowledgement: 8, ..next.clone() },
        Packet { window: 1, ..next.clone() },
        Packet { flags: ACK | ECE, ..next.clone() },
        Packet { options: vec![1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 2], ..next.clone() },
        Packet { options: vec![], ..next.clone() },
        Packet { tags: vec![[0x81, 0, 0, 1]], ..next.clone() },
    ];
    for other in others {
        assert_eq!(merged(&[base.frame(), other.frame()]), [[0], [1]], "{other:?}");
    }
    for flags in [ACK | FIN, ACK | CWR, ACK | 2, ACK | 4, ACK | 32, 0] {
        let other = Packet { flags, ..next.clone() };
        assert_eq!(merged(&[base.frame(), other.frame()]), [[0], [1]], "{flags}");
    }
}

#[test]
fn ecn_echo_is_merged_where_all_have_it() {
    let frames = Packet { flags: ACK | ECE, tos: 3, ..bulk(3000) }.segments(1000);
    assert_eq!(merged(&frames), [[0, 1, 2]]);
}

#[test]
fn a_frame_that_may_be_of_the_flow_ends_its_run() {
    let mut frames = bulk(3000).segments(1000);
    let fragment = Packet { fragment: 0x2000, ..bulk(500) }.frame();
    frames.insert(1, fragment);
    assert_eq!(merged(&frames), [vec![0], vec![1], vec![2, 3]]);
    frames[1] = Packet { extra: vec![1; 4], ..bulk(500) }.frame();
    assert_eq!(merged(&frames), [vec![0], vec![1], vec![2, 3]]);
    frames[1] = Packet { payload: vec![], ..bulk(500) }.frame();
    assert_eq!(merged(&frames), [vec![0], vec![1], vec![2, 3]]);
    frames[1] = vec![0xFF; 60];
    assert_eq!(merged(&frames), [vec![0, 2, 3], vec![1]]);
    frames[1] = Packet { port: 99, payload: vec![], ..bulk(0) }.frame();
    assert_eq!(merged(&frames), [vec![0, 2, 3], vec![1]]);
}

#[test]
fn padding_stays_where_it_is() {
    let mut frames = bulk(4).segments(2);
    frames.iter_mut().for_each(|frame| frame.extend([0; 3]));
    assert_eq!(merged(&frames), [[0], [1]]);
}

#[test]
fn a_super_frame_ends_at_64_kib_and_at_its_most_parts() {
    let groups = merged(&Packet { is_v4: false, ..bulk(65_500) }.segments(1400));
    assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [46, 1]);
    let long: Vec<Vec<u8>> = (0..3u32)
        .flat_map(|n| {
            let packet = Packet { sequence: n.wrapping_mul(60_000), identity: (n * 600) as u16, ..bulk(60_000) };
            packet.segments(100)
        })
        .collect();
    let groups = merged(&long);
    assert!(groups.iter().all(|group| group.len() <= MAX_PARTS));
    assert_eq!(groups[0].len(), MAX_PARTS);
    let udp = merged(&Packet { is_tcp: false, ..bulk(20_000) }.segments(100));
    assert_eq!(udp.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_UDP_PARTS, MAX_UDP_PARTS, MAX_UDP_PARTS, 8]);
}

#[test]
fn rules_decide_what_is_merged() {
    let tcp4 = bulk(3000).segments(1000);
    let udp6 = Packet { is_v4: false, is_tcp: false, ..bulk(3000) }.segments(1000);
    let tagged = Packet { tags: vec![[0x81, 0, 0, 1]], ..bulk(3000) }.segments(1000);
    let count = |rules, frames: &[Vec<u8>]| groups_of(&mut Coalescer::new(rules, 1), frames).len();
    assert_eq!(count(CoalesceRules::NONE, &tcp4), 3);
    assert_eq!(count(CoalesceRules { tcp4: false, ..ALL }, &tcp4), 3);
    assert_eq!(count(CoalesceRules { udp6: false, ..ALL }, &udp6), 3);
    assert_eq!(count(CoalesceRules { tagged: false, ..ALL }, &tagged), 3);
    assert_eq!(count(CoalesceRules { tagged: false, ..ALL }, &tcp4), 1);
}

#[test]
fn a_batch_knows_nothing_of_the_one_before() {
    let mut coalescer = Coalescer::new(ALL, 3);
    let frames = bulk(4000).segments(1000);
    assert_eq!(groups_of(&mut coalescer, &frames[..2]), [[0, 1]]);
    assert_eq!(groups_of(&mut coalescer, &frames[2..]), [[0, 1]]);
    assert!(coalescer.is_empty());
    assert_eq!(coalescer.finish().count(), 0);
    coalescer.push(&frames[0], 0);
    coalescer.clear();
    assert_eq!(coalescer.finish().count(), 0);
}

/// One step of a flow in a generated batch.
#[derive(Debug, Clone)]
enum Step {
    /// So many segments of this size, the last shorter by so much.
    Run { flow: usize, count: usize, size: usize, shorter: usize, is_pushed: bool },
    /// The segment that comes next, but for one byte.
    Damaged { flow: usize, at: usize, bits: u8 },
    /// Segments get lost.
    Gap { flow: usize, octets: u16 },
    /// Something that is not merged.
    Other { flow: usize, kind: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let run = (0usize..8, 1usize..12, 1usize..300, 0usize..3, any::<bool>());
    let step = prop_oneof![
        6 => run.prop_map(|(flow, count, size, shorter, is_pushed)| Step::Run { flow, count, size, shorter, is_pushed }),
        1 => (0usize..8, 0usize..90, 1u8..).prop_map(|(flow, at, bits)| Step::Damaged { flow, at, bits }),
        1 => (0usize..8, any::<u16>()).prop_map(|(flow, octets)| Step::Gap { flow, octets }),
        1 => (0usize..8, 0u8..5).prop_map(|(flow, kind)| Step::Other { flow, kind }),
    ];
    proptest::collection::vec(step, 1..30)
}

fn flow(number: usize) -> Packet {
    Packet {
        is_v4: number & 1 == 0,
        is_tcp: number & 2 == 0,
        tags: if number & 4 == 0 { vec![] } else { vec![[0x81, 0, 0, 7]] },
        port: 1000 + number as u16,
        identity: 0xFFFE,
        ..Packet::default()
    }
}

/// Frames, and the flow that each is of.
fn batch(steps: &[Step]) -> Vec<(usize, Vec<u8>)> {
    let mut flows: Vec<Packet> = (0..8).map(flow).collect();
    let mut frames = Vec::new();
    for step in steps {
        match *step {
            Step::Run { flow, count, size, shorter, is_pushed } => {
                let packet = &mut flows[flow];
                packet.payload = data((count * size).saturating_sub(shorter.min(size - 1)), size as u8);
                packet.flags = if is_pushed { ACK | PSH } else { ACK };
                frames.extend(packet.segments(size).into_iter().map(|frame| (flow, frame)));
                packet.sequence = packet.sequence.wrapping_add(packet.payload.len() as u32);
                packet.identity = packet.identity.wrapping_add(packet.payload.len().div_ceil(size) as u16);
            }
            Step::Damaged { flow, at, bits } => {
                let mut frame = flows[flow].frame();
                let at = at % frame.len();
                frame[at] ^= bits;
                // A byte of the addresses or tags makes it a frame of another flow.
                let is_same = at >= flows[flow].transport() + 4;
                frames.push((if is_same { flow } else { 100 + frames.len() }, frame));
            }
            Step::Gap { flow, octets } => {
                flows[flow].sequence = flows[flow].sequence.wrapping_add(u32::from(octets));
                flows[flow].identity = flows[flow].identity.wrapping_add(octets);
            }
            Step::Other { flow, kind } => {
                let packet = flows[flow].clone();
                let other = match kind {
                    0 => Packet { flags: ACK | FIN, ..packet },
                    1 => Packet { payload: vec![], ..packet },
                    2 => Packet { fragment: 0x2001, ..packet },
                    3 => Packet { extra: if packet.is_v4 { vec![1; 4] } else { vec![0; 8] }, ..packet },
                    _ => Packet { acknowledgement: 99, ..packet },
                };
                frames.push((flow, other.frame()));
            }
        }
    }
    frames
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_was_merged_comes_back_octet_for_octet_in_order(steps in steps(), seed: u64) {
        let (flows, frames): (Vec<usize>, Vec<Vec<u8>>) = batch(&steps).into_iter().unzip();
        // `groups_of` cuts every super-frame again and compares.
        let groups = groups_of(&mut Coalescer::new(ALL, seed), &frames);
        let out: Vec<usize> = groups.into_iter().flatten().collect();
        let mut sorted = out.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..frames.len()).collect::<Vec<_>>());
        for number in 0..8 {
            let of_flow: Vec<usize> = out.iter().copied().filter(|&at| flows[at] == number).collect();
            prop_assert!(of_flow.is_sorted(), "flow {}: {:?}", number, of_flow);
        }
    }

    #[test]
    fn no_octets_can_make_it_panic(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..140), 0..20), kinds in proptest::collection::vec(0u8..6, 20)) {
        let frames: Vec<Vec<u8>> = frames.into_iter().zip(kinds).map(|(mut frame, kind)| {
            let start: &[u8] = match kind {
                0 => &[8, 0, 0x45],
                1 => &[0x86, 0xDD, 0x60],
                2 => &[0x81, 0, 0, 1, 8, 0, 0x45],
                _ => &[],
            };
            if frame.len() > 30 {
                frame[12..12 + start.len()].copy_from_slice(start);
            }
            frame
        }).collect();
        prop_assert_eq!(merged(&frames).concat().len(), frames.len());
    }
}
