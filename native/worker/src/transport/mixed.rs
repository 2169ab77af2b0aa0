//! The transport of every tunnel: a UDP socket and any number of TCP connections, on one switch.
//!
//! Which of the two a peer has is part of its path. A tunnel without TCP pays one branch for each batch.

use std::os::fd::RawFd;

use crate::settings::Settings;
use crate::transport::seam::Link;
use crate::transport::tcp::streams::Streams;
use crate::transport::udp::sockets::{UdpLink, UdpTransport};

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
