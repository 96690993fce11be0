//! Layers under one name: what makes a set of layers an image.

mod builder;
mod platform;

pub use builder::{Built, Description};
pub use platform::{DEPTH_LIMIT, DOCUMENTS_LIMIT, Offer, Selected, manifests, offers, ranked, select};
