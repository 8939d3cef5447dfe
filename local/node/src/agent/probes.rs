//! Probes and lifecycle hooks: dialled from the node, or run beside the container.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{
    Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::worker::Word;

/// A hook without a deadline of its own may take so long.
const HOOK_PATIENCE: Duration = Duration::from_mins(10);

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    /// Holds back the others until the program is up.
    Startup,
    /// Restarts a program that hangs.
    Liveness,
    /// Takes a pod out of its services.
    Readiness,
}

impl ProbeKind {
    /// As events say it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What a probe concluded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As often in a row as asked.
    Success,
    /// As often in a row as asked, and the last reason.
    Failure(String),
}

/// Counts results in a row. Pure.
#[derive(Debug)]
struct Counter {
    success_threshold: u32,
    failure_threshold: u32,
    in_row: u32,
    last: Option<bool>,
    told: Option<bool>,
}

impl Counter {
    /// Takes a result; the outcome when it is reached anew.
    fn count(&mut self, result: Result<(), String>) -> Option<Outcome> {
        let success = result.is_ok();
        self.in_row = if self.last == Some(success) { self.in_row.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let needed = if success { self.success_threshold } else { self.failure_threshold };
        if self.in_row < needed || self.told == Some(success) {
            return None;
        }
        self.told = Some(success);
        Some(result.map_or_else(Outcome::Failure, |()| Outcome::Success))
    }
}

/// Starts the tasks that watch a running container.
pub(crate) fn watch(
    tasks: &mut JoinSet<()>,
    words: &mpsc::Sender<Word>,
    container: &Container,
    attempt: u32,
    address: &str,
    hook_done: bool,
) {
    let name = container.name.clone();
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.clone());
    if let Some(hook) = hook.filter(|_| !hook_done) {
        let (words, name, address) = (words.clone(), name.clone(), address.to_owned());
        tasks.spawn(async move {
            let result = run_hook(&words, &name, &hook, &address, HOOK_PATIENCE).await;
            let _ = words.send(Word::PostStart { container: name, attempt, result }).await;
        });
    }
    let (words, container, address) = (words.clone(), container.clone(), address.to_owned());
    tasks.spawn(async move {
        if let Some(probe) = &container.startup_probe {
            run_probe(&words, &container, attempt, &address, ProbeKind::Startup, probe).await;
        }
        let later = |kind, probe: &Option<Probe>| {
            let (words, container, address, probe) = (&words, &container, &address, probe.clone());
            async move {
                if let Some(probe) = probe {
                    run_probe(words, container, attempt, address, kind, &probe).await;
                }
            }
        };
        tokio::join!(
            later(ProbeKind::Liveness, &container.liveness_probe),
            later(ProbeKind::Readiness, &container.readiness_probe)
        );
    });
}

async fn run_probe(
    words: &mpsc::Sender<Word>,
    container: &Container,
    attempt: u32,
    address: &str,
    kind: ProbeKind,
    probe: &Probe,
) {
    let seconds = |value: Option<i32>, default: u64| {
        value.map_or(default, |value| u64::try_from(value).unwrap_or(default))
    };
    let count = |value: Option<i32>, default: u32| {
        value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default).max(1)
    };
    let period = Duration::from_secs(seconds(probe.period_seconds, 10).max(1));
    let patience = Duration::from_secs(seconds(probe.timeout_seconds, 1).max(1));
    let mut counter = Counter {
        success_threshold: count(probe.success_threshold, 1),
        failure_threshold: count(probe.failure_threshold, 3),
        in_row: 0,
        last: None,
        told: None,
    };
    tokio::time::sleep(Duration::from_secs(seconds(probe.initial_delay_seconds, 0))).await;
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let result = attempt_probe(words, container, probe, address, patience).await;
        let Some(outcome) = counter.count(result) else { continue };
        let over = kind == ProbeKind::Startup;
        let word = Word::Probe { container: container.name.clone(), attempt, kind, outcome };
        if words.send(word).await.is_err() || over {
            return;
        }
    }
}

