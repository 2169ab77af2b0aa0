use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use bridged_core::coalesce::CoalesceRules;
use bridged_core::limits::KeyLimits;
use bridged_core::packet::DataHeader;
use bridged_sys::thread::now;

use super::*;
use crate::contract::{Endpoint, Event, Framing, Key, PeerSettings, TapPort};
use crate::lan_to_wan::reader::LanReader;
use crate::settings::Settings;
use crate::tables::keys::{KeySlot, SPARE_OCTETS};
use crate::tables::peers::Peer;
use crate::tap::Tap;
use crate::test_rig::{key, port_of};
use crate::transport::stream_transport::{framed, take, StreamTransport};

const LIMITS: KeyLimits = KeyLimits { is_aes_gcm: true, renegotiate_bytes: 0, renegotiate_packets: 0 };
const BROADCAST: [u8; 6] = [0xff; 6];

/// Two peers over streams, each with its far end and its key, and the LAN's end of the TAP.
struct Scene {
    shared: Arc<Shared<StreamTransport>>,
    lan: UnixDatagram,
    far: [(UnixStream, KeySlot); 2],
    _tap: UnixDatagram,
}

fn endpoint(handle: u64) -> Endpoint {
    format!("192.0.2.7:{handle}").parse().unwrap()
}

fn scene() -> Scene {
    let (tap, lan) = UnixDatagram::pair().unwrap();
    tap.set_nonblocking(true).unwrap();
    lan.set_nonblocking(true).unwrap();
    let port: TapPort = port_of(tap.as_raw_fd());
    let settings = Settings::new("streams", port.clone(), None);
    let attached = Tap::new(&port, CoalesceRules::NONE, 1, 1).unwrap();
    let shared = Arc::new(Shared::new(settings, StreamTransport::default(), attached, [1, 2]).unwrap());
    let far = [1, 2].map(|handle: u64| {
        let stream = shared.transport.connect(endpoint(handle));
        stream.set_nonblocking(true).unwrap();
        let id = Some(handle as u32);
        let peer = PeerSettings {
            handle,
            name: format!("peer-{handle}"),
            endpoint: endpoint(handle),
            receive_peer_id: id,
            transmit_peer_id: id,
            framing: Framing::None,
            fragment: 0,
            ping: None,
            ping_restart: None,
        };
        let path = shared.transport.path_to(endpoint(handle), 1).unwrap();
        let peer = Arc::new(Peer::new(&peer, path, shared.threads.count(), 1));
        peer.install(KeySlot::new(&key(handle as u8, 0x99), 64, LIMITS).unwrap());
        peer.sealing.store(peer.key(0));
        let table = shared.peers.table.load().with(&peer, id).unwrap();
        shared.peers.table.store(Arc::new(table));
        shared.peers.endpoints.arrive(&peer);
        (stream, KeySlot::new(&key(0x99, handle as u8), 64, LIMITS).unwrap())
    });
    Scene { shared, lan, far, _tap: tap }
}

fn frame(target: [u8; 6], source: [u8; 6]) -> Vec<u8> {
    [&target[..], &source, &[0x88, 0xb5], &[7; 90]].concat()
}

