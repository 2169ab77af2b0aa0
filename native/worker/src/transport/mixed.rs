//! The transport of every tunnel: a UDP socket and any number of TCP connections, on one switch.
//!
//! Which of the two a peer has is part of its path. A tunnel without TCP pays one branch for each batch.

use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;

use bridged_core::{Nanos, SECOND};
use bridged_sys::address::Pin;
use bridged_sys::{Errno, EAFNOSUPPORT, ENOTCONN};

use crate::contract::{Carrier, Endpoint};
use crate::settings::Settings;
use crate::sync::{lock, ArcSwap};
use crate::transport::mixed_receiver::MixedReceiver;
use crate::transport::mixed_sender::MixedSender;
use crate::transport::seam::{Link, Origin, PeerPath, Transport, TransportFigures};
use crate::transport::tcp::stream::Stream;
use crate::transport::tcp::streams::Streams;
use crate::transport::udp::path::UdpPath;
use crate::transport::udp::sockets::{UdpLink, UdpTransport};

/// After a peer floated, ask its new route for the MTU at most this often.
const FLOAT_MTU_PAUSE: Nanos = SECOND;

/// See the module.
pub struct MixedTransport {
    pub udp: UdpTransport,
    pub streams: Streams,
}

impl MixedTransport {
    /// Without a socket; nothing is opened yet.
    pub fn new(settings: &Settings) -> MixedTransport {
        MixedTransport { udp: UdpTransport::new(settings), streams: Streams::new(settings.workers) }
    }

    /// Close everything.
    pub fn close(&self) {
        self.udp.close();
        self.streams.close();
    }

    /// Take over a connection; which worker is to look at it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn adopt_stream(&self, descriptor: RawFd, endpoint: Endpoint, received: &[u8]) -> io::Result<Option<usize>> {
        self.streams.adopt(descriptor, endpoint, received)
    }
}

/// The path to one peer.
#[derive(Debug)]
pub enum MixedPath {
    Udp(UdpPath),
    Tcp(Arc<Stream>),
}

impl MixedPath {
    /// The path over UDP; None: it is another.
    #[inline]
    pub fn udp(&self) -> Option<&UdpPath> {
        match self {
            MixedPath::Udp(path) => Some(path),
            MixedPath::Tcp(_) => None,
        }
    }
}

impl PeerPath for MixedPath {
    fn endpoint(&self) -> Endpoint {
        match self {
            MixedPath::Udp(path) => path.endpoint.into(),
            MixedPath::Tcp(stream) => stream.endpoint,
        }
    }

    #[inline]
    fn fitting(&self) -> usize {
        // TCP cuts what it carries by itself.
        self.udp().map_or(usize::MAX, UdpPath::fitting)
    }

    fn mtu_is_due(&self, now: Nanos) -> bool {
        self.udp().is_some_and(|path| path.mtu_is_due(now))
    }

    #[inline]
    fn room(&self) -> usize {
        match self {
            MixedPath::Udp(_) => usize::MAX,
            MixedPath::Tcp(stream) => stream.room(),
        }
    }

    fn keeps_order(&self) -> bool {
        matches!(self, MixedPath::Tcp(_))
    }
}

/// Where a packet came from, and the local address that it was sent to, if that matters for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MixedOrigin {
    pub source: Endpoint,
    pub pin: Option<Pin>,
}

impl Origin for MixedOrigin {
    #[inline]
    fn endpoint(&self) -> &Endpoint {
        &self.source
    }
}

/// The sockets as they were when a worker looked, and what it waits on for its streams.
pub struct MixedLink {
    pub udp: UdpLink,
    pub streams: Option<RawFd>,
}

impl Link for MixedLink {
    fn readable(&self) -> [Option<RawFd>; 2] {
        [self.udp.readable(), self.streams]
    }

    fn writable(&self) -> Option<RawFd> {
        self.udp.writable()
    }

    fn has_room(&self) -> bool {
        self.udp.has_room()
    }
}

impl Transport for MixedTransport {
    type Path = MixedPath;
    type Origin = MixedOrigin;
    type Link = MixedLink;
    type Sender = MixedSender;
    type Receiver = MixedReceiver;

    #[inline]
    fn link(&self, worker: usize) -> MixedLink {
        MixedLink { udp: self.udp.sockets(worker), streams: self.streams.poll_of(worker) }
    }

    fn path_to(&self, endpoint: Endpoint, now: Nanos) -> Result<MixedPath, Errno> {
        match endpoint.carrier {
            Carrier::Udp => self.udp.path(endpoint.address, None, now).map(MixedPath::Udp),
            Carrier::Tcp => self.streams.at(&endpoint).map(MixedPath::Tcp).ok_or(ENOTCONN),
        }
    }

    fn path_from(&self, origin: &MixedOrigin, before: &MixedPath, now: Nanos) -> Result<MixedPath, Errno> {
        // A connection stands for its peer: neither moves to the other.
        let before = before.udp().filter(|_| origin.source.carrier == Carrier::Udp).ok_or(EAFNOSUPPORT)?;
        let source: SocketAddr = origin.source.address;
        // A peer that sends from many ports in turn has a route asked once a second.
        if before.was_asked_before(now, FLOAT_MTU_PAUSE) {
            return self.udp.path(source, origin.pin, now).map(MixedPath::Udp);
        }
        let (raw, remembered) = self.udp.address_of(&source)?;
        Ok(MixedPath::Udp(before.elsewhere(source, raw, origin.pin.or(remembered))))
    }

    #[inline]
    fn answer_along(&self, slot: &ArcSwap<MixedPath>, path: &Arc<MixedPath>, origin: &MixedOrigin) {
        if let MixedPath::Udp(udp) = &**path {
            if origin.pin.is_some() && origin.pin != udp.pin {
                slot.compare_and_swap(path, Arc::new(MixedPath::Udp(udp.pinned(origin.pin))));
            }
        }
    }

    fn remember(&self, origin: &MixedOrigin) {
        if let Some(pin) = origin.pin {
            lock(&self.udp.pinned_sources).remember(origin.source.address, pin);
        }
    }

    fn refresh_mtu(&self, path: &MixedPath, now: Nanos) -> bool {
        path.udp().is_some_and(|path| self.udp.refresh_mtu(path, now))
    }

    fn tend(&self, now: Nanos) {
        self.streams.tend(now);
    }

    fn figures(&self) -> TransportFigures {
        self.udp.socket_figures()
    }
}
