//! Images of what has changed: random trees and random changes, packed, unpacked and compared by programs that share no code
//! with volio.
//!
//! `VOLIO_TEST_SEED` repeats the seed that a failed test names, and `VOLIO_TEST_CASES` runs more seeds.
//!
//! | what goes wrong in programs of this kind | test |
//! |---|---|
//! | a change of metadata alone is missed: mode, owner, attribute, ACL | `following::every_kind_of_change_…` |
//! | content changed, size and time restored | `pack::a_change_that_size_and_time_do_not_show_…`, `following::local_changes_that_size_…` |
//! | a file that changed twice within a tick of the clock, and times in the future | `changes::rewrite_in_the_same_tick`, in all chains |
//! | other inode numbers, another order of names, another device, cores | `digests` |
//! | deletions outside of the subtree that is restored | `following::a_part_of_the_image_…` |
//! | a state of another run is needed, or changes the result | `pack::no_state_of_an_earlier_pack_is_needed` |
//! | opaque whiteouts, whiteouts beside the entries of their layer | `foreign`, `following::directories_follow_images_…` |
//! | names that begin with `.wh.` | `pack::a_name_of_a_whiteout_…` |
//! | hard links that join, split, grow and lose their first path | `structure::{link, split, join, delete_first_name}`, in all chains |
//! | every kind of entry becomes every other, a directory becomes a link to itself | `structure::{retype, replace_…}`, in all chains |
//! | sparse files expand | `judge::assert_identical_with_holes`, in all tests of syncs |
//! | a run that is killed leaves a mixture that counts as complete | `killed`, `killed_sync` |
//! | a change of one file moves others between layers | `pack::a_change_of_one_file_…` |
//! | empty and sticky directories get lost or other attributes | `tree::RandomTree`, in all chains |
//! | nothing changed, and a layer is added | `pack::nothing_changed_…` |
//! | other engines show another tree | `engines::incremental` |

mod chain;
pub mod changes;
mod digests;
mod following;
mod foreign;
mod full;
mod generator;
pub mod judge;
pub mod killed;
mod killed_sync;
mod pack;
pub mod place;
pub mod random;
mod structure;
mod sync;
pub mod tree;
