//! For tests: a transport of streams, each packet behind its length (two bytes), as OpenVPN has it over TCP.
//!
//! Source: docs/protocol/data.md#2-1. It shows that forwarding, batching and receiving need no datagrams.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bridged_core::Nanos;
use bridged_sys::{Errno, EAFNOSUPPORT, EAGAIN};

use crate::contract::Endpoint;
use crate::control::counters::{Counters, Reason};
use crate::control::events::EventQueue;
use crate::sync::{lock, ArcSwap, Mutex};
use crate::transport::seam::{
    Arrival, BatchReceiver, BatchSender, Link, Origin, Packet, PeerPath, SendContext, Taken, Transport,
    TransportFigures,
};

const PREFIX_OCTETS: usize = 2;
const SPARE_OCTETS: usize = 64;

/// Our ends of the streams, by the endpoint of the other end.
#[derive(Default)]
pub struct StreamTransport {
    streams: Mutex<BTreeMap<Endpoint, Arc<UnixStream>>>,
}

impl StreamTransport {
    /// A stream from this endpoint; the far end of it.
    pub fn connect(&self, endpoint: Endpoint) -> UnixStream {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        lock(&self.streams).insert(endpoint, Arc::new(near));
        far
    }
}

/// One packet as it is in a stream.
pub fn framed(packet: &[u8]) -> Vec<u8> {
    [&(packet.len() as u16).to_be_bytes()[..], packet].concat()
}

/// The next packet of a stream; None: nothing waits.
pub fn take(mut stream: &UnixStream) -> Option<Vec<u8>> {
    let mut prefix = [0; PREFIX_OCTETS];
    stream.read_exact(&mut prefix).ok()?;
    let mut packet = vec![0; usize::from(u16::from_be_bytes(prefix))];
    stream.read_exact(&mut packet).ok()?;
    Some(packet)
}

#[derive(Debug)]
pub struct StreamPath {
    endpoint: Endpoint,
    stream: Arc<UnixStream>,
}

impl PeerPath for StreamPath {
    fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    fn fitting(&self) -> usize {
        usize::MAX
    }

    fn mtu_is_due(&self, _now: Nanos) -> bool {
        false
    }

    fn room(&self) -> usize {
        usize::MAX
    }

    fn keeps_order(&self) -> bool {
        true
    }
}

#[derive(Debug, Clone, Copy)]
pub struct StreamOrigin(Endpoint);

impl Origin for StreamOrigin {
    fn endpoint(&self) -> &Endpoint {
        &self.0
    }
}

pub struct StreamLink(Vec<(Endpoint, Arc<UnixStream>)>);

impl Link for StreamLink {
    fn readable(&self) -> [Option<RawFd>; 2] {
        [self.writable(), None]
    }

    fn writable(&self) -> Option<RawFd> {
        self.0.first().map(|(_, stream)| stream.as_raw_fd())
    }

    fn has_room(&self) -> bool {
        true
    }
}

impl Transport for StreamTransport {
    type Path = StreamPath;
    type Origin = StreamOrigin;
    type Link = StreamLink;
    type Sender = StreamSender;
    type Receiver = StreamReceiver;

    fn link(&self, _worker: usize) -> StreamLink {
        StreamLink(lock(&self.streams).iter().map(|(endpoint, stream)| (*endpoint, Arc::clone(stream))).collect())
    }

    fn path_to(&self, endpoint: Endpoint, _now: Nanos) -> Result<StreamPath, Errno> {
        let stream = lock(&self.streams).get(&endpoint).cloned().ok_or(EAFNOSUPPORT)?;
        Ok(StreamPath { endpoint, stream })
    }

    fn path_from(&self, origin: &StreamOrigin, _before: &StreamPath, now: Nanos) -> Result<StreamPath, Errno> {
        self.path_to(origin.0, now)
    }

    fn answer_along(&self, _slot: &ArcSwap<StreamPath>, _path: &Arc<StreamPath>, _origin: &StreamOrigin) {}

