//! Paths that were made, packed: a million of them are some 15 MB, where a map of them takes 80.

use crate::tree::TreePath;
use std::collections::BTreeMap;
use std::iter;
use std::ops::Bound;

/// The most paths of one block: to look for one is to read so many.
const MOST: usize = 32;
/// What a block takes in the map beside its bytes and those of its first path.
const IN_MAP: usize = 128;

/// Paths in their order, each with the number of a layer.
#[derive(Default)]
pub(super) struct Made {
    /// By their first paths; none is empty.
    blocks: BTreeMap<TreePath, Block>,
    /// The last path of all, behind which the next one mostly comes.
    last: Option<TreePath>,
    /// How many bytes the blocks take.
    held: usize,
}

/// Some paths in their order: of each what it does not share with the one before it.
#[derive(Default)]
struct Block {
    count: usize,
    packed: Vec<u8>,
}

impl Made {
    /// Notes a path, and forgets which layer had it before.
    pub fn put(&mut self, path: &TreePath, layer: u32) {
        if self.last.as_ref().is_some_and(|last| last >= path) {
            return self.change(path, |paths, at| match at {
                Ok(at) => paths[at].1 = layer,
                Err(at) => paths.insert(at, (path.clone(), layer)),
            });
        }
        let before = self.last.replace(path.clone()).unwrap_or_default();
        match self.blocks.last_entry() {
            Some(mut block) if block.get().count < MOST => {
                let size = block.get().packed.len();
                block.get_mut().push(&before, path, layer);
                self.held += block.get().packed.len() - size;
            }
            _ => self.enter(&[(path.clone(), layer)]),
        }
    }

    /// How many bytes of memory are held.
    pub fn memory(&self) -> usize {
        self.held
    }

    fn enter(&mut self, paths: &[(TreePath, u32)]) {
        let (first, block) = (paths[0].0.clone(), Block::of(paths));
        self.held += block.memory(&first);
        self.blocks.insert(first, block);
    }

    /// The layer that a path was noted with.
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

    /// Forgets a path.
    pub fn remove(&mut self, path: &TreePath) {
        self.change(path, |paths, at| _ = at.map(|at| paths.remove(at)));
    }

    /// All that is in a directory, in order.
    pub fn below<'a>(&'a self, directory: &'a TreePath) -> impl Iterator<Item = (TreePath, u32)> + 'a {
        let from = self.blocks.range::<TreePath, _>(..=directory).next_back();
        let from = from.map_or(Bound::Unbounded, |(first, _)| Bound::Included(first));
        let paths = self.blocks.range::<TreePath, _>((from, Bound::Unbounded));
        let paths = paths.flat_map(|(_, block)| block.unpack());
        paths
            .skip_while(move |(path, _)| path <= directory)
            .take_while(move |(path, _)| path.is_in(directory))
    }

    /// Some of what is in a directory and before `end`, in order: the last of it, up to as many paths as one block has.
    /// None when nothing is there.
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

    /// Changes the paths among which one is or would be.
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
        let most = if paths.len() > MOST { paths.len().div_ceil(2) } else { MOST };
        for part in paths.chunks(most) {
            self.enter(part);
        }
        let last = self.blocks.last_key_value().map(|(_, block)| block.unpack());
        self.last = last.and_then(|mut paths| paths.pop()).map(|(path, _)| path);
    }
}

impl Block {
    /// What it takes in the map, with its first path.
    fn memory(&self, first: &TreePath) -> usize {
        self.packed.len() + first.as_bytes().len() + IN_MAP
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
        // The first one is read without the one before it.
        let before = if self.count == 0 { &[] } else { before.as_bytes() };
        let path = path.as_bytes();
        let shared = iter::zip(before, path).take_while(|(one, other)| one == other).count();
        self.number(shared);
        self.number(path.len() - shared);
        self.number(layer as usize);
        self.packed.extend_from_slice(&path[shared..]);
        self.count += 1;
        if self.count == MOST {
            self.packed.shrink_to_fit();
        }
    }

    /// Seven bits a byte, and the highest one where more follow.
    fn number(&mut self, mut number: usize) {
        while number > 0x7f {
            self.packed.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.packed.push(number as u8);
    }

    fn read(&self) -> Reader<'_> {
        Reader { packed: &self.packed, path: Vec::new() }
    }

    fn unpack(&self) -> Vec<(TreePath, u32)> {
        let mut paths = Vec::with_capacity(self.count + 1);
        let mut read = self.read();
        while let Some((path, layer)) = read.next() {
            // It was a path when it was packed.
            paths.extend(TreePath::parse(path).map(|path| (path, layer)));
        }
        paths
    }
}

/// Reads a block path by path.
struct Reader<'a> {
    packed: &'a [u8],
    path: Vec<u8>,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<(&[u8], u32)> {
        let (shared, rest) = (self.number()?, self.number()?);
        let layer = u32::try_from(self.number()?).ok()?;
        let (rest, packed) = self.packed.split_at_checked(rest)?;
        self.packed = packed;
        self.path.truncate(shared);
        self.path.extend_from_slice(rest);
        Some((&self.path, layer))
    }

    fn number(&mut self) -> Option<usize> {
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

    /// What is in a directory, last first.
    fn backwards(made: &Made, directory: &TreePath) -> Vec<(TreePath, u32)> {
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
    fn a_path_of_a_large_tree_takes_ten_bytes_beside_its_part_of_a_block() {
        let mut made = Made::default();
        for directory in 0..100 {
            for file in 0..1000 {
                made.put(&path(&format!("d{directory:03}/f{file:03}")), 1);
            }
        }
        let bytes: usize = made.blocks.values().map(|block| block.packed.capacity()).sum();
        let blocks = made.blocks.len();
        assert!(bytes < 100_000 * 10 && blocks < 100_000 / 31, "{bytes} in {blocks} blocks");
    }

    proptest! {
        #[test]
        fn what_is_packed_says_what_a_map_says(
            steps in prop::collection::vec(("[ab./]{0,4}", 0..4u32, 0..300u32), 0..400),
            ascending in any::<bool>(),
        ) {
            let (mut made, mut map) = (Made::default(), BTreeMap::new());
            for (number, (text, what, layer)) in steps.iter().enumerate() {
                let prefix = if ascending { format!("{:04}/", number / 3) } else { String::new() };
                let Some(path) = TreePath::parse(format!("{prefix}{text}")) else { continue };
                match what {
                    0 => {
                        made.remove(&path);
                        map.remove(&path);
                    }
                    _ => {
                        made.put(&path, *layer);
                        map.insert(path.clone(), *layer);
                    }
                }
                prop_assert_eq!(made.get(&path), map.get(&path).copied());
                let below: Vec<_> = made.below(&path).collect();
                let mapped = map.iter().filter(|(other, _)| other.is_in(&path) && **other != path);
                prop_assert_eq!(backwards(&made, &path), below.iter().rev().cloned().collect::<Vec<_>>());
                prop_assert_eq!(below, mapped.map(|(path, layer)| (path.clone(), *layer)).collect::<Vec<_>>());
            }
            prop_assert!(made.blocks.values().all(|block| (1..=MOST).contains(&block.count)));
            let held = made.blocks.iter().map(|(first, block)| block.memory(first)).sum::<usize>();
            prop_assert_eq!(made.memory(), held);
            let all: Vec<_> = made.blocks.values().flat_map(Block::unpack).collect();
            prop_assert_eq!(all, map.into_iter().collect::<Vec<_>>());
        }
    }
}
