//! How a followed job is shown: a live block on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::state::{JobState, News, PodView};
use crate::output::{self, Colour, paint};

/// The view.
pub(crate) enum View {
    /// Lines, as they come; steps at most once a tenth of the way.
    Plain { shown_tenth: u64 },
    /// A line a pod and a bar.
    Live(Box<Live>),
}

/// The parts of the live view.
pub(crate) struct Live {
    block: MultiProgress,
    pods: BTreeMap<String, ProgressBar>,
    steps: ProgressBar,
    colours: bool,
}

impl View {
    /// Live when standard error is a terminal.
    pub(crate) fn choose() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Plain { shown_tenth: 0 };
        }
        let block = MultiProgress::new();
        let steps = block.add(ProgressBar::no_length());
        steps.set_style(style("{bar:40} {pos}/{len} steps  {msg}  {elapsed}"));
        steps.enable_steady_tick(Duration::from_millis(200));
        Self::Live(Box::new(Live {
            block,
            pods: BTreeMap::new(),
            steps,
            colours: output::colours_on_stderr(),
        }))
    }

    /// Something happened that deserves a line of its own.
    pub(crate) fn say(&self, line: &str) {
        match self {
            Self::Plain { .. } => output::note(line),
            // A line above the block; the terminal is gone when it cannot be written.
            Self::Live(live) => drop(live.block.println(line)),
        }
    }

    /// Shows the new state and its news.
    pub(crate) fn update(&mut self, state: &JobState, news: &News) {
        match self {
            Self::Plain { shown_tenth } => {
                for line in news.iter().filter(|line| due(state, line, shown_tenth)) {
                    output::note(line);
                }
            }
            Self::Live(live) => live.update(state),
        }
    }

    /// Removes the live block; what is said from now on are plain lines.
    pub(crate) fn finish(&mut self) {
        if let Self::Live(live) = self {
            // A bar that is dropped while it counts as running is drawn once more, below what came after it.
            for bar in live.pods.values().chain([&live.steps]) {
                bar.finish_and_clear();
            }
            drop(live.block.clear());
            *self = Self::Plain { shown_tenth: 0 };
        }
    }
}

/// Whether a line is shown: steps only when another tenth of the way is done.
fn due(state: &JobState, line: &str, shown_tenth: &mut u64) -> bool {
    let Some((done, total)) = state.steps.filter(|(_, total)| *total > 0) else { return true };
    if !line.starts_with("step ") {
        return true;
    }
    let tenth = done * 10 / total;
    let further = tenth > *shown_tenth;
    *shown_tenth = tenth.max(*shown_tenth);
    further
}

impl Live {
    fn update(&mut self, state: &JobState) {
        self.pods.retain(|name, bar| {
            let there = state.pods.contains_key(name);
            if !there {
                bar.finish_and_clear();
            }
            there
        });
        for (name, pod) in &state.pods {
            let bar = self.pods.entry(name.clone()).or_insert_with(|| {
                let bar = self.block.insert_before(&self.steps, ProgressBar::new_spinner());
                bar.set_style(style("{msg}"));
                bar
            });
            bar.set_message(line(name, pod, self.colours));
        }
        if let Some((done, total)) = state.steps {
            self.steps.set_length(total);
            self.steps.set_position(done);
        }
        let loss = state.loss.as_ref().map(|loss| format!("loss {loss}")).unwrap_or_default();
        self.steps.set_message(loss);
    }
}

fn line(name: &str, pod: &PodView, colours: bool) -> String {
    let colour = match pod.state.as_str() {
        "Running" | "Succeeded" => Colour::Green,
        "Pending" | "Terminating" => Colour::Yellow,
        _ => Colour::Red,
    };
    let place = match (&pod.node, &pod.gpus) {
        (Some(node), Some(gpus)) => format!("{node} GPU {gpus}"),
        (Some(node), None) => node.clone(),
        _ => String::new(),
    };
    let why = pod.message.as_deref().unwrap_or_default();
    format!("{name:<28} {} {place:<16} {why}", paint(&format!("{:<12}", pod.state), colour, colours))
}

fn style(template: &str) -> ProgressStyle {
    // A template of ours that does not parse would only lose the decoration.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_steps_are_thinned_to_tenths() {
        let mut state = JobState::default();
        let mut shown = 0;
        let lines = (1..=100).filter(|step| {
            state.steps = Some((*step, 100));
            due(&state, "step x", &mut shown)
        });
        assert_eq!(lines.count(), 10);
        assert!(due(&state, "d-master-0 Succeeded", &mut shown));
    }
}
