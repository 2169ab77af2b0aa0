//! The runs of one batch: segments that make one super-frame so far, and in which order everything goes out.

use crate::checksum::{field, partial_field, sum, word};
use crate::coalesce::rules::{MAX_DATAGRAM_OCTETS, MAX_PARTS, MAX_UDP_PARTS};
use crate::coalesce::segment_headers::{flow_key, Flow, Head, Layout, Segment, HEAD_OCTETS};
use crate::hashing::Seed;
use crate::headers::{put, TCP_PSH};
use crate::vnet::{VnetHeader, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM};

/// Places of the table of open runs, a power of two.
const PLACES: usize = 1024;
/// Places where one key may be.
const WAYS: usize = 4;
const NONE: u32 = u32::MAX;

/// A frame of a run, and the one behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) next: u32,
}

/// What goes out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entry {
    Plain(u32),
    Run(u32),
}

/// Segments of one flow that make one super-frame so far.
#[derive(Debug, Clone)]
pub(super) struct Run {
    head: Head,
    layout: Layout,
    key: u64,
    /// Where the payload begins.
    body: usize,
    /// Payload bytes of every segment but the last.
    size: usize,
    /// Payload bytes so far.
    payload: usize,
    /// Full segments that still fit.
    room: usize,
    /// What the next segment has.
    sequence: u32,
    identity: u16,
    is_open: bool,
    is_pushed: bool,
    pub(super) count: usize,
    pub(super) first: u32,
    last: u32,
}

impl Run {
    /// This segment comes next in it.
    #[inline]
    fn continues(&self, segment: &Segment, head: &Head, mask: &Head) -> bool {
        segment.sequence == self.sequence
            && segment.identity == self.identity
            && segment.body == self.body
            && segment.payload <= self.size
            && self.room > 0
            && segment.layout == self.layout
            && is_same(&self.head, head, mask)
    }

    /// Take note of one more segment at the end.
    #[inline]
    fn advance(&mut self, segment: &Segment) {
        self.payload += segment.payload;
        self.count += 1;
        self.room -= 1;
        self.is_pushed = segment.is_pushed;
        self.is_open = !segment.is_pushed && segment.payload == self.size;
        self.expect_after(segment);
    }

    #[inline]
    fn expect_after(&mut self, segment: &Segment) {
        if self.layout.is_tcp {
            self.sequence = segment.sequence.wrapping_add(segment.payload as u32);
        }
        if self.layout.is_v4 {
            self.identity = segment.identity.wrapping_add(1);
        }
    }

    pub(super) fn octets(&self) -> usize {
        self.body + self.payload
    }

    pub(super) fn header(&self) -> &[u8] {
        self.head.get(..self.body).unwrap_or(&[])
    }

    pub(super) fn vnet(&self) -> VnetHeader {
        VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: match (self.layout.is_tcp, self.layout.is_v4) {
                (true, true) => GSO_TCPV4,
                (true, false) => GSO_TCPV6,
                (false, _) => GSO_UDP_L4,
            },
            hdr_len: self.body as u16,
            gso_size: self.size as u16,
            csum_start: self.layout.transport() as u16,
            csum_offset: self.layout.checksum_offset() as u16,
        }
    }

    /// Make the first segment's headers those of the super-frame.
    fn complete_header(&mut self) {
        let layout = self.layout;
        let transport = layout.transport();
        let counted = (self.octets() - layout.counted_from()) as u16;
        let octets = (self.octets() - transport) as u16;
        let head = &mut self.head;
        put(head, layout.length(), &counted.to_be_bytes());
        if layout.is_v4 {
            put(head, layout.network + 10, &[0, 0]);
            let checksum = field(sum(head.get(layout.network..transport).unwrap_or(&[])));
            put(head, layout.network + 10, &checksum);
        }
        if layout.is_tcp {
            if let Some(flags) = head.get_mut(transport + 13) {
                *flags |= if self.is_pushed { TCP_PSH } else { 0 };
            }
        } else {
            put(head, transport + 4, &octets.to_be_bytes());
        }
        // The pseudo-header's sum, as NEEDS_CSUM has it in the field.
        let addresses = sum(head.get(layout.addresses()..transport).unwrap_or(&[]));
        let pseudo = addresses + word(u16::from(layout.protocol())) + word(octets);
        put(head, transport + layout.checksum_offset(), &partial_field(pseudo));
    }
}

/// Headers are the same but for what the mask leaves out.
#[inline]
fn is_same(left: &Head, right: &Head, mask: &Head) -> bool {
    let mut different = 0;
    for ((left, right), mask) in left.iter().zip(right).zip(mask) {
        different |= (left ^ right) & mask;
    }
    different == 0
}

/// All runs of one batch, and the frames that stay alone.
#[derive(Debug)]
pub(super) struct Runs {
    masks: Vec<Head>,
    runs: Vec<Run>,
    links: Vec<Link>,
    order: Vec<Entry>,
    /// Open runs by key. An entry counts only if the run that it names is open and has the key.
    places: Vec<u32>,
    /// Runs before this one are closed.
    floor: usize,
    latest: usize,
    plain: usize,
    open: usize,
}

