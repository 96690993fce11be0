//! The long help of the commands that have much to say.

mod copy;
mod diff;
mod ls;
mod pack;
mod unpack;
