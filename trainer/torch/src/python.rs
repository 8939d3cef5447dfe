//! The module `muster_torch._native`: groups, requests and tickets for the Python package, which knows torch.

// Arguments of Python functions arrive by value, and a process group's calls have as many as they have.
#![allow(clippy::too_many_arguments)]

use std::path::PathBuf;
use std::time::Duration;

use muster_collectives::{NetworkOptions, Options, Reduction, Token};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::element_type::{ElementType, reduction};
use crate::failure::Failure;
use crate::group::Group;
use crate::request::Request;
use crate::tensor::Tensor;
use crate::ticket::Ticket;

/// How often a waiting thread asks whether the program was interrupted.
const INTERRUPTIBLE: Duration = Duration::from_millis(200);

/// `(address, elements, name of the element type, bytes of an element)`.
#[derive(FromPyObject)]
struct TensorArgument(usize, usize, String, usize);

impl TensorArgument {
    fn element_type(&self) -> PyResult<ElementType> {
        ElementType::parse(&self.2, self.3).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    fn reduction(&self, name: &str) -> PyResult<Reduction> {
        let reduction = reduction(name, &self.2, self.element_type()?);
        reduction.map_err(|error| PyValueError::new_err(error.to_string()))
    }

    #[allow(unsafe_code)]
    fn tensor(&self) -> PyResult<Tensor> {
        // SAFETY: the package passes contiguous tensors with what keeps them alive, which the request holds until it has
        // ended; that the program lets the memory alone meanwhile is torch's rule for collectives.
        let tensor = unsafe { Tensor::new(self.0, self.1, self.element_type()?) };
        tensor.map_err(|error| PyValueError::new_err(error.to_string()))
    }
}

/// The exception of the package that says this.
fn exception(python: Python<'_>, failure: &Failure) -> PyErr {
    let made = python.import("muster_torch.errors").and_then(|errors| {
        errors.call_method1("of_failure", (failure.kind.name(), &failure.message, failure.rank))
    });
    made.map_or_else(|error| error, PyErr::from_value)
}

/// A rank's place in a group.
#[pyclass(name = "Group", frozen, module = "muster_torch._native")]
struct PyGroup(Group);

impl PyGroup {
    fn make(&self, python: Python<'_>, request: Request, keep: Py<PyAny>, background: bool) -> PyTicket {
        if background {
            return PyTicket(self.0.submit(request, Box::new(keep)));
        }
        // The caller's frame holds the tensors too, so that nothing need be given back without the interpreter.
        let outcome = python.detach(|| self.0.submit_and_wait(request, Box::new(())));
        drop(keep);
        let (ticket, promise) = Ticket::new();
        promise.keep(outcome);
        PyTicket(ticket)
    }
}

#[pymethods]
impl PyGroup {
    /// Forms the group; blocks until all ranks have come, `timeout` seconds at most.
    #[staticmethod]
    #[pyo3(signature = (*, directory, name, rank, world_size, host, timeout, ranks, address=None, token=None))]
    fn connect(
        python: Python<'_>,
        directory: PathBuf,
        name: String,
        rank: usize,
        world_size: usize,
        host: String,
        timeout: f64,
        ranks: Vec<usize>,
        address: Option<String>,
        token: Option<Vec<u8>>,
    ) -> PyResult<Self> {
        let timeout = seconds(timeout)?;
        let network = address.map(|address| {
            let token = token.map(Token::new).unwrap_or_default();
            NetworkOptions { token, ..NetworkOptions::new(address) }
        });
        let options = Options {
            host,
            network,
            join_deadline: timeout,
            deadline: timeout,
            // Torch owns the memory of tensors.
            arena_bytes: 0,
            ..Options::new(directory, name, rank, world_size)
        };
        let group = python.detach(|| Group::connect(&options, ranks));
        group.map(Self).map_err(|failure| exception(python, &failure))
    }

    fn barrier(&self, python: Python<'_>, keep: Py<PyAny>, background: bool) -> PyTicket {
        self.make(python, Request::Barrier, keep, background)
    }

    /// Reduces each of the tensors.
    fn all_reduce(
        &self,
        python: Python<'_>,
        tensors: Vec<TensorArgument>,
        operation: &str,
        keep: Py<PyAny>,
        background: bool,
    ) -> PyResult<PyTicket> {
        let one = |tensor: &TensorArgument| -> PyResult<Request> {
            Ok(Request::AllReduce { data: tensor.tensor()?, reduction: tensor.reduction(operation)? })
        };
        let mut requests = tensors.iter().map(one).collect::<PyResult<Vec<_>>>()?;
        let request = match requests.pop() {
            Some(only) if requests.is_empty() => only,
            last => {
                requests.extend(last);
                Request::Several(requests)
            }
        };
        Ok(self.make(python, request, keep, background))
    }

    fn reduce(
        &self,
        python: Python<'_>,
        tensor: TensorArgument,
        operation: &str,
        root: usize,
        keep: Py<PyAny>,
        background: bool,
    ) -> PyResult<PyTicket> {
        let request =
            Request::Reduce { data: tensor.tensor()?, reduction: tensor.reduction(operation)?, root };
        Ok(self.make(python, request, keep, background))
    }

