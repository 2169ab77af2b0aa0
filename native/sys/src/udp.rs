//! The UDP socket: making it, its options, its address, and the MTU of a route.
//!
//! Source: udp(7) (UDP_SEGMENT, UDP_GRO), ip(7), ipv6(7), socket(7).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::address::{Family, RawAddress};
use crate::descriptor::duplicate;

const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;
const IPV6_FREEBIND: libc::c_int = 78;
const IP_MTU: libc::c_int = 14;
const IPV6_MTU: libc::c_int = 24;

/// What a socket shall be like.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Where to bind; None: not at all.
    pub bind: Option<SocketAddr>,
    /// Bytes of each buffer.
    pub buffer: usize,
    /// Share the address with others (SO_REUSEPORT).
    pub share: bool,
    /// Microseconds of SO_BUSY_POLL; 0: leave it.
    pub busy_poll: u32,
}

/// A non-blocking UDP socket that lets large datagrams be fragmented, and the offloads it got.
#[derive(Debug)]
pub struct UdpSocket {
    descriptor: OwnedFd,
    family: Family,
    has_segment: bool,
    has_gro: bool,
    /// Of IPv4 and of IPv6 packets; 0: not known.
    hops: [u8; 2],
}

impl UdpSocket {
    /// Open, set the options, bind.
    ///
    /// Any-address sockets tell the local address of every datagram, and IPv6 ones take IPv4 as well; others
    /// may be bound before their address appears (IP_FREEBIND).
    ///
    /// # Errors
    /// What the kernel says: EADDRINUSE, EACCES, EAFNOSUPPORT, EMFILE.
    pub fn open(family: Family, options: &Options) -> io::Result<UdpSocket> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no memory is passed.
        let descriptor = unsafe { libc::socket(family.raw(), kind, 0) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let mut socket = UdpSocket { descriptor, family, has_segment: false, has_gro: false, hops: [0; 2] };
        socket.set_address_options(options)?;
        socket.set_options(options)?;
        if let Some(endpoint) = &options.bind {
            socket.bind(endpoint)?;
        }
        Ok(socket)
    }

    /// Use a socket that somebody else has opened and bound, through a descriptor of our own. `options.bind` and
    /// `options.share` are the opener's business and have no effect.
    ///
    /// # Errors
    /// What the kernel says: EBADF, ENOTSOCK, EMFILE; EAFNOSUPPORT where it is neither IPv4 nor IPv6.
    pub fn adopt(descriptor: RawFd, options: &Options) -> io::Result<UdpSocket> {
        let descriptor = duplicate(descriptor)?;
        let mut socket = UdpSocket { descriptor, family: Family::V4, has_segment: false, has_gro: false, hops: [0; 2] };
        socket.family = match socket.get(libc::SOL_SOCKET, libc::SO_DOMAIN) {
            Some(libc::AF_INET) => Family::V4,
            Some(libc::AF_INET6) => Family::V6,
            Some(_) => return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
            None => return Err(io::Error::last_os_error()),
        };
        socket.set_options(options)?;
        Ok(socket)
    }

    /// Its family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// It takes UDP_SEGMENT.
    pub fn has_segment(&self) -> bool {
        self.has_segment
    }

    /// It gives several datagrams of one source at once (UDP_GRO).
    pub fn has_gro(&self) -> bool {
        self.has_gro
    }

    /// A hop limit that is not the socket's own, but one less; 0: there is none.
    pub fn other_hops(&self, is_ipv4: bool) -> u8 {
        self.hops[usize::from(!is_ipv4)].saturating_sub(1)
    }

    /// Where it is bound; None while it has no port.
    pub fn local_endpoint(&self) -> Option<SocketAddr> {
        let mut raw = RawAddress::EMPTY;
        let mut length = RawAddress::OCTETS;
        // SAFETY: the kernel writes at most `length` bytes, which `raw` has.
        let failed = unsafe { libc::getsockname(self.as_raw_fd(), std::ptr::from_mut(&mut raw).cast(), &mut length) };
        if failed != 0 {
            return None;
        }
        raw.to_endpoint().filter(|endpoint| endpoint.port() != 0)
    }

    /// Set the send buffer in bytes (the kernel doubles it, for its own overhead too).
    ///
    /// # Errors
    /// As the kernel says.
    pub fn set_send_buffer(&self, octets: usize) -> io::Result<()> {
        let octets = libc::c_int::try_from(octets).unwrap_or(libc::c_int::MAX);
        self.set(libc::SOL_SOCKET, libc::SO_SNDBUF, octets)
    }

