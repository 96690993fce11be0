//! Retention: what `prune` keeps and removes, in a registry and in a layout. The rules themselves are tested in
//! `src/prune/policy`.
//!
//! | what goes wrong in programs of this kind | test |
//! |---|---|
//! | the new image is bad, and the old ones are removed | `layout::an_image_that_is_not_complete_…` |
//! | a typo in a rule removes everything | `registry::rules_that_keep_nothing_…` |
//! | images with other names are never removed, or removed by mistake | `registry::tags_of_another_form_…` |
//! | nobody knows why something was kept | reasons in all tests |
//! | two tags on one image, and the registry removes images only | `registry::an_image_with_a_tag_that_stays_…` |
//! | nothing changed, and tags are added for ever | `layout::older_tags_of_an_image_…` |

mod killed;
mod layout;
mod many;
mod pack;
mod refusals;
mod registry;

use volio::TagTemplate;
use volio::prune::{Fate, Options, Period, Policy, Pruned, Rule, RuleLimit};

/// Returns options that keep the newest images of a template, at a moment after all images of these tests.
fn keep_last(count: u32) -> Options {
    let rules = vec![Rule { period: Period::Each, limit: RuleLimit::Count(count) }];
    let options = Options::new(Policy { rules, tags: Vec::new() }, "2040-01-01T00:00:00Z".parse().unwrap());
    Options { template: Some(template()), ..options }
}

fn template() -> TagTemplate {
    "d-{date}".parse().unwrap()
}

/// Returns what happened to each tag, in words.
fn fates(pruned: &Pruned) -> Vec<String> {
    let fate = |fate: Fate| if fate == Fate::Keep { "keep" } else { "remove" };
    let reasons = |reasons: &[volio::prune::Reason]| {
        reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    pruned
        .tags
        .iter()
        .map(|tag| format!("{} {}: {}", fate(tag.fate), tag.tag, reasons(&tag.reasons)))
        .collect()
}
