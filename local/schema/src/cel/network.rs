//! URLs, IP addresses and address ranges in CEL.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use cel::common::types::{DYN_TYPE, STRING_TYPE};
use cel::objects::Opaque;
use cel::{Env, ExecutionError, Value};
use regex::Regex;

use super::functions::{failure, global, member, string, text};

/// An absolute URL or an absolute path, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ip(IpAddr);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cidr {
    address: IpAddr,
    length: u8,
}

impl Opaque for Url {
    fn runtime_type_name(&self) -> &'static str {
        "kubernetes.URL"
    }
}

impl Opaque for Ip {
    fn runtime_type_name(&self) -> &'static str {
        "net.IP"
    }
}

impl Opaque for Cidr {
    fn runtime_type_name(&self) -> &'static str {
        "net.CIDR"
    }
}

static URL: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^(?:([A-Za-z][A-Za-z0-9+.-]*)://(?:[^/?#@\s]*@)?([^/?#\s]*))?(/[^?#\s]*)?(?:\?([^#\s]*))?(?:#\S*)?$").ok()
});

impl Url {
    fn parse(text: &str) -> Option<Self> {
        let parts = URL.as_ref()?.captures(text)?;
        let part = |position| parts.get(position).map_or_else(String::new, |part| part.as_str().to_owned());
        if parts.get(1).is_none() && parts.get(3).is_none() {
            return None;
        }
        Some(Self { scheme: part(1), host: part(2), path: part(3), query: part(4) })
    }

    /// The host without its port, and the port.
    fn authority(&self) -> (&str, &str) {
        let end = self.host.rfind(']').map_or(0, |bracket| bracket + 1);
        match self.host.get(end..).and_then(|rest| rest.rfind(':')) {
            Some(colon) => {
                let (host, port) = self.host.split_at(end + colon);
                (host.trim_start_matches('[').trim_end_matches(']'), port.trim_start_matches(':'))
            }
            None => (self.host.trim_start_matches('[').trim_end_matches(']'), ""),
        }
    }
}

impl Cidr {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let length: u8 = length.parse().ok()?;
        (length <= bits(address)).then_some(Self { address, length })
    }

    fn contains(self, address: IpAddr) -> bool {
        bits(self.address) == bits(address)
            && masked(self.address, self.length) == masked(address, self.length)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first `length` bits of an address.
fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

pub(super) fn register(env: &mut Env) {
    global!(env, "url", [STRING_TYPE], url);
    global!(env, "isURL", [STRING_TYPE], is_url);
    member!(env, "getScheme", DYN_TYPE, [], scheme);
    member!(env, "getHost", DYN_TYPE, [], host);
    member!(env, "getHostname", DYN_TYPE, [], hostname);
    member!(env, "getPort", DYN_TYPE, [], port);
    member!(env, "getEscapedPath", DYN_TYPE, [], path);
    member!(env, "getQuery", DYN_TYPE, [], query);
    global!(env, "ip", [DYN_TYPE], ip);
    global!(env, "isIP", [STRING_TYPE], is_ip);
    global!(env, "cidr", [STRING_TYPE], cidr);
    global!(env, "isCIDR", [STRING_TYPE], is_cidr);
    member!(env, "ip", DYN_TYPE, [], ip);
    member!(env, "family", DYN_TYPE, [], family);
    member!(env, "isLoopback", DYN_TYPE, [], is_loopback);
    member!(env, "isUnspecified", DYN_TYPE, [], is_unspecified);
    member!(env, "containsIP", DYN_TYPE, [DYN_TYPE], contains_ip);
    member!(env, "containsCIDR", DYN_TYPE, [DYN_TYPE], contains_cidr);
    member!(env, "prefixLength", DYN_TYPE, [], prefix_length);
    member!(env, "masked", DYN_TYPE, [], masked_range);
}

fn opaque<T: Copy + 'static>(arguments: &[Value], position: usize) -> Option<T> {
    match arguments.get(position) {
        Some(Value::Opaque(opaque)) => opaque.downcast_ref::<T>().copied(),
        _ => None,
    }
}

fn no_overload() -> ExecutionError {
    failure("no such overload")
}

fn with_url(arguments: &[Value], part: impl FnOnce(&Url) -> Value) -> Result<Value, ExecutionError> {
    match arguments.first() {
        Some(Value::Opaque(opaque)) => opaque.downcast_ref::<Url>().map(part).ok_or_else(no_overload),
        _ => Err(no_overload()),
    }
}

