//! UDP behind the seam of transports.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use bridged_core::{Nanos, SECOND};
use bridged_sys::udp::route_mtu;
use bridged_sys::Errno;

use crate::sync::{lock, ArcSwap};
use crate::transport::seam::{Transport, TransportFigures};
use crate::transport::udp::batch_sender::UdpBatchSender;
use crate::transport::udp::path::UdpPath;
use crate::transport::udp::receiver::UdpReceiver;
use crate::transport::udp::sockets::{UdpLink, UdpOrigin, UdpTransport};

/// After a peer floated, ask its new route for the MTU at most this often.
const FLOAT_MTU_PAUSE: Nanos = SECOND;

impl Transport for UdpTransport {
    type Path = UdpPath;
    type Origin = UdpOrigin;
    type Link = UdpLink;
    type Sender = UdpBatchSender;
    type Receiver = UdpReceiver;

    #[inline]
    fn link(&self, worker: usize) -> UdpLink {
        self.sockets(worker)
    }

    fn path_to(&self, endpoint: SocketAddr, now: Nanos) -> Result<UdpPath, Errno> {
        self.path(endpoint, None, now)
    }

    fn path_from(&self, origin: &UdpOrigin, before: &UdpPath, now: Nanos) -> Result<UdpPath, Errno> {
        // A peer that sends from many ports in turn has a route asked once a second.
        if before.was_asked_before(now, FLOAT_MTU_PAUSE) {
            return self.path(origin.source, origin.pin, now);
        }
        let (raw, remembered) = self.address_of(&origin.source)?;
        Ok(before.elsewhere(origin.source, raw, origin.pin.or(remembered)))
    }

    #[inline]
    fn answer_along(&self, slot: &ArcSwap<UdpPath>, path: &Arc<UdpPath>, origin: &UdpOrigin) {
        if origin.pin.is_some() && origin.pin != path.pin {
            slot.compare_and_swap(path, Arc::new(path.pinned(origin.pin)));
        }
    }

    fn remember(&self, origin: &UdpOrigin) {
        if let Some(pin) = origin.pin {
            lock(&self.pinned_sources).remember(origin.source, pin);
        }
    }

    fn refresh_mtu(&self, path: &UdpPath, now: Nanos) -> bool {
        if self.configured_mtu() != 0 {
            return false;
        }
        path.asked_at.store(now, Relaxed);
        path.is_guess.store(false, Relaxed);
        path.set_mtu(route_mtu(&path.endpoint))
    }

    fn figures(&self) -> TransportFigures {
        self.socket_figures()
    }
}
