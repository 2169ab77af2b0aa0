//! The shared structures under every interleaving of a few threads (loom, feature `model`): packet ids and keys
//! (`models/keys.rs`), the table of peers, the FDB with what threads remember of it, the event queue.
//!
//! `cargo test -p bridged-worker --features model --lib models`. A thread yields at every atomic, lock and swap of
//! `sync.rs`; loom also reorders relaxed and acquire/release accesses as the memory model allows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod keys;

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::Arc;

use bridged_sys::address::Pin;
use bridged_sys::descriptor::{wait_readable, EventFd};
use loom::thread::spawn;
use zeroize::Zeroizing;

use crate::contract::{Cipher, Event, Framing, Key, KeyFormat, Mac, PeerSettings, Station};
use crate::control::events::EventQueue;
use crate::lan_to_wan::peer_batches::PeerBatcher;
use crate::lan_to_wan::scene::View;
use crate::plane::DataPlane;
use crate::settings::Settings;
use crate::sync::AtomicBool;
use crate::tables::stations::Ingress;
use crate::tables::switch::{Switch, Target};
use crate::test_rig::port_of;
use crate::transport::mixed_path::MixedOrigin;
use crate::transport::seam::{PeerPath, Transport};
use crate::wan_to_lan::opener::follow;

const STATION: [u8; 6] = [2, 0, 0, 0, 0, 7];
const HOST: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// Every interleaving with up to `switches` preemptions.
fn model(switches: usize, scene: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(scene);
}

/// A data plane that has not started: its threads are those of the model. No socket, no route is asked for.
fn plane() -> Arc<DataPlane> {
    let descriptor = EventFd::new().unwrap();
    let tap = port_of(descriptor.as_raw_fd());
    let bind = Some("192.0.2.1:1194".parse().unwrap());
    let settings = Settings { wan_mtu: 1500, fdb_capacity: 16, ..Settings::new("model", tap, bind) };
    Arc::new(DataPlane::new(settings).unwrap())
}

fn join(plane: &DataPlane, handle: u64, endpoint: &str) {
    let peer = PeerSettings {
        handle,
        name: format!("peer-{handle}"),
        endpoint: endpoint.parse().unwrap(),
        receive_peer_id: Some(handle as u32),
        transmit_peer_id: Some(handle as u32),
        framing: Framing::None,
        fragment: 0,
        ping: None,
        ping_restart: None,
    };
    plane.add_peer(peer).unwrap();
}

fn key(key_id: u8) -> Key {
    Key {
        key_id,
        cipher: Cipher::ChaCha20Poly1305,
        format: KeyFormat::Aead,
        send_key: Zeroizing::new(vec![1; 32]),
        send_iv: Zeroizing::new([key_id; 8]),
        receive_key: Zeroizing::new(vec![2; 32]),
        receive_iv: Zeroizing::new([key_id; 8]),
    }
}

fn origin(source: &str) -> MixedOrigin {
    MixedOrigin { source: source.parse().unwrap(), pin: None }
}

fn frame(target: [u8; 6], source: [u8; 6]) -> Vec<u8> {
    [&target[..], &source[..], &[0x88, 0xb5]].concat()
}

#[test]
fn a_frame_is_forwarded_by_a_table_that_is_not_older() {
    model(3, || {
        let plane = plane();
        let was_sent = Arc::new(AtomicBool::new(false));
        let reader = {
            let (plane, was_sent) = (Arc::clone(&plane), Arc::clone(&was_sent));
            spawn(move || {
                let view = View::of(plane.shared(), 0);
                let scene = view.scene(plane.shared());
                if was_sent.load(Acquire) && scene.is_current() {
                    assert!(scene.table.get(1).is_ok(), "the frame came after the peer");
                }
            })
        };
        join(&plane, 1, "192.0.2.7:1194");
        was_sent.store(true, Release);
        reader.join().unwrap();
    });
}

