//! Packs a directory into an image layout, and prints the name of the image.
//!
//! ```sh
//! cargo run --example pack_directory -- DIRECTORY LAYOUT TAG
//! ```

use std::error::Error;
use volio::{Access, Location, SourceSpec, pack, progress::Silent};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, layout, tag] = arguments.as_slice() else {
        return Err("usage: pack_directory DIRECTORY LAYOUT TAG".into());
    };
    let image: Location = format!("oci:{layout}:{tag}").parse()?;
    let destination = image.destination(&Access::default())?;
    let packed =
        pack::pack(&*destination, &[SourceSpec::new(directory)], &pack::Options::default(), &Silent)?;
    eprintln!("packed {} entries, {} bytes", packed.entries, packed.bytes);
    println!("{}", packed.address);
    Ok(())
}
