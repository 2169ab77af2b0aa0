//! UDP and TCP together, behind the seam of transports.

use std::net::SocketAddr;
use std::sync::Arc;

use bridged_core::{Nanos, SECOND};
use bridged_sys::{Errno, EAFNOSUPPORT, ENOTCONN};

use crate::contract::{Carrier, Endpoint};
use crate::sync::{lock, ArcSwap};
use crate::transport::mixed::{MixedLink, MixedTransport};
use crate::transport::mixed_path::{MixedOrigin, MixedPath};
use crate::transport::mixed_receiver::MixedReceiver;
use crate::transport::mixed_sender::MixedSender;
use crate::transport::seam::{Transport, TransportFigures};

/// After a peer floated, ask its new route for the MTU at most this often.
const FLOAT_MTU_PAUSE: Nanos = SECOND;

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
            Carrier::Tcp => {
                let stream = self.streams.at(&endpoint).ok_or(ENOTCONN)?;
                stream.welcome();
                Ok(MixedPath::Tcp(stream))
            }
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
