//! `muster up` as a process.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, interval};

use super::home::{family, wait_until_ended};
use super::program::{DEADLINE, Finished, Program, muster_path};
use super::{Home, program};

/// A cluster that runs.
pub(crate) struct Cluster {
    pub(crate) home: Home,
    program: Option<Program>,
    /// Whether something of it may be there.
    begun: bool,
    /// The line that says that it is ready.
    pub(crate) ready: String,
}

impl Cluster {
    pub(crate) async fn start(options: &[&str]) -> Self {
        Self::start_in(Home::new(), options).await
    }

    pub(crate) async fn start_in(home: Home, options: &[&str]) -> Self {
        let words = [&["up"], options].concat();
        let mut cluster = Self { program: None, begun: true, ready: String::new(), home };
        let mut program = Program::start(cluster.home.muster(&words));
        cluster.ready = program.error_line_with("ready in").await;
        cluster.program = Some(program);
        cluster
    }

    /// Ends it as a crash would.
    pub(crate) async fn kill(mut self) -> Home {
        let program = self.program.take().expect("the cluster runs");
        program.signal(Signal::KILL);
        // Its pods go on and may hold its output open, so only the process itself is waited for.
        program.ended().await;
        self.begun = false;
        std::mem::replace(&mut self.home, Home::new())
    }

    /// Ends it with SIGTERM and checks that nothing is left.
    pub(crate) async fn stop(mut self) {
        let program = self.program.take().expect("the cluster runs");
        let family = family(program.id());
        program.signal(Signal::TERM);
        let finished = program.finish().await;
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        wait_until_ended(&family).await;
        self.begun = false;
        self.home.assert_nothing_left().await;
    }

    pub(crate) async fn muster(&self, words: &[&str]) -> Finished {
        self.home.run_muster(words).await
    }

    pub(crate) async fn kubectl(&self, words: &[&str]) -> Finished {
        self.home.run_kubectl(words).await
    }

    /// Waits until an object fulfils a condition as `kubectl wait --for` understands it.
    pub(crate) async fn wait_for(&self, what: &str, condition: &str) {
        wait_for(&self.home, what, condition).await;
    }

    /// An object as JSON; null when it is not there.
    pub(crate) async fn object(&self, what: &str) -> Value {
        object(&self.home, what).await
    }
}

impl Drop for Cluster {
    /// A test that failed leaves nothing either.
    fn drop(&mut self) {
        if self.begun {
            self.program.take();
            let mut down = std::process::Command::new(muster_path());
            let _best_effort =
                down.arg("down").env_remove("KUBECONFIG").env("MUSTER_HOME", self.home.path()).output();
        }
    }
}

pub(crate) async fn wait_for(home: &Home, what: &str, condition: &str) {
    let (condition, limit) =
        (format!("--for={condition}"), format!("--timeout={}s", DEADLINE.as_secs() - 10));
    let deadline = Instant::now() + DEADLINE;
    let mut every = interval(Duration::from_millis(50));
    loop {
        every.tick().await;
        let waited = home.run_kubectl(&["wait", &condition, what, &limit]).await;
        // `kubectl wait` wants the object to be there.
        if waited.code != 0 && waited.stderr.contains("NotFound") && Instant::now() < deadline {
            continue;
        }
        if waited.code != 0 {
            let shown = home.run_kubectl(&["get", "pods,pytorchjobs,mpijobs,events"]).await.stdout;
            panic!("{what} {condition}: {}{shown}", waited.stderr);
        }
        return;
    }
}

pub(crate) async fn object(home: &Home, what: &str) -> Value {
    let words = ["get", what, "--ignore-not-found", "-o", "json"];
    let text = program::run(home.kubectl(&words)).await.succeeded().stdout;
    if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") }
}
