use std::os::fd::AsRawFd;

use bridged_sys::thread::now;

use super::*;
use crate::control::counters::histogram;
use crate::control::names::BatchName;
use crate::lan_to_wan::pending::QUEUE_PEERS;
use crate::test_rig::{frame, Far, Rig, Run};
use crate::transport::mixed::MixedTransport;
use crate::transport::mixed_path::MixedPath;

const CELL: usize = 1;
const UNICAST: FrameKind = FrameKind::Unicast;

/// Frames of these lengths, end to end, as if they had been received; where each begins.
fn received(lengths: &[usize]) -> (Vec<u8>, Vec<usize>) {
    let (mut octets, mut starts) = (Vec::new(), Vec::new());
    for (number, length) in lengths.iter().enumerate() {
        octets.extend([0xee; OVERHEAD_V2]);
        starts.push(octets.len());
        octets.extend(frame(number, *length));
    }
    (octets, starts)
}

/// Send frames of these lengths to one peer as a relay does; what arrives.
fn relayed(rig: &Rig, far: &mut Far, lengths: &[usize]) -> Vec<Run> {
    let (mut octets, starts) = received(lengths);
    let mut batcher = PeerBatcher::new(CELL);
    for (start, length) in starts.iter().zip(lengths) {
        assert!(batcher.has_room(*length));
        batcher.place_from(&far.peer, UNICAST, *start, *length);
    }
    batcher.flush_from(&mut octets, &rig.context(&rig.link()));
    assert_eq!(batcher.octets(), 0);
    far.runs()
}

fn shape(runs: &[Run]) -> Vec<(usize, usize)> {
    runs.iter().map(|run| (run.segment, run.packets.len())).collect()
}

fn sends(rig: &Rig) -> (u64, u64) {
    let sizes = histogram(rig.shared().counters.threads.iter().map(|cells| cells.sizes(BatchName::SegmentsPerSend)));
    (sizes.counts.iter().sum(), sizes.total as u64)
}

#[test]
fn frames_for_peers_that_alternate_are_one_run_for_each_in_order() {
    let rig = Rig::new(|_| {});
    let mut fars: Vec<Far> = (1..=3).map(|handle| rig.join(handle, Some(handle as u32))).collect();
    let (mut octets, starts) = received(&[300; 60]);
    let untouched = octets.clone();
    let mut batcher = PeerBatcher::new(CELL);
    for (number, start) in starts.iter().enumerate() {
        batcher.place_from(&fars[number % 3].peer, UNICAST, *start, 300);
    }
    batcher.flush_from(&mut octets, &rig.context(&rig.link()));
    assert_eq!(octets, untouched);
    for (first, far) in fars.iter_mut().enumerate() {
        let runs = far.runs();
        assert_eq!(shape(&runs), [(324, 20)]);
        let wanted: Vec<Vec<u8>> = (0..20).map(|turn| frame(first + 3 * turn, 300)).collect();
        assert_eq!(far.frames(&runs), wanted);
        let cells = &rig.plane.snapshot().peers[first].counters;
        assert_eq!((cells.frames[&("transmit", "unicast")], cells.bytes[&("transmit", "unicast")]), (20, 6000));
        assert_eq!((cells.wire_datagrams["transmit"], cells.wire_bytes["transmit"]), (20, 6480));
    }
    assert_eq!(sends(&rig), (3, 60));
}

#[test]
fn a_run_ends_with_a_shorter_packet_and_before_a_longer_one() {
    let rig = Rig::new(|_| {});
    let mut far = rig.join(1, Some(1));
    let lengths = [100, 100, 60, 100, 200, 200, 50, 50, 300];
    let runs = relayed(&rig, &mut far, &lengths);
    assert_eq!(shape(&runs), [(124, 3), (124, 1), (224, 3), (74, 1), (324, 1)]);
    let wanted: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(number, length)| frame(number, *length)).collect();
    assert_eq!(far.frames(&runs), wanted);
    assert_eq!(sends(&rig), (5, 9));
}

