//! What the control plane hears.

use bridged_core::fdb::Station;
use bridged_core::limits::LimitTrigger;

use crate::contract::endpoint::Endpoint;
use crate::contract::peers::PeerHandle;

/// Why a stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// The far end closed it.
    Closed,
    /// The network, or the far end's system, broke it off.
    Reset,
    /// A length of 0.
    BadFraming,
    /// The far end reads too slowly for control packets.
    Overflow,
}

impl StreamEnd {
    /// Its name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            StreamEnd::Closed => "closed",
            StreamEnd::Reset => "reset",
            StreamEnd::BadFraming => "bad_framing",
            StreamEnd::Overflow => "overflow",
        }
    }
}

/// What the control plane hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A datagram with a control opcode (or an unknown one); content unchecked, from anybody.
    ControlReceived {
        /// At most 4096 bytes.
        datagram: Vec<u8>,
        /// Where it came from.
        source: Endpoint,
    },
    /// The TCP connection of an adopted stream is over.
    StreamClosed {
        /// Its far end.
        endpoint: Endpoint,
        /// Why.
        reason: StreamEnd,
    },
    /// An authenticated, not replayed packet came from a new endpoint; the data plane already sends there.
    PeerFloated {
        /// Which peer.
        handle: PeerHandle,
        /// Where it is now.
        endpoint: Endpoint,
        /// Where it was.
        previous: Endpoint,
    },
    /// A server said that it knows no session of ours. Anybody can forge that.
    SessionUnknown {
        /// The peer that it came from.
        handle: PeerHandle,
    },
    /// A payload of this peer is not framed as agreed; reported once.
    FramingRefused {
        /// Which peer.
        handle: PeerHandle,
        /// The payload is compressed.
        is_compressed: bool,
    },
    /// Nothing authenticated was received for `ping_restart`; reported once.
    PeerExpired {
        /// Which peer.
        handle: PeerHandle,
    },
    /// A key should be replaced.
    KeyNearLimit {
        /// Which peer.
        handle: PeerHandle,
        /// Which key.
        key_id: u8,
        /// Why.
        trigger: LimitTrigger,
    },
    /// An OCC message (magic included) that authenticated.
    OccReceived {
        /// Which peer.
        handle: PeerHandle,
        /// The message, `OCC_OCTETS` at most.
        payload: Vec<u8>,
        /// Bytes of its filling that are left out.
        left_out: usize,
    },
    /// A station is now behind another port (None: the TAP). At most a few a second are reported.
    StationMoved {
        /// The station.
        station: Station,
        /// Where it was.
        previous: Option<PeerHandle>,
        /// Where it is.
        current: Option<PeerHandle>,
    },
    /// The TAP cannot be read or written any more (it vanished); traffic waits for `attach_tap`.
    TapFailed {
        /// The errno.
        number: i32,
    },
}
