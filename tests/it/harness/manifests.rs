//! Small jobs that a test submits.

/// A PyTorchJob with a master and workers that run a shell script.
pub(crate) struct ShellJob<'a> {
    pub(crate) name: &'a str,
    pub(crate) script: &'a str,
    pub(crate) workers: u32,
    pub(crate) restart_policy: &'a str,
    pub(crate) gpus: u32,
}

impl Default for ShellJob<'_> {
    fn default() -> Self {
        Self { name: "job", script: "true", workers: 1, restart_policy: "OnFailure", gpus: 0 }
    }
}

impl ShellJob<'_> {
    pub(crate) fn yaml(&self) -> String {
        let mut text = format!(
            "apiVersion: kubeflow.org/v1\nkind: PyTorchJob\nmetadata:\n  name: {}\nspec:\n  pytorchReplicaSpecs:\n",
            self.name
        );
        text += &self.replicas("Master", 1);
        if self.workers > 0 {
            text += &self.replicas("Worker", self.workers);
        }
        text
    }

    fn replicas(&self, role: &str, count: u32) -> String {
        let Self { script, restart_policy, gpus, .. } = self;
        let script = serde_json::Value::from(*script);
        format!(
            "    {role}:
      replicas: {count}
      restartPolicy: {restart_policy}
      template:
        spec:
          terminationGracePeriodSeconds: 0
          containers:
            - name: pytorch
              image: host
              command: [sh, -c, {script}]
              resources:
                limits:
                  nvidia.com/gpu: {gpus}
"
        )
    }
}
