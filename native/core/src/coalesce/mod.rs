//! Frames on their way to the TAP become super-frames: consecutive segments of one flow in one write.
//!
//! Source: the merging rules of Linux's `tcp_gro_receive`, made stricter until the kernel's own segmentation
//! (`tcp_gso_segment`, `__udp_gso_segment`) gives back every frame byte for byte: same headers but for length,
//! identification, sequence number and checksums, no flags but ACK, ECE and a closing PSH, and *good checksums*. A
//! super-frame says `NEEDS_CSUM`, which makes the kernel vouch for the sums; a frame with a wrong one is therefore left
//! alone. `bridged/dataplane/portable/headers/coalesce.py` is the same in Python, but for UDP and tags.

mod rules;
mod runs;
mod segment_headers;

use crate::vnet::VnetHeader;
pub use rules::{CoalesceRules, MAX_DATAGRAM_OCTETS, MAX_PARTS, MAX_UDP_PARTS};
use runs::{Entry, Runs};
use segment_headers::{flow_key, parse, Alone, Flow, Parsed};

use crate::hashing::Seed;

/// Turns batches of frames into TAP writes. Push all frames of a batch, then read the groups off [`Coalescer::finish`].
///
/// Allocates while batches get larger than any before. Memory: about 250 bytes for each frame of the largest batch.
#[derive(Debug)]
pub struct Coalescer {
    rules: CoalesceRules,
    seed: Seed,
    runs: Runs,
    is_finished: bool,
}

impl Coalescer {
    /// `seed`: random, so that strangers cannot choose flows whose hashes collide.
    #[must_use]
    pub fn new(rules: CoalesceRules, seed: u64) -> Self {
        Self { rules, seed: Seed::new(seed), runs: Runs::new(), is_finished: false }
    }

    /// Forget the present batch. (`push` after `finish` does so by itself.)
    pub fn clear(&mut self) {
        self.runs.clear();
        self.is_finished = false;
    }

    /// Frames pushed since the last [`finish`](Self::finish).
    #[must_use]
    pub fn len(&self) -> usize {
        if self.is_finished {
            0
        } else {
            self.runs.frames()
        }
    }

    /// No frame yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Add a frame of the batch; `index` is how the caller will find it again. The bytes are not kept.
    #[inline]
    pub fn push(&mut self, frame: &[u8], index: u32) {
        if self.is_finished {
            self.clear();
        }
        if self.rules.is_none() {
            self.runs.add_plain(index);
            return;
        }
        match parse(frame, &self.rules) {
            Parsed::Segment(segment) => self.runs.offer(frame, index, &segment, self.seed),
            Parsed::Alone(alone) => {
                if self.runs.any_open() {
                    self.runs.interrupt(match alone {
                        Alone::Other => Flow::None,
                        Alone::Flow(layout) => Flow::Key(flow_key(frame, layout, self.seed)),
                        Alone::Unknown => Flow::Any,
                    });
                }
                self.runs.add_plain(index);
            }
        }
    }

    /// The writes for all frames pushed since the last `finish`, each frame in exactly one.
    ///
    /// The order within every flow is kept; a super-frame stands where its first frame stood.
    pub fn finish(&mut self) -> Groups<'_> {
        if self.is_finished {
            self.clear();
        }
        self.runs.complete_headers();
        self.is_finished = true;
        Groups { runs: &self.runs, next: 0 }
    }
}

/// One write to the TAP.
#[derive(Debug, Clone)]
pub enum Group<'a> {
    /// A frame as it is, behind a virtio-net header of zeros.
    Plain {
        /// Which one.
        index: u32,
    },
    /// Several frames: write `vnet`, `header`, and of each part what stands behind `header.len()` bytes.
    Super(SuperGroup<'a>),
}

/// See [`Group::Super`].
#[derive(Debug, Clone)]
pub struct SuperGroup<'a> {
    /// What stands before it on the TAP.
    pub vnet: VnetHeader,
    /// Ethernet to TCP or UDP header, patched; as long as the headers of each part.
    pub header: &'a [u8],
    /// Frames in it, at least 2, at most [`MAX_PARTS`].
    pub count: usize,
    /// Bytes of the super-frame: header and all payloads.
    pub octets: usize,
    parts: Parts<'a>,
}

impl<'a> SuperGroup<'a> {
    /// Bytes of each part that are headers.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header.len()
    }

    /// The indexes of the frames in it, in order.
    #[must_use]
    pub fn parts(&self) -> Parts<'a> {
        self.parts.clone()
    }
}

/// Indexes of the frames in a super-frame.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    runs: &'a Runs,
    next: u32,
}

impl Iterator for Parts<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        let link = self.runs.link(self.next)?;
        self.next = link.next;
        Some(link.index)
    }
}

/// The writes of a batch, in order.
#[derive(Debug, Clone)]
pub struct Groups<'a> {
    runs: &'a Runs,
    next: usize,
}

impl<'a> Iterator for Groups<'a> {
    type Item = Group<'a>;

    #[inline]
    fn next(&mut self) -> Option<Group<'a>> {
        let entry = self.runs.entry(self.next)?;
        self.next += 1;
        let run = match entry {
            Entry::Plain(index) => return Some(Group::Plain { index }),
            Entry::Run(run) => self.runs.run(run)?,
        };
        let parts = Parts { runs: self.runs, next: run.first };
        if run.count < 2 {
            return parts.clone().next().map(|index| Group::Plain { index });
        }
        Some(Group::Super(SuperGroup {
            vnet: run.vnet(),
            header: run.header(),
            count: run.count,
            octets: run.octets(),
            parts,
        }))
    }
}