#[test]
fn threads_that_send_to_the_same_peers_never_wait_in_a_circle() {
    model(3, || {
        let plane = plane();
        for handle in [1, 2] {
            join(&plane, handle, &format!("192.0.2.7:{handle}"));
            plane.install_key(handle, key(0)).unwrap();
            plane.use_key(handle, 0).unwrap();
        }
        let send = |cell: usize, order: [u64; 2]| {
            let plane = Arc::clone(&plane);
            move || {
                let table = plane.shared().peers.table.load_full();
                let mut batcher = PeerBatcher::new(cell);
                for handle in order {
                    batcher.place_copy(table.get(handle).unwrap(), None, &[0; 20]);
                }
                let link = plane.shared().transport.link(0);
                batcher.flush(&plane.shared().send_context(&link, 1));
            }
        };
        let threads = [spawn(send(0, [1, 2])), spawn(send(1, [2, 1]))];
        for thread in threads {
            thread.join().unwrap();
        }
        let table = plane.shared().peers.table.load_full();
        for handle in [1, 2] {
            let slot = table.get(handle).unwrap().key(0).unwrap();
            assert_eq!(slot.reserve(1).take(), Some(3), "each thread sealed one packet to each peer");
        }
    });
}

#[test]
fn what_a_thread_remembers_is_not_used_after_its_station_was_removed() {
    model(3, || {
        let plane = plane();
        join(&plane, 1, "192.0.2.7:1");
        let table = plane.shared().peers.table.load_full();
        let peer = Arc::clone(table.get(1).unwrap());
        Switch::new(1).decide(&plane.shared().stations, peer.ingress(), &frame(HOST, STATION), true, 1, |_| {});
        let is_removed = Arc::new(AtomicBool::new(false));
        let reader = {
            let (plane, is_removed) = (Arc::clone(&plane), Arc::clone(&is_removed));
            spawn(move || {
                let mut switch = Switch::new(2);
                for _ in 0..2 {
                    let was_removed = is_removed.load(Acquire);
                    let decision =
                        switch.decide(&plane.shared().stations, Ingress::TAP, &frame(STATION, HOST), true, 2, |_| {});
                    let target = decision.target.unwrap();
                    assert!(!was_removed || target == Target::Flood, "{target:?} was remembered beyond the removal");
                }
            })
        };
        plane.remove_station(Station::new(0, Mac::new(STATION)));
        is_removed.store(true, Release);
        reader.join().unwrap();
    });
}

#[test]
fn nothing_is_learned_of_a_removed_peer() {
    model(3, || {
        let plane = plane();
        join(&plane, 1, "192.0.2.7:1");
        let wire = {
            let plane = Arc::clone(&plane);
            spawn(move || {
                // As a wire thread does: the table of before the removal stays in use for a batch.
                let table = plane.shared().peers.table.load_full();
                let Ok(peer) = table.get(1) else { return };
                let mut switch = Switch::new(2);
                for _ in 0..2 {
                    switch.decide(&plane.shared().stations, peer.ingress(), &frame(HOST, STATION), true, 1, |_| {});
                }
                follow(plane.shared(), peer, &origin("192.0.2.8:2"), 1);
            })
        };
        plane.remove_peer(1).unwrap();
        wire.join().unwrap();
        assert_eq!(plane.shared().stations.figures().0, 0, "an address of a removed peer");
        let table = plane.shared().peers.table.load_full();
        for endpoint in ["192.0.2.7:1", "192.0.2.8:2"] {
            let found = plane.shared().peers.endpoints.at(&endpoint.parse().unwrap());
            assert!(found.is_none(), "a removed peer is found at {endpoint}");
        }
        assert!(table.find(1, &"192.0.2.8:2".parse().unwrap(), &plane.shared().peers.endpoints).is_none());
    });
}

#[test]
fn an_endpoint_has_one_holder_though_peers_float_and_come_at_once() {
    model(3, || {
        let plane = plane();
        join(&plane, 1, "192.0.2.7:1");
        join(&plane, 2, "192.0.2.7:2");
        let meeting = "192.0.2.8:3";
        let float = |handle: u64| {
            let plane = Arc::clone(&plane);
            move || {
                let table = plane.shared().peers.table.load_full();
                follow(plane.shared(), table.get(handle).unwrap(), &origin(meeting), 1)
            }
        };
        let threads = [spawn(float(1)), spawn(float(2))];
        join(&plane, 3, "192.0.2.9:4");
        let floated: Vec<bool> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(floated.iter().filter(|done| **done).count(), 1, "who comes second is refused");
        let holder = if floated[0] { 1 } else { 2 };
        let at = |endpoint: &str| plane.shared().peers.endpoints.at(&endpoint.parse().unwrap()).map(|peer| peer.handle);
        assert_eq!(at(meeting), Some(holder));
        assert_eq!(at("192.0.2.9:4"), Some(3));
        assert_eq!(at(&format!("192.0.2.7:{holder}")), None);
        let other = 3 - holder;
        assert_eq!(at(&format!("192.0.2.7:{other}")), Some(other));
    });
}

