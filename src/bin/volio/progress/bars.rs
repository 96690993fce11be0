//! Bars for a terminal: one for each task that is going on, and below them one for all together.

use super::Sum;
use crate::{output, quantity};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use volio::progress::{Progress, Task};

/// How often a bar moves that has nothing to tell: a program that waits for a server must not look dead.
const TICK: Duration = Duration::from_millis(200);
/// The most of a name that is shown; with the figures, a line of 80 columns is full.
const NAME: &str = "{msg:20!}";

/// The bars. What they leave on the terminal when they are dropped is nothing but warnings.
pub struct Bars {
    multi: MultiProgress,
    whole: ProgressBar,
    sum: Arc<Sum>,
}

impl Bars {
    pub fn new() -> Self {
        let whole = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        whole.set_message("total");
        let multi = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self { multi, whole, sum: Arc::default() }
    }
}

impl Progress for Bars {
    fn begin(&self, what: &str, total: Option<u64>) -> Box<dyn Task> {
        let begun = self.sum.begin(total);
        // A single task is its own total.
        if begun == 2 {
            self.multi.add(self.whole.clone());
            self.whole.enable_steady_tick(TICK);
        }
        fit(&self.whole, self.sum.total());
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        bar.set_message(output::printable(what).into_owned());
        fit(&bar, total);
        let bar = match begun {
            1 => self.multi.add(bar),
            _ => self.multi.insert_before(&self.whole, bar),
        };
        bar.enable_steady_tick(TICK);
        Box::new(Bar { bar, whole: self.whole.clone(), sum: Arc::clone(&self.sum), total })
    }

    fn warn(&self, message: &str) {
        self.multi.suspend(|| output::warning(message));
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.whole.finish_and_clear();
        // What cannot be cleared stays; there is nobody to tell.
        let _ = self.multi.clear();
    }
}

/// The bar of one task.
struct Bar {
    bar: ProgressBar,
    whole: ProgressBar,
    sum: Arc<Sum>,
    total: Option<u64>,
}

impl Task for Bar {
    fn advance(&self, bytes: u64) {
        self.sum.advance(bytes);
        self.bar.inc(bytes);
        self.whole.inc(bytes);
    }

    fn skip(&self) {
        self.sum.skip(self.total);
        fit(&self.whole, self.sum.total());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.sum.end();
        // Done with, and of no more interest: dozens of full bars would push the ones that move off the screen.
        self.bar.finish_and_clear();
    }
}

/// Gives a bar the length and the looks that fit what is known.
fn fit(bar: &ProgressBar, total: Option<u64>) {
    let template = match total {
        Some(_) => format!("{NAME} [{{bar:16}}] {{percent:>3}} % {{done:>10}} {{rate:>12}} {{left:>12}}"),
        None => format!("{NAME} {{spinner}} {{done:>10}} {{rate:>12}} {{elapsed:>8}}"),
    };
    match total {
        Some(total) => bar.set_length(total),
        None => bar.unset_length(),
    }
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(
        style
            .progress_chars("=> ")
            .tick_chars("-\\|/ ")
            .with_key("done", |state: &ProgressState, out: &mut dyn Write| {
                let _ = out.write_str(&quantity::bytes(state.pos()));
            })
            .with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
                let _ = write!(out, "{}/s", quantity::bytes(state.per_sec() as u64));
            })
            .with_key("left", |state: &ProgressState, out: &mut dyn Write| {
                let _ = write!(out, "{} left", quantity::clock(state.eta()));
            }),
    );
}
