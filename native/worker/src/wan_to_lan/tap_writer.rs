//! Frames from the wire on their way into the TAP: joined to super-frames where they allow it, and written.
//!
//! Source: docs/protocol/data.md#6-3; Linux Documentation/networking/tuntap.rst.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use bridged_core::coalesce::{Coalescer, Group, SuperGroup};
use bridged_sys::descriptor::write;
use bridged_sys::tap::Gather;
use bridged_sys::EINVAL;

use crate::contract::Direction::Receive;
use crate::control::counters::Reason;
use crate::control::names::BatchName;
use crate::shared::Shared;
use crate::tap::{judge, Failure, Tap};
use crate::transport::seam::Transport;

/// A frame in the bytes that were received.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Offset. In front of it are bytes of its packet's header, which are not needed any more.
    pub start: usize,
    /// Bytes.
    pub length: usize,
}

/// See the module.
pub struct TapWriter {
    worker: usize,
    thread: usize,
    gather: Gather,
    coalescer: Option<Coalescer>,
    /// Number of the adapter that `coalescer` is for.
    tap_number: u64,
    seed: u64,
    /// What waits, in order.
    frames: Vec<Frame>,
}

impl TapWriter {
    /// For a worker; `thread`: its place in the counters; `seed` is random.
    pub fn new(worker: usize, thread: usize, seed: u64) -> TapWriter {
        TapWriter {
            worker,
            thread,
            gather: Gather::new(),
            coalescer: None,
            tap_number: 0,
            seed,
            frames: Vec::with_capacity(4096),
        }
    }

    /// Write this frame, too, when the others are.
    #[inline]
    pub fn push(&mut self, frame: Frame) {
        self.frames.push(frame);
    }

    /// Write what waits, which lies in `octets`.
    pub fn write<T: Transport>(&mut self, shared: &Shared<T>, octets: &mut [u8]) {
        if self.frames.is_empty() {
            return;
        }
        let tap = shared.adapter.tap.load();
        match tap.as_ref() {
            None => shared.counters.count_drops(Receive, Reason::TapDown, self.frames.len() as u64, None),
            Some(tap) => {
                if tap.number != self.tap_number {
                    self.tap_number = tap.number;
                    self.coalescer = tap.rules.map(|rules| Coalescer::new(rules, self.seed));
                }
                self.write_frames(shared, tap, octets);
            }
        }
        self.frames.clear();
    }

    fn write_frames<T: Transport>(&mut self, shared: &Shared<T>, tap: &Arc<Tap>, octets: &mut [u8]) {
        let queue = tap.queue(self.worker);
        let TapWriter { coalescer, frames, gather, thread, .. } = self;
        let sizes = shared.counters.threads[*thread].sizes(BatchName::FramesPerTapWrite);
        let writer = Writer { shared, tap, queue, left: Cell::new(frames.len()) };
        let Some(coalescer) = coalescer.as_mut().filter(|_| frames.len() > 1 && tap.coalesces()) else {
            for frame in frames.iter() {
                sizes.observe(1, 1);
                if !writer.write_plain(octets, *frame) {
                    return;
                }
            }
            return;
        };
        for (index, frame) in frames.iter().enumerate() {
            coalescer.push(&octets[frame.start..frame.start + frame.length], index as u32);
        }
        let mut refused = false;
        for group in coalescer.finish() {
            match group {
                Group::Plain { index } => {
                    sizes.observe(1, 1);
                    if !writer.write_plain(octets, frames[index as usize]) {
                        return;
                    }
                }
                Group::Super(joined) => {
                    sizes.observe(joined.count, 1);
                    match writer.write_super(gather, octets, frames, &joined) {
                        Written::Joined => {}
                        Written::Apart => refused = true,
                        Written::Gone => return,
                    }
                }
            }
        }
        if refused && !tap.refuses.swap(true, Relaxed) {
            shared.adapter.coalesce_fallbacks.add_shared(1);
        }
    }
}

/// A virtio-net header, an Ethernet header with tags, IPv4 or IPv6, and the largest TCP header.
const HEAD_OCTETS: usize = 256;

/// What became of frames that were to be joined.
enum Written {
    /// They were written in one piece, or lost and counted.
    Joined,
    /// The kernel refused the super-frame; they were written one by one.
    Apart,
    /// The adapter vanished.
    Gone,
}

struct Writer<'a, T: Transport> {
    shared: &'a Shared<T>,
    tap: &'a Arc<Tap>,
    queue: RawFd,
    /// Frames of the batch that are neither written nor lost yet.
    left: Cell<usize>,
}

