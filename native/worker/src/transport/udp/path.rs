//! The path to one peer over UDP: its address, the pinned source, and what crosses it in one piece.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use bridged_core::{Nanos, SECOND};
use bridged_sys::address::{Pin, RawAddress};

/// Bytes of IP and UDP header, by `is_ipv6`.
pub const IP_UDP_OCTETS: [u32; 2] = [20 + 8, 40 + 8];
/// Ask a path for its MTU this often.
const MTU_PAUSE: Nanos = 10 * SECOND;
/// Ask this soon after a peer moved and its new path was not asked.
const GUESS_PAUSE: Nanos = SECOND;

/// Where a peer is, as the socket sees it, and what its path bears.
#[derive(Debug)]
pub struct UdpPath {
    /// Where.
    pub endpoint: SocketAddr,
    /// The same for the socket.
    pub raw: RawAddress,
    /// The local address to send from (the pinned source).
    pub pin: Option<Pin>,
    /// UDP payload bytes that cross without IP fragmentation; `usize::MAX`: not known.
    pub fitting: AtomicUsize,
    /// Larger datagrams are not sent as segments of a run until `retry_at`.
    pub segment_limit: AtomicUsize,
    /// See `segment_limit`; monotonic.
    pub retry_at: AtomicU64,
    /// When the MTU of the route was asked for last; monotonic.
    pub asked_at: AtomicU64,
    /// `fitting` is that of the path before: the route has not been asked yet.
    pub is_guess: AtomicBool,
}

impl UdpPath {
    /// A path on which nothing has failed yet. `mtu`: of the outer IP packet; None: not known.
    pub fn new(endpoint: SocketAddr, raw: RawAddress, pin: Option<Pin>, mtu: Option<u32>, now: Nanos) -> UdpPath {
        let path = UdpPath {
            endpoint,
            raw,
            pin,
            fitting: AtomicUsize::new(usize::MAX),
            segment_limit: AtomicUsize::new(usize::MAX),
            retry_at: AtomicU64::new(0),
            asked_at: AtomicU64::new(now),
            is_guess: AtomicBool::new(false),
        };
        path.set_mtu(mtu);
        path
    }

    /// Record the MTU; whether it changed.
    pub fn set_mtu(&self, mtu: Option<u32>) -> bool {
        let headers = IP_UDP_OCTETS[usize::from(self.endpoint.is_ipv6())];
        let fitting = mtu.map_or(usize::MAX, |mtu| mtu.saturating_sub(headers) as usize);
        self.fitting.swap(fitting, Relaxed) != fitting
    }

    /// Its MTU was asked for at least `pause` ago.
    pub fn was_asked_before(&self, now: Nanos, pause: Nanos) -> bool {
        now.saturating_sub(self.asked_at.load(Relaxed)) >= pause
    }

    /// The same path from another local address.
    pub fn pinned(&self, pin: Option<Pin>) -> UdpPath {
        UdpPath {
            endpoint: self.endpoint,
            raw: self.raw,
            pin,
            fitting: AtomicUsize::new(self.fitting.load(Relaxed)),
            segment_limit: AtomicUsize::new(self.segment_limit.load(Relaxed)),
            retry_at: AtomicU64::new(self.retry_at.load(Relaxed)),
            asked_at: AtomicU64::new(self.asked_at.load(Relaxed)),
            is_guess: AtomicBool::new(self.is_guess.load(Relaxed)),
        }
    }

    /// A path to another endpoint, taken to bear what this one does until its route is asked.
    pub fn elsewhere(&self, endpoint: SocketAddr, raw: RawAddress, pin: Option<Pin>) -> UdpPath {
        let headers = IP_UDP_OCTETS[usize::from(self.endpoint.is_ipv6())];
        let mtu = match self.fitting.load(Relaxed) {
            usize::MAX => None,
            fitting => Some(fitting as u32 + headers),
        };
        let path = UdpPath::new(endpoint, raw, pin, mtu, self.asked_at.load(Relaxed));
        path.is_guess.store(true, Relaxed);
        path
    }
}

impl UdpPath {
    /// See [`PeerPath`](crate::transport::seam::PeerPath); so the other.
    #[inline]
    pub fn fitting(&self) -> usize {
        self.fitting.load(Relaxed)
    }

    pub fn mtu_is_due(&self, now: Nanos) -> bool {
        let pause = if self.is_guess.load(Relaxed) { GUESS_PAUSE } else { MTU_PAUSE };
        self.was_asked_before(now, pause)
    }
}
