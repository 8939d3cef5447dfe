//! What the process counts and measures, for Prometheus: `/metrics`, and `/healthz` beside it.

use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::server;

/// Bounds of the buckets of times, in seconds: from a decision of a scheduler to a day in line.
const SECONDS: [f64; 20] = [
    0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
    10_800.0, 21_600.0, 43_200.0, 86_400.0,
];
/// How often samples are put into their buckets when nobody asks.
const UPKEEP: Duration = Duration::from_secs(5);
/// The form of the answer.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Collects what is counted and measured by the `metrics` crate.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
}

impl Exporter {
    /// Collects from now on, for the whole process.
    ///
    /// # Errors
    /// When something collects already.
    pub fn install() -> Result<Self, BuildError> {
        let builder = PrometheusBuilder::new();
        let handle = builder
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
            .install_recorder()?;
        Ok(Self { handle })
    }

    /// Everything, in Prometheus' text form.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Answers until the shutdown.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let upkeep = async {
            loop {
                tokio::time::sleep(UPKEEP).await;
                self.handle.run_upkeep();
            }
        };
        let exporter = self.clone();
        let answer = move |request: Request<Incoming>| {
            let answer = exporter.answer(request.method(), request.uri().path());
            async move { answer }
        };
        tokio::select! {
            () = server::serve(listener, None, shutdown, answer) => {}
            () = upkeep => {}
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<String> {
        let (status, body) = match (method, path) {
            (&Method::GET, "/metrics") => (StatusCode::OK, self.render()),
            (&Method::GET, "/healthz") => (StatusCode::OK, "ok".to_owned()),
            _ => (StatusCode::NOT_FOUND, "here are /metrics and /healthz".to_owned()),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(CONTENT_TYPE));
        response
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn what_was_measured_is_served() {
        let exporter = Exporter::install().unwrap();
        assert!(Exporter::install().is_err(), "a process has one");
        metrics::histogram!("decision_seconds").record(0.002);
        metrics::counter!("bindings_total", "result" => "bound").increment(3);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(exporter.serve(listener, stop.clone()));
        let get = async |path: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = get("/metrics").await;
        assert!(answer.contains("bindings_total{result=\"bound\"} 3"), "{answer}");
        assert!(answer.contains("decision_seconds_bucket{le=\"0.003\"} 1"), "{answer}");
        assert!(get("/healthz").await.ends_with("ok"));
        assert!(get("/").await.starts_with("HTTP/1.1 404"));
        stop.cancel();
        server.await.unwrap();
    }
}
