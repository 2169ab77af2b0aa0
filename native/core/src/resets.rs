//! How many hard resets are answered, and whose: an answer goes to an address that anybody may have written.
//!
//! Source: `bridged/protocol/strangers/reset_limit.py`, the specification; docs/decisions/0035.

use crate::hashing::{mix, Seed};
use crate::policer::{Rate, Source, SourceLimit};
use crate::{Nanos, SECOND};

/// Answers to networks within their share.
pub const FIRST: Rate = Rate { burst: 2048, per_second: 4096 };
/// Answers to resets that came before.
pub const REPEAT: Rate = Rate { burst: 1024, per_second: 2048 };
/// Answers beyond a network's share.
pub const BEYOND: Rate = Rate { burst: 128, per_second: 256 };
/// Of one network, while half of the first burst is left.
pub const CALM: Rate = Rate { burst: 1024, per_second: 512 };
/// Of one network, else.
pub const PRESSED: Rate = Rate { burst: 8, per_second: 2 };
/// Resets that somebody has to remember (tls-crypt-v2 of OpenVPN 2.5), of all networks together.
pub const ONCE: Rate = Rate { burst: 256, per_second: 256 };
/// The same, of those that came before.
pub const ONCE_REPEAT: Rate = Rate { burst: 256, per_second: 512 };
/// A reset that came more often is no client's.
pub const REPEATS_MAX: u8 = 3;
/// Resets of one session whose key is opened, whoever sends them; beyond that there is [`KEY`].
pub const KEY_REPEATS_MAX: u8 = 8;
/// Keys opened beyond that: a captured reset comes again and again from ever new addresses.
pub const KEY: Rate = Rate { burst: 16, per_second: 16 };
/// A reset is remembered for at least this long, and at most twice as long.
pub const MEMORY_TIME: Nanos = 2_200_000_000;

const MEMORY_CELLS: usize = 1 << 20;

/// One token bucket, in units of 1/SECOND tokens.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    tokens: u64,
    at: Nanos,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self { rate, tokens: u64::from(rate.burst) * SECOND, at: 0 }
    }

    fn fill(&mut self, now: Nanos) -> u64 {
        let gained = now.saturating_sub(self.at).saturating_mul(u64::from(self.rate.per_second));
        self.tokens = self.tokens.saturating_add(gained).min(u64::from(self.rate.burst) * SECOND);
        self.at = now;
        self.tokens
    }

    fn take(&mut self, now: Nanos) -> bool {
        let is_allowed = self.fill(now) >= SECOND;
        if is_allowed {
            self.tokens -= SECOND;
        }
        is_allowed
    }
}

/// How often something came lately: two tables of counters whose cells are shared by hash.
#[derive(Debug)]
struct Memory {
    new: Vec<u8>,
    old: Vec<u8>,
    turns_at: Nanos,
}

impl Memory {
    /// Tables of zeros take memory as they are written to.
    fn new() -> Self {
        Self { new: vec![0; MEMORY_CELLS], old: vec![0; MEMORY_CELLS], turns_at: 0 }
    }

    /// It came; how often that was, this time counted. Rather too often than too seldom.
    fn note(&mut self, number: u64, now: Nanos) -> u8 {
        if now >= self.turns_at {
            let is_long_ago = now >= self.turns_at + MEMORY_TIME;
            let last = std::mem::replace(&mut self.new, vec![0; MEMORY_CELLS]);
            self.old = if is_long_ago { vec![0; MEMORY_CELLS] } else { last };
            self.turns_at = now + MEMORY_TIME;
        }
        let cells = [number as usize % MEMORY_CELLS, (number >> 32) as usize % MEMORY_CELLS];
        let times = cells.map(|cell| self.new[cell].saturating_add(self.old[cell]));
        for cell in cells {
            self.new[cell] = self.new[cell].saturating_add(1);
        }
        times[0].min(times[1]).saturating_add(1)
    }
}

/// See the module.
#[derive(Debug)]
pub struct ResetLimit {
    first: Bucket,
    repeat: Bucket,
    beyond: Bucket,
    once: Bucket,
    once_repeat: Bucket,
    networks: SourceLimit,
    memory: Memory,
    keys: Bucket,
    key_memory: Memory,
    seed: Seed,
}

