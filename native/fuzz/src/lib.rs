//! What each fuzz target does with its input; `core/tests/corpus.rs` does the same with the committed corpus.
//!
//! A target fails by a panic: one in the code under test, or one of the assertions here.
//! `open.rs`, which needs the worker, is not part of this library.

use std::collections::HashMap;

use bridged_core::coalesce::{CoalesceRules, Coalescer, Group};
use bridged_core::fdb::{Fdb, FdbSettings, Learned, Port, Station, TAP_PORT};
use bridged_core::headers::Mac;
use bridged_core::mss::clamp_mss;
use bridged_core::packet::{classify, is_data, DataHeader, DataPacket, HEADER_V2, PACKET_ID_OCTETS};
use bridged_core::segment::{complete_checksum, copy_complete, SuperFrame};
use bridged_core::vnet::{VnetHeader, SHORT_OCTETS};
use bridged_core::SECOND;

/// A virtio-net header, two bytes of `fit`, and a frame.
pub fn segmenter(data: &[u8]) {
    let Ok(vnet) = VnetHeader::parse(data) else { return };
    let Some((fit, frame)) = data[SHORT_OCTETS..].split_first_chunk::<2>() else { return };
    let mut out = vec![0; 70_000];
    if let Ok(parsed) = SuperFrame::parse(&vnet, frame) {
        let cut = parsed.cut(usize::from(u16::from_be_bytes(*fit)));
        let payload = &frame[parsed.header_len()..];
        let mut again = Vec::new();
        for index in 0..cut.count {
            let written = parsed.write(&cut, index, &mut out);
            assert_eq!(written, cut.len_of(index));
            again.extend_from_slice(&out[parsed.header_len()..written]);
        }
        assert_eq!(again, payload, "payload lost");
    }
    let mut frame = frame.to_vec();
    let copied = copy_complete(&vnet, &frame, &mut out);
    if complete_checksum(&vnet, &mut frame).is_ok() {
        assert_eq!(copied, Ok(frame.len()));
        assert_eq!(out[..frame.len()], frame[..]);
    }
    if let Some(parsed) = SuperFrame::of_segment(&frame) {
        let cut = parsed.cut(usize::from(u16::from_be_bytes(*fit)));
        for index in 0..cut.count {
            let written = parsed.write(&cut, index, &mut out);
            assert_eq!(written, cut.len_of(index));
            assert!(SuperFrame::of_segment(&out[..written]).is_some(), "not a good segment again");
        }
    }
    clamp_mss(&mut frame, 1368);
}

/// Frames, each behind two bytes of length. A length of FFFF repeats the frame before with its counters one step on.
pub fn coalescer(data: &[u8]) {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut rest = data;
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        rest = behind;
        let length = usize::from(u16::from_be_bytes(*length));
        if length == 0xFFFF {
            if let Some(frame) = frames.last().and_then(|frame| next_segment(frame)) {
                frames.push(frame);
            }
        } else {
            let (frame, behind) = rest.split_at(length.min(rest.len()));
            frames.push(frame.to_vec());
            rest = behind;
        }
        if frames.len() > 600 {
            break;
        }
    }
    check_groups(&frames);
}

fn check_groups(frames: &[Vec<u8>]) {
    let rules = CoalesceRules { tcp4: true, tcp6: true, udp4: true, udp6: true, tagged: true };
    let mut coalescer = Coalescer::new(rules, 1);
    for (index, frame) in frames.iter().enumerate() {
        coalescer.push(frame, index as u32);
    }
    let mut seen = vec![false; frames.len()];
    let mut see = |index: u32| assert!(!std::mem::replace(&mut seen[index as usize], true), "frame {index} twice");
    for group in coalescer.finish() {
        match group {
            Group::Plain { index } => see(index),
            Group::Super(group) => {
                let mut whole = group.header.to_vec();
                for index in group.parts() {
                    see(index);
                    whole.extend_from_slice(&frames[index as usize][group.header_len()..]);
                }
                let parsed = SuperFrame::parse(&group.vnet, &whole).expect("our own super-frame");
                let cut = parsed.cut(0);
                assert_eq!(cut.count, group.count);
                for (at, index) in group.parts().enumerate() {
                    let mut out = vec![0; cut.len_of(at)];
                    parsed.write(&cut, at, &mut out);
                    assert_eq!(out, frames[index as usize], "frame {index} came back otherwise");
                }
            }
        }
    }
    assert!(seen.iter().all(|&seen| seen), "a frame was lost");
}

