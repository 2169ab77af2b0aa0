//! Where stations are.

use bridged_core::fdb::Station;

use crate::contract::peers::PeerHandle;

/// A known station; `handle` None: behind the TAP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FdbEntry {
    /// The station.
    pub station: Station,
    /// Its peer.
    pub handle: Option<PeerHandle>,
    /// Seconds since it was last heard; 0 for a static one.
    pub age: f64,
    /// It neither ages nor moves.
    pub is_static: bool,
}
