//! What the control plane hears.

use std::net::SocketAddr;

use bridged_core::fdb::Station;
use bridged_core::limits::LimitTrigger;

use crate::contract::peers::PeerHandle;

/// What the control plane hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A datagram with a control opcode (or an unknown one); content unchecked, from anybody.
    ControlReceived {
        /// At most 4096 bytes.
        datagram: Vec<u8>,
        /// Where it came from.
        source: SocketAddr,
    },
    /// An authenticated, not replayed packet came from a new endpoint; the data plane already sends there.
    PeerFloated {
        /// Which peer.
        handle: PeerHandle,
        /// Where it is now.
        endpoint: SocketAddr,
        /// Where it was.
        previous: SocketAddr,
    },
    /// A server said that it knows no session of ours. Anybody can forge that.
    SessionUnknown {
        /// The peer that it came from.
        handle: PeerHandle,
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
        /// The message.
        payload: Vec<u8>,
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