#[test]
fn no_run_has_more_datagrams_or_octets_than_the_kernel_takes() {
    let rig = Rig::new(|_| {});
    let mut far = rig.join(1, Some(1));
    assert_eq!(shape(&relayed(&rig, &mut far, &[60; 150])), [(84, 64), (84, 64), (84, 22)]);
    // 44 of 1472 bytes are 64,768; 45 would be more than one send takes.
    assert_eq!(shape(&relayed(&rig, &mut far, &[1448; 50])), [(1472, 44), (1472, 6)]);
    assert_eq!(shape(&relayed(&rig, &mut far, &[32_000, 32_000, 32_000])), [(32_024, 2), (32_024, 1)]);
    assert_eq!(rig.plane.snapshot().drops, Default::default());
}

#[test]
fn the_largest_datagram_is_sent_and_a_larger_one_counted() {
    let rig = Rig::new(|settings| settings.wan_mtu = 65_535);
    let mut far = rig.join(1, Some(1));
    let runs = relayed(&rig, &mut far, &[100, 65_507 - 24, 100]);
    assert_eq!(shape(&runs), [(124, 1), (65_507, 1), (124, 1)]);
    assert_eq!(relayed(&rig, &mut far, &[100, 65_508 - 24, 100]).len(), 2);
    assert_eq!(rig.lost("emsgsize"), 1);
    let counters = &rig.plane.snapshot().peers[0].counters;
    assert_eq!(counters.wire_datagrams["transmit"], 5);
    assert_eq!(counters.wire_bytes["transmit"], 65_507 + 4 * 124);
}

#[test]
fn a_flood_reaches_more_peers_than_a_group_or_the_buffer_holds() {
    let rig = Rig::new(|_| {});
    let count = GROUP_PEERS as u64 + 6;
    let mut fars: Vec<Far> = (1..=count).map(|handle| rig.join(handle, Some(handle as u32))).collect();
    let peers = rig.shared().peers.table.load().peers.clone();
    let mut batcher = PeerBatcher::new(CELL);
    let wanted: Vec<Vec<u8>> = (0..3).map(|number| frame(number, 5000)).collect();
    for frame in &wanted {
        assert!(batcher.has_room(frame.len()));
        batcher.write_slot(0)[..frame.len()].copy_from_slice(frame);
        batcher.flood(&peers, FrameKind::Broadcast, frame.len(), &rig.context(&rig.link()));
        assert!(batcher.octets() <= ARENA_OCTETS);
    }
    batcher.flush(&rig.context(&rig.link()));
    for far in &mut fars {
        assert_eq!(far.take(), wanted, "peer {}", far.handle);
    }
    assert_eq!(sends(&rig).1, 3 * count);
}

#[test]
fn floods_of_one_length_are_one_run_for_each_peer() {
    let rig = Rig::new(|_| {});
    let mut fars = [rig.join(1, Some(1)), rig.join(2, Some(2))];
    let peers = rig.shared().peers.table.load().peers.clone();
    let mut batcher = PeerBatcher::new(CELL);
    for number in 0..10 {
        batcher.write_slot(0)[..500].copy_from_slice(&frame(number, 500));
        batcher.flood(&peers, FrameKind::Multicast, 500, &rig.context(&rig.link()));
    }
    batcher.flush(&rig.context(&rig.link()));
    for far in &mut fars {
        assert_eq!(shape(&far.runs()), [(524, 10)]);
    }
}