fn station(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

impl Scene {
    /// A sealed packet from a peer goes into its stream.
    fn say(&self, handle: u64, frame: &[u8]) {
        self.say_under(&self.far[handle as usize - 1].1, handle, frame);
    }

    fn say_under(&self, key: &KeySlot, handle: u64, frame: &[u8]) {
        use std::io::Write;
        let (stream, _) = &self.far[handle as usize - 1];
        let header = DataHeader { key_id: key.key_id, peer_id: Some(handle as u32) };
        let mut packet = [&vec![0; header.overhead()][..], frame].concat();
        assert!(key.seal(&header, &mut packet, frame.len(), &mut key.reserve(1)));
        (&mut &*stream).write_all(&framed(&packet)).unwrap();
    }

    /// The frames that a peer got.
    fn heard(&self, handle: u64) -> Vec<Vec<u8>> {
        let (stream, key) = &self.far[handle as usize - 1];
        let packets = std::iter::from_fn(|| take(stream));
        let opened = packets.map(|packet| {
            let mut octets = [&packet[..], &[0; SPARE_OCTETS]].concat();
            let mut frame = None;
            let take = |at, length| frame = Some(at..at + length);
            key.open(&mut octets, PacketRun::of(packet.len(), packet.len()), true, take, |reason| panic!("{reason:?}"));
            octets[frame.unwrap()].to_vec()
        });
        opened.collect()
    }

    fn lan_heard(&self) -> Vec<Vec<u8>> {
        let mut octets = [0; 2000];
        std::iter::from_fn(|| self.lan.recv(&mut octets).ok().map(|length| octets[..length].to_vec())).collect()
    }
}

#[test]
fn frames_pass_between_lan_and_peers_over_streams_as_over_datagrams() {
    let scene = scene();
    let mut wan = WanReceiver::new(Arc::clone(&scene.shared), 0, 3);
    let said = frame(BROADCAST, station(1));
    scene.say(1, &said);
    wan.turn(&scene.shared);
    assert_eq!((scene.lan_heard(), scene.heard(2), scene.heard(1)), (vec![said.clone()], vec![said], vec![]));
    let to_peer = frame(station(1), station(9));
    scene.lan.send(&to_peer).unwrap();
    let mut lan = LanReader::new(Arc::clone(&scene.shared), 0, 4);
    lan.turn(&scene.shared);
    assert_eq!((scene.heard(1), scene.heard(2)), (vec![to_peer], vec![]));
    let between = frame(station(1), station(2));
    scene.say(2, &between);
    wan.turn(&scene.shared);
    assert_eq!((scene.heard(1), scene.lan_heard()), (vec![between], vec![]));
}

#[test]
fn control_packets_go_up_and_down_a_stream() {
    let scene = scene();
    let mut wan = WanReceiver::new(Arc::clone(&scene.shared), 0, 3);
    let packet = [4 << 3, 1, 2, 3];
    {
        use std::io::Write;
        (&scene.far[0].0).write_all(&framed(&packet)).unwrap();
    }
    wan.turn(&scene.shared);
    let event = Event::ControlReceived { datagram: packet.to_vec(), source: endpoint(1) };
    assert_eq!(scene.shared.events.take(9), [event]);
    let sender = crate::control::control_sender::ControlSender::new(scene.shared.threads.timer());
    sender.send_control(&scene.shared, &packet, endpoint(2), now());
    assert_eq!(take(&scene.far[1].0), Some(packet.to_vec()));
    sender.send_control(&scene.shared, &packet, endpoint(3), now());
    let mut drops = std::collections::BTreeMap::new();
    scene.shared.counters.drops.collect(&mut drops);
    assert_eq!(drops, [(("transmit", "unreachable"), 1)].into());
}

#[test]
fn packets_that_waited_for_their_key_come_first_although_nobody_said_yet_that_it_came() {
    let scene = scene();
    let mut wan = WanReceiver::new(Arc::clone(&scene.shared), 0, 3);
    let next = |send, receive| KeySlot::new(&Key { key_id: 1, ..key(send, receive) }, 0, LIMITS).unwrap();
    let (ours, theirs) = (next(1, 0x99), next(0x99, 1));
    let peer = Arc::clone(scene.shared.peers.table.load().get(1).unwrap());
    peer.early.expect(1);
    let frames: Vec<_> = (1..=4).map(|number| frame(BROADCAST, station(number))).collect();
    for early in &frames[..2] {
        scene.say_under(&theirs, 1, early);
        wan.turn(&scene.shared);
    }
    assert_eq!(scene.lan_heard(), Vec::<Vec<u8>>::new());
    // Between these two lines of `install_key` the thread may read on.
    peer.install(ours);
    for later in &frames[2..] {
        scene.say_under(&theirs, 1, later);
    }
    wan.turn(&scene.shared);
    assert_eq!(peer.early.release(1), None);
    assert_eq!(scene.lan_heard(), frames);
    assert!(!peer.early.has(1));
}
