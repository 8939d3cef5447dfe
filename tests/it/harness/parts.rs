//! A cluster whose parts are processes of their own, so that each can be killed alone.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::Value;

use super::home::{family, wait_until_ended};
use super::program::{Finished, Program, muster_path};
use super::{Home, cluster};

/// A process of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Server,
    Node,
    Trainer,
    Scheduler,
    BuiltIn,
}

impl Part {
    pub(crate) const ALL: [Self; 5] =
        [Self::Server, Self::Node, Self::Trainer, Self::Scheduler, Self::BuiltIn];

    /// Its name among the parts of `muster up`.
    fn name(self) -> &'static str {
        match self {
            Self::Server => "apiserver",
            Self::Node => "node",
            Self::Trainer => "trainer",
            Self::Scheduler => "scheduler",
            Self::BuiltIn => "built-in",
        }
    }
}

/// A cluster in several processes.
pub(crate) struct Parts {
    pub(crate) home: Home,
    /// What does not run in the process of the server.
    apart: Vec<Part>,
    programs: BTreeMap<Part, Program>,
    /// Whether something of it may be there.
    begun: bool,
}

impl Parts {
    /// A cluster in which each of these parts has a process of its own.
    pub(crate) async fn start(alone: &[Part]) -> Self {
        Self::start_with(alone, alone).await
    }

    /// A cluster without these parts.
    pub(crate) async fn start_without(missing: &[Part]) -> Self {
        Self::start_with(missing, &[]).await
    }

    async fn start_with(apart: &[Part], alone: &[Part]) -> Self {
        let apart = apart.iter().copied().filter(|part| *part != Part::Server).collect();
        let mut parts = Self { home: Home::new(), programs: BTreeMap::new(), apart, begun: true };
        parts.run(Part::Server).await;
        for part in alone.iter().filter(|part| **part != Part::Server) {
            parts.run(*part).await;
        }
        parts
    }

    /// Starts a part and waits until it says that it works.
    pub(crate) async fn run(&mut self, part: Part) {
        self.run_with(part, &[]).await;
    }

    /// The same with more options.
    pub(crate) async fn run_with(&mut self, part: Part, options: &[&str]) {
        let (words, ready) = match part {
            Part::Server => {
                let with_server = Part::ALL.iter().filter(|part| !self.apart.contains(part));
                let names: Vec<&str> = with_server.map(|part| part.name()).collect();
                (vec!["up".to_owned(), format!("--only={}", names.join(","))], "ready in")
            }
            Part::Node => (vec!["node".to_owned()], "ready:"),
            controller => {
                let kubeconfig = format!("--kubeconfig={}", self.home.kubeconfig().display());
                let only = format!("--only={}", controller.name());
                let scheduler_names = "--scheduler-names=muster,default-scheduler".to_owned();
                (vec!["controller".to_owned(), kubeconfig, only, scheduler_names], "connected to")
            }
        };
        let words: Vec<&str> = words.iter().map(String::as_str).chain(options.iter().copied()).collect();
        let mut program = Program::start(self.home.muster(&words));
        program.error_line_with(ready).await;
        self.programs.insert(part, program);
    }

    /// Ends a part as a crash would.
    pub(crate) async fn kill(&mut self, part: Part) {
        let program = self.programs.remove(&part).expect("the part runs");
        program.signal(Signal::KILL);
        program.ended().await;
    }

    /// Kills a part and starts it again; the others live on.
    pub(crate) async fn crash(&mut self, part: Part) {
        self.kill(part).await;
        self.run(part).await;
        self.programs.values_mut().for_each(Program::assert_runs);
    }

    /// Ends a part with SIGTERM.
    pub(crate) async fn terminate(&mut self, part: Part) {
        let program = self.programs.remove(&part).expect("the part runs");
        program.signal(Signal::TERM);
        let finished = program.finish().await;
        assert_eq!(finished.code, 0, "{part:?}: {}", finished.stderr);
    }

    /// Ends every process with SIGTERM, the server last, and checks that nothing is left.
    pub(crate) async fn stop(mut self) {
        let families: Vec<u32> = self.programs.values().flat_map(|program| family(program.id())).collect();
        while let Some(part) = self.programs.keys().next_back().copied() {
            self.terminate(part).await;
        }
        wait_until_ended(&families).await;
        self.begun = false;
        self.home.assert_nothing_left().await;
    }

    /// Every process ends because somebody else told it to, and nothing is left.
    pub(crate) async fn gone(mut self) {
        while let Some((part, program)) = self.programs.pop_first() {
            let finished = program.finish().await;
            assert_eq!(finished.code, 0, "{part:?}: {}", finished.stderr);
        }
        self.begun = false;
        self.home.assert_nothing_left().await;
    }

    pub(crate) async fn muster(&self, words: &[&str]) -> Finished {
        self.home.run_muster(words).await
    }

    pub(crate) async fn kubectl(&self, words: &[&str]) -> Finished {
        self.home.run_kubectl(words).await
    }

    /// An object as JSON; null when it is not there.
    pub(crate) async fn object(&self, what: &str) -> Value {
        cluster::object(&self.home, what).await
    }
}

impl Drop for Parts {
    /// A test that failed leaves nothing either.
    fn drop(&mut self) {
        if self.begun {
            self.programs.clear();
            let mut down = std::process::Command::new(muster_path());
            let _best_effort =
                down.arg("down").env_remove("KUBECONFIG").env("MUSTER_HOME", self.home.path()).output();
        }
    }
}