#[test]
fn frames_of_every_kind_and_place_keep_their_order_to_one_peer() {
    for peer_id in [Some(7), None] {
        let rig = Rig::new(|_| {});
        let (mut far, mut other) = (rig.join(1, peer_id), rig.join(2, Some(2)));
        let peers = rig.shared().peers.table.load().peers.clone();
        let link = rig.link();
        let (mut octets, starts) = received(&[200; 40]);
        let mut batcher = PeerBatcher::new(CELL);
        let mut flooded = Vec::new();
        for (number, start) in starts.iter().enumerate() {
            let frame = frame(number, 200);
            match number % 5 {
                0 => batcher.place_from(&far.peer, UNICAST, *start, 200),
                1 => {
                    batcher.write_slot(0)[..200].copy_from_slice(&frame);
                    batcher.place(&far.peer, Some(UNICAST), 200);
                }
                2 => {
                    batcher.write_slot(0)[..200].copy_from_slice(&frame);
                    batcher.flood(&peers, FrameKind::Broadcast, 200, &rig.context(&link));
                    flooded.push(frame);
                }
                3 => batcher.place_copy(&far.peer, Some(UNICAST), &frame),
                _ => {
                    batcher.room_for(&far.peer)[..200].copy_from_slice(&frame);
                    batcher.place_written(UNICAST, 200);
                }
            }
        }
        batcher.flush_from(&mut octets, &rig.context(&link));
        let wanted: Vec<Vec<u8>> = (0..40).map(|number| frame(number, 200)).collect();
        assert_eq!(far.take(), wanted);
        assert_eq!(other.take(), flooded);
        assert_eq!(rig.plane.snapshot().peers[0].counters.frames[&("transmit", "broadcast")], 8);
    }
}

#[test]
fn who_is_removed_or_has_no_key_loses_only_its_own_frames() {
    let rig = Rig::new(|_| {});
    let mut fars: Vec<Far> = (1..=4).map(|handle| rig.join(handle, Some(handle as u32))).collect();
    let (mut octets, starts) = received(&[100; 40]);
    let mut batcher = PeerBatcher::new(CELL);
    for (number, start) in starts.iter().enumerate() {
        batcher.place_from(&fars[number % 4].peer, UNICAST, *start, 100);
    }
    let removed = &fars[1];
    rig.plane.remove_peer(removed.handle).unwrap();
    rig.plane.remove_key(fars[2].handle, 0);
    batcher.flush_from(&mut octets, &rig.context(&rig.link()));
    for (first, far) in fars.iter_mut().enumerate() {
        let wanted: Vec<Vec<u8>> = (0..10).map(|turn| frame(first + 4 * turn, 100)).collect();
        let wanted = if matches!(first, 1 | 2) { Vec::new() } else { wanted };
        assert_eq!(far.take(), wanted, "peer {}", far.handle);
    }
    assert_eq!((rig.lost("no_peer"), rig.lost("no_key")), (10, 10));
    assert_eq!(rig.plane.snapshot().peers[1].counters.wire_datagrams["transmit"], 0);
}

#[test]
fn when_packet_ids_run_out_the_rest_is_counted() {
    let rig = Rig::new(|_| {});
    let (mut far, mut other) = (rig.join(1, Some(1)), rig.join(2, Some(2)));
    let next = u64::from(bridged_core::limits::MAX_PACKET_ID) - 6;
    far.peer.sealing.load().as_ref().unwrap().set_next_id(next);
    let (mut octets, starts) = received(&[100; 20]);
    let mut batcher = PeerBatcher::new(CELL);
    for (number, start) in starts.iter().enumerate() {
        batcher.place_from([&far.peer, &other.peer][number % 2], UNICAST, *start, 100);
    }
    batcher.flush_from(&mut octets, &rig.context(&rig.link()));
    assert_eq!((far.take().len(), other.take().len()), (7, 10));
    assert_eq!(rig.lost("key_expired"), 3);
}

#[test]
fn without_a_socket_all_is_counted_and_nothing_waits_for_ever() {
    let rig = Rig::new(|_| {});
    let far = rig.join(1, Some(1));
    let mut batcher = PeerBatcher::new(CELL);
    for number in 0..5 {
        batcher.place_copy(&far.peer, Some(UNICAST), &frame(number, 100));
    }
    rig.plane.use_socket(None).unwrap();
    batcher.flush_full(&rig.context(&rig.link()));
    assert_eq!((batcher.octets(), rig.lost("unreachable")), (0, 5));
}

