//! Image: the bytes of a file, sparse, cheap to copy.

use std::collections::BTreeMap;
use std::rc::Rc;

pub(super) const PAGE_BYTES: usize = 4096;

type Page = [u8; PAGE_BYTES];

/// Pages that were never written read as zeros. `bytes` is the file's length.
#[derive(Clone, Default)]
pub(super) struct Image {
    pub(super) bytes: u64,
    pages: BTreeMap<u64, Rc<Page>>,
}

impl Image {
    /// Writes `data` at `position` without changing the length.
    pub(super) fn write(&mut self, position: u64, data: &[u8]) {
        let mut written = 0;
        while written < data.len() {
            let (number, within) = page_of(position + written as u64);
            let count = (PAGE_BYTES - within).min(data.len() - written);
            let page = self.pages.entry(number).or_insert_with(|| Rc::new([0; PAGE_BYTES]));
            Rc::make_mut(page)[within..within + count].copy_from_slice(&data[written..written + count]);
            written += count;
        }
    }

    /// Reads into `data` from `position` and returns the count of bytes before the end.
    pub(super) fn read(&self, position: u64, data: &mut [u8]) -> usize {
        let available = self.bytes.saturating_sub(position).min(data.len() as u64) as usize;
        let mut read = 0;
        while read < available {
            let (number, within) = page_of(position + read as u64);
            let count = (PAGE_BYTES - within).min(available - read);
            match self.pages.get(&number) {
                Some(page) => data[read..read + count].copy_from_slice(&page[within..within + count]),
                None => data[read..read + count].fill(0),
            }
            read += count;
        }
        available
    }

    /// Sets the length; bytes behind it are gone.
    pub(super) fn resize(&mut self, bytes: u64) {
        self.bytes = bytes;
        self.trim();
    }

    /// Forgets what was written behind the length.
    pub(super) fn trim(&mut self) {
        let (last, within) = page_of(self.bytes);
        drop(self.pages.split_off(&(last + u64::from(within > 0))));
        if within > 0
            && let Some(page) = self.pages.get_mut(&last)
        {
            Rc::make_mut(page)[within..].fill(0);
        }
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes as usize];
        self.read(0, &mut bytes);
        bytes
    }

    pub(super) fn page_numbers(&self) -> impl Iterator<Item = u64> {
        self.pages.keys().copied()
    }
}

pub(super) fn page_of(position: u64) -> (u64, usize) {
    (position / PAGE_BYTES as u64, (position % PAGE_BYTES as u64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::Random;

    #[test]
    fn equals_a_vector_under_random_writes_and_resizes() {
        let mut random = Random::new(3);
        let (mut image, mut model) = (Image::default(), Vec::new());
        for _ in 0..500 {
            if random.chance(1, 4) {
                let bytes = random.below(30_000);
                image.resize(bytes);
                model.resize(bytes as usize, 0);
            } else {
                let position = random.below(20_000);
                let mut data = vec![0; 1 + random.below(9_000) as usize];
                random.fill(&mut data);
                let end = position as usize + data.len();
                image.write(position, &data);
                image.bytes = image.bytes.max(end as u64);
                model.resize(model.len().max(end), 0);
                model[position as usize..end].copy_from_slice(&data);
            }
            assert_eq!(image.to_vec(), model);
        }
    }
}
