//! The options of `volio pack` for the documents of the image.

use crate::args::{AbsolutePath, KeyValue, Words};
use clap::Args;
use volio::{ContainerConfig, Description, Platform};

/// Options for the image's documents.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Image options")]
pub struct ImageArgs {
    /// Make the image for these platforms [default: linux/amd64,linux/arm64]
    #[arg(long = "platform", value_name = "OS/ARCH", value_delimiter = ',')]
    platforms: Vec<Platform>,

    /// Set a label in the image's configuration
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<KeyValue>,

    /// Set an annotation on the image's manifests and index
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    annotations: Vec<KeyValue>,

    /// The program that a container runs: one word, or a JSON array of words
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    entrypoint: Option<Words>,

    /// The program's arguments, written as --entrypoint
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    cmd: Option<Words>,

    /// Set an environment variable for containers
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<KeyValue>,

    /// The user that containers run as
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,

    /// The directory that containers start in
    #[arg(long, value_name = "DIR")]
    workdir: Option<AbsolutePath>,
}

impl ImageArgs {
    /// Returns the description of the image. If a key is given twice, the last value counts.
    pub fn describe(self) -> Description {
        let words = |words: Option<Words>| words.map(|words| words.0).unwrap_or_default();
        let map = |pairs: Vec<KeyValue>| pairs.into_iter().map(|pair| (pair.key, pair.value)).collect();
        Description {
            platforms: self.platforms,
            labels: map(self.labels),
            annotations: map(self.annotations),
            execution: ContainerConfig {
                user: self.user,
                env: variables(self.env),
                entrypoint: words(self.entrypoint),
                cmd: words(self.cmd),
                working_dir: self.workdir.map(|path| path.0),
                ..ContainerConfig::default()
            },
            ..Description::default()
        }
    }
}

/// Returns environment variables in the order of their first occurrence, each once with its last value.
fn variables(pairs: Vec<KeyValue>) -> Vec<String> {
    let mut variables: Vec<KeyValue> = Vec::with_capacity(pairs.len());
    for pair in pairs {
        match variables.iter_mut().find(|known| known.key == pair.key) {
            Some(known) => known.value = pair.value,
            None => variables.push(pair),
        }
    }
    variables.into_iter().map(|pair| format!("{}={}", pair.key, pair.value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_set_twice_has_its_last_value() {
        let pairs = ["A=1", "B=2", "A=3"].map(|text| text.parse().unwrap());
        assert_eq!(variables(pairs.into()), ["A=3", "B=2"]);
    }
}