/// The frame that would follow, for plain IPv4 and TCP; checksums follow by what RFC 1624 says of them.
fn next_segment(frame: &[u8]) -> Option<Vec<u8>> {
    let mut next = frame.to_vec();
    if frame.len() <= 54 || frame[12..15] != [8, 0, 0x45] || frame[23] != 6 {
        return Some(next);
    }
    let step = |next: &mut [u8], at: usize, sum_at: usize, by: u16| {
        let old = u16::from_be_bytes([next[at], next[at + 1]]);
        let (new, carry) = old.overflowing_add(by);
        next[at..at + 2].copy_from_slice(&new.to_be_bytes());
        let sum = u16::from_be_bytes([next[sum_at], next[sum_at + 1]]);
        let total = u32::from(!sum) + u32::from(!old) + u32::from(new);
        let total = (total & 0xFFFF) + (total >> 16);
        let total = (total & 0xFFFF) + (total >> 16);
        next[sum_at..sum_at + 2].copy_from_slice(&(!(total as u16)).to_be_bytes());
        carry
    };
    step(&mut next, 18, 24, 1);
    let body = 34 + usize::from(frame[46] >> 4) * 4;
    let payload = frame.len().checked_sub(body)? as u16;
    if step(&mut next, 40, 50, payload) {
        step(&mut next, 38, 50, 1);
    }
    Some(next)
}

/// Commands of four bytes: what, address, port, time.
pub fn fdb(data: &[u8]) {
    let settings =
        FdbSettings { capacity: 20, addresses_per_peer: 8, ageing: 300 * SECOND, move_hold: SECOND / 4, refresh: 0 };
    let mut fdb = Fdb::new(settings, 99);
    let mut model: HashMap<u8, (Port, u64)> = HashMap::new();
    let mut now = 0;
    for command in data.chunks_exact(4) {
        let (number, port) = (command[1], Port::from(command[2] % 5));
        let mac = Station::new(0, Mac::new([2, 0, 0, 0, 0, number]));
        now += u64::from(command[3]) * SECOND / 4;
        match command[0] % 8 {
            0 => {
                let flushed = model.values().filter(|known| known.0 == port).count();
                model.retain(|_, known| known.0 != port);
                assert_eq!(fdb.flush(port), flushed);
            }
            1 => {
                let aged = model.values().filter(|known| now - known.1 > settings.ageing).count();
                model.retain(|_, known| now - known.1 <= settings.ageing);
                assert_eq!(fdb.sweep(now), aged);
            }
            _ => match fdb.learn(mac, port, now) {
                Ok(Learned::Unlearned) => {
                    assert!(fdb.len() >= settings.capacity || fdb.count(port) >= fdb.share());
                    model.remove(&number);
                }
                Ok(_) => {
                    model.insert(number, (port, now));
                }
                // An aged station is forgotten even if there is no room to learn it anew.
                Err(_) => model.retain(|&known, at| known != number || now - at.1 <= settings.ageing),
            },
        }
        assert_eq!(fdb.len(), model.len());
        assert!(fdb.len() <= settings.capacity);
        for port in 0..5 {
            assert_eq!(fdb.count(port), model.values().filter(|known| known.0 == port).count());
            assert!(port == TAP_PORT || fdb.count(port) <= settings.addresses_per_peer);
        }
        let known = model.get(&number).filter(|known| now - known.1 <= settings.ageing);
        assert_eq!(fdb.find(mac, now).map(|station| (station.port, station.heard)), known.copied());
    }
}

/// One datagram.
pub fn packet(data: &[u8]) {
    let _ = classify(data);
    assert_eq!(is_data(data), !data.is_empty() && DataHeader::parse(&[data, &[0; 4]].concat()).is_ok());
    if let Ok(found) = DataPacket::parse(data) {
        let mut again = [0; HEADER_V2 + PACKET_ID_OCTETS];
        let written = found.header.write(found.packet_id, &mut again);
        assert_eq!(again[..written], data[..written]);
        assert_eq!((found.tag_at, found.text_at), (written, written + 16));
        assert!(data.len() > found.text_at);
    }
}