#[test]
fn a_part_that_can_grow_is_kept_back_until_it_is_full_or_sent() {
    let rig = Rig::new(|_| {});
    let (mut far, mut other) = (rig.join(1, Some(1)), rig.join(2, Some(2)));
    let link = rig.link();
    let mut batcher = PeerBatcher::new(CELL);
    let put = |batcher: &mut PeerBatcher<MixedTransport>, far: &Far, from: usize, count: usize| {
        for number in from..from + count {
            batcher.place_copy(&far.peer, Some(UNICAST), &frame(number, 1448));
        }
    };
    put(&mut batcher, &other, 0, 3);
    put(&mut batcher, &far, 0, 50);
    batcher.flush_full(&rig.context(&link));
    assert_eq!(batcher.octets(), 6 * 1472);
    let mut runs = far.runs();
    put(&mut batcher, &far, 50, 38);
    batcher.flush_full(&rig.context(&link));
    assert_eq!(batcher.octets(), 0, "a full one is not kept");
    runs.extend(far.runs());
    put(&mut batcher, &far, 88, 2);
    batcher.flush(&rig.context(&link));
    runs.extend(far.runs());
    assert_eq!(shape(&runs), [(1472, 44), (1472, 44), (1472, 2)]);
    let wanted: Vec<Vec<u8>> = (0..90).map(|number| frame(number, 1448)).collect();
    assert_eq!(far.frames(&runs), wanted);
    assert_eq!(other.take().len(), 3);
}

#[test]
fn what_was_kept_back_survives_another_peer_id() {
    let rig = Rig::new(|_| {});
    let mut far = rig.join(1, Some(1));
    let link = rig.link();
    let mut batcher = PeerBatcher::new(CELL);
    batcher.place_copy(&far.peer, Some(UNICAST), &frame(0, 100));
    batcher.flush_full(&rig.context(&link));
    far.peer.identify(Some(1), None);
    batcher.flush_full(&rig.context(&link));
    batcher.flush(&rig.context(&link));
    assert_eq!(far.take(), [frame(0, 100)]);
}

#[test]
fn a_told_mtu_forbids_no_run_and_larger_packets_are_counted() {
    let rig = Rig::new(|settings| settings.wan_mtu = 1400);
    let mut far = rig.join(1, Some(1));
    assert_eq!(shape(&relayed(&rig, &mut far, &[1448; 10])), [(1472, 10)]);
    assert_eq!(rig.plane.snapshot().counts["mtu_events"]["ip_fragment_sent"], 10);
}

#[test]
fn what_the_kernel_refused_as_a_run_goes_singly_for_a_while() {
    let rig = Rig::new(|_| {});
    let mut far = rig.join(1, Some(1));
    let path = far.peer.path.load_full();
    path.udp().unwrap().segment_limit.store(200, std::sync::atomic::Ordering::Relaxed);
    path.udp().unwrap().retry_at.store(now() + bridged_core::SECOND, std::sync::atomic::Ordering::Relaxed);
    let (mut octets, starts) = received(&[100, 100, 300, 300, 300, 176]);
    let mut batcher = PeerBatcher::new(CELL);
    for later in [0, 2 * bridged_core::SECOND] {
        for (number, start) in starts.iter().enumerate() {
            batcher.place_from(&far.peer, UNICAST, *start, [100, 100, 300, 300, 300, 176][number]);
        }
        batcher.flush_from(&mut octets, &SendContext { now: now() + later, ..rig.context(&rig.link()) });
        let wanted: &[(usize, usize)] =
            if later == 0 { &[(124, 2), (324, 1), (324, 1), (324, 1), (200, 1)] } else { &[(124, 2), (324, 4)] };
        assert_eq!(shape(&far.runs()), wanted);
    }
}

