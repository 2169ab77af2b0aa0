use std::collections::HashSet;

use super::*;
use bridged_core::limits::AES_GCM_RENEGOTIATE;
use bridged_core::packet::OVERHEAD_V2;
use zeroize::Zeroizing;

use crate::contract::{Digest, HmacKeys};

const CIPHERS: [Cipher; 7] = [
    Cipher::Aes256Gcm,
    Cipher::Aes192Gcm,
    Cipher::Aes128Gcm,
    Cipher::ChaCha20Poly1305,
    Cipher::Aes256Cbc,
    Cipher::Aes192Cbc,
    Cipher::Aes128Cbc,
];

fn key(cipher: Cipher, send: u8, receive: u8) -> Key {
    let mac = |octet: u8| Zeroizing::new(vec![octet; 20]);
    let format = match cipher {
        Cipher::Aes256Cbc | Cipher::Aes192Cbc | Cipher::Aes128Cbc => {
            KeyFormat::Cbc(HmacKeys { digest: Digest::Sha1, send: mac(send), receive: mac(receive) })
        }
        _ => KeyFormat::Aead,
    };
    Key {
        key_id: 3,
        cipher,
        format,
        send_key: Zeroizing::new(vec![send; cipher.key_length()]),
        send_iv: Zeroizing::new([send; 8]),
        receive_key: Zeroizing::new(vec![receive; cipher.key_length()]),
        receive_iv: Zeroizing::new([receive; 8]),
    }
}

fn limits() -> KeyLimits {
    KeyLimits { is_aes_gcm: true, renegotiate_bytes: 0, renegotiate_packets: 0 }
}

fn pair(cipher: Cipher) -> (KeySlot, KeySlot) {
    let near = KeySlot::new(&key(cipher, 1, 2), 64, limits()).unwrap();
    let far = KeySlot::new(&key(cipher, 2, 1), 64, limits()).unwrap();
    (near, far)
}

fn sealed(slot: &KeySlot, header: &DataHeader, payload: &[u8]) -> Vec<u8> {
    let layout = Layout::of(header, slot.format);
    let mut packet = vec![0; layout.sealed(payload.len())];
    packet[layout.front..layout.front + payload.len()].copy_from_slice(payload);
    assert!(slot.seal(header, &mut packet, payload.len(), &mut slot.reserve(1)));
    packet
}

fn opened(slot: &KeySlot, packets: &[u8], size: usize, is_v2: bool) -> (Vec<Vec<u8>>, Vec<Reason>) {
    let mut octets = packets.to_vec();
    octets.extend_from_slice(&[0xee; SPARE_OCTETS]);
    let (mut taken, mut reasons) = (Vec::new(), Vec::new());
    slot.open(
        &mut octets,
        PacketRun::of(packets.len(), size),
        is_v2,
        |at, len| taken.push((at, len)),
        |reason| reasons.push(reason),
    );
    assert!(octets.ends_with(&[0xee; SPARE_OCTETS]), "what stands behind is put back");
    (taken.iter().map(|(at, len)| octets[*at..at + len].to_vec()).collect(), reasons)
}

#[test]
fn what_is_sealed_opens_once_at_the_other_end() {
    for cipher in CIPHERS {
        for peer_id in [None, Some(0x01_0203)] {
            let (near, far) = pair(cipher);
            let header = DataHeader { key_id: 3, peer_id };
            let packets: Vec<Vec<u8>> = (0..5u8)
                .map(|number| sealed(&near, &header, &[number; 100][..100 - usize::from(number / 4)]))
                .collect();
            let size = packets[0].len();
            let (payloads, reasons) = opened(&far, &packets.concat(), size, peer_id.is_some());
            assert_eq!(payloads.len(), 5);
            assert_eq!(payloads[4], [4; 99]);
            assert!(reasons.is_empty());
            let (payloads, reasons) = opened(&far, &packets.concat(), size, peer_id.is_some());
            assert!(payloads.is_empty());
            assert_eq!(reasons, [Reason::Replay; 5]);
        }
    }
}