    fn remember(&self, _origin: &StreamOrigin) {}

    fn refresh_mtu(&self, _path: &StreamPath, _now: Nanos) -> bool {
        false
    }

    fn tend(&self, _now: Nanos) {}

    fn figures(&self) -> TransportFigures {
        TransportFigures::default()
    }
}

pub struct StreamSender {
    sends: Vec<(Packet, usize, Arc<UnixStream>)>,
    taken: Vec<Taken>,
}

impl BatchSender<StreamTransport> for StreamSender {
    fn new(_thread: usize) -> StreamSender {
        StreamSender { sends: Vec::new(), taken: Vec::new() }
    }

    fn clear(&mut self) {
        self.sends.clear();
        self.taken.clear();
    }

    fn add(&mut self, packets: &[Packet], path: &StreamPath, _context: &SendContext<'_, StreamTransport>) -> usize {
        let number = self.taken.len();
        self.taken.push(Taken::default());
        self.sends.extend(packets.iter().map(|packet| (*packet, number, Arc::clone(&path.stream))));
        number
    }

    fn send<'a>(
        &mut self,
        arena: &[u8],
        _context: &SendContext<'_, StreamTransport>,
        _path_of: impl Fn(usize) -> &'a ArcSwap<StreamPath>,
    ) {
        for (packet, number, stream) in &self.sends {
            let octets = &arena[packet.start..packet.start + packet.length];
            (&**stream).write_all(&framed(octets)).unwrap();
            self.taken[*number].packets += 1;
            self.taken[*number].octets += packet.length;
        }
    }

    fn taken(&self, number: usize) -> Taken {
        self.taken[number]
    }

    fn open_end(
        &self,
        _lengths: impl Iterator<Item = usize>,
        _path: &StreamPath,
        _context: &SendContext<'_, StreamTransport>,
    ) -> usize {
        0
    }

    fn send_control(
        &mut self,
        packet: &[u8],
        endpoint: Endpoint,
        context: &SendContext<'_, StreamTransport>,
    ) -> Result<(), Reason> {
        let path = context.transport.path_to(endpoint, context.now).map_err(|_| Reason::Unreachable)?;
        (&*path.stream).write_all(&framed(packet)).map_err(|_| Reason::IoError)
    }
}

pub struct StreamReceiver {
    octets: Vec<u8>,
    arrivals: Vec<Arrival<StreamOrigin>>,
}

impl BatchReceiver<StreamTransport> for StreamReceiver {
    fn new(_worker: usize) -> StreamReceiver {
        StreamReceiver { octets: Vec::new(), arrivals: Vec::new() }
    }

    fn receive(&mut self, link: &StreamLink, _: &StreamTransport, _: &EventQueue) -> Result<usize, Errno> {
        self.octets.clear();
        self.arrivals.clear();
        for (endpoint, stream) in &link.0 {
            while let Some(packet) = take(stream) {
                let (start, length) = (self.octets.len(), packet.len());
                self.arrivals.push(Arrival { origin: StreamOrigin(*endpoint), start, length, segment: length, gap: 0 });
                self.octets.extend([&packet[..], &[0; SPARE_OCTETS]].concat());
            }
        }
        if self.arrivals.is_empty() {
            return Err(EAGAIN);
        }
        Ok(self.arrivals.len())
    }

    fn arrival(&mut self, index: usize, _transport: &StreamTransport) -> Option<Arrival<StreamOrigin>> {
        self.arrivals.get(index).copied()
    }

    fn octets(&mut self) -> &mut [u8] {
        &mut self.octets
    }

    fn expects_more(&self) -> bool {
        false
    }

    fn reply(&mut self, packet: &[u8], to: &StreamOrigin, transport: &StreamTransport) {
        let path = transport.path_to(to.0, 0).unwrap();
        (&*path.stream).write_all(&framed(packet)).unwrap();
    }

    fn send_replies(&mut self, _link: &StreamLink, _counters: &Counters) {}
}
