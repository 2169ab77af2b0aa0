//! Endpoints as text.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use bridged_sys::address::{canonical, interface_index, interface_name};

use crate::error::Error;

/// From address text (IPv6 without brackets, link-local with `%zone`) and port. IPv4-mapped addresses become IPv4.
///
/// # Errors
/// [`Error::BadSetting`]: not an address, or no such interface in the network namespace of the calling thread.
pub fn parse_endpoint(host: &str, port: u16) -> Result<SocketAddr, Error> {
    let bad = || Error::BadSetting(format!("{host:?} is not an IP address"));
    let Some((address, zone)) = host.split_once('%') else {
        let ip: IpAddr = host.parse().map_err(|_| bad())?;
        return Ok(canonical(SocketAddr::new(ip, port)));
    };
    let ip: Ipv6Addr = address.parse().map_err(|_| bad())?;
    let scope = zone.parse().ok().or_else(|| interface_index(zone));
    let scope = scope.ok_or_else(|| Error::BadSetting(format!("{host}: there is no interface {zone}")))?;
    Ok(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)))
}

/// Undo [`parse_endpoint`]: address text, with the zone's name where it has one, and port.
pub fn endpoint_text(endpoint: &SocketAddr) -> (String, u16) {
    let mut text = endpoint.ip().to_string();
    if let SocketAddr::V6(v6) = endpoint {
        if v6.scope_id() != 0 {
            text.push('%');
            text.push_str(&interface_name(v6.scope_id()).unwrap_or_else(|| v6.scope_id().to_string()));
        }
    }
    (text, endpoint.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_survive_as_text() {
        for host in ["192.0.2.1", "2001:db8::1", "fe80::1%lo"] {
            let endpoint = parse_endpoint(host, 1194).unwrap();
            assert_eq!(endpoint_text(&endpoint), (host.to_owned(), 1194));
        }
        let mapped = parse_endpoint("::ffff:192.0.2.1", 1).unwrap();
        assert_eq!(endpoint_text(&mapped).0, "192.0.2.1");
    }

    #[test]
    fn names_and_unknown_zones_are_refused() {
        for host in ["example.org", "fe80::1%no-such-link", "1.2.3", ""] {
            assert_eq!(parse_endpoint(host, 1).unwrap_err().code(), "bad_setting", "{host}");
        }
    }
}
