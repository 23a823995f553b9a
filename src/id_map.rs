//! Maps whose keys are windway's own: ids that count up, and hashes.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A map by an id or by a hash.
///
/// No program and no server chooses these keys, so none can make them collide on purpose. std's hasher defends against that, and
/// takes ten times as long.
pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// A set of ids or hashes. See [`IdMap`].
pub(crate) type IdSet<K> = HashSet<K, BuildHasherDefault<IdHasher>>;

/// Multiplies: numbers that follow each other get different low bits, by which a map chooses the place, and high bits that are
/// spread, by which it compares.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

/// 2⁶⁴ over the golden ratio (Knuth, TAOCP 3, section 6.4), made odd.
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // For keys of several words. A multiplication carries upwards only, so without the rotation the low bits would never
        // depend on the high bits of an earlier word. 26 is the rotation of rustc-hash 2.
        self.0 = (self.0.rotate_left(26) ^ number).wrapping_mul(FACTOR);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
