//! A progress bar, where somebody looks on.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use polyaio::FileKind;

use crate::endpoint::Endpoint;

/// A bar on standard error, or one that shows nothing.
pub(crate) fn bar(visible: bool, source: &Endpoint, destination: &Endpoint) -> ProgressBar {
    // What is copied to a terminal is worth more than the bar in its middle.
    let to_terminal = destination.file.facts().kind == FileKind::Tty;
    if !visible || to_terminal || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let known = source.positioned.then_some(source.len);
    let bar = ProgressBar::with_draw_target(known, ProgressDrawTarget::stderr());
    let template = match known {
        Some(_) => "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}",
        None => "{msg} {spinner} {bytes} {binary_bytes_per_sec}",
    };
    // The templates are constants; a mistake in one costs its looks only.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(source.name("-"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