    /// Let nobody cut large datagrams from now on, this host included and whatever MTU it has heard of; or let everybody.
    pub fn forbid_fragments(&self, is_forbidden: bool) {
        let modes = match is_forbidden {
            true => (libc::IP_PMTUDISC_PROBE, libc::IPV6_PMTUDISC_PROBE),
            false => (libc::IP_PMTUDISC_DONT, libc::IPV6_PMTUDISC_DONT),
        };
        let _ = self.set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, modes.0);
        if self.family == Family::V6 {
            let _ = self.set(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, modes.1);
        }
    }

    /// What has to be set before the socket is bound, and depends on where.
    fn set_address_options(&self, options: &Options) -> io::Result<()> {
        let any_address = options.bind.is_some_and(|endpoint| endpoint.ip().is_unspecified());
        if self.family == Family::V6 {
            self.set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, libc::c_int::from(!any_address))?;
        }
        if options.bind.is_some() && !any_address {
            self.set(libc::IPPROTO_IP, libc::IP_FREEBIND, 1)?;
            if self.family == Family::V6 {
                self.set(libc::IPPROTO_IPV6, IPV6_FREEBIND, 1)?;
            }
        }
        if options.share {
            self.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        if any_address {
            match self.family {
                Family::V4 => self.set(libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?,
                Family::V6 => self.set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?,
            }
        }
        Ok(())
    }

    fn set_options(&mut self, options: &Options) -> io::Result<()> {
        let buffer = libc::c_int::try_from(options.buffer).unwrap_or(libc::c_int::MAX);
        for (forced, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
            if self.set(libc::SOL_SOCKET, forced, buffer).is_err() {
                self.set(libc::SOL_SOCKET, plain, buffer)?;
            }
        }
        // What an old kernel does not know, it does without.
        self.forbid_fragments(false);
        let _ = self.set(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
        if options.busy_poll > 0 {
            let microseconds = libc::c_int::try_from(options.busy_poll).unwrap_or(libc::c_int::MAX);
            let _ = self.set(libc::SOL_SOCKET, libc::SO_BUSY_POLL, microseconds);
        }
        self.has_segment = self.set(libc::IPPROTO_UDP, UDP_SEGMENT, 0).is_ok();
        self.has_gro = self.set(libc::IPPROTO_UDP, UDP_GRO, 1).is_ok();
        self.hops = [self.get(libc::IPPROTO_IP, libc::IP_TTL), self.get(libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS)]
            .map(|hops| hops.and_then(|hops| u8::try_from(hops).ok()).unwrap_or(0));
        Ok(())
    }

    fn bind(&self, endpoint: &SocketAddr) -> io::Result<()> {
        let raw = RawAddress::new(endpoint, self.family).map_err(io::Error::from_raw_os_error)?;
        // SAFETY: `raw` has the `length` bytes that the kernel reads.
        let failed = unsafe { libc::bind(self.as_raw_fd(), std::ptr::from_ref(&raw).cast(), raw.length()) };
        if failed != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn get(&self, level: libc::c_int, option: libc::c_int) -> Option<libc::c_int> {
        let mut value: libc::c_int = 0;
        let mut octets = std::mem::size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `octets` bytes, which `value` has.
        let failed = unsafe {
            libc::getsockopt(self.as_raw_fd(), level, option, std::ptr::from_mut(&mut value).cast(), &mut octets)
        };
        (failed == 0).then_some(value)
    }

    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let octets = std::mem::size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the kernel reads the `octets` bytes of `value`.
        let failed =
            unsafe { libc::setsockopt(self.as_raw_fd(), level, option, std::ptr::from_ref(&value).cast(), octets) };
        if failed != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The largest IP packet, in bytes, that the kernel would send to `endpoint` in one piece: the MTU of the
/// route, from the network namespace of the calling thread. Sends nothing. None where there is no route.
pub fn route_mtu(endpoint: &SocketAddr) -> Option<u32> {
    let family = Family::of(endpoint);
    // SAFETY: no memory is passed.
    let descriptor =
        unsafe { libc::socket(family.raw(), libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if descriptor < 0 {
        return None;
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let raw = RawAddress::new(endpoint, family).ok()?;
    // SAFETY: `raw` has the `length` bytes that the kernel reads.
    let failed = unsafe { libc::connect(descriptor.as_raw_fd(), std::ptr::from_ref(&raw).cast(), raw.length()) };
    if failed != 0 {
        return None;
    }
    let (level, option) = match family {
        Family::V4 => (libc::IPPROTO_IP, IP_MTU),
        Family::V6 => (libc::IPPROTO_IPV6, IPV6_MTU),
    };
    let mut mtu: libc::c_int = 0;
    let mut length = std::mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which `mtu` has.
    let failed = unsafe {
        libc::getsockopt(descriptor.as_raw_fd(), level, option, std::ptr::from_mut(&mut mtu).cast(), &mut length)
    };
    if failed != 0 {
        return None;
    }
    u32::try_from(mtu).ok().filter(|mtu| *mtu > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(bind: Option<&str>) -> Options {
        Options { bind: bind.map(|text| text.parse().unwrap()), buffer: 1 << 20, share: false, busy_poll: 0 }
    }

    #[test]
    fn a_bound_socket_knows_its_port_and_an_unbound_one_has_none() {
        let bound = UdpSocket::open(Family::V4, &options(Some("127.0.0.1:0"))).unwrap();
        assert!(bound.local_endpoint().is_some());
        let unbound = UdpSocket::open(Family::V4, &options(None)).unwrap();
        assert_eq!(unbound.local_endpoint(), None);
    }

    #[test]
    fn sockets_share_an_address_only_where_told() {
        let mut first = options(Some("127.0.0.1:0"));
        first.share = true;
        let one = UdpSocket::open(Family::V4, &first).unwrap();
        let again = Options { bind: one.local_endpoint(), ..first };
        UdpSocket::open(Family::V4, &again).unwrap();
        let alone = Options { share: false, ..again };
        assert_eq!(UdpSocket::open(Family::V4, &alone).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_adopted_socket_keeps_its_port_and_outlives_the_descriptor_it_came_by() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let opened = UdpSocket::open(Family::of(&bind.parse().unwrap()), &options(Some(bind))).unwrap();
            let endpoint = opened.local_endpoint();
            let adopted = UdpSocket::adopt(opened.as_raw_fd(), &options(None)).unwrap();
            assert_eq!(adopted.family(), opened.family());
            drop(opened);
            assert_eq!(adopted.local_endpoint(), endpoint);
        }
    }

    #[test]
    fn what_is_no_socket_is_not_adopted() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let refused = UdpSocket::adopt(file.as_raw_fd(), &options(None)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOTSOCK));
    }

    #[test]
    fn the_route_to_loopback_has_its_mtu() {
        assert!(route_mtu(&"127.0.0.1:9".parse().unwrap()).unwrap() > 1500);
    }
}
