//! The rows of one transaction, whose contents share blocks of memory: one allocation for many records, made and given back by
//! the writer.

use bytes::Bytes;

use super::chain::StoredRow;
use super::record::Tip;

/// What a block has room for; one record may have more. A reader that keeps a record keeps its block.
const BLOCK_BYTES: usize = 64 << 10;

/// Rows that are being made.
#[derive(Debug)]
pub(super) struct RowBlocks {
    /// The bytes of the rows to come.
    to_come: usize,
    rows: Vec<StoredRow>,
    /// The contents of the rows that are not among `rows` yet.
    block: Vec<u8>,
    /// Their places, and where the content of each ends.
    ends: Vec<(Tip, usize)>,
}

impl RowBlocks {
    /// No rows yet, and memory for so many, with at most so many bytes of content together.
    pub(super) fn new(rows: usize, bytes: usize) -> Self {
        Self { to_come: bytes, rows: Vec::with_capacity(rows), block: Vec::new(), ends: Vec::new() }
    }

    /// Adds a row of at most `bytes`. `write` adds its content to what it gets, and returns its place.
    pub(super) fn add(&mut self, bytes: usize, write: impl FnOnce(&mut Vec<u8>) -> Tip) -> Tip {
        if self.block.capacity() - self.block.len() < bytes {
            self.finish_block();
            // No more than all that come need: a few records are not to keep a whole block.
            self.block = Vec::with_capacity(self.to_come.min(BLOCK_BYTES).max(bytes));
        }
        self.to_come = self.to_come.saturating_sub(bytes);
        let place = write(&mut self.block);
        self.ends.push((place, self.block.len()));
        place
    }

    /// The rows.
    pub(super) fn finish(mut self) -> Vec<StoredRow> {
        self.finish_block();
        self.rows
    }

    fn finish_block(&mut self) {
        let mut rest = Bytes::from(std::mem::take(&mut self.block));
        let mut start = 0;
        for (place, end) in self.ends.drain(..) {
            self.rows.push(StoredRow::new(place, rest.split_to(end - start)));
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Head;
    use super::*;

    fn rows(sizes: &[usize]) -> Vec<StoredRow> {
        let mut rows = RowBlocks::new(sizes.len(), sizes.iter().sum());
        for (sequence, &bytes) in sizes.iter().enumerate() {
            let place =
                Tip { head: Head { sequence: sequence as u64, hash: [sequence as u8; 32] }, latest_time: 7 };
            let added = rows.add(bytes, |contents| {
                contents.extend(std::iter::repeat_n(sequence as u8, bytes));
                place
            });
            assert_eq!(added, place);
        }
        rows.finish()
    }

    #[test]
    fn rows_have_their_own_contents_however_they_share_blocks() {
        assert_eq!(rows(&[]), []);
        let sizes = [1, 0, 700, BLOCK_BYTES - 701, 1, 3 * BLOCK_BYTES, 0, 2];
        let rows = rows(&sizes);
        assert_eq!(rows.len(), sizes.len());
        for (n, (row, bytes)) in rows.iter().zip(sizes).enumerate() {
            assert_eq!((row.sequence, row.latest_time, row.hash), (n as u64, 7, [n as u8; 32]));
            assert_eq!(row.content, vec![n as u8; bytes]);
        }
    }

    #[test]
    fn records_share_a_block_and_a_single_one_does_not_keep_a_whole_one() {
        let apart = |rows: &[StoredRow]| rows[1].content.as_ptr().addr() - rows[0].content.as_ptr().addr();
        assert_eq!(apart(&rows(&[700, 700])), 700);
        let single = rows(&[700]).remove(0).content.try_into_mut().expect("nobody shares it");
        assert_eq!(single.capacity(), 700);
    }
}
