//! Endpoints as the kernel wants them, and local addresses to answer from.
//!
//! Source: ip(7), ipv6(7), RFC 3542, section 6, if_nametoindex(3).

use std::ffi::{CStr, CString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::Errno;

/// The family of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// AF_INET.
    V4,
    /// AF_INET6; IPv4 endpoints are mapped on it.
    V6,
}

impl Family {
    /// The family that reaches `endpoint`.
    pub fn of(endpoint: &SocketAddr) -> Family {
        if endpoint.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        }
    }

    pub(crate) fn raw(self) -> libc::c_int {
        match self {
            Family::V4 => libc::AF_INET,
            Family::V6 => libc::AF_INET6,
        }
    }
}

/// An endpoint in the form that a socket of one family takes.
#[derive(Clone, Copy)]
#[repr(C)]
pub union RawAddress {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl std::fmt::Debug for RawAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "RawAddress({:?})", self.to_endpoint())
    }
}

impl RawAddress {
    /// Nothing; to be overwritten.
    pub const EMPTY: RawAddress = RawAddress {
        v6: libc::sockaddr_in6 {
            sin6_family: 0,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        },
    };
    /// Bytes of the larger kind.
    pub(crate) const OCTETS: libc::socklen_t = std::mem::size_of::<RawAddress>() as libc::socklen_t;

    /// For a socket of `family`; IPv4 is mapped on an IPv6 socket.
    ///
    /// # Errors
    /// EAFNOSUPPORT: an IPv6 endpoint cannot be reached from an IPv4 socket.
    pub fn new(endpoint: &SocketAddr, family: Family) -> Result<RawAddress, Errno> {
        match (endpoint, family) {
            (SocketAddr::V4(v4), Family::V4) => Ok(RawAddress {
                v4: libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                },
            }),
            (SocketAddr::V6(_), Family::V4) => Err(libc::EAFNOSUPPORT),
            (SocketAddr::V4(v4), Family::V6) => Ok(raw_v6(v4.ip().to_ipv6_mapped(), v4.port(), 0)),
            (SocketAddr::V6(v6), Family::V6) => Ok(raw_v6(*v6.ip(), v6.port(), v6.scope_id())),
        }
    }

    /// The endpoint, IPv4-mapped addresses as IPv4; None where nothing was filled in.
    pub fn to_endpoint(&self) -> Option<SocketAddr> {
        // SAFETY: all members begin with the family, and every value is initialised as one of them in full
        // (EMPTY as the largest); all bytes are plain data, for which any value is valid.
        unsafe {
            match libc::c_int::from(self.family) {
                libc::AF_INET => {
                    let ip = Ipv4Addr::from(self.v4.sin_addr.s_addr.to_ne_bytes());
                    Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(self.v4.sin_port))))
                }
                libc::AF_INET6 => {
                    let ip = Ipv6Addr::from(self.v6.sin6_addr.s6_addr);
                    let port = u16::from_be(self.v6.sin6_port);
                    Some(canonical(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, self.v6.sin6_scope_id))))
                }
                _ => None,
            }
        }
    }

    /// IPv4, or IPv4 mapped on IPv6.
    pub fn is_ipv4(&self) -> bool {
        self.to_endpoint().is_some_and(|endpoint| endpoint.is_ipv4())
    }

    pub(crate) fn length(&self) -> libc::socklen_t {
        // SAFETY: see `to_endpoint`.
        let family = unsafe { self.family };
        if libc::c_int::from(family) == libc::AF_INET {
            std::mem::size_of::<libc::sockaddr_in>() as libc::socklen_t
        } else {
            std::mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

fn raw_v6(ip: Ipv6Addr, port: u16, scope_id: u32) -> RawAddress {
    RawAddress {
        v6: libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as libc::sa_family_t,
            sin6_port: port.to_be(),
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: ip.octets() },
            sin6_scope_id: scope_id,
        },
    }
}

/// IPv4-mapped IPv6 as IPv4, and without flow information: one peer has one endpoint.
pub fn canonical(endpoint: SocketAddr) -> SocketAddr {
    match endpoint {
        SocketAddr::V4(_) => endpoint,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddr::new(IpAddr::V4(ip), v6.port()),
            None => SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id())),
        },
    }
}

/// The local address that an answer is to leave from. The interface is not pinned (routing may be asymmetric),
/// but for link-local addresses, which mean nothing without theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// On an IPv4 socket.
    V4([u8; 4]),
    /// On an IPv6 socket, IPv4-mapped addresses included; with the interface's index or 0.
    V6([u8; 16], u32),
}

/// The index of an interface in the network namespace of the calling thread.
pub fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a string with a terminating zero that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// The name of an interface in the network namespace of the calling thread.
pub fn interface_name(index: u32) -> Option<String> {
    let mut name = [0 as libc::c_char; libc::IF_NAMESIZE];
    // SAFETY: `name` has the IF_NAMESIZE bytes that the call may write; it ends them with a zero.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: the call succeeded, so `name` holds a string with a terminating zero.
    let text = unsafe { CStr::from_ptr(name.as_ptr()) };
    Some(text.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_survive_the_way_to_the_kernel_and_back() {
        for (text, family) in [
            ("127.0.0.1:1194", Family::V4),
            ("203.0.113.9:65535", Family::V6),
            ("[2001:db8::1]:1", Family::V6),
            ("[fe80::1%3]:1194", Family::V6),
        ] {
            let endpoint: SocketAddr = text.parse().unwrap();
            let raw = RawAddress::new(&endpoint, family).unwrap();
            assert_eq!(raw.to_endpoint(), Some(endpoint), "{text}");
        }
        let v6: SocketAddr = "[::1]:1".parse().unwrap();
        assert_eq!(RawAddress::new(&v6, Family::V4).unwrap_err(), libc::EAFNOSUPPORT);
        assert_eq!(RawAddress::EMPTY.to_endpoint(), None);
    }

    #[test]
    fn mapped_addresses_are_told_as_ipv4() {
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:5".parse().unwrap();
        assert_eq!(canonical(mapped), "10.0.0.1:5".parse().unwrap());
    }

    #[test]
    fn interfaces_have_names_and_indices() {
        let index = interface_index("lo").unwrap();
        assert_eq!(interface_name(index).as_deref(), Some("lo"));
        assert_eq!(interface_index("no-such-link"), None);
        assert_eq!(interface_index("a\0b"), None);
    }
}