#[test]
fn ids_that_were_jumped_over_and_packets_that_came_late_are_counted() {
    let (one, other) = pair(Cipher::Aes256Gcm);
    let header = DataHeader { key_id: 3, peer_id: Some(7) };
    let packets: Vec<_> = (0..6).map(|_| sealed(&one, &header, &[9; 60])).collect();
    let mut sums = (0, 0);
    for number in [0, 4, 2, 5] {
        let mut octets = packets[number].clone();
        let length = octets.len();
        octets.resize(length + SPARE_OCTETS, 0);
        let found = other.open(&mut octets, PacketRun::of(length, length), true, |_, _| {}, |_| {});
        sums = (sums.0 + found.skipped, sums.1 + found.late);
    }
    assert_eq!(sums, (3, 1), "2, 3 and 4 were jumped over, and 3 came late");
}

#[test]
fn every_changed_octet_that_the_tag_covers_is_noticed() {
    for (cipher, peer_id, header) in [
        (Cipher::Aes256Gcm, None, 1),
        (Cipher::Aes256Gcm, Some(7), 0),
        (Cipher::Aes256Cbc, None, 1),
        (Cipher::Aes128Cbc, Some(7), 4),
    ] {
        let (near, far) = pair(cipher);
        let packet = sealed(&near, &DataHeader { key_id: 3, peer_id }, &[9; 40]);
        for at in header..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 0x10;
            assert_eq!(opened(&far, &changed, changed.len(), peer_id.is_some()).1, [Reason::TagMismatch], "{at}");
        }
        assert_eq!(opened(&far, &packet, packet.len(), peer_id.is_some()).0, [[9; 40]]);
    }
}

#[test]
fn cbc_has_another_iv_for_each_packet_and_lengths_that_are_no_blocks_are_refused() {
    let (near, far) = pair(Cipher::Aes256Cbc);
    let header = DataHeader { key_id: 3, peer_id: Some(7) };
    let (one, other) = (sealed(&near, &header, &[9; 40]), sealed(&near, &header, &[9; 40]));
    assert_ne!(one[24..40], other[24..40], "the IV");
    assert_eq!(opened(&far, &one[..one.len() - 1], one.len() - 1, true).1, [Reason::TagMismatch]);
    assert_eq!(opened(&far, &one[..40], 40, true).1, [Reason::ShortPacket]);
    let mut elsewhere = vec![0; one.len()];
    assert!(near.seal_from(&header, &[9; 40], &mut elsewhere, &mut near.reserve(1)));
    assert_eq!(opened(&far, &elsewhere, elsewhere.len(), true).0, [[9; 40]]);
    assert_eq!(opened(&far, &one, one.len(), true).0, [[9; 40]]);
}

fn epoch_pair() -> (KeySlot, KeySlot) {
    let make = |send, receive| {
        let mut key = key(Cipher::Aes128Gcm, send, receive);
        key.format = KeyFormat::Epoch;
        key.send_key = Zeroizing::new(vec![send; 32]);
        key.receive_key = Zeroizing::new(vec![receive; 32]);
        KeySlot::new(&key, 64, limits()).unwrap()
    };
    let limited = |mut slot: KeySlot| {
        if let Engine::Epoch(epoch) = &mut slot.engine {
            epoch.limit_packets(9);
        }
        slot
    };
    (limited(make(1, 2)), make(2, 1))
}

