//! Generated from bridged/catalogue/counters.py by scripts/native_tables.py; edit that.

/// Why a frame or packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The authentication tag is wrong: other key, or altered.
    TagMismatch,
    /// The packet id was received before.
    Replay,
    /// The packet id is older than the replay window.
    ReplayTooOld,
    /// Somebody sent one of our own packets back to us.
    Reflected,
    /// No peer has this peer id.
    UnknownPeerId,
    /// The peer has no key with this key id.
    UnknownKeyId,
    /// The peer's key is gone and the next one is not there yet.
    NoKey,
    /// The key has reached its usage limit.
    KeyExpired,
    /// tls-auth or tls-crypt fails: the wrapping keys differ.
    WrapMismatch,
    /// A control packet that belongs to no session here.
    CookieMismatch,
    /// The peer's new endpoint belongs to another peer.
    FloatRefused,
    /// The packet is too short for its kind.
    ShortPacket,
    /// No packet of this kind is expected here.
    BadOpcode,
    /// Lengths inside a packet or frame contradict each other.
    BadLength,
    /// A frame without a whole Ethernet header.
    ShortFrame,
    /// A frame larger than the TAP's MTU.
    LongFrame,
    /// The peer compressed the frame.
    Compressed,
    /// The payload is not framed as both ends agreed.
    BadFraming,
    /// A part of a frame that fits no frame.
    BadFragment,
    /// Parts of a frame did not come, or too many wait.
    FragmentIncomplete,
    /// An OCC message that is too long.
    OccLength,
    /// One of our own frames came back from the LAN.
    LoopGuard,
    /// The peer, or the tunnel, has as many stations as it may.
    MacLimit,
    /// The source address is a group address.
    SourceMulticast,
    /// A link-local group that bridges do not forward.
    ReservedAddress,
    /// The payload looks like a ping or an OCC message.
    HousekeepingMagic,
    /// The kernel refused a datagram as too large for the path.
    Emsgsize,
    /// A packet too large for the path that must not be cut was answered.
    TooBig,
    /// A packet longer than its length in a TCP stream can say.
    TcpTooLong,
    /// The TAP takes no more frames at the moment.
    TapFull,
    /// The socket's send buffer is full.
    UdpSendFull,
    /// The peer's TCP connection takes no more at the moment.
    TcpSendFull,
    /// Too many control packets wait to be handled.
    ControlQueueFull,
    /// Too many events wait to be handled.
    EventQueueFull,
    /// Too many hard resets arrive.
    HandshakeRate,
    /// Too many control packets from one source.
    SourceRate,
    /// The peer sends OCC messages too often.
    OccRate,
    /// The kernel has no route or no address to send from.
    Unreachable,
    /// The kernel, or its packet filter, refuses to send.
    Refused,
    /// The TAP is down or gone.
    TapDown,
    /// Any other error of the TAP or the socket.
    IoError,
    /// No peer to send to.
    NoPeer,
}

