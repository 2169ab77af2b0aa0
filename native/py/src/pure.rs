//! The pure parts of the core, for the tests that hold both builds to one behaviour (tests/contract).

use bridged_core::coalesce::{CoalesceRules, Coalescer, Group};
use bridged_core::fdb::{self, FdbSettings, LearnRefusal, Port, Station, TAP_PORT};
use bridged_core::headers::Mac;
use bridged_core::segment::{copy_complete, SegmentError, SuperFrame};
use bridged_core::vnet::{VnetHeader, LONG_OCTETS};
use bridged_core::{mss, replay, Nanos};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Of the hash tables: any will do where there are no strangers.
const SEED: u64 = 0x1234_5678_9abc_def0;

fn bad(text: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(text.to_string())
}

/// The frames that stand for one read of the TAP (`packet`: virtio-net header of `vnet_octets`, and frame).
/// `fit`: the longest frame (bytes) that TCP may be cut to; 0: any.
#[pyfunction]
pub fn segment<'py>(
    py: Python<'py>,
    packet: &[u8],
    vnet_octets: usize,
    fit: usize,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let vnet = VnetHeader::parse(packet).map_err(bad)?;
    let frame = packet.get(vnet_octets..).ok_or_else(|| bad("no frame behind the header"))?;
    let frames = cut(&vnet, frame, fit).map_err(bad)?;
    Ok(frames.iter().map(|frame| PyBytes::new(py, frame)).collect())
}

fn cut(vnet: &VnetHeader, frame: &[u8], fit: usize) -> Result<Vec<Vec<u8>>, SegmentError> {
    if !vnet.is_super() {
        let mut out = vec![0; frame.len()];
        copy_complete(vnet, frame, &mut out)?;
        return Ok(vec![out]);
    }
    let parsed = SuperFrame::parse(vnet, frame)?;
    let cut = parsed.cut(fit);
    let write = |index| {
        let mut out = vec![0; cut.len_of(index)];
        let written = parsed.write(&cut, index, &mut out);
        out.truncate(written);
        out
    };
    Ok((0..cut.count).map(write).collect())
}

/// The writes for one batch of frames, each with the number of frames in it. `has_uso`: join UDP, too.
#[pyfunction]
pub fn coalesce<'py>(
    py: Python<'py>,
    frames: Vec<Vec<u8>>,
    vnet_octets: usize,
    has_uso: bool,
    tagged: bool,
) -> PyResult<Vec<(Bound<'py, PyBytes>, usize)>> {
    if vnet_octets > LONG_OCTETS {
        return Err(bad("a virtio-net header has 10 or 12 bytes"));
    }
    let rules = CoalesceRules { tcp4: true, tcp6: true, udp4: has_uso, udp6: has_uso, tagged };
    let mut coalescer = Coalescer::new(rules, SEED);
    for (index, frame) in (0..).zip(&frames) {
        coalescer.push(frame, index);
    }
    let at = |index: u32| frames.get(index as usize).ok_or_else(|| bad("a frame that was never pushed"));
    let mut writes = Vec::new();
    for group in coalescer.finish() {
        let (octets, count) = match group {
            Group::Plain { index } => ([&[0; LONG_OCTETS][..vnet_octets], at(index)?].concat(), 1),
            Group::Super(group) => {
                let mut octets = [&group.vnet.serialize()[..vnet_octets], group.header].concat();
                for index in group.parts() {
                    octets.extend(at(index)?.iter().skip(group.header.len()));
                }
                (octets, group.count)
            }
        };
        writes.push((PyBytes::new(py, &octets), count));
    }
    Ok(writes)
}

/// The frame with its MSS option lowered, or None where nothing is to change.
#[pyfunction]
pub fn clamp_mss<'py>(py: Python<'py>, frame: Vec<u8>, limit: u16) -> Option<Bound<'py, PyBytes>> {
    let mut frame = frame;
    mss::clamp_mss(&mut frame, limit).then(|| PyBytes::new(py, &frame))
}

/// See bridged/protocol/keys/replay.py.
#[pyclass(module = "bridged._native")]
pub struct ReplayWindow {
    inner: replay::ReplayWindow,
}

#[pymethods]
impl ReplayWindow {
    #[new]
    fn new(size: u32) -> PyResult<Self> {
        Ok(Self { inner: replay::ReplayWindow::new(size).map_err(bad)? })
    }

    #[getter]
    fn highest(&self) -> u64 {
        self.inner.highest()
    }

    fn verdict(&self, packet_id: u64) -> Option<&'static str> {
        self.inner.verdict(packet_id).err().map(replay::ReplayError::code)
    }

    fn accept(&mut self, packet_id: u64) -> bool {
        self.inner.accept(packet_id).is_ok()
    }
}

/// See bridged/dataplane/portable/tables/fdb.py. Ports are peer handles from 1, or None for the TAP; times are seconds.
#[pyclass(module = "bridged._native")]
pub struct Fdb {
    inner: fdb::Fdb,
}

fn nanos(seconds: f64) -> Nanos {
    // Saturates, also where it is not a number.
    (seconds * 1e9) as Nanos
}

fn port(handle: Option<Port>) -> Port {
    handle.unwrap_or(TAP_PORT)
}

fn handle(port: Port) -> Option<Port> {
    (port != TAP_PORT).then_some(port)
}

#[pymethods]
impl Fdb {
    #[new]
    #[pyo3(signature = (*, capacity, addresses_per_peer, ageing, move_hold))]
    fn new(capacity: usize, addresses_per_peer: usize, ageing: f64, move_hold: f64) -> Self {
        let (ageing, move_hold) = (nanos(ageing), nanos(move_hold));
        let settings = FdbSettings { capacity, addresses_per_peer, ageing, move_hold, refresh: 0 };
        Self { inner: fdb::Fdb::new(settings, SEED) }
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }

    fn learn(&mut self, address: [u8; 6], at: Option<Port>, now: f64) -> Option<&'static str> {
        self.inner.learn(Station::new(0, Mac::new(address)), port(at), nanos(now)).err().map(LearnRefusal::code)
    }

    /// `(port,)` of a known station.
    fn find(&self, address: [u8; 6], now: f64) -> Option<(Option<Port>,)> {
        self.inner.find(Station::new(0, Mac::new(address)), nanos(now)).map(|entry| (handle(entry.port),))
    }

    fn count(&self, at: Option<Port>) -> usize {
        self.inner.count(port(at))
    }

    fn flush(&mut self, at: Option<Port>) -> usize {
        self.inner.flush(port(at))
    }

    fn sweep(&mut self, now: f64) -> usize {
        self.inner.sweep(nanos(now))
    }

    fn changes(&self) -> [(&'static str, u64); 5] {
        let changes = self.inner.changes();
        [
            ("learned", changes.learned),
            ("aged", changes.aged),
            ("moved", changes.moved),
            ("flushed", changes.flushed),
            ("refused", changes.refused),
        ]
    }
}
