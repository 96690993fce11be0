//! A front-coded map from paths to layers: each path is stored without the bytes that it shares with the one before it. A
//! million paths take some 15 MB, instead of the 80 MB of an ordinary map.

use crate::tree::TreePath;
use std::collections::BTreeMap;
use std::iter;
use std::ops::Bound;

/// The most paths in a block; a lookup scans one block.
const MAX_BLOCK: usize = 32;
/// The memory of a block in the map besides its bytes and those of its first path.
const BLOCK_MEMORY: usize = 128;

/// A map from paths to the numbers of layers, in the order of paths.
#[derive(Default)]
pub(super) struct FrontCodedMap {
    /// The blocks by their first paths; none is empty.
    blocks: BTreeMap<TreePath, PathBlock>,
    /// The last path, after which the next one is usually inserted.
    last: Option<TreePath>,
    /// The memory of the blocks, in bytes.
    held: usize,
}

/// Consecutive paths, front-coded.
#[derive(Default)]
struct PathBlock {
    count: usize,
    packed: Vec<u8>,
}

impl FrontCodedMap {
    /// Sets the layer of a path.
    pub fn insert(&mut self, path: &TreePath, layer: u32) {
        if self.last.as_ref().is_some_and(|last| last >= path) {
            return self.change(path, |paths, at| match at {
                Ok(at) => paths[at].1 = layer,
                Err(at) => paths.insert(at, (path.clone(), layer)),
            });
        }
        let before = self.last.replace(path.clone()).unwrap_or_default();
        match self.blocks.last_entry() {
            Some(mut block) if block.get().count < MAX_BLOCK => {
                let size = block.get().packed.len();
                block.get_mut().push(&before, path, layer);
                self.held += block.get().packed.len() - size;
            }
            _ => self.insert_block(&[(path.clone(), layer)]),
        }
    }

    /// Returns the memory that is held, in bytes.
    pub fn memory(&self) -> usize {
        self.held
    }

    fn insert_block(&mut self, paths: &[(TreePath, u32)]) {
        let (first, block) = (paths[0].0.clone(), PathBlock::of(paths));
        self.held += block.memory(&first);
        self.blocks.insert(first, block);
    }

    /// Returns the layer of a path.
    pub fn get(&self, path: &TreePath) -> Option<u32> {
        let (_, block) = self.blocks.range::<TreePath, _>(..=path).next_back()?;
        let mut read = block.read();
        while let Some((found, layer)) = read.next() {
            if found == path.as_bytes() {
                return Some(layer);
            }
        }
        None
    }

    /// Removes a path.
    pub fn remove(&mut self, path: &TreePath) {
        self.change(path, |paths, at| _ = at.map(|at| paths.remove(at)));
    }

    /// Returns all paths in a directory, in order.
    pub fn below<'a>(&'a self, directory: &'a TreePath) -> impl Iterator<Item = (TreePath, u32)> + 'a {
        let from = self.blocks.range::<TreePath, _>(..=directory).next_back();
        let from = from.map_or(Bound::Unbounded, |(first, _)| Bound::Included(first));
        let paths = self.blocks.range::<TreePath, _>((from, Bound::Unbounded));
        let paths = paths.flat_map(|(_, block)| block.unpack());
        paths
            .skip_while(move |(path, _)| path <= directory)
            .take_while(move |(path, _)| path.is_in(directory))
    }

    /// Returns the last paths in a directory before `end`, in order, up to the size of a block. Empty if there are none.
    pub fn last_below(&self, directory: &TreePath, end: Bound<&TreePath>) -> Vec<(TreePath, u32)> {
        let is_before = |path: &TreePath| match end {
            Bound::Unbounded => true,
            Bound::Included(last) => path <= last,
            Bound::Excluded(end) => path < end,
        };
        let blocks = self.blocks.range::<TreePath, _>((Bound::Unbounded, end));
        let Some((_, block)) = blocks.into_iter().next_back() else { return Vec::new() };
        let mut paths = block.unpack();
        paths.retain(|(path, _)| path > directory && path.is_in(directory) && is_before(path));
        paths
    }

    /// Unpacks the block that a path belongs to, changes it, and packs it again.
    fn change(
        &mut self,
        path: &TreePath,
        change: impl FnOnce(&mut Vec<(TreePath, u32)>, Result<usize, usize>),
    ) {
        let near =
            self.blocks.range::<TreePath, _>(..=path).next_back().or_else(|| self.blocks.first_key_value());
        let Some(first) = near.map(|(first, _)| first.clone()) else { return };
        let Some(block) = self.blocks.remove(&first) else { return };
        self.held -= block.memory(&first);
        let mut paths = block.unpack();
        let at = paths.binary_search_by(|(found, _)| found.cmp(path));
        change(&mut paths, at);
        let most = if paths.len() > MAX_BLOCK { paths.len().div_ceil(2) } else { MAX_BLOCK };
        for part in paths.chunks(most) {
            self.insert_block(part);
        }
        let last = self.blocks.last_key_value().map(|(_, block)| block.unpack());
        self.last = last.and_then(|mut paths| paths.pop()).map(|(path, _)| path);
    }
}

impl PathBlock {
    /// Returns the memory of the block in the map, with its first path.
    fn memory(&self, first: &TreePath) -> usize {
        self.packed.len() + first.as_bytes().len() + BLOCK_MEMORY
    }

