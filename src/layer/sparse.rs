//! Sparse files as GNU tar archives them. Nobody writes them into layers, but images were made from such archives.

use super::block::{Block, decimal_number, field, number};
use super::format::BLOCK;

/// A part of a sparse file that is stored; what lies between the parts is zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub offset: u64,
    pub length: u64,
}

/// Where a sparse file says what is stored.
#[derive(Debug)]
pub enum Form {
    /// In the PAX records that were read: versions 0.0 and 0.1.
    Known { regions: Vec<Region>, real_size: u64 },
    /// At the beginning of the content: version 1.0.
    MapInContent { real_size: u64 },
    /// In the header and in blocks behind it: the GNU dialect's own type.
    Blocks { regions: Vec<Region>, more: bool, real_size: u64 },
}

/// Regions with commas between the numbers.
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

/// What a header of the GNU dialect says about a sparse file.
pub fn of_header(block: &Block) -> Option<Form> {
    Some(Form::Blocks {
        regions: of_blocks(&block.0[field::GNU_REGIONS])?,
        more: block.0[field::GNU_MORE] != 0,
        real_size: u64::try_from(block.number(field::GNU_REAL_SIZE)?).ok()?,
    })
}

/// The regions of one more block, and whether another one follows.
pub fn of_block(block: &Block) -> Option<(Vec<Region>, bool)> {
    Some((of_blocks(&block.0[field::MORE_REGIONS])?, block.0[field::MORE_MORE] != 0))
}

/// Regions in binary headers, up to the first that is none.
fn of_blocks(fields: &[u8]) -> Option<Vec<Region>> {
    let number = |field| u64::try_from(number(field)?).ok();
    fields
        .chunks_exact(24)
        .take_while(|region| region[0] != 0)
        .map(|region| Some(Region { offset: number(&region[..12])?, length: number(&region[12..])? }))
        .collect()
}

/// The map of version 1.0 as it comes: decimal numbers in lines, the first of which says how many regions there are.
#[derive(Default)]
pub struct MapReader {
    digits: Vec<u8>,
    expected: Option<u64>,
    offset: Option<u64>,
    regions: Vec<Region>,
}

impl MapReader {
    /// Takes one more block. The regions when all have come.
    pub fn take(&mut self, block: &[u8; BLOCK]) -> Result<Option<Vec<Region>>, &'static str> {
        for byte in block {
            if *byte != b'\n' {
                // No number is longer than 2^64.
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

/// The content of an entry: what of it is stored, and what comes next.
#[derive(Default)]
pub struct Content {
    /// Bytes that are still in the archive, without padding.
    pub stored: u64,
    /// Bytes behind them that fill the last block.
    pub padding: u64,
    /// For a sparse file: the regions that are stored, last first.
    regions: Option<Vec<Region>>,
    /// How many bytes of the file have passed, and how many it has.
    pub position: u64,
    size: u64,
}

impl Content {
    /// All of it is stored.
    pub fn plain(size: u64) -> Self {
        let padding = size.wrapping_neg() % BLOCK as u64;
        Self { stored: size, padding, regions: None, position: 0, size }
    }

    /// Only these regions are stored.
    ///
    /// # Errors
    /// When they overlap, leave the file, or do not add up to what is stored.
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

    /// How many bytes come next, and whether they are stored; (0, _) at the end.
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