#[test]
fn the_first_run_that_is_refused_is_the_only_one_that_is_tried() {
    let rig = Rig::new(|_| {});
    let (mut far, mut other) = (rig.join(1, Some(1)), rig.join(2, Some(2)));
    let on: libc::c_int = 1;
    // SAFETY: an int and its size. Without checksums the kernel cuts no segments (EINVAL).
    let result = unsafe {
        let at = std::ptr::from_ref(&on).cast();
        libc::setsockopt(rig.socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, at, 4)
    };
    assert_eq!(result, 0);
    let (mut octets, starts) = received(&[300; 200]);
    let mut batcher = PeerBatcher::new(CELL);
    for (number, start) in starts.iter().enumerate() {
        batcher.place_from([&far.peer, &other.peer][usize::from(number % 4 == 3)], UNICAST, *start, 300);
    }
    batcher.flush_from(&mut octets, &rig.context(&rig.link()));
    let wanted = |is_other: bool| -> Vec<Vec<u8>> {
        (0..200).filter(|number| (number % 4 == 3) == is_other).map(|number| frame(number, 300)).collect()
    };
    assert_eq!((far.take(), other.take()), (wanted(false), wanted(true)));
    let snapshot = rig.plane.snapshot();
    assert_eq!(snapshot.offload_fallbacks[&("udp_gso", "einval")], 2, "one for each path");
    assert_eq!(snapshot.peers[0].counters.wire_bytes["transmit"], 150 * 324);
    assert_eq!((sends(&rig), snapshot.drops), ((200, 200), Default::default()));
}

#[test]
fn the_batcher_is_full_when_too_many_peers_wait() {
    let rig = Rig::new(|_| {});
    let far = rig.join(1, Some(1));
    let settings = |handle: u64| crate::contract::PeerSettings {
        handle,
        name: "same".into(),
        endpoint: far.socket.local_endpoint().unwrap().into(),
        receive_peer_id: Some(handle as u32),
        transmit_peer_id: Some(1),
        framing: Framing::None,
        fragment: 0,
        ping: None,
        ping_restart: None,
    };
    for handle in 2..QUEUE_PEERS as u64 + 10 {
        rig.plane.add_peer(settings(handle)).unwrap();
    }
    let peers = rig.shared().peers.table.load().peers.clone();
    let mut batcher = PeerBatcher::new(CELL);
    for (number, peer) in peers.iter().enumerate() {
        assert_eq!(batcher.has_room(60), number < QUEUE_PEERS);
        if batcher.has_room(60) {
            batcher.place_copy(peer, Some(UNICAST), &frame(number, 60));
        }
    }
    batcher.flush(&rig.context(&rig.link()));
    assert!(batcher.has_room(60));
    assert_eq!(rig.lost("no_peer"), QUEUE_PEERS as u64 - 1);
}

#[test]
fn a_local_address_that_has_gone_costs_no_packet_and_no_other_peer_its_own() {
    let rig = Rig::new(|_| {});
    let mut fars = [rig.join(1, Some(1)), rig.join(2, Some(2))];
    let gone = Some(bridged_sys::address::Pin::V4([203, 0, 113, 9]));
    let here = Some(bridged_sys::address::Pin::V4([127, 0, 0, 1]));
    for (far, pin) in fars.iter().zip([gone, here]) {
        far.peer.path.store(Arc::new(MixedPath::Udp(far.peer.path.load().udp().unwrap().pinned(pin))));
    }
    let (mut octets, starts) = received(&[100, 100, 200, 200, 300, 300]);
    let mut batcher = PeerBatcher::new(CELL);
    for (number, start) in starts.iter().enumerate() {
        batcher.place_from(&fars[number % 2].peer, UNICAST, *start, 100 + number / 2 * 100);
    }
    batcher.flush_from(&mut octets, &rig.context(&rig.link()));
    for (first, far) in fars.iter_mut().enumerate() {
        let wanted: Vec<Vec<u8>> = (0..3).map(|turn| frame(first + 2 * turn, 100 + turn * 100)).collect();
        assert_eq!(far.take(), wanted);
        let counters = &rig.plane.snapshot().peers[first].counters;
        assert_eq!(counters.wire_bytes["transmit"], 600 + 3 * OVERHEAD_V2 as u64);
    }
    assert_eq!(fars.map(|far| far.peer.path.load().udp().unwrap().pin), [None, here]);
    assert_eq!(rig.plane.snapshot().drops, Default::default());
}

