//! The rules of retention as arguments.

use clap::Args;
use volio::prune::{CalendarSpan, Period, Policy, Rule, RuleLimit};
use volio::{Error, Result};

/// The rules of retention. They have the names and the semantics of those of `restic forget`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Retention options")]
pub struct RetentionArgs {
    /// Keep the newest N images; with unlimited, all
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    keep_last: Option<RuleLimit>,

    /// Keep the newest image of each of the last N hours that have one
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    keep_hourly: Option<RuleLimit>,

    /// Keep the newest image of each of the last N days that have one
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    keep_daily: Option<RuleLimit>,

    /// Keep the newest image of each of the last N weeks that have one
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    keep_weekly: Option<RuleLimit>,

    /// Keep the newest image of each of the last N months that have one
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    keep_monthly: Option<RuleLimit>,

    /// Keep the newest image of each of the last N years that have one
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    keep_yearly: Option<RuleLimit>,

    /// Keep all images that are at most this much older than the newest: 1y6m, 14d, 36h; m stands for months
    #[arg(long, value_name = "SPAN")]
    keep_within: Option<CalendarSpan>,

    /// Keep the newest image of each hour within this span
    #[arg(long, value_name = "SPAN")]
    keep_within_hourly: Option<CalendarSpan>,

    /// Keep the newest image of each day within this span
    #[arg(long, value_name = "SPAN")]
    keep_within_daily: Option<CalendarSpan>,

    /// Keep the newest image of each week within this span
    #[arg(long, value_name = "SPAN")]
    keep_within_weekly: Option<CalendarSpan>,

    /// Keep the newest image of each month within this span
    #[arg(long, value_name = "SPAN")]
    keep_within_monthly: Option<CalendarSpan>,

    /// Keep the newest image of each year within this span
    #[arg(long, value_name = "SPAN")]
    keep_within_yearly: Option<CalendarSpan>,

    /// Keep the image with this tag in any case
    #[arg(long, value_name = "TAG")]
    keep_tag: Vec<String>,
}

impl RetentionArgs {
    /// Returns whether there is any rule.
    pub fn is_given(&self) -> bool {
        let policy = self.policy();
        !policy.rules.is_empty() || !policy.tags.is_empty()
    }

    /// Returns the rules.
    pub fn policy(&self) -> Policy {
        let within = |span: Option<CalendarSpan>| span.map(RuleLimit::Within);
        let rules = [
            (Period::Each, self.keep_last),
            (Period::Hour, self.keep_hourly),
            (Period::Day, self.keep_daily),
            (Period::Week, self.keep_weekly),
            (Period::Month, self.keep_monthly),
            (Period::Year, self.keep_yearly),
            (Period::Each, within(self.keep_within)),
            (Period::Hour, within(self.keep_within_hourly)),
            (Period::Day, within(self.keep_within_daily)),
            (Period::Week, within(self.keep_within_weekly)),
            (Period::Month, within(self.keep_within_monthly)),
            (Period::Year, within(self.keep_within_yearly)),
        ];
        let rules = rules.into_iter().filter_map(|(period, limit)| Some(Rule { period, limit: limit? }));
        Policy { rules: rules.collect(), tags: self.keep_tag.clone() }
    }
}

/// Parses the count of a rule.
fn count(text: &str) -> Result<RuleLimit> {
    match text {
        "unlimited" | "-1" => Ok(RuleLimit::Unlimited),
        _ => text.parse().map(RuleLimit::Count).map_err(|_| {
            Error::usage(format!("{text:?} is not a number of images"))
                .with_hint("write a number, or unlimited")
        }),
    }
}