impl Reason {
    /// All of them, by index.
    pub const ALL: &'static [Reason] = &[
        Reason::TagMismatch,
        Reason::Replay,
        Reason::ReplayTooOld,
        Reason::Reflected,
        Reason::UnknownPeerId,
        Reason::UnknownKeyId,
        Reason::NoKey,
        Reason::KeyExpired,
        Reason::WrapMismatch,
        Reason::CookieMismatch,
        Reason::FloatRefused,
        Reason::ShortPacket,
        Reason::BadOpcode,
        Reason::BadLength,
        Reason::ShortFrame,
        Reason::LongFrame,
        Reason::Compressed,
        Reason::BadFraming,
        Reason::BadFragment,
        Reason::FragmentIncomplete,
        Reason::OccLength,
        Reason::LoopGuard,
        Reason::MacLimit,
        Reason::SourceMulticast,
        Reason::ReservedAddress,
        Reason::HousekeepingMagic,
        Reason::Emsgsize,
        Reason::TooBig,
        Reason::TcpTooLong,
        Reason::TapFull,
        Reason::UdpSendFull,
        Reason::TcpSendFull,
        Reason::ControlQueueFull,
        Reason::EventQueueFull,
        Reason::HandshakeRate,
        Reason::SourceRate,
        Reason::OccRate,
        Reason::Unreachable,
        Reason::Refused,
        Reason::TapDown,
        Reason::IoError,
        Reason::NoPeer,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Reason::TagMismatch => "tag_mismatch",
            Reason::Replay => "replay",
            Reason::ReplayTooOld => "replay_too_old",
            Reason::Reflected => "reflected",
            Reason::UnknownPeerId => "unknown_peer_id",
            Reason::UnknownKeyId => "unknown_key_id",
            Reason::NoKey => "no_key",
            Reason::KeyExpired => "key_expired",
            Reason::WrapMismatch => "wrap_mismatch",
            Reason::CookieMismatch => "cookie_mismatch",
            Reason::FloatRefused => "float_refused",
            Reason::ShortPacket => "short_packet",
            Reason::BadOpcode => "bad_opcode",
            Reason::BadLength => "bad_length",
            Reason::ShortFrame => "short_frame",
            Reason::LongFrame => "long_frame",
            Reason::Compressed => "compressed",
            Reason::BadFraming => "bad_framing",
            Reason::BadFragment => "bad_fragment",
            Reason::FragmentIncomplete => "fragment_incomplete",
            Reason::OccLength => "occ_length",
            Reason::LoopGuard => "loop_guard",
            Reason::MacLimit => "mac_limit",
            Reason::SourceMulticast => "source_multicast",
            Reason::ReservedAddress => "reserved_address",
            Reason::HousekeepingMagic => "housekeeping_magic",
            Reason::Emsgsize => "emsgsize",
            Reason::TooBig => "too_big",
            Reason::TcpTooLong => "tcp_too_long",
            Reason::TapFull => "tap_full",
            Reason::UdpSendFull => "udp_send_full",
            Reason::TcpSendFull => "tcp_send_full",
            Reason::ControlQueueFull => "control_queue_full",
            Reason::EventQueueFull => "event_queue_full",
            Reason::HandshakeRate => "handshake_rate",
            Reason::SourceRate => "source_rate",
            Reason::OccRate => "occ_rate",
            Reason::Unreachable => "unreachable",
            Reason::Refused => "refused",
            Reason::TapDown => "tap_down",
            Reason::IoError => "io_error",
            Reason::NoPeer => "no_peer",
        }
    }
}

impl Reason {
    /// The reason of this name, if there is one.
    pub fn named(name: &str) -> Option<Reason> {
        match name {
            "tag_mismatch" => Some(Reason::TagMismatch),
            "replay" => Some(Reason::Replay),
            "replay_too_old" => Some(Reason::ReplayTooOld),
            "reflected" => Some(Reason::Reflected),
            "unknown_peer_id" => Some(Reason::UnknownPeerId),
            "unknown_key_id" => Some(Reason::UnknownKeyId),
            "no_key" => Some(Reason::NoKey),
            "key_expired" => Some(Reason::KeyExpired),
            "wrap_mismatch" => Some(Reason::WrapMismatch),
            "cookie_mismatch" => Some(Reason::CookieMismatch),
            "float_refused" => Some(Reason::FloatRefused),
            "short_packet" => Some(Reason::ShortPacket),
            "bad_opcode" => Some(Reason::BadOpcode),
            "bad_length" => Some(Reason::BadLength),
            "short_frame" => Some(Reason::ShortFrame),
            "long_frame" => Some(Reason::LongFrame),
            "compressed" => Some(Reason::Compressed),
            "bad_framing" => Some(Reason::BadFraming),
            "bad_fragment" => Some(Reason::BadFragment),
            "fragment_incomplete" => Some(Reason::FragmentIncomplete),
            "occ_length" => Some(Reason::OccLength),
            "loop_guard" => Some(Reason::LoopGuard),
            "mac_limit" => Some(Reason::MacLimit),
            "source_multicast" => Some(Reason::SourceMulticast),
            "reserved_address" => Some(Reason::ReservedAddress),
            "housekeeping_magic" => Some(Reason::HousekeepingMagic),
            "emsgsize" => Some(Reason::Emsgsize),
            "too_big" => Some(Reason::TooBig),
            "tcp_too_long" => Some(Reason::TcpTooLong),
            "tap_full" => Some(Reason::TapFull),
            "udp_send_full" => Some(Reason::UdpSendFull),
            "tcp_send_full" => Some(Reason::TcpSendFull),
            "control_queue_full" => Some(Reason::ControlQueueFull),
            "event_queue_full" => Some(Reason::EventQueueFull),
            "handshake_rate" => Some(Reason::HandshakeRate),
            "source_rate" => Some(Reason::SourceRate),
            "occ_rate" => Some(Reason::OccRate),
            "unreachable" => Some(Reason::Unreachable),
            "refused" => Some(Reason::Refused),
            "tap_down" => Some(Reason::TapDown),
            "io_error" => Some(Reason::IoError),
            "no_peer" => Some(Reason::NoPeer),
            _ => None,
        }
    }
}

