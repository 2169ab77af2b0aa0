//! What the data plane refuses, with the codes of the contract.

use crate::contract::PeerHandle;

/// Refused. [`Error::code`] is stable; the text is for people.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No peer has this handle.
    #[error("no peer with handle {0}")]
    UnknownPeer(PeerHandle),
    /// The peer has no such key.
    #[error("peer {name} has no key {key_id}")]
    UnknownKey {
        /// The peer's name.
        name: String,
        /// The key asked for.
        key_id: u8,
    },
    /// Handle or wire peer id are in use.
    #[error("{0} is in use")]
    DuplicatePeer(String),
    /// No socket: the endpoint and the reason.
    #[error("{0}")]
    BindFailed(String),
    /// A setting, an endpoint or a key that cannot be used.
    #[error("{0}")]
    BadSetting(String),
    /// A group address, all zero, not 6 bytes, or another VLAN than 0.
    #[error("{0} cannot be a station here")]
    BadStation(String),
    /// No room for a new station.
    #[error("{0} stations are known already")]
    FdbFull(usize),
    /// A replay window outside 0..=65536.
    #[error("a replay window of {0} packets is not in 0..65536")]
    ReplayWindow(usize),
    /// Threads or descriptors could not be had.
    #[error("the data plane cannot start: {0}")]
    System(#[from] std::io::Error),
}

impl Error {
    /// `unknown_peer`, `unknown_key`, `duplicate_peer`, `bind_failed`, `bad_setting`, `bad_station`,
    /// `fdb_full`, `replay_window` or `system`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::UnknownPeer(_) => "unknown_peer",
            Error::UnknownKey { .. } => "unknown_key",
            Error::DuplicatePeer(_) => "duplicate_peer",
            Error::BindFailed(_) => "bind_failed",
            Error::BadSetting(_) => "bad_setting",
            Error::BadStation(_) => "bad_station",
            Error::FdbFull(_) => "fdb_full",
            Error::ReplayWindow(_) => "replay_window",
            Error::System(_) => "system",
        }
    }
}
