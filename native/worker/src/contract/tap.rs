//! The TAP adapter, and what is joined on its way into it.

use std::os::fd::RawFd;

use bridged_core::coalesce::CoalesceRules;

/// The open TAP adapter that a data plane reads and writes; the descriptors stay the caller's
/// (they are duplicated, so that the caller may close its own at any time).
///
/// One descriptor is one queue, and worker `i` serves queue `i`: there must not be more queues than workers.
#[derive(Debug, Clone)]
pub struct TapPort {
    /// The queues; one at least, opened non-blocking.
    pub fds: Vec<RawFd>,
    /// A further queue, out of service, that takes frames for the kernel; None: `fds` take them.
    pub writer: Option<RawFd>,
    /// The adapter's name, by which the kernel's own counters are read.
    pub name: String,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Bytes of a frame's payload.
    pub mtu: u32,
    /// 0 (none), 10 or 12 bytes.
    pub virtio_header_size: usize,
    /// What the kernel accepted: `csum`, `tso4`, `tso6`, `tso_ecn`, `uso4`, `uso6`.
    pub offloads: Vec<String>,
}

/// The rules by which frames are joined on their way into the TAP, from the contract's names: `tcp4`, `tcp6`,
/// `udp4`, `udp6`. None: one of the names is no such kind.
pub fn coalesce_rules<'a>(kinds: impl IntoIterator<Item = &'a str>) -> Option<CoalesceRules> {
    let mut rules = CoalesceRules::NONE;
    for kind in kinds {
        match kind {
            "tcp4" => rules.tcp4 = true,
            "tcp6" => rules.tcp6 = true,
            "udp4" => rules.udp4 = true,
            "udp6" => rules.udp6 = true,
            _ => return None,
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_become_rules_and_unknown_ones_are_refused() {
        assert_eq!(coalesce_rules([]), Some(CoalesceRules::NONE));
        let tcp = coalesce_rules(["tcp6", "tcp4"]).unwrap();
        assert_eq!(tcp, CoalesceRules { tcp4: true, tcp6: true, ..CoalesceRules::NONE });
        let udp = coalesce_rules(["udp4"]).unwrap();
        assert_eq!(udp, CoalesceRules { udp4: true, ..CoalesceRules::NONE });
        assert_eq!(coalesce_rules(["tcp4", "sctp4"]), None);
    }
}
