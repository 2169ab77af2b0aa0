//! Where a peer is, and what carries its packets there.

use std::net::{AddrParseError, SocketAddr};
use std::ops::Deref;
use std::str::FromStr;

/// What carries packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Carrier {
    /// Datagrams.
    Udp,
    /// A connection, in which each packet stands behind its length.
    Tcp,
}

impl Carrier {
    /// Its name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Carrier::Udp => "udp",
            Carrier::Tcp => "tcp",
        }
    }

    /// Undo [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Carrier> {
        [Carrier::Udp, Carrier::Tcp].into_iter().find(|carrier| carrier.name() == name)
    }
}

/// A transport address of a peer. A TCP connection is never the same endpoint as a UDP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address; never IPv4-mapped.
    pub address: SocketAddr,
    /// What carries packets there.
    pub carrier: Carrier,
}

impl Endpoint {
    /// The far end of a TCP connection.
    pub fn tcp(address: SocketAddr) -> Endpoint {
        Endpoint { address, carrier: Carrier::Tcp }
    }
}

impl From<SocketAddr> for Endpoint {
    /// A UDP port.
    #[inline]
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint { address, carrier: Carrier::Udp }
    }
}

impl Deref for Endpoint {
    type Target = SocketAddr;

    #[inline]
    fn deref(&self) -> &SocketAddr {
        &self.address
    }
}

impl FromStr for Endpoint {
    type Err = AddrParseError;

    /// A UDP port.
    fn from_str(text: &str) -> Result<Endpoint, AddrParseError> {
        Ok(SocketAddr::from_str(text)?.into())
    }
}