#[test]
fn who_waits_for_a_turn_holds_none_and_has_sent_what_it_had() {
    let rig = Rig::new(|_| {});
    let (mut first, mut second) = (rig.join(1, Some(1)), rig.join(2, Some(2)));
    let peers = rig.shared().peers.table.load().peers.clone();
    std::thread::scope(|scope| {
        let held = peers[1].send_lock.lock().unwrap();
        let flooding = scope.spawn(|| {
            let mut batcher = PeerBatcher::new(CELL);
            batcher.write_slot(0)[..60].copy_from_slice(&frame(5, 60));
            batcher.flood(&peers, FrameKind::Broadcast, 60, &rig.context(&rig.link()));
            batcher.flush(&rig.context(&rig.link()));
        });
        let until = now() + 5 * bridged_core::SECOND;
        let mut arrived = Vec::new();
        while arrived.is_empty() && now() < until {
            arrived = first.take();
        }
        assert_eq!(arrived, [frame(5, 60)]);
        drop(peers[0].send_lock.lock().unwrap());
        assert!(second.take().is_empty() && !flooding.is_finished());
        drop(held);
    });
    assert_eq!(second.take(), [frame(5, 60)]);
}

#[test]
fn frames_from_elsewhere_fill_the_buffer_as_well() {
    let rig = Rig::new(|_| {});
    let mut far = rig.join(1, Some(1));
    let (mut octets, starts) = received(&[1448; 400]);
    let mut batcher = PeerBatcher::new(CELL);
    let (mut flushed, mut arrived) = (0, Vec::new());
    for start in starts {
        if !batcher.has_room(1448) {
            batcher.flush_from(&mut octets, &rig.context(&rig.link()));
            flushed += 1;
            arrived.extend(far.take());
        }
        batcher.place_from(&far.peer, UNICAST, start, 1448);
    }
    batcher.flush_from(&mut octets, &rig.context(&rig.link()));
    arrived.extend(far.take());
    let wanted: Vec<Vec<u8>> = (0..400).map(|number| frame(number, 1448)).collect();
    assert_eq!((arrived, flushed), (wanted, 400 * 1472 / ARENA_OCTETS));
}

#[test]
fn two_threads_that_flood_the_same_peers_end_and_packet_ids_leave_in_order() {
    let rig = Rig::new(|_| {});
    let mut fars: Vec<Far> = (1..=8).map(|handle| rig.join(handle, Some(handle as u32))).collect();
    let peers = rig.shared().peers.table.load().peers.clone();
    // As many as a receive buffer of Linux's default size holds.
    let (passes, rounds) = (2, 200);
    let mut ids: Vec<Vec<u32>> = vec![Vec::new(); fars.len()];
    for _ in 0..passes {
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (mut peers, rig) = (peers.clone(), &rig);
                scope.spawn(move || {
                    if thread == 1 {
                        peers.reverse();
                    }
                    let mut batcher = PeerBatcher::new(thread);
                    for number in 0..rounds {
                        batcher.write_slot(0)[..60].copy_from_slice(&frame(number, 60));
                        batcher.flood(&peers, FrameKind::Broadcast, 60, &rig.context(&rig.link()));
                        batcher.flush(&rig.context(&rig.link()));
                    }
                });
            }
        });
        for (far, ids) in fars.iter_mut().zip(&mut ids) {
            let packets = far.runs().into_iter().flat_map(|run| run.packets);
            ids.extend(packets.map(|packet| u32::from_be_bytes(packet[4..8].try_into().unwrap())));
        }
    }
    for (number, ids) in ids.into_iter().enumerate() {
        assert_eq!(ids, (1..=2 * passes * rounds as u32).collect::<Vec<u32>>(), "peer {}", number + 1);
    }
}
