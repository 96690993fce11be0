//! Bars for a terminal: one for each current task, and below them one for the total.

use super::{Show, Totals};
use crate::{human, output};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use volio::progress::{Progress, Task, TaskInfo};

/// The time between two redraws of a bar without progress, which show that the program is alive.
const TICK: Duration = Duration::from_millis(200);
/// The width of a name. With the figures, it fills a line of 80 columns.
const NAME_TEMPLATE: &str = "{msg:22!}";

/// Progress as bars. They are removed from the terminal when they are finished; warnings stay.
pub struct Bars {
    multi: MultiProgress,
    all: Arc<TotalBar>,
    is_finished: AtomicBool,
}

/// The bar of all tasks together.
struct TotalBar {
    totals: Totals,
    bar: ProgressBar,
    /// False until there is a second task: the bar of a single task is the total.
    is_shown: Mutex<bool>,
}

/// The bar of one task.
struct TaskBar {
    bar: ProgressBar,
    all: Arc<TotalBar>,
    total: Option<u64>,
}

impl Bars {
    pub fn new() -> Self {
        let bar = hidden(None);
        bar.set_message("total");
        let multi = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self {
            multi,
            all: Arc::new(TotalBar { totals: Totals::default(), bar, is_shown: Mutex::new(false) }),
            is_finished: AtomicBool::new(false),
        }
    }

    /// Adds the bar of a task above the total.
    fn add(&self, bar: ProgressBar) -> ProgressBar {
        let mut is_shown = self.all.is_shown.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_shown && self.all.totals.overall().begun > 1 {
            *is_shown = true;
            self.multi.add(self.all.bar.clone());
            self.all.bar.enable_steady_tick(TICK);
        }
        let bar = if *is_shown { self.multi.insert_before(&self.all.bar, bar) } else { self.multi.add(bar) };
        bar.enable_steady_tick(TICK);
        bar
    }
}

impl Progress for Bars {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        let total = info.total;
        self.all.totals.begin(total);
        self.all.restyle();
        let bar = hidden(total);
        bar.set_message(output::printable(&info.to_string()).into_owned());
        Box::new(TaskBar { bar: self.add(bar), all: Arc::clone(&self.all), total })
    }

    fn warn(&self, message: &str) {
        if !self.is_finished.load(Ordering::Relaxed) {
            self.multi.suspend(|| output::warning(message));
        }
    }
}

impl Show for Bars {
    fn finish(&self) {
        self.is_finished.store(true, Ordering::Relaxed);
        self.all.bar.finish_and_clear();
        // If clearing fails, the bars stay on the screen, which is harmless.
        let _ = self.multi.clear();
    }
}

impl TotalBar {
    fn restyle(&self) {
        set_total(&self.bar, self.totals.overall().total);
    }
}

impl Task for TaskBar {
    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
        self.all.totals.advance(self.total, bytes);
        self.all.bar.set_position(self.all.totals.overall().done);
    }

    fn skip(&self) {
        self.all.totals.skip(self.total);
        self.all.restyle();
    }
}

impl Drop for TaskBar {
    fn drop(&mut self) {
        self.all.totals.end(self.total);
        // Dozens of full bars would push the current ones off the screen.
        self.bar.finish_and_clear();
    }
}

/// Creates a bar that is not on the screen yet.
fn hidden(total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
    set_total(&bar, total);
    bar
}

/// Sets the length and the style of a bar with or without a total.
fn set_total(bar: &ProgressBar, total: Option<u64>) {
    let template = match total {
        Some(_) => {
            format!("{NAME_TEMPLATE} [{{bar:12}}] {{percent:>3}} % {{done:>10}} {{rate:>12}} {{left:>10}}")
        }
        None => format!("{NAME_TEMPLATE} {{spinner}}{:19} {{done:>10}} {{rate:>12}} {{time:>10}}", ""),
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
                let _ = out.write_str(&human::bytes(state.pos()));
            })
            .with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
                let _ = write!(out, "{}/s", human::bytes(state.per_sec() as u64));
            })
            .with_key("time", |state: &ProgressState, out: &mut dyn Write| {
                let _ = out.write_str(&human::clock(state.elapsed()));
            })
            .with_key("left", |state: &ProgressState, out: &mut dyn Write| {
                let _ = write!(out, "{} left", human::clock(state.eta()));
            }),
    );
}
