//! For unit tests: what the threads share, of a data plane that was not started, and peers whose far ends are read by
//! hand.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use bridged_core::limits::KeyLimits;
use bridged_core::packet::{DataHeader, PacketRun};
use bridged_sys::address::{Family, RawAddress};
use bridged_sys::descriptor::wait_readable;
use bridged_sys::receive::Receiver;
use bridged_sys::send::{DatagramSender, Outgoing};
use bridged_sys::thread::now;
use bridged_sys::udp::{Options, UdpSocket};
use zeroize::Zeroizing;

use crate::contract::{Cipher, Direction, Framing, Key, KeyFormat, PeerSettings, TapPort};
use crate::plane::DataPlane;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::tables::keys::KeySlot;
use crate::tables::peers::Peer;
use crate::transport::mixed::{MixedLink, MixedTransport};
use crate::transport::seam::{SendContext, Transport};

/// A data plane whose threads do not run, and a socket to send from.
pub struct Rig {
    pub plane: DataPlane,
    pub socket: UdpSocket,
    tap: (UnixDatagram, UnixDatagram),
}

impl Rig {
    pub fn new(change: impl FnOnce(&mut Settings)) -> Rig {
        let tap = UnixDatagram::pair().unwrap();
        tap.0.set_nonblocking(true).unwrap();
        let port = port_of(tap.0.as_raw_fd());
        let mut settings = Settings::new("test", port, Some(loopback()));
        change(&mut settings);
        let (plane, socket) = (DataPlane::build(settings).unwrap(), open());
        plane.use_socket(Some(socket.as_raw_fd())).unwrap();
        Rig { plane, socket, tap }
    }

    /// As if the kernel sent this frame out of the TAP.
    pub fn put(&self, frame: &[u8]) {
        self.tap.1.send(frame).unwrap();
    }

    /// What the first worker sends through.
    pub fn link(&self) -> MixedLink {
        self.shared().transport.link(0)
    }

    /// What sending takes now.
    pub fn context<'a>(&'a self, link: &'a MixedLink) -> SendContext<'a, MixedTransport> {
        self.shared().send_context(link, now())
    }

    pub fn shared(&self) -> &Arc<Shared<MixedTransport>> {
        self.plane.shared()
    }

    /// A peer with a key in use.
    pub fn join(&self, handle: u64, transmit_peer_id: Option<u32>) -> Far {
        self.join_framed(handle, transmit_peer_id, Framing::None)
    }

    /// As `join`, with compression framing.
    pub fn join_framed(&self, handle: u64, transmit_peer_id: Option<u32>, framing: Framing) -> Far {
        let socket = open();
        let endpoint = socket.local_endpoint().unwrap();
        let settings = PeerSettings {
            handle,
            name: format!("peer-{handle}"),
            endpoint: endpoint.into(),
            receive_peer_id: Some(handle as u32),
            transmit_peer_id,
            framing,
            fragment: 0,
            ping: None,
            ping_restart: None,
        };
        self.plane.add_peer(settings).unwrap();
        self.plane.install_key(handle, key(handle as u8, 0x99)).unwrap();
        self.plane.use_key(handle, 0).unwrap();
        let limits = KeyLimits { is_aes_gcm: true, renegotiate_bytes: 0, renegotiate_packets: 0 };
        Far {
            handle,
            peer: Arc::clone(self.shared().peers.table.load().get(handle).unwrap()),
            key: KeySlot::new(&key(0x99, handle as u8), 4096, limits).unwrap(),
            is_v2: transmit_peer_id.is_some(),
            socket,
            receiver: Receiver::new(8, 8),
        }
    }

    pub fn lost(&self, reason: &'static str) -> u64 {
        let snapshot = self.plane.snapshot();
        snapshot.drops.get(&("transmit", reason)).copied().unwrap_or(0)
    }
}

/// The far end of a peer.
pub struct Far {
    pub handle: u64,
    pub peer: Arc<Peer<MixedTransport>>,
    pub socket: UdpSocket,
    key: KeySlot,
    is_v2: bool,
    receiver: Receiver,
}

