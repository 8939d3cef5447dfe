//! A job that runs until the test says otherwise, and that writes down who ran when.

use std::path::PathBuf;

use fs_err as fs;
use serde_json::Value;

use super::manifests::ShellJob;
use super::{Home, cluster};

/// Its pods.
pub(crate) const MEMBERS: [&str; 3] = ["master-0", "worker-0", "worker-1"];

/// A job of a master and two workers whose containers run until a file is there.
pub(crate) struct GatedJob {
    pub(crate) name: String,
    folder: PathBuf,
}

impl GatedJob {
    /// Writes its manifest, `NAME.yaml`.
    pub(crate) fn write(home: &Home, name: &str) -> Self {
        let folder = home.work().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        // Whoever runs beside another of the same rank cannot have its lock. The job ends with its master, which
        // therefore waits for the others of its gang.
        let script = format!(
            "exec 9>>/gate/lock-$RANK; flock -n 9 || echo rank $RANK >> /gate/twice; echo $RANK >> /gate/starts; \
             DONE=/gate/done-$GENERATION; rm -f $DONE-$RANK; while [ ! -e /gate/open ]; do sleep 0.05; done; \
             echo {name} rank $RANK is done; touch $DONE-$RANK; \
             while [ $RANK = 0 ] && ! [ -e $DONE-1 -a -e $DONE-2 ]; do sleep 0.05; done"
        );
        let yaml = ShellJob { name, script: &script, workers: 2, gpus: 1, ..ShellJob::default() }.yaml();
        let generation = "metadata.labels['muster.dev/gang-generation']";
        let environment = format!(
            "              env:\n                - {{name: GENERATION, valueFrom: {{fieldRef: {{fieldPath: \"{generation}\"}}}}}}\n"
        );
        let mount = "              volumeMounts:\n                - {name: gate, mountPath: /gate}\n";
        let volume = format!(
            "          volumes:\n            - {{name: gate, hostPath: {{path: {}}}}}\n",
            folder.display()
        );
        // Memory limits make control groups.
        let limits = "                  nvidia.com/gpu: 1\n";
        let memory = "                  memory: 64Mi\n";
        home.write(
            &format!("{name}.yaml"),
            &yaml.replace(limits, &format!("{limits}{memory}{environment}{mount}{volume}")),
        );
        Self { name: name.to_owned(), folder }
    }

    /// Submits it.
    pub(crate) async fn submit(&self, home: &Home) {
        home.run_muster(&["submit", &format!("{}.yaml", self.name)]).await.succeeded();
    }

    pub(crate) fn pod(&self, member: &str) -> String {
        format!("pod/{}-{member}", self.name)
    }

    pub(crate) fn reference(&self) -> String {
        format!("pytorchjob/{}", self.name)
    }

    /// Lets its containers end.
    pub(crate) fn open(&self) {
        fs::write(self.folder.join("open"), "").expect("the gate");
    }

    /// The file that a rank keeps open.
    pub(crate) fn lock(&self, rank: usize) -> PathBuf {
        self.folder.join(format!("lock-{rank}"))
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// How often a rank was started.
    pub(crate) fn starts(&self, rank: usize) -> usize {
        self.lines("starts").iter().filter(|line| **line == rank.to_string()).count()
    }

    /// How often its gang was restarted.
    pub(crate) async fn restarts(&self, home: &Home) -> usize {
        restarts(&cluster::object(home, &self.reference()).await)
    }

    /// It succeeds with at most so many restarts of its gang; no rank ran twice at once, or more often than the
    /// restarts account for.
    pub(crate) async fn assert_ends_well(&self, home: &Home, most_restarts: usize) {
        cluster::wait_for(home, &self.reference(), "condition=Succeeded").await;
        let restarts = self.restarts(home).await;
        assert!(restarts <= most_restarts, "{} was restarted {restarts} times", self.name);
        assert_eq!(self.lines("twice"), Vec::<String>::new(), "two of one rank ran at once");
        for rank in 0..MEMBERS.len() {
            let starts = self.starts(rank);
            assert!(
                (1..=1 + restarts).contains(&starts),
                "rank {rank} started {starts} times, {restarts} restarts"
            );
        }
        let selector = format!("training.kubeflow.org/job-name={}", self.name);
        let pods = home.run_kubectl(&["get", "pods", "-l", &selector, "-o", "name"]).await.succeeded().stdout;
        let wanted: Vec<String> = MEMBERS.iter().map(|member| self.pod(member)).collect();
        assert!(pods.lines().all(|pod| wanted.iter().any(|wanted| wanted == pod)), "other pods: {pods}");
        let log = home.run_muster(&["logs", &self.pod("worker-1")]).await.succeeded().stdout;
        assert!(log.ends_with(&format!("{} rank 2 is done\n", self.name)), "{log}");
    }
}

/// How often the gang of a job was restarted.
pub(crate) fn restarts(job: &Value) -> usize {
    let count = &job["metadata"]["annotations"]["muster.dev/restart-count"];
    count.as_str().map_or(0, |count| count.parse().expect("a number"))
}