impl<T: Transport> Writer<'_, T> {
    #[inline]
    fn count(&self, frames: usize) {
        self.left.set(self.left.get() - frames);
    }

    /// Write one frame; false where the adapter has gone, and all that were left are lost.
    fn write_plain(&self, octets: &mut [u8], frame: Frame) -> bool {
        // The bytes before the frame were the packet's header.
        let start = frame.start - self.tap.vnet;
        octets[start..frame.start].fill(0);
        match write(self.queue, &octets[start..frame.start + frame.length]) {
            Ok(_) => {
                self.count(1);
                true
            }
            Err(number) => self.failed(number, 1),
        }
    }

    /// Write frames as one super-frame, or apart where the kernel does not take what it should.
    fn write_super(
        &self,
        gather: &mut Gather,
        octets: &mut [u8],
        frames: &[Frame],
        joined: &SuperGroup<'_>,
    ) -> Written {
        let (vnet, header) = (self.tap.vnet, joined.header.len());
        let mut head = [0; HEAD_OCTETS];
        head[..vnet].copy_from_slice(&joined.vnet.serialize()[..vnet]);
        head[vnet..vnet + header].copy_from_slice(joined.header);
        let parts = joined.parts().map(|index| {
            let frame = frames[index as usize];
            &octets[frame.start + header..frame.start + frame.length]
        });
        match gather.write(self.queue, &head[..vnet + header], parts) {
            Ok(_) => {
                self.count(joined.count);
                Written::Joined
            }
            Err(EINVAL) => match joined.parts().all(|index| self.write_plain(octets, frames[index as usize])) {
                true => Written::Apart,
                false => Written::Gone,
            },
            Err(number) => match self.failed(number, joined.count) {
                true => Written::Joined,
                false => Written::Gone,
            },
        }
    }

    #[cold]
    fn failed(&self, number: bridged_sys::Errno, frames: usize) -> bool {
        match judge(self.queue, number) {
            Failure::Gone => {
                self.shared.counters.count_drops(Receive, Reason::TapDown, self.left.get() as u64, None);
                self.shared.detach_lost_tap(self.tap, number);
                false
            }
            Failure::Lost(reason) => {
                self.count(frames);
                self.shared.counters.count_drops(Receive, reason, frames as u64, None);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use bridged_core::coalesce::CoalesceRules;

    use super::*;
    use crate::contract::TapPort;
    use crate::test_rig::{frame, Rig};

    /// Write five frames to a descriptor; how many were lost for a reason, and whether it is still attached.
    fn lost(descriptor: RawFd, virtio_header_size: usize, reason: &'static str) -> (u64, bool) {
        let rig = Rig::new(|settings| settings.coalesce = CoalesceRules { tcp4: true, ..CoalesceRules::default() });
        let port = TapPort {
            fds: vec![descriptor],
            writer: None,
            name: "in-hand".into(),
            mac: [2, 0, 0, 0, 0, 0xff],
            mtu: 1500,
            virtio_header_size,
            offloads: Vec::new(),
        };
        rig.plane.attach_tap(port).unwrap();
        let mut writer = TapWriter::new(0, 1, 7);
        let mut octets = Vec::new();
        for number in 0..5 {
            octets.extend([0; 24]);
            writer.push(Frame { start: octets.len(), length: 60 });
            octets.extend(frame(number, 60));
        }
        writer.write(rig.shared(), &mut octets);
        let drops = rig.plane.snapshot().drops;
        assert!(drops.keys().all(|key| *key == ("receive", reason)), "{drops:?}");
        (drops.get(&("receive", reason)).copied().unwrap_or(0), rig.shared().adapter.tap.load().is_some())
    }

    #[test]
    fn all_frames_that_a_vanished_adapter_leaves_are_counted() {
        // What was not opened to be written says EBADF.
        let gone = File::open("/dev/null").unwrap();
        for virtio_header_size in [0, 10] {
            assert_eq!(lost(gone.as_raw_fd(), virtio_header_size, "tap_down"), (5, false));
        }
    }

    #[test]
    fn each_frame_that_an_adapter_refuses_is_counted_and_it_stays() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let taking = File::options().write(true).open("/dev/null").unwrap();
        for virtio_header_size in [0, 10] {
            assert_eq!(lost(full.as_raw_fd(), virtio_header_size, "io_error"), (5, true));
            assert_eq!(lost(taking.as_raw_fd(), virtio_header_size, "io_error"), (0, true));
        }
    }
}