async fn attempt_probe(
    words: &mpsc::Sender<Word>,
    container: &Container,
    probe: &Probe,
    address: &str,
    patience: Duration,
) -> Result<(), String> {
    if let Some(exec) = &probe.exec {
        return run_exec(words, &container.name, exec, patience).await;
    }
    let dialled = async {
        if let Some(action) = &probe.http_get {
            http_get(action, container, address).await
        } else if let Some(action) = &probe.tcp_socket {
            tcp_connect(action, container, address).await
        } else if let Some(action) = &probe.grpc {
            let port = u16::try_from(action.port).map_err(|_| "port is out of range".to_owned())?;
            connect(address, port).await.map(|_| ())
        } else {
            Err("the probe names no handler".to_owned())
        }
    };
    timeout(patience, dialled)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", patience.as_secs())))
}

/// Runs a lifecycle hook.
pub(crate) async fn run_hook(
    words: &mpsc::Sender<Word>,
    name: &str,
    hook: &LifecycleHandler,
    address: &str,
    patience: Duration,
) -> Result<(), String> {
    let no_ports = Container::default();
    let run = async {
        if let Some(exec) = &hook.exec {
            run_exec(words, name, exec, patience).await
        } else if let Some(action) = &hook.http_get {
            http_get(action, &no_ports, address).await
        } else if let Some(action) = &hook.tcp_socket {
            tcp_connect(action, &no_ports, address).await
        } else if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
            Ok(())
        } else {
            Ok(())
        }
    };
    timeout(patience, run).await.unwrap_or_else(|_| Err("the hook took too long".to_owned()))
}

async fn run_exec(
    words: &mpsc::Sender<Word>,
    container: &str,
    exec: &ExecAction,
    patience: Duration,
) -> Result<(), String> {
    let (answer, reply) = oneshot::channel();
    let argv = exec.command.clone().unwrap_or_default();
    let word = Word::Exec { container: container.to_owned(), argv, timeout: patience, answer };
    words.send(word).await.map_err(|_| "the pod is ending".to_owned())?;
    match reply.await.map_err(|_| "the pod is ending".to_owned())?? {
        (0, _) => Ok(()),
        (code, output) => Err(format!("exit code {code}: {}", output.trim_end())),
    }
}

fn port_number(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| format!("no port {port:?} in the container"))
}

async fn connect(address: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((address, port)).await.map_err(|error| format!("dial tcp {address}:{port}: {error}"))
}

async fn tcp_connect(action: &TCPSocketAction, container: &Container, address: &str) -> Result<(), String> {
    let address = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(address);
    connect(address, port_number(&action.port, container)?).await.map(|_| ())
}

async fn http_get(action: &HTTPGetAction, container: &Container, address: &str) -> Result<(), String> {
    if action.scheme.as_deref() == Some("HTTPS") {
        // As a kubelet, which does not check the certificate either; here only the connection is proven.
        return connect(address, port_number(&action.port, container)?).await.map(|_| ());
    }
    let address = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(address);
    let port = port_number(&action.port, container)?;
    let stream = connect(address, port).await?;
    let text = |error: hyper::Error| format!("Get \"http://{address}:{port}\": {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let path = action.path.as_deref().filter(|path| path.starts_with('/')).unwrap_or("/");
    let mut request = http::Request::get(path).header("Host", format!("{address}:{port}"));
    request = request.header("User-Agent", "kube-probe/1.36").header("Connection", "close");
    for header in action.http_headers.iter().flatten() {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status();
        let _ = response.into_body().collect().await;
        Ok::<_, String>(status)
    };
    tokio::pin!(exchange);
    let status = tokio::select! {
        status = &mut exchange => status,
        // It may be over because the answer is there, or because there will be none: the exchange knows.
        _ = connection => exchange.await,
    }?;
    if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_needs_its_number_of_results_in_a_row() {
        let mut counter =
            Counter { success_threshold: 2, failure_threshold: 3, in_row: 0, last: None, told: None };
        let fail = || Err("no".to_owned());
        assert_eq!(counter.count(Ok(())), None);
        assert_eq!(counter.count(fail()), None);
        assert_eq!(counter.count(Ok(())), None);
        assert_eq!(counter.count(Ok(())), Some(Outcome::Success));
        assert_eq!(counter.count(Ok(())), None, "told once");
        assert_eq!((counter.count(fail()), counter.count(fail())), (None, None));
        assert_eq!(counter.count(fail()), Some(Outcome::Failure("no".into())));
    }
}
