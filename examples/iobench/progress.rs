//! A progress bar, where somebody looks on.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar of `turns` on standard error, or one that shows nothing.
pub(crate) fn bar(turns: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(turns), ProgressDrawTarget::stderr());
    // The template is a constant; a mistake in it costs its looks only.
    if let Ok(style) = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    // Seldom, because what draws it is CPU time of the process that is measured.
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
