//! The attached TAP: its queues and what it can take.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use bridged_core::coalesce::CoalesceRules;
use bridged_core::vnet::{LONG_OCTETS, SHORT_OCTETS};
use bridged_core::{Nanos, SECOND};
use bridged_sys::descriptor::duplicate;
use bridged_sys::tap::{is_gone, mtu_of};
use bridged_sys::{Errno, EAGAIN, EBADF, EBADFD, EIO, ENOBUFS, ENODEV, ENOMEM, ENXIO};

use crate::contract::TapPort;
use crate::control::counters::{Counter, Reason};
use crate::error::Error;
use crate::sync::ArcSwapOption;

/// Bytes of the largest IP packet, an Ethernet header, and two tags.
pub const SUPER_FRAME_OCTETS: usize = 65_535 + 14 + 8;
const HEADER_AND_TAGS_OCTETS: usize = 14 + 8;

/// Ask the adapter for its MTU again at most this often.
const MTU_PAUSE: Nanos = SECOND / 10;

/// The place of the TAP, which may vanish and be replaced.
pub struct Adapter {
    /// The adapter; None: it vanished.
    pub tap: ArcSwapOption<Tap>,
    /// Bytes of the largest frame that it carries, as far as is known: see `carries`.
    pub largest_frame: AtomicUsize,
    /// When its MTU was asked for last; monotonic.
    mtu_asked_at: AtomicU64,
    /// Its frames wait in it, unread.
    is_held: AtomicBool,
    /// Super-frames that it refused.
    pub coalesce_fallbacks: Counter,
}

impl Adapter {
    /// With an adapter in place.
    pub fn new(tap: Tap) -> Adapter {
        Adapter {
            largest_frame: AtomicUsize::new(tap.largest_frame),
            tap: ArcSwapOption::from_pointee(tap),
            mtu_asked_at: AtomicU64::new(0),
            is_held: AtomicBool::new(false),
            coalesce_fallbacks: Counter::default(),
        }
    }

    /// Leave its frames in it, or read them again.
    pub fn hold(&self, is_held: bool) {
        self.is_held.store(is_held, Relaxed);
    }

    /// The descriptor that a worker reads from now, or None.
    #[inline]
    pub fn queue_to_read(&self, tap: &Tap, worker: usize) -> Option<RawFd> {
        if self.is_held.load(Relaxed) {
            return None;
        }
        tap.queue_to_read(worker)
    }

    /// Continue with another one.
    pub fn attach(&self, tap: Tap) {
        self.largest_frame.store(tap.largest_frame, Relaxed);
        self.tap.store(Some(Arc::new(tap)));
    }

    /// Take out an adapter that vanished; false where another thread did so, or a new one is in place.
    pub fn detach(&self, gone: &Arc<Tap>) -> bool {
        let was = self.tap.compare_and_swap(gone, None);
        was.as_ref().is_some_and(|tap| Arc::ptr_eq(tap, gone))
    }

    /// Whether it carries a frame longer than what it was known to carry: its MTU follows the LAN's.
    #[cold]
    pub fn carries(&self, octets: usize, now: Nanos) -> bool {
        if now.saturating_sub(self.mtu_asked_at.load(Relaxed)) >= MTU_PAUSE {
            self.mtu_asked_at.store(now, Relaxed);
            if let Some(mtu) = self.tap.load().as_ref().and_then(|tap| mtu_of(&tap.name)) {
                self.largest_frame.store(largest_frame(mtu), Relaxed);
            }
        }
        octets <= self.largest_frame.load(Relaxed)
    }
}

/// One attached TAP.
#[derive(Debug)]
pub struct Tap {
    /// Another number for every adapter that was ever attached.
    pub number: u64,
    queues: Vec<OwnedFd>,
    /// A queue out of service, to write to; None: each worker writes to its own.
    writer: Option<OwnedFd>,
    /// Bytes of the virtio-net header: 0, 10 or 12.
    pub vnet: usize,
    /// Bytes that one read may give, the header included, and one more, which shows a frame that was cut short.
    pub room: usize,
    /// Bytes of the largest frame that it carried in one piece when it was attached.
    pub largest_frame: usize,
    /// What may be joined into super-frames; None: nothing.
    pub rules: Option<CoalesceRules>,
    /// It refused a super-frame (EINVAL): everything goes alone from then on.
    pub refuses: AtomicBool,
    /// Its name.
    pub name: String,
    /// It gives TCP super-frames.
    pub has_tso: bool,
    /// It gives UDP super-frames.
    pub has_uso: bool,
}

