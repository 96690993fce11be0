//! Sparse files in the formats of GNU tar. No engine writes them into layers, but there are images that were made from such
//! archives.

use super::block::{TarBlock, decimal_number, field, number};
use crate::layer::format::BLOCK;

/// A part of a sparse file that is stored. Between the regions are zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub offset: u64,
    pub length: u64,
}

/// The format of a sparse file, which decides where its regions are listed.
#[derive(Debug)]
pub enum SparseFormat {
    /// In PAX records: versions 0.0 and 0.1.
    Known { regions: Vec<Region>, real_size: u64 },
    /// At the beginning of the content: version 1.0.
    MapInContent { real_size: u64 },
    /// In the header and in blocks after it: the sparse type of the GNU dialect.
    Blocks { regions: Vec<Region>, more: bool, real_size: u64 },
}

/// Parses regions that are numbers separated by commas.
pub fn parse_map(map: &[u8]) -> Result<Vec<Region>, &'static str> {
    let mut numbers = map.split(|byte| *byte == b',').map(decimal_number);
    let mut regions = Vec::new();
    if map.is_empty() {
        return Ok(regions);
    }
    while let Some(offset) = numbers.next() {
        let length = numbers.next().ok_or("has a sparse region without a length")??;
        regions.push(Region { offset: offset?, length });
    }
    Ok(regions)
}

/// Parses the regions in a header of the GNU dialect.
pub fn of_header(block: &TarBlock) -> Option<SparseFormat> {
    Some(SparseFormat::Blocks {
        regions: of_blocks(&block.0[field::GNU_REGIONS])?,
        more: block.0[field::GNU_MORE] != 0,
        real_size: u64::try_from(block.number(field::GNU_REAL_SIZE)?).ok()?,
    })
}

/// Parses a block of further regions. Returns them, and whether another block follows.
pub fn of_block(block: &TarBlock) -> Option<(Vec<Region>, bool)> {
    Some((of_blocks(&block.0[field::MORE_REGIONS])?, block.0[field::MORE_FOLLOW] != 0))
}

/// Parses regions in fields of a header, up to the first empty one.
fn of_blocks(fields: &[u8]) -> Option<Vec<Region>> {
    let number = |field| u64::try_from(number(field)?).ok();
    fields
        .chunks_exact(24)
        .take_while(|region| region[0] != 0)
        .map(|region| Some(Region { offset: number(&region[..12])?, length: number(&region[12..])? }))
        .collect()
}

/// A parser of the map of version 1.0: decimal numbers in lines, of which the first one is the number of regions.
#[derive(Default)]
pub struct MapReader {
    digits: Vec<u8>,
    expected: Option<u64>,
    offset: Option<u64>,
    regions: Vec<Region>,
}

impl MapReader {
    /// Parses the next block. Returns the regions when the map is complete.
    pub fn take(&mut self, block: &[u8; BLOCK]) -> Result<Option<Vec<Region>>, &'static str> {
        for byte in block {
            if *byte != b'\n' {
                // A number of 64 bits has at most 20 digits.
                if !byte.is_ascii_digit() || self.digits.len() >= 20 {
                    return Err("has a sparse map that cannot be read");
                }
                self.digits.push(*byte);
                continue;
            }
            let number = decimal_number(&self.digits)?;
            if self.digits.is_empty() {
                return Err("has a sparse map that cannot be read");
            }
            self.digits.clear();
            match (self.expected, self.offset.take()) {
                (None, _) => self.expected = Some(number),
                (Some(_), None) => self.offset = Some(number),
                (Some(_), Some(offset)) => self.regions.push(Region { offset, length: number }),
            }
            if self.expected == Some(self.regions.len() as u64) {
                return Ok(Some(std::mem::take(&mut self.regions)));
            }
        }
        Ok(None)
    }
}

/// The position in the content of an entry.
#[derive(Default)]
pub struct ContentCursor {
    /// The number of bytes that are still in the archive, without padding.
    pub stored: u64,
    /// The number of bytes after them that fill the last block.
    pub padding: u64,
    /// The stored regions of a sparse file, last one first.
    regions: Option<Vec<Region>>,
    /// The offset in the file, and its size.
    pub position: u64,
    size: u64,
}

impl ContentCursor {
    /// Creates the cursor of a file that is stored completely.
    pub fn plain(size: u64) -> Self {
        let padding = size.wrapping_neg() % BLOCK as u64;
        Self { stored: size, padding, regions: None, position: 0, size }
    }

    /// Creates the cursor of a file of which only these regions are stored.
    ///
    /// # Errors
    /// Fails if they overlap, exceed the file, or do not add up to what is stored.
    pub fn sparse(stored: u64, mut regions: Vec<Region>, size: u64) -> Result<Self, &'static str> {
        let mut end = 0;
        let mut sum = 0u64;
        for region in &regions {
            let next = region.offset.checked_add(region.length);
            let next = next.filter(|next| *next <= size && region.offset >= end);
            end = next.ok_or("has sparse regions that make no sense")?;
            sum += region.length;
        }
        if sum != stored {
            return Err("has more or less content than its sparse regions");
        }
        regions.reverse();
        Ok(Self { regions: Some(regions), size, ..Self::plain(stored) })
    }

    /// Returns the number of bytes in the next run, and whether they are stored. The number is 0 at the end.
    pub fn next_run(&mut self) -> (u64, bool) {
        let Some(regions) = &mut self.regions else { return (self.stored, true) };
        while regions.last().is_some_and(|region| region.offset + region.length <= self.position) {
            regions.pop();
        }
        match regions.last() {
            Some(region) if region.offset <= self.position => {
                (region.offset + region.length - self.position, true)
            }
            Some(region) => (region.offset - self.position, false),
            None => (self.size - self.position, false),
        }
    }
}
