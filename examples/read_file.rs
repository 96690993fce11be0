//! Lists an image and writes one of its files to standard output. Of an image that volio packed, only the table of contents and
//! the part with the file are fetched.
//!
//! ```sh
//! cargo run --example read_file -- registry.example/data:v1 /etc/hosts
//! ```

use std::error::Error;
use std::io;
use volio::{Access, Location, ReadOptions, TreePath, cat, list, progress::Silent};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [image, path] = arguments.as_slice() else { return Err("usage: read_file IMAGE PATH".into()) };
    let path = TreePath::parse(path.as_bytes()).ok_or("PATH leads out of the image")?;
    // Credentials, certificates and proxies are found where docker, podman and curl have them.
    let access = Access::from_environment(&std::env::vars_os().collect())?;
    let source = image.parse::<Location>()?.source(&access)?;

    let tree = list::list(&*source, &ReadOptions::default(), &Silent)?;
    for (entry, ()) in tree.below(&TreePath::root()) {
        eprintln!("{}", entry.path);
    }
    cat::cat(&*source, &[path], &ReadOptions::default(), &mut io::stdout(), &Silent)?;
    Ok(())
}
