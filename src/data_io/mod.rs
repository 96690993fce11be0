//! Compatibility with data-io, whose images have one layer with one file, `/data.tar.gz`, which holds the tree.
//!
//! [`pack`] makes such images. [`unpack`](crate::unpack::unpack()) recognises them, also for volumes of the plugin.

mod image;
mod pack;
mod unpack;

#[doc(hidden)]
pub use image::{archive_image, docker_layer};
pub use pack::pack;
pub use unpack::unpack_announced;
