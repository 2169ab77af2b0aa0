//! The path to one peer, over UDP or through a TCP connection, and where a packet came from.

use std::sync::Arc;

use bridged_core::Nanos;
use bridged_sys::address::Pin;

use crate::contract::Endpoint;
use crate::transport::seam::{Origin, PeerPath};
use crate::transport::tcp::stream::Stream;
use crate::transport::udp::path::UdpPath;

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