    fn of(paths: &[(TreePath, u32)]) -> Self {
        let mut block = Self::default();
        let mut before = &TreePath::root();
        for (path, layer) in paths {
            block.push(before, path, *layer);
            before = path;
        }
        block
    }

    fn push(&mut self, before: &TreePath, path: &TreePath, layer: u32) {
        // The first path of a block is stored as a whole.
        let before = if self.count == 0 { &[] } else { before.as_bytes() };
        let path = path.as_bytes();
        let shared = iter::zip(before, path).take_while(|(one, other)| one == other).count();
        self.push_number(shared);
        self.push_number(path.len() - shared);
        self.push_number(layer as usize);
        self.packed.extend_from_slice(&path[shared..]);
        self.count += 1;
        if self.count == MAX_BLOCK {
            self.packed.shrink_to_fit();
        }
    }

    /// Appends a number, seven bits in each byte; the highest bit is set if more follow.
    fn push_number(&mut self, mut number: usize) {
        while number > 0x7f {
            self.packed.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.packed.push(number as u8);
    }

    fn read(&self) -> BlockReader<'_> {
        BlockReader { packed: &self.packed, path: Vec::new() }
    }

    fn unpack(&self) -> Vec<(TreePath, u32)> {
        let mut paths = Vec::with_capacity(self.count + 1);
        let mut read = self.read();
        while let Some((path, layer)) = read.next() {
            // These bytes were a path when they were packed, so that this cannot fail.
            paths.extend(TreePath::parse(path).map(|path| (path, layer)));
        }
        paths
    }
}

/// A reader of the paths in a block.
struct BlockReader<'a> {
    packed: &'a [u8],
    path: Vec<u8>,
}

impl BlockReader<'_> {
    fn next(&mut self) -> Option<(&[u8], u32)> {
        let (shared, rest) = (self.read_number()?, self.read_number()?);
        let layer = u32::try_from(self.read_number()?).ok()?;
        let (rest, packed) = self.packed.split_at_checked(rest)?;
        self.packed = packed;
        self.path.truncate(shared);
        self.path.extend_from_slice(rest);
        Some((&self.path, layer))
    }

    fn read_number(&mut self) -> Option<usize> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let (byte, packed) = self.packed.split_first()?;
            self.packed = packed;
            number |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if *byte < 0x80 {
                return Some(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    /// Returns the paths in a directory, last first.
    fn backwards(made: &FrontCodedMap, directory: &TreePath) -> Vec<(TreePath, u32)> {
        let mut all: Vec<(TreePath, u32)> = Vec::new();
        let mut end = directory.end();
        loop {
            let some = made.last_below(directory, end.as_ref().map_or(Bound::Unbounded, Bound::Excluded));
            let Some((first, _)) = some.first() else { return all };
            end = Some(first.clone());
            all.extend(some.into_iter().rev());
        }
    }

    #[test]
    fn a_path_of_a_large_tree_takes_at_most_ten_bytes() {
        let mut made = FrontCodedMap::default();
        for directory in 0..100 {
            for file in 0..1000 {
                made.insert(&path(&format!("d{directory:03}/f{file:03}")), 1);
            }
        }
        let bytes: usize = made.blocks.values().map(|block| block.packed.capacity()).sum();
        let blocks = made.blocks.len();
        assert!(bytes < 100_000 * 10 && blocks < 100_000 / 31, "{bytes} in {blocks} blocks");
    }

    proptest! {
        #[test]
        fn a_front_coded_map_has_the_contents_of_an_ordinary_map(
            steps in prop::collection::vec(("[ab./]{0,4}", 0..4u32, 0..300u32), 0..400),
            ascending in any::<bool>(),
        ) {
            let (mut made, mut map) = (FrontCodedMap::default(), BTreeMap::new());
            for (number, (text, what, layer)) in steps.iter().enumerate() {
                let prefix = if ascending { format!("{:04}/", number / 3) } else { String::new() };
                let Some(path) = TreePath::parse(format!("{prefix}{text}")) else { continue };
                match what {
                    0 => {
                        made.remove(&path);
                        map.remove(&path);
                    }
                    _ => {
                        made.insert(&path, *layer);
                        map.insert(path.clone(), *layer);
                    }
                }
                prop_assert_eq!(made.get(&path), map.get(&path).copied());
                let below: Vec<_> = made.below(&path).collect();
                let mapped = map.iter().filter(|(other, _)| other.is_in(&path) && **other != path);
                prop_assert_eq!(backwards(&made, &path), below.iter().rev().cloned().collect::<Vec<_>>());
                prop_assert_eq!(below, mapped.map(|(path, layer)| (path.clone(), *layer)).collect::<Vec<_>>());
            }
            prop_assert!(made.blocks.values().all(|block| (1..=MAX_BLOCK).contains(&block.count)));
            let held = made.blocks.iter().map(|(first, block)| block.memory(first)).sum::<usize>();
            prop_assert_eq!(made.memory(), held);
            let all: Vec<_> = made.blocks.values().flat_map(PathBlock::unpack).collect();
            prop_assert_eq!(all, map.into_iter().collect::<Vec<_>>());
        }
    }
}
