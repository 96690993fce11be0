//! Bars for a terminal: one for each task that is going on, and below them one for all together.

use super::Sum;
use crate::{output, quantity};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use volio::progress::{Progress, Task};

/// How often a bar moves that has nothing to tell: a program that waits for a server must not look dead.
const TICK: Duration = Duration::from_millis(200);
/// The most of a name that is shown; with the figures, a line of 80 columns is full.
const NAME: &str = "{msg:22!}";

/// The bars. What they leave on the terminal when they are dropped is nothing but warnings.
pub struct Bars {
    multi: MultiProgress,
    all: Arc<All>,
}

/// All tasks together, and their bar.
struct All {
    sum: Sum,
    bar: ProgressBar,
    /// Whether the bar is on the screen: a single task is its own total.
    is_shown: Mutex<bool>,
}

/// The bar of one task.
struct Bar {
    bar: ProgressBar,
    all: Arc<All>,
    total: Option<u64>,
}

impl Bars {
    pub fn new() -> Self {
        let bar = hidden(None);
        bar.set_message("total");
        let multi = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self { multi, all: Arc::new(All { sum: Sum::default(), bar, is_shown: Mutex::new(false) }) }
    }

    /// Puts the bar of one more task above the one of all.
    fn add(&self, bar: ProgressBar) -> ProgressBar {
        let mut is_shown = self.all.is_shown.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_shown && self.all.sum.whole().begun > 1 {
            *is_shown = true;
            self.multi.add(self.all.bar.clone());
            self.all.bar.enable_steady_tick(TICK);
        }
        let bar = match *is_shown {
            true => self.multi.insert_before(&self.all.bar, bar),
            false => self.multi.add(bar),
        };
        bar.enable_steady_tick(TICK);
        bar
    }
}

impl Progress for Bars {
    fn begin(&self, what: &str, total: Option<u64>) -> Box<dyn Task> {
        self.all.sum.begin(total);
        self.all.fit();
        let bar = hidden(total);
        bar.set_message(output::printable(what).into_owned());
        Box::new(Bar { bar: self.add(bar), all: Arc::clone(&self.all), total })
    }

    fn warn(&self, message: &str) {
        self.multi.suspend(|| output::warning(message));
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.all.bar.finish_and_clear();
        // What cannot be cleared stays; there is nobody to tell.
        let _ = self.multi.clear();
    }
}

impl All {
    fn fit(&self) {
        fit(&self.bar, self.sum.whole().total);
    }
}

impl Task for Bar {
    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
        self.all.sum.advance(self.total, bytes);
        self.all.bar.set_position(self.all.sum.whole().done);
    }

    fn skip(&self) {
        self.all.sum.skip(self.total);
        self.all.fit();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.all.sum.end(self.total);
        // Done with, and of no more interest: dozens of full bars would push the ones that move off the screen.
        self.bar.finish_and_clear();
    }
}

/// A bar that is not on the screen yet.
fn hidden(total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
    fit(&bar, total);
    bar
}

/// Gives a bar the length and the looks that fit what is known.
fn fit(bar: &ProgressBar, total: Option<u64>) {
    let template = match total {
        Some(_) => format!("{NAME} [{{bar:12}}] {{percent:>3}} % {{done:>10}} {{rate:>12}} {{left:>10}}"),
        None => format!("{NAME} {{spinner}}{:19} {{done:>10}} {{rate:>12}} {{time:>10}}", ""),
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
            .with_key("time", |state: &ProgressState, out: &mut dyn Write| {
                let _ = out.write_str(&quantity::clock(state.elapsed()));
            })
            .with_key("left", |state: &ProgressState, out: &mut dyn Write| {
                let _ = write!(out, "{} left", quantity::clock(state.eta()));
            }),
    );
}