#[test]
fn every_event_comes_once_in_the_order_of_its_thread_and_the_descriptor_tells() {
    model(3, || {
        let queue = Arc::new(EventQueue::new(1).unwrap());
        let source = "192.0.2.7:1".parse().unwrap();
        let put = |first: u64| {
            let queue = Arc::clone(&queue);
            move || {
                assert!(queue.put(Event::PeerExpired { handle: first }));
                queue
                    .put_control(&[first as u8], source, 0, crate::control::control_queue::Sender::Peer(first))
                    .unwrap();
            }
        };
        let threads = [spawn(put(10)), spawn(put(20))];
        let mut taken = queue.take(1);
        taken.extend(queue.take(8));
        for thread in threads {
            thread.join().unwrap();
        }
        let left = queue.depths();
        let is_readable = wait_readable(&[queue.descriptor()], Some(0)) != 0;
        assert_eq!(is_readable, left != (0, 0), "{left:?} wait");
        taken.extend(queue.take(8));
        assert_eq!(queue.depths(), (0, 0));
        assert_eq!(wait_readable(&[queue.descriptor()], Some(0)), 0);
        for first in [10, 20u8] {
            let mine: Vec<&Event> = taken
                .iter()
                .filter(|event| match event {
                    Event::PeerExpired { handle } => *handle == u64::from(first),
                    Event::ControlReceived { datagram, .. } => datagram[0] == first,
                    _ => panic!("{event:?}"),
                })
                .collect();
            assert!(matches!(mine[..], [Event::PeerExpired { .. }, Event::ControlReceived { .. }]), "{taken:?}");
        }
    });
}

#[test]
fn what_is_told_once_is_heard_after_it_happened_whoever_reads_meanwhile() {
    model(3, || {
        let queue = Arc::new(EventQueue::new(1).unwrap());
        let expire = || {
            let queue = Arc::clone(&queue);
            move || assert!(queue.put(Event::PeerExpired { handle: 7 }))
        };
        let threads = [spawn(expire()), spawn(expire())];
        let before = queue.take(8).len();
        for thread in threads {
            thread.join().unwrap();
        }
        let is_readable = wait_readable(&[queue.descriptor()], Some(0)) != 0;
        let after = queue.take(8).len();
        assert_eq!(is_readable, after > 0);
        assert!((1..=2).contains(&(before + after)) && after <= 1, "{before} and {after}");
    });
}

#[test]
fn an_answer_goes_to_where_the_peer_is_though_its_local_address_changes_at_once() {
    model(3, || {
        let plane = plane();
        join(&plane, 1, "192.0.2.7:1");
        let peer = Arc::clone(plane.shared().peers.table.load_full().get(1).unwrap());
        let repin = {
            let (plane, peer) = (Arc::clone(&plane), Arc::clone(&peer));
            spawn(move || {
                let pin = Some(Pin::V4([192, 0, 2, 1]));
                let path = peer.path.load_full();
                plane.shared().transport.answer_along(&peer.path, &path, &MixedOrigin { pin, ..origin("192.0.2.7:1") });
            })
        };
        assert!(follow(plane.shared(), &peer, &origin("192.0.2.8:2"), 1));
        repin.join().unwrap();
        assert_eq!(peer.path.load().endpoint(), "192.0.2.8:2".parse().unwrap());
    });
}

#[test]
fn a_tap_that_vanished_is_told_once() {
    model(3, || {
        let plane = plane();
        let gone = plane.shared().adapter.tap.load_full().unwrap();
        let lose = || {
            let (plane, gone) = (Arc::clone(&plane), Arc::clone(&gone));
            move || plane.shared().detach_lost_tap(&gone, 19)
        };
        let threads = [spawn(lose()), spawn(lose())];
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(plane.poll_events(9), [Event::TapFailed { number: 19 }]);
        assert!(plane.shared().adapter.tap.load_full().is_none());
    });
}