impl Runs {
    pub(super) fn new() -> Self {
        Self {
            masks: Layout::all().map(Layout::mask).collect(),
            runs: Vec::new(),
            links: Vec::new(),
            order: Vec::new(),
            places: vec![NONE; PLACES],
            floor: 0,
            latest: 0,
            plain: 0,
            open: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.links.clear();
        self.order.clear();
        (self.floor, self.latest, self.plain, self.open) = (0, 0, 0, 0);
    }

    pub(super) fn frames(&self) -> usize {
        self.plain + self.links.len()
    }

    #[inline]
    pub(super) fn any_open(&self) -> bool {
        self.open > 0
    }

    #[inline]
    pub(super) fn link(&self, at: u32) -> Option<Link> {
        self.links.get(at as usize).copied()
    }

    #[inline]
    pub(super) fn entry(&self, at: usize) -> Option<Entry> {
        self.order.get(at).copied()
    }

    #[inline]
    pub(super) fn run(&self, at: u32) -> Option<&Run> {
        self.runs.get(at as usize)
    }

    #[inline]
    pub(super) fn add_plain(&mut self, index: u32) {
        self.plain += 1;
        self.order.push(Entry::Plain(index));
    }

    /// End the runs of a flow.
    pub(super) fn interrupt(&mut self, flow: Flow) {
        match flow {
            Flow::None => {}
            Flow::Key(key) => {
                if let Some(at) = self.find(key) {
                    self.close(at);
                }
            }
            Flow::Any => {
                self.floor = self.runs.len();
                self.open = 0;
            }
        }
    }

    /// Put a segment where it belongs.
    #[inline]
    pub(super) fn offer(&mut self, frame: &[u8], index: u32, segment: &Segment, seed: Seed) {
        let mut head = [0; HEAD_OCTETS];
        if let (Some(room), Some(octets)) = (head.get_mut(..segment.body), frame.get(..segment.body)) {
            room.copy_from_slice(octets);
        }
        // Most segments follow the one before: then the flow is known without its key.
        if self.continues(self.latest, segment, &head) && segment.is_good(frame) {
            self.append(self.latest, index, segment);
            return;
        }
        let key = flow_key(frame, segment.layout, seed);
        let known = self.find(key);
        if let Some(at) = known {
            if self.continues(at, segment, &head) && segment.is_good(frame) {
                self.append(at, index, segment);
                return;
            }
            self.close(at);
        }
        // A pushed segment is the last of its super-frame: it cannot be the first.
        if segment.is_pushed || !segment.is_good(frame) {
            self.add_plain(index);
        } else {
            self.start(head, key, index, segment);
        }
    }

    #[inline]
    fn continues(&self, at: usize, segment: &Segment, head: &Head) -> bool {
        let (Some(run), Some(mask)) = (self.runs.get(at), self.masks.get(segment.layout.index())) else { return false };
        run.is_open && at >= self.floor && run.continues(segment, head, mask)
    }

    #[inline]
    fn append(&mut self, at: usize, index: u32, segment: &Segment) {
        let link = self.links.len() as u32;
        let Some(run) = self.runs.get_mut(at) else { return };
        if let Some(last) = self.links.get_mut(run.last as usize) {
            last.next = link;
        }
        self.links.push(Link { index, next: NONE });
        run.last = link;
        run.advance(segment);
        self.open -= usize::from(!run.is_open);
        self.latest = at;
    }

    fn start(&mut self, head: Head, key: u64, index: u32, segment: &Segment) {
        let layout = segment.layout;
        let counted = segment.body - layout.counted_from() + segment.payload;
        let parts = if layout.is_tcp { MAX_PARTS } else { MAX_UDP_PARTS };
        let link = self.links.len() as u32;
        let at = self.runs.len();
        let mut run = Run {
            head,
            layout,
            key,
            body: segment.body,
            size: segment.payload,
            payload: segment.payload,
            room: (MAX_DATAGRAM_OCTETS.saturating_sub(counted) / segment.payload).min(parts - 1),
            sequence: 0,
            identity: 0,
            is_open: true,
            is_pushed: false,
            count: 1,
            first: link,
            last: link,
        };
        run.expect_after(segment);
        self.links.push(Link { index, next: NONE });
        self.runs.push(run);
        self.order.push(Entry::Run(at as u32));
        self.latest = at;
        self.open += 1;
        self.note(key, at);
    }

    /// The open run with this key.
    #[inline]
    fn find(&self, key: u64) -> Option<usize> {
        places_of(key)
            .filter_map(|place| self.open_at(place))
            .find(|&at| self.runs.get(at).is_some_and(|run| run.key == key))
    }

    /// The run that is open by a place of the table.
    #[inline]
    fn open_at(&self, place: usize) -> Option<usize> {
        let at = *self.places.get(place)? as usize;
        let run = self.runs.get(at)?;
        // A run of another batch may have left its number here: then the key belongs elsewhere.
        (run.is_open && at >= self.floor && places_of(run.key).any(|its| its == place)).then_some(at)
    }

    /// Give a new run a place; where all are taken the first one's run ends.
    fn note(&mut self, key: u64, at: usize) {
        let free = places_of(key).find(|&place| self.open_at(place).is_none());
        let place = free.unwrap_or(key as usize & (PLACES - 1));
        if free.is_none() {
            if let Some(other) = self.open_at(place) {
                self.close(other);
            }
        }
        if let Some(entry) = self.places.get_mut(place) {
            *entry = at as u32;
        }
    }

    fn close(&mut self, at: usize) {
        if let Some(run) = self.runs.get_mut(at) {
            self.open -= usize::from(run.is_open && at >= self.floor);
            run.is_open = false;
        }
    }

    /// Make the headers of all super-frames.
    pub(super) fn complete_headers(&mut self) {
        for run in self.runs.iter_mut().filter(|run| run.count > 1) {
            run.complete_header();
        }
    }
}

/// Where a key may be.
#[inline]
fn places_of(key: u64) -> impl Iterator<Item = usize> {
    (0..WAYS).map(move |way| (key as usize ^ way) & (PLACES - 1))
}
