//! What the fuzz target `open` does with its input: the open path of a data key against a model. It stands by itself,
//! as it needs the worker; `worker/tests/corpus.rs` does the same with the committed corpus.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use bridged_core::limits::KeyLimits;
use bridged_core::packet::{DataHeader, DataPacket, PacketRun, LEAST_FRAME_OCTETS};
use bridged_worker::keys::{KeySlot, SPARE_OCTETS};
use bridged_worker::{Cipher, Key, KeyFormat, Reason};

const WINDOW: u32 = 70;
const BEHIND: [u8; SPARE_OCTETS] = *b"what lies behind";

/// What was sealed, and what the far end has seen of it.
#[derive(Default)]
struct Model {
    /// Packet id and payload, by whether it is V2, and by the bytes that the tag vouches for: all but the first of V1.
    sealed: HashMap<(bool, Vec<u8>), (u32, Vec<u8>)>,
    seen: HashSet<u32>,
    highest: u32,
}

impl Model {
    /// The payload of a datagram, or why there is none.
    fn open(&mut self, datagram: &[u8], is_v2: bool) -> Result<&[u8], Reason> {
        if datagram.len() <= (DataHeader { key_id: 0, peer_id: is_v2.then_some(0) }).overhead() {
            return Err(Reason::ShortPacket);
        }
        let vouched = datagram[usize::from(!is_v2)..].to_vec();
        let (id, payload) = self.sealed.get(&(is_v2, vouched)).ok_or(Reason::TagMismatch)?;
        if self.highest.saturating_sub(*id) >= WINDOW {
            return Err(Reason::ReplayTooOld);
        }
        if !self.seen.insert(*id) {
            return Err(Reason::Replay);
        }
        self.highest = self.highest.max(*id);
        Some(&payload[..]).filter(|payload| payload.len() >= LEAST_FRAME_OCTETS).ok_or(Reason::ShortFrame)
    }
}

/// Each input has a key of its own: what is sealed for one, and remembered by the fuzzer, is no packet of another.
fn slot(data: &[u8], send: u8, receive: u8) -> KeySlot {
    let secret = |direction: u8| {
        let mut hasher = DefaultHasher::new();
        (direction, data).hash(&mut hasher);
        hasher.finish().to_be_bytes()
    };
    let key = Key {
        key_id: 3,
        cipher: Cipher::Aes256Gcm,
        format: KeyFormat::Aead,
        send_key: secret(send).repeat(4).into(),
        send_iv: secret(send).into(),
        receive_key: secret(receive).repeat(4).into(),
        receive_iv: secret(receive).into(),
    };
    let limits = KeyLimits { is_aes_gcm: true, renegotiate_bytes: 0, renegotiate_packets: 0 };
    KeySlot::new(&key, WINDOW as usize, limits).expect("a good key")
}

/// Commands of three bytes: what, number, place. The datagrams of a batch need not be the packets that were put in.
pub fn open(data: &[u8]) {
    let (near, far) = (slot(data, 1, 2), slot(data, 2, 1));
    let mut model = Model::default();
    let (mut packets, mut batch) = (Vec::new(), Vec::<Vec<u8>>::new());
    let mut rest = data;
    while let Some((&[what, number, place], behind)) = rest.split_first_chunk::<3>() {
        rest = behind;
        let (number, place) = (usize::from(number), usize::from(place));
        match (what % 8, batch.last_mut()) {
            // Seal a payload of `number` bytes.
            (0, _) => {
                let is_v2 = place % 2 == 1;
                let header = DataHeader { key_id: 3, peer_id: is_v2.then_some(0x01_0203) };
                let payload: Vec<u8> = (0..number).map(|at| (at ^ place) as u8).collect();
                let mut packet = [&vec![0; header.overhead()], &payload[..]].concat();
                let mut ids = near.reserve(1);
                let is_possible = number > 0 && ids.left() > 0;
                assert_eq!(near.seal(&header, &mut packet, number, &mut ids), is_possible);
                if is_possible {
                    let found = DataPacket::parse(&packet).expect("our own packet");
                    assert_eq!(found.header, header);
                    let vouched = packet[header.additional_data().start..].to_vec();
                    model.sealed.insert((is_v2, vouched), (found.packet_id, payload));
                    packets.push(packet.clone());
                    batch.push(packet);
                }
            }
            // The packet sealed `number` before the last.
            (1, _) => batch.extend(packets.iter().rev().cycle().nth(number).cloned()),
            (2, Some(packet)) if !packet.is_empty() => {
                let at = place % packet.len();
                packet[at] ^= 1 << (number % 8);
            }
            (3, Some(packet)) => packet.truncate(number),
            // The next `number` bytes as they are.
            (4, _) => {
                let (octets, behind) = rest.split_at(number.min(rest.len()));
                batch.push(octets.to_vec());
                rest = behind;
            }
            // Leave ids out, all of them at most.
            (5, _) => drop(near.reserve(number << (place % 32))),
            (6.., _) => {
                let size = if number == 0 { batch.first().map_or(0, Vec::len) } else { number };
                check(&far, &mut model, &std::mem::take(&mut batch).concat(), size, place % 2 == 1);
            }
            _ => {}
        }
    }
}

fn check(far: &KeySlot, model: &mut Model, batch: &[u8], size: usize, is_v2: bool) {
    let mut octets = [batch, &BEHIND].concat();
    let (mut taken, mut reasons) = (Vec::new(), Vec::new());
    let take = |at, length| taken.push((at, length));
    let opened = far.open(&mut octets, PacketRun::of(batch.len(), size), is_v2, take, |reason| reasons.push(reason));
    assert_eq!(octets[batch.len()..], BEHIND, "what lies behind was changed");
    let payloads: Vec<&[u8]> = taken.iter().map(|&(at, length)| &octets[at..at + length]).collect();
    let (mut expected, mut refused) = (Vec::new(), Vec::new());
    let mut octets_fresh = 0;
    for datagram in batch.chunks(size.max(1)) {
        let judged = model.open(datagram, is_v2).map(<[u8]>::to_vec);
        if matches!(judged, Ok(_) | Err(Reason::ShortFrame)) {
            octets_fresh += datagram.len();
        }
        match judged {
            Ok(payload) => expected.push(payload),
            Err(reason) => refused.push(reason),
        }
    }
    assert_eq!(payloads, expected);
    assert_eq!(reasons, refused);
    let short = refused.iter().filter(|&&reason| reason == Reason::ShortFrame).count();
    assert_eq!((opened.fresh, opened.octets), (expected.len() + short, octets_fresh));
}