#[test]
fn epochs_follow_one_another_and_the_other_end_follows_them() {
    let (near, far) = epoch_pair();
    let header = DataHeader { key_id: 3, peer_id: Some(7) };
    let packets: Vec<_> = (0..20u8).map(|number| sealed(&near, &header, &[number; 40])).collect();
    let identities: Vec<_> = packets.iter().map(|packet| (packet[5], packet[11])).collect();
    assert_eq!(identities[7..10], [(1, 8), (2, 1), (2, 2)]);
    assert_eq!(identities[16], (3, 1));
    // One of the epoch before comes late, and one of an epoch that is over too late.
    for number in [0, 9, 8, 7, 17, 10] {
        assert_eq!(opened(&far, &packets[number], packets[number].len(), true).0, [[number as u8; 40]]);
    }
    assert_eq!(opened(&far, &packets[6], packets[6].len(), true).1, [Reason::ReplayTooOld]);
    assert_eq!(opened(&far, &packets[17], packets[17].len(), true).1, [Reason::Replay]);
    let answer = sealed(&far, &header, &[9; 40]);
    assert_eq!((answer[5], answer[11]), (3, 1), "sealing follows what was received");
    assert_eq!(opened(&near, &answer, answer.len(), true).0, [[9; 40]]);
    let mut forged = answer.clone();
    forged[5] = 5;
    assert_eq!(opened(&near, &forged, forged.len(), true).1, [Reason::TagMismatch]);
    forged[5] = 200;
    assert_eq!(opened(&near, &forged, forged.len(), true).1, [Reason::UnknownKeyId]);
    let mut elsewhere = vec![0; answer.len()];
    assert!(far.seal_from(&header, &[8; 40], &mut elsewhere, &mut far.reserve(1)));
    assert_eq!(opened(&near, &elsewhere, elsewhere.len(), true).0, [[8; 40]]);
}

#[test]
fn an_epoch_ends_before_the_limit_of_its_cipher() {
    let (_, near) = epoch_pair();
    let header = DataHeader { key_id: 3, peer_id: Some(7) };
    near.count_sent((AES_GCM_RENEGOTIATE as usize - 10) * 16);
    assert_eq!(sealed(&near, &header, &[1; 40])[5], 1);
    near.count_sent(8 * 16);
    assert_eq!(sealed(&near, &header, &[1; 40])[5], 2);
    assert_eq!(sealed(&near, &header, &[1; 40])[5], 2, "the next one begins with nothing used");
}

#[test]
fn stumps_and_short_payloads_are_told_apart() {
    let (near, far) = pair(Cipher::Aes256Gcm);
    let header = DataHeader { key_id: 3, peer_id: Some(7) };
    for length in 1..=OVERHEAD_V2 {
        assert_eq!(opened(&far, &vec![0x4b; length], length, true).1, [Reason::ShortPacket]);
    }
    let short = sealed(&near, &header, &[1; 13]);
    assert_eq!(opened(&far, &short, short.len(), true).1, [Reason::ShortFrame]);
    assert_eq!(opened(&far, &short, short.len(), true).1, [Reason::Replay], "its id was used up");
}

#[test]
fn the_last_packet_id_is_used_and_none_after_it() {
    let (near, far) = pair(Cipher::Aes256Gcm);
    let header = DataHeader { key_id: 3, peer_id: Some(7) };
    near.set_next_id(u64::from(MAX_PACKET_ID) - 1);
    let mut ids = near.reserve(5);
    assert_eq!(ids.left(), 2);
    let mut packet = vec![0; header.overhead() + 20];
    assert!(near.seal(&header, &mut packet, 20, &mut ids));
    assert!(near.seal(&header, &mut packet, 20, &mut ids));
    assert_eq!(&packet[4..8], [0xff; 4]);
    assert!(!near.seal(&header, &mut packet, 20, &mut ids));
    assert_eq!(near.reserve(1).left(), 0);
    assert_eq!(opened(&far, &packet, packet.len(), true).0.len(), 1);
    assert_eq!(near.limit_reached(), Some(LimitTrigger::Packets));
    assert_eq!(near.limit_reached(), None);
}

