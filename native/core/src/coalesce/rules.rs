//! What may be merged, and how much of it.

/// Frames in one super-frame: with header and virtio-net header fewer than one `writev` takes (1024).
pub const MAX_PARTS: usize = 512;
/// Of UDP, as the kernel's `UDP_MAX_SEGMENTS` has it.
pub const MAX_UDP_PARTS: usize = 64;
/// Bytes that the IP header of a super-frame counts at most (IPv4: itself included).
pub const MAX_DATAGRAM_OCTETS: usize = 65535;

/// What may be merged; all of it needs the matching offload on the TAP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CoalesceRules {
    /// TCP over IPv4.
    pub tcp4: bool,
    /// TCP over IPv6.
    pub tcp6: bool,
    /// UDP over IPv4 (USO).
    pub udp4: bool,
    /// UDP over IPv6 (USO).
    pub udp6: bool,
    /// Frames with up to two VLAN tags as well.
    pub tagged: bool,
}

impl CoalesceRules {
    /// Merge nothing: every frame comes back alone.
    pub const NONE: Self = Self { tcp4: false, tcp6: false, udp4: false, udp6: false, tagged: false };

    /// Nothing is merged by them.
    #[must_use]
    pub fn is_none(&self) -> bool {
        !(self.tcp4 || self.tcp6 || self.udp4 || self.udp6)
    }
}