/// What arrived in one piece: datagrams of `segment` bytes, the last may be shorter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub segment: usize,
    pub packets: Vec<Vec<u8>>,
}

impl Far {
    /// A packet for the data plane, from a peer with a V2 header.
    pub fn seal(&self, frame: &[u8]) -> Vec<u8> {
        let header = DataHeader { key_id: 0, peer_id: Some(self.handle as u32) };
        let mut packet = vec![0; header.overhead()];
        packet.extend_from_slice(frame);
        assert!(self.key.seal(&header, &mut packet, frame.len(), &mut self.key.reserve(1)));
        packet
    }

    /// Send it there.
    pub fn send(&self, plane: &DataPlane, packets: &[Vec<u8>]) {
        let to = plane.local_endpoint().unwrap();
        let destination = RawAddress::new(&to.address, Family::V4).unwrap();
        let mut sender = DatagramSender::new();
        for packet in packets {
            let length = packet.len();
            let message = Outgoing { start: 0, length, segment: 0, destination, pin: None, class: 0, hops: 0 };
            sender.send(&self.socket, packet, &message).unwrap();
        }
    }

    /// Packets that the data plane has opened.
    pub fn opened(&self) -> u64 {
        self.peer.cells.iter().map(|cells| cells.direction(Direction::Receive).wire.get()).sum()
    }

    /// Everything that has arrived, as it came in.
    pub fn runs(&mut self) -> Vec<Run> {
        let mut runs = Vec::new();
        while wait_readable(&[self.socket.as_raw_fd()], Some(20_000_000)) != 0 {
            let Ok(count) = self.receiver.receive(&self.socket, 8) else { break };
            for index in 0..count {
                let message = self.receiver.message(index);
                let at = index * self.receiver.stride();
                let octets = &self.receiver.octets()[at..at + message.length];
                let packets = octets.chunks(message.segment).map(<[u8]>::to_vec).collect();
                runs.push(Run { segment: message.segment, packets });
            }
        }
        runs
    }

    /// The frames of runs; each packet must be authentic and new.
    pub fn frames(&self, runs: &[Run]) -> Vec<Vec<u8>> {
        let packets = runs.iter().flat_map(|run| &run.packets);
        let opened = packets.map(|packet| {
            let mut octets = packet.clone();
            octets.extend([0; crate::tables::keys::SPARE_OCTETS]);
            let mut found = None;
            let take = |at, length| found = Some((at, length));
            self.key.open(&mut octets, PacketRun::of(packet.len(), packet.len()), self.is_v2, take, |reason| {
                panic!("{reason:?}")
            });
            let (at, length) = found.unwrap();
            octets[at..at + length].to_vec()
        });
        opened.collect()
    }

    /// All frames that have arrived.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        let runs = self.runs();
        self.frames(&runs)
    }
}

/// A frame that differs from every other one: 14 bytes or more.
pub fn frame(number: usize, length: usize) -> Vec<u8> {
    let mut octets: Vec<u8> = (0..length).map(|at| (at * 31 + number * 7) as u8).collect();
    octets[..8].copy_from_slice(&(number as u64).to_be_bytes());
    octets
}

/// A TAP that is this descriptor.
pub fn port_of(descriptor: RawFd) -> TapPort {
    TapPort {
        fds: vec![descriptor],
        writer: None,
        name: "in-hand".into(),
        mac: [2, 0, 0, 0, 0, 0xff],
        mtu: 1500,
        virtio_header_size: 0,
        offloads: Vec::new(),
    }
}

/// A key of which one byte is known.
pub fn key(send: u8, receive: u8) -> Key {
    Key {
        key_id: 0,
        cipher: Cipher::Aes256Gcm,
        format: KeyFormat::Aead,
        send_key: Zeroizing::new(vec![send; 32]),
        send_iv: Zeroizing::new([send; 8]),
        receive_key: Zeroizing::new(vec![receive; 32]),
        receive_iv: Zeroizing::new([receive; 8]),
    }
}

fn open() -> UdpSocket {
    let options = Options { bind: Some(loopback()), buffer: 8 << 20, share: false, busy_poll: 0 };
    UdpSocket::open(Family::V4, &options).unwrap()
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}
