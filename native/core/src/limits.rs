//! How far a data key is used up, and when to ask for the next.
//!
//! Source: `docs/protocol/data.md#3-1 and #3-3`. Counts only; the caller counts and reports.

/// The last packet id that may be sent under a key.
pub const MAX_PACKET_ID: u32 = u32::MAX;
/// Renegotiate from this packet id on.
pub const RENEGOTIATE_PACKET_ID: u32 = 0xFF00_0000;
/// Bytes of one AEAD block.
pub const AEAD_BLOCK_OCTETS: u64 = 16;
/// Blocks and packets of one direction under one AES-GCM key.
pub const AES_GCM_BLOCKS: u64 = (1 << 36) - 1;
/// Renegotiate from here.
pub const AES_GCM_RENEGOTIATE: u64 = AES_GCM_BLOCKS / 8 * 7 + AES_GCM_BLOCKS % 8 * 7 / 8;
/// Renegotiate from this many failed tags on.
pub const FAILED_TAGS_RENEGOTIATE: u64 = 1 << 35;
/// Nothing may be accepted under the key any more.
pub const FAILED_TAGS_END: u64 = 1 << 36;
/// Check the limits after this many more packets...
pub const CHECK_PACKETS: u64 = 1024;
/// ...or bytes were seen.
pub const CHECK_OCTETS: u64 = 1 << 20;

/// Why a key should be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitTrigger {
    /// The configured number of bytes.
    Bytes,
    /// The packet ids, or the configured number of packets.
    Packets,
    /// What the cipher allows, or failed tags.
    AeadLimit,
}

impl LimitTrigger {
    /// The word that the contract and metrics use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Packets => "packets",
            Self::AeadLimit => "aead_limit",
        }
    }
}

/// What was done under one key so far. Bytes are those of payload, or a little more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyUse {
    /// Packets sealed.
    pub packets_sent: u64,
    /// Bytes sealed.
    pub octets_sent: u64,
    /// Packets that were authentic and new: forgeries and repetitions, which anybody can send, wear out no key.
    pub packets_received: u64,
    /// Their bytes.
    pub octets_received: u64,
    /// Tags that did not match.
    pub failed_tags: u64,
    /// The higher one of the packet ids sent and received.
    pub highest_packet_id: u32,
}

impl KeyUse {
    /// 16-byte blocks, rounded up, plus packets, of the worse direction (or a little more).
    #[must_use]
    pub fn blocks(&self) -> u64 {
        let sent = self.octets_sent / AEAD_BLOCK_OCTETS + 2 * self.packets_sent;
        let received = self.octets_received / AEAD_BLOCK_OCTETS + 2 * self.packets_received;
        sent.max(received)
    }

    /// This many tags failed: accept nothing under this key any more.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.failed_tags >= FAILED_TAGS_END
    }

    /// Packets of both directions.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets_sent + self.packets_received
    }

    /// Bytes of both directions.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.octets_sent + self.octets_received
    }

    /// Share of the packet ids used, 0..1.
    #[must_use]
    pub fn packet_id_ratio(&self) -> f64 {
        f64::from(self.highest_packet_id) / f64::from(MAX_PACKET_ID)
    }
}

/// When to look at the limits again: as soon as either figure (of both directions) is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextCheck {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub octets: u64,
}

impl NextCheck {
    /// Whether it is time.
    #[must_use]
    #[inline]
    pub fn is_due(&self, packets: u64, octets: u64) -> bool {
        packets >= self.packets || octets >= self.octets
    }
}

/// What holds for one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyLimits {
    /// AES-GCM; ChaCha20-Poly1305 has no limit of its own.
    pub is_aes_gcm: bool,
    /// Bytes of both directions together; 0: no limit.
    pub renegotiate_bytes: u64,
    /// Packets of both directions together; 0: no limit.
    pub renegotiate_packets: u64,
}

impl KeyLimits {
    /// Why the key should be replaced, if it should. It keeps returning that: report it once.
    #[must_use]
    pub fn reached(&self, usage: &KeyUse) -> Option<LimitTrigger> {
        if usage.highest_packet_id >= RENEGOTIATE_PACKET_ID {
            return Some(LimitTrigger::Packets);
        }
        if self.renegotiate_packets > 0 && usage.packets() >= self.renegotiate_packets {
            return Some(LimitTrigger::Packets);
        }
        if self.renegotiate_bytes > 0 && usage.octets() >= self.renegotiate_bytes {
            return Some(LimitTrigger::Bytes);
        }
        let is_worn = self.is_aes_gcm && usage.blocks() >= AES_GCM_RENEGOTIATE;
        (usage.failed_tags >= FAILED_TAGS_RENEGOTIATE || is_worn).then_some(LimitTrigger::AeadLimit)
    }