fn url(arguments: &[Value]) -> Result<Value, ExecutionError> {
    let source = text(arguments, 0)?;
    match Url::parse(source) {
        Some(url) => Ok(Value::Opaque(Arc::new(url))),
        None => Err(failure(format!(
            "URL parse error during conversion from string: parse \"{source}\": invalid URI for request"
        ))),
    }
}

fn is_url(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(Value::Bool(Url::parse(text(arguments, 0)?).is_some()))
}

fn scheme(arguments: &[Value]) -> Result<Value, ExecutionError> {
    with_url(arguments, |url| string(url.scheme.as_str()))
}

fn host(arguments: &[Value]) -> Result<Value, ExecutionError> {
    with_url(arguments, |url| string(url.host.as_str()))
}

fn hostname(arguments: &[Value]) -> Result<Value, ExecutionError> {
    with_url(arguments, |url| string(url.authority().0))
}

fn port(arguments: &[Value]) -> Result<Value, ExecutionError> {
    with_url(arguments, |url| string(url.authority().1))
}

fn path(arguments: &[Value]) -> Result<Value, ExecutionError> {
    with_url(arguments, |url| string(url.path.as_str()))
}

/// A map of lists, as several values may share a name.
fn query(arguments: &[Value]) -> Result<Value, ExecutionError> {
    with_url(arguments, |url| {
        let mut values: std::collections::HashMap<String, Vec<Value>> = std::collections::HashMap::new();
        for pair in url.query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            values.entry(name.to_owned()).or_default().push(string(value));
        }
        let values: std::collections::HashMap<String, Value> =
            values.into_iter().map(|(name, values)| (name, Value::List(Arc::new(values)))).collect();
        Value::Map(values.into())
    })
}

fn ip(arguments: &[Value]) -> Result<Value, ExecutionError> {
    if let Some(cidr) = opaque::<Cidr>(arguments, 0) {
        return Ok(Value::Opaque(Arc::new(Ip(cidr.address))));
    }
    let source = text(arguments, 0)?;
    let problem = || failure(format!("IP Address \"{source}\" parse error during conversion from string"));
    let address = source.parse().map_err(|_| problem())?;
    Ok(Value::Opaque(Arc::new(Ip(address))))
}

fn is_ip(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(Value::Bool(text(arguments, 0)?.parse::<IpAddr>().is_ok()))
}

fn cidr(arguments: &[Value]) -> Result<Value, ExecutionError> {
    let source = text(arguments, 0)?;
    let problem =
        || failure(format!("network address parse error during conversion from string: \"{source}\""));
    Cidr::parse(source).map(|cidr| Value::Opaque(Arc::new(cidr))).ok_or_else(problem)
}

fn is_cidr(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(Value::Bool(Cidr::parse(text(arguments, 0)?).is_some()))
}

fn address(arguments: &[Value], position: usize) -> Result<IpAddr, ExecutionError> {
    if let Some(Ip(address)) = opaque(arguments, position) {
        return Ok(address);
    }
    text(arguments, position)?.parse().map_err(|_| no_overload())
}

fn range(arguments: &[Value], position: usize) -> Result<Cidr, ExecutionError> {
    match opaque(arguments, position) {
        Some(cidr) => Ok(cidr),
        None => Cidr::parse(text(arguments, position)?).ok_or_else(no_overload),
    }
}

fn family(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(Value::Int(if address(arguments, 0)?.is_ipv4() { 4 } else { 6 }))
}

fn is_loopback(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(Value::Bool(address(arguments, 0)?.is_loopback()))
}

fn is_unspecified(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(Value::Bool(address(arguments, 0)?.is_unspecified()))
}

fn contains_ip(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(Value::Bool(range(arguments, 0)?.contains(address(arguments, 1)?)))
}

fn contains_cidr(arguments: &[Value]) -> Result<Value, ExecutionError> {
    let (outer, inner) = (range(arguments, 0)?, range(arguments, 1)?);
    Ok(Value::Bool(outer.length <= inner.length && outer.contains(inner.address)))
}

fn prefix_length(arguments: &[Value]) -> Result<Value, ExecutionError> {
    Ok(Value::Int(i64::from(range(arguments, 0)?.length)))
}

fn masked_range(arguments: &[Value]) -> Result<Value, ExecutionError> {
    let range = range(arguments, 0)?;
    let address = masked(range.address, range.length);
    Ok(Value::Opaque(Arc::new(Cidr { address, length: range.length })))
}