impl ResetLimit {
    /// Allocates all it will ever need; `seed` is random.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            first: Bucket::new(FIRST),
            repeat: Bucket::new(REPEAT),
            beyond: Bucket::new(BEYOND),
            once: Bucket::new(ONCE),
            once_repeat: Bucket::new(ONCE_REPEAT),
            networks: SourceLimit::new(seed),
            memory: Memory::new(),
            keys: Bucket::new(KEY),
            key_memory: Memory::new(),
            seed: Seed::new(seed),
        }
    }

    /// Whether to open the key that a reset of this session brings.
    pub fn allows_key(&mut self, session_id: u64, now: Nanos) -> bool {
        self.key_memory.note(mix(session_id, self.seed), now) <= KEY_REPEATS_MAX || self.keys.take(now)
    }

    /// Take what an answer costs; false where there is none for this reset. `source` with its port.
    pub fn allows(&mut self, source: Source, session_id: u64, now: Nanos) -> bool {
        let times = self.note(source, session_id, now);
        if times > REPEATS_MAX {
            return false;
        }
        if times > 1 && self.repeat.take(now) {
            return true;
        }
        let is_calm = self.first.fill(now) > u64::from(FIRST.burst) * SECOND / 2;
        let network = Source { address: network_of(source.address), port: 0 };
        if self.networks.allows(network, now, if is_calm { CALM } else { PRESSED }) {
            self.first.take(now)
        } else {
            self.beyond.take(now)
        }
    }

    /// The same for a reset whose answer costs the control plane work and memory: few, and rather a repeated one,
    /// because a stranger who has captured one sends it from ever new addresses.
    pub fn allows_once(&mut self, source: Source, session_id: u64, now: Nanos) -> bool {
        let times = self.note(source, session_id, now);
        if times > REPEATS_MAX {
            return false;
        }
        if times > 1 && self.once_repeat.take(now) {
            return true;
        }
        let is_calm = self.once.fill(now) > u64::from(ONCE.burst) * SECOND / 2;
        let network = Source { address: network_of(source.address), port: 0 };
        self.networks.allows(network, now, if is_calm { CALM } else { PRESSED }) && self.once.take(now)
    }

    /// How often it came lately, this time counted.
    fn note(&mut self, source: Source, session_id: u64, now: Nanos) -> u8 {
        let endpoint = mix(source.address as u64 ^ u64::from(source.port).rotate_left(40), self.seed);
        let number =
            mix(endpoint ^ mix((source.address >> 64) as u64, self.seed).rotate_left(17) ^ session_id, self.seed);
        self.memory.note(number, now)
    }
}

/// The /24 of an IPv4-mapped address, the /64 of any other.
#[must_use]
pub fn network_of(address: u128) -> u128 {
    if address >> 32 == 0xffff {
        address & !0xff
    } else {
        address >> 64 << 64
    }
}