#[test]
fn no_packet_id_is_used_twice_whoever_seals_at_once() {
    let (near, _) = pair(Cipher::Aes128Gcm);
    let header = DataHeader { key_id: 3, peer_id: Some(7) };
    let (threads, rounds) = (4, 3000);
    let ids: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let sealing: Vec<_> = (0..threads)
            .map(|thread| {
                let near = &near;
                scope.spawn(move || {
                    let mut used = Vec::new();
                    let mut packet = [0; OVERHEAD_V2 + 20];
                    for round in 0..rounds {
                        let mut ids = near.reserve(1 + (round + thread) % 7);
                        while near.seal(&header, &mut packet, 20, &mut ids) {
                            used.push(u32::from_be_bytes(*packet[4..].first_chunk().unwrap()));
                        }
                    }
                    used
                })
            })
            .collect();
        sealing.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let total: usize = ids.iter().map(Vec::len).sum();
    let distinct: HashSet<u32> = ids.iter().flatten().copied().collect();
    assert_eq!(distinct.len(), total);
    assert_eq!(distinct.iter().copied().max(), u32::try_from(total).ok());
    for used in &ids {
        assert!(used.is_sorted(), "each thread's own ids rise");
    }
}

#[test]
fn a_configured_limit_is_told_once() {
    let limits = KeyLimits { is_aes_gcm: true, renegotiate_bytes: 0, renegotiate_packets: 10 };
    let near = KeySlot::new(&key(Cipher::Aes256Gcm, 1, 2), 64, limits).unwrap();
    near.reserve(9);
    assert_eq!(near.limit_reached(), None);
    near.reserve(1);
    assert_eq!(near.limit_reached(), Some(LimitTrigger::Packets));
    near.reserve(5000);
    assert_eq!(near.limit_reached(), None);
}

#[test]
fn what_anybody_can_send_wears_out_no_key() {
    let limits = KeyLimits { renegotiate_bytes: 20_000, renegotiate_packets: 100, ..limits() };
    let near = KeySlot::new(&key(Cipher::Aes256Gcm, 1, 2), 64, limits).unwrap();
    let far = KeySlot::new(&key(Cipher::Aes256Gcm, 2, 1), 64, limits).unwrap();
    let good = sealed(&near, &DataHeader { key_id: 3, peer_id: Some(7) }, &[9; 1000]);
    let mut forged = good.clone();
    forged[30] ^= 1;
    assert_eq!(opened(&far, &good, good.len(), true).0.len(), 1);
    for packet in [&forged, &good] {
        opened(&far, &packet.repeat(3000), good.len(), true);
        assert_eq!(far.limit_reached(), None);
    }
    assert_eq!((far.usage().packets_received, far.usage().failed_tags), (1, 3000));
    for _ in 0..20 {
        let more = sealed(&near, &DataHeader { key_id: 3, peer_id: Some(7) }, &[9; 1000]);
        opened(&far, &more, more.len(), true);
    }
    assert_eq!(far.limit_reached(), Some(LimitTrigger::Bytes));
}

#[test]
fn forgeries_alone_reach_the_limit_of_their_own() {
    let (near, far) = pair(Cipher::Aes256Gcm);
    let mut forged = sealed(&near, &DataHeader { key_id: 3, peer_id: Some(7) }, &[9; 40]);
    forged[30] ^= 1;
    lock(&far.received.0).failed_tags = FAILED_TAGS_RENEGOTIATE - 2;
    opened(&far, &forged, forged.len(), true);
    assert_eq!(far.limit_reached(), None);
    opened(&far, &forged, forged.len(), true);
    assert_eq!(far.limit_reached(), Some(LimitTrigger::AeadLimit));
    assert_eq!(far.limit_reached(), None);
    lock(&far.received.0).failed_tags = FAILED_TAGS_END;
    assert_eq!(opened(&far, &forged, forged.len(), true).1, [Reason::KeyExpired]);
}

#[test]
fn bad_keys_are_refused_and_none_is_shown() {
    let mut wrong = key(Cipher::Aes256Gcm, 1, 2);
    wrong.send_key = Zeroizing::new(vec![1; 31]);
    assert_eq!(KeySlot::new(&wrong, 64, limits()).unwrap_err().code(), "bad_setting");
    let good = key(Cipher::Aes256Gcm, 0xab, 0xcd);
    assert_eq!(KeySlot::new(&good, 65537, limits()).unwrap_err().code(), "replay_window");
    let shown = format!("{good:?}{:?}", KeySlot::new(&good, 64, limits()).unwrap());
    assert!(!shown.contains("171") && !shown.to_lowercase().contains("ab,"), "{shown}");
}