    fn reduce_scatter(
        &self,
        python: Python<'_>,
        send: TensorArgument,
        receive: TensorArgument,
        counts: Option<Vec<usize>>,
        operation: &str,
        keep: Py<PyAny>,
        background: bool,
    ) -> PyResult<PyTicket> {
        let reduction = send.reduction(operation)?;
        let request =
            Request::ReduceScatter { send: send.tensor()?, receive: receive.tensor()?, counts, reduction };
        Ok(self.make(python, request, keep, background))
    }

    fn broadcast(
        &self,
        python: Python<'_>,
        tensor: TensorArgument,
        root: usize,
        keep: Py<PyAny>,
        background: bool,
    ) -> PyResult<PyTicket> {
        let request = Request::Broadcast { data: tensor.tensor()?, root };
        Ok(self.make(python, request, keep, background))
    }

    fn all_gather(
        &self,
        python: Python<'_>,
        send: TensorArgument,
        receive: TensorArgument,
        counts: Option<Vec<usize>>,
        keep: Py<PyAny>,
        background: bool,
    ) -> PyResult<PyTicket> {
        let request = Request::AllGather { send: send.tensor()?, receive: receive.tensor()?, counts };
        Ok(self.make(python, request, keep, background))
    }

    fn gather(
        &self,
        python: Python<'_>,
        send: TensorArgument,
        receive: TensorArgument,
        root: usize,
        keep: Py<PyAny>,
        background: bool,
    ) -> PyResult<PyTicket> {
        let request = Request::Gather { send: send.tensor()?, receive: receive.tensor()?, root };
        Ok(self.make(python, request, keep, background))
    }

    fn scatter(
        &self,
        python: Python<'_>,
        send: TensorArgument,
        receive: TensorArgument,
        root: usize,
        keep: Py<PyAny>,
        background: bool,
    ) -> PyResult<PyTicket> {
        let request = Request::Scatter { send: send.tensor()?, receive: receive.tensor()?, root };
        Ok(self.make(python, request, keep, background))
    }

    /// `counts` are the elements that go to each rank and that come from it.
    fn all_to_all(
        &self,
        python: Python<'_>,
        send: TensorArgument,
        receive: TensorArgument,
        counts: Option<(Vec<usize>, Vec<usize>)>,
        keep: Py<PyAny>,
        background: bool,
    ) -> PyResult<PyTicket> {
        let request = Request::AllToAll { send: send.tensor()?, receive: receive.tensor()?, counts };
        Ok(self.make(python, request, keep, background))
    }

    fn send(
        &self,
        python: Python<'_>,
        tensor: TensorArgument,
        to: usize,
        keep: Py<PyAny>,
    ) -> PyResult<PyTicket> {
        Ok(self.make(python, Request::Send { data: tensor.tensor()?, to }, keep, true))
    }

    fn receive(
        &self,
        python: Python<'_>,
        tensor: TensorArgument,
        from: usize,
        keep: Py<PyAny>,
    ) -> PyResult<PyTicket> {
        Ok(self.make(python, Request::Receive { data: tensor.tensor()?, from }, keep, true))
    }

    /// Whether no request is under way or waits.
    fn is_idle(&self) -> bool {
        self.0.is_idle()
    }

    /// Ends the group on all ranks.
    fn abort(&self) {
        self.0.abort();
    }

    /// Makes the requests that wait, and leaves the group.
    fn close(&self, python: Python<'_>) {
        python.detach(|| self.0.close());
    }
}

/// Tells how a request ended.
#[pyclass(name = "Ticket", frozen, module = "muster_torch._native")]
struct PyTicket(Ticket);

#[pymethods]
impl PyTicket {
    /// Returns once the request has ended well; raises if it failed, or has not ended after `longest` seconds.
    #[pyo3(signature = (longest=None))]
    fn wait(&self, python: Python<'_>, longest: Option<f64>) -> PyResult<()> {
        let longest = longest.map_or(Ok(Duration::MAX), seconds)?;
        let mut left = longest;
        loop {
            let slice = left.min(INTERRUPTIBLE);
            if let Some(outcome) = python.detach(|| self.0.wait(slice)) {
                return outcome.map_err(|failure| exception(python, &failure));
            }
            python.check_signals()?;
            left = left.saturating_sub(slice);
            if left.is_zero() {
                return Err(exception(python, &Failure::unfinished(longest)));
            }
        }
    }

    /// Whether the request has ended, well or not.
    fn is_ended(&self) -> bool {
        self.0.outcome().is_some()
    }

    /// The exception of a request that has failed.
    fn exception(&self, python: Python<'_>) -> Option<Py<PyAny>> {
        let failure = self.0.outcome()?.err()?;
        Some(exception(python, &failure).into_value(python).into_any())
    }

    /// Calls `listener` without arguments once the request has ended: on the thread that ended it, or at once.
    fn when_ended(&self, python: Python<'_>, listener: Py<PyAny>) {
        python.detach(|| {
            self.0.when_ended(move || {
                // Nothing is told to an interpreter that is about to end.
                let _ = Python::try_attach(|python| {
                    if let Err(error) = listener.call0(python) {
                        error.write_unraisable(python, Some(listener.bind(python)));
                    }
                });
            });
        });
    }
}

/// A length of time, of which Python has negative and infinite ones.
fn seconds(seconds: f64) -> PyResult<Duration> {
    if seconds == f64::INFINITY {
        return Ok(Duration::MAX);
    }
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| PyRuntimeError::new_err(format!("{seconds} s are no time to wait: {error}")))
}

/// What `muster_torch` is made of.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::{PyGroup, PyTicket};
}
