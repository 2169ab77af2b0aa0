use super::*;
use crate::contract::PeerSettings;
use crate::transport::mixed::MixedTransport;
use crate::transport::mixed_path::MixedPath;
use crate::transport::udp::path::UdpPath;
use bridged_core::fdb::Port;
use bridged_sys::address::{Family, RawAddress};

fn peer(port: Port, transmit_peer_id: Option<u32>) -> Arc<Peer<MixedTransport>> {
    let endpoint: std::net::SocketAddr = "127.0.0.1:9".parse().unwrap();
    let settings = PeerSettings {
        handle: port,
        name: "one".into(),
        endpoint: endpoint.into(),
        receive_peer_id: None,
        transmit_peer_id,
        framing: Framing::None,
        fragment: 0,
        ping: None,
        ping_restart: None,
    };
    let path = UdpPath::new(endpoint, RawAddress::new(&endpoint, Family::V4).unwrap(), None, None, 0);
    Arc::new(Peer::new(&settings, MixedPath::Udp(path), 1, 0))
}

/// Offsets by peer, in order.
fn offsets(queue: &PendingFrames<MixedTransport>) -> Vec<Vec<usize>> {
    let of = |waiter| queue.of(waiter).map(|waiting| waiting.at).collect::<Vec<usize>>();
    let found: Vec<Vec<usize>> = queue.peers().iter().map(of).collect();
    assert!(queue.peers().iter().zip(&found).all(|(waiter, found)| waiter.count == found.len()));
    found
}

fn put(queue: &mut PendingFrames<MixedTransport>, peer: &Arc<Peer<MixedTransport>>, place: Place, at: usize) {
    queue.find(peer);
    queue.push(place, Some(FrameKind::Unicast), at, 10, 10);
}

#[test]
fn peers_whose_ports_meet_in_the_table_are_told_apart() {
    let ports = [7, 7 + PLACES as Port, 8, 7 + 2 * PLACES as Port, PLACES as Port - 1, 2 * PLACES as Port - 1];
    let peers = ports.map(|port| peer(port, Some(port as u32)));
    let mut queue = PendingFrames::new();
    for round in 0..3 {
        for (number, peer) in peers.iter().enumerate() {
            assert_eq!(queue.find(peer), Shape::of(peer));
            assert_eq!(queue.found().unwrap().shape.peer_id, Some(ports[number] as u32));
            put(&mut queue, peer, Place::Outside, 10 * round + number);
        }
    }
    let wanted: Vec<Vec<usize>> = (0..peers.len()).map(|number| vec![number, 10 + number, 20 + number]).collect();
    assert_eq!(offsets(&queue), wanted);
    queue.clear();
    assert!(queue.table.iter().all(|place| *place == 0));
    assert!(queue.peers().is_empty() && queue.has_room());
}

#[test]
fn the_tail_is_what_lies_in_the_buffer_for_the_newest_peer() {
    let (first, second) = (peer(1, Some(1)), peer(2, Some(2)));
    let mut queue = PendingFrames::new();
    assert!(queue.tail().is_none());
    put(&mut queue, &first, Place::Here, 0);
    put(&mut queue, &second, Place::Here, 1);
    put(&mut queue, &first, Place::Kept, 2);
    put(&mut queue, &first, Place::Here, 3);
    put(&mut queue, &first, Place::Here, 4);
    let (waiter, tail) = queue.tail().unwrap();
    assert!(Arc::ptr_eq(&waiter.peer, &first));
    assert_eq!(tail.iter().map(|waiting| waiting.at).collect::<Vec<usize>>(), [3, 4]);
    put(&mut queue, &second, Place::Outside, 5);
    assert!(queue.tail().unwrap().1.is_empty());
}

#[test]
fn what_is_split_off_begins_an_empty_queue_and_the_rest_keeps_its_order() {
    let (first, second) = (peer(1, Some(1)), peer(2, Some(2)));
    let mut queue = PendingFrames::new();
    for (at, peer) in [&first, &second, &first, &first, &first].into_iter().enumerate() {
        put(&mut queue, peer, Place::Here, 100 + at);
    }
    assert!(queue.split_tail(0).is_none());
    let tail = queue.split_tail(2).unwrap();
    assert_eq!((tail.start, offsets(&queue)), (103, vec![vec![100, 102], vec![101]]));
    put(&mut queue, &first, Place::Here, 200);
    assert_eq!(offsets(&queue), [vec![100, 102, 200], vec![101]]);
    queue.clear();
    queue.begin_with(tail);
    put(&mut queue, &first, Place::Here, 9);
    assert_eq!(offsets(&queue), [[0, 1, 9]]);
}

#[test]
fn all_of_a_peer_can_be_split_off() {
    let (first, second) = (peer(1, None), peer(2, Some(2)));
    let mut queue = PendingFrames::new();
    put(&mut queue, &second, Place::Here, 0);
    put(&mut queue, &first, Place::Here, 1);
    let tail = queue.split_tail(1).unwrap();
    assert_eq!(offsets(&queue), [vec![0], vec![]]);
    queue.clear();
    first.identify(None, Some(3));
    queue.begin_with(tail);
    queue.find(&first);
    let found = queue.found().unwrap();
    assert_eq!(
        (found.shape.peer_id, found.shape.layout.front),
        (None, 21),
        "room for its header was left according to what it was"
    );
}

#[test]
fn so_many_frames_wait_and_no_more() {
    let only = peer(1, Some(1));
    let mut queue = PendingFrames::new();
    for at in 0..QUEUE_FRAMES {
        assert!(queue.has_room());
        put(&mut queue, &only, Place::Outside, at);
    }
    assert!(!queue.has_room());
}
