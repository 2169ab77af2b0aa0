//! Generated from bridged/catalogue/settings.py by scripts/native_tables.py; edit that.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use bridged_core::coalesce::CoalesceRules;
use bridged_core::priority::Priority;

use crate::contract::TapPort;
use crate::error::Error;

/// What is fixed for the life of one data plane (one tunnel).
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the tunnel; only for messages.
    pub tunnel: String,
    /// The adapter.
    pub tap: TapPort,
    /// Where to listen; None: an unbound socket, as a client has.
    pub bind: Option<SocketAddr>,
    /// largest MSS of SYN segments over IPv4, IPv6: 20 less; 0: any. In bytes.
    pub mss_limit: u16,
    /// native: SYN segments offer no more than one packet to the peer can carry.
    pub mss_fits_path: bool,
    /// time after which the tunnel forgets a silent station. In seconds.
    pub ageing: f64,
    /// a station heard from a peer this recently stays there. In seconds.
    pub move_hold: f64,
    /// stations the tunnel can remember.
    pub fdb_capacity: usize,
    /// stations one peer can have.
    pub addresses_per_peer: usize,
    /// how far packets may arrive out of order. In packets.
    pub replay_window: usize,
    /// datagrams have no opcode: all are data of the only peer, under a static key.
    pub static_key: bool,
    /// server: let clients reach each other.
    pub forward_between_peers: bool,
    /// what may be joined into super-frames.
    pub coalesce: CoalesceRules,
    /// bytes of the UDP socket's buffers, each way.
    pub socket_buffer: usize,
    /// bytes of frames under one key, both directions together.
    pub renegotiate_bytes: u64,
    /// packets under one key, both directions together.
    pub renegotiate_packets: u64,
    /// largest outer packet that carries TCP. In bytes.
    pub wan_mtu: u32,
    /// packets larger than `wan_mtu` leaves: tell hosts by ICMP if they must not be cut, and cut IPv4 that may be;
    /// false: they travel in IP fragments of the WAN, which some paths drop.
    pub answer_too_big: bool,
    /// native: number of thread pairs and TAP queues.
    pub workers: usize,
    /// native: how long the kernel may busy-poll the network card; 0: off. In microseconds.
    pub busy_poll: u32,
    /// native: how long full-size packets of a fast stream (32 or more in a millisecond) may gather before they are
    /// read; 0: off. In microseconds.
    pub moderation: u32,
    /// pcp, dscp: copy a frame's VLAN priority or DSCP to the outer packet, where the WAN sees it, and send PCP 4-7 or
    /// DSCP 32-63 first; an OpenVPN peer needs `replay-window 4096`.
    pub priority: Priority,
}

impl Settings {
    /// The defaults, for a tunnel on this adapter.
    pub fn new(tunnel: &str, tap: TapPort, bind: Option<SocketAddr>) -> Settings {
        Settings {
            tunnel: tunnel.to_owned(),
            tap,
            bind,
            mss_limit: 0,
            mss_fits_path: false,
            ageing: 300.0,
            move_hold: 0.25,
            fdb_capacity: 100_000,
            addresses_per_peer: 4096,
            replay_window: 4096,
            static_key: false,
            forward_between_peers: true,
            coalesce: CoalesceRules { tcp4: true, tcp6: true, udp4: true, udp6: true, tagged: false },
            socket_buffer: 4_194_304,
            renegotiate_bytes: 0,
            renegotiate_packets: 0,
            wan_mtu: 0,
            answer_too_big: false,
            workers: 1,
            busy_poll: 0,
            moderation: 0,
            priority: Priority::Off,
        }
    }

    /// Whether every value is in range.
    ///
    /// # Errors
    /// [`Error::BadSetting`]: the first one that is not.
    pub fn check(&self) -> Result<(), Error> {
        within("ageing", self.ageing, 0.0..=f64::INFINITY)?;
        within("move_hold", self.move_hold, 0.0..=f64::INFINITY)?;
        within("fdb_capacity", self.fdb_capacity, 1..=usize::MAX)?;
        within("addresses_per_peer", self.addresses_per_peer, 1..=usize::MAX)?;
        within("replay_window", self.replay_window, 0..=65536)?;
        if self.wan_mtu != 0 {
            within("wan_mtu", self.wan_mtu, 576..=65535)?;
        }
        within("workers", self.workers, 1..=16)?;
        within("busy_poll", self.busy_poll, 0..=1_000_000)?;
        within("moderation", self.moderation, 0..=1000)?;
        Ok(())
    }
}

fn within<T: PartialOrd + Display>(name: &str, value: T, limits: RangeInclusive<T>) -> Result<(), Error> {
    if limits.contains(&value) {
        return Ok(());
    }
    Err(Error::BadSetting(format!("{name}: {value} is not in {}..{}", limits.start(), limits.end())))
}
