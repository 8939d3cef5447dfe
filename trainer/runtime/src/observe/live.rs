//! One line on a terminal that says where the training stands.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::Progress;

/// What the line looks like; on terminals without colours, and where NO_COLOR is set, the colours are left out.
const TEMPLATE: &str = "{prefix:.bold} {bar:16.cyan/blue} {pos}/{len}  {msg}  {eta:.dim} left";

/// The line, which follows the training.
#[derive(Debug)]
pub(crate) struct Live {
    bar: ProgressBar,
    /// Where the line appears once there is one.
    target: Option<ProgressDrawTarget>,
}

impl Live {
    /// None where standard output is no terminal, or one that cannot rewrite a line.
    pub(crate) fn on_terminal() -> Option<Self> {
        let target = ProgressDrawTarget::stdout();
        (!target.is_hidden()).then(|| Self::on(target))
    }

    fn on(target: ProgressDrawTarget) -> Self {
        // Nothing is shown before there is something to show.
        let bar = ProgressBar::hidden();
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        Self { bar, target: Some(target) }
    }

    pub(crate) fn show(&mut self, progress: &Progress) {
        self.bar.set_length(progress.steps_total);
        self.bar.set_prefix(format!("epoch {}", progress.epoch));
        self.bar.set_message(message(progress));
        self.bar.set_position(progress.step);
        if let Some(target) = self.target.take() {
            // Steps that a checkpoint spared say nothing about how long the others take.
            self.bar.reset_eta();
            self.bar.set_draw_target(target);
            self.bar.force_draw();
        }
    }

    /// Writes something else above the line.
    pub(crate) fn above<R>(&self, write: impl FnOnce() -> R) -> R {
        self.bar.suspend(write)
    }

    /// Takes the line away.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // What went wrong is told below where the training stood.
        if !self.bar.is_finished() {
            self.bar.abandon();
        }
    }
}

fn message(progress: &Progress) -> String {
    let Progress { loss, train_accuracy, samples_per_second, .. } = progress;
    let accuracy = 100.0 * train_accuracy;
    format!("loss {loss:.4}  accuracy {accuracy:.1}%  {samples_per_second:.0} samples/s")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use indicatif::TermLike;
    use parking_lot::Mutex;

    use super::*;

    /// A terminal of one line.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            120
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().clear();
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_line_follows_the_training_and_goes() {
        let screen = Screen::default();
        let mut live = Live::on(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        live.show(&Progress { step: 150, ..Progress::example() });
        let shown = screen.0.lock().trim_end().to_owned();
        let (before, after) = shown.split_once(" 150/600  ").unwrap_or_else(|| panic!("{shown:?}"));
        assert_eq!(before, "epoch 3 ━━━━╸───────────");
        assert!(after.starts_with("loss 0.2134  accuracy 93.8%  51235 samples/s  "), "{shown}");
        assert!(after.ends_with(" left"), "{shown}");
        assert_eq!(live.above(|| screen.0.lock().clone()), "", "the line makes room for others");
        live.end();
        assert_eq!(screen.0.lock().trim_end(), "");
    }
}