    /// When to call [`reached`](Self::reached) again; no configured limit is passed before that.
    #[must_use]
    pub fn next_check(&self, usage: &KeyUse) -> NextCheck {
        let (packets, octets) = (usage.packets(), usage.octets());
        let mut next = NextCheck { packets: packets + CHECK_PACKETS, octets: octets + CHECK_OCTETS };
        if self.renegotiate_packets > packets {
            next.packets = next.packets.min(self.renegotiate_packets);
        }
        if self.renegotiate_bytes > octets {
            next.octets = next.octets.min(self.renegotiate_bytes);
        }
        next
    }

    /// Share of the AEAD limit used, 0..1, of the worse direction.
    #[must_use]
    pub fn aead_ratio(&self, usage: &KeyUse) -> f64 {
        if !self.is_aes_gcm {
            return 0.0;
        }
        (usage.blocks() as f64 / AES_GCM_BLOCKS as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: KeyLimits = KeyLimits { is_aes_gcm: true, renegotiate_bytes: 0, renegotiate_packets: 0 };

    #[test]
    fn seven_eighths_of_the_blocks_ask_for_a_new_key() {
        assert_eq!(u128::from(AES_GCM_RENEGOTIATE), u128::from(AES_GCM_BLOCKS) * 7 / 8);
        let before = KeyUse { octets_sent: (AES_GCM_RENEGOTIATE - 1) * 16, ..KeyUse::default() };
        let at = KeyUse { octets_sent: AES_GCM_RENEGOTIATE * 16, ..KeyUse::default() };
        assert_eq!(PLAIN.reached(&before), None);
        assert_eq!(PLAIN.reached(&at), Some(LimitTrigger::AeadLimit));
        assert_eq!(KeyLimits { is_aes_gcm: false, ..PLAIN }.reached(&at), None);
        let received = KeyUse { packets_received: AES_GCM_RENEGOTIATE / 2 + 1, ..KeyUse::default() };
        assert_eq!(PLAIN.reached(&received), Some(LimitTrigger::AeadLimit));
    }

    #[test]
    fn packet_ids_run_out_before_they_repeat() {
        let mut usage = KeyUse { highest_packet_id: RENEGOTIATE_PACKET_ID - 1, ..KeyUse::default() };
        assert_eq!(PLAIN.reached(&usage), None);
        usage.highest_packet_id += 1;
        assert_eq!(PLAIN.reached(&usage), Some(LimitTrigger::Packets));
        assert!(usage.packet_id_ratio() < 1.0);
    }

    #[test]
    fn failed_tags_ask_for_a_new_key_and_then_end_it() {
        let mut usage = KeyUse { failed_tags: FAILED_TAGS_RENEGOTIATE, ..KeyUse::default() };
        assert_eq!(PLAIN.reached(&usage), Some(LimitTrigger::AeadLimit));
        assert!(!usage.is_dead());
        usage.failed_tags = FAILED_TAGS_END;
        assert!(usage.is_dead());
    }

    #[test]
    fn configured_limits_count_both_directions_and_are_never_passed_unseen() {
        let limits = KeyLimits { renegotiate_bytes: 1000, renegotiate_packets: 10, ..PLAIN };
        let mut usage = KeyUse { packets_sent: 4, packets_received: 5, ..KeyUse::default() };
        assert_eq!(limits.reached(&usage), None);
        assert_eq!(limits.next_check(&usage), NextCheck { packets: 10, octets: 1000 });
        usage.packets_sent = 5;
        assert_eq!(limits.reached(&usage), Some(LimitTrigger::Packets));
        let usage = KeyUse { octets_sent: 500, octets_received: 500, ..KeyUse::default() };
        assert_eq!(limits.reached(&usage), Some(LimitTrigger::Bytes));
        assert_eq!(limits.next_check(&usage).octets, 1000 + CHECK_OCTETS);
        assert!(limits.next_check(&usage).is_due(10, 0) && !limits.next_check(&usage).is_due(9, 0));
    }

    #[test]
    fn ratios_stay_within_0_and_1() {
        let usage = KeyUse { octets_sent: u64::MAX / 2, highest_packet_id: MAX_PACKET_ID, ..KeyUse::default() };
        assert!((PLAIN.aead_ratio(&usage) - 1.0).abs() < 1e-9);
        assert!((usage.packet_id_ratio() - 1.0).abs() < 1e-9);
    }
}
