//! Offset map: the last offset of every key, in bounded memory. For compaction.
//!
//! A key is kept as 128 bits of a keyed hash, so that no client can make two keys meet. The table is many
//! small ones, each of which grows alone: no growth copies more than `TABLE_BYTES_MAX`, and what few keys
//! need is little.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::base::ids::Offset;

/// Largest allocation.
const TABLE_BYTES_MAX: usize = 128 << 10;
const SLOT_BYTES: usize = size_of::<Slot>();
/// Slots of a table that holds its first key.
const SLOTS_MIN: usize = 16;
/// Kafka's `log.cleaner.io.buffer.load.factor`, in tenths.
const LOAD_TENTHS: usize = 9;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    high: u64,
    low: u64,
    /// -1: empty.
    offset: i64,
}

const EMPTY: Slot = Slot { high: 0, low: 0, offset: -1 };

/// The secret of the hash.
#[derive(Clone, Copy, Debug)]
pub struct HashKey(pub u64, pub u64);

#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    used: usize,
}

pub struct OffsetMap {
    key: HashKey,
    tables: Vec<Table>,
    slots_max: usize,
    count: usize,
}

/// There is no room for another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl OffsetMap {
    /// A map of at most `bytes_max`, but of a hundred keys at least.
    pub fn new(bytes_max: usize, key: HashKey) -> Self {
        let tables_count = (bytes_max / TABLE_BYTES_MAX).max(1);
        let slots_max = (bytes_max / tables_count).min(TABLE_BYTES_MAX) / SLOT_BYTES;
        let mut tables = Vec::new();
        tables.resize_with(tables_count, Table::default);
        Self { key, tables, slots_max: slots_max.max(128), count: 0 }
    }

    /// Keys in it.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that it takes now.
    pub fn size_bytes(&self) -> usize {
        let slots: usize = self.tables.iter().map(|table| table.slots.capacity()).sum();
        slots * SLOT_BYTES + self.tables.len() * size_of::<Table>()
    }

    /// Notes that `key` was written at `offset`, unless it was later.
    pub fn put(&mut self, key: &[u8], offset: Offset) -> Result<(), Full> {
        let (high, low) = self.hash(key);
        let slots_max = self.slots_max;
        let index = self.table_of(high);
        let table = &mut self.tables[index];
        let is_new = match table.find(high, low) {
            Some(slot) if table.slots[slot].offset >= 0 => {
                let known = &mut table.slots[slot].offset;
                *known = offset.0.max(*known);
                return Ok(());
            }
            _ => table.make_room(slots_max),
        };
        if !is_new {
            return Err(Full);
        }
        let slot = table.find(high, low).expect("there is room");
        table.slots[slot] = Slot { high, low, offset: offset.0 };
        table.used += 1;
        self.count += 1;
        Ok(())
    }

    /// The last offset of `key`.
    pub fn get(&self, key: &[u8]) -> Option<Offset> {
        let (high, low) = self.hash(key);
        let table = &self.tables[self.table_of(high)];
        let offset = table.slots[table.find(high, low)?].offset;
        (offset >= 0).then_some(Offset(offset))
    }

    fn hash(&self, key: &[u8]) -> (u64, u64) {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        hasher.write(key);
        let hash = hasher.finish128();
        (hash.h1, hash.h2)
    }

    fn table_of(&self, high: u64) -> usize {
        scale(high, self.tables.len())
    }
}

/// `hash` of 64 even bits to below `count`.
fn scale(hash: u64, count: usize) -> usize {
    ((u128::from(hash) * count as u128) >> 64) as usize
}

impl Table {
    /// The slot of a key, or the empty one that it would take. None where the table has no slots.
    fn find(&self, high: u64, low: u64) -> Option<usize> {
        let mut slot = scale(low, self.slots.len());
        while let Some(found) = self.slots.get(slot) {
            if found.offset < 0 || (found.high == high && found.low == low) {
                return Some(slot);
            }
            slot += 1;
            if slot == self.slots.len() {
                slot = 0;
            }
        }
        None
    }

    /// Room for one more key; false where the table can't grow so far.
    fn make_room(&mut self, slots_max: usize) -> bool {
        if (self.used + 1) * 10 <= self.slots.len() * LOAD_TENTHS {
            return true;
        }
        let wanted = (self.slots.len() * 2).clamp(SLOTS_MIN, slots_max);
        if wanted == self.slots.len() {
            return false;
        }
        let before = std::mem::replace(&mut self.slots, vec![EMPTY; wanted]);
        for slot in before.into_iter().filter(|slot| slot.offset >= 0) {
            let at = self.find(slot.high, slot.low).expect("it has room for all");
            self.slots[at] = slot;
        }
        true
    }
}

const _: () = assert!(SLOT_BYTES == 24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::Random;
    use std::collections::BTreeMap;

    const KEY: HashKey = HashKey(1, 2);

    #[test]
    fn it_answers_like_a_plain_map() {
        let mut random = Random::new(1);
        let (mut map, mut model) = (OffsetMap::new(4 << 20, KEY), BTreeMap::new());
        for offset in 0..60_000 {
            let key = random.below(30_000).to_string().into_bytes();
            map.put(&key, Offset(offset)).expect("there is room");
            model.insert(key, Offset(offset));
        }
        assert_eq!(map.len(), model.len());
        for number in 0..31_000u64 {
            let key = number.to_string().into_bytes();
            assert_eq!(map.get(&key), model.get(&key).copied(), "{number}");
        }
        map.put(b"7", Offset(3)).expect("it is known");
        assert_eq!(map.get(b"7"), model.get(&b"7"[..]).copied(), "a smaller offset changes nothing");
    }

    #[test]
    fn memory_follows_the_keys_up_to_the_limit() {
        let limit_bytes = 1 << 20;
        let mut map = OffsetMap::new(limit_bytes, KEY);
        assert_eq!(map.get(b"a"), None);
        assert!(map.size_bytes() < 1_000);
        let mut count = 0u64;
        while map.put(&count.to_ne_bytes(), Offset(1)).is_ok() {
            count += 1;
            assert!(map.size_bytes() <= limit_bytes + 1_000);
        }
        let slots = limit_bytes as u64 / SLOT_BYTES as u64;
        assert!((slots * 8 / 10..slots * 9 / 10 + 1).contains(&count), "{count} of {slots}");
        assert_eq!(map.put(&0u64.to_ne_bytes(), Offset(9)), Ok(()), "a known key needs no room");
    }
}
