//! The address under which others reach this host.

use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};

use crate::member::Error;

/// The address under which other hosts reach this one, which is the one from which it reaches the rendezvous at one of
/// `rendezvous`; one of version 6 in brackets.
pub fn own_address(rendezvous: &[String]) -> Result<String, Error> {
    let failed = |message: String| Error::Setup { action: "find this host's own address", message };
    let place = |address: &String| {
        address.split_once("://").map_or(&**address, |(_, place)| place).trim_end_matches('/').to_owned()
    };
    let (mut addresses, mut unknown) = (Vec::new(), Vec::new());
    for place in rendezvous.iter().map(place) {
        match place.to_socket_addrs() {
            Ok(found) => addresses.extend(found),
            Err(error) => unknown.push(format!("{place}: {error}")),
        }
    }
    let found = addresses.into_iter().find_map(|address: SocketAddr| {
        let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).ok()?;
        // Nothing is sent: this only looks the route up.
        socket.connect(address).ok()?;
        Some(socket.local_addr().ok()?.ip())
    });
    let ip = found.ok_or_else(|| {
        let nowhere = || format!("there is no route to {}", rendezvous.join(" or "));
        failed(if unknown.is_empty() { nowhere() } else { unknown.join(", ") })
    })?;
    Ok(if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_address_is_that_of_the_route() {
        assert_eq!(own_address(&["http://127.0.0.1:9".into()]).unwrap(), "127.0.0.1");
        assert_eq!(
            own_address(&["http://nowhere".into(), "https://127.0.0.1:9/".into()]).unwrap(),
            "127.0.0.1"
        );
        let message = own_address(&["http://nowhere".into()]).unwrap_err().to_string();
        assert!(message.starts_with("cannot find this host's own address: nowhere: "), "{message}");
    }
}
