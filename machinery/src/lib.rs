//! What every controller and long-running part shares, and nothing else: time, shutdown, telemetry,
//! leader election, endpoints of leaders, pauses of watches, how servers take connections, and errors that tell people what to do next.

pub mod clock;
pub mod endpoint;
pub mod exporter;
pub mod hint;
pub mod leader;
pub mod server;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod watch;

pub use clock::{Clock, SystemClock};
pub use endpoint::Endpoint;
pub use hint::Hint;
pub use tokio_util::sync::CancellationToken;