/// The host that a limit applies to: an IPv4 address, or a whole IPv6 /64, from which one host can choose.
#[must_use]
pub fn host_of(address: u128) -> u128 {
    if address >> 32 == 0xffff {
        address
    } else {
        network_of(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 20_000;

    fn v4(a: u8, b: u8, c: u8, d: u8) -> u128 {
        0xffff_0000_0000 | u128::from(u32::from_be_bytes([a, b, c, d]))
    }

    /// A number that looks random.
    fn draw(step: u64) -> u64 {
        mix(step, Seed::new(99))
    }

    /// The try, from 1, at which each of 30 clients is answered that repeat their resets after a second, during a
    /// flood.
    fn tries(forge: impl Fn(u64) -> (Source, u64), client: u128) -> Vec<usize> {
        let mut limit = ResetLimit::new(7);
        let mut answered = vec![0; 30];
        for step in 0..RATE * 5 {
            let now = step * SECOND / RATE;
            let (source, session) = forge(step);
            limit.allows(source, session, now);
            for (number, answered) in answered.iter_mut().enumerate() {
                let since = step.checked_sub(RATE + number as u64 * RATE / 20);
                if let Some(since) = since.filter(|since| *answered == 0 && since % RATE == 0 && *since < 3 * RATE) {
                    let source = Source { address: client, port: 1000 + number as u32 };
                    if limit.allows(source, number as u64, now) {
                        *answered = (since / RATE) as usize + 1;
                    }
                }
            }
        }
        answered.into_iter().map(|answered| if answered == 0 { 9 } else { answered }).collect()
    }

    fn anybody(step: u64) -> (Source, u64) {
        let address = 0xffff_0000_0000 | u128::from(draw(step) as u32);
        (Source { address, port: (draw(step) >> 48) as u32 }, draw(step + (1 << 40)))
    }

    fn neighbour(step: u64) -> (Source, u64) {
        let address = v4(203, 0, 113, 30 + (draw(step) % 220) as u8);
        (Source { address, port: (draw(step) >> 48) as u32 }, draw(step + (1 << 40)))
    }

    #[test]
    fn forged_resets_from_everywhere_delay_a_client_until_it_repeats_itself() {
        let tries = tries(anybody, v4(192, 0, 2, 7));
        assert!(tries.iter().all(|&at| at <= 3), "{tries:?}");
        assert!(tries.iter().filter(|&&at| at <= 2).count() >= 29, "{tries:?}");
    }

    #[test]
    fn forged_resets_from_one_network_delay_nobody_elsewhere() {
        assert!(tries(neighbour, v4(192, 0, 2, 7)).iter().all(|&at| at == 1));
        let prefix = |step| (Source { address: (0x2001_0db8 << 96) | u128::from(draw(step)), port: 1 }, step);
        assert!(tries(prefix, 0x2001_0db9 << 96).iter().all(|&at| at == 1));
    }

    #[test]
    fn forged_resets_in_the_name_of_ones_own_network_delay_a_client_until_it_repeats_itself() {
        assert!(tries(neighbour, v4(203, 0, 113, 9)).iter().all(|&at| at <= 3));
    }

    #[test]
    fn the_same_forged_resets_again_and_again_are_not_taken_for_clients() {
        assert!(tries(|step| anybody(step % 4096), v4(192, 0, 2, 7)).iter().all(|&at| at <= 2));
    }

    #[test]
    fn a_thousand_clients_behind_one_address_are_answered_at_once() {
        let mut limit = ResetLimit::new(1);
        let source = |port| Source { address: v4(192, 0, 2, 7), port };
        assert!((0..1000).all(|port| limit.allows(source(port), u64::from(port), 0)));
    }

    #[test]
    fn one_and_the_same_reset_is_answered_a_few_times() {
        let mut limit = ResetLimit::new(1);
        let source = Source { address: v4(192, 0, 2, 7), port: 1 };
        let answers = (0..20).filter(|step| limit.allows(source, 5, step * SECOND / 10)).count();
        assert_eq!(answers, usize::from(REPEATS_MAX));
        assert!(limit.allows(source, 5, 60 * SECOND));
    }

    #[test]
    fn all_answers_together_are_limited() {
        let mut limit = ResetLimit::new(1);
        let answers = (0..5 * RATE).filter(|&step| {
            let (source, session) = anybody(step);
            limit.allows(source, session, step * SECOND / RATE)
        });
        let rates = [FIRST, REPEAT, BEYOND];
        assert!(answers.count() as u32 <= rates.iter().map(|rate| rate.burst + 5 * rate.per_second).sum());
    }

    #[test]
    fn resets_that_must_be_remembered_are_few_and_those_of_clients_are_among_them() {
        let mut limit = ResetLimit::new(7);
        let client = Source { address: v4(192, 0, 2, 7), port: 1000 };
        let (mut allowed, mut client_at) = (0, 9);
        for step in 0..RATE * 5 {
            let (source, _) = anybody(step);
            allowed += u32::from(limit.allows_once(source, 5, step * SECOND / RATE));
            if step % (2 * RATE) == RATE && client_at == 9 && limit.allows_once(client, 6, step * SECOND / RATE) {
                client_at = step / (2 * RATE);
            }
        }
        assert!(client_at <= 1, "the second try at the latest");
        assert!(allowed <= ONCE.burst + 5 * ONCE.per_second + ONCE_REPEAT.burst + 5 * ONCE_REPEAT.per_second);
    }

    #[test]
    fn keys_of_one_session_are_opened_a_few_times_and_those_of_others_as_before() {
        let mut limit = ResetLimit::new(7);
        let opened = (0..5 * RATE).filter(|step| limit.allows_key(5, step * SECOND / RATE)).count() as u32;
        // The memory turns over once or twice meanwhile.
        assert!(opened <= 3 * u32::from(KEY_REPEATS_MAX) + KEY.burst + 5 * KEY.per_second, "{opened}");
        assert!((0..RATE).all(|session| limit.allows_key(draw(session), 5 * SECOND)));
    }

    #[test]
    fn one_network_does_not_use_up_what_may_be_remembered() {
        let mut limit = ResetLimit::new(7);
        for step in 0..RATE {
            limit.allows_once(neighbour(step).0, 5, step * SECOND / RATE);
        }
        assert!(limit.allows_once(Source { address: v4(192, 0, 2, 7), port: 1 }, 6, SECOND));
    }

    #[test]
    fn networks_are_those_of_python() {
        assert_eq!(network_of(v4(192, 0, 2, 7)), v4(192, 0, 2, 0));
        assert_eq!(network_of((0x2001_0db8 << 96) | 0xffff_0000_0001), 0x2001_0db8 << 96);
    }
}