impl Tap {
    /// Duplicate the queues' descriptors and see what the adapter can do.
    ///
    /// # Errors
    /// [`Error::BadSetting`]: no queue, more queues than workers, or a header of another size; [`Error::System`]: EBADF, EMFILE.
    pub fn new(port: &TapPort, coalesce: CoalesceRules, workers: usize, number: u64) -> Result<Tap, Error> {
        if port.fds.is_empty() {
            return Err(Error::BadSetting(format!("adapter {} has no queue", port.name)));
        }
        if port.fds.len() > workers {
            let queues = port.fds.len();
            let text = format!("adapter {} has {queues} queues, but there are {workers} workers", port.name);
            return Err(Error::BadSetting(text));
        }
        let vnet = port.virtio_header_size;
        if ![0, SHORT_OCTETS, LONG_OCTETS].contains(&vnet) {
            return Err(Error::BadSetting(format!("adapter {}: no virtio-net header has {vnet} bytes", port.name)));
        }
        let mut queues = Vec::with_capacity(port.fds.len());
        for descriptor in &port.fds {
            queues.push(duplicate(*descriptor)?);
        }
        let writer = port.writer.map(duplicate).transpose()?;
        let has = |name: &str| port.offloads.iter().any(|offload| offload == name);
        let has_tso = has("tso4") || has("tso6") || has("tso_ecn");
        let has_uso = has("uso4") || has("uso6");
        // The kernel always takes TCP super-frames; UDP ones are newer (Linux 6.2), and
        // it takes those that it offers.
        let rules = CoalesceRules { udp4: coalesce.udp4 && has_uso, udp6: coalesce.udp6 && has_uso, ..coalesce };
        Ok(Tap {
            number,
            queues,
            writer,
            vnet,
            // Its MTU may grow.
            room: vnet + SUPER_FRAME_OCTETS + 1,
            largest_frame: largest_frame(port.mtu),
            rules: (vnet > 0 && !rules.is_none()).then_some(rules),
            refuses: AtomicBool::new(false),
            name: port.name.clone(),
            has_tso,
            has_uso,
        })
    }

    /// Frames are joined on their way to it.
    pub fn coalesces(&self) -> bool {
        self.rules.is_some() && !self.refuses.load(Relaxed)
    }

    /// The queue that a worker writes to. What the kernel hears of a flow through a queue in service, it answers
    /// through the same one from then on: a flow would change over to another reader in its midst, and lose its order
    /// there.
    pub fn queue(&self, worker: usize) -> RawFd {
        self.writer.as_ref().unwrap_or(&self.queues[worker % self.queues.len()]).as_raw_fd()
    }

    /// The queue that a worker reads; None where there is none left for it (two would put frames out of order).
    pub fn queue_to_read(&self, worker: usize) -> Option<RawFd> {
        self.queues.get(worker).map(AsRawFd::as_raw_fd)
    }
}

/// Bytes of the largest frame that an adapter of this MTU carries in one piece: with an Ethernet header and two tags.
pub fn largest_frame(mtu: u32) -> usize {
    (mtu as usize + HEADER_AND_TAGS_OCTETS).min(SUPER_FRAME_OCTETS)
}

/// What an errno of the TAP means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The adapter vanished.
    Gone,
    /// What was to be written is lost, for this reason.
    Lost(Reason),
}

/// Tell a lost adapter from a lost frame.
pub fn judge(descriptor: RawFd, number: Errno) -> Failure {
    match number {
        EBADFD | EBADF | ENODEV | ENXIO => Failure::Gone,
        EIO if is_gone(descriptor) => Failure::Gone,
        // Administratively down: it may come back by itself.
        EIO => Failure::Lost(Reason::TapDown),
        EAGAIN | ENOBUFS | ENOMEM => Failure::Lost(Reason::TapFull),
        _ => Failure::Lost(Reason::IoError),
    }
}