/// What threads count where frames pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Count {
    /// The MSS that a SYN segment offers was lowered.
    MssClamped,
    /// A super-frame was cut into smaller segments than the sender's.
    MssFitted,
    /// A datagram larger than the path was sent in fragments.
    IpFragmentSent,
    /// A host was told by ICMP that its packet is too large.
    TooBigAnswered,
    /// An IPv4 packet too large for the path was cut, as routers do.
    Ipv4Cut,
    /// The path to a peer has another MTU than before.
    PathMtuChanged,
}

impl Count {
    /// All of them, by index.
    pub const ALL: &'static [Count] = &[
        Count::MssClamped,
        Count::MssFitted,
        Count::IpFragmentSent,
        Count::TooBigAnswered,
        Count::Ipv4Cut,
        Count::PathMtuChanged,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Count::MssClamped => "mss_clamped",
            Count::MssFitted => "mss_fitted",
            Count::IpFragmentSent => "ip_fragment_sent",
            Count::TooBigAnswered => "too_big_answered",
            Count::Ipv4Cut => "ipv4_cut",
            Count::PathMtuChanged => "path_mtu_changed",
        }
    }
}

impl Count {
    /// The metric that it belongs to, without prefix and suffix.
    pub fn family(self) -> &'static str {
        match self {
            Count::MssClamped => "mtu_events",
            Count::MssFitted => "mtu_events",
            Count::IpFragmentSent => "mtu_events",
            Count::TooBigAnswered => "mtu_events",
            Count::Ipv4Cut => "mtu_events",
            Count::PathMtuChanged => "mtu_events",
        }
    }
}

/// What kernel or card may do for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OffloadName {
    /// Frames of the TAP carry a virtio-net header.
    TapVnet,
    /// The TAP gives TCP super-frames.
    TapTso,
    /// The TAP gives UDP super-frames.
    TapUso,
    /// The kernel cuts a run of packets into datagrams.
    UdpGso,
    /// The kernel joins datagrams on arrival.
    UdpGro,
    /// Several sockets share the peers by their ids.
    UdpSteering,
    /// Frames are joined into super-frames for the TAP.
    Coalesce,
}

impl OffloadName {
    /// All of them, by index.
    pub const ALL: &'static [OffloadName] = &[
        OffloadName::TapVnet,
        OffloadName::TapTso,
        OffloadName::TapUso,
        OffloadName::UdpGso,
        OffloadName::UdpGro,
        OffloadName::UdpSteering,
        OffloadName::Coalesce,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            OffloadName::TapVnet => "tap_vnet",
            OffloadName::TapTso => "tap_tso",
            OffloadName::TapUso => "tap_uso",
            OffloadName::UdpGso => "udp_gso",
            OffloadName::UdpGro => "udp_gro",
            OffloadName::UdpSteering => "udp_steering",
            OffloadName::Coalesce => "coalesce",
        }
    }
}

/// A queue whose depth is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum QueueName {
    /// Control packets that wait for the control plane.
    Control,
    /// Events that wait for the control plane.
    Events,
}

impl QueueName {
    /// All of them, by index.
    pub const ALL: &'static [QueueName] = &[QueueName::Control, QueueName::Events];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            QueueName::Control => "control",
            QueueName::Events => "events",
        }
    }
}

/// What the sizes of batches are counted of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BatchName {
    /// Datagrams handed to the kernel in one call.
    SegmentsPerSend,
    /// Datagrams taken from the kernel in one call.
    DatagramsPerReceive,
    /// Frames coalesced into one TAP write.
    FramesPerTapWrite,
}

impl BatchName {
    /// All of them, by index.
    pub const ALL: &'static [BatchName] =
        &[BatchName::SegmentsPerSend, BatchName::DatagramsPerReceive, BatchName::FramesPerTapWrite];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            BatchName::SegmentsPerSend => "segments_per_send",
            BatchName::DatagramsPerReceive => "datagrams_per_receive",
            BatchName::FramesPerTapWrite => "frames_per_tap_write",
        }
    }
}
