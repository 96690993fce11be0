//! Moves directories in and out of OCI registries, without Docker.
//!
//! A **tree** is packed into a **layer**; layers make an **image**; images travel between **transports**.
//!
//! The nouns are modules: [`tree`], [`layer`], [`image`], [`transport`], with the specification's words in [`oci`]
//! and bytes in motion in [`stream`]. So are the verbs: [`pack`], [`unpack`], [`copy`], [`list`], [`cat`], [`diff`],
//! [`inspect`] and [`verify`]. Content (tree, layer, image) and place (transport) know nothing of each other and meet in the verbs
//! only, and in [`partial`], by which several of them read an image in part.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod cat;
pub mod copy;
pub mod diff;
mod disk;
pub mod error;
pub mod image;
pub mod inspect;
pub mod layer;
pub mod list;
pub mod oci;
pub mod pack;
pub mod partial;
pub mod plugin;
pub mod progress;
pub mod stream;
pub mod transport;
pub mod tree;
pub mod unpack;
pub mod verify;

pub use error::{Error, Result};
